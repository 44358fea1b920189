-- name: acquire
-- Take the lease of a scope if it is free, run out, or its holder's process is gone (nobody holds
-- the advisory lock of its instance). Back: the fencing epoch, and since when this server runs. No row:
-- another holds it.
UPDATE bibwire.scopes AS s
SET lease_instance = %(instance)s,
    lease_epoch = s.lease_epoch + 1,
    lease_expires_at = clock_timestamp() + make_interval(secs => %(ttl_seconds)s)
WHERE s.partner_id = %(partner_id)s
  AND s.race_id = %(race_id)s
  AND (
      s.lease_instance IS NULL
      OR s.lease_expires_at <= clock_timestamp()
      OR NOT EXISTS (
          SELECT
          FROM pg_locks AS l
          WHERE l.locktype = 'advisory'
            AND l.granted
            AND l.database = (SELECT b.oid FROM pg_database AS b WHERE b.datname = current_database())
            AND l.classid = %(lock_class)s::oid
            AND l.objid = s.lease_instance::oid
            AND l.objsubid = 2
      )
  )
RETURNING s.lease_epoch, pg_postmaster_start_time();

-- name: hold
-- Renew the lease and lock the scope for this transaction. No row: it was taken over, or the server is
-- not the one that gave it, and may not know all that was stored under it.
UPDATE bibwire.scopes
SET lease_expires_at = clock_timestamp() + make_interval(secs => %(ttl_seconds)s)
WHERE partner_id = %(partner_id)s
  AND race_id = %(race_id)s
  AND lease_epoch = %(epoch)s
  AND pg_postmaster_start_time() = %(server_started_at)s
RETURNING loaded_at;

-- name: server_started_at
-- Since when this server runs.
SELECT pg_postmaster_start_time();

-- name: release
-- Give the lease back, if it is still ours. One that another server gave is nobody's any more.
UPDATE bibwire.scopes
SET lease_instance = NULL,
    lease_expires_at = NULL
WHERE partner_id = %(partner_id)s
  AND race_id = %(race_id)s
  AND lease_epoch = %(epoch)s
  AND pg_postmaster_start_time() = %(server_started_at)s;
