-- When each partner's mirror is held against the vendor, and what that found.

ALTER TABLE bibwire.plans
    ADD COLUMN next_verify_at timestamptz,
    ADD COLUMN verified_at timestamptz,
    ADD COLUMN verify_failures jsonb NOT NULL DEFAULT '[]';
COMMENT ON COLUMN bibwire.plans.next_verify_at IS 'When the schedule verifies its mirror next; null: not planned yet, or switched off.';
COMMENT ON COLUMN bibwire.plans.verified_at IS 'When its mirror was last verified, all races, by the schedule or by hand; null: never.';
COMMENT ON COLUMN bibwire.plans.verify_failures IS 'What failed or could not be checked at the last try: check, race_id, verdict (fail or error), expected and seen; empty: nothing.';
COMMENT ON COLUMN bibwire.sync_history.kind IS 'full, delta, discovery, backfill, reconcile or verify.';
