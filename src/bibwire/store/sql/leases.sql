-- name: acquire
-- Take the lease of a scope if it is free, run out, or its holder's process is gone (nobody holds
-- the advisory lock of its instance). Back: the fencing epoch. No row: another holds it.
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
RETURNING s.lease_epoch;

-- name: hold
-- Renew the lease and lock the scope for this transaction. No row: it was taken over.
UPDATE bibwire.scopes
SET lease_expires_at = clock_timestamp() + make_interval(secs => %(ttl_seconds)s)
WHERE partner_id = %(partner_id)s
  AND race_id = %(race_id)s
  AND lease_epoch = %(epoch)s
RETURNING loaded_at;

-- name: release
-- Give the lease back, if it is still ours.
UPDATE bibwire.scopes
SET lease_instance = NULL,
    lease_expires_at = NULL
WHERE partner_id = %(partner_id)s
  AND race_id = %(race_id)s
  AND lease_epoch = %(epoch)s;
