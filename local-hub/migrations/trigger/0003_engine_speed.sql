-- What the engine asks at each turn, so that a long queue does not slow it down.

CREATE INDEX runs_expiring ON trigger.runs (expires_at) WHERE status = 'PENDING' AND attempt = 0 AND expires_at IS NOT NULL;
CREATE INDEX runs_batch ON trigger.runs (batch_id) WHERE batch_id IS NOT NULL;

-- The tasks of the promoted deployments: what `resolve_task` finds for a run that is locked to no version, for all of them at once.
CREATE VIEW trigger.current_tasks AS
    SELECT p.environment_id, t.slug AS task, t.id AS task_id, d.kind = 'DEVELOPMENT' AS fetched
    FROM trigger.promotions p
    JOIN trigger.deployments d ON d.id = p.deployment_id AND d.status = 'DEPLOYED'
    JOIN trigger.workers w ON w.deployment_id = d.id AND w.environment_id = p.environment_id
    JOIN trigger.worker_tasks t ON t.worker_id = w.id;
