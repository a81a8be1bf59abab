-- Workers that fetch their runs (`trigger dev`), uploads, and what a test or a person switches.

-- Nothing of a paused environment is started.
ALTER TABLE trigger.environments ADD COLUMN paused boolean NOT NULL DEFAULT false;

-- none: no plan was chosen, so no project can be made. free: with the limits of the vendor's free plan. A local hub has no limits.
ALTER TABLE trigger.organizations ADD COLUMN plan text NOT NULL DEFAULT 'unlimited'
    CHECK (plan IN ('none', 'free', 'unlimited'));

CREATE TABLE trigger.artifacts (
    key             text PRIMARY KEY,
    environment_id  text NOT NULL REFERENCES trigger.environments (id) ON DELETE CASCADE,
    -- The upload comes without credentials; only who was given the policy has it.
    policy          text NOT NULL UNIQUE,
    expires_at      timestamptz NOT NULL,
    content         bytea
);

ALTER TABLE trigger.deployments ADD COLUMN artifact_key text REFERENCES trigger.artifacts (key) ON DELETE SET NULL;
ALTER TABLE trigger.deployments ADD COLUMN skip_promotion boolean NOT NULL DEFAULT false;

-- Whether a task's runs are fetched by a development worker and not executed here.
CREATE FUNCTION trigger.is_fetched(worker_task text) RETURNS boolean
LANGUAGE sql STABLE AS $$
    SELECT d.kind = 'DEVELOPMENT'
    FROM trigger.worker_tasks t
    JOIN trigger.workers w ON w.id = t.worker_id
    JOIN trigger.deployments d ON d.id = w.deployment_id
    WHERE t.id = $1
$$;
