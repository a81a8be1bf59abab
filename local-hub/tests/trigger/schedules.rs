use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{Hub, assert_schema};

fn declared(id: &str, cron: &str) -> Value {
    json!({ "id": id, "filePath": "a.wasm", "triggerSource": "schedule", "schedule": { "cron": cron, "timezone": "UTC" } })
}

async fn schedules(hub: &Hub, key: &str) -> Vec<Value> {
    let list = hub.get("/api/v1/schedules?page=1&perPage=50", key).await.ok("ListSchedulesResult");
    list["data"].as_array().unwrap().clone()
}

#[tokio::test]
async fn deployments_declare_schedules() {
    let hub = Hub::start().await;
    let project = hub.project("psn hub").await;
    let key = project.prod.as_str();
    hub.deploy(key, &[declared("watchdog", "*/15 * * * *"), json!("publish")]).await;
    let list = schedules(&hub, key).await;
    let [watchdog] = list.as_slice() else { panic!("{list:?}") };
    assert_eq!(
        (&watchdog["type"], &watchdog["task"], &watchdog["active"]),
        (&json!("DECLARATIVE"), &json!("watchdog"), &json!(true))
    );
    assert_eq!(
        (&watchdog["generator"]["expression"], watchdog.get("deduplicationKey")),
        (&json!("*/15 * * * *"), None)
    );
    assert!(watchdog["nextRun"].as_str().is_some_and(|t| t.ends_with(":00.000Z")), "{watchdog}");
    let id = watchdog["id"].as_str().unwrap();
    let change = json!({ "task": "watchdog", "cron": "0 * * * *" });
    hub.send(Method::PUT, &format!("/api/v1/schedules/{id}"), key, Some(change))
        .await
        .refused(422, "Cannot update a declarative schedule");

    // The same again keeps it; a changed one is changed; one that is gone goes.
    hub.deploy(key, &[declared("watchdog", "*/15 * * * *"), declared("digest", "0 8 * * 1")]).await;
    let list = schedules(&hub, key).await;
    assert_eq!((list.len(), &list[0]["id"], &list[0]["nextRun"]), (2, &json!(id), &watchdog["nextRun"]));
    hub.deploy(key, &[declared("watchdog", "0 0 1 1 *")]).await;
    let list = schedules(&hub, key).await;
    assert_eq!((list.len(), &list[0]["id"]), (1, &json!(id)));
    assert!(list[0]["nextRun"].as_str().unwrap().ends_with("-01-01T00:00:00.000Z"));

    // Not for this kind of environment; not current.
    let mut elsewhere = declared("elsewhere", "0 * * * *");
    elsewhere["schedule"]["environments"] = json!(["DEVELOPMENT"]);
    hub.deploy(key, &[elsewhere]).await;
    assert_eq!(schedules(&hub, key).await, Vec::<Value>::new());
    let init = hub.initialize(key, json!({})).await.ok("InitializeDeploymentResponseBody");
    let deployment = init["id"].as_str().unwrap();
    hub.register(key, deployment, &[declared("watchdog", "0 * * * *")]).await.ok("CreateBackgroundWorkerResponse");
    hub.finalize(key, deployment, json!({ "skipPromotion": true })).await;
    assert_eq!(schedules(&hub, key).await, Vec::<Value>::new());
    let promote = format!("/api/v1/deployments/{}/promote", init["version"].as_str().unwrap());
    hub.post(&promote, key, json!({})).await.ok("PromoteDeploymentResponseBody");
    assert_eq!(schedules(&hub, key).await.len(), 1);
}

#[tokio::test]
async fn callers_make_schedules() {
    let hub = Hub::start().await;
    let project = hub.project("psn hub").await;
    let key = project.prod.as_str();
    hub.deploy(key, &[json!({ "id": "remind", "triggerSource": "schedule" }), json!("plain")]).await;
    let new = |cron: &str| json!({ "task": "remind", "cron": cron, "deduplicationKey": "user:1", "externalId": "u1", "timezone": "America/New_York" });
    assert_schema("CreateScheduleOptions", &new("0 9 * * *"));
    let made = hub.post("/api/v1/schedules", key, new("0 9 * * *")).await.ok("ScheduleObject");
    assert_eq!(
        (&made["type"], &made["deduplicationKey"], &made["externalId"]),
        (&json!("IMPERATIVE"), &json!("user:1"), &json!("u1"))
    );
    assert_eq!(
        (&made["timezone"], &made["environments"][0]["type"]),
        (&json!("America/New_York"), &json!("PRODUCTION"))
    );
    let next = made["nextRun"].as_str().unwrap();
    assert!(next.contains("T13:00:00") || next.contains("T14:00:00"), "nine in New York: {next}");
    let path = format!("/api/v1/schedules/{}", made["id"].as_str().unwrap());
    assert_eq!(hub.get(&path, key).await.ok("ScheduleObject"), made);
    // An upsert: the same key is the same schedule.
    let changed = hub.post("/api/v1/schedules", key, new("30 9 * * *")).await.ok("ScheduleObject");
    assert_eq!((&changed["id"], &changed["generator"]["expression"]), (&made["id"], &json!("30 9 * * *")));
    let update = json!({ "task": "remind", "cron": "0 10 * * *" });
    assert_schema("UpdateScheduleOptions", &update);
    let updated = hub.send(Method::PUT, &path, key, Some(update)).await.ok("ScheduleObject");
    assert_eq!((&updated["id"], &updated["timezone"], updated.get("externalId")), (&made["id"], &json!("UTC"), None));

    let off = hub.send(Method::POST, &format!("{path}/deactivate"), key, None).await.ok("ScheduleObject");
    assert_eq!(off["active"], false);
    assert_eq!(
        hub.send(Method::POST, &format!("{path}/activate"), key, None).await.ok("ScheduleObject")["active"],
        true
    );

    let with = |name: &str, value: &str| {
        let mut body = new("0 9 * * *");
        body[name] = json!(value);
        body
    };
    for (body, message) in [
        (with("task", "nobody"), "Task with identifier nobody not found in project.".to_owned()),
        (with("task", "plain"), "Task with identifier plain is not a scheduled task.".to_owned()),
        (with("cron", "0 0 30 2 *"), "Invalid cron expression: '0 0 30 2 *' never fires".to_owned()),
        (
            with("timezone", "Moon/Sea"),
            format!(
                "Invalid IANA timezone: 'Moon/Sea'. View the list of valid timezones at {}/timezones",
                hub.origin()
            ),
        ),
    ] {
        hub.post("/api/v1/schedules", key, body).await.refused(422, &message);
    }
    let reply = hub.post("/api/v1/schedules", key, json!({ "task": "remind" })).await;
    assert!(reply.json()["issues"].is_array());
    reply.refused(400, "Invalid request body");
    let reply = hub.post("/api/v1/schedules", key, with("cron", "* * * * * *")).await;
    assert!(reply.json()["error"].as_str().unwrap().starts_with("Invalid cron expression: "));

    // The other environment sees neither it nor its effect.
    for (method, path) in
        [(Method::GET, path.clone()), (Method::DELETE, path.clone()), (Method::POST, format!("{path}/activate"))]
    {
        hub.send(method, &path, &project.dev, None).await.refused(404, "Schedule not found");
    }
    let page = hub.get("/api/v1/schedules", key).await.ok("ListSchedulesResult");
    assert_eq!(page["pagination"], json!({ "currentPage": 1, "totalPages": 1, "count": 1 }));
    hub.get("/api/v1/schedules?page=0", key).await.refused(400, "Invalid request parameters");
    hub.send(Method::DELETE, &path, key, None).await.ok("DeletedScheduleObject");
    hub.get(&path, key).await.refused(404, "Schedule not found");
    let zones = hub.get("/api/v1/timezones", "").await.ok("TimezonesResult");
    assert!(zones["timezones"].as_array().unwrap().contains(&json!("Europe/Berlin")));
}

#[tokio::test]
async fn schedules_fire_once_for_however_many_missed_ticks() {
    let mut hub = Hub::start().await;
    let project = hub.project("psn hub").await;
    let key = project.prod.as_str();
    hub.deploy(key, &[declared("watchdog", "* * * * *")]).await;
    let id = schedules(&hub, key).await[0]["id"].as_str().unwrap().to_owned();
    let runs = async || {
        let list = hub.get(&format!("/api/v1/runs?filter%5Bschedule%5D={id}"), key).await.ok("ListRunResponse");
        list["data"].as_array().unwrap().clone()
    };
    // The hub was down for a day.
    hub.sql(
        "UPDATE trigger.schedules SET next_run_at = date_trunc('minute', now() - interval '1 day'), \
         last_run_at = date_trunc('minute', now() - interval '1 day 1 minute') WHERE id = $1",
        &id,
    )
    .await;
    let fired = hub.eventually("the tick", async || runs().await.last().cloned()).await;
    let first = fired["id"].as_str().unwrap();
    let run = hub.reaches(key, first, &["COMPLETED"]).await;
    assert_eq!((&run["schedule"]["id"], &run["taskKind"]), (&json!(id), &json!("SCHEDULED")));
    let call = hub.runner.calls_of(first).remove(0);
    assert_schema("ScheduledTaskPayload", &call.payload);
    assert_eq!((&call.payload["type"], &call.payload["timezone"]), (&json!("DECLARATIVE"), &json!("UTC")));
    assert_eq!(call.payload["upcoming"].as_array().unwrap().len(), 10);
    assert!(call.payload["lastTimestamp"].is_string());
    let at = call.scheduled_at.unwrap();
    assert_eq!(call.payload["timestamp"], at.to_rfc3339_opts(chrono::SecondsFormat::Millis, true));
    let (lag, next): (f64, bool) = sqlx::query_as(
        "SELECT extract(epoch FROM r.created_at - r.scheduled_at)::float8, s.next_run_at > r.created_at FROM trigger.runs r \
         JOIN trigger.schedules s ON s.id = r.schedule_id WHERE r.id = $1",
    )
    .bind(first)
    .fetch_one(&hub.db)
    .await
    .unwrap();
    assert!((0.0..60.0).contains(&lag), "the latest tick, not the first that was missed: {lag}");
    assert!(next, "and the next one lies ahead");
    let ticks: Vec<(i64,)> =
        sqlx::query_as("SELECT count(*) FROM trigger.runs GROUP BY scheduled_at").fetch_all(&hub.db).await.unwrap();
    assert!(ticks.iter().all(|(n,)| *n == 1));

    // Killed with a tick due: it fires after the restart. An inactive one does not, and is not made up for later.
    hub.kill();
    hub.sql("UPDATE trigger.schedules SET next_run_at = now() - interval '1 second', last_run_at = NULL, cron = '0 0 1 1 *' WHERE id = $1", &id).await;
    let before: i64 = sqlx::query_scalar("SELECT count(*) FROM trigger.runs").fetch_one(&hub.db).await.unwrap();
    hub.restart().await;
    let count =
        async || sqlx::query_scalar::<_, i64>("SELECT count(*) FROM trigger.runs").fetch_one(&hub.db).await.unwrap();
    hub.eventually("the tick after the restart", async || (count().await == before + 1).then_some(())).await;
    hub.send(Method::POST, &format!("/api/v1/schedules/{id}/deactivate"), key, None).await.ok("ScheduleObject");
    hub.sql("UPDATE trigger.schedules SET next_run_at = now() - interval '1 hour' WHERE id = $1", &id).await;
    let (other, _) = hub.trigger(key, "watchdog", json!({})).await;
    hub.reaches(key, &other, &["COMPLETED"]).await;
    hub.send(Method::POST, &format!("/api/v1/schedules/{id}/activate"), key, None).await.ok("ScheduleObject");
    let (other, _) = hub.trigger(key, "watchdog", json!({})).await;
    hub.reaches(key, &other, &["COMPLETED"]).await;
    assert_eq!(count().await, before + 3, "the two that were triggered and nothing else");
}
