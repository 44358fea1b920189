-- A place for a call in flight outlives the connection of its process: RunSignup goes on with the call.

CREATE TABLE bibwire.call_places (
    caller_digest bytea NOT NULL,
    place smallint NOT NULL CHECK (place BETWEEN 0 AND 15),
    taken_by uuid,
    instance integer,
    taken_until timestamptz,
    PRIMARY KEY (caller_digest, place)
) WITH (fillfactor = 50);

COMMENT ON TABLE bibwire.call_places IS 'The calls a caller has in flight, over all processes: one row a call that may be. Written twice a call.';
COMMENT ON COLUMN bibwire.call_places.caller_digest IS 'SHA-256 of the caller registration, as in callers.';
COMMENT ON COLUMN bibwire.call_places.place IS 'Number of the place, from 0.';
COMMENT ON COLUMN bibwire.call_places.taken_by IS 'The call that has it; null: it is free.';
COMMENT ON COLUMN bibwire.call_places.instance IS 'Number of the process that makes it, as in scopes.lease_instance; null: it is free.';
COMMENT ON COLUMN bibwire.call_places.taken_until IS 'When it is free though nobody gave it back, by the clock of the database: the process is gone, and the call over.';
