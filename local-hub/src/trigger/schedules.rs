//! Schedules that callers make; declared ones can be seen and switched off, not changed.
use std::collections::HashMap;

use axum::Json;
use axum::extract::{Path, Query, State};
use serde::Deserialize;
use serde_json::{Value, json};

use super::AppState;
use super::auth::EnvironmentKey;
use super::cron::Cron;
use super::error::{ApiError, Reply};
use super::model::{Body, Environment};
use super::store;
use super::store::schedules::{Schedule, Target, Upsert, Upserted};

/// The vendor's default and bound.
const DEFAULT_PAGE: i64 = 20;
const MAX_PAGE: i64 = 100;

fn unknown() -> ApiError {
    ApiError::not_found("Schedule not found")
}

fn view(schedule: &Schedule) -> Value {
    let mut view = json!({
        "id": schedule.id,
        "type": schedule.kind,
        "task": schedule.task,
        "active": schedule.active,
        "generator": { "type": "CRON", "expression": schedule.cron, "description": schedule.description },
        "timezone": schedule.timezone,
        "nextRun": schedule.next_run_at,
        "environments": [{ "id": schedule.environment_id, "type": schedule.environment_kind }],
    });
    if schedule.user_key {
        view["deduplicationKey"] = json!(schedule.deduplication_key);
    }
    if let Some(external_id) = &schedule.external_id {
        view["externalId"] = json!(external_id);
    }
    view
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Create {
    deduplication_key: String,
    #[serde(flatten)]
    timing: Timing,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Timing {
    task: String,
    cron: String,
    external_id: Option<String>,
    timezone: Option<String>,
}

async fn upsert(
    state: &AppState,
    environment: &Environment,
    timing: &Timing,
    target: Target<'_>,
) -> Reply<Json<Value>> {
    let timezone = timing.timezone.as_deref().filter(|z| !z.is_empty()).unwrap_or("UTC");
    let cron =
        Cron::parse(&timing.cron, timezone, &state.origin).map_err(|e| ApiError::unprocessable(e.to_string()))?;
    match store::schedules::task_source(&state.db, &environment.project_id, &timing.task).await?.as_deref() {
        None => {
            let message = format!("Task with identifier {} not found in project.", timing.task);
            return Err(ApiError::unprocessable(message));
        }
        Some("SCHEDULED") => {}
        Some(_) => {
            let message = format!("Task with identifier {} is not a scheduled task.", timing.task);
            return Err(ApiError::unprocessable(message));
        }
    }
    let new = Upsert {
        task: &timing.task,
        expression: &timing.cron,
        timezone,
        cron: &cron,
        external_id: timing.external_id.as_deref().filter(|id| !id.is_empty()),
        target,
    };
    match store::schedules::upsert(&state.db, &environment.project_id, &environment.id, new).await? {
        Upserted::Done(schedule) => {
            state.engine.wake();
            Ok(Json(view(&schedule)))
        }
        Upserted::Declarative => Err(ApiError::unprocessable("Cannot update a declarative schedule")),
        Upserted::Never => {
            Err(ApiError::unprocessable(format!("Invalid cron expression: '{}' never fires", timing.cron)))
        }
    }
}

pub(crate) async fn create(
    State(state): State<AppState>,
    EnvironmentKey(environment): EnvironmentKey,
    body: Body,
) -> Reply<Json<Value>> {
    let new: Create = body.json("Invalid request body")?;
    upsert(&state, &environment, &new.timing, Target::Key(&new.deduplication_key)).await
}

/// An id that does not exist makes a new schedule under a new id, as at the vendor.
pub(crate) async fn update(
    State(state): State<AppState>,
    EnvironmentKey(environment): EnvironmentKey,
    Path(id): Path<String>,
    body: Body,
) -> Reply<Json<Value>> {
    let timing: Timing = body.json("Invalid request body")?;
    if store::schedules::hidden(&state.db, &environment.project_id, &environment.id, &id).await? {
        return Err(unknown());
    }
    upsert(&state, &environment, &timing, Target::Id(&id)).await
}

pub(crate) async fn list(
    State(state): State<AppState>,
    EnvironmentKey(environment): EnvironmentKey,
    Query(query): Query<HashMap<String, String>>,
) -> Reply<Json<Value>> {
    let number = |name: &str, default: i64| match query.get(name) {
        None => Ok(default),
        Some(text) => text.parse::<i64>().ok().filter(|n| *n > 0).ok_or_else(|| ApiError::Malformed {
            what: "Invalid request parameters",
            message: format!("{name}: Expected a positive number"),
        }),
    };
    let page = number("page", 1)?;
    let per_page = number("perPage", DEFAULT_PAGE)?.min(MAX_PAGE);
    let (schedules, count) = store::schedules::list(&state.db, &environment.id, page, per_page).await?;
    Ok(Json(json!({
        "data": schedules.iter().map(view).collect::<Vec<_>>(),
        "pagination": {
            "currentPage": page,
            "totalPages": count.unsigned_abs().div_ceil(per_page.unsigned_abs()),
            "count": count,
        },
    })))
}

pub(crate) async fn get(
    State(state): State<AppState>,
    EnvironmentKey(environment): EnvironmentKey,
    Path(id): Path<String>,
) -> Reply<Json<Value>> {
    let schedule = store::schedules::find(&state.db, &environment.id, &id).await?.ok_or_else(unknown)?;
    Ok(Json(view(&schedule)))
}

pub(crate) async fn delete(
    State(state): State<AppState>,
    EnvironmentKey(environment): EnvironmentKey,
    Path(id): Path<String>,
) -> Reply<Json<Value>> {
    if !store::schedules::delete(&state.db, &environment.id, &id).await? {
        return Err(unknown());
    }
    Ok(Json(json!({ "id": id })))
}

pub(crate) async fn activate(
    State(state): State<AppState>,
    EnvironmentKey(environment): EnvironmentKey,
    Path(id): Path<String>,
) -> Reply<Json<Value>> {
    set_active(&state, &environment, &id, true).await
}

pub(crate) async fn deactivate(
    State(state): State<AppState>,
    EnvironmentKey(environment): EnvironmentKey,
    Path(id): Path<String>,
) -> Reply<Json<Value>> {
    set_active(&state, &environment, &id, false).await
}

async fn set_active(state: &AppState, environment: &Environment, id: &str, active: bool) -> Reply<Json<Value>> {
    let schedule = store::schedules::find(&state.db, &environment.id, id).await?.ok_or_else(unknown)?;
    let cron = Cron::parse(&schedule.cron, &schedule.timezone, &state.origin)
        .map_err(|e| ApiError::unprocessable(e.to_string()))?;
    store::schedules::set_active(&state.db, id, active, &cron).await?;
    state.engine.wake();
    let schedule = store::schedules::find(&state.db, &environment.id, id).await?.ok_or_else(unknown)?;
    Ok(Json(view(&schedule)))
}

/// UTC comes first, unless it is not wanted.
pub(crate) async fn timezones(Query(query): Query<HashMap<String, String>>) -> Json<Value> {
    const UTC: &str = "UTC";
    let without = query.get("excludeUtc").is_some_and(|v| v == "true");
    let others = chrono_tz::TZ_VARIANTS.iter().map(|zone| zone.name()).filter(|name| *name != UTC);
    let names: Vec<&str> = std::iter::once(UTC).filter(|_| !without).chain(others).collect();
    Json(json!({ "timezones": names }))
}
