//! How a client reaches a database.
use axum::Json;
use axum::extract::{Path, State};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;

use super::Service;
use super::auth::Authenticated;
use super::error::ApiError;
use super::extract::Params;
use super::model::{ConnectionDetails, ConnectionParameters, ConnectionUri, HOST};
use super::store::objects;
use super::store::projects::{self, EndpointRow};

/// What RFC 3986 leaves unreserved stays readable.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

#[derive(Deserialize)]
pub(crate) struct UriParams {
    branch_id: Option<String>,
    endpoint_id: Option<String>,
    database_name: String,
    role_name: String,
    #[serde(default)]
    pooled: bool,
}

pub(crate) async fn uri(
    State(service): State<Service>,
    Authenticated(caller): Authenticated,
    Path(project): Path<String>,
    Params(params): Params<UriParams>,
) -> Result<Json<ConnectionUri>, ApiError> {
    let project = projects::get(&service.db, &caller.reach, &project).await?;
    let branch = match &params.branch_id {
        Some(branch) => projects::branch(&service.db, &project.id, branch).await?,
        None => projects::default_branch(&service.db, &project.id).await?,
    };
    let endpoint = match &params.endpoint_id {
        Some(endpoint) => projects::endpoint(&service.db, &project.id, endpoint).await?,
        None => projects::endpoint_of_branch(&service.db, &branch.id).await?,
    };
    let role =
        objects::role(&service.db, &branch.id, &params.role_name).await?.ok_or_else(|| ApiError::not_found("role"))?;
    objects::database(&service.db, &branch.id, &params.database_name)
        .await?
        .ok_or_else(|| ApiError::not_found("database"))?;
    let password = objects::password(&service.db, role.id).await?.ok_or_else(no_password)?;
    let (host, pooler) = (host(&endpoint)?, pooler_host(&service, &endpoint));
    let address = match pooler.filter(|_| params.pooled) {
        Some(host) => Address { host, pooled: true },
        None => Address { host, pooled: false },
    };
    Ok(Json(ConnectionUri { uri: format_uri(&role.name, &password, &address, &params.database_name) }))
}

/// 412, as where a project stores no passwords.
pub(crate) fn no_password() -> ApiError {
    ApiError::precondition_failed("the role's password is not stored; reset it to get a new one")
}

/// Host and port. Unknown while the project's cluster is being made.
pub(crate) fn host(endpoint: &EndpointRow) -> Result<String, ApiError> {
    let port =
        endpoint.port.ok_or_else(|| ApiError::unavailable("the project is being created; ask again in a second"))?;
    Ok(format!("{HOST}:{port}"))
}

/// The pooler's, where one runs.
pub(crate) fn pooler_host(service: &Service, endpoint: &EndpointRow) -> Option<String> {
    let port = service.clusters.info(&endpoint.project_id)?.pooler_port?;
    Some(format!("{HOST}:{port}"))
}

/// Without a pooler, its host is the direct one.
pub(crate) fn details(
    role: &str,
    password: &str,
    host: &str,
    pooler: Option<String>,
    database: &str,
) -> ConnectionDetails {
    let address = Address { host: host.to_owned(), pooled: false };
    ConnectionDetails {
        connection_uri: format_uri(role, password, &address, database),
        connection_parameters: ConnectionParameters {
            database: database.to_owned(),
            password: password.to_owned(),
            role: role.to_owned(),
            pooler_host: pooler.unwrap_or_else(|| host.to_owned()),
            host: host.to_owned(),
        },
    }
}

/// Host and port, and what answers there.
struct Address {
    host: String,
    pooled: bool,
}

fn format_uri(role: &str, password: &str, address: &Address, database: &str) -> String {
    let encode = |text| utf8_percent_encode(text, ENCODED);
    let (role, password, database) = (encode(role), encode(password), encode(database));
    // pgbouncer offers no channel binding, and a client that was told to require it would not connect.
    let binding = if address.pooled { "" } else { "&channel_binding=require" };
    format!("postgresql://{role}:{password}@{}/{database}?sslmode=require{binding}", address.host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uri_survives_any_name() {
        let mut address = Address { host: "127.0.0.1:5499".into(), pooled: false };
        let uri = format_uri("a b@c/d", "npg_x", &address, "größe?x=1");
        assert_eq!(
            uri,
            "postgresql://a%20b%40c%2Fd:npg_x@127.0.0.1:5499/gr%C3%B6%C3%9Fe%3Fx%3D1?sslmode=require&channel_binding=require"
        );
        let parsed = url::Url::parse(&uri).unwrap();
        assert_eq!((parsed.host_str(), parsed.port()), (Some("127.0.0.1"), Some(5499)));
        address.pooled = true;
        assert_eq!(format_uri("a", "b", &address, "c"), "postgresql://a:b@127.0.0.1:5499/c?sslmode=require");
    }
}
