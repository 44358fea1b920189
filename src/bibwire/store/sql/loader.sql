-- name: stored_range
-- What a page of a full sweep should list: the stored ids of its events in its range. A race's
-- other years, whose ids are all below, are not touched.
SELECT registration_id, raw_hash, removed_at IS NULL
FROM bibwire.participants
WHERE partner_id = %(partner_id)s
  AND race_id = %(race_id)s
  AND event_id = ANY (%(event_ids)s)
  AND registration_id > %(after)s
  -- A bound in every plan: an OR would make it a filter over the rest of the race, page by page.
  AND registration_id <= coalesce(%(through)s::bigint, 9223372036854775807);

-- name: stored_ids
-- The same of the ids a page of a delta lists, with what a bib that moved alone is compared with.
-- LATERAL and LIMIT 1: row by row by the key, whatever the planner knows of the table.
SELECT
    p.registration_id, p.raw_hash, p.removed_at IS NULL,
    p.ctid::text, p.race_id, p.event_id, p.bib_num, p.last_modified_at
FROM unnest(%(registration_ids)s::bigint[]) AS s (registration_id)
CROSS JOIN LATERAL (
    SELECT
        k.ctid, k.registration_id, k.raw_hash, k.removed_at, k.race_id, k.event_id, k.bib_num,
        k.last_modified_at
    FROM bibwire.participants AS k
    WHERE k.partner_id = %(partner_id)s
      AND k.registration_id = s.registration_id
    LIMIT 1
) AS p;

-- name: plan_for_many
-- For the rest of the transaction: rows are found one by one, at their places, and not by reading the
-- table, whatever the planner takes it for.
SELECT
    set_config('enable_hashjoin', 'off', true),
    set_config('enable_mergejoin', 'off', true),
    set_config('enable_seqscan', 'off', true);

-- name: move_bibs
-- Rows of which the bib and the time of the last change alone moved, all of a page. One that is not
-- as it was when it was compared is left alone: who counts the rows sees it.
UPDATE bibwire.participants AS p
SET bib_num = s.bib_to,
    last_modified_at = to_timestamp(s.modified_to),
    raw_hash = s.digests,
    changed_at = %(now)s,
    as_of = greatest(p.as_of, %(as_of)s)
FROM unnest(
    %(places)s::tid[], %(registration_ids)s::bigint[], %(bibs_from)s::integer[], %(bibs_to)s::integer[],
    %(modified_to)s::bigint[], %(digests)s::bytea[]
) AS s (place, registration_id, bib_from, bib_to, modified_to, digests)
WHERE p.ctid = s.place
  -- Compared so that no index can be used: the place alone is how a row is found.
  AND p.partner_id IS NOT DISTINCT FROM %(partner_id)s
  AND p.registration_id IS NOT DISTINCT FROM s.registration_id
  AND p.race_id IS NOT DISTINCT FROM %(race_id)s
  AND p.bib_num IS NOT DISTINCT FROM s.bib_from
  AND p.removed_at IS NULL;

-- name: standings
-- How the registrations of a removed page stand; found row by row, as in stored_ids.
SELECT p.registration_id, p.event_id, p.removed_at, p.removed_reason, p.new_registration_id
FROM unnest(%(registration_ids)s::bigint[]) AS s (registration_id)
CROSS JOIN LATERAL (
    SELECT k.registration_id, k.event_id, k.removed_at, k.removed_reason, k.new_registration_id
    FROM bibwire.participants AS k
    WHERE k.partner_id = %(partner_id)s
      AND k.registration_id = s.registration_id
    LIMIT 1
) AS p;

-- name: active_of
-- Those of a removed page that are stored as active.
SELECT p.registration_id, p.event_id, p.last_modified_at
FROM unnest(%(registration_ids)s::bigint[]) AS s (registration_id)
CROSS JOIN LATERAL (
    SELECT k.registration_id, k.event_id, k.last_modified_at, k.removed_at
    FROM bibwire.participants AS k
    WHERE k.partner_id = %(partner_id)s
      AND k.registration_id = s.registration_id
    LIMIT 1
) AS p
WHERE p.removed_at IS NULL;

-- name: rows_before
-- The rows that may change, locked until the commit; found row by row, as in stored_ids.
SELECT
    p.registration_id, p.event_id, p.user_id, p.first_name, p.middle_name, p.last_name, p.email, p.phone,
    p.dob, p.gender, p.age, p.address, p.city, p.state, p.country_code, p.bib_num, p.chip_num,
    p.registered_at, p.last_modified_at, p.team_info, p.payment_info, p.additional_data,
    p.race_id, p.as_of, p.removed_at, p.removed_reason, p.new_registration_id
FROM unnest(%(registration_ids)s::bigint[]) AS s (registration_id)
CROSS JOIN LATERAL (
    SELECT k.*
    FROM bibwire.participants AS k
    WHERE k.partner_id = %(partner_id)s
      AND k.registration_id = s.registration_id
    LIMIT 1
    FOR UPDATE
) AS p;

-- name: copy_participants
-- A first load goes straight into the table. The lines are JSON to whom writes them: copy_text.py.
COPY bibwire.participants (
    partner_id, registration_id, event_id, user_id, first_name, middle_name, last_name, email, phone, dob,
    gender, age, address, city, state, country_code, bib_num, chip_num, registered_at, last_modified_at,
    team_info, payment_info, additional_data, race_id, as_of, removed_at, removed_reason,
    new_registration_id, raw_hash, first_seen_at, changed_at
) FROM STDIN (FORMAT csv, NULL 'null', ESCAPE '\');

-- name: make_stage
CREATE TEMPORARY TABLE IF NOT EXISTS stage (LIKE bibwire.participants INCLUDING DEFAULTS) ON COMMIT DELETE ROWS;

-- name: copy_stage
COPY stage (
    partner_id, registration_id, event_id, user_id, first_name, middle_name, last_name, email, phone, dob,
    gender, age, address, city, state, country_code, bib_num, chip_num, registered_at, last_modified_at,
    team_info, payment_info, additional_data, race_id, as_of, removed_at, removed_reason,
    new_registration_id, raw_hash, first_seen_at, changed_at
) FROM STDIN (FORMAT csv, NULL 'null', ESCAPE '\');

-- name: merge_stage
-- The stage holds only rows that differ, their old versions locked by rows_before. ON CONFLICT
-- locks and logs even what it leaves alone: it is never given an unchanged row.
INSERT INTO bibwire.participants AS p (
    partner_id, registration_id, event_id, user_id, first_name, middle_name, last_name, email, phone, dob,
    gender, age, address, city, state, country_code, bib_num, chip_num, registered_at, last_modified_at,
    team_info, payment_info, additional_data, race_id, as_of, removed_at, removed_reason,
    new_registration_id, raw_hash, first_seen_at, changed_at
)
SELECT
    partner_id, registration_id, event_id, user_id, first_name, middle_name, last_name, email, phone, dob,
    gender, age, address, city, state, country_code, bib_num, chip_num, registered_at, last_modified_at,
    team_info, payment_info, additional_data, race_id, as_of, removed_at, removed_reason,
    new_registration_id, raw_hash, first_seen_at, changed_at
FROM stage
ON CONFLICT (partner_id, registration_id) DO UPDATE
SET event_id = excluded.event_id,
    user_id = excluded.user_id,
    first_name = excluded.first_name,
    middle_name = excluded.middle_name,
    last_name = excluded.last_name,
    email = excluded.email,
    phone = excluded.phone,
    dob = excluded.dob,
    gender = excluded.gender,
    age = excluded.age,
    address = excluded.address,
    city = excluded.city,
    state = excluded.state,
    country_code = excluded.country_code,
    bib_num = excluded.bib_num,
    chip_num = excluded.chip_num,
    registered_at = excluded.registered_at,
    last_modified_at = excluded.last_modified_at,
    team_info = excluded.team_info,
    payment_info = excluded.payment_info,
    additional_data = excluded.additional_data,
    race_id = excluded.race_id,
    as_of = excluded.as_of,
    removed_at = excluded.removed_at,
    removed_reason = excluded.removed_reason,
    new_registration_id = excluded.new_registration_id,
    -- A removal brings no record of its own.
    raw_hash = coalesce(excluded.raw_hash, p.raw_hash),
    changed_at = excluded.changed_at;

-- name: note_missing
INSERT INTO bibwire.missing (partner_id, race_id, registration_id)
SELECT %(partner_id)s, %(race_id)s, unnest(%(registration_ids)s::bigint[])
ON CONFLICT DO NOTHING;

-- name: missed
-- What the full sweep going on did not list, within the ids of a page.
SELECT registration_id
FROM bibwire.missing
WHERE partner_id = %(partner_id)s
  AND race_id = %(race_id)s
  AND registration_id BETWEEN %(lowest)s AND %(highest)s;

-- name: found_after_all
-- Listed under another event of the same sweep, among the changes since, or when asked again.
DELETE FROM bibwire.missing
WHERE partner_id = %(partner_id)s
  AND race_id = %(race_id)s
  AND registration_id = ANY (%(registration_ids)s);
