-- name: partner_states
-- Every partner: its credential and what is mirrored. `partner_id` null: all.
SELECT
    c.credential_id,
    p.partner_id,
    p.name,
    p.paused_at,
    c.kind,
    c.fingerprint,
    c.verified_at,
    c.failing_since,
    c.failing_reason,
    (
        SELECT count(*)
        FROM bibwire.races AS r
        WHERE r.partner_id = p.partner_id AND r.removed_at IS NULL
    ),
    (
        SELECT count(*)
        FROM bibwire.events AS e
        WHERE e.partner_id = p.partner_id AND e.removed_at IS NULL
    ),
    coalesce(x.active, 0),
    (
        SELECT count(*)
        FROM bibwire.quarantine AS q
        WHERE q.partner_id = p.partner_id AND q.resolved_at IS NULL
    ),
    coalesce(h.last_seq, 0),
    l.verified_at,
    coalesce(l.verify_failures, '[]'),
    l.next_verify_at
FROM bibwire.partners AS p
JOIN bibwire.credentials AS c USING (partner_id)
LEFT JOIN bibwire.plans AS l USING (partner_id)
LEFT JOIN bibwire.feed_heads AS h USING (partner_id)
LEFT JOIN (
    -- One pass over the table: measured at 400,000 people 0.1 s, by a count a partner 1.3 s.
    SELECT q.partner_id, count(*) FILTER (WHERE q.removed_at IS NULL) AS active
    FROM bibwire.participants AS q
    WHERE %(partner_id)s::bigint IS NULL OR q.partner_id = %(partner_id)s
    GROUP BY q.partner_id
) AS x USING (partner_id)
WHERE %(partner_id)s::bigint IS NULL OR p.partner_id = %(partner_id)s
ORDER BY p.name;

-- name: race_counts
-- By partner: races that sync keeps fresh, and those it does not load, because all their events
-- ended more than 7 days ago.
SELECT
    x.partner_id,
    count(*) FILTER (WHERE x.live),
    count(*) FILTER (WHERE NOT x.live AND NOT x.loaded)
FROM (
    SELECT
        r.partner_id,
        s.loaded_at IS NOT NULL AS loaded,
        bool_or(coalesce(e.lasts_until + interval '168 hours' > now(), true)) AS live
    FROM bibwire.races AS r
    JOIN bibwire.events AS e USING (partner_id, race_id)
    LEFT JOIN bibwire.scopes AS s USING (partner_id, race_id)
    WHERE r.removed_at IS NULL
      AND e.removed_at IS NULL
      AND (%(partner_id)s::bigint IS NULL OR r.partner_id = %(partner_id)s)
    GROUP BY r.partner_id, r.race_id, s.loaded_at
) AS x
GROUP BY x.partner_id;

-- name: races_not_among
-- A partner's loaded and live races that its race list shows and that are not among these.
SELECT r.race_id, r.name
FROM bibwire.races AS r
JOIN bibwire.scopes AS s USING (partner_id, race_id)
WHERE r.partner_id = %(partner_id)s
  AND r.removed_at IS NULL
  AND r.unlisted_at IS NULL
  AND r.access_lost_at IS NULL
  AND s.loaded_at IS NOT NULL
  AND r.race_id <> ALL (%(race_ids)s::bigint[])
  AND EXISTS (
      SELECT
      FROM bibwire.events AS e
      WHERE e.partner_id = r.partner_id
        AND e.race_id = r.race_id
        AND e.removed_at IS NULL
        AND coalesce(e.lasts_until + interval '168 hours' > now(), true)
  )
ORDER BY r.race_id;

-- name: ends_before_start
-- Events that end before they start, as the organiser typed it, and are not over before `over_after`.
SELECT p.name, e.race_id, r.name, e.event_id, e.name, e.starts_at, e.ends_at
FROM bibwire.events AS e
JOIN bibwire.races AS r USING (partner_id, race_id)
JOIN bibwire.partners AS p USING (partner_id)
WHERE e.ends_at < e.starts_at
  AND e.removed_at IS NULL
  AND r.removed_at IS NULL
  AND e.lasts_until > %(over_after)s
ORDER BY p.name, e.race_id, e.event_id;

-- name: loaded_since
-- What first loads that ended after this seq of a partner's feed came to.
SELECT
    count(*),
    coalesce(sum((c.fields ->> 'participants')::bigint), 0)::bigint,
    coalesce(sum((c.fields ->> 'with_bib')::bigint), 0)::bigint,
    coalesce(sum((c.fields ->> 'removed')::bigint), 0)::bigint
FROM bibwire.changes AS c
WHERE c.partner_id = %(partner_id)s
  AND c.seq > %(since)s
  AND c.kind = 'loaded';

-- name: race_states
-- Every race that is kept fresh or cannot be: the most urgent first, then the oldest mirror.
SELECT
    p.name,
    f.race_id,
    r.name,
    r.timezone,
    n.starts_at,
    f.as_of,
    -- Dated by the vendor's clock: so is the age.
    CASE
        WHEN f.as_of IS NOT NULL THEN greatest(
            0, extract(epoch FROM now() - f.participants_as_of) + coalesce(w.clock_ahead_seconds, 0)
        )::double precision
    END,
    f.target_seconds,
    f.failing_since,
    f.last_error,
    r.access_lost_at,
    f.removed_as_of,
    s.next_due_at,
    extract(epoch FROM now() - s.next_due_at)::double precision,
    p.paused_at IS NOT NULL
FROM bibwire.freshness AS f
JOIN bibwire.partners AS p USING (partner_id)
JOIN bibwire.races AS r USING (partner_id, race_id)
LEFT JOIN bibwire.scopes AS s USING (partner_id, race_id)
LEFT JOIN bibwire.plans AS w USING (partner_id)
CROSS JOIN LATERAL (
    SELECT coalesce(min(e.starts_at) FILTER (WHERE e.starts_at > now()), max(e.starts_at)) AS starts_at
    FROM bibwire.events AS e
    WHERE e.partner_id = f.partner_id AND e.race_id = f.race_id AND e.removed_at IS NULL
) AS n
WHERE r.removed_at IS NULL
  AND (f.target_seconds IS NOT NULL OR f.failing_since IS NOT NULL)
ORDER BY f.target_seconds NULLS LAST, f.participants_as_of NULLS FIRST, p.name, f.race_id;

-- name: race_lists
-- Partners whose race lists were cut short when they were last read, or could not be read.
SELECT p.name, l.list_note, l.discovery_error
FROM bibwire.plans AS l
JOIN bibwire.partners AS p USING (partner_id)
WHERE p.paused_at IS NULL
  AND (l.list_note IS NOT NULL OR l.discovery_error IS NOT NULL)
ORDER BY p.name;

-- name: lags
-- How soon changes were seen in each hour of the last 24, the newest first; and whether it is a
-- race's newest one, and not older than the hour before this one.
SELECT
    p.name,
    l.race_id,
    l.hour,
    l.changes,
    l.p50_seconds,
    l.p95_seconds,
    l.worst_seconds,
    l.hour > now() - interval '2 hours'
    AND l.hour = max(l.hour) OVER (PARTITION BY l.partner_id, l.race_id)
FROM bibwire.detection_lag AS l
JOIN bibwire.partners AS p USING (partner_id)
WHERE l.hour > now() - interval '25 hours'
ORDER BY p.name, l.race_id, l.hour DESC;

-- name: quarantined
-- Records not representable at present, by reason.
SELECT p.name, q.source, q.reason, count(*), max(q.last_seen_at)
FROM bibwire.quarantine AS q
JOIN bibwire.partners AS p USING (partner_id)
WHERE q.resolved_at IS NULL
GROUP BY p.name, q.source, q.reason
ORDER BY count(*) DESC, p.name, q.source, q.reason
LIMIT 100;

-- name: last_runs
-- The newest runs that have ended, the last to end first.
SELECT
    p.name,
    s.race_id,
    r.name,
    s.kind,
    s.started_at,
    s.finished_at,
    s.outcome,
    s.calls,
    s.rows_inserted,
    s.rows_updated,
    s.rows_unchanged,
    s.rows_removed,
    s.rows_quarantined,
    s.error
FROM (
    SELECT h.*
    FROM bibwire.sync_history AS h
    WHERE h.finished_at IS NOT NULL
    ORDER BY h.run_id DESC
    LIMIT %(limit)s
) AS s
JOIN bibwire.partners AS p USING (partner_id)
LEFT JOIN bibwire.races AS r USING (partner_id, race_id)
ORDER BY s.finished_at DESC, s.run_id DESC;

-- name: last_day
-- What the runs of the last 24 hours did, by partner. The calls are all there were, those of
-- look-ups too, from where those of the last hour are counted.
SELECT
    p.name,
    count(*),
    count(*) FILTER (WHERE s.outcome = 'failed'),
    count(*) FILTER (WHERE s.outcome = 'partial'),
    (
        SELECT coalesce(sum(m.calls), 0)::bigint
        FROM bibwire.call_minutes AS m
        JOIN bibwire.credentials AS c USING (credential_id)
        WHERE c.partner_id = p.partner_id AND m.minute > now() - interval '24 hours'
    ),
    coalesce(sum(s.rows_inserted), 0)::bigint,
    coalesce(sum(s.rows_updated), 0)::bigint,
    coalesce(sum(s.rows_removed), 0)::bigint
FROM bibwire.sync_history AS s
JOIN bibwire.partners AS p USING (partner_id)
WHERE s.started_at > now() - interval '24 hours'
GROUP BY p.partner_id, p.name
ORDER BY p.name;

-- name: backfills
-- How far the history of each partner's races is loaded.
SELECT
    p.name,
    count(*),
    count(b.finished_at),
    count(b.failing_since),
    (array_agg(b.last_error ORDER BY b.failing_since DESC) FILTER (WHERE b.failing_since IS NOT NULL))[1]
FROM bibwire.backfills AS b
JOIN bibwire.partners AS p USING (partner_id)
GROUP BY p.name
ORDER BY p.name;

-- name: drift
-- What the reconciliations of the last 24 hours found.
SELECT
    p.name,
    count(DISTINCT r.race_id),
    count(DISTINCT r.race_id) FILTER (WHERE r.repaired > 0),
    coalesce(sum(r.repaired), 0)::bigint,
    count(DISTINCT r.race_id) FILTER (WHERE r.verdict = 'open')
FROM bibwire.reconciliations AS r
JOIN bibwire.partners AS p USING (partner_id)
WHERE r.reconciled_at > now() - interval '24 hours'
GROUP BY p.name
ORDER BY p.name;

-- name: heads
-- The newest seq of each partner's feed; one partner where `partner_id` is given.
SELECT p.partner_id, p.name, coalesce(h.last_seq, 0)
FROM bibwire.partners AS p
LEFT JOIN bibwire.feed_heads AS h USING (partner_id)
WHERE %(partner_id)s::bigint IS NULL OR p.partner_id = %(partner_id)s
ORDER BY p.name;

-- name: change_marks
-- What tells these changes of a partner's feed from others under the same numbers, in order.
SELECT c.seq, c.kind, c.race_id, c.registration_id, c.seen_at
FROM bibwire.changes AS c
WHERE c.partner_id = %(partner_id)s
  AND c.seq = ANY (%(seqs)s::bigint[])
ORDER BY c.seq;

-- name: stale_races
-- Races that are late or whose polls fail, so far as they are watched: of all races the hot ones.
SELECT p.name, f.race_id, r.name, f.failing_since, f.last_error, f.participants_as_of
FROM bibwire.freshness AS f
JOIN bibwire.partners AS p USING (partner_id)
JOIN bibwire.races AS r USING (partner_id, race_id)
WHERE r.removed_at IS NULL
  AND p.paused_at IS NULL
  AND f.target_seconds IS NOT NULL
  AND (%(partner_id)s::bigint IS NULL OR f.partner_id = %(partner_id)s)
  AND (f.race_id = %(race_id)s::bigint OR (%(race_id)s::bigint IS NULL AND f.target_seconds = %(hot_seconds)s))
  AND (
      f.failing_since IS NOT NULL
      OR f.participants_as_of IS NULL
      OR extract(epoch FROM now() - f.participants_as_of) > f.target_seconds * 1.1 + %(poll_seconds)s
  )
ORDER BY p.name, f.race_id;

-- name: changes_between
-- One partner's changes with since < seq <= through, in order, with names for people.
SELECT
    p.name,
    c.seq,
    c.kind,
    c.race_id,
    r.name,
    c.event_id,
    e.name,
    c.registration_id,
    x.first_name,
    x.last_name,
    c.bib_from,
    c.bib_to,
    c.fields,
    c.modified_at,
    c.seen_at
FROM bibwire.changes AS c
JOIN bibwire.partners AS p USING (partner_id)
LEFT JOIN bibwire.races AS r ON r.partner_id = c.partner_id AND r.race_id = c.race_id
LEFT JOIN bibwire.events AS e ON e.partner_id = c.partner_id AND e.event_id = c.event_id
LEFT JOIN bibwire.participants AS x
    ON x.partner_id = c.partner_id AND x.registration_id = c.registration_id
WHERE c.partner_id = %(partner_id)s
  AND c.seq > %(since)s
  AND c.seq <= %(through)s
  AND (%(race_id)s::bigint IS NULL OR c.race_id = %(race_id)s)
  AND (NOT %(bibs_only)s OR c.bib_from IS DISTINCT FROM c.bib_to)
ORDER BY c.seq
LIMIT %(limit)s;

-- name: seq_before_last
-- The seq after which the last `number` changes of one partner follow; null: there are fewer.
SELECT c.seq
FROM bibwire.changes AS c
WHERE c.partner_id = %(partner_id)s
  AND (%(race_id)s::bigint IS NULL OR c.race_id = %(race_id)s)
  AND (NOT %(bibs_only)s OR c.bib_from IS DISTINCT FROM c.bib_to)
ORDER BY c.seq DESC
OFFSET %(number)s
LIMIT 1;

-- name: partners_of_race
-- Who mirrors a race, as of when, whether its first load is over, and whether sync keeps it.
SELECT
    p.partner_id,
    p.name,
    r.name,
    f.as_of,
    f.age_seconds,
    s.loaded_at IS NOT NULL,
    EXISTS (
        SELECT
        FROM bibwire.events AS e
        WHERE e.partner_id = r.partner_id
          AND e.race_id = r.race_id
          AND e.removed_at IS NULL
          AND coalesce(e.lasts_until + interval '168 hours' > now(), true)
    )
FROM bibwire.races AS r
JOIN bibwire.partners AS p USING (partner_id)
LEFT JOIN bibwire.freshness AS f USING (partner_id, race_id)
LEFT JOIN bibwire.scopes AS s USING (partner_id, race_id)
WHERE r.race_id = %(race_id)s
  AND (%(partner_id)s::bigint IS NULL OR p.partner_id = %(partner_id)s)
ORDER BY p.name;

-- name: holders
-- The registrations that hold a bib, or held it when they left; active ones first.
SELECT
    x.registration_id,
    x.event_id,
    e.name,
    x.first_name,
    x.last_name,
    x.gender,
    x.age,
    x.city,
    x.state,
    x.chip_num,
    x.last_modified_at,
    x.changed_at,
    x.removed_at,
    x.removed_reason
FROM bibwire.participants AS x
LEFT JOIN bibwire.events AS e ON e.partner_id = x.partner_id AND e.event_id = x.event_id
WHERE x.partner_id = %(partner_id)s
  AND x.race_id = %(race_id)s
  AND x.bib_num = %(bib)s
ORDER BY x.removed_at DESC NULLS FIRST, x.registration_id;

-- name: bib_history
-- Every time the bib was given or taken away, newest first.
SELECT
    b.seq,
    b.registration_id,
    x.first_name,
    x.last_name,
    e.name,
    b.bib_from,
    b.bib_to,
    c.kind,
    b.modified_at,
    b.seen_at
FROM bibwire.bib_changes AS b
JOIN bibwire.changes AS c ON c.partner_id = b.partner_id AND c.seq = b.seq
LEFT JOIN bibwire.participants AS x
    ON x.partner_id = b.partner_id AND x.registration_id = b.registration_id
LEFT JOIN bibwire.events AS e ON e.partner_id = b.partner_id AND e.event_id = b.event_id
WHERE b.partner_id = %(partner_id)s
  AND b.race_id = %(race_id)s
  AND (b.bib_from = %(bib)s OR b.bib_to = %(bib)s)
ORDER BY b.seq DESC
LIMIT 100;

-- name: race_names
-- Races, each once, to say which ones there are.
SELECT DISTINCT ON (race_id) race_id, name
FROM bibwire.races
WHERE %(partner_id)s::bigint IS NULL OR partner_id = %(partner_id)s
ORDER BY race_id
LIMIT 12;

-- name: server
-- What doctor tells of the server.
SELECT
    current_setting('server_version'),
    current_database(),
    EXISTS (
        SELECT
        FROM pg_settings AS g
        WHERE g.name = 'default_toast_compression' AND 'lz4' = ANY (g.enumvals)
    ),
    clock_timestamp(),
    pg_size_pretty(pg_database_size(current_database()));

-- name: connections
-- How many connections the server allows to who is no superuser.
SELECT current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int;
