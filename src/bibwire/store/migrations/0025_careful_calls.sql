-- A long pause that the vendor asks for is believed for minutes, then tried by one careful call.

ALTER TABLE bibwire.credentials
    ADD COLUMN asked_until timestamptz,
    ADD COLUMN blocks_confirmed integer NOT NULL DEFAULT 0,
    ADD COLUMN careful_until timestamptz;
COMMENT ON COLUMN bibwire.credentials.asked_until IS 'End of the pause the vendor asked for, where it is longer than is believed: from blocked_until until then one call is made at a time. Null: no such pause.';
COMMENT ON COLUMN bibwire.credentials.blocks_confirmed IS 'How often the vendor refused such a call, each time with a long pause: the more often, the longer it is believed.';
COMMENT ON COLUMN bibwire.credentials.careful_until IS 'Private: such a call is being made, until then at the latest; null: none is.';

UPDATE bibwire.credentials
SET asked_until = blocked_until,
    blocked_until = now() + interval '15 minutes'
WHERE blocked_until > now() + interval '15 minutes';
