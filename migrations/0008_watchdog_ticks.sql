-- The watchdog's own bookkeeping.

-- One tick at a time. The claim is a row and not a session's lock, so that it works through a pooler and no transaction is open while
-- Trigger.dev is asked. A tick that died is waited for as long as it could have worked. NULL: another is at work. Nothing that keeps a
-- post from being published twice depends on this.
CREATE FUNCTION psn.begin_tick(seconds integer) RETURNS uuid
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    claimed uuid;
BEGIN
    UPDATE psn.watchdog w SET tick = gen_random_uuid(), tick_until = now() + seconds * interval '1 second'
    WHERE w.tick_until <= now() RETURNING w.tick INTO claimed;
    RETURN claimed;
END
$$;

CREATE FUNCTION psn.end_tick(claimed uuid) RETURNS boolean
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    UPDATE psn.watchdog w SET tick = NULL, tick_until = '-infinity' WHERE w.tick = claimed;
    RETURN FOUND;
END
$$;

-- Dead letters of which nobody was told, the oldest first.
CREATE FUNCTION psn.unnotified(most integer) RETURNS TABLE (post_id uuid, state text, cause text, created_at timestamptz)
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT d.post_id, d.state, d.cause, d.created_at FROM psn.dead_letters d
    WHERE d.notified_at IS NULL AND d.resolved_at IS NULL ORDER BY d.created_at LIMIT most
$$;

-- Takes what `unnotified` gave and was told: [{"post": …, "state": …}].
CREATE FUNCTION psn.notified(told jsonb) RETURNS integer
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    marked integer;
BEGIN
    UPDATE psn.dead_letters d SET notified_at = now()
    FROM jsonb_array_elements(told) t
    WHERE d.post_id = (t ->> 'post')::uuid AND d.state = t ->> 'state' AND d.notified_at IS NULL;
    GET DIAGNOSTICS marked = ROW_COUNT;
    RETURN marked;
END
$$;

-- Deletes records past their time, at most so many of each.
CREATE FUNCTION psn.prune(most integer) RETURNS integer
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    keep interval := (SELECT w.keep_records FROM psn.watchdog w);
    pruned integer;
    more integer;
BEGIN
    DELETE FROM psn.post_attempts a
    WHERE (a.post_id, a.attempt) IN (
        SELECT o.post_id, o.attempt FROM psn.post_attempts o WHERE o.triggered_at < now() - keep ORDER BY o.triggered_at LIMIT most);
    GET DIAGNOSTICS pruned = ROW_COUNT;
    DELETE FROM psn.dead_letters d
    WHERE (d.post_id, d.state) IN (
        SELECT o.post_id, o.state FROM psn.dead_letters o WHERE o.resolved_at < now() - keep ORDER BY o.resolved_at LIMIT most);
    GET DIAGNOSTICS more = ROW_COUNT;
    RETURN pruned + more;
END
$$;

-- How far back the oldest snapshot reaches, in transactions, and how long the oldest transaction is open, in seconds: what vacuum has to
-- wait for. Other sessions' snapshots are not every role's to see, so this one function runs as its owner, and answers two numbers.
CREATE FUNCTION psn.oldest_snapshot() RETURNS TABLE (xmin_age bigint, transaction_s float8)
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT coalesce(max(age(a.backend_xmin)), 0)::bigint,
           coalesce(max(extract(epoch FROM now() - a.xact_start)) FILTER (WHERE a.pid <> pg_backend_pid()), 0)::float8
    FROM pg_stat_activity a WHERE a.backend_type = 'client backend' AND a.datname = current_database()
$$;

-- Counted up to `most`, so that they cost the same however much there is.
CREATE FUNCTION psn.gauges(most integer)
RETURNS TABLE (backlog bigint, lag_s float8, dead_letters bigint, xmin_age bigint, oldest_transaction_s float8)
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY SELECT
        (SELECT count(*) FROM (SELECT FROM public.posts p WHERE p.rescue_at <= now() LIMIT most) due),
        coalesce((SELECT CASE WHEN isfinite(p.rescue_at) THEN extract(epoch FROM now() - p.rescue_at) ELSE 0 END
                  FROM public.posts p WHERE p.rescue_at <= now() ORDER BY p.rescue_at LIMIT 1), 0)::float8,
        (SELECT count(*) FROM (SELECT FROM psn.dead_letters d WHERE d.resolved_at IS NULL LIMIT most) open),
        s.xmin_age, s.transaction_s
    FROM psn.oldest_snapshot() s;
END
$$;
