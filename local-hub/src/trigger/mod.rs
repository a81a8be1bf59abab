//! A Trigger.dev service: its HTTP API and its run engine over the control database (schema `trigger`).
//!
//! ```text
//! mod.rs         the router, what handlers share
//! orgs … batches one file per group of routes: reads the request, calls the store, words the reply
//! store/         SQL; all times are the control database's
//! engine/        due work: schedules, delays, time limits, leases; hands runs to the TaskRunner
//! ```
//!
//! Facts about the wire come from Trigger.dev's own client schemas (4.8.3) and server routes. Where the vendor's server answers in a
//! way that looks odd, this one does the same: code that works here must work there.
mod artifacts;
mod auth;
mod batches;
mod bundle;
mod cron;
mod deployments;
mod dev;
mod duration;
mod engine;
mod envvars;
mod error;
mod ids;
mod jwt;
mod list;
mod metadata;
mod model;
mod orgs;
mod projects;
mod ratelimit;
mod run_view;
mod runs;
mod schedules;
mod status;
mod store;
mod tasks;
mod workers;

use std::sync::Arc;

use axum::extract::DefaultBodyLimit;
use axum::http::StatusCode;
use axum::middleware;
use axum::routing::{get, post, put};
use axum::{Json, Router};
use serde_json::json;
use sqlx::PgPool;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use url::Url;

use crate::runner::TaskRunner;
use engine::EngineHandle;
pub(crate) use engine::slots as run_slots;

/// Holds the account's token, so it has no Debug.
pub struct TriggerContext {
    /// The control database.
    pub db: PgPool,
    /// `tr_pat_…`: the only one that works; the service keeps its digest.
    pub access_token: String,
    /// `http://127.0.0.1:PORT`, as clients reach the service.
    pub origin: Url,
    pub runner: Arc<dyn TaskRunner>,
    /// Ends the engine: nothing new is started, what runs gets a moment to finish, then goes back to its queue.
    pub shutdown: CancellationToken,
}

pub struct TriggerService {
    pub router: Router,
    /// Ends after `shutdown`, when no run is executing any more.
    pub engine: JoinHandle<()>,
}

/// Shared by the handlers.
#[derive(Clone)]
pub(crate) struct AppState {
    pub(crate) db: PgPool,
    /// Without a slash at the end, as clients expect it.
    pub(crate) origin: Arc<str>,
    pub(crate) engine: EngineHandle,
}

/// Runs the migrations and starts the engine, which first recovers what a dead one left. Await `engine` to drain before the process ends.
pub async fn start(ctx: TriggerContext) -> Result<TriggerService, sqlx::Error> {
    store::migrate(&ctx.db).await?;
    store::account::ensure(&ctx.db, &ctx.access_token).await?;
    let origin: Arc<str> = ctx.origin.as_str().trim_end_matches('/').into();
    let (handle, engine) = engine::start(ctx.db.clone(), origin.clone(), ctx.runner, ctx.shutdown).await?;
    let router = routes(AppState { db: ctx.db, origin, engine: handle });
    Ok(TriggerService { router, engine })
}

/// [`start`] for callers that do not wait for the engine's end.
pub async fn router(ctx: TriggerContext) -> Result<Router, sqlx::Error> {
    Ok(start(ctx).await?.router)
}

fn routes(state: AppState) -> Router {
    let management = Router::new()
        .route("/api/v2/whoami", get(orgs::whoami))
        .route("/api/v1/orgs", get(orgs::list).post(orgs::create))
        .route("/api/v1/orgs/{org}/projects", get(orgs::projects).post(orgs::create_project))
        .route("/api/v1/orgs/{org}/activate-free-plan", post(orgs::activate_free_plan))
        .route("/psn/v1/orgs", post(orgs::add))
        .route("/psn/v1/orgs/{org}/plan", put(orgs::set_plan))
        .route("/psn/v1/orgs/{org}/tokens", post(orgs::add_token).delete(orgs::revoke_tokens))
        .route("/api/v1/projects", get(projects::list))
        .route("/api/v1/projects/runtimes", get(projects::runtimes))
        .route("/api/v1/projects/{project}", get(projects::get).patch(projects::rename).delete(projects::delete))
        .route("/api/v1/projects/{project}/environments", get(projects::environments))
        .route("/api/v1/projects/{project}/runs", get(runs::list_for_project))
        .route("/api/v1/projects/{project}/envvars", get(envvars::resolved))
        .route("/api/v1/projects/{project}/envvars/{env}", get(envvars::list).post(envvars::create))
        .route("/api/v1/projects/{project}/envvars/{env}/import", post(envvars::import))
        .route(
            "/api/v1/projects/{project}/envvars/{env}/{name}",
            get(envvars::get).put(envvars::update).post(envvars::update).delete(envvars::delete),
        )
        .route("/api/v1/projects/{project}/background-workers", post(dev::register))
        .route("/api/v1/projects/{project}/{env}", get(projects::environment))
        .route("/api/v1/projects/{project}/{env}/jwt", post(projects::mint))
        .route("/api/v1/projects/{project}/{env}/regenerate-api-key", post(projects::regenerate_key))
        .route("/api/v1/projects/{project}/{env}/pause", post(projects::pause))
        .route("/api/v1/projects/{project}/{env}/resume", post(projects::resume))
        .route("/api/v1/projects/{project}/{env}/workers/{tag}", get(workers::by_tag));
    let worker = Router::new()
        .route("/engine/v1/dev/config", get(dev::config))
        .route("/engine/v1/dev/dequeue", post(dev::dequeue))
        .route("/engine/v1/dev/disconnect", post(dev::disconnect))
        .route("/engine/v1/dev/runs/{run}/logs/debug", post(dev::debug_log))
        .route("/engine/v1/dev/runs/{run}/snapshots/latest", get(dev::latest))
        .route("/engine/v1/dev/runs/{run}/snapshots/{snapshot}/heartbeat", post(dev::heartbeat))
        .route("/engine/v1/dev/runs/{run}/snapshots/{snapshot}/attempts/start", post(dev::start))
        .route("/engine/v1/dev/runs/{run}/snapshots/{snapshot}/attempts/complete", post(dev::complete));
    let deployments = Router::new()
        .route("/api/v1/artifacts", post(artifacts::create))
        .route("/api/v1/deployments", get(deployments::list).post(deployments::initialize))
        .route("/api/v1/deployments/current", get(deployments::current))
        .route("/api/v1/deployments/latest", get(deployments::latest))
        // One segment, two meanings: an id, or for `promote` a version.
        .route("/api/v1/deployments/{id}", get(deployments::get))
        .route("/api/v1/deployments/{id}/promote", post(deployments::promote))
        .route("/api/v1/deployments/{id}/fail", post(deployments::fail))
        .route("/api/v1/deployments/{id}/background-workers", post(workers::register))
        .route("/api/v3/deployments/{id}/finalize", post(deployments::finalize));
    let running = Router::new()
        .route("/api/v1/tasks/{task}/trigger", post(tasks::trigger))
        .route("/api/v1/runs", get(runs::list))
        .route("/api/v1/runs/{run}/metadata", put(metadata::update))
        .route("/api/v1/runs/{run}/tags", post(metadata::add_tags))
        .route("/api/v3/runs/{run}", get(runs::get))
        .route("/api/v2/runs/{run}/cancel", post(runs::cancel))
        .route("/api/v1/runs/{run}/replay", post(runs::replay))
        .route("/api/v1/runs/{run}/reschedule", post(runs::reschedule))
        .route("/api/v1/idempotencyKeys/{key}/reset", post(runs::reset_key))
        .route("/api/v1/schedules", get(schedules::list).post(schedules::create))
        .route("/api/v1/schedules/{id}", get(schedules::get).put(schedules::update).delete(schedules::delete))
        .route("/api/v1/schedules/{id}/activate", post(schedules::activate))
        .route("/api/v1/schedules/{id}/deactivate", post(schedules::deactivate))
        .route("/api/v3/batches", post(batches::create))
        .route("/api/v3/batches/{id}/items", post(batches::add_items))
        .route("/api/v2/batches/{id}", get(batches::get));
    management
        .merge(deployments)
        .merge(running)
        .merge(worker)
        .fallback(|| async { (StatusCode::NOT_FOUND, Json(json!({ "error": "Not found" }))) })
        .method_not_allowed_fallback(|| async {
            (StatusCode::METHOD_NOT_ALLOWED, Json(json!({ "error": "Method not allowed" })))
        })
        .layer(middleware::from_fn_with_state(ratelimit::RateLimiter::default(), ratelimit::limit))
        .merge(open())
        .with_state(state)
}

/// What comes without an environment's key: an upload has its policy, and a worker's telemetry is thrown away.
fn open() -> Router<AppState> {
    Router::new()
        .route("/upload", post(artifacts::upload).layer(DefaultBodyLimit::max(artifacts::MAX_UPLOAD)))
        // The SDK asks without a key, and the vendor lets it.
        .route("/api/v1/timezones", get(schedules::timezones))
        .route("/otel/{*path}", post(|| async { Json(json!({})) }))
}
