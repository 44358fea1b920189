-- Statements on the original's database, which is only read. Its tables are found by the
-- connection's search_path. Rows come as JSON, so that a column that is not there is null.

-- name: columns
-- Which of these tables and columns can be read: one row a column, null for a table without any.
SELECT t.name, a.attname::text
FROM unnest(%(tables)s::text[]) AS t (name)
LEFT JOIN pg_attribute AS a ON a.attrelid = to_regclass(t.name) AND a.attnum > 0 AND NOT a.attisdropped
WHERE to_regclass(t.name) IS NOT NULL;

-- name: partners
SELECT to_jsonb(t) FROM timing_partners AS t ORDER BY t.timing_partner_id;

-- name: providers
SELECT to_jsonb(t) FROM providers AS t ORDER BY t.provider_id;

-- name: credentials
SELECT to_jsonb(t) FROM partner_provider_credentials AS t ORDER BY t.partner_provider_credential_id;

-- name: participants
-- By partner: rows, those without a registration id, and how many different ids there are.
SELECT timing_partner_id, count(*), count(*) - count(registration_id), count(DISTINCT registration_id)
FROM runsignup_participants
GROUP BY timing_partner_id;

-- name: registrations
-- By partner and event: the registration ids.
SELECT timing_partner_id, event_id, array_agg(DISTINCT registration_id::bigint)
FROM runsignup_participants
WHERE registration_id IS NOT NULL
GROUP BY timing_partner_id, event_id;

-- name: keys_in_races
SELECT credentials_used, count(*) FROM runsignup_races WHERE credentials_used <> '' GROUP BY credentials_used;

-- name: keys_in_events
SELECT credentials_used, count(*) FROM runsignup_events WHERE credentials_used <> '' GROUP BY credentials_used;

-- name: keys_in_participants
SELECT credentials_used, count(*) FROM runsignup_participants WHERE credentials_used <> '' GROUP BY credentials_used;
