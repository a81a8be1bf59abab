use psn_plugin::testing::Hub;

use super::*;

const MADE: [&str; 7] = [
    "HUB_ENCRYPTION_KEY",
    "DATABASE_URL",
    "DATABASE_URL_DIRECT",
    "DATABASE_URL_APP",
    "NEON_API_KEY",
    "TRIGGER_ACCESS_TOKEN",
    "TRIGGER_SECRET_KEY",
];

fn entry(path: &str, kind: &str, present: bool, mode: &str) -> serde_json::Value {
    json!({"path": path, "kind": kind, "present": present, "mode": mode})
}

/// Everything that is not asked over the network is in order.
fn hub() -> Hub {
    with(&MADE)
}

fn without_token() -> Hub {
    let others: Vec<_> = MADE.into_iter().filter(|name| *name != TOKEN).collect();
    with(&others)
}

fn with(secrets: &[&str]) -> Hub {
    let hub = secrets.iter().fold(Hub::new(MANIFEST), |hub, name| hub.secret(name));
    hub.facts("migrations", json!({"applied": [{"version": 1, "description": "schema"}], "pending": [], "changed": []}))
        .facts("catalog", json!({"checks": [
            {"name": "rls.posts", "status": "pass", "message": "posts has row-level security, forced", "fix": [], "required": true},
        ]}))
        .facts("tasks", json!({"content_hash": "h1", "tasks": [
            {"id": "watchdog", "file_path": "x", "cron": "*/15 * * * *"}, {"id": "publish-post", "file_path": "y", "cron": null},
        ]}))
        .facts("config-tree", json!({"entries": [
            entry("config/strategy.yaml", "file", true, "0644"), entry("config/hub.env", "file", true, "0600"),
            entry("config/series/", "dir", true, "0755"),
        ]}))
        .facts("git", json!({"repository": true, "files": [
            {"path": "config/hub.env", "ignored": true, "tracked": false, "in_history": false},
        ]}))
}

fn expect_database(hub: &Hub) {
    hub.expect_sql(&["SELECT id FROM posts LIMIT 1"]).rows(&["id"], vec![]);
}

fn expect_neon(hub: &Hub) {
    hub.expect("neon", "GET /auth").reply(200, json!({"account_id": "a", "auth_method": "api_key_user"}));
}

fn expect_whoami(hub: &Hub) {
    hub.expect("trigger", "GET /api/v2/whoami").reply(200, json!({"userId": "u"}));
}

fn expect_projects(hub: &Hub, names: &[&str]) {
    let projects: Vec<_> =
        names.iter().map(|name| json!({"externalRef": format!("proj_{name}"), "name": name})).collect();
    hub.expect("trigger", "GET /api/v1/projects").reply(200, json!(projects));
}

fn expect_key(hub: &Hub) {
    hub.expect("trigger-env", "GET /api/v1/runs")
        .query("page[size]", "1")
        .reply(200, json!({"data": [], "pagination": {}}));
}

fn expect_current(hub: &Hub, hash: &str) {
    hub.expect("trigger-env", "GET /api/v1/deployments/current")
        .reply(200, json!({"version": "20260101.1", "externalId": hash, "status": "DEPLOYED"}));
}

fn expect_worker(hub: &Hub, slugs: &[&str]) {
    expect_worker_through(hub, "trigger", slugs);
}

fn expect_worker_through(hub: &Hub, service: &str, slugs: &[&str]) {
    let tasks: Vec<_> = slugs.iter().map(|slug| json!({"slug": slug})).collect();
    hub.expect(service, "GET /api/v1/projects/proj_psn-hub-7f3a0c1d/prod/workers/current")
        .reply(200, json!({"worker": {"tasks": tasks}}));
}

fn expect_schedules(hub: &Hub, schedules: &[(&str, bool)]) {
    let data: Vec<_> = schedules
        .iter()
        .map(|(task, active)| json!({"task": task, "active": active, "generator": {"expression": "*/15 * * * *"}}))
        .collect();
    hub.expect("trigger-env", "GET /api/v1/schedules").reply(200, json!({"data": data, "pagination": {}}));
}

const OURS: [&str; 2] = ["other", "psn-hub-7f3a0c1d"];

fn expect_tasks(hub: &Hub) {
    expect_projects(hub, &OURS);
    expect_key(hub);
    expect_current(hub, "h1");
    expect_worker(hub, &["watchdog", "publish-post"]);
    expect_schedules(hub, &[("watchdog", true)]);
}

fn inspect() -> Report {
    match Validate::inspect().unwrap() {
        State::Ready(report) => report,
        other => panic!("{other:?}"),
    }
}

/// Name and status of what is not in order, after the whole list was seen to be well-formed.
fn troubles(report: &Report) -> Vec<(&str, Status)> {
    for check in &report.checks {
        let mark = check.message.chars().next().unwrap();
        match check.status {
            Status::Pass => assert_eq!(mark, '✓', "{check:?}"),
            Status::Fail | Status::Warn => {
                assert_eq!(mark, '✗', "{check:?}");
                assert!(!check.fix.is_empty(), "a ✗ without a fix: {check:?}");
            }
            Status::Skip => assert_eq!(mark, '–', "{check:?}"),
        }
    }
    let names: std::collections::BTreeSet<_> = report.checks.iter().map(|check| &check.name).collect();
    assert_eq!(names.len(), report.checks.len(), "names are unique");
    report
        .checks
        .iter()
        .filter(|check| check.status != Status::Pass)
        .map(|check| (check.name.as_str(), check.status))
        .collect()
}

fn find<'a>(report: &'a Report, name: &str) -> &'a Check {
    report.checks.iter().find(|check| check.name == name).unwrap_or_else(|| panic!("no {name} in {report:#?}"))
}

#[test]
fn a_hub_in_order() {
    let hub = hub();
    expect_database(&hub);
    expect_neon(&hub);
    expect_whoami(&hub);
    expect_tasks(&hub);
    let report = inspect();
    assert_eq!(troubles(&report), []);
    assert_eq!(report.message, "The hub is in order: 12 checks");
    let names: Vec<_> = report.checks.iter().map(|check| check.name.as_str()).collect();
    assert_eq!(
        names,
        [
            "database",
            "migrations",
            "rls.posts",
            "hub-env",
            "key.NEON_API_KEY",
            "key.TRIGGER_ACCESS_TOKEN",
            "trigger.project",
            "trigger.key",
            "deployment",
            "schedule.watchdog",
            "config-tree",
            "git",
        ]
    );
}

#[test]
fn the_database() {
    for (code, sqlstate, local, fix) in [
        ("unavailable", None, true, "psn local up"),
        ("unavailable", None, false, "psn run neon-provision"),
        ("database", Some("42P01"), true, "psn run migrate"),
        ("database", Some("42501"), false, "psn run migrate"),
        ("database", Some("XX000"), false, "psn run migrate"),
    ] {
        let hub = hub();
        let hub = if local { hub.local() } else { hub };
        hub.expect_sql(&["SELECT id FROM posts"]).fail(code, sqlstate);
        expect_neon(&hub);
        expect_whoami(&hub);
        expect_tasks(&hub);
        let report = inspect();
        assert_eq!(troubles(&report), [("database", Status::Fail)]);
        assert_eq!(find(&report, "database").fix[0], fix, "{code} {sqlstate:?}");
    }
}

#[test]
fn migrations_and_catalog() {
    let one = json!([{"version": 2, "description": "posts"}]);
    let none = json!([]);
    for (migrations, words) in [
        (json!({"applied": [], "pending": one, "changed": none}), "not applied yet: 0002 posts"),
        (json!({"applied": one, "pending": none, "changed": one}), "not what was applied: 0002 posts"),
    ] {
        let hub = hub().facts("migrations", migrations).facts("catalog", json!({"checks": [
            {"name": "rls.users", "status": "fail", "message": "users has no row-level security", "required": true},
            {"name": "role.x", "status": "warn", "message": "✗ x may log in", "fix": ["psn run migrate"], "required": false},
        ]}));
        expect_database(&hub);
        expect_neon(&hub);
        expect_whoami(&hub);
        expect_tasks(&hub);
        let report = inspect();
        assert_eq!(
            troubles(&report),
            [("migrations", Status::Fail), ("rls.users", Status::Fail), ("role.x", Status::Warn)]
        );
        assert!(find(&report, "migrations").message.contains(words));
        assert!(find(&report, "rls.users").is_blocking() && !find(&report, "role.x").is_blocking());
    }
}

#[test]
fn a_rejected_key_is_told_from_a_service_that_is_away() {
    for (status, words, fix) in [
        (401, "Neon rejects NEON_API_KEY", "psn keys set NEON_API_KEY --stdin"),
        (500, "answered 500", "Run the same command again later"),
    ] {
        let hub = hub();
        expect_database(&hub);
        hub.expect("neon", "GET /auth").reply(status, json!({"message": "no"}));
        expect_whoami(&hub);
        expect_tasks(&hub);
        let report = inspect();
        let check = find(&report, "key.NEON_API_KEY");
        assert!(check.message.contains(words) && check.fix[0] == fix, "{check:?}");
    }
}

#[test]
fn an_empty_folder_says_what_is_missing_without_asking_anyone() {
    let hub = Hub::new(MANIFEST)
        .facts(
            "config-tree",
            json!({"entries": [
                entry("config/strategy.yaml", "file", false, ""), entry("config/hub.env", "file", false, ""),
                entry("config/series/", "dir", false, ""),
            ]}),
        )
        .facts("git", json!({"repository": false, "files": []}));
    hub.expect_sql(&["SELECT id FROM posts"]).fail("unavailable", None);
    let report = inspect();
    assert_eq!(
        troubles(&report),
        [
            ("database", Status::Fail),
            ("migrations", Status::Fail),
            ("catalog", Status::Fail),
            ("hub-env", Status::Fail),
            ("key.NEON_API_KEY", Status::Fail),
            ("key.TRIGGER_ACCESS_TOKEN", Status::Fail),
            ("trigger.project", Status::Skip),
            ("trigger.key", Status::Fail),
            ("deployment", Status::Skip),
            ("schedule", Status::Skip),
            ("config-tree.config/strategy.yaml", Status::Fail),
            ("config-tree.config/hub.env", Status::Fail),
            ("config-tree.config/series/", Status::Fail),
            ("git", Status::Skip),
        ]
    );
    assert!(find(&report, "config-tree.config/hub.env").is_blocking());
    assert!(!find(&report, "config-tree.config/series/").is_blocking());
    assert_eq!(find(&report, "config-tree.config/series/").fix, ["mkdir -p config/series/"]);
    assert!(!find(&report, "git").is_blocking());
}

#[test]
fn the_project() {
    for (names, setting, expected) in [
        (&["other"][..], None, Status::Fail),
        (&["psn-hub-7f3a0c1d", "psn-hub-7f3a0c1d"], None, Status::Fail),
        (&["psn-hub-7f3a0c1d"], Some("proj_zzz"), Status::Fail),
        (&["other"], Some("proj_other"), Status::Pass),
    ] {
        let hub = setting.into_iter().fold(hub(), |hub, value| hub.setting("trigger.project_ref", value));
        expect_database(&hub);
        expect_neon(&hub);
        expect_whoami(&hub);
        expect_projects(&hub, names);
        expect_key(&hub);
        expect_current(&hub, "h1");
        if expected == Status::Pass {
            hub.expect("trigger", "GET /api/v1/projects/proj_other/prod/workers/current")
                .reply(404, json!({"error": "Worker not found"}));
        }
        expect_schedules(&hub, &[("watchdog", true)]);
        let report = inspect();
        assert_eq!(find(&report, "trigger.project").status, expected, "{names:?} {setting:?}");
        if names.len() == 2 {
            let choose = "psn config set trigger.project_ref proj_psn-hub-7f3a0c1d";
            assert_eq!(find(&report, "trigger.project").fix, [choose, choose]);
        }
        let deployment = find(&report, "deployment");
        assert_eq!(deployment.status == Status::Fail, expected == Status::Pass, "{deployment:?}");
    }
}

/// Setup goes on with the production key where there is no token, so this does too, and says what is left out.
#[test]
fn the_production_key_alone() {
    let ours = "proj_psn-hub-7f3a0c1d";
    let lay = |setting: Option<&str>| {
        let hub = setting.into_iter().fold(without_token(), |hub, value| hub.setting("trigger.project_ref", value));
        expect_database(&hub);
        expect_neon(&hub);
        expect_key(&hub);
        hub
    };
    let hub = lay(Some(ours));
    expect_worker_through(&hub, "trigger-env", &["watchdog", "publish-post"]);
    expect_current(&hub, "h1");
    expect_worker_through(&hub, "trigger-env", &["watchdog", "publish-post"]);
    expect_schedules(&hub, &[("watchdog", true)]);
    let report = inspect();
    assert_eq!(troubles(&report), [("key.TRIGGER_ACCESS_TOKEN", Status::Warn)]);
    assert!(report.checks.iter().all(|check| !check.is_blocking()));
    assert!(find(&report, "deployment").message.contains("watchdog, publish-post"));
    drop(hub);

    // A key does not say which project it is for.
    let hub = lay(None);
    expect_current(&hub, "h1");
    expect_schedules(&hub, &[("watchdog", true)]);
    let report = inspect();
    assert_eq!(troubles(&report), [("key.TRIGGER_ACCESS_TOKEN", Status::Warn), ("trigger.project", Status::Skip)]);
    drop(hub);

    // Another project's.
    let hub = lay(Some(ours));
    hub.expect("trigger-env", &format!("GET /api/v1/projects/{ours}/prod/workers/current"))
        .reply(400, json!({"error": "Invalid project ref for this API key"}));
    expect_current(&hub, "h1");
    expect_schedules(&hub, &[("watchdog", true)]);
    let report = inspect();
    assert_eq!(troubles(&report), [("key.TRIGGER_ACCESS_TOKEN", Status::Warn), ("trigger.project", Status::Fail)]);
    assert_eq!(find(&report, "trigger.project").fix[0], "psn keys set TRIGGER_SECRET_KEY --stdin");
}

#[test]
fn deployment_and_schedule() {
    type Lay = fn(&Hub);
    let cases: [(&str, Status, &str, Lay); 6] = [
        ("deployment", Status::Fail, "No tasks are deployed", |hub| {
            hub.expect("trigger-env", "GET /api/v1/deployments/current").reply(404, json!({}));
            expect_schedules(hub, &[("watchdog", true)]);
        }),
        ("deployment", Status::Fail, "other tasks than this psn", |hub| {
            expect_current(hub, "old");
            expect_schedules(hub, &[("watchdog", true)]);
        }),
        ("deployment", Status::Fail, "lacks publish-post", |hub| {
            expect_current(hub, "h1");
            expect_worker(hub, &["watchdog"]);
            expect_schedules(hub, &[("watchdog", true)]);
        }),
        ("schedule.watchdog", Status::Fail, "has no schedule", |hub| {
            expect_current(hub, "h1");
            expect_worker(hub, &["watchdog", "publish-post"]);
            expect_schedules(hub, &[("other", true)]);
        }),
        ("schedule.watchdog", Status::Warn, "leaves watchdog no schedule", |hub| {
            expect_current(hub, "h1-hourly-10");
            expect_worker(hub, &["watchdog", "publish-post"]);
            expect_schedules(hub, &[("other", true)]);
        }),
        ("schedule.watchdog", Status::Warn, "switched off", |hub| {
            expect_current(hub, "h1");
            expect_worker(hub, &["watchdog", "publish-post"]);
            expect_schedules(hub, &[("watchdog", false)]);
        }),
    ];
    for (name, status, words, lay) in cases {
        let hub = hub();
        expect_database(&hub);
        expect_neon(&hub);
        expect_whoami(&hub);
        expect_projects(&hub, &OURS);
        expect_key(&hub);
        lay(&hub);
        let report = inspect();
        assert_eq!(troubles(&report), [(name, status)]);
        assert!(find(&report, name).message.contains(words), "{report:#?}");
    }
}

#[test]
fn a_replaced_environment_key() {
    let hub = hub();
    expect_database(&hub);
    expect_neon(&hub);
    expect_whoami(&hub);
    expect_projects(&hub, &OURS);
    hub.expect("trigger-env", "GET /api/v1/runs").reply(401, json!({"error": "Invalid API Key"}));
    let report = inspect();
    assert_eq!(
        troubles(&report),
        [("trigger.key", Status::Fail), ("deployment", Status::Skip), ("schedule", Status::Skip)]
    );
    assert_eq!(find(&report, "trigger.key").fix, ["psn run trigger-provision"]);
}

#[test]
fn files_that_others_or_git_can_read() {
    for (mode, open) in
        [("0600", false), ("600", false), ("0400", false), ("0640", true), ("0644", true), ("0604", true)]
    {
        let hub = hub().facts("config-tree", json!({"entries": [entry("config/keys.env", "file", true, mode)]}));
        let check = files::check().remove(0);
        assert_eq!(check.is_blocking(), open, "{mode}");
        if open {
            assert_eq!(check.fix, ["chmod 600 config/keys.env"]);
        }
        drop(hub);
    }
    for (ignored, tracked, in_history, fix) in [
        (true, false, false, None),
        (false, false, false, Some("printf '%s\\n' config/keys.env >> .gitignore")),
        (true, true, true, Some("git rm --cached config/keys.env")),
        (true, false, true, Some("Make new keys for those it held: they are known to whoever has the repository")),
    ] {
        let file = json!({"path": "config/keys.env", "ignored": ignored, "tracked": tracked, "in_history": in_history});
        let hub = hub().facts("git", json!({"repository": true, "files": [file]}));
        let check = files::check().pop().unwrap();
        assert_eq!((check.is_blocking(), check.fix.first().map(String::as_str)), (fix.is_some(), fix));
        drop(hub);
    }
}
