//! A person's own migrations: made, linted, applied by setup and by `psn db migrate`, failed and resumed, changed and refused.
use std::path::PathBuf;

use psn_tests::{Answer, Machine};
use serde_json::Value;

use super::{machine, owner};

fn put(m: &Machine, file: &str, sql: &str) -> PathBuf {
    let folder = m.project().join("migrations");
    std::fs::create_dir_all(&folder).expect("a folder");
    let path = folder.join(file);
    std::fs::write(&path, sql).expect("a file");
    path
}

fn versions(answer: &Answer, list: &str) -> Vec<i64> {
    let all = answer.result()[list].as_array().expect("a list");
    all.iter().filter_map(|v| v["version"].as_i64().or(v.as_i64())).collect()
}

fn checks<'a>(answer: &'a Answer, name: &'a str) -> impl Iterator<Item = &'a Value> {
    answer.events.iter().filter(move |e| e["type"] == "check" && e["check"] == name)
}

const FIRST: i64 = 20_990_101_000_000;
const SECOND: i64 = 20_990_101_000_001;

#[test]
fn made_linted_applied_tried_failed_resumed_and_refused() {
    let m = machine();
    let refused = m.psn(&["db", "status"]).exits(1);
    assert_eq!(refused.error()["code"], "config.not-found");
    m.psn(&["run", "setup"]).exits(0);

    // What is scaffolded is sound as it stands.
    assert_eq!(m.psn(&["db", "new", "No Such"]).exits(2).error()["code"], "usage.migration-name");
    let made = m.psn(&["db", "new", "notes"]).exits(0);
    let file = made.result()["file"].as_str().expect("a path").to_owned();
    assert!(m.project().join(&file).is_file());
    assert_eq!(m.psn(&["db", "new", "notes"]).exits(1).error()["code"], "migrate.exists");
    let linted = m.psn(&["db", "lint"]).exits(0);
    assert_eq!(checks(&linted, "lint.psn").filter(|c| c["status"] == "pass").count(), 1, "{}", linted.stdout);
    assert!(checks(&linted, "lint.psn").all(|c| c["status"] != "fail"));

    let pending = m.psn(&["db", "status"]).exits(3);
    assert_eq!(versions(&pending, "pending").len(), 1, "{}", pending.stdout);
    let migrated = m.psn(&["db", "migrate"]).exits(0);
    assert_eq!(migrated.steps(), [("migrate".to_owned(), "success".to_owned())]);
    m.psn(&["db", "status"]).exits(0);
    let again = m.psn(&["db", "migrate"]).exits(0);
    assert_eq!(again.steps(), [("migrate".to_owned(), "skipped".to_owned())]);

    let verified = m.psn(&["db", "verify"]).exits(0);
    let rows = verified.result()["behaviours"].as_array().expect("a list").clone();
    for table in ["users", "posts", "oauth_tokens", "api_keys", "task_runs", "notes"] {
        let tried = rows.iter().filter(|r| r["table"] == table && r["way"] != "psn_plugin_watchdog").count();
        assert!(tried >= 25, "{tried} cases of {table}: {}", verified.stdout);
    }
    assert!(rows.iter().all(|r| r["holds"] == true));
    assert!(rows.iter().any(|r| r["way"] == "psn_plugin_watchdog" && r["got"] == "42501"));
    let left: i64 = block_on(async {
        let mut db = owner(&m).await;
        sqlx::query_scalar(
            "SELECT (SELECT count(*) FROM users) + (SELECT count(*) FROM posts) + (SELECT count(*) FROM notes)",
        )
        .fetch_one(&mut db)
        .await
        .expect("a count")
    });
    assert_eq!(left, 0, "what was tried is undone");

    // The first of two is applied, the second is undone as a whole, and setup goes on there.
    put(&m, "20990101000000_first.sql", "COMMENT ON TABLE public.users IS 'first';\n");
    let second = put(&m, "20990101000001_second.sql", "COMMENT ON TABLE public.posts IS 'second';\nSELEC 1;\n");
    let failed = m.psn(&["run", "setup"]).exits(1);
    assert_eq!(failed.error()["code"], "migrate.failed");
    let message = failed.error()["message"].as_str().unwrap_or_default();
    assert!(message.contains("migrations/20990101000001_second.sql:2"), "{message}");
    let status = m.psn(&["db", "status"]).exits(3);
    assert!(versions(&status, "applied").contains(&FIRST), "{}", status.stdout);
    assert_eq!(versions(&status, "pending"), [SECOND]);
    let comments = |m: &Machine| -> (Option<String>, Option<String>) {
        block_on(async {
            let mut db = owner(m).await;
            sqlx::query_as(
                "SELECT obj_description('users'::regclass, 'pg_class'), obj_description('posts'::regclass, 'pg_class')",
            )
            .fetch_one(&mut db)
            .await
            .expect("a row")
        })
    };
    assert_eq!(comments(&m), (Some("first".to_owned()), None));
    std::fs::write(&second, "COMMENT ON TABLE public.posts IS 'second';\n").expect("written");
    m.psn(&["run", "setup"]).exits(0);
    assert_eq!(comments(&m), (Some("first".to_owned()), Some("second".to_owned())));

    // Applied is applied.
    std::fs::write(&second, "COMMENT ON TABLE public.posts IS 'other';\n").expect("written");
    let changed = m.psn(&["db", "migrate"]).exits(1);
    assert_eq!(changed.error()["code"], "migrate.changed");
    assert_eq!(changed.error()["fix"][0], "git checkout -- migrations/20990101000001_second.sql");
    assert_eq!(m.psn(&["db", "status"]).exits(1).result()["changed"].as_array().map(Vec::len), Some(1));
    std::fs::remove_file(&second).expect("removed");
    assert_eq!(m.psn(&["db", "migrate"]).exits(1).error()["code"], "migrate.missing-file");
    std::fs::write(&second, "COMMENT ON TABLE public.posts IS 'second';\n").expect("written");
    m.psn(&["db", "migrate"]).exits(0);

    // What a migration must not do is found before it is applied, and told where.
    let bad = put(
        &m,
        "20990101000002_bad.sql",
        "CREATE TABLE public.open (id uuid PRIMARY KEY);\nGRANT ALL ON public.open TO PUBLIC;\n",
    );
    let linted = m.psn(&["db", "lint"]).exits(1);
    for rule in ["lint.rls-not-enabled", "lint.rls-not-forced", "lint.grant-too-wide"] {
        assert!(checks(&linted, rule).any(|c| c["status"] == "fail"), "{rule}: {}", linted.stdout);
    }
    let applied = m.psn(&["db", "migrate"]).exits(1);
    assert_eq!(applied.error()["code"], "migrate.catalog", "and where it is applied all the same, the catalog tells");
    assert_eq!(m.psn(&["db", "verify"]).exits(1).error()["code"], "migrate.verify-failed");
    std::fs::remove_file(bad).expect("removed");

    put(&m, "0002_tables.sql", "SELECT 1;\n");
    assert_eq!(m.psn(&["db", "status"]).exits(1).error()["code"], "migrate.bad-file");
}

/// An administrator ends the session while a migration is under way: it is undone, and done again by the same run.
#[test]
fn a_migration_whose_session_is_terminated_is_done_again() {
    let m = machine();
    m.psn(&["run", "setup"]).exits(0);
    let nap = "SELECT pg_catalog.pg_sleep(2)";
    put(
        &m,
        "20990101000000_first.sql",
        &format!(
            "CREATE SCHEMA apart;\nCREATE TABLE apart.first (n int);\nINSERT INTO apart.first VALUES (1);\n{nap};\n"
        ),
    );
    put(&m, "20990101000001_second.sql", "COMMENT ON TABLE apart.first IS 'second';\n");
    let done = std::sync::atomic::AtomicBool::new(false);
    let (migrated, ended) = std::thread::scope(|scope| {
        let admin = scope.spawn(|| {
            block_on(async {
                let mut db = owner(&m).await;
                // Once: what takes it back must come through by itself.
                while !done.load(std::sync::atomic::Ordering::SeqCst) {
                    let ended: Option<bool> = sqlx::query_scalar(
                        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND wait_event = 'PgSleep'",
                    )
                    .fetch_optional(&mut db)
                    .await
                    .expect("the owner may end its own sessions");
                    if ended == Some(true) {
                        return true;
                    }
                    tokio::time::sleep(std::time::Duration::from_millis(20)).await;
                }
                false
            })
        });
        let migrated = m.psn(&["db", "migrate"]);
        done.store(true, std::sync::atomic::Ordering::SeqCst);
        (migrated, admin.join().expect("no panic"))
    });
    let migrated = migrated.exits(0);
    assert!(ended, "nothing was terminated");
    let again = |e: &Value| e["type"] == "log" && e["message"].as_str().is_some_and(|m| m.contains("beginning again"));
    assert_eq!(migrated.events.iter().filter(|e| again(e)).count(), 1, "{}", migrated.stdout);
    let data = &migrated.event(|e| e["step"] == "migrate" && e["status"] == "success")["data"];
    assert_eq!(data["applied"], serde_json::json!([FIRST, SECOND]), "{}", migrated.stdout);
    let rows: i64 = block_on(async {
        sqlx::query_scalar("SELECT count(*) FROM apart.first").fetch_one(&mut owner(&m).await).await.expect("a count")
    });
    assert_eq!(rows, 1, "the first attempt is undone as a whole");
}

/// What is wrong with one plugin's manifest harms no other: it is named, and everything else is done.
#[test]
fn a_plugin_that_asks_for_a_table_that_is_not_there_holds_up_no_other() {
    let m = machine();
    m.psn(&["run", "setup"]).exits(0);
    let role = |m: &Machine, sql: &'static str| -> bool {
        block_on(async { sqlx::query_scalar(sql).fetch_one(&mut owner(m).await).await.expect("an answer") })
    };
    let granted = "SELECT has_column_privilege('psn_plugin_watchdog', 'public.posts', 'id', 'SELECT')";
    assert!(role(&m, granted));
    // The watchdog's own table goes: what it asks for is not there any more.
    put(&m, "20990101000000_gone.sql", "ALTER TABLE public.posts RENAME COLUMN attempt TO attempts;\n");
    let warned = m.psn(&["run", "migrate"]).exits(0);
    let check = checks(&warned, "migrate.unknown-grant").next().unwrap_or_else(|| panic!("{}", warned.stdout));
    assert_eq!((&check["status"], &check["required"]), (&"warn".into(), &false.into()));
    assert!(
        check["message"].as_str().is_some_and(|m| m.contains("watchdog") && m.contains("posts.attempt")),
        "{check}"
    );
    assert!(check["fix"].as_array().is_some_and(|fix| !fix.is_empty()));
    assert!(!role(&m, granted), "a role whose wishes are not understood may do nothing");
    assert!(role(&m, "SELECT has_table_privilege('psn_app', 'public.posts', 'SELECT')"), "the others are as they were");
    // The migration that makes it again, and all is well.
    put(&m, "20990101000001_back.sql", "ALTER TABLE public.posts RENAME COLUMN attempts TO attempt;\n");
    let mended = m.psn(&["run", "migrate"]).exits(0);
    assert!(checks(&mended, "migrate.unknown-grant").next().is_none(), "{}", mended.stdout);
    assert!(role(&m, granted));
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Runtime::new().expect("threads").block_on(work)
}
