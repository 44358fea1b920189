-- name: add_partner
-- A new partner's number. No row back: the name is taken.
INSERT INTO bibwire.partners (name)
VALUES (%(name)s)
ON CONFLICT (name) DO NOTHING
RETURNING partner_id;

-- name: add_plan
-- The schedule finds the partner here, and begins with its race list.
INSERT INTO bibwire.plans (partner_id)
VALUES (%(partner_id)s);

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
-- Every partner with its credential, by name; one where its name or number is given. Nothing sealed.
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
WHERE (%(name)s::text IS NULL OR p.name = %(name)s)
  AND (%(partner_id)s::bigint IS NULL OR p.partner_id = %(partner_id)s)
ORDER BY p.name;

-- name: read_credential
-- A partner's credential, sealed. No row back: the partner is gone.
SELECT kind, key_encrypted, secret_encrypted
FROM bibwire.credentials
WHERE partner_id = %(partner_id)s;

-- name: number_of_credentials
SELECT count(*) FROM bibwire.credentials;

-- name: rotate_credential
-- Replace the credential in its row, so that the calls counted against it still count. How the vendor
-- answers lists of events is learnt anew for another kind of key only: one of the same kind asks the
-- same questions, and learning costs a call an event until the next full listing.
UPDATE bibwire.credentials
SET kind = %(kind)s,
    fingerprint = %(fingerprint)s,
    calls_per_hour = coalesce(%(calls_per_hour)s, calls_per_hour),
    verified_at = CASE WHEN %(verified)s THEN now() END,
    failing_since = NULL,
    failing_reason = NULL,
    trusted_list_length = CASE WHEN kind = %(kind)s THEN trusted_list_length ELSE 1 END,
    list_pages_proven_at = CASE WHEN kind = %(kind)s THEN list_pages_proven_at END,
    longest_page = CASE WHEN kind = %(kind)s THEN longest_page ELSE 0 END,
    key_encrypted = %(key_encrypted)s,
    secret_encrypted = %(secret_encrypted)s,
    rotated_at = now()
WHERE partner_id = %(partner_id)s;

-- name: lock_keys
-- Let nobody else store a key until the end of the transaction.
SELECT pg_advisory_xact_lock(%(lock_class)s::integer, 0);

-- name: keys_of_others
-- The keys of all partners but one, sealed.
SELECT c.partner_id, p.name, c.key_encrypted
FROM bibwire.credentials AS c
JOIN bibwire.partners AS p USING (partner_id)
WHERE c.partner_id <> %(partner_id)s::bigint;

-- name: count_calls
-- Count calls made before the credential was stored; a person waited for them.
INSERT INTO bibwire.call_minutes AS m (credential_id, minute, calls, live)
SELECT c.credential_id, date_trunc('minute', clock_timestamp()), %(calls)s::integer, %(calls)s::integer
FROM bibwire.credentials AS c
WHERE c.partner_id = %(partner_id)s
ON CONFLICT (credential_id, minute) DO UPDATE
SET calls = m.calls + excluded.calls,
    live = m.live + excluded.live;

-- name: prune_retired_calls
DELETE FROM bibwire.retired_calls
WHERE minute < now() - interval '2 hours';

-- name: retire_calls
-- Keep the calls of a partner's key under its digest.
INSERT INTO bibwire.retired_calls AS r (key_digest, minute, calls, live, race_day, reconcile, backfill)
SELECT %(key_digest)s, m.minute, m.calls, m.live, m.race_day, m.reconcile, m.backfill
FROM bibwire.call_minutes AS m
JOIN bibwire.credentials AS c USING (credential_id)
WHERE c.partner_id = %(partner_id)s
  AND m.minute > now() - interval '2 hours'
ON CONFLICT (key_digest, minute) DO UPDATE
SET calls = greatest(r.calls, excluded.calls),
    live = greatest(r.live, excluded.live),
    race_day = greatest(r.race_day, excluded.race_day),
    reconcile = greatest(r.reconcile, excluded.reconcile),
    backfill = greatest(r.backfill, excluded.backfill);

-- name: calls_of_key
SELECT coalesce(sum(r.calls), 0)::bigint
FROM bibwire.retired_calls AS r
WHERE r.key_digest = %(key_digest)s
  AND r.minute > date_trunc('minute', clock_timestamp()) - interval '61 minutes';

-- name: keep_calls
-- Count calls made under a key that is not stored; a person waited for them.
INSERT INTO bibwire.retired_calls AS r (key_digest, minute, calls, live, race_day, reconcile, backfill)
VALUES (
    %(key_digest)s, date_trunc('minute', clock_timestamp()), %(calls)s::integer, %(calls)s::integer, 0, 0, 0
)
ON CONFLICT (key_digest, minute) DO UPDATE
SET calls = r.calls + excluded.calls,
    live = r.live + excluded.live;

-- name: restore_calls
-- Count the calls made under a key before it came to this partner. Those that the partner's row
-- has already, because it had the key before, are not counted twice.
WITH taken AS (
    DELETE FROM bibwire.retired_calls
    WHERE key_digest = %(key_digest)s
    RETURNING minute, calls, live, race_day, reconcile, backfill
)
INSERT INTO bibwire.call_minutes AS m (credential_id, minute, calls, live, race_day, reconcile, backfill)
SELECT c.credential_id, t.minute, t.calls, t.live, t.race_day, t.reconcile, t.backfill
FROM taken AS t
CROSS JOIN bibwire.credentials AS c
WHERE c.partner_id = %(partner_id)s
ON CONFLICT (credential_id, minute) DO UPDATE
SET calls = greatest(m.calls, excluded.calls),
    live = greatest(m.live, excluded.live),
    race_day = greatest(m.race_day, excluded.race_day),
    reconcile = greatest(m.reconcile, excluded.reconcile),
    backfill = greatest(m.backfill, excluded.backfill);

-- name: limit
-- Change the calls an hour. What throttling lowered recovers towards the new number.
UPDATE bibwire.credentials
SET calls_per_hour = %(calls_per_hour)s
WHERE partner_id = %(partner_id)s;

-- name: pause
-- Ask nothing more for the partner; the first pause's instant stays.
UPDATE bibwire.partners
SET paused_at = coalesce(paused_at, now())
WHERE partner_id = %(partner_id)s;

-- name: unschedule
-- Take the partner's scopes off the schedule, and from the jobs that were to poll them: a paused
-- partner has none, and one that is resumed is planned as if new.
UPDATE bibwire.scopes
SET tier = NULL,
    poll_every_seconds = NULL,
    removed_every_seconds = NULL,
    next_due_at = NULL,
    claimed_until = NULL
WHERE partner_id = %(partner_id)s
  AND (next_due_at IS NOT NULL OR claimed_until IS NOT NULL);

-- name: resume
UPDATE bibwire.partners
SET paused_at = NULL
WHERE partner_id = %(partner_id)s;

-- name: plan_again
-- Let the schedule read the partner's race list and plan its polls at once.
UPDATE bibwire.plans
SET next_plan_at = '2000-01-01 00:00:00+00',
    next_discovery_at = '2000-01-01 00:00:00+00',
    next_full_list_at = '2000-01-01 00:00:00+00'
WHERE partner_id = %(partner_id)s;

-- name: forgive
-- What was put off under the old credential is due as if it had not been.
UPDATE bibwire.scopes
SET failures = 0,
    next_due_at = NULL
WHERE partner_id = %(partner_id)s
  AND next_due_at IS NOT NULL;

-- name: ask_lists_again
-- What lists the old credential was answered says nothing about the new one.
UPDATE bibwire.scopes
SET one_event_since = '2000-01-01 00:00:00+00'
WHERE partner_id = %(partner_id)s
  AND one_event_since IS NOT NULL;

-- name: mark_verified
-- A method that needs rights answered under this credential, unless it was replaced meanwhile; or under
-- one that the environment names in its place, which verifies nothing of what is stored.
UPDATE bibwire.credentials
SET verified_at = CASE WHEN %(is_stored)s THEN now() ELSE verified_at END,
    failing_since = NULL,
    failing_reason = NULL
WHERE partner_id = %(partner_id)s
  AND rotated_at IS NOT DISTINCT FROM %(rotated_at)s;

-- name: mark_failing
-- The vendor refuses this credential; the first refusal's instant stays, unless that was of another key,
-- stored or of the environment. Nothing works under it:
-- what is polled waits until `until`, if given. One statement, so that a new credential's polls are
-- never put off for the old one. No row back: it was replaced, and nothing is done.
WITH refused AS (
    UPDATE bibwire.credentials
    SET failing_since = CASE WHEN %(of_another_key)s THEN now() ELSE coalesce(failing_since, now()) END,
        failing_reason = %(reason)s
    WHERE partner_id = %(partner_id)s
      AND rotated_at IS NOT DISTINCT FROM %(rotated_at)s
    RETURNING partner_id
), kept AS (
    UPDATE bibwire.plans AS p
    SET put_off_until = coalesce(%(until)s::timestamptz, p.put_off_until)
    FROM refused
    WHERE p.partner_id = refused.partner_id
), put_off AS (
    UPDATE bibwire.scopes AS s
    SET next_due_at = greatest(s.next_due_at, %(until)s)
    FROM refused
    WHERE s.partner_id = refused.partner_id
      AND s.next_due_at < %(until)s::timestamptz
)
SELECT partner_id
FROM refused;

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

-- name: remove_plans
DELETE FROM bibwire.plans
WHERE partner_id = %(partner_id)s;

-- name: remove_detection_lag
DELETE FROM bibwire.detection_lag
WHERE partner_id = %(partner_id)s;

-- name: remove_doubts
DELETE FROM bibwire.doubts WHERE partner_id = %(partner_id)s;

-- name: remove_reconciliations
DELETE FROM bibwire.reconciliations WHERE partner_id = %(partner_id)s;

-- name: remove_drift_totals
DELETE FROM bibwire.drift_totals WHERE partner_id = %(partner_id)s;

-- name: remove_backfills
DELETE FROM bibwire.backfills WHERE partner_id = %(partner_id)s;

-- name: remove_team_listings
DELETE FROM bibwire.team_listings WHERE partner_id = %(partner_id)s;

-- name: remove_teams
DELETE FROM bibwire.teams WHERE partner_id = %(partner_id)s;

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
    SELECT c.credential_id FROM bibwire.credentials AS c WHERE c.partner_id = %(partner_id)s
);

-- name: remove_call_stats
DELETE FROM bibwire.call_stats
WHERE credential_id IN (
    SELECT c.credential_id FROM bibwire.credentials AS c WHERE c.partner_id = %(partner_id)s
);

-- name: remove_credentials
DELETE FROM bibwire.credentials WHERE partner_id = %(partner_id)s;

-- name: remove_partners
DELETE FROM bibwire.partners WHERE partner_id = %(partner_id)s;
