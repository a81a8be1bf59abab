-- What the watchdog may see: posts that wait for something, of every user. Which columns, its manifest says (never `content`).
--
-- An UPDATE whose WHERE or RETURNING reads the table must leave a row that the SELECT policy still shows, so a policy of waiting posts
-- alone would forbid ending one. The second line shows a post that the watchdog itself ends, and only until its transaction is over:
-- the trigger sets updated_at to the transaction's time, which no later transaction shares.
CREATE POLICY posts_watchdog_select ON public.posts FOR SELECT TO psn_plugin_watchdog
    USING ((status IN ('scheduled', 'retrying', 'publishing') AND rescue_at IS NOT NULL)
        OR (status IN ('failed', 'parked') AND updated_at = now()));

CREATE POLICY posts_watchdog_update ON public.posts FOR UPDATE TO psn_plugin_watchdog
    USING (status IN ('scheduled', 'retrying', 'publishing') AND rescue_at IS NOT NULL)
    WITH CHECK ((status IN ('scheduled', 'retrying', 'publishing') AND rescue_at IS NOT NULL)
        OR status IN ('failed', 'parked'));
