-- name: hold_instance
-- Hold the advisory lock that says that this process lives. One row, true if nobody has the number.
SELECT pg_try_advisory_lock(%(lock_class)s, %(instance)s);

-- name: lasting
-- Where the server is set to commit before the disk has it: a crash would free places whose calls go on.
SELECT set_config('synchronous_commit', 'local', false)
WHERE current_setting('synchronous_commit') = 'off';

-- name: open_places
-- Make sure that a caller's places have rows.
INSERT INTO bibwire.call_places (caller_digest, place)
SELECT %(caller_digest)s, n.place
FROM generate_series(0, %(places)s::integer - 1) AS n (place)
ON CONFLICT DO NOTHING;

-- name: take_place
-- Take one of the places for calls in flight, shared by all processes, until it is given back or its
-- time is over. One row: its number. No row: all are taken. A place that is taken for longer than any
-- call can last was dated by a clock that has been set back since.
UPDATE bibwire.call_places AS p
SET taken_by = %(call)s,
    instance = %(instance)s,
    taken_until = clock_timestamp() + make_interval(secs => %(seconds)s)
WHERE p.caller_digest = %(caller_digest)s
  AND p.place = (
      SELECT f.place
      FROM bibwire.call_places AS f
      WHERE f.caller_digest = %(caller_digest)s
        AND f.place < %(places)s
        AND (
            f.taken_by IS NULL
            OR f.taken_until <= clock_timestamp()
            OR f.taken_until > clock_timestamp() + interval '1 hour'
        )
      ORDER BY f.place
      LIMIT 1
      FOR UPDATE SKIP LOCKED
  )
RETURNING p.place;

-- name: keep_place
-- Keep a place for a call that takes long. No row: its time was over, and another call has it.
UPDATE bibwire.call_places AS p
SET taken_until = clock_timestamp() + make_interval(secs => %(seconds)s)
WHERE p.caller_digest = %(caller_digest)s
  AND p.taken_by = %(call)s
RETURNING p.place;

-- name: give_places_back
-- Give back the places of calls that are over; of those that have none any more nothing is changed. Its
-- commit waits for no disk: where a crash of the server undoes it, whoever gave them back does it again.
WITH quickly AS MATERIALIZED (
    SELECT set_config('synchronous_commit', 'off', true) AS setting
)
UPDATE bibwire.call_places AS p
SET taken_by = NULL,
    instance = NULL,
    taken_until = NULL
FROM quickly AS q
WHERE p.caller_digest = ANY(%(callers)s::bytea[])
  AND p.taken_by = ANY(%(calls)s::uuid[])
  AND q.setting = 'off';

-- name: sign
-- Show that this process is not frozen.
SELECT true;

-- name: end_frozen
-- End connections of ours that stand in the middle of a COPY and have sent nothing for so long: a
-- frozen process keeps the locks of its page, and no time-out of the server sees it. One row: how many.
SELECT count(*) FILTER (WHERE pg_terminate_backend(a.pid))
FROM pg_stat_activity AS a
WHERE a.datname = current_database()
  AND a.usename = current_user
  AND a.application_name = 'bibwire'
  AND a.state = 'active'
  AND a.wait_event = 'ClientRead'
  AND a.query_start < clock_timestamp() - make_interval(secs => %(silent_seconds)s);
