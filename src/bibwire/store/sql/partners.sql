-- name: add_partner
-- A new partner's number. No row back: the name is taken.
INSERT INTO bibwire.partners (name)
VALUES (%(name)s)
ON CONFLICT (name) DO NOTHING
RETURNING partner_id;

-- name: add_credential
-- Store a partner's credential, sealed.
INSERT INTO bibwire.credentials (
    partner_id, kind, fingerprint, calls_per_hour, verified_at, key_encrypted, secret_encrypted
)
VALUES (
    %(partner_id)s,
    %(kind)s,
    %(fingerprint)s,
    %(calls_per_hour)s,
    CASE WHEN %(verified)s THEN now() END,
    %(key_encrypted)s,
    %(secret_encrypted)s
);

-- name: list_partners
-- Every partner with its credential, by name; one where `name` is given. Nothing sealed.
SELECT
    p.partner_id,
    p.name,
    p.created_at,
    p.paused_at,
    c.credential_id,
    c.kind,
    c.fingerprint,
    c.calls_per_hour,
    c.verified_at,
    c.failing_since,
    c.failing_reason,
    c.rotated_at
FROM bibwire.partners AS p
JOIN bibwire.credentials AS c USING (partner_id)
WHERE %(name)s::text IS NULL OR p.name = %(name)s
ORDER BY p.name;

-- name: read_credential
-- A partner's credential, sealed. No row back: the partner is gone.
SELECT kind, key_encrypted, secret_encrypted
FROM bibwire.credentials
WHERE partner_id = %(partner_id)s;

-- name: rotate_credential
-- Replace the credential in its row, so that the calls counted against it still count.
UPDATE bibwire.credentials
SET kind = %(kind)s,
    fingerprint = %(fingerprint)s,
    calls_per_hour = coalesce(%(calls_per_hour)s, calls_per_hour),
    verified_at = CASE WHEN %(verified)s THEN now() END,
    failing_since = NULL,
    failing_reason = NULL,
    trusted_list_length = 1,
    key_encrypted = %(key_encrypted)s,
    secret_encrypted = %(secret_encrypted)s,
    rotated_at = now()
WHERE partner_id = %(partner_id)s;

-- name: pause
-- Ask nothing more for the partner; the first pause's instant stays.
UPDATE bibwire.partners
SET paused_at = coalesce(paused_at, now())
WHERE partner_id = %(partner_id)s;

-- name: resume
UPDATE bibwire.partners
SET paused_at = NULL
WHERE partner_id = %(partner_id)s;

-- name: mark_verified
-- A method that needs rights answered under this credential.
UPDATE bibwire.credentials
SET verified_at = now(),
    failing_since = NULL,
    failing_reason = NULL
WHERE partner_id = %(partner_id)s;

-- name: mark_failing
-- The vendor refuses this credential; the first refusal's instant stays.
UPDATE bibwire.credentials
SET failing_since = coalesce(failing_since, now()),
    failing_reason = %(reason)s
WHERE partner_id = %(partner_id)s;

-- name: lock_credential
-- Let no call be counted meanwhile: who counts one locks this row first, as we do.
SELECT credential_id
FROM bibwire.credentials
WHERE partner_id = %(partner_id)s
FOR UPDATE;

-- name: lock_scopes
-- Wait for the pages that are being stored, whose writers hold their scope's row, and let no
-- other begin. Before the partner is locked: writers lock in this order too.
SELECT race_id
FROM bibwire.scopes
WHERE partner_id = %(partner_id)s
ORDER BY race_id
FOR UPDATE;

-- name: lock_partner
-- Keep out every other writer of this partner's rows: each holds a key-share lock on it, by a
-- foreign key. No row back: the partner is gone.
SELECT partner_id
FROM bibwire.partners
WHERE partner_id = %(partner_id)s
FOR UPDATE;

-- name: remove_missing
DELETE FROM bibwire.missing WHERE partner_id = %(partner_id)s;

-- name: remove_streams
DELETE FROM bibwire.streams WHERE partner_id = %(partner_id)s;

-- name: remove_scopes
DELETE FROM bibwire.scopes WHERE partner_id = %(partner_id)s;

-- name: remove_participants
DELETE FROM bibwire.participants WHERE partner_id = %(partner_id)s;

-- name: remove_changes
DELETE FROM bibwire.changes WHERE partner_id = %(partner_id)s;

-- name: remove_feed_heads
DELETE FROM bibwire.feed_heads WHERE partner_id = %(partner_id)s;

-- name: remove_events
DELETE FROM bibwire.events WHERE partner_id = %(partner_id)s;

-- name: remove_races
DELETE FROM bibwire.races WHERE partner_id = %(partner_id)s;

-- name: remove_sync_history
DELETE FROM bibwire.sync_history WHERE partner_id = %(partner_id)s;

-- name: remove_quarantine
DELETE FROM bibwire.quarantine WHERE partner_id = %(partner_id)s;

-- name: remove_call_minutes
DELETE FROM bibwire.call_minutes
WHERE credential_id IN (
    SELECT credential_id FROM bibwire.credentials WHERE partner_id = %(partner_id)s
);

-- name: remove_credentials
DELETE FROM bibwire.credentials WHERE partner_id = %(partner_id)s;

-- name: remove_partners
DELETE FROM bibwire.partners WHERE partner_id = %(partner_id)s;
