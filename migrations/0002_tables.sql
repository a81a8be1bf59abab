CREATE TABLE public.users (
    id           uuid PRIMARY KEY DEFAULT pg_catalog.gen_random_uuid(),
    email        text NOT NULL UNIQUE,
    display_name text,
    created_at   timestamptz NOT NULL DEFAULT pg_catalog.now(),
    updated_at   timestamptz NOT NULL DEFAULT pg_catalog.now()
);

CREATE TABLE public.posts (
    id             uuid PRIMARY KEY DEFAULT pg_catalog.gen_random_uuid(),
    user_id        uuid NOT NULL REFERENCES public.users (id) ON DELETE RESTRICT,
    platform       text NOT NULL,
    kind           text NOT NULL DEFAULT 'post',
    content        text NOT NULL,
    status         text NOT NULL DEFAULT 'draft'
                   CHECK (status IN ('draft', 'scheduled', 'retrying', 'publishing', 'published', 'failed', 'parked', 'cancelled')),
    scheduled_at   timestamptz,
    -- The one deadline: when it passes, the watchdog looks at the post. NULL where there is nothing to wait for.
    rescue_at      timestamptz,
    -- The fence: counts the runs that were started for the post. Who writes with an older count writes nothing.
    attempt        integer NOT NULL DEFAULT 0 CHECK (attempt >= 0),
    run_id         text,
    -- Set just before the platform is called. A post that has it and no outcome may be out already: it is never sent again by itself.
    side_effect_at timestamptz,
    published_at   timestamptz,
    external_id    text,
    last_error     text,
    -- A post that is later than this is parked rather than sent.
    max_lateness   interval,
    created_at     timestamptz NOT NULL DEFAULT pg_catalog.now(),
    updated_at     timestamptz NOT NULL DEFAULT pg_catalog.now(),
    CHECK (status <> 'scheduled' OR scheduled_at IS NOT NULL),
    CHECK (rescue_at IS NULL OR status IN ('scheduled', 'retrying', 'publishing')),
    -- Leads with the column that row-level security filters by, and lets other tables refer to a post of the same user only.
    UNIQUE (user_id, id)
) WITH (
    -- A post is updated a handful of times in its life: room in the page, and vacuum before a fifth of the table is dead.
    fillfactor = 85,
    autovacuum_vacuum_scale_factor = 0.02,
    autovacuum_analyze_scale_factor = 0.02
);

-- The watchdog's only scan: the posts that are due, whatever their number beside the published ones.
CREATE INDEX posts_rescue_at_idx ON public.posts (rescue_at) WHERE rescue_at IS NOT NULL;

CREATE TABLE public.oauth_tokens (
    id                   uuid PRIMARY KEY DEFAULT pg_catalog.gen_random_uuid(),
    user_id              uuid NOT NULL REFERENCES public.users (id) ON DELETE CASCADE,
    platform             text NOT NULL,
    -- Sealed by the vault with the hub's key; the database never sees the token.
    sealed_access_token  text NOT NULL,
    sealed_refresh_token text,
    scopes               text[] NOT NULL DEFAULT '{}',
    expires_at           timestamptz,
    created_at           timestamptz NOT NULL DEFAULT pg_catalog.now(),
    updated_at           timestamptz NOT NULL DEFAULT pg_catalog.now(),
    UNIQUE (user_id, platform)
);

CREATE TABLE public.api_keys (
    id           uuid PRIMARY KEY DEFAULT pg_catalog.gen_random_uuid(),
    user_id      uuid NOT NULL REFERENCES public.users (id) ON DELETE CASCADE,
    service      text NOT NULL,
    sealed_value text NOT NULL,
    created_at   timestamptz NOT NULL DEFAULT pg_catalog.now(),
    updated_at   timestamptz NOT NULL DEFAULT pg_catalog.now(),
    UNIQUE (user_id, service)
);

CREATE TABLE public.task_runs (
    id          uuid PRIMARY KEY DEFAULT pg_catalog.gen_random_uuid(),
    -- NULL for a run that is about nobody's data, the watchdog's own for example.
    user_id     uuid REFERENCES public.users (id) ON DELETE CASCADE,
    task        text NOT NULL,
    run_id      text UNIQUE,
    post_id     uuid REFERENCES public.posts (id) ON DELETE CASCADE,
    attempt     integer NOT NULL DEFAULT 0 CHECK (attempt >= 0),
    status      text NOT NULL,
    started_at  timestamptz NOT NULL DEFAULT pg_catalog.now(),
    finished_at timestamptz,
    error       text,
    result      jsonb,
    -- A user's run is about that user's post.
    FOREIGN KEY (user_id, post_id) REFERENCES public.posts (user_id, id) ON DELETE CASCADE
);

CREATE INDEX task_runs_user_id_idx ON public.task_runs (user_id, started_at);
CREATE INDEX task_runs_post_id_idx ON public.task_runs (post_id) WHERE post_id IS NOT NULL;

CREATE FUNCTION public.touch_updated_at() RETURNS trigger
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    NEW.updated_at := now();
    RETURN NEW;
END
$$;

CREATE TRIGGER users_touch BEFORE UPDATE ON public.users FOR EACH ROW EXECUTE FUNCTION public.touch_updated_at();
CREATE TRIGGER oauth_tokens_touch BEFORE UPDATE ON public.oauth_tokens FOR EACH ROW EXECUTE FUNCTION public.touch_updated_at();
CREATE TRIGGER api_keys_touch BEFORE UPDATE ON public.api_keys FOR EACH ROW EXECUTE FUNCTION public.touch_updated_at();

-- Who schedules a post need not know of the deadline, and who ends one cannot forget to take it away.
CREATE FUNCTION public.posts_deadline() RETURNS trigger
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    NEW.updated_at := now();
    IF NEW.status NOT IN ('scheduled', 'retrying', 'publishing') THEN
        NEW.rescue_at := NULL;
    ELSIF NEW.status = 'scheduled' AND NEW.rescue_at IS NULL THEN
        NEW.rescue_at := NEW.scheduled_at + interval '5 minutes';
    END IF;
    RETURN NEW;
END
$$;

CREATE TRIGGER posts_deadline BEFORE INSERT OR UPDATE ON public.posts FOR EACH ROW EXECUTE FUNCTION public.posts_deadline();
