-- name: partners
-- Every partner: its credential, how it stands, what waits for a person, drift found so far, and its
-- last verification. The last instant is in seconds since 1970, null: never.
SELECT
    c.credential_id,
    p.name,
    p.paused_at IS NOT NULL,
    c.failing_since IS NOT NULL,
    (
        SELECT count(*)
        FROM bibwire.quarantine AS q
        WHERE q.partner_id = p.partner_id AND q.resolved_at IS NULL
    ),
    (
        SELECT count(*)
        FROM bibwire.doubts AS d
        WHERE d.partner_id = p.partner_id AND d.believed_at IS NULL
    ),
    coalesce(t.differing, 0),
    coalesce(t.missing, 0),
    coalesce(t.extra, 0),
    v.failed,
    v.unfinished,
    extract(epoch FROM l.verified_at)::double precision
FROM bibwire.partners AS p
JOIN bibwire.credentials AS c USING (partner_id)
LEFT JOIN bibwire.plans AS l USING (partner_id)
LEFT JOIN bibwire.drift_totals AS t USING (partner_id)
CROSS JOIN LATERAL (
    SELECT
        count(*) FILTER (WHERE f.failure ->> 'verdict' = 'fail') AS failed,
        count(*) FILTER (WHERE f.failure ->> 'verdict' = 'error') AS unfinished
    FROM jsonb_array_elements(l.verify_failures) AS f (failure)
) AS v
ORDER BY p.name;

-- name: races
-- Every race that is kept fresh now: an event of it is live, and its partner is not paused. Seconds:
-- of its participants' age (null: not loaded), how old they may be, since it was last listed in full
-- (null: never), and of the lags of the newest hour, no older than the one before this (null: no change).
SELECT
    p.name,
    f.race_id,
    -- Dated by the vendor's clock: so is the age.
    CASE
        WHEN f.as_of IS NOT NULL THEN greatest(
            0, extract(epoch FROM now() - f.participants_as_of) + coalesce(w.clock_ahead_seconds, 0)
        )::double precision
    END,
    f.target_seconds,
    f.failing_since IS NOT NULL,
    extract(epoch FROM now() - greatest(s.loaded_at, s.reconciled_at))::double precision,
    l.p50_seconds,
    l.p95_seconds,
    l.worst_seconds
FROM bibwire.freshness AS f
LEFT JOIN bibwire.scopes AS s USING (partner_id, race_id)
JOIN bibwire.races AS r USING (partner_id, race_id)
JOIN bibwire.partners AS p USING (partner_id)
LEFT JOIN bibwire.plans AS w USING (partner_id)
LEFT JOIN LATERAL (
    SELECT d.p50_seconds, d.p95_seconds, d.worst_seconds
    FROM bibwire.detection_lag AS d
    WHERE d.partner_id = f.partner_id
      AND d.race_id = f.race_id
      AND d.hour > now() - interval '2 hours'
    ORDER BY d.hour DESC
    LIMIT 1
) AS l ON true
WHERE f.target_seconds IS NOT NULL
  AND r.removed_at IS NULL
  AND p.paused_at IS NULL
ORDER BY p.name, f.race_id;

-- name: endpoints
-- Calls and errors of the last hour, by partner and endpoint; none: no row.
SELECT p.name, x.endpoint, x.calls, x.errors
FROM bibwire.partners AS p
JOIN bibwire.credentials AS c USING (partner_id)
CROSS JOIN LATERAL (
    SELECT s.endpoint, sum(s.calls)::bigint AS calls, sum(s.errors)::bigint AS errors
    FROM bibwire.call_stats AS s
    WHERE s.credential_id = c.credential_id
      AND s.minute > date_trunc('minute', now()) - interval '60 minutes'
    GROUP BY s.endpoint
) AS x
ORDER BY p.name, x.endpoint;

-- name: callers_blocked
-- How many callers there are whose every credential must wait.
SELECT count(*)
FROM bibwire.callers
WHERE blocked_until > now()
  AND coalesce(throttled_at <= now() + interval '10 seconds', true);
