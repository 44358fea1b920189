-- name: record
-- Add one attempt to its minute. A power cut may lose the last ones: nobody waits for the disk.
INSERT INTO bibwire.call_stats AS s (credential_id, minute, endpoint, calls, errors, bytes, latency)
SELECT
    %(credential_id)s,
    date_trunc('minute', coalesce(%(now)s::timestamptz, clock_timestamp())),
    %(endpoint)s,
    1,
    %(failed)s::boolean::integer,
    %(bytes)s,
    %(latency)s::integer[]
FROM set_config('synchronous_commit', 'off', true)
ON CONFLICT (credential_id, minute, endpoint) DO UPDATE
SET calls = s.calls + 1,
    errors = s.errors + excluded.errors,
    bytes = s.bytes + excluded.bytes,
    latency[%(bucket)s::integer] = s.latency[%(bucket)s::integer] + 1;

-- name: prune_call_stats
DELETE FROM bibwire.call_stats
WHERE minute < %(now)s::timestamptz - make_interval(days => %(days)s);

-- name: prune_call_minutes
DELETE FROM bibwire.call_minutes
WHERE minute < %(now)s::timestamptz - make_interval(days => %(days)s);

-- name: prune_callers
DELETE FROM bibwire.callers
WHERE throttled_at < %(now)s::timestamptz - make_interval(days => %(days)s)
  AND (blocked_until IS NULL OR blocked_until < %(now)s);
