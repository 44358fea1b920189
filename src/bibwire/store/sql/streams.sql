-- name: open_scope
-- Make sure that the scope and its two streams have rows.
WITH scope AS (
    INSERT INTO bibwire.scopes (partner_id, race_id)
    VALUES (%(partner_id)s, %(race_id)s)
    ON CONFLICT DO NOTHING
)
INSERT INTO bibwire.streams (partner_id, race_id, stream)
VALUES (%(partner_id)s, %(race_id)s, 'participants'), (%(partner_id)s, %(race_id)s, 'removed')
ON CONFLICT DO NOTHING;

-- name: scope
-- How a scope stands, and how far its partner's lists of events are believed.
SELECT
    s.loaded_at, s.one_event_since, s.full_since,
    c.trusted_list_length, c.list_pages_proven_at IS NOT NULL, c.longest_page,
    s.relist_since, s.reread_from,
    ARRAY(
        SELECT d.event_id
        FROM bibwire.doubts AS d
        WHERE d.partner_id = s.partner_id AND d.race_id = s.race_id AND d.listed = 0
    )
FROM bibwire.scopes AS s
JOIN bibwire.credentials AS c USING (partner_id)
WHERE s.partner_id = %(partner_id)s
  AND s.race_id = %(race_id)s;

-- name: stream
SELECT
    cursor_at, event_ids, long_at, listing_ended_at, listing_high, listing_counts, sweep_kind, sweep_since,
    sweep_long, sweep_high, sweep_groups, sweep_group, sweep_after, sweep_listed, sweep_started_at
FROM bibwire.streams
WHERE partner_id = %(partner_id)s
  AND race_id = %(race_id)s
  AND stream = %(stream)s;

-- name: save_position
-- The sweep goes on: where it stands.
UPDATE bibwire.streams
SET sweep_kind = %(kind)s,
    sweep_since = %(since)s,
    sweep_long = %(long)s,
    sweep_high = %(high)s,
    sweep_groups = %(groups)s,
    sweep_group = %(group)s,
    sweep_after = %(after)s,
    sweep_listed = %(listed)s,
    sweep_started_at = %(started_at)s
WHERE partner_id = %(partner_id)s
  AND race_id = %(race_id)s
  AND stream = %(stream)s;

-- name: save_cursor
-- The sweep is complete: its `high` is the cursor.
UPDATE bibwire.streams
SET cursor_at = %(cursor_at)s,
    event_ids = %(event_ids)s,
    long_at = %(long_at)s,
    listing_ended_at = %(listing_ended_at)s,
    listing_high = %(listing_high)s,
    listing_counts = %(listing_counts)s,
    sweep_kind = NULL,
    sweep_since = NULL,
    sweep_long = NULL,
    sweep_high = NULL,
    sweep_groups = NULL,
    sweep_group = NULL,
    sweep_after = NULL,
    sweep_listed = NULL,
    sweep_started_at = NULL
WHERE partner_id = %(partner_id)s
  AND race_id = %(race_id)s
  AND stream = %(stream)s;

-- name: take_cursor_back
-- The full listing that moved the cursor was not complete.
UPDATE bibwire.streams
SET cursor_at = least(cursor_at, %(cursor_at)s)
WHERE partner_id = %(partner_id)s
  AND race_id = %(race_id)s
  AND stream = %(stream)s
  AND cursor_at IS NOT NULL;

-- name: newest_change
-- When the vendor dates the newest change of some registrations.
SELECT max(p.last_modified_at)
FROM bibwire.participants AS p
WHERE p.partner_id = %(partner_id)s
  AND p.race_id = %(race_id)s
  AND p.registration_id = ANY (%(registration_ids)s::bigint[]);

-- name: ask_relist
-- Let the next sweep list everything again.
UPDATE bibwire.scopes
SET relist_since = coalesce(relist_since, %(now)s)
WHERE partner_id = %(partner_id)s
  AND race_id = %(race_id)s;

-- name: try_lists
-- Ask for all events together again, from the beginning.
UPDATE bibwire.scopes
SET one_event_since = NULL,
    relist_since = coalesce(relist_since, %(now)s)
WHERE partner_id = %(partner_id)s
  AND race_id = %(race_id)s;

-- name: take_back
-- Do to the streams what the scope asks for: forget which events the cursors speak for, and read
-- changes again. The interrupted sweep would end at a cursor that knows nothing of it.
UPDATE bibwire.streams AS t
SET event_ids = CASE WHEN s.relist_since IS NULL THEN t.event_ids ELSE '{}' END,
    cursor_at = CASE WHEN t.cursor_at IS NOT NULL THEN least(t.cursor_at, s.reread_from) END,
    long_at = CASE WHEN s.reread_from IS NULL THEN t.long_at END,
    sweep_kind = CASE WHEN s.relist_since IS NULL AND t.sweep_since IS NULL THEN t.sweep_kind END,
    listing_ended_at = CASE WHEN s.relist_since IS NULL THEN t.listing_ended_at END
FROM bibwire.scopes AS s
WHERE t.partner_id = %(partner_id)s
  AND t.race_id = %(race_id)s
  AND s.partner_id = t.partner_id
  AND s.race_id = t.race_id;

-- name: taken_back
UPDATE bibwire.scopes
SET relist_since = NULL,
    reread_from = NULL
WHERE partner_id = %(partner_id)s
  AND race_id = %(race_id)s;

-- name: loaded_counts
-- True if both streams have a cursor, and what the mirror holds of the scope.
SELECT
    (
        SELECT count(*) = 2
        FROM bibwire.streams AS t
        WHERE t.partner_id = %(partner_id)s AND t.race_id = %(race_id)s AND t.cursor_at IS NOT NULL
    ),
    count(*) FILTER (WHERE removed_at IS NULL),
    count(*) FILTER (WHERE removed_at IS NOT NULL),
    count(*) FILTER (WHERE removed_at IS NULL AND bib_num IS NOT NULL),
    count(DISTINCT event_id) FILTER (WHERE removed_at IS NULL)
FROM bibwire.participants
WHERE partner_id = %(partner_id)s
  AND race_id = %(race_id)s;

-- name: set_loaded
UPDATE bibwire.scopes
SET loaded_at = %(now)s
WHERE partner_id = %(partner_id)s
  AND race_id = %(race_id)s;

-- name: begin_full
-- Begin a full sync of the scope, or go on with the one interrupted after `resume_after`; back: its begin.
UPDATE bibwire.scopes
SET full_since = CASE
        -- One to come was stored while a clock was ahead.
        WHEN full_since BETWEEN %(resume_after)s AND %(now)s::timestamptz + interval '10 seconds' THEN full_since
        ELSE %(now)s
    END
WHERE partner_id = %(partner_id)s
  AND race_id = %(race_id)s
RETURNING full_since;

-- name: end_full
WITH scope AS (
    UPDATE bibwire.scopes
    SET full_since = NULL,
        listed_at = %(now)s
    WHERE partner_id = %(partner_id)s
      AND race_id = %(race_id)s
)
UPDATE bibwire.streams
SET listing_ended_at = NULL,
    listing_high = NULL,
    listing_counts = NULL
WHERE partner_id = %(partner_id)s
  AND race_id = %(race_id)s;

-- name: ask_one_event
-- From now on one event at a time; what lists of events brought before is listed again.
WITH scope AS (
    UPDATE bibwire.scopes
    SET one_event_since = coalesce(one_event_since, %(now)s)
    WHERE partner_id = %(partner_id)s
      AND race_id = %(race_id)s
)
UPDATE bibwire.streams
SET cursor_at = NULL,
    event_ids = '{}',
    sweep_kind = NULL,
    listing_ended_at = NULL
WHERE partner_id = %(partner_id)s
  AND race_id = %(race_id)s;

-- name: set_failing
-- A race said to fail is polled within a minute, whoever found it and however far ahead it is: it must not be
-- said for hours after it has passed. Whoever polls for the schedule says when else.
UPDATE bibwire.scopes
SET failing_since = coalesce(failing_since, %(now)s),
    last_error = %(error)s,
    next_due_at = CASE
        WHEN next_due_at > %(now)s::timestamptz + interval '1 minute' THEN %(now)s::timestamptz + interval '1 minute'
        ELSE next_due_at
    END
WHERE partner_id = %(partner_id)s
  AND race_id = %(race_id)s;

-- name: works
-- The vendor answered for the race: its access is back, if it was lost.
UPDATE bibwire.races
SET access_lost_at = NULL
WHERE partner_id = %(partner_id)s
  AND race_id = %(race_id)s
  AND access_lost_at IS NOT NULL;

-- name: works_well
-- The same, and nothing is wrong with it any more.
WITH race AS (
    UPDATE bibwire.races
    SET access_lost_at = NULL
    WHERE partner_id = %(partner_id)s
      AND race_id = %(race_id)s
      AND access_lost_at IS NOT NULL
)
UPDATE bibwire.scopes
SET failing_since = NULL,
    last_error = NULL
WHERE partner_id = %(partner_id)s
  AND race_id = %(race_id)s
  AND failing_since IS NOT NULL;

-- name: forget_missing
DELETE FROM bibwire.missing
WHERE partner_id = %(partner_id)s
  AND race_id = %(race_id)s;

-- name: missing
-- Registrations the full sweep begun at `high` did not list, still stored as active and as before it.
SELECT m.registration_id, p.event_id
FROM bibwire.missing AS m
JOIN bibwire.participants AS p USING (partner_id, registration_id)
WHERE m.partner_id = %(partner_id)s
  AND m.race_id = %(race_id)s
  AND p.removed_at IS NULL
  AND p.as_of <= %(high)s
ORDER BY m.registration_id;

-- name: active_by_event
-- Active registrations the mirror holds of some events.
SELECT event_id, count(*)
FROM bibwire.participants
WHERE partner_id = %(partner_id)s
  AND race_id = %(race_id)s
  AND event_id = ANY (%(event_ids)s)
  AND removed_at IS NULL
GROUP BY event_id;
