//! psn's roles: made in SQL, with a password each, and with exactly the rights that the plugins' manifests ask for.
use std::collections::{BTreeMap, BTreeSet};

use sqlx::{AssertSqlSafe, PgConnection, Row as _};

use super::connection::{ConnectError, HubUrl, POOLED_URL, Purpose, TlsRoots, connect_url, with_role};
use super::leftovers::{self, Leftover};
use super::scram;
use crate::capabilities::Deadline;
use crate::plugins::manifest::Manifest;
use crate::secret::{Secret, SecretError, Secrets};

/// Settings that a role's sessions begin with. The db capability sets them once more per transaction; these hold for everyone else.
const ROLE_SETTINGS: [(&str, &str); 4] = [
    // Built-in names first, temporary objects last: no table or function of another's making stands in for one.
    ("search_path", "pg_catalog, public, pg_temp"),
    ("statement_timeout", "'30s'"),
    ("lock_timeout", "'10s'"),
    ("idle_in_transaction_session_timeout", "'60s'"),
];

/// Server connections at once. A plugin's call holds at most a handful; a few calls overlap.
const PLUGIN_CONNECTIONS: i32 = 10;
/// The role of people's data serves every program of theirs.
const APP_CONNECTIONS: i32 = 50;

pub const APP_ROLE: &str = "psn_app";

/// `psn_plugin_<name>`, hyphens as underscores.
pub fn plugin_role(plugin: &str) -> String {
    format!("psn_plugin_{}", plugin.replace('-', "_"))
}

#[derive(Debug, thiserror::Error)]
pub enum RolesError {
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error(transparent)]
    Secret(#[from] SecretError),
    #[error("the operating system gives no random bytes: {0}")]
    Random(#[from] getrandom::Error),
    #[error("{what}: {source}")]
    Sql { what: String, source: sqlx::Error },
    #[error("the role {role} {reason}: psn will not run anything as it")]
    TooPowerful { role: String, reason: &'static str },
    #[error("the plugin {plugin} asks for {asked}, and the database has no such thing")]
    Unknown { plugin: String, asked: String },
}

/// A role, and what of it is not yet as it should be.
pub struct RolePlan {
    pub role: String,
    purpose: Purpose,
    limit: i32,
    /// There is no such role, or it may not log in, or its password is not known here.
    pub login: bool,
    /// The connection string points elsewhere than the owner's.
    pub moved: bool,
    /// Statements that make rights and policies what the manifest says, each with its words.
    pub changes: Vec<Change>,
}

pub struct Change {
    pub words: String,
    sql: String,
}

impl Change {
    pub(super) fn new(words: String, sql: String) -> Self {
        Self { words, sql }
    }
}

impl RolePlan {
    pub fn is_done(&self) -> bool {
        !self.login && !self.moved && self.changes.is_empty()
    }

    /// What would be done, for a person.
    pub fn words(&self) -> Vec<String> {
        let login = self.login.then(|| format!("give {} a password of its own", self.role));
        let moved = (!self.login && self.moved)
            .then(|| format!("point {} at the database's new address", self.purpose.secret_name()));
        login.into_iter().chain(moved).chain(self.changes.iter().map(|c| c.words.clone())).collect()
    }
}

/// All roles, as they were looked at.
pub struct Plans {
    pub plans: Vec<RolePlan>,
    /// Plugins that ask for what is not there: no role is made for one, and the one that it has may do nothing. The others go on.
    pub unknown: Vec<RolesError>,
    /// Of plugins that are no longer installed.
    pub leftovers: Vec<Leftover>,
}

/// Looks at all roles, changes nothing.
pub async fn plan(
    owner: &mut PgConnection,
    secrets: &Secrets,
    tls: &TlsRoots,
    plugins: &[Manifest],
    deadline: Deadline,
) -> Result<Plans, RolesError> {
    let mut unknown = Vec::new();
    let mut plans =
        vec![plan_login(owner, secrets, tls, APP_ROLE.to_owned(), Purpose::App, APP_CONNECTIONS, deadline).await?];
    for manifest in plugins.iter().filter(|m| !m.db.is_empty()) {
        let name = &manifest.plugin.name;
        let (role, purpose, limit) = (plugin_role(name), Purpose::Plugin(name.clone()), PLUGIN_CONNECTIONS);
        let plan = match super::grants::plan(owner, name, &role, &manifest.db).await {
            Ok(changes) => {
                let login = plan_login(owner, secrets, tls, role, purpose, limit, deadline).await?;
                RolePlan { changes, ..login }
            }
            Err(error @ RolesError::Unknown { .. }) => {
                unknown.push(error);
                if !role_exists(owner, &role).await? {
                    continue;
                }
                let changes = super::grants::plan(owner, name, &role, &BTreeMap::new()).await?;
                RolePlan { role, purpose, limit, login: false, moved: false, changes }
            }
            Err(error) => return Err(error),
        };
        plans.push(plan);
    }
    let leftovers = leftovers::plan(owner, secrets, plugins).await?;
    Ok(Plans { plans, unknown, leftovers })
}

/// Does what the plan says. Run again after a crash at any point it ends the same.
pub async fn apply(
    owner: &mut PgConnection,
    secrets: &Secrets,
    tls: &TlsRoots,
    plan: &RolePlan,
    deadline: Deadline,
) -> Result<(), RolesError> {
    let role = &plan.role;
    // Before a password is made.
    pooled(secrets)?;
    if plan.login {
        let exists = role_exists(owner, role).await?;
        if !exists {
            let sql = format!(
                "CREATE ROLE {role} NOLOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOINHERIT NOREPLICATION NOBYPASSRLS"
            );
            execute(owner, sql, format!("making the role {role}")).await?;
        }
        for (name, value) in ROLE_SETTINGS {
            execute(owner, format!("ALTER ROLE {role} SET {name} = {value}"), format!("setting {name} of {role}"))
                .await?;
        }
        let database = sqlx::query_scalar::<_, String>("SELECT pg_catalog.quote_ident(pg_catalog.current_database())")
            .fetch_one(&mut *owner)
            .await;
        let database = database.map_err(sql_error("asking for the database's name"))?;
        execute(owner, format!("GRANT CONNECT ON DATABASE {database} TO {role}"), format!("letting {role} connect"))
            .await?;
        execute(owner, format!("GRANT USAGE ON SCHEMA public TO {role}"), format!("letting {role} see the tables"))
            .await?;
    }
    for change in &plan.changes {
        execute(owner, change.sql.clone(), change.words.clone()).await?;
    }
    if plan.login {
        set_password(owner, secrets, tls, plan, deadline).await?;
    } else if plan.moved {
        let url = url_of(secrets, &plan.purpose)?;
        keep_url(secrets, &plan.purpose, role, url.password())?;
    }
    Ok(())
}

/// Drops psn's roles and everything that was granted to them, those of plugins that are no longer installed too.
pub async fn drop_all(owner: &mut PgConnection, plugins: &[Manifest]) -> Result<Vec<String>, RolesError> {
    let mut roles: BTreeSet<String> = leftovers::plugin_roles(owner).await?.into_iter().collect();
    roles.extend(plugins.iter().filter(|m| !m.db.is_empty()).map(|m| plugin_role(&m.plugin.name)));
    roles.insert(APP_ROLE.to_owned());
    let mut dropped = Vec::new();
    for role in roles {
        if leftovers::drop_role(owner, &role).await? {
            dropped.push(role);
        }
    }
    Ok(dropped)
}

async fn plan_login(
    owner: &mut PgConnection,
    secrets: &Secrets,
    tls: &TlsRoots,
    role: String,
    purpose: Purpose,
    limit: i32,
    deadline: Deadline,
) -> Result<RolePlan, RolesError> {
    let mut plan = RolePlan { role, purpose, limit, login: true, moved: false, changes: Vec::new() };
    refuse_powerful(owner, &plan.role).await?;
    let name = plan.purpose.secret_name();
    let Some(url) = secrets.get(&name) else { return Ok(plan) };
    let (_, pooled) = pooled(secrets)?;
    let mut url = HubUrl::parse(&name, &url)?;
    plan.moved = !url.same_place(&pooled);
    // The password may be right where only the address changed.
    (url.host, url.port, url.database) = (pooled.host, pooled.port, pooled.database);
    if url.user != plan.role {
        return Ok(plan);
    }
    match connect_url(&url, tls, deadline).await {
        Ok(connection) => {
            close(connection).await;
            plan.login = false;
        }
        Err(e) if e.is_auth() => {}
        // A role that may not enter this database: the grant is made together with the password.
        Err(ConnectError::Refused { sqlstate, .. }) if sqlstate == "42501" => {}
        Err(e) => return Err(e.into()),
    }
    Ok(plan)
}

/// A role with more than its grants is not psn's to use, whoever made it so.
async fn refuse_powerful(owner: &mut PgConnection, role: &str) -> Result<(), RolesError> {
    let row = sqlx::query(
        "SELECT r.rolsuper, r.rolbypassrls, r.rolcreaterole OR r.rolcreatedb OR r.rolreplication,
                EXISTS (SELECT FROM pg_catalog.pg_auth_members m WHERE m.member = r.oid)
         FROM pg_catalog.pg_roles r WHERE r.rolname = $1",
    )
    .bind(role)
    .fetch_optional(owner)
    .await
    .map_err(sql_error("looking at the roles"))?;
    let Some(row) = row else { return Ok(()) };
    let reasons = [
        "is a superuser",
        "bypasses row-level security",
        "may make roles, databases or replicas",
        "is a member of another role",
    ];
    for (i, reason) in reasons.into_iter().enumerate() {
        if row.try_get::<bool, _>(i).map_err(sql_error("looking at the roles"))? {
            return Err(RolesError::TooPowerful { role: role.to_owned(), reason });
        }
    }
    Ok(())
}

/// The order is: the role gets the password, the secret is kept, logging in is tried. A crash after the first leaves a role whose
/// password nobody knows, and the next run gives it another.
async fn set_password(
    owner: &mut PgConnection,
    secrets: &Secrets,
    tls: &TlsRoots,
    plan: &RolePlan,
    deadline: Deadline,
) -> Result<(), RolesError> {
    let role = &plan.role;
    let password = scram::random_password()?;
    let login = |secret: &str| format!("ALTER ROLE {role} LOGIN CONNECTION LIMIT {} PASSWORD '{secret}'", plan.limit);
    let what = format!("giving {role} a password");
    match execute(owner, login(&scram::verifier(&password)?), what.clone()).await {
        // Neon hands role changes to its control plane, which makes the verifier itself and refuses one that is made already, with the
        // state that extensions raise. The password then goes over TLS to that server only.
        Err(RolesError::Sql { source: sqlx::Error::Database(e), .. }) if e.code().as_deref() == Some("XX000") => {
            execute(owner, login(password.expose()), what).await?;
        }
        other => other?,
    }
    keep_url(secrets, &plan.purpose, role, password.expose())?;
    let connection = connect_url(&url_of(secrets, &plan.purpose)?, tls, deadline).await?;
    close(connection).await;
    Ok(())
}

fn url_of(secrets: &Secrets, purpose: &Purpose) -> Result<HubUrl, ConnectError> {
    let name = purpose.secret_name();
    let url = secrets.get(&name).ok_or_else(|| ConnectError::NoUrl { name: name.clone() })?;
    HubUrl::parse(&name, &url)
}

fn keep_url(secrets: &Secrets, purpose: &Purpose, role: &str, password: &str) -> Result<(), RolesError> {
    let (pooled, _) = pooled(secrets)?;
    let url = with_role(POOLED_URL, &pooled, role, password)?;
    Ok(secrets.set(&purpose.secret_name(), url)?)
}

/// Where the roles log in. Only where the owner's own connection leads: whatever else stands there would be sent their passwords.
fn pooled(secrets: &Secrets) -> Result<(Secret, HubUrl), ConnectError> {
    let get = |name: &str| {
        let url = secrets.get(name).ok_or_else(|| ConnectError::NoUrl { name: name.to_owned() })?;
        let parsed = HubUrl::parse(name, &url)?;
        Ok::<_, ConnectError>((url, parsed))
    };
    let (url, pooled) = get(POOLED_URL)?;
    let (_, direct) = get(&Purpose::OwnerDirect.secret_name())?;
    if !pooled.pools(&direct) {
        return Err(ConnectError::Elsewhere { pooled: pooled.host, direct: direct.host });
    }
    Ok((url, pooled))
}

pub(super) async fn role_exists(owner: &mut PgConnection, role: &str) -> Result<bool, RolesError> {
    sqlx::query_scalar("SELECT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = $1)")
        .bind(role)
        .fetch_one(owner)
        .await
        .map_err(sql_error("looking at the roles"))
}

pub(super) async fn execute(owner: &mut PgConnection, sql: String, what: String) -> Result<(), RolesError> {
    // Simple protocol: DDL has no parameters, and names here are made of a manifest's checked kebab case.
    match sqlx::raw_sql(AssertSqlSafe(sql)).execute(owner).await {
        Ok(_) => Ok(()),
        Err(source) => Err(RolesError::Sql { what, source }),
    }
}

pub(super) fn sql_error(what: &str) -> impl FnOnce(sqlx::Error) -> RolesError {
    move |source| RolesError::Sql { what: what.to_owned(), source }
}

async fn close(connection: PgConnection) {
    // It was only to see whether logging in works; a server that does not say goodbye has said enough.
    let _ = sqlx::Connection::close(connection).await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::redact::Redactor;
    use crate::secret::MemoryBackend;

    #[test]
    fn passwords_go_only_where_the_owner_s_own_connection_leads() {
        let of = |pooled: &str| {
            let values = [
                ("DATABASE_URL", pooled),
                ("DATABASE_URL_DIRECT", "postgresql://o:p@ep-x-1.eu.aws.neon.tech/hub"),
                ("DATABASE_URL_APP", "postgresql://psn_app:q@ep-x-1-pooler.eu.aws.neon.tech/hub"),
            ];
            let values = values.map(|(name, url)| (name.to_owned(), Secret::new(url))).into();
            let backend = Box::new(MemoryBackend(std::sync::Mutex::new(values)));
            Secrets::open(backend, std::sync::Arc::new(Redactor::new())).unwrap()
        };
        assert!(pooled(&of("postgresql://o:p@ep-x-1-pooler.eu.aws.neon.tech/hub")).is_ok());
        let elsewhere = of("postgresql://o:p@evil.example/hub");
        assert_eq!(pooled(&elsewhere).err().unwrap().coded().code, "hub.pooler-elsewhere");
        assert!(keep_url(&elsewhere, &Purpose::App, "psn_app", "a-new-password").is_err());
        assert!(elsewhere.get("DATABASE_URL_APP").unwrap().expose().contains(":q@ep-x-1-pooler"));
    }
}
