-- Keys that do not have the user in them, each with its reason: `psn db verify` asks for one. A unique key over all users tells one of
-- them, by a refused insert, that another has the value.
COMMENT ON CONSTRAINT users_email_key ON public.users IS 'psn: an address belongs to one account, and whoever adds users must learn that it is taken';
COMMENT ON CONSTRAINT task_runs_run_id_key ON public.task_runs IS 'psn: run ids come from the task platform and cannot be guessed';
COMMENT ON CONSTRAINT task_runs_post_id_fkey ON public.task_runs IS 'psn: for runs that are about nobody''s data; a user''s run is held by the key of user and post';
