-- Whose clock is wrong, and until when a refused key or caller puts polls off.

ALTER TABLE bibwire.plans
    ADD COLUMN date_ahead_seconds double precision,
    ADD COLUMN data_ahead_seconds double precision,
    ADD COLUMN put_off_until timestamptz;
COMMENT ON COLUMN bibwire.plans.clock_ahead_seconds IS 'How much the clock that dates its mirrors, the vendor''s as far as that is believed, was ahead of the database''s.';
COMMENT ON COLUMN bibwire.plans.date_ahead_seconds IS 'How much the Dates of the vendor''s answers were, believed or not; null: none was seen.';
COMMENT ON COLUMN bibwire.plans.data_ahead_seconds IS 'How much the newest change the vendor had shown was; null: none was.';
COMMENT ON COLUMN bibwire.plans.put_off_until IS 'Until when nothing is polled because the key or the caller registration is refused; null: never was.';
