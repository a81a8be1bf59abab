//! The hub's database as its owner sees it.
use std::path::Path;
use std::time::{Duration, Instant};

use sqlx::postgres::{PgConnectOptions, PgSslMode};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, Row as _};

use crate::SuiteError;

/// The roles of the suite's plugins.
const ROLES: &str = "psn\\_plugin\\_h\\_%";

/// How long sessions may need to go away after the process that had them is gone.
const GONE: Duration = Duration::from_secs(5);

/// What a hostile plugin is not granted to read.
pub(crate) const CONTENT: &str = "content-canary-4d0c9a21";
pub(crate) const EMAIL: &str = "email-canary-93fe@example.org";

/// Everything that a statement could leave behind, as one text: rows, roles and their settings, objects, rights, policies.
const STATE: &[&str] = &[
    "select string_agg(u::text, '|' order by id) from public.users u",
    "select string_agg(p::text, '|' order by id) from public.posts p",
    "select string_agg(t::text, '|' order by id) from public.oauth_tokens t",
    "select string_agg(k::text, '|' order by id) from public.api_keys k",
    "select string_agg(r::text, '|' order by id) from public.task_runs r",
    "select string_agg(concat_ws(',', rolname, rolsuper, rolinherit, rolcreaterole, rolcreatedb, rolcanlogin, rolreplication, rolbypassrls, rolconnlimit, rolvaliduntil, rolconfig), '|' order by rolname) from pg_catalog.pg_roles",
    "select string_agg(concat_ws(',', m.roleid, m.member), '|' order by m.roleid, m.member) from pg_catalog.pg_auth_members m",
    "select string_agg(concat_ws(',', n.nspname, c.relname, c.relkind, c.relacl, c.relrowsecurity, c.relforcerowsecurity), '|' order by n.nspname, c.relname) from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace where n.nspname not like 'pg\\_toast%' and n.nspname <> 'pg_catalog'",
    "select string_agg(concat_ws(',', n.nspname, n.nspacl), '|' order by n.nspname) from pg_catalog.pg_namespace n where n.nspname not like 'pg\\_temp%' and n.nspname not like 'pg\\_toast%'",
    "select string_agg(concat_ws(',', p.oid::regprocedure, p.proacl), '|' order by p.oid) from pg_catalog.pg_proc p where p.pronamespace <> 'pg_catalog'::regnamespace",
    "select string_agg(concat_ws(',', o.oprname, o.oprnamespace), '|' order by o.oid) from pg_catalog.pg_operator o where o.oprnamespace <> 'pg_catalog'::regnamespace",
    "select string_agg(concat_ws(',', attrelid::regclass, attname, attacl), '|' order by attrelid, attnum) from pg_catalog.pg_attribute where attacl is not null",
    "select string_agg(p::text, '|' order by p.tablename, p.policyname) from pg_catalog.pg_policies p",
    "select string_agg(s::text, '|' order by s.setdatabase, s.setrole) from pg_catalog.pg_db_role_setting s",
    "select count(*)::text from pg_catalog.pg_largeobject_metadata",
    "select count(*)::text from pg_catalog.pg_prepared_xacts",
];

pub(crate) struct Database {
    owner: PgConnection,
}

impl Database {
    pub(crate) async fn connect(url: &str, ca: &Path) -> Result<Self, SuiteError> {
        Ok(Self { owner: connection(url, ca).await? })
    }

    /// People's rows, which no plugin of the suite may read or change beyond its columns.
    pub(crate) async fn seed(&mut self) -> Result<(), SuiteError> {
        let sql = format!(
            "insert into public.users (id, email) values ('00000000-0000-0000-0000-00000000000a', '{EMAIL}'), ('00000000-0000-0000-0000-00000000000b', 'other-{EMAIL}');
             insert into public.posts (id, user_id, platform, content, status) values
               ('00000000-0000-0000-0000-0000000000a1', '00000000-0000-0000-0000-00000000000a', 'nowhere', '{CONTENT}', 'draft'),
               ('00000000-0000-0000-0000-0000000000b1', '00000000-0000-0000-0000-00000000000b', 'nowhere', '{CONTENT}', 'draft');
             insert into public.api_keys (user_id, service, sealed_value) values ('00000000-0000-0000-0000-00000000000a', 's', '{CONTENT}');"
        );
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut self.owner).await?;
        Ok(())
    }

    pub(crate) async fn state(&mut self) -> Result<Vec<String>, SuiteError> {
        let mut state = Vec::with_capacity(STATE.len());
        for sql in STATE {
            let text: Option<String> =
                sqlx::query_scalar::<_, Option<String>>(*sql).fetch_optional(&mut self.owner).await?.flatten();
            state.push(text.unwrap_or_default());
        }
        Ok(state)
    }

    /// What is left of the plugins' work after a while: statements, and transactions with their locks. A pooler keeps idle sessions.
    pub(crate) async fn left_over(&mut self) -> Result<Option<String>, SuiteError> {
        let until = Instant::now() + GONE;
        loop {
            let row = sqlx::query(
                "select count(*), coalesce(max(query), '') from pg_catalog.pg_stat_activity where usename like $1 and state is distinct from 'idle'",
            )
            .bind(ROLES)
            .fetch_one(&mut self.owner)
            .await?;
            let (sessions, query): (i64, String) = (row.get(0), row.get(1));
            if sessions == 0 {
                return Ok(None);
            }
            if Instant::now() > until {
                return Ok(Some(format!("{sessions} sessions go on ({query})")));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// What differs between two states.
pub(crate) fn changed(before: &[String], after: &[String]) -> Option<String> {
    let at = before.iter().zip(after).position(|(a, b)| a != b)?;
    let of = STATE[at].split(" from ").nth(1).unwrap_or(STATE[at]);
    Some(format!("{} changed", of.split(' ').next().unwrap_or(of)))
}

/// Whether a plugin's role can still log in with the password that psn knows, and begins with the settings that psn gave it.
pub(crate) async fn role_works(url: &str, ca: &Path) -> Result<(), String> {
    let mut connection = connection(url, ca).await.map_err(|e| format!("its role cannot log in: {e}"))?;
    let timeout: String = sqlx::query_scalar("select current_setting('statement_timeout')")
        .fetch_one(&mut connection)
        .await
        .map_err(|e| e.to_string())?;
    // It was only to see.
    let _ = connection.close().await;
    if timeout == "30s" { Ok(()) } else { Err(format!("its role has a statement_timeout of {timeout}")) }
}

async fn connection(url: &str, ca: &Path) -> Result<PgConnection, sqlx::Error> {
    let options: PgConnectOptions = url.parse()?;
    PgConnection::connect_with(&options.ssl_mode(PgSslMode::VerifyFull).ssl_root_cert(ca)).await
}
