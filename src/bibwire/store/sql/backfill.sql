-- name: open
-- Note that a backfill is to look at these races; it is not finished before it has.
INSERT INTO bibwire.backfills (partner_id, race_id, asked_at)
SELECT %(partner_id)s, race_id, %(now)s
FROM unnest(%(race_ids)s::bigint[]) AS race_id
ON CONFLICT (partner_id, race_id) DO NOTHING;

-- name: years_read
SELECT years_read_at IS NOT NULL
FROM bibwire.backfills
WHERE partner_id = %(partner_id)s AND race_id = %(race_id)s;

-- name: note_years_read
UPDATE bibwire.backfills
SET years_read_at = %(now)s
WHERE partner_id = %(partner_id)s AND race_id = %(race_id)s;

-- name: want
-- Note what is to be loaded of a race; back: how far it is.
UPDATE bibwire.backfills
SET wanted = %(event_ids)s::bigint[],
    finished_at = CASE WHEN %(event_ids)s::bigint[] <@ event_ids THEN coalesce(finished_at, %(now)s::timestamptz) END
WHERE partner_id = %(partner_id)s AND race_id = %(race_id)s
RETURNING event_ids, counts, one_event_since IS NOT NULL, position;

-- name: state
SELECT event_ids, counts, one_event_since IS NOT NULL, position
FROM bibwire.backfills
WHERE partner_id = %(partner_id)s AND race_id = %(race_id)s;

-- name: save_counts
UPDATE bibwire.backfills
SET counts = counts || %(counts)s::jsonb
WHERE partner_id = %(partner_id)s AND race_id = %(race_id)s;

-- name: save_position
UPDATE bibwire.backfills
SET position = %(position)s
WHERE partner_id = %(partner_id)s AND race_id = %(race_id)s;

-- name: ask_one_event
UPDATE bibwire.backfills
SET one_event_since = coalesce(one_event_since, %(now)s),
    position = NULL
WHERE partner_id = %(partner_id)s AND race_id = %(race_id)s;

-- name: finish_events
-- Some events are loaded, people and removed people.
UPDATE bibwire.backfills AS b
SET event_ids = ARRAY(SELECT DISTINCT unnest(b.event_ids || %(event_ids)s::bigint[]) ORDER BY 1),
    position = NULL,
    failing_since = NULL,
    last_error = NULL,
    finished_at = CASE WHEN wanted <@ (event_ids || %(event_ids)s::bigint[]) THEN %(now)s::timestamptz END
WHERE partner_id = %(partner_id)s AND race_id = %(race_id)s;

-- name: list_teams_again
-- What was listed of these events' teams was so while they were live.
UPDATE bibwire.team_listings AS t
SET event_ids = ARRAY(SELECT unnest(t.event_ids) EXCEPT SELECT unnest(%(event_ids)s::bigint[]) ORDER BY 1),
    position = NULL
WHERE partner_id = %(partner_id)s AND race_id = %(race_id)s;

-- name: fail
UPDATE bibwire.backfills
SET failing_since = coalesce(failing_since, %(now)s),
    last_error = %(error)s,
    position = CASE WHEN %(begin_again)s THEN NULL ELSE position END
WHERE partner_id = %(partner_id)s AND race_id = %(race_id)s;

-- name: unstored
-- Those of these events of which no registration is stored.
SELECT w.event_id
FROM unnest(%(event_ids)s::bigint[]) AS w (event_id)
WHERE NOT EXISTS (
    SELECT
    FROM bibwire.participants AS p
    WHERE p.partner_id = %(partner_id)s AND p.race_id = %(race_id)s AND p.event_id = w.event_id
);

-- name: loaded_counts
-- What the mirror holds of a race, or of some of its events alone.
SELECT
    count(*) FILTER (WHERE removed_at IS NULL),
    count(*) FILTER (WHERE removed_at IS NOT NULL),
    count(*) FILTER (WHERE removed_at IS NULL AND bib_num IS NOT NULL),
    count(DISTINCT event_id) FILTER (WHERE removed_at IS NULL)
FROM bibwire.participants
WHERE partner_id = %(partner_id)s
  AND race_id = %(race_id)s
  AND (%(event_ids)s::bigint[] IS NULL OR event_id = ANY (%(event_ids)s));

-- name: set_loaded
UPDATE bibwire.scopes
SET loaded_at = %(now)s
WHERE partner_id = %(partner_id)s AND race_id = %(race_id)s AND loaded_at IS NULL;
