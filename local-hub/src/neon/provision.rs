//! What is done inside a project's cluster. Everything can be done again: a crash between two statements costs nothing.
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, PgConnection};

use super::store::objects::{self, Change, PendingRole};
use crate::pg::ClusterInfo;

/// The database that every cluster has from the start.
const MAINTENANCE_DATABASE: &str = "postgres";

/// The role that every role made through the API is a member of, as on Neon. Not a superuser.
/// Runs as the superuser in one statement, so that two of them cannot interleave.
const NEON_SUPERUSER: &str = "
DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = 'neon_superuser') THEN
        CREATE ROLE neon_superuser CREATEDB CREATEROLE NOLOGIN REPLICATION BYPASSRLS IN ROLE pg_read_all_data, pg_write_all_data;
    END IF;
    GRANT pg_monitor TO neon_superuser WITH ADMIN OPTION;
    GRANT pg_signal_backend TO neon_superuser WITH ADMIN OPTION;
    IF EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = 'pg_create_subscription') THEN
        GRANT pg_create_subscription TO neon_superuser;
    END IF;
END
$$";

/// What Neon gives to roles made through its API. BYPASSRLS is the reason why an app's own role is made with SQL.
const ROLE_ATTRIBUTES: &str = "INHERIT CREATEROLE CREATEDB BYPASSRLS REPLICATION";

/// Names that would collide with what a cluster or Neon itself has.
const RESERVED_ROLES: [&str; 8] = [
    crate::pg::SUPERUSER,
    "neon_superuser",
    "neon_service",
    "web_access",
    "zenith_admin",
    "public",
    "none",
    "postgres",
];
const RESERVED_DATABASES: [&str; 3] = ["postgres", "template0", "template1"];
/// Bytes; Postgres cuts longer names off (NAMEDATALEN - 1).
const NAME_MAX: usize = 63;

/// Brings the roles and databases of the cluster to what the control database says.
pub(crate) async fn apply(control: &mut PgConnection, cluster: &ClusterInfo, branch: &str) -> Result<(), sqlx::Error> {
    let mut pg = connect(cluster, MAINTENANCE_DATABASE).await?;
    execute(&mut pg, NEON_SUPERUSER.to_owned()).await?;
    for role in objects::pending_roles(control, branch, Change::Create).await? {
        create_role(&mut pg, &role).await?;
        objects::role_applied(control, role.id).await?;
    }
    for role in objects::pending_roles(control, branch, Change::Password).await? {
        if let Some(verifier) = &role.verifier {
            execute(&mut pg, format!("ALTER ROLE {} LOGIN PASSWORD {}", ident(&role.name), literal(verifier))).await?;
        }
        objects::role_applied(control, role.id).await?;
    }
    for database in objects::pending_databases(control, branch, Change::Create).await? {
        create_database(&mut pg, &database.name, &database.owner_name).await?;
        objects::database_applied(control, database.id).await?;
    }
    for database in objects::pending_databases(control, branch, Change::Drop).await? {
        execute(&mut pg, format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", ident(&database.name))).await?;
        objects::database_dropped(control, database.id).await?;
    }
    for role in objects::pending_roles(control, branch, Change::Drop).await? {
        drop_role(&mut pg, cluster, &role.name).await?;
        objects::role_dropped(control, role.id).await?;
    }
    pg.close().await
}

/// Whether the cluster has such a role, be it one made with SQL.
pub(crate) async fn role_exists(cluster: &ClusterInfo, name: &str) -> Result<bool, sqlx::Error> {
    let mut pg = connect(cluster, MAINTENANCE_DATABASE).await?;
    let exists = role_is_there(&mut pg, name).await?;
    pg.close().await?;
    Ok(exists)
}

/// Whether the cluster has such a database, be it one made with SQL.
pub(crate) async fn database_exists(cluster: &ClusterInfo, name: &str) -> Result<bool, sqlx::Error> {
    let mut pg = connect(cluster, MAINTENANCE_DATABASE).await?;
    let exists = database_is_there(&mut pg, name).await?;
    pg.close().await?;
    Ok(exists)
}

/// Why a name cannot be a role's, if it cannot.
pub(crate) fn check_role_name(name: &str) -> Result<(), String> {
    check_name("role", name)?;
    if RESERVED_ROLES.contains(&name) || name.starts_with("pg_") {
        return Err(format!("role name \"{name}\" is reserved; choose another one"));
    }
    Ok(())
}

/// Why a name cannot be a database's, if it cannot.
pub(crate) fn check_database_name(name: &str) -> Result<(), String> {
    check_name("database", name)?;
    if RESERVED_DATABASES.contains(&name) {
        return Err(format!("database name \"{name}\" is reserved; choose another one"));
    }
    Ok(())
}

fn check_name(what: &str, name: &str) -> Result<(), String> {
    if name.is_empty() || name.len() > NAME_MAX {
        return Err(format!(
            "{what} name must have 1 to {NAME_MAX} bytes; \"{}\" has {}",
            name.escape_debug(),
            name.len()
        ));
    }
    if name.chars().any(char::is_control) {
        return Err(format!("{what} name \"{}\" holds a control character", name.escape_debug()));
    }
    Ok(())
}

async fn connect(cluster: &ClusterInfo, database: &str) -> Result<PgConnection, sqlx::Error> {
    cluster.superuser_options(database).disable_statement_logging().connect().await
}

async fn create_role(pg: &mut PgConnection, role: &PendingRole) -> Result<(), sqlx::Error> {
    let login = match &role.verifier {
        Some(verifier) if !role.no_login => format!("LOGIN PASSWORD {}", literal(verifier)),
        _ => "NOLOGIN".to_owned(),
    };
    let name = ident(&role.name);
    // Already there after a crash between creating it and writing that down.
    if role_is_there(pg, &role.name).await? {
        execute(pg, format!("ALTER ROLE {name} {ROLE_ATTRIBUTES} {login}")).await?;
        execute(pg, format!("GRANT neon_superuser TO {name}")).await
    } else {
        execute(pg, format!("CREATE ROLE {name} {ROLE_ATTRIBUTES} {login} IN ROLE neon_superuser")).await
    }
}

async fn create_database(pg: &mut PgConnection, name: &str, owner: &str) -> Result<(), sqlx::Error> {
    if !database_is_there(pg, name).await? {
        execute(pg, format!("CREATE DATABASE {} OWNER {}", ident(name), ident(owner))).await?;
    }
    execute(pg, format!("GRANT ALL PRIVILEGES ON DATABASE {} TO neon_superuser", ident(name))).await
}

/// What the role owns goes to the owner of the database it is in; what it was granted is taken back.
async fn drop_role(pg: &mut PgConnection, cluster: &ClusterInfo, name: &str) -> Result<(), sqlx::Error> {
    if !role_is_there(pg, name).await? {
        return Ok(());
    }
    execute(pg, format!("ALTER ROLE {} NOLOGIN", ident(name))).await?;
    sqlx::query("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = $1")
        .bind(name)
        .execute(&mut *pg)
        .await?;
    let databases: Vec<(String, String)> = sqlx::query_as(
        "SELECT d.datname::text, r.rolname::text FROM pg_database d JOIN pg_roles r ON r.oid = d.datdba WHERE d.datallowconn ORDER BY 1",
    )
    .fetch_all(&mut *pg)
    .await?;
    for (database, owner) in databases {
        // A database of its own, made with SQL, and what belongs to the cluster itself.
        let heir = if owner == name || owner == crate::pg::SUPERUSER { "neon_superuser" } else { &owner };
        let mut inside = connect(cluster, &database).await?;
        let name = ident(name);
        execute(&mut inside, format!("REASSIGN OWNED BY {name} TO {}; DROP OWNED BY {name}", ident(heir))).await?;
        inside.close().await?;
    }
    execute(pg, format!("DROP ROLE {}", ident(name))).await
}

async fn role_is_there(pg: &mut PgConnection, name: &str) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar("SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = $1)").bind(name).fetch_one(pg).await
}

async fn database_is_there(pg: &mut PgConnection, name: &str) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar("SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)").bind(name).fetch_one(pg).await
}

/// Statements that take no parameters. Names and values in them went through [`ident`] and [`literal`].
async fn execute(pg: &mut PgConnection, sql: String) -> Result<(), sqlx::Error> {
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(pg).await?;
    Ok(())
}

fn ident(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// For what this service made itself (verifiers), which holds no backslash.
fn literal(value: &str) -> String {
    format!("'{}'", value.replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_quoted() {
        assert_eq!(ident("hub"), "\"hub\"");
        assert_eq!(ident("a\"; DROP ROLE b; --"), "\"a\"\"; DROP ROLE b; --\"");
        assert_eq!(literal("it's"), "'it''s'");
    }

    #[test]
    fn what_belongs_to_the_cluster_cannot_be_named() {
        for bad in ["", "neon_superuser", "cloud_admin", "public", "pg_monitor", "a\0b", "tab\t", &"x".repeat(64)] {
            assert!(check_role_name(bad).is_err(), "{bad:?}");
        }
        for bad in ["", "postgres", "template1", "a\nb", &"x".repeat(64)] {
            assert!(check_database_name(bad).is_err(), "{bad:?}");
        }
        for good in ["hub_owner", "Größe", "with space", &"x".repeat(63)] {
            assert_eq!(check_role_name(good), Ok(()));
            assert_eq!(check_database_name(good), Ok(()));
        }
    }
}
