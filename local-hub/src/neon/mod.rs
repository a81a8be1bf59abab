//! Neon's API v2 over real Postgres clusters: a project is a cluster of its own, with its own roles, passwords and databases.
//!
//! What the API promises is written to the control database first, together with the operations that make it true; the
//! [worker] then does those in the cluster, and a restarted daemon goes on where the last one stopped ([`resume`]).
mod account;
mod auth;
mod branches;
mod connection;
mod databases;
mod endpoints;
mod error;
mod extract;
pub mod faults;
mod ids;
mod keys;
mod model;
mod operations;
mod plan;
mod projects;
mod provision;
mod roles;
mod sql;
mod store;
mod worker;

use axum::extract::Request;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use axum::{Router, middleware};
use sqlx::PgPool;
use url::Url;

use self::error::ApiError;
use self::faults::Faults;
use self::store::operations::Action;
use self::store::projects as project_store;
pub use self::worker::OperationError;
use crate::pg::Clusters;
use crate::tokens;

/// Where the API begins; part of the value that clients are configured with (`NEON_API_HOST`).
pub const BASE_PATH: &str = "/api/v2";

/// What the service is made of. No Debug: it holds the key.
#[derive(Clone)]
pub struct NeonContext {
    /// The control database. Everything is in its schema `neon`.
    pub db: PgPool,
    pub clusters: Clusters,
    /// The key of the one local account. Only its digest is stored.
    pub api_key: String,
    pub origin: Url,
    /// Lets a test that has it ask for [`faults`]. None in every hub that people use.
    pub test_token: Option<String>,
}

/// A project that should run and does not.
#[derive(Debug)]
pub struct ResumeFailure {
    pub project_id: String,
    pub error: OperationError,
}

#[derive(Clone)]
pub(crate) struct Service {
    db: PgPool,
    clusters: Clusters,
    faults: Faults,
}

/// Brings the control database up to date and makes the routes.
pub async fn router(ctx: NeonContext) -> Result<Router, sqlx::Error> {
    store::migrate(&ctx.db).await?;
    store::ensure_account(&ctx.db, &tokens::digest(&ctx.api_key)).await?;
    let service = Service { db: ctx.db, clusters: ctx.clusters, faults: Faults::new(ctx.test_token.as_deref()) };
    let api = routes()
        .fallback(async |request: Request| ApiError::no_such_route(request.method(), request.uri().path()))
        .method_not_allowed_fallback(async || ApiError::method_not_allowed())
        .layer(middleware::from_fn(uninterrupted))
        .layer(middleware::from_fn_with_state(service.clone(), auth::authenticate))
        .with_state(service.clone());
    let api = Router::new()
        .nest(BASE_PATH, api)
        .fallback(async |request: Request| ApiError::no_such_route(request.method(), request.uri().path()))
        .layer(middleware::from_fn(error::envelope));
    let sql = Router::new().route("/sql", post(sql::sql)).with_state(service.clone());
    let service_routes = api.merge(sql);
    if !service.faults.are_possible() {
        return Ok(service_routes);
    }
    tracing::warn!("faults can be asked for: this hub is for a test");
    let control = get(faults::list).post(faults::add).delete(faults::clear);
    Ok(service_routes
        .layer(middleware::from_fn_with_state(service.faults.clone(), faults::interfere))
        .merge(Router::new().route(faults::PATH, control).with_state(service)))
}

/// A caller that hangs up must not stop a change between its commit and the start of its work.
async fn uninterrupted(request: Request, next: Next) -> Response {
    if request.method().is_safe() {
        return next.run(request).await;
    }
    match tokio::spawn(next.run(request)).await {
        Ok(response) => response,
        Err(error) => {
            tracing::error!(%error, "a request handler did not end");
            ApiError::internal().into_response()
        }
    }
}

fn routes() -> Router<Service> {
    const BRANCH: &str = "/projects/{project_id}/branches/{branch_id}";
    const ENDPOINT: &str = "/projects/{project_id}/endpoints/{endpoint_id}";
    Router::new()
        .route("/auth", get(account::auth))
        .route("/users/me", get(account::me))
        .route("/users/me/organizations", get(account::organizations))
        .route("/regions", get(account::regions))
        .route("/api_keys", get(keys::list).post(keys::create))
        .route("/api_keys/{key_id}", delete(keys::revoke))
        .route("/organizations/{org_id}", get(account::organization))
        .route("/organizations/{org_id}/api_keys", get(keys::list_of_org).post(keys::create_for_org))
        .route("/organizations/{org_id}/api_keys/{key_id}", delete(keys::revoke_of_org))
        .route("/projects", get(projects::list).post(projects::create))
        .route("/projects/shared", get(projects::shared))
        .route("/projects/{project_id}", get(projects::get).patch(projects::update).delete(projects::delete))
        .route("/projects/{project_id}/recover", post(projects::recover))
        .route("/projects/{project_id}/connection_uri", get(connection::uri))
        .route("/projects/{project_id}/operations", get(operations::list))
        .route("/projects/{project_id}/operations/{operation_id}", get(operations::get))
        .route("/projects/{project_id}/branches", get(branches::list))
        .route(BRANCH, get(branches::get))
        .route(&format!("{BRANCH}/endpoints"), get(endpoints::list_of_branch))
        .route(&format!("{BRANCH}/databases"), get(databases::list).post(databases::create))
        .route(&format!("{BRANCH}/databases/{{database_name}}"), get(databases::get).delete(databases::delete))
        .route(&format!("{BRANCH}/roles"), get(roles::list).post(roles::create))
        .route(&format!("{BRANCH}/roles/{{role_name}}"), get(roles::get).delete(roles::delete))
        .route(&format!("{BRANCH}/roles/{{role_name}}/reveal_password"), get(roles::reveal_password))
        .route(&format!("{BRANCH}/roles/{{role_name}}/reset_password"), post(roles::reset_password))
        .route("/projects/{project_id}/endpoints", get(endpoints::list))
        .route(ENDPOINT, get(endpoints::get))
        .route(&format!("{ENDPOINT}/start"), post(endpoints::start))
        .route(&format!("{ENDPOINT}/suspend"), post(endpoints::suspend))
        .route(&format!("{ENDPOINT}/restart"), post(endpoints::restart))
}

/// At daemon start: starts the clusters of the projects that should run, ends the operations that were cut off, and removes
/// what was deleted more than a week ago. Returns when all of that is done; what could not be started is in the result and,
/// as a failed operation, in the project's history.
pub async fn resume(ctx: &NeonContext) -> Result<Vec<ResumeFailure>, sqlx::Error> {
    store::migrate(&ctx.db).await?;
    let service = Service { db: ctx.db.clone(), clusters: ctx.clusters.clone(), faults: Faults::new(None) };
    for project in project_store::expire(&service.db).await? {
        let mut db = service.db.acquire().await?;
        worker::remove_abandoned(&service, &mut db, &project).await?;
    }
    let mut running = Vec::new();
    for project in project_store::to_resume(&service.db).await? {
        if service.clusters.info(&project).is_none() {
            schedule_start(&service, &project).await?;
        }
        running.push((worker::spawn(&service, &project, None), project));
    }
    let mut failures = Vec::new();
    for (work, project_id) in running {
        match work.await {
            Ok(None) => {}
            Ok(Some(error)) => failures.push(ResumeFailure { project_id, error }),
            // The task panicked or the runtime is going down.
            Err(_) => return Err(sqlx::Error::WorkerCrashed),
        }
    }
    Ok(failures)
}

/// A start of its own, unless operations that were cut off say what has to be.
async fn schedule_start(service: &Service, project: &str) -> Result<(), sqlx::Error> {
    let mut tx = service.db.begin().await?;
    if project_store::lock_idle(&mut tx, project).await? {
        for endpoint in project_store::endpoints(&mut *tx, project).await? {
            store::operations::schedule(&mut tx, &endpoint, &[Action::StartCompute]).await?;
        }
    }
    tx.commit().await
}
