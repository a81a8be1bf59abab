-- What the protocol of publishing keeps: deadlines and retries by kind of post, the task of each platform, the attempts, the posts that
-- need a person, and the watchdog's own row. docs/watchdog.md explains the protocol.
CREATE SCHEMA IF NOT EXISTS psn;
GRANT USAGE ON SCHEMA psn TO psn_app;

-- One row per kind of post. A kind without a row is left alone by the watchdog, and reported.
CREATE TABLE psn.kinds (
    kind            text PRIMARY KEY,
    -- From a run's start being asked for to its beginning.
    start_deadline  interval NOT NULL DEFAULT '5 minutes',
    -- From one sign of life to the next.
    run_deadline    interval NOT NULL DEFAULT '10 minutes',
    -- A post that is later than this is parked, unless the post says otherwise. NULL: never too late.
    max_lateness    interval DEFAULT '12 hours',
    max_attempts    integer NOT NULL DEFAULT 5 CHECK (max_attempts BETWEEN 1 AND 100),
    backoff_min     interval NOT NULL DEFAULT '30 seconds',
    backoff_max     interval NOT NULL DEFAULT '1 hour',
    backoff_factor  double precision NOT NULL DEFAULT 2 CHECK (backoff_factor BETWEEN 1 AND 10),
    -- The part of a pause that chance adds or takes.
    backoff_jitter  double precision NOT NULL DEFAULT 0.2 CHECK (backoff_jitter BETWEEN 0 AND 1),
    -- Runs that died without a word, within the window: the post itself may be what kills them.
    poison_cap      integer NOT NULL DEFAULT 3 CHECK (poison_cap BETWEEN 1 AND 100),
    poison_window   interval NOT NULL DEFAULT '72 hours',
    CHECK (start_deadline BETWEEN interval '10 seconds' AND interval '7 days'),
    CHECK (run_deadline BETWEEN interval '10 seconds' AND interval '7 days'),
    CHECK (max_lateness IS NULL OR max_lateness BETWEEN interval '0' AND interval '10 years'),
    CHECK (backoff_min BETWEEN interval '0' AND backoff_max AND backoff_max <= interval '7 days'),
    CHECK (poison_window BETWEEN interval '1 minute' AND interval '90 days')
);
INSERT INTO psn.kinds (kind) VALUES ('post');

-- Which task publishes to a platform; NULL: the one that watchdog.task names. A platform's own migration or person adds its row.
-- A platform without one is left alone by the watchdog, and reported.
CREATE TABLE psn.platforms (
    platform text PRIMARY KEY,
    task     text CHECK (task ~ '^[A-Za-z0-9_-]{1,100}$')
);
INSERT INTO psn.platforms (platform) VALUES ('nowhere');

-- What became of each attempt, for people, and for the poison cap.
CREATE TABLE psn.post_attempts (
    post_id      uuid NOT NULL REFERENCES public.posts (id) ON DELETE CASCADE,
    attempt      integer NOT NULL CHECK (attempt >= 1),
    run_id       text,
    triggered_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
    -- The last sign of life.
    alive_at     timestamptz,
    ended_at     timestamptz,
    outcome      text CHECK (outcome IN ('published', 'failed', 'lost', 'parked')),
    error        text,
    PRIMARY KEY (post_id, attempt)
) WITH (fillfactor = 85, autovacuum_vacuum_scale_factor = 0.05);
-- What is older than the retention is deleted in this order.
CREATE INDEX post_attempts_triggered_at_idx ON psn.post_attempts (triggered_at);

-- Posts that ended without being published, each with its cause: one row per post and state.
CREATE TABLE psn.dead_letters (
    post_id     uuid NOT NULL REFERENCES public.posts (id) ON DELETE CASCADE,
    state       text NOT NULL CHECK (state IN ('parked', 'failed')),
    attempt     integer NOT NULL,
    cause       text NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT pg_catalog.now(),
    -- NULL until a person was told.
    notified_at timestamptz,
    resolved_at timestamptz,
    resolution  text,
    PRIMARY KEY (post_id, state)
);
CREATE INDEX dead_letters_unnotified_idx ON psn.dead_letters (created_at) WHERE notified_at IS NULL AND resolved_at IS NULL;
CREATE INDEX dead_letters_open_idx ON psn.dead_letters (created_at) WHERE resolved_at IS NULL;
CREATE INDEX dead_letters_resolved_idx ON psn.dead_letters (resolved_at) WHERE resolved_at IS NOT NULL;

-- One row: which tick works, and how long the records above are kept.
CREATE TABLE psn.watchdog (
    is_only      boolean PRIMARY KEY DEFAULT true CHECK (is_only),
    tick         uuid,
    tick_until   timestamptz NOT NULL DEFAULT '-infinity',
    -- Longer than any poison window.
    keep_records interval NOT NULL DEFAULT '180 days' CHECK (keep_records BETWEEN interval '90 days' AND interval '50 years')
);
INSERT INTO psn.watchdog DEFAULT VALUES;

-- From where the attempts of a post count: a person who has it tried again gives it all of them anew, and its number still only grows.
ALTER TABLE public.posts ADD COLUMN attempts_from integer NOT NULL DEFAULT 0 CHECK (attempts_from >= 0);
-- Rows from before are not looked at: a write that touches them is.
ALTER TABLE public.posts ADD CONSTRAINT posts_times_finite
    CHECK (isfinite(scheduled_at) AND isfinite(rescue_at)) NOT VALID;
ALTER TABLE public.posts ADD CONSTRAINT posts_max_lateness
    CHECK (max_lateness BETWEEN interval '0' AND interval '10 years') NOT VALID;

-- Row-level security. A user sees what is about their own posts: the policies of posts apply inside of these.
ALTER TABLE psn.kinds ENABLE ROW LEVEL SECURITY;
ALTER TABLE psn.kinds FORCE ROW LEVEL SECURITY;
ALTER TABLE psn.platforms ENABLE ROW LEVEL SECURITY;
ALTER TABLE psn.platforms FORCE ROW LEVEL SECURITY;
ALTER TABLE psn.post_attempts ENABLE ROW LEVEL SECURITY;
ALTER TABLE psn.post_attempts FORCE ROW LEVEL SECURITY;
ALTER TABLE psn.dead_letters ENABLE ROW LEVEL SECURITY;
ALTER TABLE psn.dead_letters FORCE ROW LEVEL SECURITY;
ALTER TABLE psn.watchdog ENABLE ROW LEVEL SECURITY;
ALTER TABLE psn.watchdog FORCE ROW LEVEL SECURITY;

GRANT SELECT ON psn.kinds, psn.platforms TO psn_app;
GRANT SELECT, INSERT, UPDATE ON psn.post_attempts, psn.dead_letters TO psn_app;

CREATE POLICY kinds_select ON psn.kinds FOR SELECT TO psn_app USING (true);
CREATE POLICY platforms_select ON psn.platforms FOR SELECT TO psn_app USING (true);
CREATE POLICY post_attempts_select ON psn.post_attempts FOR SELECT TO psn_app
    USING (EXISTS (SELECT FROM public.posts p WHERE p.id = post_id));
CREATE POLICY post_attempts_insert ON psn.post_attempts FOR INSERT TO psn_app
    WITH CHECK (EXISTS (SELECT FROM public.posts p WHERE p.id = post_id));
CREATE POLICY post_attempts_update ON psn.post_attempts FOR UPDATE TO psn_app
    USING (EXISTS (SELECT FROM public.posts p WHERE p.id = post_id))
    WITH CHECK (EXISTS (SELECT FROM public.posts p WHERE p.id = post_id));
CREATE POLICY dead_letters_select ON psn.dead_letters FOR SELECT TO psn_app
    USING (EXISTS (SELECT FROM public.posts p WHERE p.id = post_id));
CREATE POLICY dead_letters_insert ON psn.dead_letters FOR INSERT TO psn_app
    WITH CHECK (EXISTS (SELECT FROM public.posts p WHERE p.id = post_id));
CREATE POLICY dead_letters_update ON psn.dead_letters FOR UPDATE TO psn_app
    USING (EXISTS (SELECT FROM public.posts p WHERE p.id = post_id))
    WITH CHECK (EXISTS (SELECT FROM public.posts p WHERE p.id = post_id));

-- The watchdog's: its grants are in its manifest, these are the rows.
CREATE POLICY kinds_watchdog_select ON psn.kinds FOR SELECT TO psn_plugin_watchdog USING (true);
CREATE POLICY platforms_watchdog_select ON psn.platforms FOR SELECT TO psn_plugin_watchdog USING (true);
CREATE POLICY post_attempts_watchdog_select ON psn.post_attempts FOR SELECT TO psn_plugin_watchdog USING (true);
CREATE POLICY post_attempts_watchdog_insert ON psn.post_attempts FOR INSERT TO psn_plugin_watchdog WITH CHECK (true);
CREATE POLICY post_attempts_watchdog_update ON psn.post_attempts FOR UPDATE TO psn_plugin_watchdog USING (true) WITH CHECK (true);
CREATE POLICY post_attempts_watchdog_delete ON psn.post_attempts FOR DELETE TO psn_plugin_watchdog
    USING (triggered_at < now() - interval '90 days');
CREATE POLICY dead_letters_watchdog_select ON psn.dead_letters FOR SELECT TO psn_plugin_watchdog USING (true);
CREATE POLICY dead_letters_watchdog_insert ON psn.dead_letters FOR INSERT TO psn_plugin_watchdog WITH CHECK (true);
CREATE POLICY dead_letters_watchdog_update ON psn.dead_letters FOR UPDATE TO psn_plugin_watchdog USING (true) WITH CHECK (true);
CREATE POLICY dead_letters_watchdog_delete ON psn.dead_letters FOR DELETE TO psn_plugin_watchdog
    USING (resolved_at < now() - interval '90 days');
CREATE POLICY watchdog_watchdog_select ON psn.watchdog FOR SELECT TO psn_plugin_watchdog USING (true);
CREATE POLICY watchdog_watchdog_update ON psn.watchdog FOR UPDATE TO psn_plugin_watchdog USING (true) WITH CHECK (true);

-- The watchdog also records what Trigger.dev says was published.
DROP POLICY posts_watchdog_select ON public.posts;
CREATE POLICY posts_watchdog_select ON public.posts FOR SELECT TO psn_plugin_watchdog
    USING ((status IN ('scheduled', 'retrying', 'publishing') AND rescue_at IS NOT NULL)
        OR (status IN ('failed', 'parked', 'published') AND updated_at = now()));
DROP POLICY posts_watchdog_update ON public.posts;
CREATE POLICY posts_watchdog_update ON public.posts FOR UPDATE TO psn_plugin_watchdog
    USING (status IN ('scheduled', 'retrying', 'publishing') AND rescue_at IS NOT NULL)
    WITH CHECK ((status IN ('scheduled', 'retrying', 'publishing') AND rescue_at IS NOT NULL)
        OR status IN ('failed', 'parked', 'published'));

-- The deadline of a scheduled post: by its kind, and moved with it. A post on its way never loses its deadline.
CREATE OR REPLACE FUNCTION public.posts_deadline() RETURNS trigger
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    NEW.updated_at := now();
    IF NEW.status NOT IN ('scheduled', 'retrying', 'publishing') THEN
        NEW.rescue_at := NULL;
    ELSIF NEW.rescue_at IS NULL
        OR (TG_OP = 'UPDATE' AND NEW.status = 'scheduled' AND NEW.scheduled_at IS DISTINCT FROM OLD.scheduled_at
            AND NEW.rescue_at IS NOT DISTINCT FROM OLD.rescue_at) THEN
        -- Kinds are not every role's to read; the watchdog goes by them when it looks.
        NEW.rescue_at := greatest(coalesce(NEW.scheduled_at, now()), CASE WHEN NEW.status = 'scheduled' THEN '-infinity' ELSE now() END)
            + interval '5 minutes';
    END IF;
    RETURN NEW;
END
$$;
