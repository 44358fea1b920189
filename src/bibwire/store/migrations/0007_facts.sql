-- An event whose end was typed before its start lasts until its start.

ALTER TABLE bibwire.events
ADD COLUMN lasts_until timestamptz GENERATED ALWAYS AS (greatest(starts_at, ends_at)) STORED;
COMMENT ON COLUMN bibwire.events.lasts_until IS 'The later of start and end, null without either: an end before the start is a slip. The event is live until 7 days after it.';

CREATE OR REPLACE VIEW bibwire.freshness AS
SELECT
    s.partner_id,
    s.race_id,
    c.as_of,
    extract(epoch FROM now() - c.as_of)::double precision AS age_seconds,
    e.target_seconds,
    s.failing_since,
    s.last_error,
    c.participants_as_of,
    c.removed_as_of
FROM bibwire.scopes AS s
CROSS JOIN LATERAL (
    SELECT
        CASE WHEN count(*) = 2 AND bool_and(t.cursor_at IS NOT NULL) THEN min(t.cursor_at) END AS as_of,
        max(t.cursor_at) FILTER (WHERE t.stream = 'participants') AS participants_as_of,
        max(t.cursor_at) FILTER (WHERE t.stream = 'removed') AS removed_as_of
    FROM bibwire.streams AS t
    WHERE t.partner_id = s.partner_id AND t.race_id = s.race_id
) AS c
CROSS JOIN LATERAL (
    -- A race is as urgent as its most urgent live event. Hours, because a day has 23 or 25 of them
    -- where the reader's session has a zone.
    SELECT min(
        CASE
            WHEN v.starts_at > now() + interval '24 hours' THEN 14400
            WHEN v.starts_at > now() + interval '4 hours' THEN 900
            WHEN v.starts_at > now() - interval '1 hour' THEN 60
            WHEN v.starts_at <= now() - interval '1 hour' THEN 3600
            ELSE 14400
        END
    ) AS target_seconds
    FROM bibwire.events AS v
    WHERE v.partner_id = s.partner_id
      AND v.race_id = s.race_id
      AND v.removed_at IS NULL
      AND (v.lasts_until + interval '168 hours' > now() OR v.lasts_until IS NULL)
) AS e;

COMMENT ON COLUMN bibwire.streams.listing_high IS 'Vendor instant at which its first page was asked for.';
COMMENT ON COLUMN bibwire.streams.sweep_high IS 'Vendor instant at which the sweep''s first page was asked for: the next cursor.';
COMMENT ON COLUMN bibwire.participants.as_of IS 'Private: vendor instant as of which the row was last written; it never goes back.';

-- Two readings of a race list at once: the one asked for later wins, whichever is stored first.

CREATE SEQUENCE bibwire.list_readings;
COMMENT ON SEQUENCE bibwire.list_readings IS 'Private: numbers the pages of race lists in the order they are asked for.';
ALTER TABLE bibwire.races ADD COLUMN list_reading bigint;
ALTER TABLE bibwire.events ADD COLUMN list_reading bigint;
COMMENT ON COLUMN bibwire.races.list_reading IS 'Private: the last page of a race list that showed it, or list that did not; an earlier one never overwrites it.';
COMMENT ON COLUMN bibwire.events.list_reading IS 'Private: the last page of a race list that showed it; an earlier one never overwrites it.';
