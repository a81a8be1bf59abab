-- A user sees and changes their own rows. FORCE makes the policies hold for the tables' owner too (unless it has BYPASSRLS, as a Neon
-- owner has: that is why nothing but migrations connects as the owner).
--
-- The user is set for one transaction: set_config('app.current_user_id', …, true). Not set it is NULL, after a transaction on the
-- same connection it is '': both see nothing. The sub-select makes it one evaluation per statement rather than one per row.
GRANT SELECT, INSERT, UPDATE, DELETE ON public.users, public.posts, public.oauth_tokens, public.api_keys, public.task_runs TO psn_app;

ALTER TABLE public.users ENABLE ROW LEVEL SECURITY;
ALTER TABLE public.users FORCE ROW LEVEL SECURITY;
CREATE POLICY users_select ON public.users FOR SELECT TO psn_app
    USING (id = (SELECT nullif(current_setting('app.current_user_id', true), '')::uuid));
CREATE POLICY users_insert ON public.users FOR INSERT TO psn_app
    WITH CHECK (id = (SELECT nullif(current_setting('app.current_user_id', true), '')::uuid));
CREATE POLICY users_update ON public.users FOR UPDATE TO psn_app
    USING (id = (SELECT nullif(current_setting('app.current_user_id', true), '')::uuid))
    WITH CHECK (id = (SELECT nullif(current_setting('app.current_user_id', true), '')::uuid));
CREATE POLICY users_delete ON public.users FOR DELETE TO psn_app
    USING (id = (SELECT nullif(current_setting('app.current_user_id', true), '')::uuid));

ALTER TABLE public.posts ENABLE ROW LEVEL SECURITY;
ALTER TABLE public.posts FORCE ROW LEVEL SECURITY;
CREATE POLICY posts_select ON public.posts FOR SELECT TO psn_app
    USING (user_id = (SELECT nullif(current_setting('app.current_user_id', true), '')::uuid));
CREATE POLICY posts_insert ON public.posts FOR INSERT TO psn_app
    WITH CHECK (user_id = (SELECT nullif(current_setting('app.current_user_id', true), '')::uuid));
CREATE POLICY posts_update ON public.posts FOR UPDATE TO psn_app
    USING (user_id = (SELECT nullif(current_setting('app.current_user_id', true), '')::uuid))
    WITH CHECK (user_id = (SELECT nullif(current_setting('app.current_user_id', true), '')::uuid));
CREATE POLICY posts_delete ON public.posts FOR DELETE TO psn_app
    USING (user_id = (SELECT nullif(current_setting('app.current_user_id', true), '')::uuid));

ALTER TABLE public.oauth_tokens ENABLE ROW LEVEL SECURITY;
ALTER TABLE public.oauth_tokens FORCE ROW LEVEL SECURITY;
CREATE POLICY oauth_tokens_select ON public.oauth_tokens FOR SELECT TO psn_app
    USING (user_id = (SELECT nullif(current_setting('app.current_user_id', true), '')::uuid));
CREATE POLICY oauth_tokens_insert ON public.oauth_tokens FOR INSERT TO psn_app
    WITH CHECK (user_id = (SELECT nullif(current_setting('app.current_user_id', true), '')::uuid));
CREATE POLICY oauth_tokens_update ON public.oauth_tokens FOR UPDATE TO psn_app
    USING (user_id = (SELECT nullif(current_setting('app.current_user_id', true), '')::uuid))
    WITH CHECK (user_id = (SELECT nullif(current_setting('app.current_user_id', true), '')::uuid));
CREATE POLICY oauth_tokens_delete ON public.oauth_tokens FOR DELETE TO psn_app
    USING (user_id = (SELECT nullif(current_setting('app.current_user_id', true), '')::uuid));

ALTER TABLE public.api_keys ENABLE ROW LEVEL SECURITY;
ALTER TABLE public.api_keys FORCE ROW LEVEL SECURITY;
CREATE POLICY api_keys_select ON public.api_keys FOR SELECT TO psn_app
    USING (user_id = (SELECT nullif(current_setting('app.current_user_id', true), '')::uuid));
CREATE POLICY api_keys_insert ON public.api_keys FOR INSERT TO psn_app
    WITH CHECK (user_id = (SELECT nullif(current_setting('app.current_user_id', true), '')::uuid));
CREATE POLICY api_keys_update ON public.api_keys FOR UPDATE TO psn_app
    USING (user_id = (SELECT nullif(current_setting('app.current_user_id', true), '')::uuid))
    WITH CHECK (user_id = (SELECT nullif(current_setting('app.current_user_id', true), '')::uuid));
CREATE POLICY api_keys_delete ON public.api_keys FOR DELETE TO psn_app
    USING (user_id = (SELECT nullif(current_setting('app.current_user_id', true), '')::uuid));

ALTER TABLE public.task_runs ENABLE ROW LEVEL SECURITY;
ALTER TABLE public.task_runs FORCE ROW LEVEL SECURITY;
CREATE POLICY task_runs_select ON public.task_runs FOR SELECT TO psn_app
    USING (user_id = (SELECT nullif(current_setting('app.current_user_id', true), '')::uuid));
CREATE POLICY task_runs_insert ON public.task_runs FOR INSERT TO psn_app
    WITH CHECK (user_id = (SELECT nullif(current_setting('app.current_user_id', true), '')::uuid));
CREATE POLICY task_runs_update ON public.task_runs FOR UPDATE TO psn_app
    USING (user_id = (SELECT nullif(current_setting('app.current_user_id', true), '')::uuid))
    WITH CHECK (user_id = (SELECT nullif(current_setting('app.current_user_id', true), '')::uuid));
CREATE POLICY task_runs_delete ON public.task_runs FOR DELETE TO psn_app
    USING (user_id = (SELECT nullif(current_setting('app.current_user_id', true), '')::uuid));
