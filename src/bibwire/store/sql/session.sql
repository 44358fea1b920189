-- name: hold_instance
-- Hold the advisory lock that says that this process lives. One row, true if nobody has the number.
SELECT pg_try_advisory_lock(%(lock_class)s, %(instance)s);

-- name: take_slot
-- Take one of the places for calls in flight, shared by all processes; true if it was free.
SELECT pg_try_advisory_lock(%(lock_class)s, %(slot)s);

-- name: give_slot_back
SELECT pg_advisory_unlock(%(lock_class)s, %(slot)s);

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
  AND a.application_name LIKE 'bibwire%%'
  AND a.state = 'active'
  AND a.wait_event = 'ClientRead'
  AND a.query_start < clock_timestamp() - make_interval(secs => %(silent_seconds)s);
