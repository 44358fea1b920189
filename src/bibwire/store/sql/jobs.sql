-- name: hold_worker
-- Hold the advisory lock that says that this worker lives, whatever way it ends.
SELECT pg_advisory_lock(%(lock_class)s, %(worker_lock)s);

-- name: beat
-- Say that the worker lives. No row: it stood still for so long that others may take it for dead.
UPDATE bibwire_jobs.procrastinate_workers
SET last_heartbeat = now()
WHERE id = %(worker_id)s
  AND last_heartbeat > now() - make_interval(secs => %(stalled_after)s)
RETURNING id;

-- name: finish
-- Delete a job that is done, unless it was given to another worker meanwhile: then no row.
DELETE FROM bibwire_jobs.procrastinate_jobs
WHERE id = %(job_id)s
  AND status = 'doing'
  AND worker_id = %(worker_id)s
RETURNING id;

-- name: fail
-- Keep a job that failed, so that it is seen and tried again. No row: it was given to another worker.
UPDATE bibwire_jobs.procrastinate_jobs
SET status = 'failed',
    attempts = attempts + 1
WHERE id = %(job_id)s
  AND status = 'doing'
  AND worker_id = %(worker_id)s
RETURNING id;

-- name: give_back
-- Put a job that was cut short back into the queue, unless the same work was queued again
-- meanwhile: then once is enough. No row: it was given to another worker.
WITH mine AS MATERIALIZED (
    SELECT
        j.id,
        EXISTS (
            SELECT
            FROM bibwire_jobs.procrastinate_jobs AS q
            WHERE q.queueing_lock = j.queueing_lock
              AND q.status = 'todo'
        ) AS is_queued
    FROM bibwire_jobs.procrastinate_jobs AS j
    WHERE j.id = %(job_id)s
      AND j.status = 'doing'
      AND j.worker_id = %(worker_id)s
    FOR UPDATE OF j
),
dropped AS (
    DELETE FROM bibwire_jobs.procrastinate_jobs AS j
    USING mine
    WHERE j.id = mine.id
      AND mine.is_queued
),
queued AS (
    UPDATE bibwire_jobs.procrastinate_jobs AS j
    SET status = 'todo',
        worker_id = NULL,
        attempts = j.attempts + 1
    FROM mine
    WHERE j.id = mine.id
      AND NOT mine.is_queued
)
SELECT id
FROM mine;

-- name: rescue
-- Put the jobs of dead workers back into the queue and forget these workers. Dead is who gave no
-- sign for `stalled_after` seconds, or for `silent_after` if its connection is gone as well, or is
-- known for it. One row: how many jobs, and whether any of them is to be run again.
WITH dead AS MATERIALIZED (
    SELECT w.id
    FROM bibwire_jobs.procrastinate_workers AS w
    WHERE w.last_heartbeat < now() - make_interval(secs => %(stalled_after)s)
       OR w.id = ANY (%(dead)s::bigint[])
       OR (
           -- One to come was given while the server's clock was ahead; who lives has given another since.
           NOT w.last_heartbeat BETWEEN now() - make_interval(secs => %(silent_after)s) AND now() + interval '1 minute'
           AND NOT EXISTS (
               SELECT
               FROM pg_locks AS l
               WHERE l.locktype = 'advisory'
                 AND l.granted
                 AND l.database = (SELECT b.oid FROM pg_database AS b WHERE b.datname = current_database())
                 AND l.classid = %(lock_class)s::oid
                 AND l.objid = (w.id & 2147483647)::oid
                 AND l.objsubid = 2
           )
       )
    FOR UPDATE OF w SKIP LOCKED
),
stalled AS MATERIALIZED (
    SELECT j.id, j.queueing_lock
    FROM bibwire_jobs.procrastinate_jobs AS j
    WHERE j.status = 'doing'
      AND (j.worker_id IS NULL OR j.worker_id IN (SELECT dead.id FROM dead))
    FOR UPDATE OF j SKIP LOCKED
),
wanted AS MATERIALIZED (
    SELECT s.id
    FROM (
        SELECT
            t.id, t.queueing_lock, row_number() OVER (PARTITION BY t.queueing_lock ORDER BY t.id) AS place
        FROM stalled AS t
    ) AS s
    WHERE s.queueing_lock IS NULL
       OR (
           s.place = 1
           AND NOT EXISTS (
               SELECT
               FROM bibwire_jobs.procrastinate_jobs AS q
               WHERE q.queueing_lock = s.queueing_lock
                 AND q.status = 'todo'
           )
       )
),
queued AS (
    UPDATE bibwire_jobs.procrastinate_jobs AS j
    SET status = 'todo',
        worker_id = NULL,
        scheduled_at = NULL,
        attempts = j.attempts + 1
    FROM wanted
    WHERE j.id = wanted.id
    RETURNING j.id
),
-- The same work was queued again meanwhile: once is enough.
dropped AS (
    DELETE FROM bibwire_jobs.procrastinate_jobs AS j
    USING stalled
    WHERE j.id = stalled.id
      AND NOT EXISTS (SELECT FROM wanted WHERE wanted.id = stalled.id)
    RETURNING j.id
),
forgotten AS (
    DELETE FROM bibwire_jobs.procrastinate_workers AS w
    USING dead
    WHERE w.id = dead.id
    RETURNING w.id
)
SELECT
    (SELECT count(*) FROM stalled) AS jobs,
    (SELECT count(*) FROM queued) AS queued,
    (SELECT count(*) FROM dropped) AS dropped,
    (SELECT count(*) FROM forgotten) AS workers;

-- name: retry_failed
-- Queue failed jobs again: after 15 s, 30 s and so on, at most 5 min. Of several of the same work
-- the last counts. One row: how many.
WITH ripe AS MATERIALIZED (
    SELECT j.id, j.queueing_lock
    FROM bibwire_jobs.procrastinate_jobs AS j
    WHERE j.status = 'failed'
      AND (
          SELECT max(e.at)
          FROM bibwire_jobs.procrastinate_events AS e
          WHERE e.job_id = j.id
            AND e.type = 'failed'
      ) <= now() - make_interval(
          secs => least(%(longest_pause)s, %(first_pause)s * power(2, least(greatest(j.attempts, 1), 20) - 1))
      )
    FOR UPDATE OF j SKIP LOCKED
),
superseded AS MATERIALIZED (
    SELECT r.id
    FROM ripe AS r
    WHERE EXISTS (
        SELECT
        FROM bibwire_jobs.procrastinate_jobs AS q
        WHERE q.queueing_lock = r.queueing_lock
          AND q.id <> r.id
          AND (q.status IN ('todo', 'doing') OR (q.status = 'failed' AND q.id > r.id))
    )
),
dropped AS (
    DELETE FROM bibwire_jobs.procrastinate_jobs AS j
    USING superseded
    WHERE j.id = superseded.id
    RETURNING j.id
),
queued AS (
    UPDATE bibwire_jobs.procrastinate_jobs AS j
    SET status = 'todo',
        worker_id = NULL,
        scheduled_at = NULL
    FROM ripe
    WHERE j.id = ripe.id
      AND NOT EXISTS (SELECT FROM superseded WHERE superseded.id = ripe.id)
    RETURNING j.id
)
SELECT
    (SELECT count(*) FROM queued) AS queued,
    (SELECT count(*) FROM dropped) AS dropped;

-- name: tell_workers
-- Wake the workers: the engine tells them of new jobs, not of those that are queued again.
SELECT pg_notify('procrastinate_queue_v1#' || q.queue_name, '{"type": "job_inserted", "job_id": 0}')
FROM (
    SELECT DISTINCT j.queue_name
    FROM bibwire_jobs.procrastinate_jobs AS j
    WHERE j.status = 'todo'
) AS q;

-- name: cancel
-- Take work out of the queue that is not running: jobs of these tasks with these arguments among
-- theirs. A row a job.
DELETE FROM bibwire_jobs.procrastinate_jobs
WHERE task_name = ANY (%(tasks)s::text[])
  AND args @> %(args)s::jsonb
  AND status IN ('todo', 'failed')
RETURNING id;

-- name: any_worker
-- Whether any worker gives signs.
SELECT EXISTS (
    SELECT
    FROM bibwire_jobs.procrastinate_workers AS w
    WHERE w.last_heartbeat > now() - make_interval(secs => %(stalled_after)s)
);

-- name: note_chore
-- Note that a periodic task came to its end.
INSERT INTO bibwire_jobs.chores (task, ran_at)
VALUES (%(task)s, now())
ON CONFLICT (task) DO UPDATE
SET ran_at = excluded.ran_at;

-- name: stats
-- How the queue stands, in one row.
SELECT
    count(*) FILTER (WHERE j.status = 'todo') AS todo,
    count(*) FILTER (WHERE j.status = 'doing') AS doing,
    count(*) FILTER (WHERE j.status = 'failed') AS failed,
    count(*) FILTER (
        WHERE j.status = 'doing'
          AND NOT EXISTS (
              SELECT
              FROM bibwire_jobs.procrastinate_workers AS w
              WHERE w.id = j.worker_id
                AND w.last_heartbeat > now() - make_interval(secs => %(stalled_after)s)
          )
    ) AS stalled,
    (
        SELECT extract(epoch FROM now() - max(e.at))::double precision
        FROM bibwire_jobs.procrastinate_events AS e
        WHERE e.job_id = min(j.id) FILTER (WHERE j.status = 'todo')
          AND e.type IN ('deferred', 'deferred_for_retry', 'retried')
    ) AS oldest_todo_seconds,
    (
        SELECT count(*)
        FROM bibwire_jobs.procrastinate_workers AS w
        WHERE w.last_heartbeat > now() - make_interval(secs => %(stalled_after)s)
    ) AS workers
FROM bibwire_jobs.procrastinate_jobs AS j;

-- name: chores
-- How many seconds ago each periodic task last came to its end.
SELECT task, extract(epoch FROM now() - ran_at)::double precision
FROM bibwire_jobs.chores;
