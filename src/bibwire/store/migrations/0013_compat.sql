-- Names and columns of the system that many move in from, over our tables: existing queries and
-- dashboards go on with search_path = bibwire_compat. Views and no copies; docs/adopt.md.

CREATE SCHEMA bibwire_compat;
COMMENT ON SCHEMA bibwire_compat IS 'Views with the names and columns of the original, over the mirror; read-only.';

CREATE TABLE bibwire_compat.settings (
    one_row boolean PRIMARY KEY DEFAULT true CHECK (one_row),
    -- A zone that nobody knows is an error of the comparison.
    zone text NOT NULL DEFAULT 'UTC' CHECK (timestamptz 'epoch' AT TIME ZONE zone IS NOT NULL),
    provider_id integer NOT NULL DEFAULT 1,
    provider_name text NOT NULL DEFAULT 'RunSignup',
    provider_type text DEFAULT 'registration',
    api_base_url text DEFAULT 'https://runsignup.com/rest',
    rate_limit_per_hour integer DEFAULT 1000
);
INSERT INTO bibwire_compat.settings DEFAULT VALUES;

CREATE TABLE bibwire_compat.numbers (
    partner_id bigint PRIMARY KEY REFERENCES bibwire.partners ON DELETE CASCADE,
    timing_partner_id integer NOT NULL UNIQUE CHECK (timing_partner_id BETWEEN 1 AND 1000000),
    partner_provider_credential_id integer
);

-- Ids that the original's type cannot hold are null: one of them must not end a whole query.
CREATE FUNCTION bibwire_compat.as_integer(number bigint) RETURNS integer
LANGUAGE sql IMMUTABLE
AS 'SELECT CASE WHEN $1 BETWEEN -2147483648 AND 2147483647 THEN $1::integer END';

CREATE FUNCTION bibwire_compat.as_flag(sent text) RETURNS boolean
LANGUAGE sql IMMUTABLE
AS $$SELECT CASE WHEN $1 IN ('T', 'true') THEN true WHEN $1 IN ('F', 'false') THEN false END$$;

-- A wall time as the vendor writes it, 2/5/2015 12:23 or 2015-02-05 12:23:00; null for anything else.
CREATE FUNCTION bibwire_compat.as_wall_time(sent text) RETURNS timestamp
LANGUAGE plpgsql IMMUTABLE
AS $$
DECLARE
    us text[] := regexp_match(sent, '^([0-9]{1,2})/([0-9]{1,2})/([0-9]{4})(?: ([0-9]{1,2}):([0-9]{2})(?::([0-9]{2}))?)?$');
    iso text[] := regexp_match(sent, '^([0-9]{4})-([0-9]{1,2})-([0-9]{1,2})(?: ([0-9]{1,2}):([0-9]{2})(?::([0-9]{2}))?)?$');
    parts integer[];
BEGIN
    IF us IS NOT NULL THEN
        iso := ARRAY[us[3], us[1], us[2], us[4], us[5], us[6]];
    END IF;
    IF iso IS NULL THEN
        RETURN NULL;
    END IF;
    parts := iso::integer[];
    RETURN make_timestamp(
        parts[1], parts[2], parts[3], coalesce(parts[4], 0), coalesce(parts[5], 0), coalesce(parts[6], 0)
    );
EXCEPTION
    WHEN datetime_field_overflow THEN
        RETURN NULL;
END
$$;

COMMENT ON TABLE bibwire_compat.settings IS 'Private, one row: what the views cannot know by themselves. Set by bibwire adopt.';
COMMENT ON COLUMN bibwire_compat.settings.one_row IS 'True: there is one row.';
COMMENT ON COLUMN bibwire_compat.settings.zone IS 'Zone of every time without zone in the views; bibwire adopt --zone ZONE changes it.';
COMMENT ON COLUMN bibwire_compat.settings.provider_id IS 'The number RunSignup had in the original''s table providers.';
COMMENT ON COLUMN bibwire_compat.settings.provider_name IS 'Its name there.';
COMMENT ON COLUMN bibwire_compat.settings.provider_type IS 'Its kind there.';
COMMENT ON COLUMN bibwire_compat.settings.api_base_url IS 'Its address there; not what Bibwire asks.';
COMMENT ON COLUMN bibwire_compat.settings.rate_limit_per_hour IS 'Its calls an hour there; each credential''s own stand in bibwire.credentials.';
COMMENT ON TABLE bibwire_compat.numbers IS 'Private: the numbers adopted partners had in the original, so that queries by number go on.';
COMMENT ON COLUMN bibwire_compat.numbers.partner_id IS 'Our number of the partner.';
COMMENT ON COLUMN bibwire_compat.numbers.timing_partner_id IS 'The original''s; a partner without one is shown as 1,000,000 and ours.';
COMMENT ON COLUMN bibwire_compat.numbers.partner_provider_credential_id IS 'The original''s number of its credential.';
COMMENT ON FUNCTION bibwire_compat.as_integer(bigint) IS 'Private: an id in the original''s type, null where it does not fit.';
COMMENT ON FUNCTION bibwire_compat.as_flag(text) IS 'Private: T and F of the vendor as true and false.';
COMMENT ON FUNCTION bibwire_compat.as_wall_time(text) IS 'Private: a date or wall time as the vendor writes it, null where it cannot be read.';

CREATE VIEW bibwire_compat.timing_partners AS
SELECT
    coalesce(n.timing_partner_id, (p.partner_id + 1000000)::integer) AS timing_partner_id,
    (p.name)::character varying AS company_name,
    NULL::character varying AS access_password,
    p.created_at AT TIME ZONE (SELECT zone FROM bibwire_compat.settings) AS created_at,
    greatest(p.created_at, p.paused_at) AT TIME ZONE (SELECT zone FROM bibwire_compat.settings) AS updated_at
FROM bibwire.partners AS p
LEFT JOIN bibwire_compat.numbers AS n USING (partner_id);
COMMENT ON VIEW bibwire_compat.timing_partners IS 'The partners, under the numbers they had in the original.';
COMMENT ON COLUMN bibwire_compat.timing_partners.timing_partner_id IS 'The partner''s number there; 1,000,000 and ours for one that was not there.';
COMMENT ON COLUMN bibwire_compat.timing_partners.company_name IS 'The partner''s name, as it is now.';
COMMENT ON COLUMN bibwire_compat.timing_partners.access_password IS 'Always null: keys are encrypted, and in no view.';
COMMENT ON COLUMN bibwire_compat.timing_partners.created_at IS 'When it was added here.';
COMMENT ON COLUMN bibwire_compat.timing_partners.updated_at IS 'When it was added or paused.';

CREATE VIEW bibwire_compat.providers AS
SELECT
    s.provider_id,
    (s.provider_name)::character varying AS name,
    (s.provider_type)::character varying AS provider_type,
    (s.api_base_url)::character varying AS api_base_url,
    s.rate_limit_per_hour,
    (SELECT min(p.created_at) FROM bibwire.partners AS p) AT TIME ZONE (SELECT zone FROM bibwire_compat.settings) AS created_at
FROM bibwire_compat.settings AS s;
COMMENT ON VIEW bibwire_compat.providers IS 'RunSignup, as it stood in the original; other providers are not mirrored.';
COMMENT ON COLUMN bibwire_compat.providers.provider_id IS 'Its number in the original.';
COMMENT ON COLUMN bibwire_compat.providers.name IS 'Its name there.';
COMMENT ON COLUMN bibwire_compat.providers.provider_type IS 'Its kind there.';
COMMENT ON COLUMN bibwire_compat.providers.api_base_url IS 'Its address there.';
COMMENT ON COLUMN bibwire_compat.providers.rate_limit_per_hour IS 'Its calls an hour there.';
COMMENT ON COLUMN bibwire_compat.providers.created_at IS 'When the first partner was added here.';

CREATE VIEW bibwire_compat.partner_provider_credentials AS
SELECT
    coalesce(n.partner_provider_credential_id, (c.credential_id + 1000000)::integer) AS partner_provider_credential_id,
    (SELECT provider_id FROM bibwire_compat.settings) AS provider_id,
    coalesce(n.timing_partner_id, (p.partner_id + 1000000)::integer) AS timing_partner_id,
    NULL::character varying AS principal,
    NULL::character varying AS secret,
    CASE c.kind WHEN 'key' THEN 'api_key' ELSE c.kind END::character varying AS credential_type,
    NULL::jsonb AS additional_config,
    c.created_at AT TIME ZONE (SELECT zone FROM bibwire_compat.settings) AS created_at,
    coalesce(c.rotated_at, c.created_at) AT TIME ZONE (SELECT zone FROM bibwire_compat.settings) AS updated_at
FROM bibwire.credentials AS c
JOIN bibwire.partners AS p USING (partner_id)
LEFT JOIN bibwire_compat.numbers AS n USING (partner_id);
COMMENT ON VIEW bibwire_compat.partner_provider_credentials IS 'Which partner has a credential; the credential itself is null.';
COMMENT ON COLUMN bibwire_compat.partner_provider_credentials.partner_provider_credential_id IS 'The credential''s number there; 1,000,000 and ours for one that was not there.';
COMMENT ON COLUMN bibwire_compat.partner_provider_credentials.provider_id IS 'RunSignup''s number.';
COMMENT ON COLUMN bibwire_compat.partner_provider_credentials.timing_partner_id IS 'The partner''s number there; 1,000,000 and ours for one that was not there.';
COMMENT ON COLUMN bibwire_compat.partner_provider_credentials.principal IS 'Always null: keys are encrypted, and in no view.';
COMMENT ON COLUMN bibwire_compat.partner_provider_credentials.secret IS 'Always null: keys are encrypted, and in no view.';
COMMENT ON COLUMN bibwire_compat.partner_provider_credentials.credential_type IS 'api_key, v2 or bearer.';
COMMENT ON COLUMN bibwire_compat.partner_provider_credentials.additional_config IS 'Always null: it may have held a secret.';
COMMENT ON COLUMN bibwire_compat.partner_provider_credentials.created_at IS 'When it was stored here.';
COMMENT ON COLUMN bibwire_compat.partner_provider_credentials.updated_at IS 'When it was last replaced.';

CREATE VIEW bibwire_compat.runsignup_races AS
SELECT
    r.race_id::integer AS race_id,
    r.name,
    bibwire_compat.as_wall_time(r.additional_data ->> 'last_date') AS last_date,
    bibwire_compat.as_wall_time(r.additional_data ->> 'last_end_date') AS last_end_date,
    coalesce(r.next_date::timestamp, bibwire_compat.as_wall_time(r.additional_data ->> 'next_date')) AS next_date,
    bibwire_compat.as_wall_time(r.additional_data ->> 'next_end_date') AS next_end_date,
    bibwire_compat.as_flag(r.additional_data ->> 'is_draft_race') AS is_draft_race,
    bibwire_compat.as_flag(r.additional_data ->> 'is_private_race') AS is_private_race,
    bibwire_compat.as_flag(r.additional_data ->> 'is_registration_open') AS is_registration_open,
    (bibwire_compat.as_wall_time(r.additional_data ->> 'created') AT TIME ZONE 'America/New_York') AT TIME ZONE (SELECT zone FROM bibwire_compat.settings) AS created,
    r.last_modified_at AT TIME ZONE (SELECT zone FROM bibwire_compat.settings) AS last_modified,
    r.additional_data ->> 'description' AS description,
    (r.url)::character varying AS url,
    (r.additional_data ->> 'external_race_url')::character varying AS external_race_url,
    (r.additional_data ->> 'external_results_url')::character varying AS external_results_url,
    (r.additional_data ->> 'fb_page_id')::character varying AS fb_page_id,
    (r.additional_data ->> 'fb_event_id')::character varying AS fb_event_id,
    r.address,
    (r.timezone)::character varying AS timezone,
    (r.additional_data ->> 'logo_url')::character varying AS logo_url,
    bibwire_compat.as_flag(r.additional_data ->> 'real_time_notifications_enabled') AS real_time_notifications_enabled,
    greatest(p.race_list_at, r.changed_at) AT TIME ZONE (SELECT zone FROM bibwire_compat.settings) AS fetched_date,
    NULL::character varying AS credentials_used,
    coalesce(n.timing_partner_id, (p.partner_id + 1000000)::integer) AS timing_partner_id,
    r.first_seen_at AT TIME ZONE (SELECT zone FROM bibwire_compat.settings) AS created_at
FROM bibwire.races AS r
JOIN bibwire.partners AS p USING (partner_id)
LEFT JOIN bibwire_compat.numbers AS n USING (partner_id)
WHERE r.removed_at IS NULL
  AND NOT EXISTS (
      SELECT FROM bibwire.races AS o
      WHERE o.race_id = r.race_id AND o.partner_id < r.partner_id AND o.removed_at IS NULL
  );
COMMENT ON VIEW bibwire_compat.runsignup_races IS 'Races that exist, each once: one that several partners see is the one''s that was added first.';
COMMENT ON COLUMN bibwire_compat.runsignup_races.race_id IS 'RunSignup race_id.';
COMMENT ON COLUMN bibwire_compat.runsignup_races.name IS 'As typed by the organiser.';
COMMENT ON COLUMN bibwire_compat.runsignup_races.last_date IS 'Last race day, at midnight.';
COMMENT ON COLUMN bibwire_compat.runsignup_races.last_end_date IS 'Its last day, at midnight.';
COMMENT ON COLUMN bibwire_compat.runsignup_races.next_date IS 'Next race day, at midnight.';
COMMENT ON COLUMN bibwire_compat.runsignup_races.next_end_date IS 'Its last day, at midnight.';
COMMENT ON COLUMN bibwire_compat.runsignup_races.is_draft_race IS 'As sent.';
COMMENT ON COLUMN bibwire_compat.runsignup_races.is_private_race IS 'As sent.';
COMMENT ON COLUMN bibwire_compat.runsignup_races.is_registration_open IS 'As sent.';
COMMENT ON COLUMN bibwire_compat.runsignup_races.created IS 'When the race was made at the vendor, in the zone of the views.';
COMMENT ON COLUMN bibwire_compat.runsignup_races.last_modified IS 'When the race record changed at the vendor, in the zone of the views.';
COMMENT ON COLUMN bibwire_compat.runsignup_races.description IS 'HTML, as sent.';
COMMENT ON COLUMN bibwire_compat.runsignup_races.url IS 'The race''s page.';
COMMENT ON COLUMN bibwire_compat.runsignup_races.external_race_url IS 'As sent.';
COMMENT ON COLUMN bibwire_compat.runsignup_races.external_results_url IS 'As sent.';
COMMENT ON COLUMN bibwire_compat.runsignup_races.fb_page_id IS 'As sent.';
COMMENT ON COLUMN bibwire_compat.runsignup_races.fb_event_id IS 'As sent.';
COMMENT ON COLUMN bibwire_compat.runsignup_races.address IS 'As sent.';
COMMENT ON COLUMN bibwire_compat.runsignup_races.timezone IS 'IANA name of the race''s zone, as sent.';
COMMENT ON COLUMN bibwire_compat.runsignup_races.logo_url IS 'As sent.';
COMMENT ON COLUMN bibwire_compat.runsignup_races.real_time_notifications_enabled IS 'As sent.';
COMMENT ON COLUMN bibwire_compat.runsignup_races.fetched_date IS 'When the partner''s race list was last read, in the zone of the views.';
COMMENT ON COLUMN bibwire_compat.runsignup_races.credentials_used IS 'Always null: keys are encrypted, and in no view.';
COMMENT ON COLUMN bibwire_compat.runsignup_races.timing_partner_id IS 'The partner''s number there; 1,000,000 and ours for one that was not there.';
COMMENT ON COLUMN bibwire_compat.runsignup_races.created_at IS 'When we first saw it, in the zone of the views.';

CREATE VIEW bibwire_compat.runsignup_events AS
SELECT
    e.event_id::integer AS event_id,
    e.race_id::integer AS race_id,
    e.name,
    e.additional_data ->> 'details' AS details,
    e.starts_at AT TIME ZONE (SELECT zone FROM bibwire_compat.settings) AS start_time,
    e.ends_at AT TIME ZONE (SELECT zone FROM bibwire_compat.settings) AS end_time,
    bibwire_compat.as_wall_time(e.additional_data ->> 'age_calc_base_date')::date AS age_calc_base_date,
    (bibwire_compat.as_wall_time(e.additional_data ->> 'registration_opens') AT TIME ZONE 'America/New_York') AT TIME ZONE (SELECT zone FROM bibwire_compat.settings) AS registration_opens,
    (e.event_type)::character varying AS event_type,
    substring(e.distance FROM '[0-9]+(?:[.][0-9]+)?')::numeric AS distance,
    bibwire_compat.as_flag(e.additional_data ->> 'volunteer') AS volunteer,
    bibwire_compat.as_flag(e.additional_data ->> 'require_dob') AS require_dob,
    bibwire_compat.as_flag(e.additional_data ->> 'require_phone') AS require_phone,
    e.additional_data ->> 'giveaway' AS giveaway,
    greatest(p.race_list_at, e.changed_at) AT TIME ZONE (SELECT zone FROM bibwire_compat.settings) AS fetched_date,
    NULL::character varying AS credentials_used,
    coalesce(n.timing_partner_id, (p.partner_id + 1000000)::integer) AS timing_partner_id,
    e.first_seen_at AT TIME ZONE (SELECT zone FROM bibwire_compat.settings) AS created_at
FROM bibwire.events AS e
JOIN bibwire.partners AS p USING (partner_id)
LEFT JOIN bibwire_compat.numbers AS n USING (partner_id)
WHERE e.removed_at IS NULL
  AND NOT EXISTS (
      SELECT FROM bibwire.events AS o
      WHERE o.event_id = e.event_id AND o.partner_id < e.partner_id AND o.removed_at IS NULL
  );
COMMENT ON VIEW bibwire_compat.runsignup_events IS 'Events that exist, each once, as races.';
COMMENT ON COLUMN bibwire_compat.runsignup_events.event_id IS 'RunSignup event_id.';
COMMENT ON COLUMN bibwire_compat.runsignup_events.race_id IS 'The race.';
COMMENT ON COLUMN bibwire_compat.runsignup_events.name IS 'As typed by the organiser.';
COMMENT ON COLUMN bibwire_compat.runsignup_events.details IS 'As sent.';
COMMENT ON COLUMN bibwire_compat.runsignup_events.start_time IS 'The start, in the zone of the views.';
COMMENT ON COLUMN bibwire_compat.runsignup_events.end_time IS 'The end, in the zone of the views; often null.';
COMMENT ON COLUMN bibwire_compat.runsignup_events.age_calc_base_date IS 'As sent.';
COMMENT ON COLUMN bibwire_compat.runsignup_events.registration_opens IS 'In the zone of the views.';
COMMENT ON COLUMN bibwire_compat.runsignup_events.event_type IS 'running_race and others, as sent.';
COMMENT ON COLUMN bibwire_compat.runsignup_events.distance IS 'The first number of what was typed, whatever its unit: 5 of 5K, 13.1 of 13.1 Miles. Metres: bibwire.events.';
COMMENT ON COLUMN bibwire_compat.runsignup_events.volunteer IS 'As sent.';
COMMENT ON COLUMN bibwire_compat.runsignup_events.require_dob IS 'As sent.';
COMMENT ON COLUMN bibwire_compat.runsignup_events.require_phone IS 'As sent.';
COMMENT ON COLUMN bibwire_compat.runsignup_events.giveaway IS 'As sent.';
COMMENT ON COLUMN bibwire_compat.runsignup_events.fetched_date IS 'When the partner''s race list was last read, in the zone of the views.';
COMMENT ON COLUMN bibwire_compat.runsignup_events.credentials_used IS 'Always null: keys are encrypted, and in no view.';
COMMENT ON COLUMN bibwire_compat.runsignup_events.timing_partner_id IS 'The partner''s number there; 1,000,000 and ours for one that was not there.';
COMMENT ON COLUMN bibwire_compat.runsignup_events.created_at IS 'When we first saw it, in the zone of the views.';

-- Ids of race and event are those of the rows joined: a filter on them finds the few events first, and
-- the participants by their index, which a cast of their own column would not let it use.
CREATE VIEW bibwire_compat.runsignup_participants AS
SELECT
    bibwire_compat.as_integer(p.registration_id) AS id,
    r.race_id::integer AS race_id,
    e.event_id::integer AS event_id,
    bibwire_compat.as_integer(p.registration_id) AS registration_id,
    bibwire_compat.as_integer(p.user_id) AS user_id,
    (p.first_name)::character varying AS first_name,
    (p.middle_name)::character varying AS middle_name,
    (p.last_name)::character varying AS last_name,
    (p.email)::character varying AS email,
    p.address,
    p.dob,
    (p.gender)::character varying AS gender,
    (p.phone)::character varying AS phone,
    (p.additional_data #>> '{user,profile_image_url}')::character varying AS profile_image_url,
    (coalesce(p.additional_data ->> 'bib_num', p.bib_num::text))::character varying AS bib_num,
    (p.chip_num)::character varying AS chip_num,
    p.age,
    p.registered_at AT TIME ZONE (SELECT zone FROM bibwire_compat.settings) AS registration_date,
    p.team_info,
    nullif(
        coalesce(p.payment_info, '{}') || jsonb_strip_nulls(
            jsonb_build_object(
                'rsu_transaction_id', p.additional_data -> 'rsu_transaction_id',
                'transaction_id', p.additional_data -> 'transaction_id'
            )
        ),
        '{}'
    ) AS payment_info,
    p.additional_data || jsonb_strip_nulls(
        jsonb_build_object(
            'usatf_discount_amount_in_cents', p.payment_info -> 'usatf_discount_amount_in_cents'
        )
    ) AS additional_data,
    p.last_modified_at AT TIME ZONE (SELECT zone FROM bibwire_compat.settings) AS last_modified,
    greatest(t.cursor_at, p.as_of) AT TIME ZONE (SELECT zone FROM bibwire_compat.settings) AS fetched_date,
    NULL::character varying AS credentials_used,
    coalesce(n.timing_partner_id, (q.partner_id + 1000000)::integer) AS timing_partner_id,
    p.first_seen_at AT TIME ZONE (SELECT zone FROM bibwire_compat.settings) AS created_at
FROM bibwire.participants AS p
JOIN bibwire.partners AS q USING (partner_id)
LEFT JOIN bibwire_compat.numbers AS n USING (partner_id)
LEFT JOIN bibwire.races AS r USING (partner_id, race_id)
LEFT JOIN bibwire.events AS e USING (partner_id, race_id, event_id)
LEFT JOIN bibwire.streams AS t
    ON t.partner_id = p.partner_id AND t.race_id = p.race_id AND t.stream = 'participants'
WHERE p.removed_at IS NULL;
COMMENT ON VIEW bibwire_compat.runsignup_participants IS 'Active registrations, once for each partner that sees them; removed people are left out.';
COMMENT ON COLUMN bibwire_compat.runsignup_participants.id IS 'The registration_id: unique for a partner.';
COMMENT ON COLUMN bibwire_compat.runsignup_participants.race_id IS 'The race.';
COMMENT ON COLUMN bibwire_compat.runsignup_participants.event_id IS 'The event.';
COMMENT ON COLUMN bibwire_compat.runsignup_participants.registration_id IS 'RunSignup registration_id, never null; once for each partner.';
COMMENT ON COLUMN bibwire_compat.runsignup_participants.user_id IS 'The person''s account.';
COMMENT ON COLUMN bibwire_compat.runsignup_participants.first_name IS 'As typed.';
COMMENT ON COLUMN bibwire_compat.runsignup_participants.middle_name IS 'As typed.';
COMMENT ON COLUMN bibwire_compat.runsignup_participants.last_name IS 'As typed.';
COMMENT ON COLUMN bibwire_compat.runsignup_participants.email IS 'Not unique: a family shares one.';
COMMENT ON COLUMN bibwire_compat.runsignup_participants.address IS 'street, city, state, zipcode, country_code as sent.';
COMMENT ON COLUMN bibwire_compat.runsignup_participants.dob IS 'Date of birth.';
COMMENT ON COLUMN bibwire_compat.runsignup_participants.gender IS 'M, F or X, as sent.';
COMMENT ON COLUMN bibwire_compat.runsignup_participants.phone IS 'Free text.';
COMMENT ON COLUMN bibwire_compat.runsignup_participants.profile_image_url IS 'As sent.';
COMMENT ON COLUMN bibwire_compat.runsignup_participants.bib_num IS 'The bib as text, as typed; null: none.';
COMMENT ON COLUMN bibwire_compat.runsignup_participants.chip_num IS 'The chip.';
COMMENT ON COLUMN bibwire_compat.runsignup_participants.age IS 'Age on race day by the vendor.';
COMMENT ON COLUMN bibwire_compat.runsignup_participants.registration_date IS 'When the person signed up, in the zone of the views.';
COMMENT ON COLUMN bibwire_compat.runsignup_participants.team_info IS 'team_id, team_name and so on; null: in no team.';
COMMENT ON COLUMN bibwire_compat.runsignup_participants.payment_info IS 'Fees and amounts in dollars as numbers, and the transaction.';
COMMENT ON COLUMN bibwire_compat.runsignup_participants.additional_data IS 'All else that was sent.';
COMMENT ON COLUMN bibwire_compat.runsignup_participants.last_modified IS 'When the vendor last changed it, in the zone of the views.';
COMMENT ON COLUMN bibwire_compat.runsignup_participants.fetched_date IS 'Vendor instant as of which the row is right, in the zone of the views.';
COMMENT ON COLUMN bibwire_compat.runsignup_participants.credentials_used IS 'Always null: keys are encrypted, and in no view.';
COMMENT ON COLUMN bibwire_compat.runsignup_participants.timing_partner_id IS 'The partner''s number there; 1,000,000 and ours for one that was not there.';
COMMENT ON COLUMN bibwire_compat.runsignup_participants.created_at IS 'When we first stored it, in the zone of the views.';

CREATE VIEW bibwire_compat.sync_history AS
SELECT
    bibwire_compat.as_integer(h.run_id) AS sync_history_id,
    coalesce(n.timing_partner_id, (p.partner_id + 1000000)::integer) AS timing_partner_id,
    (SELECT provider_id FROM bibwire_compat.settings) AS provider_id,
    NULL::character varying AS event_id,
    CASE h.kind WHEN 'discovery' THEN 'events' ELSE 'participants' END::character varying AS operation_type,
    'pull'::character varying AS sync_direction,
    coalesce(h.finished_at, h.started_at) AT TIME ZONE (SELECT zone FROM bibwire_compat.settings) AS sync_time,
    CASE h.outcome WHEN 'ok' THEN 'success' ELSE coalesce(h.outcome, 'running') END::character varying AS status,
    bibwire_compat.as_integer(h.rows_inserted + h.rows_updated + h.rows_unchanged + h.rows_removed) AS num_of_synced_records,
    bibwire_compat.as_integer(h.rows_inserted + h.rows_updated + h.rows_unchanged + h.rows_removed) AS entries_success,
    bibwire_compat.as_integer(h.rows_quarantined) AS entries_failed,
    CASE WHEN h.error IS NOT NULL THEN jsonb_build_object('error', h.error) END AS error_details,
    jsonb_build_object(
        'race_id', h.race_id, 'kind', h.kind, 'calls', h.calls, 'inserted', h.rows_inserted,
        'updated', h.rows_updated, 'removed', h.rows_removed
    ) AS data_snapshot,
    bibwire_compat.as_integer(extract(epoch FROM h.finished_at - h.started_at)::bigint) AS duration_seconds,
    NULL::character varying AS callback_url,
    coalesce(h.error, h.kind) AS reason
FROM bibwire.sync_history AS h
JOIN bibwire.partners AS p USING (partner_id)
LEFT JOIN bibwire_compat.numbers AS n USING (partner_id);
COMMENT ON VIEW bibwire_compat.sync_history IS 'What each run did; ours are of a race, not of an event.';
COMMENT ON COLUMN bibwire_compat.sync_history.sync_history_id IS 'Number of the run.';
COMMENT ON COLUMN bibwire_compat.sync_history.timing_partner_id IS 'The partner''s number there; 1,000,000 and ours for one that was not there.';
COMMENT ON COLUMN bibwire_compat.sync_history.provider_id IS 'RunSignup''s number.';
COMMENT ON COLUMN bibwire_compat.sync_history.event_id IS 'Always null: a run is of all live events of a race.';
COMMENT ON COLUMN bibwire_compat.sync_history.operation_type IS 'events: a race list was read; participants: a race was swept.';
COMMENT ON COLUMN bibwire_compat.sync_history.sync_direction IS 'pull.';
COMMENT ON COLUMN bibwire_compat.sync_history.sync_time IS 'When it ended, or began if it goes on, in the zone of the views.';
COMMENT ON COLUMN bibwire_compat.sync_history.status IS 'success, partial, failed or running.';
COMMENT ON COLUMN bibwire_compat.sync_history.num_of_synced_records IS 'Registrations read.';
COMMENT ON COLUMN bibwire_compat.sync_history.entries_success IS 'The same.';
COMMENT ON COLUMN bibwire_compat.sync_history.entries_failed IS 'Records that could not be stored.';
COMMENT ON COLUMN bibwire_compat.sync_history.error_details IS 'What went wrong; null: nothing.';
COMMENT ON COLUMN bibwire_compat.sync_history.data_snapshot IS 'The race and what was done.';
COMMENT ON COLUMN bibwire_compat.sync_history.duration_seconds IS 'How long it took; null: it goes on.';
COMMENT ON COLUMN bibwire_compat.sync_history.callback_url IS 'Always null.';
COMMENT ON COLUMN bibwire_compat.sync_history.reason IS 'What went wrong, else full, delta or discovery.';

CREATE VIEW bibwire_compat.unified_participants AS
SELECT
    'runsignup' AS source_provider,
    coalesce(n.timing_partner_id, (q.partner_id + 1000000)::integer) AS timing_partner_id,
    (e.event_id::integer)::character varying AS event_id,
    (p.first_name)::character varying AS first_name,
    (p.last_name)::character varying AS last_name,
    (p.email)::character varying AS email,
    (p.gender)::character varying AS gender,
    (coalesce(p.additional_data ->> 'bib_num', p.bib_num::text))::character varying AS bib_number,
    p.city,
    p.state,
    p.age,
    p.registered_at AT TIME ZONE (SELECT zone FROM bibwire_compat.settings) AS registration_date,
    greatest(t.cursor_at, p.as_of) AT TIME ZONE (SELECT zone FROM bibwire_compat.settings) AS fetched_date,
    (SELECT provider_name FROM bibwire_compat.settings) AS provider_name,
    q.name AS partner,
    r.race_id::integer AS race_id,
    r.name AS race_name,
    e.name AS event_name,
    (p.registration_id)::character varying AS participant_id,
    (p.middle_name)::character varying AS middle_name,
    (coalesce(p.additional_data ->> 'bib_num', p.bib_num::text))::character varying AS bib_num,
    (p.chip_num)::character varying AS chip_num,
    p.country_code,
    'registered' AS status,
    p.last_modified_at AT TIME ZONE (SELECT zone FROM bibwire_compat.settings) AS last_modified
FROM bibwire.participants AS p
JOIN bibwire.partners AS q USING (partner_id)
LEFT JOIN bibwire_compat.numbers AS n USING (partner_id)
LEFT JOIN bibwire.races AS r USING (partner_id, race_id)
LEFT JOIN bibwire.events AS e USING (partner_id, race_id, event_id)
LEFT JOIN bibwire.streams AS t
    ON t.partner_id = p.partner_id AND t.race_id = p.race_id AND t.stream = 'participants'
WHERE p.removed_at IS NULL;
COMMENT ON VIEW bibwire_compat.unified_participants IS 'Active registrations of every provider mirrored, which is RunSignup. The columns up to fetched_date are the original''s, the others ours.';
COMMENT ON COLUMN bibwire_compat.unified_participants.source_provider IS 'runsignup.';
COMMENT ON COLUMN bibwire_compat.unified_participants.timing_partner_id IS 'The partner''s number there; 1,000,000 and ours for one that was not there.';
COMMENT ON COLUMN bibwire_compat.unified_participants.event_id IS 'The event''s number, as text.';
COMMENT ON COLUMN bibwire_compat.unified_participants.first_name IS 'As typed.';
COMMENT ON COLUMN bibwire_compat.unified_participants.last_name IS 'As typed.';
COMMENT ON COLUMN bibwire_compat.unified_participants.email IS 'As typed.';
COMMENT ON COLUMN bibwire_compat.unified_participants.gender IS 'M, F or X, as sent.';
COMMENT ON COLUMN bibwire_compat.unified_participants.bib_number IS 'The bib as text; null: none.';
COMMENT ON COLUMN bibwire_compat.unified_participants.city IS 'Out of the address.';
COMMENT ON COLUMN bibwire_compat.unified_participants.state IS 'Out of the address.';
COMMENT ON COLUMN bibwire_compat.unified_participants.age IS 'Age on race day by the vendor.';
COMMENT ON COLUMN bibwire_compat.unified_participants.registration_date IS 'When the person signed up, in the zone of the views.';
COMMENT ON COLUMN bibwire_compat.unified_participants.fetched_date IS 'Vendor instant as of which the row is right, in the zone of the views.';
COMMENT ON COLUMN bibwire_compat.unified_participants.provider_name IS 'RunSignup, as the original called it.';
COMMENT ON COLUMN bibwire_compat.unified_participants.partner IS 'The partner''s name.';
COMMENT ON COLUMN bibwire_compat.unified_participants.race_id IS 'The race.';
COMMENT ON COLUMN bibwire_compat.unified_participants.race_name IS 'Its name.';
COMMENT ON COLUMN bibwire_compat.unified_participants.event_name IS 'The event''s name.';
COMMENT ON COLUMN bibwire_compat.unified_participants.participant_id IS 'The registration''s number, as text.';
COMMENT ON COLUMN bibwire_compat.unified_participants.middle_name IS 'As typed.';
COMMENT ON COLUMN bibwire_compat.unified_participants.bib_num IS 'As bib_number.';
COMMENT ON COLUMN bibwire_compat.unified_participants.chip_num IS 'The chip.';
COMMENT ON COLUMN bibwire_compat.unified_participants.country_code IS 'Out of the address.';
COMMENT ON COLUMN bibwire_compat.unified_participants.status IS 'registered: who left is not shown.';
COMMENT ON COLUMN bibwire_compat.unified_participants.last_modified IS 'When the vendor last changed it, in the zone of the views.';

CREATE VIEW bibwire_compat.unified_events AS
SELECT
    'runsignup' AS source_provider,
    v.timing_partner_id,
    (v.event_id)::character varying AS event_id,
    v.name AS event_name,
    v.start_time AS event_date,
    r.address ->> 'city' AS city,
    r.address ->> 'state' AS state,
    v.distance,
    v.fetched_date,
    (SELECT provider_name FROM bibwire_compat.settings) AS provider_name,
    q.company_name AS partner,
    v.race_id,
    r.name AS race_name,
    v.event_type,
    v.start_time,
    v.end_time,
    r.timezone
FROM bibwire_compat.runsignup_events AS v
JOIN bibwire_compat.timing_partners AS q USING (timing_partner_id)
LEFT JOIN bibwire_compat.runsignup_races AS r USING (race_id);
COMMENT ON VIEW bibwire_compat.unified_events IS 'Events of every provider mirrored, which is RunSignup, each once. The columns up to fetched_date are the original''s, the others ours.';
COMMENT ON COLUMN bibwire_compat.unified_events.source_provider IS 'runsignup.';
COMMENT ON COLUMN bibwire_compat.unified_events.timing_partner_id IS 'The partner''s number there; 1,000,000 and ours for one that was not there.';
COMMENT ON COLUMN bibwire_compat.unified_events.event_id IS 'The event''s number, as text.';
COMMENT ON COLUMN bibwire_compat.unified_events.event_name IS 'As typed by the organiser.';
COMMENT ON COLUMN bibwire_compat.unified_events.event_date IS 'The start, in the zone of the views.';
COMMENT ON COLUMN bibwire_compat.unified_events.city IS 'Where the race is.';
COMMENT ON COLUMN bibwire_compat.unified_events.state IS 'Where the race is.';
COMMENT ON COLUMN bibwire_compat.unified_events.distance IS 'As in runsignup_events.';
COMMENT ON COLUMN bibwire_compat.unified_events.fetched_date IS 'As in runsignup_events.';
COMMENT ON COLUMN bibwire_compat.unified_events.provider_name IS 'RunSignup, as the original called it.';
COMMENT ON COLUMN bibwire_compat.unified_events.partner IS 'The partner''s name.';
COMMENT ON COLUMN bibwire_compat.unified_events.race_id IS 'The race.';
COMMENT ON COLUMN bibwire_compat.unified_events.race_name IS 'Its name.';
COMMENT ON COLUMN bibwire_compat.unified_events.event_type IS 'As sent.';
COMMENT ON COLUMN bibwire_compat.unified_events.start_time IS 'As event_date.';
COMMENT ON COLUMN bibwire_compat.unified_events.end_time IS 'The end, in the zone of the views; often null.';
COMMENT ON COLUMN bibwire_compat.unified_events.timezone IS 'IANA name of the race''s zone.';
