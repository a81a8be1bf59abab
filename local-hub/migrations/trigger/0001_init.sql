-- The Trigger.dev service's own state. Every statement names the schema: the control database is shared.

CREATE TABLE trigger.users (
    id          text PRIMARY KEY,
    email       text NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now()
);

-- Only the digest of a personal access token is kept.
CREATE TABLE trigger.access_tokens (
    digest      bytea PRIMARY KEY,
    user_id     text NOT NULL REFERENCES trigger.users (id),
    created_at  timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE trigger.organizations (
    id          text PRIMARY KEY,
    slug        text NOT NULL UNIQUE,
    title       text NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE trigger.projects (
    id              text PRIMARY KEY,
    ref             text NOT NULL UNIQUE,
    organization_id text NOT NULL REFERENCES trigger.organizations (id),
    name            text NOT NULL,
    slug            text NOT NULL UNIQUE,
    created_at      timestamptz NOT NULL DEFAULT now(),
    deleted_at      timestamptz
);

-- The secret key is kept as it is: the API has to return it to the holder of a personal access token.
CREATE TABLE trigger.environments (
    id          text PRIMARY KEY,
    project_id  text NOT NULL REFERENCES trigger.projects (id) ON DELETE CASCADE,
    slug        text NOT NULL,
    kind        text NOT NULL CHECK (kind IN ('PRODUCTION', 'STAGING', 'DEVELOPMENT', 'PREVIEW')),
    api_key     text NOT NULL UNIQUE,
    created_at  timestamptz NOT NULL DEFAULT now(),
    UNIQUE (project_id, slug)
);

CREATE TABLE trigger.env_vars (
    environment_id  text NOT NULL REFERENCES trigger.environments (id) ON DELETE CASCADE,
    name            text NOT NULL,
    value           text NOT NULL,
    is_secret       boolean NOT NULL DEFAULT false,
    updated_at      timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (environment_id, name)
);

CREATE TABLE trigger.deployments (
    id              text PRIMARY KEY,
    seq             bigint GENERATED ALWAYS AS IDENTITY UNIQUE,
    environment_id  text NOT NULL REFERENCES trigger.environments (id) ON DELETE CASCADE,
    -- YYYYMMDD.N, split so that versions compare as numbers.
    version_day     integer NOT NULL,
    version_number  integer NOT NULL,
    content_hash    text NOT NULL,
    short_code      text NOT NULL,
    kind            text NOT NULL DEFAULT 'MANAGED',
    status          text NOT NULL CHECK (status IN
        ('PENDING', 'INSTALLING', 'BUILDING', 'DEPLOYING', 'DEPLOYED', 'FAILED', 'CANCELED', 'TIMED_OUT')),
    external_id     text,
    runtime         text,
    runtime_version text,
    git             jsonb,
    error           jsonb,
    image_digest    text,
    created_at      timestamptz NOT NULL DEFAULT now(),
    -- Since when the status holds: an unfinished deployment times out by it.
    status_at       timestamptz NOT NULL DEFAULT now(),
    deployed_at     timestamptz,
    UNIQUE (environment_id, version_day, version_number)
);
CREATE INDEX deployments_external_id ON trigger.deployments (environment_id, external_id) WHERE external_id IS NOT NULL;

-- The deployment that runs are started on.
CREATE TABLE trigger.promotions (
    environment_id  text PRIMARY KEY REFERENCES trigger.environments (id) ON DELETE CASCADE,
    deployment_id   text NOT NULL REFERENCES trigger.deployments (id),
    promoted_at     timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE trigger.workers (
    id              text PRIMARY KEY,
    deployment_id   text NOT NULL UNIQUE REFERENCES trigger.deployments (id) ON DELETE CASCADE,
    environment_id  text NOT NULL REFERENCES trigger.environments (id) ON DELETE CASCADE,
    content_hash    text NOT NULL,
    engine          text,
    sdk_version     text,
    cli_version     text,
    created_at      timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE trigger.worker_tasks (
    id              text PRIMARY KEY,
    worker_id       text NOT NULL REFERENCES trigger.workers (id) ON DELETE CASCADE,
    slug            text NOT NULL,
    file_path       text NOT NULL,
    export_name     text,
    trigger_source  text NOT NULL CHECK (trigger_source IN ('STANDARD', 'SCHEDULED')),
    queue           text NOT NULL,
    queue_config    jsonb,
    retry           jsonb,
    max_duration    double precision,
    ttl             text,
    schedule        jsonb,
    payload_schema  jsonb,
    created_at      timestamptz NOT NULL DEFAULT now(),
    UNIQUE (worker_id, slug)
);

CREATE TABLE trigger.queues (
    environment_id      text NOT NULL REFERENCES trigger.environments (id) ON DELETE CASCADE,
    name                text NOT NULL,
    concurrency_limit   integer,
    PRIMARY KEY (environment_id, name)
);

CREATE TABLE trigger.schedules (
    id                  text PRIMARY KEY,
    project_id          text NOT NULL REFERENCES trigger.projects (id) ON DELETE CASCADE,
    environment_id      text NOT NULL REFERENCES trigger.environments (id) ON DELETE CASCADE,
    kind                text NOT NULL CHECK (kind IN ('DECLARATIVE', 'IMPERATIVE')),
    task                text NOT NULL,
    cron                text NOT NULL,
    description         text NOT NULL,
    timezone            text NOT NULL,
    deduplication_key   text NOT NULL,
    -- False when the key was made up because the caller gave none; it is then never shown.
    user_key            boolean NOT NULL,
    external_id         text,
    active              boolean NOT NULL DEFAULT true,
    next_run_at         timestamptz NOT NULL,
    last_run_at         timestamptz,
    created_at          timestamptz NOT NULL DEFAULT now(),
    UNIQUE (project_id, deduplication_key)
);
CREATE UNIQUE INDEX schedules_declarative ON trigger.schedules (environment_id, task) WHERE kind = 'DECLARATIVE';
CREATE INDEX schedules_due ON trigger.schedules (next_run_at) WHERE active;

CREATE TABLE trigger.batches (
    id              text PRIMARY KEY,
    environment_id  text NOT NULL REFERENCES trigger.environments (id) ON DELETE CASCADE,
    run_count       integer NOT NULL,
    idempotency_key text,
    sealed          boolean NOT NULL DEFAULT false,
    created_at      timestamptz NOT NULL DEFAULT now(),
    updated_at      timestamptz NOT NULL DEFAULT now(),
    UNIQUE (environment_id, idempotency_key)
);

CREATE TABLE trigger.batch_items (
    batch_id    text NOT NULL REFERENCES trigger.batches (id) ON DELETE CASCADE,
    index       integer NOT NULL,
    task        text NOT NULL,
    -- A run, or why there is none.
    run_id      text,
    error       text,
    PRIMARY KEY (batch_id, index)
);

CREATE TABLE trigger.runs (
    id                  text PRIMARY KEY,
    -- Order of creation; the pages of a list are cut by it.
    seq                 bigint GENERATED ALWAYS AS IDENTITY UNIQUE,
    environment_id      text NOT NULL REFERENCES trigger.environments (id) ON DELETE CASCADE,
    task                text NOT NULL,
    status              text NOT NULL CHECK (status IN
        ('DELAYED', 'PENDING', 'PENDING_VERSION', 'DEQUEUED', 'EXECUTING', 'RETRYING_AFTER_FAILURE',
         'COMPLETED_SUCCESSFULLY', 'COMPLETED_WITH_ERRORS', 'CANCELED', 'CRASHED', 'SYSTEM_FAILURE', 'EXPIRED', 'TIMED_OUT')),
    payload             text NOT NULL,
    payload_type        text NOT NULL,
    -- JSON as text: jsonb cannot hold every string that a task may return.
    output              text,
    error               jsonb,
    metadata            text,
    metadata_type       text,
    tags                text[] NOT NULL DEFAULT '{}',
    is_test             boolean NOT NULL DEFAULT false,
    task_kind           text NOT NULL DEFAULT 'STANDARD',

    idempotency_key             text,
    idempotency_key_expires_at  timestamptz,
    -- What the caller called the key before its client hashed it.
    idempotency_user_key        text,
    -- The same for all retries that a client makes of one call.
    request_key                 text,

    queue               text NOT NULL,
    concurrency_key     text,
    -- Seconds by which the run jumps its queue.
    priority            double precision NOT NULL DEFAULT 0,
    lock_to_version     text,
    max_attempts        integer,
    max_duration        double precision,
    machine             text,
    ttl                 text,
    ttl_ms              bigint,
    expires_at          timestamptz,
    delay_until         timestamptz,

    schedule_id         text,
    scheduled_at        timestamptz,
    replayed_from       text,
    batch_id            text,
    parent_run_id       text,
    root_run_id         text,
    depth               integer NOT NULL DEFAULT 0,
    waits               boolean NOT NULL DEFAULT false,

    worker_task_id      text REFERENCES trigger.worker_tasks (id) ON DELETE SET NULL,
    version             text,
    attempt             integer NOT NULL DEFAULT 0,
    -- Attempts that ended because the engine died under them.
    stalls              integer NOT NULL DEFAULT 0,
    -- When a run that is PENDING or RETRYING_AFTER_FAILURE may start.
    available_at        timestamptz NOT NULL DEFAULT now(),
    lease_owner         integer,
    lease_token         uuid,
    lease_expires_at    timestamptz,
    attempt_started_at  timestamptz,
    duration_ms         bigint NOT NULL DEFAULT 0,

    created_at          timestamptz NOT NULL DEFAULT now(),
    updated_at          timestamptz NOT NULL DEFAULT now(),
    started_at          timestamptz,
    finished_at         timestamptz,
    expired_at          timestamptz,

    CHECK ((status IN ('DEQUEUED', 'EXECUTING')) = (lease_token IS NOT NULL))
);
CREATE UNIQUE INDEX runs_idempotency ON trigger.runs (environment_id, task, idempotency_key) WHERE idempotency_key IS NOT NULL;
CREATE UNIQUE INDEX runs_request ON trigger.runs (environment_id, task, request_key) WHERE request_key IS NOT NULL;
CREATE INDEX runs_list ON trigger.runs (environment_id, seq DESC);
CREATE INDEX runs_ready ON trigger.runs (available_at) WHERE status IN ('PENDING', 'RETRYING_AFTER_FAILURE');
CREATE INDEX runs_delayed ON trigger.runs (delay_until) WHERE status = 'DELAYED';
CREATE INDEX runs_leased ON trigger.runs (lease_expires_at) WHERE lease_token IS NOT NULL;
CREATE INDEX runs_waiting_for_version ON trigger.runs (environment_id, task) WHERE status = 'PENDING_VERSION';

-- The task as a run would find it now: on the version it is locked to, else on the promoted deployment. NULL when it is on neither.
CREATE FUNCTION trigger.resolve_task(environment text, task text, version text) RETURNS text
LANGUAGE sql STABLE AS $$
    SELECT t.id
    FROM trigger.worker_tasks t
    JOIN trigger.workers w ON w.id = t.worker_id
    JOIN trigger.deployments d ON d.id = w.deployment_id
    WHERE w.environment_id = $1 AND t.slug = $2 AND d.status = 'DEPLOYED'
      AND CASE WHEN $3 IS NULL
               THEN d.id = (SELECT p.deployment_id FROM trigger.promotions p WHERE p.environment_id = $1)
               ELSE d.version_day || '.' || d.version_number = $3 END
$$;
