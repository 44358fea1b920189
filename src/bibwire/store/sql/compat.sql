-- name: zone
-- The zone of the views: one row.
SELECT zone FROM bibwire_compat.settings;

-- name: set_zone
-- One row if that changed it.
UPDATE bibwire_compat.settings SET zone = %(zone)s WHERE zone <> %(zone)s RETURNING zone;

-- name: set_provider
-- Remember how the original called RunSignup; one row if that changed something.
UPDATE bibwire_compat.settings AS s
SET provider_id = n.provider_id,
    provider_name = n.name,
    provider_type = n.provider_type,
    api_base_url = n.api_base_url,
    rate_limit_per_hour = n.rate_limit_per_hour
FROM (
    SELECT
        %(provider_id)s::integer AS provider_id,
        %(name)s::text AS name,
        %(provider_type)s::text AS provider_type,
        %(api_base_url)s::text AS api_base_url,
        %(rate_limit_per_hour)s::integer AS rate_limit_per_hour
) AS n
WHERE (s.provider_id, s.provider_name, s.provider_type, s.api_base_url, s.rate_limit_per_hour)
    IS DISTINCT FROM (n.provider_id, n.name, n.provider_type, n.api_base_url, n.rate_limit_per_hour)
RETURNING s.provider_id;

-- name: link
-- Give a partner the numbers it had in the original, unless it has some or another partner has its.
-- One row if that was done.
INSERT INTO bibwire_compat.numbers (partner_id, timing_partner_id, partner_provider_credential_id)
VALUES (%(partner_id)s, %(timing_partner_id)s, %(credential_id)s)
ON CONFLICT DO NOTHING
RETURNING partner_id;

-- name: number
-- The partner's number in the original: one row, or none.
SELECT timing_partner_id FROM bibwire_compat.numbers WHERE partner_id = %(partner_id)s;

-- name: loaded_events
-- The events of a partner for which the mirror is complete.
SELECT DISTINCT unnest(t.event_ids)
FROM bibwire.streams AS t
JOIN bibwire.scopes AS s USING (partner_id, race_id)
WHERE t.partner_id = %(partner_id)s
  AND t.stream = 'participants'
  AND t.cursor_at IS NOT NULL
  AND s.loaded_at IS NOT NULL;

-- name: active_registrations
SELECT registration_id, event_id
FROM bibwire.participants
WHERE partner_id = %(partner_id)s AND removed_at IS NULL;
