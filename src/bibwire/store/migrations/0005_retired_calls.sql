-- Calls of keys whose partner was removed or given another key: they count when the key comes back.

CREATE TABLE bibwire.retired_calls (
    key_digest bytea NOT NULL,
    minute timestamptz NOT NULL,
    calls integer NOT NULL,
    live integer NOT NULL,
    race_day integer NOT NULL,
    reconcile integer NOT NULL,
    backfill integer NOT NULL,
    PRIMARY KEY (key_digest, minute)
);
COMMENT ON TABLE bibwire.retired_calls IS 'Private: calls of the last hours under keys that no partner has any more, as in call_minutes.';
COMMENT ON COLUMN bibwire.retired_calls.key_digest IS 'HMAC-SHA-256 of the key, under a key made from the one that encrypts the credentials.';
COMMENT ON COLUMN bibwire.retired_calls.minute IS 'The minute''s begin.';
COMMENT ON COLUMN bibwire.retired_calls.calls IS 'Calls permitted in it, of all classes.';
COMMENT ON COLUMN bibwire.retired_calls.live IS 'Those of them for which a person waited.';
COMMENT ON COLUMN bibwire.retired_calls.race_day IS 'Those of them for hot races.';
COMMENT ON COLUMN bibwire.retired_calls.reconcile IS 'Those of them that looked for what deltas missed.';
COMMENT ON COLUMN bibwire.retired_calls.backfill IS 'Those of them for first loads and old races.';
