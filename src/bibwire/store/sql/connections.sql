-- name: settle
-- Set what a session of ours is; with is_local for this transaction alone. One row for each value changed.
-- What this server does not know is left out; what stands as it should needs no permission to be set.
-- The settings of plpgsql are not known before it is used.
SELECT pg_catalog.set_config(w.name, w.value, %(is_local)s)
FROM unnest(%(names)s::text[], %(wanted)s::text[]) AS w (name, value)
WHERE pg_catalog.current_setting(w.name, true) IS DISTINCT FROM w.value
  AND (pg_catalog.current_setting(w.name, true) IS NOT NULL OR w.name LIKE 'plpgsql.%%');
