-- name: make_stage
-- The key is for the plan: a stage is never analysed.
CREATE TEMPORARY TABLE IF NOT EXISTS audit_stage (
    LIKE bibwire.participants INCLUDING DEFAULTS,
    PRIMARY KEY (registration_id)
) ON COMMIT DELETE ROWS;

-- name: copy_stage
COPY audit_stage (
    partner_id, registration_id, event_id, user_id, first_name, middle_name, last_name, email, phone, dob,
    gender, age, address, city, state, country_code, bib_num, chip_num, registered_at, last_modified_at,
    team_info, payment_info, additional_data, race_id, as_of, removed_at, removed_reason,
    new_registration_id, raw_hash, first_seen_at, changed_at
) FROM STDIN (FORMAT csv, NULL 'null', ESCAPE '\');

-- name: differing
-- Those of a page whose stored columns are not what the record says. The range is that of the page.
SELECT p.registration_id
FROM bibwire.participants AS p
JOIN audit_stage AS s ON s.registration_id = p.registration_id
WHERE p.partner_id = %(partner_id)s
  AND p.race_id = %(race_id)s
  AND p.event_id = ANY (%(event_ids)s)
  AND p.registration_id BETWEEN %(lowest)s AND %(highest)s
  AND (
      p.event_id, p.user_id, p.first_name, p.middle_name, p.last_name, p.email, p.phone, p.dob, p.gender,
      p.age, p.address, p.city, p.state, p.country_code, p.bib_num, p.chip_num, p.registered_at,
      p.last_modified_at, p.team_info, p.payment_info, p.additional_data
  ) IS DISTINCT FROM (
      s.event_id, s.user_id, s.first_name, s.middle_name, s.last_name, s.email, s.phone, s.dob, s.gender,
      s.age, s.address, s.city, s.state, s.country_code, s.bib_num, s.chip_num, s.registered_at,
      s.last_modified_at, s.team_info, s.payment_info, s.additional_data
  );

-- name: rows
-- These registrations as they are stored, without a lock.
SELECT
    p.registration_id, p.event_id, p.user_id, p.first_name, p.middle_name, p.last_name, p.email, p.phone,
    p.dob, p.gender, p.age, p.address, p.city, p.state, p.country_code, p.bib_num, p.chip_num,
    p.registered_at, p.last_modified_at, p.team_info, p.payment_info, p.additional_data,
    p.race_id, p.as_of, p.removed_at, p.removed_reason, p.new_registration_id
FROM bibwire.participants AS p
WHERE p.partner_id = %(partner_id)s
  AND p.registration_id = ANY (%(registration_ids)s);
