-- psn.lease as it was (0007), and nothing but one look into the deadline's index where nothing is due: to begin the whole statement, with its
-- five tables and the rows that it would write, costs more than to find that there is nothing for it, and most ticks find that.
CREATE OR REPLACE FUNCTION psn.lease(batch integer, seconds integer)
RETURNS TABLE (id uuid, attempt integer, run_id text, task text, unknown text, has_begun boolean, is_late boolean, starts_in_s float8,
               lag_s float8, is_spent boolean, lost bigint, poison_cap integer, backoff_s integer, silent_s float8, run_deadline_s float8)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
BEGIN
    -- In the deadline's order: without it a plan may read the table for the first row.
    PERFORM FROM public.posts p WHERE p.rescue_at <= now() AND p.status IN ('scheduled', 'retrying', 'publishing') ORDER BY p.rescue_at LIMIT 1;
    IF NOT FOUND THEN
        RETURN;
    END IF;
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
