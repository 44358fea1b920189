-- The budget by urgency, what the vendor's throttling did to it, and statistics of calls.

-- Columns rather than a row an urgency: the key stays, so that a Bibwire of before, still running
-- during an upgrade, goes on counting and sees what the new ones count.
ALTER TABLE bibwire.call_minutes
    ADD COLUMN live integer NOT NULL DEFAULT 0,
    ADD COLUMN race_day integer NOT NULL DEFAULT 0,
    ADD COLUMN reconcile integer NOT NULL DEFAULT 0,
    ADD COLUMN backfill integer NOT NULL DEFAULT 0;
CREATE INDEX call_minutes_minute ON bibwire.call_minutes USING brin (minute);
COMMENT ON COLUMN bibwire.call_minutes.calls IS 'Calls permitted in it, retries counted. Those that are in no other column were deltas.';
COMMENT ON COLUMN bibwire.call_minutes.live IS 'Those of them for which a person waited.';
COMMENT ON COLUMN bibwire.call_minutes.race_day IS 'Those of them for hot races.';
COMMENT ON COLUMN bibwire.call_minutes.reconcile IS 'Those of them that looked for what deltas missed.';
COMMENT ON COLUMN bibwire.call_minutes.backfill IS 'Those of them for first loads and old races.';

ALTER TABLE bibwire.credentials
    ADD COLUMN limit_lowered_to integer,
    ADD COLUMN limit_lowered_at timestamptz,
    ADD COLUMN throttled_at timestamptz,
    ADD COLUMN blocked_until timestamptz,
    ADD COLUMN blocked_reason text;
COMMENT ON COLUMN bibwire.credentials.limit_lowered_to IS 'The limit in use right after the vendor last asked for fewer calls; it recovers within two hours. Null: it never asked.';
COMMENT ON COLUMN bibwire.credentials.limit_lowered_at IS 'When the vendor''s asking last lowered it.';
COMMENT ON COLUMN bibwire.credentials.throttled_at IS 'When the vendor last asked for fewer calls.';
COMMENT ON COLUMN bibwire.credentials.blocked_until IS 'No call under this credential before; null or past: calls may be made.';
COMMENT ON COLUMN bibwire.credentials.blocked_reason IS 'What the vendor answered when it asked for fewer calls.';

CREATE TABLE bibwire.callers (
    caller_digest bytea PRIMARY KEY,
    throttled_credential_id bigint,
    throttled_at timestamptz,
    blocked_until timestamptz,
    blocked_reason text
);
COMMENT ON TABLE bibwire.callers IS 'Private: caller registrations whose calls the vendor throttled; it may mean the caller when it refuses two credentials within a minute.';
COMMENT ON COLUMN bibwire.callers.caller_digest IS 'SHA-256 of the registration; that of an empty text where there is none.';
COMMENT ON COLUMN bibwire.callers.throttled_credential_id IS 'Which credential was throttled last.';
COMMENT ON COLUMN bibwire.callers.throttled_at IS 'When.';
COMMENT ON COLUMN bibwire.callers.blocked_until IS 'No call under any credential of this caller before; null or past: calls may be made.';
COMMENT ON COLUMN bibwire.callers.blocked_reason IS 'What the vendor answered when it was blocked.';

CREATE TABLE bibwire.call_stats (
    credential_id bigint NOT NULL REFERENCES bibwire.credentials ON DELETE CASCADE,
    minute timestamptz NOT NULL,
    endpoint text NOT NULL,
    calls integer NOT NULL,
    errors integer NOT NULL,
    bytes bigint NOT NULL,
    latency integer[] NOT NULL,
    PRIMARY KEY (credential_id, minute, endpoint)
);
CREATE INDEX call_stats_minute ON bibwire.call_stats USING brin (minute);
COMMENT ON TABLE bibwire.call_stats IS 'What calls came to, by credential, minute and endpoint, by the database''s clock; kept for 35 days.';
COMMENT ON COLUMN bibwire.call_stats.credential_id IS 'Under which credential.';
COMMENT ON COLUMN bibwire.call_stats.minute IS 'Begin of the minute in which they ended.';
COMMENT ON COLUMN bibwire.call_stats.endpoint IS 'races, participants, removed-participants or participant-counts.';
COMMENT ON COLUMN bibwire.call_stats.calls IS 'Attempts that ended, retries counted; not those we broke off.';
COMMENT ON COLUMN bibwire.call_stats.errors IS 'Those of them that failed in whatever way.';
COMMENT ON COLUMN bibwire.call_stats.bytes IS 'Bytes received on the wire.';
COMMENT ON COLUMN bibwire.call_stats.latency IS 'Attempts by seconds in flight: up to 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, and longer.';
