-- When an event makes its race hot is decided where it is stored, and told by the view as by the planner.

ALTER TABLE bibwire.events
    ADD COLUMN hot_from timestamptz,
    ADD COLUMN hot_until timestamptz,
    ADD COLUMN hot_because text,
    ADD COLUMN unlisted_at timestamptz;
COMMENT ON COLUMN bibwire.events.unlisted_at IS 'Private: since when lists show its race without it, though it may be live; null: they show it, or never did.';
COMMENT ON COLUMN bibwire.events.hot_from IS 'Private: from when it makes its race hot; null: from 4 hours before its start.';
COMMENT ON COLUMN bibwire.events.hot_until IS 'Private: until when; null: until 1 hour after its start.';
COMMENT ON COLUMN bibwire.events.hot_because IS 'Private: why that is longer than 4 hours before to 1 hour after the start; null: it is not.';

CREATE OR REPLACE VIEW bibwire.freshness AS
SELECT
    x.partner_id,
    x.race_id,
    c.as_of,
    -- Mirrors are dated by the vendor's clock: so is their age.
    CASE
        WHEN c.as_of IS NOT NULL
            THEN greatest(0, extract(epoch FROM now() - c.as_of) + coalesce(p.clock_ahead_seconds, 0))::double precision
    END AS age_seconds,
    e.target_seconds,
    s.failing_since,
    s.last_error,
    c.participants_as_of,
    c.removed_as_of
FROM (
    -- A live race has a scope; one that should have lost it must not be out of sight.
    SELECT o.partner_id, o.race_id
    FROM bibwire.scopes AS o
    UNION
    SELECT l.partner_id, l.race_id
    FROM bibwire.events AS l
    WHERE l.removed_at IS NULL
      AND (l.lasts_until + interval '168 hours' > now() OR l.lasts_until IS NULL)
) AS x
LEFT JOIN bibwire.scopes AS s ON s.partner_id = x.partner_id AND s.race_id = x.race_id
LEFT JOIN bibwire.plans AS p ON p.partner_id = x.partner_id
CROSS JOIN LATERAL (
    SELECT
        CASE WHEN count(*) = 2 AND bool_and(t.cursor_at IS NOT NULL) THEN min(t.cursor_at) END AS as_of,
        max(t.cursor_at) FILTER (WHERE t.stream = 'participants') AS participants_as_of,
        max(t.cursor_at) FILTER (WHERE t.stream = 'removed') AS removed_as_of
    FROM bibwire.streams AS t
    WHERE t.partner_id = x.partner_id AND t.race_id = x.race_id
) AS c
CROSS JOIN LATERAL (
    -- A race is as urgent as its most urgent live event. Hours, because a day has 23 or 25 of them
    -- where the reader's session has a zone.
    SELECT min(
        CASE
            WHEN h.hot_from IS NULL OR h.hot_from > now() + interval '20 hours' THEN 14400
            WHEN h.hot_from > now() THEN 900
            WHEN h.hot_until > now() THEN 60
            WHEN v.starts_at IS NULL AND h.hot_until + interval '168 hours' <= now() THEN 14400
            ELSE 3600
        END
    ) AS target_seconds
    FROM bibwire.events AS v
    CROSS JOIN LATERAL (
        SELECT
            coalesce(v.hot_from, v.starts_at - interval '4 hours') AS hot_from,
            coalesce(v.hot_until, v.starts_at + interval '1 hour') AS hot_until
    ) AS h
    WHERE v.partner_id = x.partner_id
      AND v.race_id = x.race_id
      AND v.removed_at IS NULL
      AND (v.lasts_until + interval '168 hours' > now() OR v.lasts_until IS NULL)
) AS e;

-- A live race has a scope from the moment it is stored: those of before get theirs now.
WITH live AS (
    SELECT DISTINCT v.partner_id, v.race_id
    FROM bibwire.events AS v
    JOIN bibwire.races AS r USING (partner_id, race_id)
    WHERE v.removed_at IS NULL
      AND (v.lasts_until + interval '168 hours' > now() OR v.lasts_until IS NULL)
),

opened AS (
    INSERT INTO bibwire.scopes (partner_id, race_id)
    SELECT l.partner_id, l.race_id
    FROM live AS l
    ON CONFLICT DO NOTHING
)

INSERT INTO bibwire.streams (partner_id, race_id, stream)
SELECT l.partner_id, l.race_id, b.stream
FROM live AS l
CROSS JOIN (VALUES ('participants'), ('removed')) AS b (stream)
ON CONFLICT DO NOTHING;

-- The list of what is to come is read every 15 minutes, all lists twice a day.
ALTER TABLE bibwire.plans
    ADD COLUMN next_full_list_at timestamptz NOT NULL DEFAULT '2000-01-01 00:00:00+00',
    ADD COLUMN list_note text;
COMMENT ON COLUMN bibwire.plans.next_discovery_at IS 'When its list of coming races is read next; long ago: at once.';
COMMENT ON COLUMN bibwire.plans.next_full_list_at IS 'When all its race lists are to be read next, by the first reading after it; long ago: at once.';
COMMENT ON COLUMN bibwire.plans.discovered_at IS 'When its list of coming races was last read to its end by the schedule.';
COMMENT ON COLUMN bibwire.plans.list_note IS 'What was odd about its race lists when all were last read; null: nothing.';

ALTER TABLE bibwire.races ADD COLUMN coming_reading bigint;
COMMENT ON COLUMN bibwire.races.coming_reading IS 'Private: the last list of coming races that showed it, by the number of its first page.';
