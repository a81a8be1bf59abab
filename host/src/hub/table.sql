-- {table}: rows of one user each. Change the columns, keep the rest; `psn db lint` and `psn db verify` say whether it holds.
-- Once applied this file must stay as it is: what changes later is a migration of its own.
CREATE TABLE public.{table} (
    id         uuid PRIMARY KEY DEFAULT pg_catalog.gen_random_uuid(),
    user_id    uuid NOT NULL REFERENCES public.users (id) ON DELETE CASCADE,
    title      text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
    updated_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
    -- Leads with the column that the policies filter by: it is their index. And other tables can refer to a row of the same user only:
    -- FOREIGN KEY (user_id, {table}_id) REFERENCES public.{table} (user_id, id)
    UNIQUE (user_id, id)
);

CREATE TRIGGER {table}_touch BEFORE UPDATE ON public.{table} FOR EACH ROW EXECUTE FUNCTION public.touch_updated_at();

-- A user sees and changes their own rows, and nobody sees any while no user is set. FORCE: the owner of the table too.
ALTER TABLE public.{table} ENABLE ROW LEVEL SECURITY;
ALTER TABLE public.{table} FORCE ROW LEVEL SECURITY;
CREATE POLICY {table}_select ON public.{table} FOR SELECT TO psn_app
    USING (user_id = (SELECT nullif(current_setting('app.current_user_id', true), '')::uuid));
CREATE POLICY {table}_insert ON public.{table} FOR INSERT TO psn_app
    WITH CHECK (user_id = (SELECT nullif(current_setting('app.current_user_id', true), '')::uuid));
CREATE POLICY {table}_update ON public.{table} FOR UPDATE TO psn_app
    USING (user_id = (SELECT nullif(current_setting('app.current_user_id', true), '')::uuid))
    WITH CHECK (user_id = (SELECT nullif(current_setting('app.current_user_id', true), '')::uuid));
CREATE POLICY {table}_delete ON public.{table} FOR DELETE TO psn_app
    USING (user_id = (SELECT nullif(current_setting('app.current_user_id', true), '')::uuid));

GRANT SELECT, INSERT, UPDATE, DELETE ON public.{table} TO psn_app;
