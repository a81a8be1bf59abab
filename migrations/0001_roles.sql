-- The role of people's data. It can log in once setup has given it a password. Policies name it, so it comes first.
-- Roles made in SQL, unlike those of Neon's console, have no BYPASSRLS and no memberships: row-level security holds for them.
DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = 'psn_app') THEN
        CREATE ROLE psn_app NOLOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOINHERIT NOREPLICATION NOBYPASSRLS;
    END IF;
    IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = 'psn_plugin_watchdog') THEN
        CREATE ROLE psn_plugin_watchdog NOLOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOINHERIT NOREPLICATION NOBYPASSRLS;
    END IF;
END
$$;

-- What every role could do until now: make tables in public (before Postgres 15), and temporary ones.
REVOKE CREATE ON SCHEMA public FROM PUBLIC;
DO $$
BEGIN
    EXECUTE pg_catalog.format('REVOKE CREATE, TEMPORARY ON DATABASE %I FROM PUBLIC', pg_catalog.current_database());
END
$$;

-- A function is run by those it is granted to, not by everyone.
ALTER DEFAULT PRIVILEGES REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC;

GRANT USAGE ON SCHEMA public TO psn_app, psn_plugin_watchdog;
