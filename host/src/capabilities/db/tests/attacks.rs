//! What a hostile plugin tries at the database, and what is left of it there.
use std::time::{Duration, Instant};

use psn_bindings::imports::psn::plugin::db::{Host, HostTransaction, Value};
use wasmtime::component::Resource;

use super::postgres::{ANN, BOB, GRANTS, Server, execute, one, query, shown, text};
use crate::capabilities::db::allowed::FUNCTIONS;
use crate::capabilities::db::policy::Policy;
use crate::capabilities::testing::manifest;

/// A server that does not notice is one that never does: it looks every second.
const NOTICES_WITHIN: Duration = Duration::from_secs(10);

impl Server {
    /// The server's processes for the plugin's role.
    async fn backends(&mut self) -> Vec<i32> {
        sqlx::query_scalar("SELECT pid FROM pg_stat_activity WHERE usename = 'psn_plugin_tester' ORDER BY pid")
            .fetch_all(&mut self.admin)
            .await
            .unwrap()
    }

    async fn ends(&mut self, pid: i32, what: &str) {
        let begin = Instant::now();
        while self.backends().await.contains(&pid) {
            assert!(begin.elapsed() < NOTICES_WITHIN, "the server still works for: {what}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

#[tokio::test]
async fn what_was_refused_or_cut_off_leaves_no_connection_and_no_work_behind() {
    let mut server = Server::start().await;
    let mut rig = server.rig();
    server.admin("INSERT INTO notes SELECT i FROM generate_series(1, 10020) i").await;
    let refused = [
        // By the policy, by a grant that is missing, and by a limit.
        ("SELECT pg_sleep(600)", "denied"),
        ("SELECT x.ts_stat FROM unnest(ARRAY['select 1']) AS x", "denied"),
        ("SELECT 1; SELECT 2", "denied"),
        ("SELECT id FROM hidden", "database"),
        ("SELECT id FROM notes", "too-large"),
    ];
    for (sql, code) in refused {
        one(&mut rig, "SELECT 1", vec![]).await;
        let [pid] = server.backends().await[..] else { panic!("one connection: {sql}") };
        assert_eq!(query(&mut rig, sql, vec![]).await.unwrap_err().code, code, "{sql}");
        server.ends(pid, sql).await;
    }
    // A statement that merely fails keeps it.
    one(&mut rig, "SELECT 1", vec![]).await;
    let before = server.backends().await;
    let e = execute(&mut rig, "INSERT INTO notes (id) VALUES (1)", vec![]).await.unwrap_err();
    assert_eq!(e.sqlstate.as_deref(), Some("23505"));
    assert_eq!(server.backends().await, before);

    // A call that is given up in the middle, as the runtime does when the guest's time is up.
    for sql in ["SELECT nap()", "INSERT INTO notes (id) VALUES (20000 + nap())"] {
        {
            let waiting = query(&mut rig, sql, vec![]);
            assert!(tokio::time::timeout(Duration::from_millis(200), waiting).await.is_err(), "{sql}");
        }
        for pid in server.backends().await {
            server.ends(pid, sql).await;
        }
    }
    assert_eq!(shown(&one(&mut rig, "SELECT count(*) FROM notes WHERE id > 20000", vec![]).await), "Value::Int64(0)");
}

#[tokio::test]
async fn as_user_is_not_widened() {
    let mut server = Server::start().await;
    let mut rig = server.rig();
    for attempt in [
        "SELECT set_config('app.current_user_id', '00000000-0000-4000-8000-00000000000b', true)",
        "SELECT x.set_config FROM unnest(ARRAY['app.current_user_id']) AS x",
        "SELECT x.ts_stat FROM unnest(ARRAY['select set_config(''app.current_user_id'', ''00000000-0000-4000-8000-00000000000b'', false)::tsvector']) AS x",
        "SELECT jsonb_array_elements_text.ts_stat FROM jsonb_array_elements_text('[\"select 1\"]'::jsonb)",
        "SET LOCAL app.current_user_id = '00000000-0000-4000-8000-00000000000b'",
        "SET app.current_user_id = '00000000-0000-4000-8000-00000000000b'",
        "RESET app.current_user_id",
        "DISCARD ALL",
        "SET LOCAL row_security = off",
        "SET SESSION AUTHORIZATION DEFAULT",
        "SET ROLE NONE",
        "COMMIT",
        "SELECT said FROM owned; SELECT said FROM owned",
        "SELECT query_to_xml('select * from owned', true, true, '')",
        "SELECT current_setting('app.current_user_id')",
    ] {
        let tx = rig.view().begin(Some(ANN.to_owned())).await.unwrap().unwrap();
        let handle = || Resource::new_borrow(tx.rep());
        let seen = HostTransaction::query(&mut rig.view(), handle(), "SELECT said FROM owned".into(), vec![]).await;
        let seen = seen.unwrap().unwrap();
        assert_eq!(seen.rows.iter().map(|r| shown(&r[0])).collect::<Vec<_>>(), [shown(&text("of ann"))], "{attempt}");
        let e = HostTransaction::query(&mut rig.view(), handle(), attempt.into(), vec![]).await.unwrap().unwrap_err();
        assert_eq!(e.code, "denied", "{attempt}: {}", e.message);
        // There is nothing left to see more with.
        let after = HostTransaction::query(&mut rig.view(), handle(), "SELECT said FROM owned".into(), vec![]).await;
        assert_eq!(after.unwrap().unwrap_err().code, "unavailable");
        HostTransaction::drop(&mut rig.view(), tx).await.unwrap();
    }
    // Nobody is nobody, whatever the role's own settings say.
    server.admin("ALTER ROLE psn_plugin_tester SET app.current_user_id = '00000000-0000-4000-8000-00000000000b'").await;
    let mut rig = server.rig();
    assert!(query(&mut rig, "SELECT said FROM owned", vec![]).await.unwrap().rows.is_empty());
    let tx = rig.view().begin(None).await.unwrap().unwrap();
    let seen = HostTransaction::query(
        &mut rig.view(),
        Resource::new_borrow(tx.rep()),
        "SELECT said FROM owned".into(),
        vec![],
    )
    .await;
    assert!(seen.unwrap().unwrap().rows.is_empty());
    HostTransaction::drop(&mut rig.view(), tx).await.unwrap();
    for user in [BOB.replace('-', ""), format!("{{{BOB}}}"), format!("urn:uuid:{BOB}")] {
        // Other spellings of a user's id mean that user.
        let tx = rig.view().begin(Some(user)).await.unwrap().unwrap();
        let seen = HostTransaction::query(
            &mut rig.view(),
            Resource::new_borrow(tx.rep()),
            "SELECT said FROM owned".into(),
            vec![],
        )
        .await;
        assert_eq!(shown(&seen.unwrap().unwrap().rows[0][0]), shown(&text("of bob")));
        HostTransaction::drop(&mut rig.view(), tx).await.unwrap();
    }
}

/// Each function that this server has, in each way to write a call of it.
#[tokio::test]
async fn no_function_beyond_the_list_can_be_named() {
    let mut server = Server::start().await;
    let names: Vec<String> = sqlx::query_scalar("SELECT DISTINCT proname::text FROM pg_catalog.pg_proc")
        .fetch_all(&mut server.admin)
        .await
        .unwrap();
    assert!(names.len() > 2_000, "{}", names.len());
    let mut policy = Policy::new(&manifest(GRANTS).db);
    let mut passed = Vec::new();
    for name in names.iter().filter(|n| *n != "nap") {
        let quoted = format!("\"{}\"", name.replace('"', "\"\""));
        let mut ways = vec![
            format!("SELECT x.{quoted} FROM unnest($1::text[]) AS x"),
            format!("SELECT unnest.{quoted} FROM unnest($1::int[])"),
            format!("SELECT n.{quoted} FROM notes n"),
        ];
        if !FUNCTIONS.contains(&name.as_str()) {
            ways.extend([format!("SELECT {quoted}($1)"), format!("SELECT * FROM {quoted}($1) AS x(y)")]);
            ways.push(format!("SELECT pg_catalog.{quoted}($1)"));
        }
        passed.extend(ways.into_iter().filter(|sql| policy.check(sql).is_ok()));
    }
    // This one is a column: the elements of an array are called as the function where it has no alias.
    passed.retain(|sql| sql != r#"SELECT unnest."unnest" FROM unnest($1::int[])"#);
    assert!(passed.is_empty(), "{passed:#?}");
}

#[tokio::test]
async fn numbers_and_uuids_that_are_secrets_do_not_come_back() {
    let server = Server::start().await;
    let mut rig = server.rig();
    rig.secret("NUMBER", "1234567890");
    rig.secret("ID", ANN);
    let sql = "SELECT 1234567890::bigint, 1234567::bigint, $1::uuid, $2::uuid, ARRAY[1234567890]";
    let rows = query(&mut rig, sql, vec![text(ANN), text(BOB)]).await.unwrap().rows;
    let row: Vec<String> = rows[0].iter().map(shown).collect();
    let expected = [
        Value::Null,
        Value::Int64(1_234_567),
        text("[redacted]"),
        Value::Uuid(BOB.to_owned()),
        Value::Json("[[redacted]]".to_owned()),
    ];
    assert_eq!(row, expected.map(|v| shown(&v)));
    assert_eq!(rig.call.leaks, ["a database row"]);
}
