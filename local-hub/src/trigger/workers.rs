//! What a deployment registers: its worker with the tasks, queues and schedules in it.
use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::AppState;
use super::auth::{Caller, EnvironmentKey};
use super::cron::Cron;
use super::error::{ApiError, Reply};
use super::model::{Body, Environment, TextOrNumber};
use super::store::deployments::{Initialized, NewDeployment, NewTask, NewWorker, Worker};
use super::{deployments, store, tasks};

#[derive(Deserialize)]
struct Register {
    metadata: Metadata,
    engine: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    package_version: String,
    content_hash: String,
    cli_package_version: Option<String>,
    runtime_version: Option<String>,
    tasks: Vec<Task>,
    #[serde(default)]
    queues: Vec<Queue>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Queue {
    name: Option<String>,
    concurrency_limit: Option<i32>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Task {
    id: String,
    file_path: String,
    export_name: Option<String>,
    queue: Option<Queue>,
    retry: Option<Value>,
    trigger_source: Option<String>,
    schedule: Option<Schedule>,
    max_duration: Option<f64>,
    ttl: Option<TextOrNumber>,
    payload_schema: Option<Value>,
}

#[derive(Deserialize)]
struct Schedule {
    cron: String,
    timezone: String,
    environments: Option<Vec<String>>,
}

/// What the CLI looks for in a failed deployment.
const SCHEDULE_PLAN_LIMIT: &str = "SchedulePlanLimitError";
/// The vendor's name for what it refuses for a reason of the caller's.
const INVALID: &str = "ServiceValidationError";

#[derive(Debug)]
struct Refusal {
    name: &'static str,
    message: String,
}

/// Between two ticks of a schedule on the vendor's free plan.
const FREE_PLAN_GAP: chrono::Duration = chrono::Duration::hours(1);
/// Schedules of a project on the vendor's free plan.
const FREE_PLAN_SCHEDULES: usize = 10;

/// `free`: the organization has the vendor's free plan.
fn check(tasks: &[Task], origin: &str, free: bool) -> Result<(), Refusal> {
    for (at, task) in tasks.iter().enumerate() {
        if task.id.is_empty() || tasks[..at].iter().any(|other| other.id == task.id) {
            let message = format!("Task ids must be unique and not empty: \"{}\" is not.", task.id);
            return Err(Refusal { name: "DuplicateTaskIdsError", message });
        }
        if let Some(schedule) = &task.schedule {
            let refuse = |message: String| Refusal {
                name: "CreateDeclarativeScheduleError",
                message: format!("Error creating schedule for \"{}\": {message}", task.id),
            };
            let cron = Cron::parse(&schedule.cron, &schedule.timezone, origin).map_err(|e| refuse(e.to_string()))?;
            if cron.next_after(chrono::DateTime::UNIX_EPOCH).is_none() {
                return Err(refuse(format!("Invalid cron expression: '{}' never fires", schedule.cron)));
            }
            if free && cron.upcoming(chrono::Utc::now()).windows(2).any(|pair| pair[1] - pair[0] < FREE_PLAN_GAP) {
                return Err(Refusal {
                    name: SCHEDULE_PLAN_LIMIT,
                    message: format!(
                        "Task `{}`: Free plan is limited to hourly schedules or less. Change the cron expression or \
                         upgrade before saving this schedule.",
                        task.id
                    ),
                });
            }
        }
    }
    if free && tasks.iter().filter(|task| task.schedule.is_some()).count() > FREE_PLAN_SCHEDULES {
        let message = format!(
            "You have created {FREE_PLAN_SCHEDULES}/{FREE_PLAN_SCHEDULES} schedules so you'll need to increase your limits or \
             delete some schedules."
        );
        return Err(Refusal { name: INVALID, message });
    }
    Ok(())
}

fn new_task(task: Task) -> NewTask {
    let queue = task.queue.as_ref().and_then(|q| q.name.as_deref()).and_then(tasks::queue_name);
    NewTask {
        queue: queue.unwrap_or_else(|| format!("task/{}", task.id)),
        concurrency_limit: task.queue.as_ref().and_then(|q| q.concurrency_limit),
        queue_config: task.queue.map(|q| json!({ "name": q.name, "concurrencyLimit": q.concurrency_limit })),
        scheduled: task.schedule.is_some() || task.trigger_source.as_deref() == Some("schedule"),
        schedule: task
            .schedule
            .map(|s| json!({ "cron": s.cron, "timezone": s.timezone, "environments": s.environments })),
        max_duration: task.max_duration.map(tasks::clamp_max_duration),
        ttl: task.ttl.map(tasks::ttl_text),
        slug: task.id,
        file_path: task.file_path,
        export_name: task.export_name,
        retry: task.retry,
        payload_schema: task.payload_schema,
    }
}

pub(crate) async fn register(
    State(state): State<AppState>,
    EnvironmentKey(environment): EnvironmentKey,
    Path(id): Path<String>,
    body: Body,
) -> Reply<Json<Value>> {
    let Register { metadata, engine } = body.json("Invalid body")?;
    let failed =
        || ApiError::Refused(StatusCode::INTERNAL_SERVER_ERROR, "Failed to create background worker".to_owned());
    let deployment = store::deployments::find(&state.db, &environment.id, &id).await?.ok_or_else(failed)?;
    let reply = |worker: &Worker| {
        Json(json!({ "id": worker.id, "version": deployment.version(), "contentHash": worker.content_hash }))
    };
    // The indexer repeats the call when it lost the answer.
    if let Some(worker) = store::deployments::worker(&state.db, &id).await? {
        return Ok(reply(&worker));
    }
    if let Err(refusal) = check(&metadata.tasks, &state.origin, environment.plan == "free") {
        // Ends the deployment too, so that whoever waits for it need not wait for its timeout.
        let error = json!({ "name": refusal.name, "message": refusal.message });
        store::deployments::fail(&state.db, &environment.id, &id, &error).await?;
        return Err(ApiError::bad_request(refusal.message));
    }
    let worker = store_worker(&state, &environment, &id, metadata, engine.as_deref()).await?;
    Ok(reply(&worker.ok_or_else(failed)?))
}

async fn store_worker(
    state: &AppState,
    environment: &Environment,
    deployment: &str,
    metadata: Metadata,
    engine: Option<&str>,
) -> Result<Option<Worker>, ApiError> {
    let queues: Vec<(String, Option<i32>)> = metadata
        .queues
        .into_iter()
        .filter_map(|q| Some((tasks::queue_name(q.name.as_deref()?)?, q.concurrency_limit)))
        .collect();
    let tasks: Vec<NewTask> = metadata.tasks.into_iter().map(new_task).collect();
    let new = NewWorker {
        content_hash: &metadata.content_hash,
        engine,
        sdk_version: &metadata.package_version,
        cli_version: metadata.cli_package_version.as_deref(),
        runtime_version: metadata.runtime_version.as_deref(),
        tasks: &tasks,
        queues: &queues,
    };
    Ok(store::deployments::register_worker(&state.db, &environment.id, deployment, new).await?)
}

/// A development worker has no deployment at the vendor; here one stands for it, so that versions, tasks and schedules are found in
/// the same way. Lists do not show it.
pub(crate) async fn register_development(
    state: &AppState,
    environment: &Environment,
    body: &Body,
) -> Reply<Json<Value>> {
    let Register { metadata, engine } = body.json("Invalid body")?;
    if let Err(refusal) = check(&metadata.tasks, &state.origin, environment.plan == "free") {
        let mut reply = json!({ "error": refusal.message });
        if refusal.name == SCHEDULE_PLAN_LIMIT {
            reply["errorCode"] = json!("schedule_plan_limit");
        }
        return Err(ApiError::Body(StatusCode::BAD_REQUEST, reply));
    }
    let content_hash = metadata.content_hash.clone();
    let new = NewDeployment {
        content_hash: &content_hash,
        kind: "DEVELOPMENT",
        status: "BUILDING",
        external_id: None,
        runtime: None,
        git: None,
        force: false,
        artifact_key: None,
        skip_promotion: false,
    };
    let failed =
        || ApiError::Refused(StatusCode::INTERNAL_SERVER_ERROR, "Failed to create background worker".to_owned());
    let Initialized::Created { deployment, .. } =
        store::deployments::initialize(&state.db, &environment.id, new).await?
    else {
        return Err(failed());
    };
    let worker =
        store_worker(state, environment, &deployment.id, metadata, engine.as_deref()).await?.ok_or_else(failed)?;
    deployments::finish(state, environment, &deployment.id, None, false).await?;
    Ok(Json(json!({ "id": worker.id, "version": deployment.version(), "contentHash": worker.content_hash })))
}

/// `current`, or a version.
pub(crate) async fn by_tag(
    State(state): State<AppState>,
    caller: Caller,
    Path((project, env, tag)): Path<(String, String, String)>,
) -> Reply<Json<Value>> {
    let environment = caller.environment(&state, &project, &env).await?;
    let unknown = || ApiError::not_found("Worker not found");
    let deployment = match tag.as_str() {
        "current" => store::deployments::current(&state.db, &environment.id).await?,
        version => store::deployments::by_version(&state.db, &environment.id, version).await?,
    };
    let deployment = deployment.ok_or_else(unknown)?;
    let worker = store::deployments::worker(&state.db, &deployment.id).await?.ok_or_else(unknown)?;
    let tasks: Vec<Value> = store::deployments::tasks(&state.db, &worker.id)
        .await?
        .into_iter()
        .map(|task| {
            json!({
                "id": task.id,
                "slug": task.slug,
                "filePath": task.file_path,
                "triggerSource": task.trigger_source,
                "createdAt": task.created_at,
                "payloadSchema": task.payload_schema,
                "queueConfig": task.queue_config,
            })
        })
        .collect();
    Ok(Json(json!({
        "worker": {
            "id": worker.id,
            "version": deployment.version(),
            "engine": worker.engine,
            "sdkVersion": worker.sdk_version,
            "cliVersion": worker.cli_version,
            "tasks": tasks,
        },
        "urls": {
            "runs": format!(
                "{}/orgs/{}/projects/{}/env/{}/runs?versions={}",
                state.origin, environment.organization_slug, environment.project_slug, environment.slug, deployment.version()
            ),
        },
    })))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(json: Value) -> Task {
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn registrations_are_refused_with_a_reason() {
        let plain = || task(json!({ "id": "a", "filePath": "a.ts" }));
        let scheduled = |cron: &str, timezone: &str| {
            task(json!({ "id": "b", "filePath": "b.ts", "schedule": { "cron": cron, "timezone": timezone } }))
        };
        assert!(check(&[plain(), scheduled("*/15 * * * *", "Europe/Berlin")], "", false).is_ok());
        let refused = check(&[scheduled("*/15 * * * *", "UTC")], "", true).unwrap_err();
        assert_eq!(refused.name, SCHEDULE_PLAN_LIMIT);
        assert!(check(&[scheduled("0 * * * *", "UTC")], "", true).is_ok());
        let many = |n: usize| {
            let named = |at| {
                task(
                    json!({ "id": format!("t{at}"), "filePath": "t.ts", "schedule": { "cron": "0 6 * * *", "timezone": "UTC" } }),
                )
            };
            (0..n).map(named).collect::<Vec<_>>()
        };
        assert!(check(&many(10), "", true).is_ok() && check(&many(11), "", false).is_ok());
        assert_eq!(check(&many(11), "", true).unwrap_err().name, INVALID);
        for (tasks, name) in [
            (vec![plain(), plain()], "DuplicateTaskIdsError"),
            (vec![scheduled("nonsense", "UTC")], "CreateDeclarativeScheduleError"),
            (vec![scheduled("0 0 30 2 *", "UTC")], "CreateDeclarativeScheduleError"),
            (vec![scheduled("0 0 * * *", "Nowhere")], "CreateDeclarativeScheduleError"),
        ] {
            assert_eq!(check(&tasks, "", false).unwrap_err().name, name);
        }
    }

    #[test]
    fn a_task_without_a_queue_gets_its_own() {
        assert_eq!(new_task(task(json!({ "id": "a", "filePath": "a.ts" }))).queue, "task/a");
        let named =
            task(json!({ "id": "a", "filePath": "a.ts", "queue": { "name": "po sts!", "concurrencyLimit": 2 } }));
        let new = new_task(named);
        assert_eq!((new.queue.as_str(), new.concurrency_limit), ("posts", Some(2)));
    }
}
