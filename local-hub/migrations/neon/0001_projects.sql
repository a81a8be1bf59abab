-- What Neon's control plane knows: accounts and keys, projects and what is in them, and the operations that make it so.
-- The schema itself is made by the migration runner, which keeps its own table in it.

CREATE TABLE neon.accounts (
    id         uuid PRIMARY KEY,
    email      text NOT NULL,
    name       text NOT NULL,
    last_name  text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE neon.organizations (
    id         text PRIMARY KEY,
    account_id uuid NOT NULL REFERENCES neon.accounts,
    name       text NOT NULL,
    handle     text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE neon.api_keys (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    account_id uuid NOT NULL REFERENCES neon.accounts,
    kind       text NOT NULL CHECK (kind IN ('personal', 'organization')),
    -- Set for an organization's key: the one organization it acts for.
    org_id     text REFERENCES neon.organizations,
    name       text NOT NULL,
    -- SHA-256 of the key. The key itself is nowhere.
    digest     bytea NOT NULL UNIQUE CHECK (octet_length(digest) = 32),
    -- The key that the hub hands to psn at its start; there is one, and a new one replaces it.
    builtin    boolean NOT NULL DEFAULT false,
    created_at timestamptz NOT NULL DEFAULT now(),
    CHECK ((kind = 'organization') = (org_id IS NOT NULL))
);
CREATE UNIQUE INDEX api_keys_one_builtin ON neon.api_keys (builtin) WHERE builtin;

CREATE TABLE neon.projects (
    -- The order of creation, and the cursor of lists.
    seq                       bigint GENERATED ALWAYS AS IDENTITY UNIQUE,
    id                        text PRIMARY KEY CHECK (id ~ '^[a-z0-9-]{1,60}$'),
    org_id                    text NOT NULL REFERENCES neon.organizations,
    name                      text NOT NULL,
    region_id                 text NOT NULL,
    -- The major that was asked for, and from the cluster's creation on the one it has.
    pg_version                integer NOT NULL,
    store_passwords           boolean NOT NULL,
    history_retention_seconds integer NOT NULL,
    autoscaling_limit_min_cu  double precision NOT NULL,
    autoscaling_limit_max_cu  double precision NOT NULL,
    created_at                timestamptz NOT NULL DEFAULT now(),
    updated_at                timestamptz NOT NULL DEFAULT now(),
    deleted_at                timestamptz,
    recoverable_until         timestamptz,
    -- On its way out for good: nobody sees it, and only its cluster's folder may still be there.
    abandoned                 boolean NOT NULL DEFAULT false,
    CHECK ((deleted_at IS NULL) = (recoverable_until IS NULL))
);

CREATE TABLE neon.branches (
    id               text PRIMARY KEY,
    project_id       text NOT NULL REFERENCES neon.projects ON DELETE CASCADE,
    name             text NOT NULL,
    is_default       boolean NOT NULL,
    ready            boolean NOT NULL DEFAULT false,
    state_changed_at timestamptz NOT NULL DEFAULT now(),
    created_at       timestamptz NOT NULL DEFAULT now(),
    updated_at       timestamptz NOT NULL DEFAULT now(),
    UNIQUE (project_id, name)
);
CREATE UNIQUE INDEX branches_one_default ON neon.branches (project_id) WHERE is_default;

CREATE TABLE neon.endpoints (
    id           text PRIMARY KEY,
    project_id   text NOT NULL REFERENCES neon.projects ON DELETE CASCADE,
    branch_id    text NOT NULL REFERENCES neon.branches ON DELETE CASCADE,
    -- The cluster's port on the loopback address; unknown until the cluster exists.
    port         integer CHECK (port BETWEEN 1 AND 65535),
    state        text NOT NULL DEFAULT 'init' CHECK (state IN ('init', 'active', 'idle')),
    -- What was asked for last. An endpoint that could not start is idle, and is tried again by the next daemon.
    should_run   boolean NOT NULL DEFAULT true,
    created_at   timestamptz NOT NULL DEFAULT now(),
    updated_at   timestamptz NOT NULL DEFAULT now(),
    started_at   timestamptz,
    suspended_at timestamptz
);
CREATE INDEX endpoints_of_project ON neon.endpoints (project_id);
CREATE INDEX endpoints_of_branch ON neon.endpoints (branch_id);

-- `pending` says what the cluster does not know yet. A row goes only after the cluster has dropped what it stands for.
CREATE TABLE neon.roles (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    branch_id  text NOT NULL REFERENCES neon.branches ON DELETE CASCADE,
    name       text NOT NULL,
    no_login   boolean NOT NULL DEFAULT false,
    pending    text CHECK (pending IN ('create', 'password', 'drop')),
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (branch_id, name)
);

-- Apart from neon.roles, so that no error's DETAIL ("Failing row contains …") can carry one.
CREATE TABLE neon.role_passwords (
    role_id  bigint PRIMARY KEY REFERENCES neon.roles ON DELETE CASCADE,
    -- NULL where the project stores no passwords.
    password text,
    -- What the cluster gets: SCRAM-SHA-256$…
    verifier text NOT NULL
);

CREATE TABLE neon.databases (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    branch_id  text NOT NULL REFERENCES neon.branches ON DELETE CASCADE,
    name       text NOT NULL,
    owner_name text NOT NULL,
    pending    text CHECK (pending IN ('create', 'drop')),
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (branch_id, name)
);

CREATE TABLE neon.operations (
    -- The order of work within a project, and the cursor of lists.
    seq            bigint GENERATED ALWAYS AS IDENTITY UNIQUE,
    id             uuid PRIMARY KEY,
    project_id     text NOT NULL REFERENCES neon.projects ON DELETE CASCADE,
    branch_id      text,
    endpoint_id    text,
    action         text NOT NULL CHECK (action IN ('create_timeline', 'start_compute', 'suspend_compute', 'apply_config')),
    status         text NOT NULL DEFAULT 'scheduling'
                   CHECK (status IN ('scheduling', 'running', 'finished', 'failed', 'cancelled')),
    error          text,
    failures_count integer NOT NULL DEFAULT 0,
    created_at     timestamptz NOT NULL DEFAULT now(),
    updated_at     timestamptz NOT NULL DEFAULT now(),
    started_at     timestamptz,
    ended_at       timestamptz
);
CREATE INDEX operations_of_project ON neon.operations (project_id, seq);
CREATE INDEX operations_not_ended ON neon.operations (project_id) WHERE status IN ('scheduling', 'running');
