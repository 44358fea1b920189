-- name: keep
INSERT INTO bibwire.quarantine AS q (
    partner_id, race_id, registration_id, source, reason, raw, raw_hash, first_seen_at, last_seen_at
)
VALUES (
    %(partner_id)s, %(race_id)s, %(registration_id)s, %(source)s, %(reason)s, %(raw)s, %(raw_hash)s,
    %(now)s, %(now)s
)
ON CONFLICT (partner_id, source, raw_hash) DO UPDATE
SET last_seen_at = excluded.last_seen_at,
    times = q.times + 1,
    resolved_at = NULL;

-- name: open_ids
-- Registrations of a race that wait in quarantine: nearly always none.
SELECT registration_id
FROM bibwire.quarantine
WHERE partner_id = %(partner_id)s
  AND race_id = %(race_id)s
  AND source = %(source)s
  AND resolved_at IS NULL
  AND registration_id IS NOT NULL;

-- name: resolve
UPDATE bibwire.quarantine
SET resolved_at = %(now)s
WHERE partner_id = %(partner_id)s
  AND race_id = %(race_id)s
  AND source = %(source)s
  AND resolved_at IS NULL
  AND registration_id = ANY (%(registration_ids)s);

-- name: resolve_unmet
-- Entries of a race, or of the race list, that a complete listing did not bring again.
UPDATE bibwire.quarantine
SET resolved_at = %(since)s
WHERE partner_id = %(partner_id)s
  AND race_id IS NOT DISTINCT FROM %(race_id)s
  AND source = ANY (%(sources)s)
  AND resolved_at IS NULL
  AND last_seen_at < %(since)s;
