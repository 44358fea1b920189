-- name: lock_budget
-- Lock the credential's budget; back: its limit. A statement of its own, so that the next one sees
-- what others spent: measured, a lock in the reading statement lets seven times the limit through.
SELECT calls_per_hour
FROM bibwire.credentials
WHERE credential_id = %(credential_id)s
FOR UPDATE;

-- name: spent
-- Calls of the last 61 minute counters, which cover any rolling hour; and how long until the
-- oldest of them falls out.
SELECT
    coalesce(sum(calls), 0)::bigint,
    extract(epoch FROM min(minute) + interval '61 minutes' - clock_timestamp())::double precision
FROM bibwire.call_minutes
WHERE credential_id = %(credential_id)s
  AND minute > date_trunc('minute', clock_timestamp()) - interval '61 minutes'
  AND calls > 0;

-- name: spend
INSERT INTO bibwire.call_minutes AS m (credential_id, minute, calls)
VALUES (%(credential_id)s, date_trunc('minute', clock_timestamp()), 1)
ON CONFLICT (credential_id, minute) DO UPDATE
SET calls = m.calls + 1;
