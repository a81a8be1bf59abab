//! What plugins that are no longer installed left in the hub: their database roles, and the connection strings of these.
use std::collections::BTreeSet;

use sqlx::PgConnection;

use super::roles::{RolesError, execute, plugin_role, role_exists, sql_error};
use crate::plugins::manifest::Manifest;
use crate::secret::Secrets;

const ROLE_PREFIX: &str = "psn_plugin_";
const SECRET_PREFIX: &str = "DATABASE_URL_PLUGIN_";
/// Something in another database of the server depends on it.
const IN_USE_ELSEWHERE: &str = "2BP01";

/// Of one plugin that was removed.
#[derive(Debug, PartialEq, Eq)]
pub struct Leftover {
    role: String,
    in_database: bool,
    in_secrets: bool,
}

impl Leftover {
    /// What becomes of it, for a person.
    pub fn words(&self) -> String {
        let (role, secret) = (&self.role, secret_of(&self.role));
        let what = match (self.in_database, self.in_secrets) {
            (true, true) => format!("drop the role {role}, and {secret} from config/hub.env"),
            (true, false) => format!("drop the role {role}"),
            (false, _) => format!("drop {secret} from config/hub.env"),
        };
        format!("{what}: its plugin is no longer here")
    }
}

/// The names in hub.env that are connection strings of plugins' roles, whether the plugin is there or not.
pub fn plugin_urls(secrets: &Secrets) -> Vec<String> {
    secrets.names().into_iter().filter(|name| name.starts_with(SECRET_PREFIX)).collect()
}

/// Looks, changes nothing.
pub async fn plan(
    owner: &mut PgConnection,
    secrets: &Secrets,
    plugins: &[Manifest],
) -> Result<Vec<Leftover>, RolesError> {
    let wanted: BTreeSet<String> =
        plugins.iter().filter(|m| !m.db.is_empty()).map(|m| plugin_role(&m.plugin.name)).collect();
    let there: BTreeSet<String> = plugin_roles(owner).await?.into_iter().collect();
    let kept: BTreeSet<String> = plugin_urls(secrets).iter().map(|name| role_of(name)).collect();
    let left = there.union(&kept).filter(|role| !wanted.contains(*role));
    let leftover = |role: &String| Leftover {
        role: role.clone(),
        in_database: there.contains(role),
        in_secrets: kept.contains(role),
    };
    Ok(left.map(leftover).collect())
}

/// Run again after a crash at any point it ends the same: the connection string goes last.
pub async fn drop(owner: &mut PgConnection, secrets: &Secrets, leftover: &Leftover) -> Result<(), RolesError> {
    if leftover.in_database {
        drop_role(owner, &leftover.role).await?;
    }
    if leftover.in_secrets {
        secrets.remove(&secret_of(&leftover.role))?;
    }
    Ok(())
}

/// The plugins' roles of this database: those that may connect to it. Another database of the server may be another hub's.
pub(super) async fn plugin_roles(owner: &mut PgConnection) -> Result<Vec<String>, RolesError> {
    sqlx::query_scalar(
        "SELECT r.rolname::text FROM pg_catalog.pg_roles r
         WHERE r.rolname ~ $1 AND EXISTS (
             SELECT FROM pg_catalog.pg_database d, pg_catalog.aclexplode(d.datacl) a
             WHERE d.datname = pg_catalog.current_database() AND a.grantee = r.oid AND a.privilege_type = 'CONNECT')
         ORDER BY 1",
    )
    .bind(format!("^{ROLE_PREFIX}[a-z0-9_]+$"))
    .fetch_all(owner)
    .await
    .map_err(sql_error("looking at the plugins' roles"))
}

/// A role owns nothing: psn makes all things as the database's owner. Answers whether it was there.
pub(super) async fn drop_role(owner: &mut PgConnection, role: &str) -> Result<bool, RolesError> {
    if !role_exists(owner, role).await? {
        return Ok(false);
    }
    // Only a member may take back what was granted to a role, and end its sessions: one that a pooler keeps would go on as a role that
    // is no more, also for one of the same name that is made later. One transaction, and the membership goes with the role.
    let take_back = format!(
        "GRANT {role} TO CURRENT_USER; \
         SELECT pg_catalog.count(pg_catalog.pg_terminate_backend(a.pid)) FROM pg_catalog.pg_stat_activity a WHERE a.usename = '{role}'; \
         DROP OWNED BY {role}"
    );
    let what = format!("dropping the role {role}");
    match execute(owner, format!("{take_back}; DROP ROLE {role}"), what.clone()).await {
        Err(RolesError::Sql { source: sqlx::Error::Database(e), .. })
            if e.code().as_deref() == Some(IN_USE_ELSEWHERE) =>
        {
            execute(owner, format!("{take_back}; REVOKE {role} FROM CURRENT_USER"), what).await?;
        }
        other => other?,
    }
    Ok(true)
}

fn secret_of(role: &str) -> String {
    format!("{SECRET_PREFIX}{}", role.strip_prefix(ROLE_PREFIX).unwrap_or(role).to_uppercase())
}

fn role_of(secret: &str) -> String {
    format!("{ROLE_PREFIX}{}", secret.strip_prefix(SECRET_PREFIX).unwrap_or(secret).to_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::Purpose;

    #[test]
    fn a_role_and_its_connection_string_are_found_from_each_other() {
        let secret = Purpose::Plugin("publish-post".to_owned()).secret_name();
        assert_eq!(role_of(&secret), plugin_role("publish-post"));
        assert_eq!(secret_of(&plugin_role("publish-post")), secret);
    }
}
