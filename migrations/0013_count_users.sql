-- How many users the hub has, as far as it matters to who asks whose posts are meant: none, one, or 2 for more than one.
CREATE FUNCTION psn.count_users() RETURNS integer
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT count(*)::integer FROM (SELECT FROM public.users LIMIT 2) u
$$;
GRANT EXECUTE ON FUNCTION psn.count_users() TO psn_app;
