-- The protocol of publishing, as functions: whatever language a publishing task is written in, it calls these. They run with the rights
-- of who calls (security invoker) and find only what they name (fixed search_path). `token` is the fence: the number of the attempt that
-- the caller was started as. A call with a token that is no longer the post's changes nothing, and answers false.

-- Posts that are due, leased for some seconds, the oldest first; those that another tick holds are passed over. One statement: what it
-- relies on is checked where it is written. Materialized: a plan that joins row by row would otherwise lease more than `batch`.
-- A post that nobody knows how to publish gets a long lease, so that any number of them costs the others nothing.
CREATE FUNCTION psn.lease(batch integer, seconds integer)
RETURNS TABLE (id uuid, attempt integer, run_id text, task text, unknown text, has_begun boolean, is_late boolean, starts_in_s float8,
               lag_s float8, is_spent boolean, lost bigint, poison_cap integer, backoff_s integer, silent_s float8, run_deadline_s float8)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    WITH kinds AS MATERIALIZED (
        SELECT k.*, extract(epoch FROM k.backoff_min)::float8 AS min_s, extract(epoch FROM k.backoff_max)::float8 AS max_s,
               extract(epoch FROM k.run_deadline)::float8 AS run_s
        FROM psn.kinds k
    ), due AS MATERIALIZED (
        SELECT p.id, p.rescue_at AS due_at, f.task,
               CASE WHEN k.kind IS NULL THEN 'unknown-kind' WHEN f.platform IS NULL THEN 'unknown-platform' END AS unknown
        FROM public.posts p
        LEFT JOIN psn.kinds k ON k.kind = p.kind
        LEFT JOIN psn.platforms f ON f.platform = p.platform
        WHERE p.rescue_at <= now() AND p.status IN ('scheduled', 'retrying', 'publishing')
        ORDER BY p.rescue_at
        LIMIT batch
        FOR UPDATE OF p SKIP LOCKED
    ), leased AS (
        UPDATE public.posts p
        SET rescue_at = now() + CASE WHEN due.unknown IS NULL THEN seconds * interval '1 second' ELSE interval '6 hours' END
        FROM due
        WHERE p.id = due.id
        RETURNING p.id, p.kind, p.status, p.attempt, p.attempts_from, p.run_id, p.side_effect_at, p.scheduled_at, p.max_lateness,
                  due.due_at, due.task, due.unknown
    )
    SELECT l.id, l.attempt, l.run_id, l.task, l.unknown,
           l.side_effect_at IS NOT NULL,
           coalesce(isfinite(l.scheduled_at) AND now() - l.scheduled_at > coalesce(l.max_lateness, k.max_lateness), false),
           coalesce(CASE WHEN l.scheduled_at > now() AND isfinite(l.scheduled_at)
                         THEN extract(epoch FROM l.scheduled_at - now()) END, 0)::float8,
           CASE WHEN isfinite(l.due_at) THEN extract(epoch FROM now() - l.due_at) ELSE 0 END::float8,
           coalesce(l.attempt - l.attempts_from >= k.max_attempts, false),
           CASE WHEN l.attempt - l.attempts_from < k.poison_cap - 1 THEN 0 ELSE (
               SELECT count(*) FROM psn.post_attempts h
               WHERE h.post_id = l.id AND h.attempt > l.attempts_from AND h.attempt <> l.attempt
                 AND h.outcome = 'lost' AND h.triggered_at > now() - k.poison_window)
           END,
           k.poison_cap,
           -- As psn.backoff_s, which has a cost of its own per call: this is said a thousand times in a statement.
           CASE WHEN l.attempt <= l.attempts_from OR l.status = 'retrying' OR k.kind IS NULL THEN 0 ELSE least(604800, greatest(0, round(
               least(k.max_s, k.min_s * power(k.backoff_factor, least(l.attempt - l.attempts_from - 1, 60)))
               * (1 + k.backoff_jitter * (2 * random() - 1)))))::integer END,
           -- A run without a sign of life yet is as old as its trigger.
           extract(epoch FROM now() - a.alive_at)::float8,
           k.run_s
    FROM leased l
    LEFT JOIN kinds k ON k.kind = l.kind
    LEFT JOIN psn.post_attempts a ON a.post_id = l.id AND a.attempt = l.attempt
    ORDER BY l.due_at;
END
$$;

-- Seconds to pause before the attempt after the given one: exponential, capped, and spread by chance.
CREATE FUNCTION psn.backoff_s(k psn.kinds, attempts integer) RETURNS integer
LANGUAGE sql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT least(604800, greatest(0, round(
        least(extract(epoch FROM k.backoff_max)::float8,
              extract(epoch FROM k.backoff_min)::float8 * power(k.backoff_factor, least(greatest(attempts, 1) - 1, 60)))
        * (1 + k.backoff_jitter * (2 * random() - 1)))))::integer
$$;

-- A run for the next attempt exists: only now does the attempt count. A run may be faster than this and count itself; then only its name
-- is noted. `ended` says how the attempt before ended.
CREATE FUNCTION psn.confirm(post uuid, token integer, run text, delay_s integer, ended text) RETURNS boolean
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    confirmed boolean;
BEGIN
    UPDATE public.posts p
    SET attempt = token + 1, run_id = run, status = 'publishing',
        rescue_at = now() + delay_s * interval '1 second'
            + coalesce((SELECT k.start_deadline FROM psn.kinds k WHERE k.kind = p.kind), interval '5 minutes')
    WHERE p.id = post AND p.attempt = token AND p.side_effect_at IS NULL AND p.status IN ('scheduled', 'retrying', 'publishing');
    confirmed := FOUND;
    IF NOT confirmed THEN
        UPDATE public.posts p SET run_id = run
        WHERE p.id = post AND p.attempt = token + 1 AND p.status IN ('scheduled', 'retrying', 'publishing');
        IF NOT FOUND THEN
            RETURN false;
        END IF;
    END IF;
    INSERT INTO psn.post_attempts (post_id, attempt, run_id) VALUES (post, token + 1, run)
    ON CONFLICT (post_id, attempt) DO UPDATE SET run_id = excluded.run_id;
    IF ended IS NOT NULL AND token >= 1 THEN
        INSERT INTO psn.post_attempts (post_id, attempt, ended_at, outcome) VALUES (post, token, now(), ended)
        ON CONFLICT (post_id, attempt) DO UPDATE SET ended_at = now(), outcome = excluded.outcome
        WHERE psn.post_attempts.outcome IS NULL;
    END IF;
    RETURN confirmed;
END
$$;

-- The post's run is alive, or nothing can be done now: it is looked at again later. `working`: the run was seen at work.
CREATE FUNCTION psn.postpone(post uuid, token integer, seconds integer, working boolean) RETURNS boolean
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    UPDATE public.posts p SET rescue_at = now() + least(greatest(seconds, 1), 604800) * interval '1 second'
    WHERE p.id = post AND p.attempt = token AND p.status IN ('scheduled', 'retrying', 'publishing');
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    IF working AND token >= 1 THEN
        INSERT INTO psn.post_attempts (post_id, attempt, alive_at) VALUES (post, token, now())
        ON CONFLICT (post_id, attempt) DO UPDATE SET alive_at = now() WHERE psn.post_attempts.alive_at IS NULL;
    END IF;
    RETURN true;
END
$$;

-- A run says that it is at work.
CREATE FUNCTION psn.heartbeat(post uuid, token integer) RETURNS boolean
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    UPDATE public.posts p
    SET rescue_at = now() + coalesce((SELECT k.run_deadline FROM psn.kinds k WHERE k.kind = p.kind), interval '10 minutes')
    WHERE p.id = post AND p.attempt = token AND p.status = 'publishing';
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    INSERT INTO psn.post_attempts (post_id, attempt, alive_at) VALUES (post, token, now())
    ON CONFLICT (post_id, attempt) DO UPDATE SET alive_at = now();
    RETURN true;
END
$$;

-- Right before the platform is called: true for one run only, in the whole life of the post. What comes after a true is either
-- `finish`, or `fail` and `retry_later` where the platform said for certain that it published nothing. The attempt may be one behind,
-- where the watchdog has started the run and not yet counted it.
CREATE FUNCTION psn.begin_side_effect(post uuid, token integer) RETURNS boolean
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    UPDATE public.posts p
    SET side_effect_at = now(), attempt = token, status = 'publishing',
        rescue_at = now() + coalesce((SELECT k.run_deadline FROM psn.kinds k WHERE k.kind = p.kind), interval '10 minutes')
    WHERE p.id = post AND token >= 1 AND p.attempt IN (token - 1, token) AND p.side_effect_at IS NULL
      AND p.status IN ('scheduled', 'retrying', 'publishing')
      AND NOT coalesce(now() - p.scheduled_at
          > coalesce(p.max_lateness, (SELECT k.max_lateness FROM psn.kinds k WHERE k.kind = p.kind)), false);
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    INSERT INTO psn.post_attempts (post_id, attempt, alive_at) VALUES (post, token, now())
    ON CONFLICT (post_id, attempt) DO UPDATE SET alive_at = now();
    RETURN true;
END
$$;

-- The platform has it, under this id. Said again it is true again. A post that was parked meanwhile, because nobody knew, is published.
CREATE FUNCTION psn.finish(post uuid, token integer, platform_id text) RETURNS boolean
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    UPDATE public.posts p
    SET status = 'published', published_at = now(), external_id = platform_id, rescue_at = NULL, last_error = NULL
    WHERE p.id = post AND p.attempt = token AND p.side_effect_at IS NOT NULL AND p.status IN ('publishing', 'retrying', 'parked');
    IF NOT FOUND THEN
        RETURN EXISTS (SELECT FROM public.posts p
                       WHERE p.id = post AND p.attempt = token AND p.status = 'published' AND p.external_id = platform_id);
    END IF;
    INSERT INTO psn.post_attempts (post_id, attempt, ended_at, outcome) VALUES (post, token, now(), 'published')
    ON CONFLICT (post_id, attempt) DO UPDATE SET ended_at = now(), outcome = 'published', error = NULL;
    UPDATE psn.dead_letters d SET resolved_at = now(), resolution = 'published' WHERE d.post_id = post AND d.resolved_at IS NULL;
    RETURN true;
END
$$;

-- Nobody can know what is right: a person decides. The cause is kept, and told once.
CREATE FUNCTION psn.park(post uuid, token integer, why text) RETURNS boolean
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    UPDATE public.posts p SET status = 'parked', rescue_at = NULL, last_error = why
    WHERE p.id = post AND p.attempt = token AND p.status IN ('scheduled', 'retrying', 'publishing');
    RETURN FOUND AND psn.bury(post, token, 'parked', why);
END
$$;

-- It ends here, for certain unpublished. `refused`: the caller is the run itself, and the platform said so; then the marker is taken
-- back. Without it a post whose side effect has begun is never failed: its outcome is unknown.
CREATE FUNCTION psn.fail(post uuid, token integer, why text, refused boolean) RETURNS boolean
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    UPDATE public.posts p SET status = 'failed', side_effect_at = NULL, rescue_at = NULL, last_error = why
    WHERE p.id = post AND p.attempt = token AND p.status IN ('scheduled', 'retrying', 'publishing')
      AND (refused OR p.side_effect_at IS NULL);
    RETURN FOUND AND psn.bury(post, token, 'failed', why);
END
$$;

-- The platform was called and said for certain that it published nothing, and that later it might: the marker is taken back, and the
-- watchdog has it tried again after a pause.
CREATE FUNCTION psn.retry_later(post uuid, token integer, why text) RETURNS boolean
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    UPDATE public.posts p
    SET status = 'retrying', side_effect_at = NULL, last_error = why,
        rescue_at = now() + coalesce((SELECT psn.backoff_s(k, p.attempt - p.attempts_from) FROM psn.kinds k WHERE k.kind = p.kind), 60)
            * interval '1 second'
    WHERE p.id = post AND p.attempt = token AND p.status = 'publishing' AND p.side_effect_at IS NOT NULL;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    INSERT INTO psn.post_attempts (post_id, attempt, ended_at, outcome, error) VALUES (post, token, now(), 'failed', why)
    ON CONFLICT (post_id, attempt) DO UPDATE SET ended_at = now(), outcome = 'failed', error = excluded.error;
    RETURN true;
END
$$;

-- The dead letter and the attempt's end. Only the functions above call it, and people's.
CREATE FUNCTION psn.bury(post uuid, token integer, ends text, why text) RETURNS boolean
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    INSERT INTO psn.dead_letters (post_id, state, attempt, cause) VALUES (post, ends, token, why)
    ON CONFLICT (post_id, state) DO UPDATE
    SET attempt = excluded.attempt, cause = excluded.cause, created_at = now(), notified_at = NULL, resolved_at = NULL, resolution = NULL
    WHERE psn.dead_letters.resolved_at IS NOT NULL;
    UPDATE psn.post_attempts a SET ended_at = now(), outcome = ends, error = why
    WHERE a.post_id = post AND a.attempt = token AND a.outcome IS NULL;
    RETURN true;
END
$$;
