-- name: lock_budget
-- Lock the credential's budget; back: how it stands, and the time. A statement of its own, so that
-- the next one sees what others spent: measured, a lock in the reading statement lets seven times
-- the limit through. Foreign keys that point here are not kept waiting.
SELECT
    calls_per_hour,
    limit_lowered_to,
    limit_lowered_at,
    throttled_at,
    blocked_until,
    asked_until,
    blocks_confirmed,
    careful_until,
    blocked_reason,
    coalesce(%(now)s::timestamptz, clock_timestamp())
FROM bibwire.credentials
WHERE credential_id = %(credential_id)s
FOR NO KEY UPDATE;

-- name: spend
-- Count one call in the present minute if the last 61 minute counters, which cover any rolling
-- hour, have room for it, and those since the vendor last asked for fewer as well. No row back:
-- they have not, or the caller is blocked.
WITH present AS MATERIALIZED (
    SELECT coalesce(%(now)s::timestamptz, clock_timestamp()) AS at
), spent AS (
    SELECT
        coalesce(sum(each.calls), 0) AS total,
        coalesce(sum(each.own), 0) AS own,
        coalesce(sum(each.calls) FILTER (WHERE each.minute >= %(since)s::timestamptz), 0) AS total_lately,
        coalesce(sum(each.own) FILTER (WHERE each.minute >= %(since)s::timestamptz), 0) AS own_lately
    FROM (
        SELECT
            m.minute,
            m.calls,
            CASE %(urgency)s::text
                WHEN 'live' THEN m.live
                WHEN 'race_day' THEN m.race_day
                WHEN 'reconcile' THEN m.reconcile
                WHEN 'backfill' THEN m.backfill
                ELSE m.calls - m.live - m.race_day - m.reconcile - m.backfill
            END AS own
        FROM bibwire.call_minutes AS m
        WHERE m.credential_id = %(credential_id)s
          AND m.minute > date_trunc('minute', (SELECT present.at FROM present)) - interval '61 minutes'
    ) AS each
)
INSERT INTO bibwire.call_minutes AS m (credential_id, minute, calls, live, race_day, reconcile, backfill)
SELECT
    %(credential_id)s,
    date_trunc('minute', present.at),
    1,
    (%(urgency)s::text = 'live')::integer,
    (%(urgency)s::text = 'race_day')::integer,
    (%(urgency)s::text = 'reconcile')::integer,
    (%(urgency)s::text = 'backfill')::integer
FROM present
CROSS JOIN spent
WHERE spent.total < %(most)s::bigint
  AND spent.own < %(most_own)s::bigint
  AND spent.total_lately < %(most_lately)s::bigint
  AND spent.own_lately < %(most_own_lately)s::bigint
  AND NOT EXISTS (
      SELECT
      FROM bibwire.callers AS c
      WHERE c.caller_digest = %(caller_digest)s
        AND c.blocked_until > present.at
        AND c.throttled_at <= present.at + interval '10 seconds'
  )
ON CONFLICT (credential_id, minute) DO UPDATE
SET calls = m.calls + excluded.calls,
    live = m.live + excluded.live,
    race_day = m.race_day + excluded.race_day,
    reconcile = m.reconcile + excluded.reconcile,
    backfill = m.backfill + excluded.backfill
RETURNING calls;

-- name: give_back
-- A call that `spend` counted at that moment was never sent.
UPDATE bibwire.call_minutes AS m
SET calls = m.calls - 1,
    live = m.live - (%(urgency)s::text = 'live')::integer,
    race_day = m.race_day - (%(urgency)s::text = 'race_day')::integer,
    reconcile = m.reconcile - (%(urgency)s::text = 'reconcile')::integer,
    backfill = m.backfill - (%(urgency)s::text = 'backfill')::integer
WHERE m.credential_id = %(credential_id)s
  AND m.minute = date_trunc('minute', %(at)s::timestamptz)
  AND m.calls > 0;

-- name: caller_blocked
-- Until when a caller is blocked, and why. No row back: it is not. What was told after the present
-- was stored while the clock was ahead.
SELECT blocked_until, blocked_reason
FROM bibwire.callers
WHERE caller_digest = %(caller_digest)s
  AND blocked_until > coalesce(%(now)s::timestamptz, clock_timestamp())
  AND throttled_at <= coalesce(%(now)s::timestamptz, clock_timestamp()) + interval '10 seconds';

-- name: bring_minutes_back
-- Count calls of minutes to come, which began while the clock was ahead, in the present one: so they
-- count for an hour and not until those minutes are over.
WITH ahead AS (
    DELETE FROM bibwire.call_minutes
    WHERE credential_id = %(credential_id)s
      AND minute > date_trunc('minute', %(at)s::timestamptz) + interval '1 minute'
    RETURNING calls, live, race_day, reconcile, backfill
)
INSERT INTO bibwire.call_minutes AS m (credential_id, minute, calls, live, race_day, reconcile, backfill)
SELECT
    %(credential_id)s, date_trunc('minute', %(at)s::timestamptz), sum(a.calls), sum(a.live), sum(a.race_day),
    sum(a.reconcile), sum(a.backfill)
FROM ahead AS a
HAVING count(*) > 0
ON CONFLICT (credential_id, minute) DO UPDATE
SET calls = m.calls + excluded.calls,
    live = m.live + excluded.live,
    race_day = m.race_day + excluded.race_day,
    reconcile = m.reconcile + excluded.reconcile,
    backfill = m.backfill + excluded.backfill;

-- name: minutes
-- The counters of the hour, one row a minute: calls of all classes, and of this one.
SELECT
    minute,
    calls,
    CASE %(urgency)s::text
        WHEN 'live' THEN live
        WHEN 'race_day' THEN race_day
        WHEN 'reconcile' THEN reconcile
        WHEN 'backfill' THEN backfill
        ELSE calls - live - race_day - reconcile - backfill
    END
FROM bibwire.call_minutes
WHERE credential_id = %(credential_id)s
  AND minute > date_trunc('minute', %(at)s::timestamptz) - interval '61 minutes';

-- name: throttle
-- Note how the credential stands after a throttle answer. Under lock_budget's lock.
UPDATE bibwire.credentials
SET limit_lowered_to = %(lowered_to)s,
    limit_lowered_at = %(lowered_at)s,
    throttled_at = %(throttled_at)s,
    blocked_until = %(blocked_until)s,
    asked_until = %(asked_until)s,
    blocks_confirmed = %(confirmed)s,
    careful_until = NULL,
    blocked_reason = %(reason)s
WHERE credential_id = %(credential_id)s;

-- name: be_careful
-- A careful call is being made. Under lock_budget's lock.
UPDATE bibwire.credentials
SET careful_until = %(careful_until)s
WHERE credential_id = %(credential_id)s;

-- name: careful_call_failed
-- The careful call was not refused and not answered either: another one may be made.
UPDATE bibwire.credentials
SET careful_until = NULL
WHERE credential_id = %(credential_id)s
  AND careful_until IS NOT NULL;

-- name: unblock
-- Let calls be made again; back: if none could be, or one at a time.
UPDATE bibwire.credentials
SET blocked_until = NULL,
    blocked_reason = NULL,
    asked_until = NULL,
    blocks_confirmed = 0,
    careful_until = NULL
WHERE credential_id = %(credential_id)s
  AND greatest(blocked_until, asked_until) > coalesce(%(now)s::timestamptz, clock_timestamp())
RETURNING credential_id;

-- name: unblock_caller
-- The same for all of a caller's credentials.
UPDATE bibwire.callers
SET blocked_until = NULL,
    blocked_reason = NULL
WHERE caller_digest = %(caller_digest)s
  AND blocked_until > coalesce(%(now)s::timestamptz, clock_timestamp())
RETURNING caller_digest;

-- name: add_caller
-- Make sure that the caller has a row, which the next statement locks.
INSERT INTO bibwire.callers (caller_digest)
VALUES (%(caller_digest)s)
ON CONFLICT (caller_digest) DO NOTHING;

-- name: lock_caller
-- Lock the caller; back: how it stands.
SELECT throttled_credential_id, throttled_at, blocked_until
FROM bibwire.callers
WHERE caller_digest = %(caller_digest)s
FOR UPDATE;

-- name: throttle_caller
-- Note how the caller stands after a throttle answer to one of its credentials.
UPDATE bibwire.callers
SET throttled_credential_id = %(credential_id)s,
    throttled_at = %(throttled_at)s,
    blocked_until = %(blocked_until)s,
    blocked_reason = CASE WHEN blocked_until IS DISTINCT FROM %(blocked_until)s THEN %(reason)s ELSE blocked_reason END
WHERE caller_digest = %(caller_digest)s;

-- name: budgets
-- How these credentials stand and what each spent in the hour, by class, and since the vendor last
-- asked for fewer; that of a partner where one is given instead.
WITH present AS MATERIALIZED (
    SELECT coalesce(%(now)s::timestamptz, clock_timestamp()) AS at
)
SELECT
    c.credential_id,
    c.calls_per_hour,
    c.limit_lowered_to,
    c.limit_lowered_at,
    c.throttled_at,
    c.blocked_until,
    c.blocked_reason,
    k.blocked_until,
    k.blocked_reason,
    c.asked_until,
    present.at,
    spent.by_class,
    spent.lately_by_class
FROM present
CROSS JOIN bibwire.credentials AS c
LEFT JOIN bibwire.callers AS k
    ON k.caller_digest = %(caller_digest)s AND k.throttled_at <= present.at + interval '10 seconds'
CROSS JOIN LATERAL (
    SELECT
        ARRAY[
            coalesce(sum(m.live), 0),
            coalesce(sum(m.race_day), 0),
            coalesce(sum(m.calls - m.live - m.race_day - m.reconcile - m.backfill), 0),
            coalesce(sum(m.reconcile), 0),
            coalesce(sum(m.backfill), 0)
        ]::bigint[] AS by_class,
        ARRAY[
            coalesce(sum(m.live) FILTER (WHERE lately.it), 0),
            coalesce(sum(m.race_day) FILTER (WHERE lately.it), 0),
            coalesce(sum(m.calls - m.live - m.race_day - m.reconcile - m.backfill) FILTER (WHERE lately.it), 0),
            coalesce(sum(m.reconcile) FILTER (WHERE lately.it), 0),
            coalesce(sum(m.backfill) FILTER (WHERE lately.it), 0)
        ]::bigint[] AS lately_by_class
    FROM bibwire.call_minutes AS m
    CROSS JOIN LATERAL (SELECT m.minute >= date_trunc('minute', c.throttled_at) AS it) AS lately
    WHERE m.credential_id = c.credential_id
      AND m.minute > date_trunc('minute', present.at) - interval '61 minutes'
) AS spent
WHERE c.credential_id = ANY (%(credential_ids)s::bigint[])
   OR c.partner_id = %(partner_id)s::bigint;

-- name: blocked_callers
-- Callers whose every credential is blocked, the longest first.
SELECT blocked_until, blocked_reason
FROM bibwire.callers
WHERE blocked_until > coalesce(%(now)s::timestamptz, clock_timestamp())
  AND throttled_at <= coalesce(%(now)s::timestamptz, clock_timestamp()) + interval '10 seconds'
ORDER BY blocked_until DESC;
