-- A claim in one round trip: the lock, and then, with a snapshot taken after it, the runs. Each statement of a volatile function has
-- a snapshot of its own, so that whoever waited for the lock counts what the one before has claimed.
--
-- What is chosen is not locked before it is changed: the update looks at the state again, and skips what was cancelled meanwhile.
-- A function for each waiting run, in place of the join with `current`, makes a long queue slower than its runs.
CREATE FUNCTION trigger.claim(
    lock_key bigint, owner integer, slots bigint, window_size bigint, lease_seconds double precision, environment text
) RETURNS TABLE (
    id text, lease_token uuid, task text, file_path text, payload text, payload_type text, scheduled_at timestamptz,
    attempt integer, stalls integer, max_attempts integer, max_duration double precision, retry jsonb, api_key text,
    project_ref text
)
LANGUAGE plpgsql VOLATILE AS $claim$
#variable_conflict use_column
BEGIN
    -- A claim that a crash of the server takes back is one that was never made: its lease is gone, so that the attempt's end changes
    -- nothing, and the run waits again. Nobody has to wait for the disk.
    PERFORM set_config('synchronous_commit', 'off', true);
    PERFORM pg_advisory_xact_lock(lock_key);
    RETURN QUERY
    WITH busy AS MATERIALIZED (
        SELECT environment_id, queue, coalesce(concurrency_key, '') AS key, count(*) AS n
        FROM trigger.runs WHERE lease_token IS NOT NULL GROUP BY 1, 2, 3
    ), current AS MATERIALIZED (
        SELECT * FROM trigger.current_tasks
    ), waiting AS (
        SELECT r.id, r.seq, r.environment_id, r.queue, coalesce(r.concurrency_key, '') AS key,
        r.available_at - make_interval(secs => r.priority) AS due,
        CASE WHEN r.worker_task_id IS NOT NULL THEN r.worker_task_id
        WHEN r.lock_to_version IS NOT NULL
        THEN trigger.resolve_task(r.environment_id, r.task, r.lock_to_version)
        ELSE c.task_id END AS task_id,
        c.fetched
        FROM trigger.runs r
        LEFT JOIN current c ON r.worker_task_id IS NULL AND r.lock_to_version IS NULL
        AND c.environment_id = r.environment_id AND c.task = r.task
        WHERE r.status IN ('PENDING', 'RETRYING_AFTER_FAILURE') AND r.available_at <= now()
        AND (r.attempt > 0 OR r.expires_at IS NULL OR r.expires_at > now())
        AND (claim.environment IS NULL OR r.environment_id = claim.environment)
    ), ready AS MATERIALIZED (
        SELECT w.*, q.concurrency_limit AS capacity, coalesce(b.n, 0) AS running
        FROM waiting w
        JOIN trigger.environments e ON e.id = w.environment_id AND NOT e.paused
        LEFT JOIN trigger.queues q ON q.environment_id = w.environment_id AND q.name = w.queue
        LEFT JOIN busy b ON b.environment_id = w.environment_id AND b.queue = w.queue AND b.key = w.key
        WHERE (q.concurrency_limit IS NULL OR coalesce(b.n, 0) < q.concurrency_limit)
        AND coalesce(w.fetched, trigger.is_fetched(w.task_id)) = (claim.environment IS NOT NULL)
        ORDER BY w.due, w.seq LIMIT claim.window_size
    ), ranked AS (
        -- By bytes: which comes first does not matter, and comparing by a language's rules takes most of a claim's time.
        SELECT *, row_number() OVER (
            PARTITION BY environment_id COLLATE "C", queue COLLATE "C", key COLLATE "C" ORDER BY due, seq
        ) AS place FROM ready
    ), chosen AS MATERIALIZED (
        SELECT id, task_id FROM ranked WHERE capacity IS NULL OR running + place <= capacity ORDER BY due, seq LIMIT claim.slots
    )
    UPDATE trigger.runs r SET status = 'DEQUEUED', lease_owner = claim.owner, lease_token = gen_random_uuid(),
    lease_expires_at = now() + make_interval(secs => claim.lease_seconds), attempt_started_at = now(), attempt = r.attempt + 1,
    worker_task_id = t.id, version = d.version_day || '.' || d.version_number, updated_at = now()
    FROM chosen c
    JOIN trigger.worker_tasks t ON t.id = c.task_id
    JOIN trigger.workers w ON w.id = t.worker_id
    JOIN trigger.deployments d ON d.id = w.deployment_id
    JOIN trigger.environments e ON e.id = w.environment_id
    JOIN trigger.projects p ON p.id = e.project_id
    WHERE r.id = c.id AND r.status IN ('PENDING', 'RETRYING_AFTER_FAILURE')
    RETURNING r.id, r.lease_token, r.task, t.file_path, r.payload, r.payload_type, r.scheduled_at, r.attempt, r.stalls,
    r.max_attempts, coalesce(r.max_duration, t.max_duration) AS max_duration, t.retry, e.api_key,
    p.ref AS project_ref;
END
$claim$;
