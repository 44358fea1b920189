-- name: hold_instance
-- Hold the advisory lock that says that this process lives. One row, true if nobody has the number.
SELECT pg_try_advisory_lock(%(lock_class)s, %(instance)s);

-- name: take_slot
-- Take one of the places for calls in flight, shared by all processes; true if it was free.
SELECT pg_try_advisory_lock(%(lock_class)s, %(slot)s);

-- name: give_slot_back
SELECT pg_advisory_unlock(%(lock_class)s, %(slot)s);
