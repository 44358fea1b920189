-- name: partners_to_plan
-- Partners whose polls are to be planned anew, each taken by one planner only.
SELECT partner_id
FROM bibwire.plans
WHERE next_plan_at <= %(now)s
ORDER BY next_plan_at, partner_id
LIMIT 50
FOR UPDATE SKIP LOCKED;

-- name: facts
-- The events of a partner's scopes that may be live, with what was seen of each scope. A scope
-- under a paused partner or a refused key has none.
SELECT
    e.race_id, r.name, e.starts_at, e.ends_at, e.hot_from, e.hot_until, e.hot_because,
    -- Whether it waits for its own first load.
    s.loaded_at IS NOT NULL AND e.not_found_at IS NULL AND coalesce(e.event_id <> ALL (t.event_ids), false),
    coalesce(s.changes_per_minute, 0), s.rate_at, coalesce(s.failures, 0), s.loaded_at IS NOT NULL,
    CASE WHEN s.one_event_since IS NULL THEN c.trusted_list_length ELSE 1 END
FROM bibwire.events AS e
JOIN bibwire.races AS r USING (partner_id, race_id)
JOIN bibwire.partners AS p USING (partner_id)
JOIN bibwire.credentials AS c USING (partner_id)
LEFT JOIN bibwire.scopes AS s USING (partner_id, race_id)
LEFT JOIN bibwire.streams AS t
    ON t.partner_id = e.partner_id AND t.race_id = e.race_id AND t.stream = 'participants'
WHERE e.partner_id = %(partner_id)s
  AND p.paused_at IS NULL
  AND e.removed_at IS NULL
  AND r.removed_at IS NULL
  AND (e.lasts_until >= %(over_after)s OR e.lasts_until IS NULL)
ORDER BY e.race_id, e.event_id;

-- name: scheduled
-- What stands in the schedule for a partner's races: tier, pace, when each is due, and was last polled.
SELECT s.race_id, s.tier, s.poll_every_seconds, s.next_due_at, s.polled_at
FROM bibwire.scopes AS s
WHERE s.partner_id = %(partner_id)s
  AND s.tier IS NOT NULL
  AND s.next_due_at IS NOT NULL;

-- name: open_scopes
-- Make sure that the scopes and their streams have rows.
WITH wanted AS (
    SELECT w.race_id
    FROM unnest(%(race_ids)s::bigint[]) AS w (race_id)
    WHERE NOT EXISTS (
        SELECT FROM bibwire.scopes AS s WHERE s.partner_id = %(partner_id)s AND s.race_id = w.race_id
    )
),

opened AS (
    INSERT INTO bibwire.scopes (partner_id, race_id)
    SELECT %(partner_id)s, race_id FROM wanted
    ON CONFLICT DO NOTHING
)

INSERT INTO bibwire.streams (partner_id, race_id, stream)
SELECT %(partner_id)s, w.race_id, b.stream
FROM wanted AS w, unnest(ARRAY['participants', 'removed']) AS b (stream)
ON CONFLICT DO NOTHING;

-- name: store_polls
-- What was planned. A scope never comes up later than planned, unless it fails or a job has it; one
-- with an event that was never loaded comes up at once.
UPDATE bibwire.scopes AS s
SET tier = w.tier,
    poll_every_seconds = w.poll_every,
    removed_every_seconds = w.removed_every,
    next_due_at = CASE
        -- Before the plan says so: who waits for a first load has been waiting since it was found.
        WHEN w.at_once THEN least(s.next_due_at, %(now)s)
        -- What was said of it meanwhile, by a person's sync, must not be said until its tier comes round.
        WHEN s.next_due_at IS NULL AND s.failing_since IS NOT NULL THEN %(now)s
        WHEN s.next_due_at IS NULL THEN greatest(%(now)s, s.polled_at + make_interval(secs => w.poll_every))
        WHEN s.failures > 0 THEN least(s.next_due_at, %(now)s + make_interval(secs => w.poll_every))
        ELSE least(s.next_due_at, s.polled_at + make_interval(secs => w.poll_every))
    END
FROM unnest(
    %(race_ids)s::bigint[], %(tiers)s::text[], %(poll_every)s::double precision[],
    %(removed_every)s::double precision[], %(at_once)s::boolean[]
) AS w (race_id, tier, poll_every, removed_every, at_once)
WHERE s.partner_id = %(partner_id)s
  AND s.race_id = w.race_id
  AND (
      (s.tier, s.poll_every_seconds, s.removed_every_seconds)
      IS DISTINCT FROM (w.tier, w.poll_every, w.removed_every)
      OR s.next_due_at IS NULL
      OR (w.at_once AND s.next_due_at > %(now)s)
  );

-- name: close_scopes
-- Scopes that are not scheduled any more.
UPDATE bibwire.scopes
SET tier = NULL,
    poll_every_seconds = NULL,
    removed_every_seconds = NULL,
    next_due_at = NULL
WHERE partner_id = %(partner_id)s
  AND race_id <> ALL (%(race_ids)s)
  AND next_due_at IS NOT NULL;

-- name: forget_failures
-- A race without a live event is not asked for any more: nothing of it fails, and no access is missed.
WITH over AS (
    UPDATE bibwire.scopes AS s
    SET failures = 0,
        failing_since = NULL,
        last_error = NULL
    WHERE s.partner_id = %(partner_id)s
      AND s.next_due_at IS NULL
      AND s.failing_since IS NOT NULL
      AND NOT EXISTS (
          SELECT
          FROM bibwire.events AS e
          WHERE e.partner_id = s.partner_id
            AND e.race_id = s.race_id
            AND e.removed_at IS NULL
            AND (e.lasts_until + interval '168 hours' > %(now)s::timestamptz OR e.lasts_until IS NULL)
      )
    RETURNING s.race_id
)

UPDATE bibwire.races AS r
SET access_lost_at = NULL
FROM over AS o
WHERE r.partner_id = %(partner_id)s
  AND r.race_id = o.race_id
  AND r.access_lost_at IS NOT NULL;

-- name: store_plan
UPDATE bibwire.plans
SET next_plan_at = %(next_plan_at)s,
    planned_at = %(now)s,
    usable_calls_per_hour = %(usable)s,
    needed_calls_per_hour = %(needed)s,
    planned_calls_per_hour = %(planned)s
WHERE partner_id = %(partner_id)s;

-- name: hot_due
-- Hot scopes that are due, or will be before the planner looks again.
SELECT
    s.partner_id, s.race_id,
    -- Not joined: the planner would read all credentials for a few scopes.
    (SELECT c.credential_id FROM bibwire.credentials AS c WHERE c.partner_id = s.partner_id),
    s.tier, s.loaded_at IS NOT NULL
FROM bibwire.scopes AS s
WHERE s.next_due_at <= %(horizon)s
  AND s.tier = 'hot'
  AND (s.claimed_until IS NULL OR s.claimed_until <= %(now)s)
ORDER BY s.next_due_at, s.partner_id, s.race_id
LIMIT %(most)s
FOR UPDATE OF s SKIP LOCKED;

-- name: others_due
SELECT
    s.partner_id, s.race_id,
    -- Not joined: the planner would read all credentials for a few scopes.
    (SELECT c.credential_id FROM bibwire.credentials AS c WHERE c.partner_id = s.partner_id),
    s.tier, s.loaded_at IS NOT NULL
FROM bibwire.scopes AS s
WHERE s.next_due_at <= %(horizon)s
  AND s.tier <> 'hot'
  AND (s.claimed_until IS NULL OR s.claimed_until <= %(now)s)
ORDER BY s.next_due_at, s.partner_id, s.race_id
LIMIT %(most)s
FOR UPDATE OF s SKIP LOCKED;

-- name: claimed
-- How many polls are in the hands of jobs and not made yet, by credential, tier and whether loaded.
SELECT c.credential_id, s.tier, s.loaded_at IS NOT NULL, count(*)
FROM bibwire.credentials AS c
JOIN bibwire.scopes AS s USING (partner_id)
WHERE c.credential_id = ANY (%(credential_ids)s::bigint[])
  AND s.claimed_until > %(now)s
  AND s.next_due_at <= %(horizon)s
GROUP BY 1, 2, 3;

-- name: claim
-- Leave scopes to the jobs just queued for them; a job that is lost leaves them due again.
UPDATE bibwire.scopes AS s
SET claimed_until = %(until)s
FROM unnest(%(partner_ids)s::bigint[], %(race_ids)s::bigint[]) AS w (partner_id, race_id)
WHERE s.partner_id = w.partner_id
  AND s.race_id = w.race_id;

-- name: put_off
-- The budget has no room for these: look at them again then.
UPDATE bibwire.scopes AS s
SET next_due_at = w.due_at
FROM unnest(%(partner_ids)s::bigint[], %(race_ids)s::bigint[], %(due_at)s::timestamptz[])
    AS w (partner_id, race_id, due_at)
WHERE s.partner_id = w.partner_id
  AND s.race_id = w.race_id;

-- name: turn
-- How a scope's schedule stands, and its partner's clock.
SELECT
    next_due_at, tier, polled_at, poll_every_seconds, removed_every_seconds, removed_polled_at, changes_per_minute,
    rate_at, failures,
    (
        SELECT ARRAY[p.clock_ahead_seconds, p.date_ahead_seconds, p.data_ahead_seconds]
        FROM bibwire.plans AS p
        WHERE p.partner_id = %(partner_id)s
    ),
    loaded_at, reconciled_at, counted_at
FROM bibwire.scopes
WHERE partner_id = %(partner_id)s
  AND race_id = %(race_id)s;

-- name: record_poll
-- A poll succeeded. Back: as of `turn`.
UPDATE bibwire.scopes
SET polled_at = %(polled_at)s,
    removed_polled_at = coalesce(%(removed_polled_at)s, removed_polled_at),
    changes_per_minute = %(rate)s,
    rate_at = %(now)s,
    failures = 0,
    -- The plan may have become a faster one meanwhile.
    next_due_at = CASE
        WHEN tier IS NOT NULL THEN least(
            %(next_due_at)s,
            greatest(%(now)s, %(polled_at)s::timestamptz + make_interval(secs => poll_every_seconds))
        )
    END,
    claimed_until = %(claimed_until)s
WHERE partner_id = %(partner_id)s
  AND race_id = %(race_id)s
RETURNING
    next_due_at, tier, polled_at, poll_every_seconds, removed_every_seconds, removed_polled_at, changes_per_minute,
    rate_at, failures,
    (
        SELECT ARRAY[p.clock_ahead_seconds, p.date_ahead_seconds, p.data_ahead_seconds]
        FROM bibwire.plans AS p
        WHERE p.partner_id = %(partner_id)s
    ),
    loaded_at, reconciled_at, counted_at;

-- name: active
-- How many active registrations are stored of a race.
SELECT count(*)
FROM bibwire.participants
WHERE partner_id = %(partner_id)s AND race_id = %(race_id)s AND removed_at IS NULL;

-- name: failing_hot
-- How many hot scopes of a partner fail.
SELECT count(*)
FROM bibwire.scopes AS s
WHERE s.partner_id = %(partner_id)s AND s.tier = 'hot' AND s.failures > 0;

-- name: try_hot_again
-- What kept polls from the vendor is over: hot scopes that failed, of all partners, are due now.
UPDATE bibwire.scopes AS s
SET next_due_at = %(now)s
WHERE s.tier = 'hot'
  AND s.failures > 0
  AND s.next_due_at > %(now)s;

-- name: record_failure
UPDATE bibwire.scopes
SET failures = failures + %(counts)s::boolean::int,
    polled_at = coalesce(%(read_at)s, polled_at),
    next_due_at = CASE
        WHEN tier IS NULL THEN NULL
        WHEN %(counts)s::boolean THEN least(
            %(next_due_at)s, %(now)s::timestamptz + make_interval(secs => poll_every_seconds)
        )
        ELSE %(next_due_at)s::timestamptz
    END,
    claimed_until = NULL
WHERE partner_id = %(partner_id)s
  AND race_id = %(race_id)s;

-- name: let_go
-- The job ends; when the scope is due next stays as it is.
UPDATE bibwire.scopes
SET claimed_until = NULL
WHERE partner_id = %(partner_id)s
  AND race_id = %(race_id)s;

-- name: put_partner_off
-- Nothing works under this credential: try one thing at a time, and later.
WITH kept AS (
    UPDATE bibwire.plans
    SET put_off_until = %(due_at)s
    WHERE partner_id = %(partner_id)s
)

UPDATE bibwire.scopes
SET next_due_at = greatest(next_due_at, %(due_at)s)
WHERE partner_id = %(partner_id)s
  AND next_due_at IS NOT NULL;

-- name: discoveries_due
SELECT p.partner_id
FROM bibwire.plans AS p
JOIN bibwire.partners AS q USING (partner_id)
WHERE p.next_discovery_at <= %(now)s
  AND q.paused_at IS NULL
ORDER BY p.next_discovery_at, p.partner_id
LIMIT 20
FOR UPDATE OF p SKIP LOCKED;

-- name: claim_discovery
UPDATE bibwire.plans
SET next_discovery_at = %(again_at)s
WHERE partner_id = ANY (%(partner_ids)s);

-- name: full_list_is_due
SELECT coalesce(bool_or(p.next_full_list_at <= %(now)s), true)
FROM bibwire.plans AS p
WHERE p.partner_id = %(partner_id)s;

-- name: record_discovery
-- A full list that was asked for meanwhile is not put off. A failure is, whatever is due.
UPDATE bibwire.plans
SET next_full_list_at = coalesce(%(next_full_at)s, next_full_list_at),
    next_discovery_at = CASE
        WHEN %(error)s::text IS NULL THEN least(%(next_at)s, coalesce(%(next_full_at)s, next_full_list_at))
        ELSE %(next_at)s::timestamptz
    END,
    discovered_at = CASE WHEN %(error)s::text IS NULL THEN %(now)s::timestamptz ELSE discovered_at END,
    discovery_error = %(error)s,
    list_note = CASE WHEN %(next_full_at)s::timestamptz IS NULL THEN list_note ELSE %(note)s END,
    next_plan_at = least(next_plan_at, %(now)s)
WHERE partner_id = %(partner_id)s;

-- name: discover_by
-- At once if a list has shown the race without an event that the vendor did not find: then the next one
-- settles it. Otherwise a list and an answer contradict each other, and may for long.
UPDATE bibwire.plans AS p
SET next_discovery_at = least(p.next_discovery_at, x.by),
    next_full_list_at = least(p.next_full_list_at, x.by)
FROM (
    SELECT CASE
        WHEN EXISTS (
            SELECT
            FROM bibwire.events AS e
            WHERE e.partner_id = %(partner_id)s
              AND e.race_id = %(race_id)s
              AND e.unlisted_at IS NOT NULL
              AND e.not_found_at IS NOT NULL
              AND e.removed_at IS NULL
        ) THEN %(now)s::timestamptz
        ELSE %(discover_by)s::timestamptz
    END AS by
) AS x
WHERE p.partner_id = %(partner_id)s;

-- name: discover_all
-- Read every race list at once.
UPDATE bibwire.plans
SET next_discovery_at = '2000-01-01 00:00:00+00',
    next_full_list_at = '2000-01-01 00:00:00+00';

-- name: close
-- A scope that has no live event any more; its partner is planned anew.
WITH closed AS (
    UPDATE bibwire.scopes
    SET tier = NULL,
        poll_every_seconds = NULL,
        removed_every_seconds = NULL,
        next_due_at = NULL,
        claimed_until = NULL
    WHERE partner_id = %(partner_id)s
      AND race_id = %(race_id)s
)

UPDATE bibwire.plans
SET next_plan_at = least(next_plan_at, %(now)s),
    next_discovery_at = least(next_discovery_at, %(discover_by)s),
    next_full_list_at = least(next_full_list_at, %(discover_by)s)
WHERE partner_id = %(partner_id)s;

-- name: put_plan_off
-- A partner that cannot be planned must not hold up the others.
UPDATE bibwire.plans
SET next_plan_at = %(again_at)s
WHERE partner_id = %(partner_id)s;

-- name: prune
WITH runs AS (
    DELETE FROM bibwire.sync_history
    WHERE started_at < %(runs_before)s
),

reconciled AS (
    DELETE FROM bibwire.reconciliations
    WHERE reconciled_at < %(runs_before)s
)

DELETE FROM bibwire.detection_lag
WHERE hour < %(lags_before)s;

-- name: found_since
SELECT
    (SELECT count(*) FROM bibwire.races AS r WHERE r.partner_id = %(partner_id)s AND r.first_seen_at >= %(since)s),
    (SELECT count(*) FROM bibwire.events AS e WHERE e.partner_id = %(partner_id)s AND e.first_seen_at >= %(since)s);

-- name: any_hot
SELECT EXISTS (SELECT FROM bibwire.scopes AS s WHERE s.partner_id = %(partner_id)s AND s.tier = 'hot');

-- name: lag_heads
-- Partners with changes not counted in detection_lag.
SELECT p.partner_id, p.lag_seq, f.last_seq, p.clock_ahead_seconds
FROM bibwire.plans AS p
JOIN bibwire.feed_heads AS f USING (partner_id)
WHERE f.last_seq > p.lag_seq;

-- name: count_lag
-- Count anew the hours of races that have changes after `after`, each from its first change to its
-- last and never from the feed's beginning. What the vendor dates to before the race was loaded says
-- nothing about us.
WITH touched AS MATERIALIZED (
    SELECT race_id, date_trunc('hour', seen_at) AS hour, min(seq) AS first_seq, max(seq) AS last_seq
    FROM bibwire.changes
    WHERE partner_id = %(partner_id)s
      AND seq > %(after)s
      AND seq <= %(through)s
    GROUP BY 1, 2
),

hours AS MATERIALIZED (
    SELECT
        w.race_id, w.hour, w.last_seq, s.loaded_at,
        -- Those counted before may stand before these.
        least(w.first_seq, d.first_seq) AS first_seq
    FROM touched AS w
    JOIN bibwire.scopes AS s ON s.partner_id = %(partner_id)s AND s.race_id = w.race_id
    LEFT JOIN bibwire.detection_lag AS d
        ON d.partner_id = %(partner_id)s AND d.race_id = w.race_id AND d.hour = w.hour
)

INSERT INTO bibwire.detection_lag (
    partner_id, race_id, hour, changes, p50_seconds, p95_seconds, worst_seconds, first_seq
)
SELECT %(partner_id)s, h.race_id, h.hour, l.changes, l.p50, l.p95, l.worst, l.first_seq
FROM hours AS h
CROSS JOIN LATERAL (
    SELECT
        count(*) AS changes,
        percentile_cont(0.5) WITHIN GROUP (ORDER BY c.seconds) AS p50,
        percentile_cont(0.95) WITHIN GROUP (ORDER BY c.seconds) AS p95,
        max(c.seconds) AS worst,
        min(c.seq) AS first_seq
    FROM (
        SELECT
            n.seq,
            -- The vendor dates to the second: what is seen within it was seen at once.
            greatest(
                0, extract(epoch FROM n.seen_at - n.modified_at)::double precision + %(clock_ahead)s
            ) AS seconds
        FROM bibwire.changes AS n
        WHERE n.partner_id = %(partner_id)s
          AND n.race_id = h.race_id
          AND n.seq >= h.first_seq
          AND n.seq <= h.last_seq
          AND n.seen_at >= h.hour
          AND n.seen_at < h.hour + interval '1 hour'
          AND n.modified_at > h.loaded_at
    ) AS c
) AS l
WHERE l.changes > 0
ON CONFLICT (partner_id, race_id, hour) DO UPDATE
SET changes = excluded.changes,
    p50_seconds = excluded.p50_seconds,
    p95_seconds = excluded.p95_seconds,
    worst_seconds = excluded.worst_seconds,
    first_seq = excluded.first_seq;

-- name: counted_lag
UPDATE bibwire.plans
SET lag_seq = %(through)s
WHERE partner_id = %(partner_id)s;

-- name: plan_verifications
-- Give those that have no time for it yet their first one.
UPDATE bibwire.plans
SET next_verify_at = %(next_at)s
WHERE next_verify_at IS NULL;

-- name: verifications_due
SELECT p.partner_id
FROM bibwire.plans AS p
JOIN bibwire.partners AS q USING (partner_id)
WHERE p.next_verify_at <= %(now)s
  AND q.paused_at IS NULL
ORDER BY p.next_verify_at, p.partner_id
LIMIT 20
FOR UPDATE OF p SKIP LOCKED;

-- name: claim_verification
UPDATE bibwire.plans
SET next_verify_at = %(again_at)s
WHERE partner_id = ANY (%(partner_ids)s);

-- name: verify_next
UPDATE bibwire.plans
SET next_verify_at = %(next_at)s
WHERE partner_id = %(partner_id)s;

-- name: forget_verifications
-- Nobody verifies by the clock any more.
UPDATE bibwire.plans
SET next_verify_at = NULL
WHERE next_verify_at IS NOT NULL;

-- name: record_verification
-- What a verification of a partner found; one that could ask nothing leaves the instant of the last.
UPDATE bibwire.plans
SET verified_at = CASE WHEN %(asked)s::boolean THEN %(now)s::timestamptz ELSE verified_at END,
    verify_failures = %(failures)s
WHERE partner_id = %(partner_id)s;
