//! Connections that go away: terminated by an administrator, or with the pooler. What is undone by that is done again by psn; what
//! may be done already is not.
use std::time::Duration;

use psn_bindings::imports::psn::plugin::db::{Host, HostTransaction};
use rustix::process::{Pid, Signal, kill_process};
use sqlx::{ConnectOptions as _, PgConnection, Row as _};

use super::postgres::{Server, execute, one, query, shown, text};

const ROLE: &str = "psn_plugin_tester";

/// Ends the role's sessions that are in this state, once there is one.
async fn terminate(admin: &mut PgConnection, state: &str) {
    let sql =
        format!("SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE usename = '{ROLE}' AND {state}");
    let found = async {
        loop {
            let row = sqlx::query(sqlx::AssertSqlSafe(sql.clone())).fetch_one(&mut *admin).await.unwrap();
            if row.get::<i64, _>(0) > 0 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), found).await.expect("a session of the role");
}

async fn idle_in_a_statement_and_in_a_transaction(server: &mut Server, url: String) {
    let mut rig = server.rig_at(url);
    let mut other = server.info.superuser_options("postgres").connect().await.unwrap();
    server.admin("DELETE FROM notes; INSERT INTO notes (id, said) VALUES (1000, 'x')").await;

    // While it is idle: nothing has run.
    let first = "SELECT id FROM notes ORDER BY id LIMIT 1";
    assert_eq!(shown(&one(&mut rig, first, Vec::new()).await), "Value::Int64(1000)");
    terminate(&mut other, "state = 'idle'").await;
    assert_eq!(shown(&one(&mut rig, first, Vec::new()).await), "Value::Int64(1000)");

    // In the middle of a statement: it is undone, and done once.
    server.admin("BEGIN; SELECT FROM notes WHERE id = 1000 FOR UPDATE").await;
    let end = async {
        terminate(&mut other, "wait_event_type = 'Lock'").await;
        server.admin("COMMIT").await;
    };
    let (updated, ()) =
        tokio::join!(execute(&mut rig, "UPDATE notes SET id = id + 1 WHERE id >= 1000", Vec::new()), end);
    assert_eq!(updated.unwrap(), 1);
    assert_eq!(shown(&one(&mut rig, first, Vec::new()).await), "Value::Int64(1001)");

    // In the middle of a transaction of the guest's: only the guest knows what it did before.
    let transaction = Host::begin(&mut rig.view(), None).await.unwrap().unwrap();
    let this = || wasmtime::component::Resource::new_borrow(transaction.rep());
    let insert = "INSERT INTO notes (id) VALUES (1)".to_owned();
    assert_eq!(HostTransaction::execute(&mut rig.view(), this(), insert, Vec::new()).await.unwrap().unwrap(), 1);
    terminate(&mut other, "state = 'idle in transaction'").await;
    let ended = HostTransaction::query(&mut rig.view(), this(), first.to_owned(), Vec::new()).await.unwrap();
    assert_eq!(ended.unwrap_err().code, "unavailable");
    HostTransaction::drop(&mut rig.view(), wasmtime::component::Resource::new_own(transaction.rep())).await.unwrap();
    assert_eq!(shown(&one(&mut rig, first, Vec::new()).await), "Value::Int64(1001)", "its insert is undone");
}

/// A constraint that is checked at the end holds the commit up.
const SLOW_COMMIT: &str = "
    CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(2); RETURN NULL; END $$;
    CREATE CONSTRAINT TRIGGER slow AFTER INSERT ON notes DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION slow();
";

#[tokio::test(flavor = "multi_thread")]
async fn what_a_lost_connection_undid_is_done_again_and_a_commit_on_its_way_is_not() {
    let mut server = Server::start().await;
    let direct = server.url(server.info.port);
    idle_in_a_statement_and_in_a_transaction(&mut server, direct.clone()).await;
    let pooled = server.info.pooler_port.map(|port| server.url(port));
    if let Some(pooled) = &pooled {
        idle_in_a_statement_and_in_a_transaction(&mut server, pooled.clone()).await;
    }

    let mut other = server.info.superuser_options("postgres").connect().await.unwrap();
    server.admin(SLOW_COMMIT).await;
    let mut rig = server.rig_at(direct);
    let insert = execute(&mut rig, "INSERT INTO notes (id) VALUES (5)", Vec::new());
    let (inserted, ()) = tokio::join!(insert, terminate(&mut other, "wait_event = 'PgSleep'"));
    assert_eq!(inserted.unwrap_err().code, "unavailable", "whether it was committed is not known here");
    let found = query(&mut rig, "SELECT id FROM notes WHERE id = $1::text::int4", vec![text("5")]).await.unwrap();
    assert!(found.rows.is_empty(), "it was tried once more");
    server.admin("DROP TRIGGER slow ON notes").await;

    // The pooler is killed between two statements, and is there again a moment later.
    let Some(pooled) = pooled else {
        eprintln!("SKIPPED in part: there is no pgbouncer here; apt-get install pgbouncer");
        return;
    };
    let mut rig = server.rig_at(pooled);
    let count = "SELECT count(*) FROM notes";
    let before = shown(&one(&mut rig, count, Vec::new()).await);
    let pid = server.pooler_pid();
    kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
    let clusters = server.clusters.clone();
    let back = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        clusters.start("main").await.unwrap();
    };
    let (after, ()) = tokio::join!(one(&mut rig, count, Vec::new()), back);
    assert_eq!(shown(&after), before);
    assert_ne!(server.pooler_pid(), pid);
}
