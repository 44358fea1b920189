-- name: make_race_stage
CREATE TEMPORARY TABLE IF NOT EXISTS race_stage (LIKE bibwire.races INCLUDING DEFAULTS) ON COMMIT DELETE ROWS;

-- name: make_event_stage
CREATE TEMPORARY TABLE IF NOT EXISTS event_stage (LIKE bibwire.events INCLUDING DEFAULTS) ON COMMIT DELETE ROWS;

-- name: copy_races
COPY race_stage (
    partner_id, race_id, name, timezone, url, address, next_date, last_modified_at, additional_data,
    first_seen_at, changed_at
) FROM STDIN;

-- name: copy_events
COPY event_stage (
    partner_id, event_id, race_id, name, starts_at, ends_at, distance, distance_m, event_type,
    additional_data, hot_from, hot_until, hot_because, first_seen_at, changed_at
) FROM STDIN;

-- name: next_reading
-- The number of a page of a race list that is about to be asked for.
SELECT nextval('bibwire.list_readings');

-- name: lock_list
-- Nobody else stores what this partner's list shows until the commit.
SELECT FROM bibwire.partners WHERE partner_id = %(partner_id)s FOR NO KEY UPDATE;

-- name: drop_older_races
-- Leave alone what a page asked for later than this one has told of.
DELETE FROM race_stage AS s
USING bibwire.races AS r
WHERE r.partner_id = s.partner_id
  AND r.race_id = s.race_id
  AND r.list_reading > %(reading)s;

-- name: drop_older_events
DELETE FROM event_stage AS s
USING bibwire.events AS e
WHERE e.partner_id = s.partner_id
  AND e.event_id = s.event_id
  AND e.list_reading > %(reading)s;

-- name: note_shown_races
-- What is equal to the stored row is written for this alone: an older list must not unlist it.
UPDATE bibwire.races AS r
SET list_reading = %(reading)s
FROM race_stage AS s
WHERE r.partner_id = s.partner_id
  AND r.race_id = s.race_id;

-- name: note_shown_events
UPDATE bibwire.events AS e
SET list_reading = %(reading)s,
    unlisted_at = NULL
FROM event_stage AS s
WHERE e.partner_id = s.partner_id
  AND e.event_id = s.event_id;

-- name: shown_since
-- Races of a partner of which pages numbered from `reading` on have told.
SELECT race_id
FROM bibwire.races
WHERE partner_id = %(partner_id)s
  AND list_reading >= %(reading)s;

-- name: events_shown_since
-- Events of a partner of which pages numbered from `reading` on have told.
SELECT event_id
FROM bibwire.events
WHERE partner_id = %(partner_id)s
  AND list_reading >= %(reading)s;

-- name: left_coming
-- Races that the last list of coming races showed and this one does not.
SELECT r.race_id
FROM bibwire.races AS r
WHERE r.partner_id = %(partner_id)s
  AND r.coming_reading < %(reading)s
  AND r.unlisted_at IS NULL
  AND r.removed_at IS NULL
  AND r.race_id <> ALL (%(race_ids)s);

-- name: note_coming
-- What a list of coming races shows; what it does not show is asked after once, and forgotten here.
UPDATE bibwire.races AS r
SET coming_reading = CASE WHEN r.race_id = ANY (%(race_ids)s) THEN %(reading)s END
WHERE r.partner_id = %(partner_id)s
  AND (r.race_id = ANY (%(race_ids)s) OR r.coming_reading < %(reading)s);

-- name: note_unlisted
-- Races that a complete list, begun at `reading`, is the first not to show.
UPDATE bibwire.races
SET list_reading = %(reading)s
WHERE partner_id = %(partner_id)s
  AND unlisted_at IS NULL
  AND race_id <> ALL (%(race_ids)s);

-- name: relist_returned
-- Of races that were gone or unlisted and are back, everything is listed again: what happened
-- meanwhile may be in no list of changes.
UPDATE bibwire.scopes AS c
SET relist_since = coalesce(c.relist_since, %(now)s)
FROM race_stage AS s
JOIN bibwire.races AS old USING (partner_id, race_id)
WHERE c.partner_id = s.partner_id
  AND c.race_id = s.race_id
  AND (old.removed_at IS NOT NULL OR old.unlisted_at IS NOT NULL);

-- name: merge_races
-- Store races that are new or differ; one that was gone or unlisted is back.
INSERT INTO bibwire.races AS r (
    partner_id, race_id, name, timezone, url, address, next_date, last_modified_at, additional_data,
    first_seen_at, changed_at
)
SELECT
    s.partner_id, s.race_id, s.name, s.timezone, s.url, s.address, s.next_date, s.last_modified_at,
    s.additional_data, s.first_seen_at, s.changed_at
FROM race_stage AS s
LEFT JOIN bibwire.races AS old USING (partner_id, race_id)
WHERE old.race_id IS NULL
   OR old.removed_at IS NOT NULL
   OR old.unlisted_at IS NOT NULL
   OR (
       s.name, s.timezone, s.url, s.address, s.next_date, s.last_modified_at, s.additional_data
   ) IS DISTINCT FROM (
       old.name, old.timezone, old.url, old.address, old.next_date, old.last_modified_at,
       old.additional_data
   )
ON CONFLICT (partner_id, race_id) DO UPDATE
SET name = excluded.name,
    timezone = excluded.timezone,
    url = excluded.url,
    address = excluded.address,
    next_date = excluded.next_date,
    last_modified_at = excluded.last_modified_at,
    additional_data = excluded.additional_data,
    changed_at = excluded.changed_at,
    removed_at = NULL,
    unlisted_at = NULL;

-- name: merge_events
-- Store events that are new or differ; one that was gone is back.
INSERT INTO bibwire.events AS e (
    partner_id, event_id, race_id, name, starts_at, ends_at, distance, distance_m, event_type,
    additional_data, hot_from, hot_until, hot_because, first_seen_at, changed_at
)
SELECT
    s.partner_id, s.event_id, s.race_id, s.name, s.starts_at, s.ends_at, s.distance, s.distance_m,
    s.event_type, s.additional_data, s.hot_from, s.hot_until, s.hot_because, s.first_seen_at, s.changed_at
FROM event_stage AS s
LEFT JOIN bibwire.events AS old USING (partner_id, event_id)
WHERE old.event_id IS NULL
   OR old.removed_at IS NOT NULL
   OR (
       s.race_id, s.name, s.starts_at, s.ends_at, s.distance, s.distance_m, s.event_type,
       s.additional_data, s.hot_from, s.hot_until, s.hot_because
   ) IS DISTINCT FROM (
       old.race_id, old.name, old.starts_at, old.ends_at, old.distance, old.distance_m, old.event_type,
       old.additional_data, old.hot_from, old.hot_until, old.hot_because
   )
ON CONFLICT (partner_id, event_id) DO UPDATE
SET race_id = excluded.race_id,
    name = excluded.name,
    starts_at = excluded.starts_at,
    ends_at = excluded.ends_at,
    distance = excluded.distance,
    distance_m = excluded.distance_m,
    event_type = excluded.event_type,
    additional_data = excluded.additional_data,
    hot_from = excluded.hot_from,
    hot_until = excluded.hot_until,
    hot_because = excluded.hot_because,
    changed_at = excluded.changed_at,
    removed_at = NULL;

-- name: open_scopes
-- A race with a live event has a scope from the moment it is stored, so that whoever asks which race
-- is not polled asks the scopes.
WITH live AS (
    SELECT DISTINCT s.partner_id, s.race_id
    FROM event_stage AS s
    WHERE coalesce(greatest(s.starts_at, s.ends_at) > %(over_before)s::timestamptz, true)
      -- A race's own page may tell of events before any list has told of the race.
      AND EXISTS (
          SELECT
          FROM bibwire.races AS r
          WHERE r.partner_id = s.partner_id AND r.race_id = s.race_id
      )
),

opened AS (
    INSERT INTO bibwire.scopes (partner_id, race_id)
    SELECT l.partner_id, l.race_id
    FROM live AS l
    ON CONFLICT DO NOTHING
)

INSERT INTO bibwire.streams (partner_id, race_id, stream)
SELECT l.partner_id, l.race_id, b.stream
FROM live AS l, unnest(ARRAY['participants', 'removed']) AS b (stream)
ON CONFLICT DO NOTHING;

-- name: reread_unlisted
-- Rights may be lost since the last complete list: what such races answered since is not believed.
UPDATE bibwire.scopes AS c
SET reread_from = least(c.reread_from, coalesce(p.race_list_at, r.first_seen_at))
FROM bibwire.races AS r
JOIN bibwire.partners AS p USING (partner_id)
WHERE c.partner_id = r.partner_id
  AND c.race_id = r.race_id
  AND r.partner_id = %(partner_id)s
  AND r.unlisted_at IS NULL
  AND r.race_id <> ALL (%(race_ids)s);

-- name: list_read
UPDATE bibwire.partners
SET race_list_at = %(began_at)s
WHERE partner_id = %(partner_id)s;

-- name: mark_unlisted
-- Races that a complete race list does not show. They are read on while the vendor answers.
UPDATE bibwire.races
SET unlisted_at = %(now)s
WHERE partner_id = %(partner_id)s
  AND unlisted_at IS NULL
  AND race_id <> ALL (%(race_ids)s);

-- name: events_since
-- Events of a partner not over before `over_after`, or without a time: those that may be live, or
-- are in the span of a backfill.
SELECT
    e.race_id, r.name, e.event_id, e.starts_at, e.ends_at, r.unlisted_at IS NULL, s.loaded_at IS NOT NULL
FROM bibwire.events AS e
JOIN bibwire.races AS r USING (partner_id, race_id)
LEFT JOIN bibwire.scopes AS s USING (partner_id, race_id)
WHERE e.partner_id = %(partner_id)s
  AND (%(race_id)s::bigint IS NULL OR e.race_id = %(race_id)s)
  AND e.removed_at IS NULL
  AND r.removed_at IS NULL
  AND (e.lasts_until >= %(over_after)s OR e.lasts_until IS NULL)
ORDER BY e.race_id, e.event_id;

-- name: changed_since
-- How many races and events that were known before were stored otherwise since an instant.
SELECT
    (
        SELECT count(*)
        FROM bibwire.races AS r
        WHERE r.partner_id = %(partner_id)s AND r.changed_at >= %(since)s AND r.first_seen_at < %(since)s
    ),
    (
        SELECT count(*)
        FROM bibwire.events AS e
        WHERE e.partner_id = %(partner_id)s AND e.changed_at >= %(since)s AND e.first_seen_at < %(since)s
    );

-- name: race_known
SELECT EXISTS (
    SELECT FROM bibwire.races AS r WHERE r.partner_id = %(partner_id)s AND r.race_id = %(race_id)s
);

-- name: relist_lost
-- When access comes back everything is listed again; until then nothing since the last complete
-- race list is called fresh.
UPDATE bibwire.scopes AS c
SET relist_since = coalesce(c.relist_since, %(now)s),
    reread_from = least(c.reread_from, coalesce(p.race_list_at, r.first_seen_at))
FROM bibwire.races AS r
JOIN bibwire.partners AS p USING (partner_id)
WHERE c.partner_id = r.partner_id
  AND c.race_id = r.race_id
  AND r.partner_id = %(partner_id)s
  AND r.race_id = %(race_id)s
  AND r.access_lost_at IS NULL;

-- name: lose_access
UPDATE bibwire.races
SET access_lost_at = coalesce(access_lost_at, %(now)s)
WHERE partner_id = %(partner_id)s AND race_id = %(race_id)s;

-- name: race_gone
UPDATE bibwire.races
SET removed_at = coalesce(removed_at, %(now)s)
WHERE partner_id = %(partner_id)s AND race_id = %(race_id)s;

-- name: event_not_found
UPDATE bibwire.events
SET not_found_at = coalesce(not_found_at, %(now)s)
WHERE partner_id = %(partner_id)s AND event_id = %(event_id)s;

-- name: ask_after_unlisted
-- Races that a complete list is the first not to show: whether they are gone is asked at once.
UPDATE bibwire.scopes AS c
SET next_due_at = least(c.next_due_at, %(now)s)
FROM bibwire.races AS r
WHERE r.partner_id = %(partner_id)s
  AND r.unlisted_at = %(now)s
  AND c.partner_id = r.partner_id
  AND c.race_id = r.race_id
  AND c.next_due_at > %(now)s;

-- name: ask_after_events
-- Events that may be live and that a list, begun at `reading`, shows their race without: likewise.
WITH gone AS (
    UPDATE bibwire.events AS e
    SET unlisted_at = %(now)s
    WHERE e.partner_id = %(partner_id)s
      AND e.race_id = ANY (%(race_ids)s)
      AND e.list_reading < %(reading)s
      AND e.unlisted_at IS NULL
      AND e.removed_at IS NULL
      AND coalesce(e.lasts_until > %(over_before)s, true)
    RETURNING e.race_id
)

UPDATE bibwire.scopes AS c
SET next_due_at = least(c.next_due_at, %(now)s)
FROM gone AS g
WHERE c.partner_id = %(partner_id)s
  AND c.race_id = g.race_id
  AND c.next_due_at > %(now)s;

-- name: events_found
-- A complete race list shows these.
UPDATE bibwire.events
SET not_found_at = NULL
WHERE partner_id = %(partner_id)s
  AND not_found_at IS NOT NULL
  AND event_id = ANY (%(event_ids)s);

-- name: events_gone
-- Events the vendor did not find before a complete race list was begun, which does not show them.
UPDATE bibwire.events
SET removed_at = %(now)s
WHERE partner_id = %(partner_id)s
  AND not_found_at <= %(began_at)s
  AND removed_at IS NULL
  AND event_id <> ALL (%(event_ids)s);

-- name: note_page
UPDATE bibwire.credentials
SET longest_page = %(rows)s
WHERE partner_id = %(partner_id)s AND longest_page < %(rows)s;

-- name: trust_lists
UPDATE bibwire.credentials
SET trusted_list_length = greatest(trusted_list_length, %(length)s),
    list_pages_proven_at = CASE
        WHEN %(several_pages)s::boolean THEN coalesce(list_pages_proven_at, %(now)s::timestamptz)
        ELSE list_pages_proven_at
    END
WHERE partner_id = %(partner_id)s;

-- name: race_list_at
-- When the last complete race list was begun; null: never.
SELECT race_list_at
FROM bibwire.partners
WHERE partner_id = %(partner_id)s;

-- name: listed_races
-- The races that a partner's list shows, those with the latest event first.
SELECT r.race_id
FROM bibwire.races AS r
LEFT JOIN bibwire.events AS e USING (partner_id, race_id)
WHERE r.partner_id = %(partner_id)s
  AND (%(race_id)s::bigint IS NULL OR r.race_id = %(race_id)s)
  AND r.removed_at IS NULL
  AND r.unlisted_at IS NULL
GROUP BY r.race_id
ORDER BY max(e.starts_at) DESC NULLS LAST, r.race_id;

-- name: trusted_length
-- Of how many events together lists are believed under a partner's key.
SELECT CASE WHEN list_pages_proven_at IS NULL THEN 1 ELSE trusted_list_length END
FROM bibwire.credentials
WHERE partner_id = %(partner_id)s;

-- name: full_sync_since
-- Begin of the full sync that goes on or was interrupted; null: none.
SELECT full_sync_since
FROM bibwire.partners
WHERE partner_id = %(partner_id)s;

-- name: begin_full
UPDATE bibwire.partners
SET full_sync_since = %(now)s
WHERE partner_id = %(partner_id)s;

-- name: end_full
UPDATE bibwire.partners
SET full_sync_since = NULL
WHERE partner_id = %(partner_id)s;

-- name: scopes_listed_since
-- Races of the full sync going on that were already listed in full, both streams and to the end.
SELECT race_id, listed_at
FROM bibwire.scopes
WHERE partner_id = %(partner_id)s
  AND listed_at >= %(since)s;
