-- What a person decides about a post: `psn posts`. Run as psn_app for one user, so that row-level security holds. Each answers a word:
-- 'done', or why nothing was changed.

-- Whose posts: the user with this e-mail address, or without one the only user of the hub. psn_app sees no user but the one it is told
-- to be; this is how it learns whom.
CREATE FUNCTION psn.find_user(address text) RETURNS uuid
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT CASE WHEN count(*) = 1 THEN (array_agg(u.id))[1] END
    FROM (SELECT u.id FROM public.users u WHERE address IS NULL OR lower(u.email) = lower(address) LIMIT 2) u
$$;

-- Has a post tried again. Its attempt grows by one, so that a run which is still about cannot touch it; the count of attempts begins
-- anew. `unpublished`: the person looked at the platform, and it is not there.
CREATE FUNCTION psn.retry_post(post uuid, unpublished boolean) RETURNS text
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    found_status text;
    begun boolean;
BEGIN
    SELECT p.status, p.side_effect_at IS NOT NULL INTO found_status, begun FROM public.posts p WHERE p.id = post FOR UPDATE;
    IF NOT FOUND THEN RETURN 'unknown'; END IF;
    IF found_status = 'published' THEN RETURN 'published'; END IF;
    IF found_status NOT IN ('parked', 'failed', 'cancelled') THEN RETURN 'not-ended'; END IF;
    IF begun AND NOT unpublished THEN RETURN 'ambiguous'; END IF;
    UPDATE public.posts p
    SET status = 'retrying', side_effect_at = NULL, run_id = NULL, last_error = NULL, attempt = p.attempt + 1, attempts_from = p.attempt + 1,
        rescue_at = now(),
        -- Who has a late post tried again wants it now.
        scheduled_at = CASE WHEN now() - p.scheduled_at > coalesce(p.max_lateness, (SELECT k.max_lateness FROM psn.kinds k WHERE k.kind = p.kind))
                            THEN now() ELSE p.scheduled_at END
    WHERE p.id = post;
    UPDATE psn.dead_letters d SET resolved_at = now(), resolution = 'retried' WHERE d.post_id = post AND d.resolved_at IS NULL;
    RETURN 'done';
END
$$;

-- A person saw it on the platform.
CREATE FUNCTION psn.published_post(post uuid, platform_id text) RETURNS text
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    found_status text;
BEGIN
    SELECT p.status INTO found_status FROM public.posts p WHERE p.id = post FOR UPDATE;
    IF NOT FOUND THEN RETURN 'unknown'; END IF;
    IF found_status = 'published' THEN RETURN 'published'; END IF;
    IF found_status NOT IN ('parked', 'failed') THEN RETURN 'not-ended'; END IF;
    UPDATE public.posts p
    SET status = 'published', published_at = coalesce(p.side_effect_at, now()), external_id = platform_id, last_error = NULL
    WHERE p.id = post;
    UPDATE psn.dead_letters d SET resolved_at = now(), resolution = 'published' WHERE d.post_id = post AND d.resolved_at IS NULL;
    RETURN 'done';
END
$$;

-- Takes a post out of the watchdog's hands, or ends it. A run that is about finds its token worthless: the attempt grows.
CREATE FUNCTION psn.end_post(post uuid, ends text, why text, unpublished boolean) RETURNS text
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    found_status text;
    begun boolean;
    grown integer;
BEGIN
    SELECT p.status, p.side_effect_at IS NOT NULL INTO found_status, begun FROM public.posts p WHERE p.id = post FOR UPDATE;
    IF NOT FOUND THEN RETURN 'unknown'; END IF;
    IF found_status = 'published' THEN RETURN 'published'; END IF;
    IF found_status = ends THEN RETURN 'already'; END IF;
    IF found_status = 'draft' THEN RETURN 'not-scheduled'; END IF;
    IF begun AND ends = 'failed' AND NOT unpublished THEN RETURN 'ambiguous'; END IF;
    -- A begun one keeps its attempt: should its run still say how it ended, that is heard.
    UPDATE public.posts p
    SET status = ends, last_error = why, side_effect_at = CASE WHEN ends = 'failed' THEN NULL ELSE p.side_effect_at END,
        attempt = CASE WHEN begun AND ends = 'parked' THEN p.attempt ELSE p.attempt + 1 END
    WHERE p.id = post RETURNING p.attempt INTO grown;
    UPDATE psn.dead_letters d SET resolved_at = now(), resolution = ends WHERE d.post_id = post AND d.resolved_at IS NULL;
    PERFORM psn.bury(post, grown, ends, why);
    -- Who decided needs not be told.
    UPDATE psn.dead_letters d SET notified_at = now() WHERE d.post_id = post AND d.state = ends;
    RETURN 'done';
END
$$;

GRANT EXECUTE ON FUNCTION psn.find_user(text), psn.retry_post(uuid, boolean), psn.published_post(uuid, text),
    psn.end_post(uuid, text, text, boolean), psn.bury(uuid, integer, text, text) TO psn_app;
