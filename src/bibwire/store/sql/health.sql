-- name: access
-- What of our work the server would refuse. One row.
SELECT
    pg_is_in_recovery() AS is_standby,
    has_database_privilege(current_database(), 'TEMP') AS may_make_temporary_tables,
    has_database_privilege(current_database(), 'CREATE') AS may_make_schemas,
    to_regnamespace('bibwire') IS NOT NULL AS is_made,
    current_user::text AS role,
    current_database()::text AS database;

-- name: denied
-- Tables and counters of ours that we may not use or, to bring them up to date, do not own. One row
-- an owner: its name, one of them, and how many.
SELECT pg_get_userbyid(c.relowner)::text, min(format('%%s.%%s', n.nspname, c.relname)), count(*)
FROM pg_class AS c
JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE n.nspname IN ('bibwire', 'bibwire_jobs')
  AND c.relkind IN ('r', 'p', 'S')
  AND NOT (
      pg_has_role(c.relowner, 'USAGE')
      OR (
          NOT %(to_change_them)s::boolean
          AND has_schema_privilege(n.oid, 'USAGE')
          AND CASE c.relkind
              WHEN 'S' THEN has_sequence_privilege(c.oid, 'USAGE')
              ELSE has_table_privilege(c.oid, 'SELECT')
                  AND has_table_privilege(c.oid, 'INSERT')
                  AND has_table_privilege(c.oid, 'UPDATE')
                  AND has_table_privilege(c.oid, 'DELETE')
          END
      )
  )
GROUP BY c.relowner
ORDER BY count(*) DESC;
