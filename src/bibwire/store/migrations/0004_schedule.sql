-- When each scope is polled next, and what was planned for its partner.

ALTER TABLE bibwire.scopes
    ADD COLUMN next_due_at timestamptz,
    ADD COLUMN claimed_until timestamptz,
    ADD COLUMN tier text,
    ADD COLUMN poll_every_seconds double precision,
    ADD COLUMN removed_every_seconds double precision,
    ADD COLUMN polled_at timestamptz,
    ADD COLUMN removed_polled_at timestamptz,
    ADD COLUMN changes_per_minute double precision NOT NULL DEFAULT 0,
    ADD COLUMN rate_at timestamptz,
    ADD COLUMN failures integer NOT NULL DEFAULT 0;
CREATE INDEX scopes_due ON bibwire.scopes (next_due_at) WHERE next_due_at IS NOT NULL;
-- Hot scopes are few: they are found first, whatever stands in the queue.
CREATE INDEX scopes_due_hot ON bibwire.scopes (next_due_at) WHERE next_due_at IS NOT NULL AND tier = 'hot';
COMMENT ON COLUMN bibwire.scopes.next_due_at IS 'When the schedule polls it next; null: not scheduled.';
COMMENT ON COLUMN bibwire.scopes.claimed_until IS 'Until when a queued or running job is trusted to poll it; null: none.';
COMMENT ON COLUMN bibwire.scopes.tier IS 'How near its nearest start is: far, near, hot or afterglow; null: not scheduled.';
COMMENT ON COLUMN bibwire.scopes.poll_every_seconds IS 'Planned seconds between polls of its participants.';
COMMENT ON COLUMN bibwire.scopes.removed_every_seconds IS 'Planned seconds between polls of its removed list.';
COMMENT ON COLUMN bibwire.scopes.polled_at IS 'Begin of the last poll by the schedule that succeeded.';
COMMENT ON COLUMN bibwire.scopes.removed_polled_at IS 'Begin of the last one that asked for the removed list as well.';
COMMENT ON COLUMN bibwire.scopes.changes_per_minute IS 'Changes seen a minute, older ones forgotten, as of rate_at.';
COMMENT ON COLUMN bibwire.scopes.rate_at IS 'When changes_per_minute was last brought up to date.';
COMMENT ON COLUMN bibwire.scopes.failures IS 'Polls that failed since the last that succeeded.';

CREATE TABLE bibwire.plans (
    partner_id bigint PRIMARY KEY REFERENCES bibwire.partners ON DELETE CASCADE,
    next_plan_at timestamptz NOT NULL DEFAULT '2000-01-01 00:00:00+00',
    next_discovery_at timestamptz NOT NULL DEFAULT '2000-01-01 00:00:00+00',
    discovered_at timestamptz,
    discovery_error text,
    planned_at timestamptz,
    usable_calls_per_hour double precision,
    needed_calls_per_hour double precision,
    planned_calls_per_hour double precision,
    short_from timestamptz,
    short_until timestamptz,
    short_calls_per_hour double precision,
    clock_ahead_seconds double precision NOT NULL DEFAULT 0,
    lag_seq bigint NOT NULL DEFAULT 0
);
CREATE INDEX plans_due ON bibwire.plans (next_plan_at);
CREATE INDEX plans_discovery_due ON bibwire.plans (next_discovery_at);
COMMENT ON TABLE bibwire.plans IS 'Private: what the schedule does for a partner, and when it looks again.';
COMMENT ON COLUMN bibwire.plans.partner_id IS 'Which partner.';
COMMENT ON COLUMN bibwire.plans.next_plan_at IS 'When its polls are planned anew; long ago: at once.';
COMMENT ON COLUMN bibwire.plans.next_discovery_at IS 'When its race list is read next; long ago: at once.';
COMMENT ON COLUMN bibwire.plans.discovered_at IS 'When its race list was last read to its end by the schedule.';
COMMENT ON COLUMN bibwire.plans.discovery_error IS 'Why the last try to read it failed; null: it did not.';
COMMENT ON COLUMN bibwire.plans.planned_at IS 'When its polls were last planned.';
COMMENT ON COLUMN bibwire.plans.usable_calls_per_hour IS 'Calls an hour that could be planned with.';
COMMENT ON COLUMN bibwire.plans.needed_calls_per_hour IS 'Calls an hour that the slowest allowed polling takes.';
COMMENT ON COLUMN bibwire.plans.planned_calls_per_hour IS 'Calls an hour that were planned.';
COMMENT ON COLUMN bibwire.plans.short_from IS 'Begin of the next time at which the calls will not suffice; null: none is foreseen.';
COMMENT ON COLUMN bibwire.plans.short_until IS 'Its end.';
COMMENT ON COLUMN bibwire.plans.short_calls_per_hour IS 'Calls an hour that would be needed then.';
COMMENT ON COLUMN bibwire.plans.clock_ahead_seconds IS 'How much the vendor''s clock is ahead of ours, by the Date of its answers.';
COMMENT ON COLUMN bibwire.plans.lag_seq IS 'Position in the feed up to which detection_lag is counted.';
INSERT INTO bibwire.plans (partner_id)
SELECT partner_id
FROM bibwire.partners;

CREATE TABLE bibwire.detection_lag (
    partner_id bigint NOT NULL REFERENCES bibwire.partners ON DELETE CASCADE,
    race_id bigint NOT NULL,
    hour timestamptz NOT NULL,
    changes integer NOT NULL,
    p50_seconds double precision NOT NULL,
    p95_seconds double precision NOT NULL,
    worst_seconds double precision NOT NULL,
    PRIMARY KEY (partner_id, race_id, hour)
);
COMMENT ON TABLE bibwire.detection_lag IS 'How long after the vendor knew of a change we did, per race and hour.';
COMMENT ON COLUMN bibwire.detection_lag.partner_id IS 'Whose race.';
COMMENT ON COLUMN bibwire.detection_lag.race_id IS 'The race.';
COMMENT ON COLUMN bibwire.detection_lag.hour IS 'The hour (UTC) in which we saw the changes.';
COMMENT ON COLUMN bibwire.detection_lag.changes IS 'Changes seen in it that the vendor dates.';
COMMENT ON COLUMN bibwire.detection_lag.p50_seconds IS 'Half of them were seen within so many seconds.';
COMMENT ON COLUMN bibwire.detection_lag.p95_seconds IS '95 in 100 were seen within so many seconds.';
COMMENT ON COLUMN bibwire.detection_lag.worst_seconds IS 'All were.';

-- The schedule reads the removed list less often: each stream's own instant is told, too.
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
      AND (
          coalesce(v.ends_at, v.starts_at) + interval '168 hours' > now()
          OR coalesce(v.ends_at, v.starts_at) IS NULL
      )
) AS e;
COMMENT ON COLUMN bibwire.freshness.participants_as_of IS 'Vendor instant to which sign-ups, edits and bibs are complete; null: not loaded.';
COMMENT ON COLUMN bibwire.freshness.removed_as_of IS 'Vendor instant to which removals are complete; null: not loaded.';
