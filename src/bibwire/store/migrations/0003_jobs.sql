-- What we add to the queue engine's tables. All of schema bibwire_jobs is private.

COMMENT ON SCHEMA bibwire_jobs IS 'Private: the queue of work, as the engine (procrastinate) made it, and our notes about it.';

COMMENT ON TABLE bibwire_jobs.engine_migrations IS 'Private: which of the engine''s migrations this database has had.';
COMMENT ON COLUMN bibwire_jobs.engine_migrations.name IS 'Name of the engine''s file.';
COMMENT ON COLUMN bibwire_jobs.engine_migrations.engine_version IS 'The package that brought it.';
COMMENT ON COLUMN bibwire_jobs.engine_migrations.applied_at IS 'When.';

CREATE TABLE bibwire_jobs.chores (
    task text PRIMARY KEY,
    ran_at timestamptz NOT NULL
) WITH (fillfactor = 50);
COMMENT ON TABLE bibwire_jobs.chores IS 'Private: when each periodic task last came to its end.';
COMMENT ON COLUMN bibwire_jobs.chores.task IS 'Name of the task.';
COMMENT ON COLUMN bibwire_jobs.chores.ran_at IS 'When it last ended well.';

COMMENT ON TABLE bibwire_jobs.procrastinate_jobs IS 'Private: work that is due now, running or failed; deleted when done.';
COMMENT ON TABLE bibwire_jobs.procrastinate_events IS 'Private: what happened to each job.';
COMMENT ON TABLE bibwire_jobs.procrastinate_workers IS 'Private: workers and their heartbeats.';
COMMENT ON TABLE bibwire_jobs.procrastinate_periodic_defers IS 'Private: which turns of periodic tasks were queued.';

-- Rows live for seconds: sweep up after a few, and know how many there are.
ALTER TABLE bibwire_jobs.procrastinate_jobs SET (
    autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 200,
    autovacuum_analyze_scale_factor = 0.01, autovacuum_analyze_threshold = 200
);
ALTER TABLE bibwire_jobs.procrastinate_events SET (
    autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 500,
    autovacuum_analyze_scale_factor = 0.01, autovacuum_analyze_threshold = 500
);
ALTER TABLE bibwire_jobs.procrastinate_workers SET (
    autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 200
);
ALTER TABLE bibwire_jobs.procrastinate_periodic_defers SET (
    autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 200
);
