-- name: sizes
-- Of each live race of a partner: whether its first load is over, whether its events are asked for
-- one at a time, and its people by event.
SELECT
    s.race_id,
    s.loaded_at IS NOT NULL,
    s.one_event_since IS NOT NULL,
    x.event_id,
    coalesce(x.active, 0),
    coalesce(x.removed, 0)
FROM bibwire.scopes AS s
LEFT JOIN (
    SELECT
        p.race_id,
        p.event_id,
        count(*) FILTER (WHERE p.removed_at IS NULL) AS active,
        count(*) FILTER (WHERE p.removed_at IS NOT NULL) AS removed
    FROM bibwire.participants AS p
    WHERE p.partner_id = %(partner_id)s
      AND p.race_id = ANY (%(race_ids)s)
    GROUP BY p.race_id, p.event_id
) AS x USING (race_id)
WHERE s.partner_id = %(partner_id)s
  AND s.race_id = ANY (%(race_ids)s);

-- name: rows
-- The active registrations of some events, and these registrations wherever and however they are.
SELECT
    registration_id, event_id, user_id, first_name, middle_name, last_name, email, phone, dob, gender, age,
    address, city, state, country_code, bib_num, chip_num, registered_at, last_modified_at, team_info,
    payment_info, additional_data,
    race_id, as_of, removed_at, removed_reason, new_registration_id
FROM bibwire.participants
WHERE partner_id = %(partner_id)s
  AND (
      registration_id = ANY (%(registration_ids)s::bigint[])
      OR (race_id = %(race_id)s AND event_id = ANY (%(event_ids)s::bigint[]) AND removed_at IS NULL)
  );

-- name: bibs_in_force
SELECT DISTINCT bib_num
FROM bibwire.participants
WHERE partner_id = %(partner_id)s
  AND race_id = %(race_id)s
  AND event_id = ANY (%(event_ids)s::bigint[])
  AND removed_at IS NULL
  AND bib_num IS NOT NULL;

-- name: holders
-- Who has a bib now in some events of a race.
SELECT
    registration_id, event_id, user_id, first_name, middle_name, last_name, email, phone, dob, gender, age,
    address, city, state, country_code, bib_num, chip_num, registered_at, last_modified_at, team_info,
    payment_info, additional_data,
    race_id, as_of, removed_at, removed_reason, new_registration_id
FROM bibwire.participants
WHERE partner_id = %(partner_id)s
  AND race_id = %(race_id)s
  AND event_id = ANY (%(event_ids)s::bigint[])
  AND bib_num = %(bib)s
  AND removed_at IS NULL;

-- name: bibs_against_feed
-- Of a race: how many registrations changed after its first load, so that the feed tells of them; and
-- those whose newest bib_to is not the bib in force, or whose last change the feed does not hold.
WITH together AS (
    -- Past events of which the feed told together, when they were loaded; or is to tell yet.
    SELECT e.event_id::bigint AS event_id, max(c.seen_at) AS told_at
    FROM bibwire.changes AS c
    CROSS JOIN LATERAL jsonb_array_elements_text(c.fields -> 'event_ids') AS e (event_id)
    WHERE c.partner_id = %(partner_id)s
      AND c.race_id = %(race_id)s
      AND c.kind = 'history_loaded'
    GROUP BY e.event_id
    UNION ALL
    SELECT e.event_id::bigint, 'infinity'
    FROM bibwire.backfills AS b
    CROSS JOIN LATERAL jsonb_array_elements_text(b.position -> 'silent') AS e (event_id)
    WHERE b.partner_id = %(partner_id)s
      AND b.race_id = %(race_id)s
),

held AS (
    SELECT
        p.registration_id,
        (told.seq IS NOT NULL AND told.bib_to IS DISTINCT FROM f.bib)
        OR (told.seq IS NULL AND f.bib IS NOT NULL AND p.first_seen_at > greatest(s.loaded_at, t.told_at))
        OR NOT EXISTS (
            SELECT
            FROM bibwire.changes AS c
            WHERE c.partner_id = p.partner_id
              AND c.registration_id = p.registration_id
              AND c.seen_at = p.changed_at
        ) AS is_odd
    FROM bibwire.scopes AS s
    JOIN bibwire.participants AS p USING (partner_id, race_id)
    LEFT JOIN together AS t USING (event_id)
    CROSS JOIN LATERAL (SELECT CASE WHEN p.removed_at IS NULL THEN p.bib_num END AS bib) AS f
    LEFT JOIN LATERAL (
        SELECT b.seq, b.bib_to
        FROM bibwire.bib_changes AS b
        WHERE b.partner_id = p.partner_id
          AND b.registration_id = p.registration_id
        ORDER BY b.seq DESC
        LIMIT 1
    ) AS told ON true
    WHERE s.partner_id = %(partner_id)s
      AND s.race_id = %(race_id)s
      AND p.changed_at > greatest(s.loaded_at, t.told_at)
)

SELECT count(*), coalesce(array_agg(registration_id ORDER BY registration_id) FILTER (WHERE is_odd), '{}')
FROM held;

-- name: feed_gaps
-- A partner's newest seq, and how many lines of its feed are lacking of the last day.
SELECT h.last_seq, h.last_seq - d.before - d.lines
FROM bibwire.feed_heads AS h
CROSS JOIN LATERAL (
    SELECT
        coalesce(
            (
                SELECT max(o.seq)
                FROM bibwire.changes AS o
                WHERE o.partner_id = h.partner_id AND o.seen_at < %(since)s
            ),
            0
        ) AS before
) AS b
CROSS JOIN LATERAL (
    SELECT b.before, count(*) AS lines
    FROM bibwire.changes AS c
    WHERE c.partner_id = h.partner_id
      AND c.seq > b.before
) AS d
WHERE h.partner_id = %(partner_id)s;

-- name: minute_now
-- The minute in which calls are counted now.
SELECT date_trunc('minute', coalesce(%(now)s::timestamptz, clock_timestamp()));

-- name: counted
-- Calls of a credential counted in the minutes from `since` on: those of verifications and
-- reconciliations, and those of all.
SELECT coalesce(sum(reconcile), 0)::bigint, coalesce(sum(calls), 0)::bigint
FROM bibwire.call_minutes
WHERE credential_id = %(credential_id)s
  AND minute >= %(since)s;

-- name: others_reconciling
-- Whether another run whose calls may be counted as ours are, a verification or a reconciliation of the
-- partner or its list of races (which a reconciliation reads too), was going on at any time since ours
-- began; one that never ended, for its process died, counts for an hour.
SELECT EXISTS (
    SELECT
    FROM bibwire.sync_history AS h
    WHERE h.partner_id = %(partner_id)s
      AND h.kind IN ('verify', 'reconcile', 'discovery')
      AND h.run_id <> %(run_id)s
      AND (
          h.finished_at >= %(began_at)s
          OR (h.finished_at IS NULL AND h.started_at > %(began_at)s - interval '1 hour')
      )
);

-- name: ages
-- As of when the participants of each of these races are.
SELECT race_id, participants_as_of
FROM bibwire.freshness
WHERE partner_id = %(partner_id)s
  AND race_id = ANY (%(race_ids)s);

-- name: event_times
-- Start and end of some events.
SELECT race_id, starts_at, ends_at
FROM bibwire.events
WHERE partner_id = %(partner_id)s
  AND event_id = ANY (%(event_ids)s);

-- name: planned_at
-- When the schedule last planned for a partner; null: no scheduler has run.
SELECT planned_at
FROM bibwire.plans
WHERE partner_id = %(partner_id)s;
