-- name: pull_scopes_back
-- Scopes whose instants were stored while the clock was ahead, or whose cause is over: they come up
-- within their tier from now on. Longer waits have a cause that is stored: the vendor wants no call
-- (blocked_until), or refuses the key or the caller (put_off_until). Back: one row a scope, and whether
-- only a clock that was set back explains it: polls also wait for calls that a lower limit left used up.
WITH wrong AS MATERIALIZED (
    SELECT
        s.partner_id,
        s.race_id,
        coalesce(s.polled_at > %(present)s, false)
        OR coalesce(s.claimed_until > %(present)s::timestamptz + make_interval(secs => %(claim)s), false) AS by_clock
    FROM bibwire.scopes AS s
    JOIN bibwire.credentials AS c ON c.partner_id = s.partner_id
    JOIN bibwire.plans AS p ON p.partner_id = s.partner_id
    WHERE s.polled_at > %(present)s
       OR s.claimed_until > %(present)s::timestamptz + make_interval(secs => %(claim)s)
       OR (
           s.next_due_at > %(present)s::timestamptz + make_interval(
               secs => greatest(s.poll_every_seconds, (%(tiers)s::jsonb ->> s.tier)::double precision)
           )
           AND (
               c.blocked_until IS NULL
               OR c.throttled_at > %(present)s
               OR s.next_due_at > greatest(%(present)s, c.blocked_until + interval '10 seconds')
           )
           AND (
               p.put_off_until IS NULL
               OR p.put_off_until > %(present)s::timestamptz + make_interval(secs => %(put_off)s)
               OR s.next_due_at > greatest(%(present)s, p.put_off_until + interval '10 seconds')
           )
       )
    ORDER BY s.partner_id, s.race_id
    FOR UPDATE OF s SKIP LOCKED
)

UPDATE bibwire.scopes AS s
SET polled_at = least(s.polled_at, %(now)s::timestamptz),
    claimed_until = CASE
        WHEN s.claimed_until <= %(present)s::timestamptz + make_interval(secs => %(claim)s) THEN s.claimed_until
    END,
    next_due_at = CASE
        WHEN s.next_due_at IS NOT NULL THEN least(
            s.next_due_at,
            greatest(
                %(now)s::timestamptz,
                least(s.polled_at, %(now)s::timestamptz) + make_interval(secs => s.poll_every_seconds)
            )
        )
    END
FROM wrong AS w
WHERE s.partner_id = w.partner_id
  AND s.race_id = w.race_id
RETURNING s.partner_id, s.race_id, w.by_clock;

-- name: pull_plans_back
-- Partners whose plan or race list was dated while the clock was ahead: both are due now. Back: one
-- row a partner.
WITH wrong AS MATERIALIZED (
    SELECT p.partner_id
    FROM bibwire.plans AS p
    WHERE p.planned_at > %(present)s
       OR p.discovered_at > %(present)s
       OR p.verified_at > %(present)s
       OR p.next_plan_at > %(present)s::timestamptz + make_interval(secs => %(plan)s)
       OR p.next_discovery_at > %(present)s::timestamptz + interval '25 hours'
       OR p.next_full_list_at > %(present)s::timestamptz + interval '25 hours'
       OR p.next_verify_at > %(present)s::timestamptz + interval '25 hours'
       OR p.put_off_until > %(present)s::timestamptz + make_interval(secs => %(put_off)s)
    ORDER BY p.partner_id
    FOR UPDATE SKIP LOCKED
)

UPDATE bibwire.plans AS p
SET planned_at = least(p.planned_at, %(now)s::timestamptz),
    discovered_at = least(p.discovered_at, %(now)s::timestamptz),
    verified_at = least(p.verified_at, %(now)s::timestamptz),
    next_plan_at = least(p.next_plan_at, %(now)s::timestamptz),
    next_discovery_at = least(p.next_discovery_at, %(now)s::timestamptz),
    next_full_list_at = least(p.next_full_list_at, %(now)s::timestamptz),
    -- One without a time gets its next one.
    next_verify_at = CASE
        WHEN p.next_verify_at <= %(present)s::timestamptz + interval '25 hours' THEN p.next_verify_at
    END,
    put_off_until = NULL
FROM wrong AS w
WHERE p.partner_id = w.partner_id
RETURNING p.partner_id;

-- name: note
-- The vendor's clock as it was seen under a partner's key.
UPDATE bibwire.plans
SET clock_ahead_seconds = %(ahead)s,
    date_ahead_seconds = %(date_ahead)s,
    data_ahead_seconds = %(data_ahead)s
WHERE partner_id = %(partner_id)s;

-- name: vendors_clock
-- The vendor's clock as most partners saw it last: ahead of the database's by its Dates, and by the
-- newest change it has shown; nulls: it was not seen, or is not.
SELECT
    percentile_disc(0.5) WITHIN GROUP (ORDER BY l.date_ahead_seconds),
    percentile_disc(0.5) WITHIN GROUP (ORDER BY l.data_ahead_seconds)
FROM bibwire.plans AS l
JOIN bibwire.partners AS p ON p.partner_id = l.partner_id
WHERE p.paused_at IS NULL;
