//! A run as the API shows it.
use serde::Serialize;
use serde_json::{Value, json};

use super::model::Date;
use super::status::{ApiVersion, Flags, RunStatus};
use super::store::runs::Run;
use super::store::schedules::Schedule;
use super::tasks::unpack;

/// What every view of a run has.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Common<'a> {
    id: &'a str,
    status: &'static str,
    task_identifier: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    idempotency_key: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<&'a str>,
    created_at: Date,
    updated_at: Date,
    #[serde(skip_serializing_if = "Option::is_none")]
    started_at: Option<Date>,
    #[serde(skip_serializing_if = "Option::is_none")]
    finished_at: Option<Date>,
    #[serde(skip_serializing_if = "Option::is_none")]
    delayed_until: Option<Date>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ttl: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expired_at: Option<Date>,
    is_test: bool,
    tags: Vec<&'a str>,
    /// Nothing costs anything here.
    cost_in_cents: f64,
    base_cost_in_cents: f64,
    duration_ms: i64,
    depth: i32,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<Value>,
    task_kind: &'a str,
    #[serde(flatten)]
    flags: Flags,
}

impl<'a> Common<'a> {
    fn of(run: &'a Run, version: ApiVersion) -> Self {
        let status = run.status.api(version);
        let mut tags: Vec<&str> = run.tags.iter().map(String::as_str).collect();
        tags.sort_unstable();
        Self {
            id: &run.id,
            status,
            task_identifier: &run.task,
            idempotency_key: run.idempotency_key.as_deref(),
            version: run.version.as_deref(),
            created_at: run.created_at,
            updated_at: run.updated_at,
            started_at: run.started_at,
            finished_at: run.finished_at,
            delayed_until: run.delay_until,
            ttl: run.ttl.as_deref(),
            expired_at: run.expired_at,
            is_test: run.is_test,
            tags,
            cost_in_cents: 0.0,
            base_cost_in_cents: 0.0,
            duration_ms: run.duration_ms,
            depth: run.depth,
            // The schema wants an object; anything else would make the client refuse the whole reply.
            metadata: run
                .metadata
                .as_deref()
                .and_then(|text| unpack(text, run.metadata_type.as_deref().unwrap_or("application/json")))
                .filter(Value::is_object),
            task_kind: &run.task_kind,
            flags: Flags::of(status),
        }
    }

    fn into_value(self) -> Value {
        // Strings, numbers and JSON values only: nothing in it can fail to serialise.
        serde_json::to_value(self).unwrap_or_default()
    }
}

/// One entry of a list.
pub(crate) fn list_item(run: &Run, version: ApiVersion) -> Value {
    let mut item = Common::of(run, version).into_value();
    item["env"] = json!({ "id": run.environment_id, "name": run.environment_slug });
    item
}

/// A run inside the reply on another run.
pub(crate) fn related(run: &Run, version: ApiVersion) -> Value {
    let mut common = Common::of(run, version);
    // Here the vendor shows what the caller called the key, not its hash.
    common.idempotency_key =
        run.idempotency_key.as_ref().and(run.idempotency_user_key.as_deref().or(common.idempotency_key));
    let mut related = common.into_value();
    related["triggerFunction"] = json!(match (run.batch_id.is_some(), run.waits) {
        (false, false) => "trigger",
        (false, true) => "triggerAndWait",
        (true, false) => "batchTrigger",
        (true, true) => "batchTriggerAndWait",
    });
    if let Some(batch) = &run.batch_id {
        related["batchId"] = json!(batch);
    }
    related
}

pub(crate) struct Relations {
    pub(crate) root: Option<Run>,
    pub(crate) parent: Option<Run>,
    pub(crate) children: Vec<Run>,
    pub(crate) schedule: Option<Schedule>,
}

pub(crate) fn detail(run: &Run, relations: &Relations, version: ApiVersion) -> Value {
    let mut detail = related(run, version);
    if let Some(payload) = unpack(&run.payload, &run.payload_type) {
        detail["payload"] = payload;
    }
    if run.status == RunStatus::CompletedSuccessfully
        && let Some(output) = run.output.as_deref().and_then(|text| serde_json::from_str(text).ok())
    {
        detail["output"] = output;
    }
    if let Some(error) = &run.error {
        detail["error"] = error.clone();
    }
    if let Some(schedule) = &relations.schedule {
        let mut shown = json!({
            "id": schedule.id,
            "generator": { "type": "CRON", "expression": schedule.cron, "description": schedule.description },
        });
        if let Some(external_id) = &schedule.external_id {
            shown["externalId"] = json!(external_id);
        }
        if schedule.user_key {
            shown["deduplicationKey"] = json!(schedule.deduplication_key);
        }
        detail["schedule"] = shown;
    }
    detail["attemptCount"] = json!(run.attempt);
    detail["attempts"] = json!([]);
    let mut runs = json!({
        "children": relations.children.iter().map(|r| related(r, version)).collect::<Vec<_>>(),
    });
    for (name, run) in [("root", &relations.root), ("parent", &relations.parent)] {
        if let Some(run) = run {
            runs[name] = related(run, version);
        }
    }
    detail["relatedRuns"] = runs;
    detail
}
