//! Against a server of the local hub's, as a role like those that psn makes.
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use psn_bindings::imports::psn::plugin::db::{Error, Host, HostCursor, HostTransaction, Rows, Value};
use psn_local_hub::pg::{ClusterInfo, Clusters, PgOptions};
use sqlx::{ConnectOptions as _, PgConnection};
use wasmtime::component::Resource;

use crate::capabilities::Deadline;
use crate::capabilities::db::{Db, DbAccess};
use crate::capabilities::testing::{Rig, manifest};
use crate::hub::TlsRoots;
use crate::plugins::manifest::Manifest;
use crate::secret::Secret;

pub(super) const ANN: &str = "00000000-0000-4000-8000-00000000000a";
pub(super) const BOB: &str = "00000000-0000-4000-8000-00000000000b";

const SCHEMA: &str = "
    REVOKE CREATE ON SCHEMA public FROM PUBLIC;
    CREATE TYPE mood AS ENUM ('fine', 'sad');
    CREATE TABLE kinds (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), b bool, i2 int2, i4 int4, i8 int8, f4 float4, f8 float8, n numeric,
        t text, v varchar(20), by bytea, ts timestamptz, d date, j json, jb jsonb, ta text[], ua uuid[], m mood, iv interval);
    CREATE TABLE notes (id int PRIMARY KEY, said text, later int UNIQUE DEFERRABLE INITIALLY DEFERRED);
    CREATE TABLE owned (user_id uuid NOT NULL, said text);
    ALTER TABLE owned ENABLE ROW LEVEL SECURITY; ALTER TABLE owned FORCE ROW LEVEL SECURITY;
    INSERT INTO owned VALUES ('00000000-0000-4000-8000-00000000000a', 'of ann'), ('00000000-0000-4000-8000-00000000000b', 'of bob');
    CREATE TABLE hidden (id int);
    CREATE FUNCTION nap() RETURNS int LANGUAGE sql AS 'SELECT 1 FROM pg_sleep(600)';
    CREATE ROLE psn_plugin_tester LOGIN PASSWORD 'test-password' NOINHERIT;
    CREATE ROLE other NOLOGIN;
    CREATE POLICY own ON owned TO psn_plugin_tester USING (user_id = nullif(current_setting('app.current_user_id', true), '')::uuid);
    GRANT SELECT, INSERT, UPDATE, DELETE ON kinds, notes, owned TO psn_plugin_tester;
";

/// `hidden` is in the manifest and not granted: the database is the second wall.
pub(super) const GRANTS: &str = "[db]
\"kinds\" = { select = [\"id\"], insert = [\"id\"], update = [\"id\"] }
\"notes\" = { select = [\"id\"], insert = [\"id\"], update = [\"id\"], delete = true }
\"owned\" = { select = [\"said\"] }
\"hidden\" = { select = [\"id\"] }
\"nap()\" = { execute = true }
";

pub(super) struct Server {
    home: tempfile::TempDir,
    pub(super) admin: PgConnection,
    pub(super) clusters: Clusters,
    pub(super) info: ClusterInfo,
    tls: TlsRoots,
}

impl Server {
    pub(super) async fn start() -> Self {
        let home = tempfile::tempdir().unwrap();
        // The server runs as another account.
        std::fs::set_permissions(home.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let clusters = Clusters::open(home.path(), PgOptions::default()).unwrap();
        let info = clusters.create("main").await.unwrap();
        let mut admin = info.superuser_options("postgres").connect().await.unwrap();
        sqlx::raw_sql(SCHEMA).execute(&mut admin).await.unwrap();
        let tls = TlsRoots::Pem(clusters.ca_pem());
        Self { home, admin, clusters, info, tls }
    }

    /// The role's connection string, direct or pooled.
    pub(super) fn url(&self, port: u16) -> String {
        format!("postgresql://psn_plugin_tester:test-password@127.0.0.1:{port}/postgres")
    }

    /// As it is recorded.
    pub(super) fn pooler_pid(&self) -> i32 {
        let text = std::fs::read_to_string(self.home.path().join("pg/locks/main.pooler")).unwrap();
        let pid = serde_json::from_str::<serde_json::Value>(&text).unwrap()["pid"].as_i64();
        pid.and_then(|pid| i32::try_from(pid).ok()).unwrap()
    }

    pub(super) fn rig(&self) -> Rig<Db> {
        self.rig_at(self.url(self.info.port))
    }

    pub(super) fn rig_at(&self, url: String) -> Rig<Db> {
        Rig::new(Db::new(&manifest(GRANTS), DbAccess::new(Some(Secret::new(url)), self.tls.clone())))
    }

    pub(super) async fn admin(&mut self, sql: &str) {
        sqlx::raw_sql(sqlx::AssertSqlSafe(sql.to_owned())).execute(&mut self.admin).await.unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let home = self.home.path().to_owned();
        let stopped = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let clusters = Clusters::open(&home, PgOptions::default()).unwrap();
            runtime.block_on(clusters.stop_all()).unwrap()
        });
        let stopped = stopped.join();
        assert!(stopped.is_ok() || std::thread::panicking(), "the server was not stopped");
    }
}

pub(super) fn text(s: &str) -> Value {
    Value::Text(s.to_owned())
}

pub(super) async fn query(rig: &mut Rig<Db>, sql: &str, params: Vec<Value>) -> Result<Rows, Error> {
    Host::query(&mut rig.view(), sql.to_owned(), params).await.unwrap()
}

pub(super) async fn execute(rig: &mut Rig<Db>, sql: &str, params: Vec<Value>) -> Result<u64, Error> {
    Host::execute(&mut rig.view(), sql.to_owned(), params).await.unwrap()
}

pub(super) async fn one(rig: &mut Rig<Db>, sql: &str, params: Vec<Value>) -> Value {
    let mut rows = query(rig, sql, params).await.unwrap_or_else(|e| panic!("{sql}: {e:?}"));
    assert_eq!((rows.rows.len(), rows.columns.len()), (1, 1), "{sql}");
    rows.rows.remove(0).remove(0)
}

pub(super) fn shown(value: &Value) -> String {
    format!("{value:?}")
}

#[tokio::test]
async fn values_statements_and_refusals() {
    let mut server = Server::start().await;
    let mut rig = server.rig();

    // Each kind of value: in, and out again as the column's own.
    let json = |s: &str| Value::Json(s.to_owned());
    let uuid = || Value::Uuid(ANN.to_owned());
    for (column, given, got) in [
        ("id", uuid(), uuid()),
        ("id", text(BOB), Value::Uuid(BOB.to_owned())),
        ("b", Value::Boolean(true), Value::Boolean(true)),
        ("i2", Value::Int64(-3), Value::Int64(-3)),
        ("i4", Value::Int64(70_000), Value::Int64(70_000)),
        ("i4", text("12"), Value::Int64(12)),
        ("i8", Value::Int64(i64::MIN), Value::Int64(i64::MIN)),
        ("f4", Value::Float64(0.5), Value::Float64(0.5)),
        ("f8", Value::Int64(2), Value::Float64(2.0)),
        ("n", Value::Int64(-123_456_789), text("-123456789")),
        ("t", text("héllo"), text("héllo")),
        ("v", uuid(), Value::Null),
        ("v", text("short"), text("short")),
        ("by", Value::Bytes(vec![0, 255]), Value::Bytes(vec![0, 255])),
        ("ts", Value::Timestamp(1_700_000_000_123_456), Value::Timestamp(1_700_000_000_123_456)),
        ("ts", text("2023-11-14T23:13:20+01:00"), Value::Timestamp(1_700_000_000_000_000)),
        ("ts", Value::Timestamp(-1), Value::Timestamp(-1)),
        ("d", text("1999-12-31"), text("1999-12-31")),
        ("j", json("{\"a\": 1}"), json("{\"a\": 1}")),
        ("jb", json("{\"a\":1}"), json("{\"a\": 1}")),
        ("jb", text("[]"), json("[]")),
        ("ta", json("[\"a\",null,\"b\"]"), json("[\"a\",null,\"b\"]")),
        ("ta", json("[]"), json("[]")),
        ("ua", json(&format!("[\"{ANN}\"]")), json(&format!("[\"{ANN}\"]"))),
        ("m", text("sad"), text("sad")),
        ("t", Value::Null, Value::Null),
        ("jb", Value::Null, Value::Null),
    ] {
        let sql = format!("INSERT INTO kinds ({column}) VALUES ($1) RETURNING {column}");
        if column == "v" && shown(&given) == shown(&uuid()) {
            let e = query(&mut rig, &sql, vec![given]).await.unwrap_err();
            assert_eq!(
                (e.code.as_str(), e.sqlstate.as_deref()),
                ("database", Some("22001")),
                "a UUID is longer than 20"
            );
            continue;
        }
        assert_eq!(shown(&one(&mut rig, &sql, vec![given]).await), shown(&got), "{column}");
    }
    assert_eq!(shown(&one(&mut rig, "SELECT 12.340::numeric", vec![]).await), shown(&text("12.340")));
    assert_eq!(shown(&one(&mut rig, "SELECT $1::text::numeric", vec![text("1e3")]).await), shown(&text("1000")));
    let found =
        one(&mut rig, "SELECT count(*) FROM kinds WHERE id = ANY($1)", vec![json(&format!("[\"{ANN}\", \"{BOB}\"]"))])
            .await;
    assert_eq!(shown(&found), shown(&Value::Int64(2)));
    // The form in which the plugins add seconds.
    let moved = one(&mut rig, "SELECT now() + $1 * interval '1 second' > now()", vec![Value::Int64(5)]).await;
    assert_eq!(shown(&moved), shown(&Value::Boolean(true)));

    // What cannot be handed on says how it could be.
    let e = query(&mut rig, "SELECT interval '1 hour' AS pause", vec![]).await.unwrap_err();
    assert!(e.message.contains("pause::text"), "{e:?}");
    for (sql, params) in [
        ("SELECT $1::int4", vec![Value::Int64(1 << 40)]),
        ("SELECT $1::uuid", vec![text("no")]),
        ("SELECT $1::jsonb", vec![text("{")]),
        ("SELECT $1::text", vec![text("a\0b")]),
        ("SELECT $1::text", vec![]),
        ("SELECT 1", vec![Value::Null]),
    ] {
        let e = query(&mut rig, sql, params).await.unwrap_err();
        assert_eq!((e.code.as_str(), e.sqlstate), ("database", None), "{sql}");
    }

    // Refused here, refused there.
    assert_eq!(query(&mut rig, "SELECT id FROM users", vec![]).await.unwrap_err().code, "denied");
    let e = query(&mut rig, "SELECT id FROM hidden", vec![]).await.unwrap_err();
    assert_eq!((e.code.as_str(), e.sqlstate.as_deref()), ("database", Some("42501")));
    let e = execute(&mut rig, "INSERT INTO notes (id) VALUES ($1), ($1)", vec![Value::Int64(1)]).await.unwrap_err();
    assert_eq!(e.sqlstate.as_deref(), Some("23505"));

    // A constraint that waits for the commit fails the statement all the same, and nothing stays behind.
    let e = execute(&mut rig, "INSERT INTO notes (id, later) VALUES (1, 7), (2, 7)", vec![]).await.unwrap_err();
    assert_eq!(e.sqlstate.as_deref(), Some("23505"));
    assert_eq!(
        execute(
            &mut rig,
            "INSERT INTO notes (id, said) SELECT i, 'n' FROM unnest($1::int[]) AS i",
            vec![json("[1,2,3]")]
        )
        .await
        .unwrap(),
        3
    );
    assert_eq!(
        execute(&mut rig, "UPDATE notes SET said = $1 WHERE id > $2", vec![text("top-secret-value"), Value::Int64(1)])
            .await
            .unwrap(),
        2
    );

    // Live secrets do not come back, neither in rows nor in messages.
    rig.secret("KEY", "top-secret-value");
    assert_eq!(shown(&one(&mut rig, "SELECT said FROM notes WHERE id = 2", vec![]).await), shown(&text("[redacted]")));
    let e = query(&mut rig, "SELECT said::int FROM notes WHERE id = 2", vec![]).await.unwrap_err();
    assert!(e.message.contains("[redacted]") && !e.message.contains("top-secret"), "{e:?}");
    assert_eq!(rig.call.leaks.len(), 2, "{:?}", rig.call.leaks);

    // An answer beyond the limit ends the connection, and the next statement has another.
    server.admin("INSERT INTO notes SELECT i FROM generate_series(10, 10020) i").await;
    assert_eq!(query(&mut rig, "SELECT id FROM notes", vec![]).await.unwrap_err().code, "too-large");
    assert_eq!(shown(&one(&mut rig, "SELECT 1", vec![]).await), shown(&Value::Int64(1)));
    // So does a connection that the server has closed meanwhile.
    server.admin("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'psn_plugin_tester'").await;
    assert_eq!(shown(&one(&mut rig, "SELECT 1", vec![]).await), shown(&Value::Int64(1)));
    assert!(rig.call.meter.usage().db_calls > 40);
    assert!(rig.call.meter.usage().db_rows > 20);
}

#[tokio::test]
async fn transactions_users_and_cursors() {
    let server = Server::start().await;
    let mut rig = server.rig();
    let begin = async |rig: &mut Rig<Db>, user: Option<&str>| rig.view().begin(user.map(str::to_owned)).await.unwrap();
    let count = async |rig: &mut Rig<Db>| shown(&one(rig, "SELECT count(*) FROM notes", vec![]).await);
    let insert = "INSERT INTO notes (id) VALUES ($1)";

    // Dropped: rolled back.
    let tx = begin(&mut rig, None).await.unwrap();
    assert!(rig.call.transaction_open);
    let inserted =
        HostTransaction::execute(&mut rig.view(), Resource::new_borrow(tx.rep()), insert.into(), vec![Value::Int64(1)])
            .await
            .unwrap();
    assert_eq!(inserted.unwrap(), 1);
    // Meanwhile others, over another connection, do not see it.
    assert_eq!(count(&mut rig).await, "Value::Int64(0)");
    HostTransaction::drop(&mut rig.view(), tx).await.unwrap();
    assert!(!rig.call.transaction_open);
    assert_eq!(count(&mut rig).await, "Value::Int64(0)");

    // Committed: stays.
    let tx = begin(&mut rig, None).await.unwrap();
    HostTransaction::execute(&mut rig.view(), Resource::new_borrow(tx.rep()), insert.into(), vec![Value::Int64(1)])
        .await
        .unwrap()
        .unwrap();
    rig.view().commit(tx).await.unwrap().unwrap();
    assert_eq!(count(&mut rig).await, "Value::Int64(1)");

    // A statement that is refused ends the transaction and its connection.
    let tx = begin(&mut rig, None).await.unwrap();
    HostTransaction::execute(&mut rig.view(), Resource::new_borrow(tx.rep()), insert.into(), vec![Value::Int64(2)])
        .await
        .unwrap()
        .unwrap();
    for (statement, code) in [("COMMIT", "denied"), ("SELECT 1", "unavailable")] {
        let e =
            HostTransaction::execute(&mut rig.view(), Resource::new_borrow(tx.rep()), statement.into(), vec![]).await;
        assert_eq!(e.unwrap().unwrap_err().code, code, "{statement}");
    }
    assert_eq!(rig.view().commit(tx).await.unwrap().unwrap_err().code, "unavailable");
    assert_eq!(count(&mut rig).await, "Value::Int64(1)");
    // A commit after a failure says that it was none.
    let tx = begin(&mut rig, None).await.unwrap();
    HostTransaction::execute(&mut rig.view(), Resource::new_borrow(tx.rep()), insert.into(), vec![Value::Int64(3)])
        .await
        .unwrap()
        .unwrap();
    HostTransaction::execute(&mut rig.view(), Resource::new_borrow(tx.rep()), insert.into(), vec![Value::Int64(3)])
        .await
        .unwrap()
        .unwrap_err();
    let e = rig.view().commit(tx).await.unwrap().unwrap_err();
    assert_eq!(e.sqlstate.as_deref(), Some("25P02"));
    assert_eq!(count(&mut rig).await, "Value::Int64(1)");

    // As a user: that user's rows, until the transaction ends.
    for (user, words) in [(Some(ANN), vec!["of ann"]), (Some(BOB), vec!["of bob"]), (None, vec![])] {
        let tx = begin(&mut rig, user).await.unwrap();
        let rows = HostTransaction::query(
            &mut rig.view(),
            Resource::new_borrow(tx.rep()),
            "SELECT said FROM owned".into(),
            vec![],
        )
        .await
        .unwrap()
        .unwrap();
        let said: Vec<_> = rows.rows.iter().map(|r| shown(&r[0])).collect();
        assert_eq!(said, words.iter().map(|w| shown(&text(w))).collect::<Vec<_>>());
        HostTransaction::drop(&mut rig.view(), tx).await.unwrap();
    }
    assert!(query(&mut rig, "SELECT said FROM owned", vec![]).await.unwrap().rows.is_empty());
    assert_eq!(begin(&mut rig, Some("ann'; --")).await.unwrap_err().code, "denied");

    // A cursor hands its rows over in pieces, then none.
    let numbers = Value::Json(serde_json::to_string(&(0..25).collect::<Vec<i32>>()).unwrap());
    let cursor = rig
        .view()
        .open_cursor("SELECT i, $2::text AS t FROM unnest($1::int[]) AS i".into(), vec![numbers, text("x")])
        .await
        .unwrap()
        .unwrap();
    let mut sizes = Vec::new();
    loop {
        let rows = rig.view().next(Resource::new_borrow(cursor.rep()), 10).await.unwrap().unwrap();
        assert_eq!(rows.columns, ["i", "t"]);
        sizes.push(rows.rows.len());
        if rows.rows.is_empty() {
            break;
        }
        assert_eq!(shown(&rows.rows[0][0]), shown(&Value::Int64((sizes.len() as i64 - 1) * 10)));
    }
    assert_eq!(sizes, [10, 10, 5, 0]);
    HostCursor::drop(&mut rig.view(), cursor).await.unwrap();
    let e = rig.view().open_cursor("DELETE FROM notes".into(), vec![]).await.unwrap().unwrap_err();
    assert_eq!(e.code, "database");

    // Three at once, and no more.
    let mut open = Vec::new();
    for _ in 0..3 {
        open.push(begin(&mut rig, None).await.unwrap());
    }
    assert_eq!(begin(&mut rig, None).await.unwrap_err().code, "denied");
    HostTransaction::drop(&mut rig.view(), open.remove(0)).await.unwrap();
    assert!(rig.call.transaction_open);
    let tx = begin(&mut rig, None).await.unwrap();
    rig.view().commit(tx).await.unwrap().unwrap();
}

#[tokio::test]
async fn deadlines_powerful_roles_and_no_database() {
    let mut server = Server::start().await;
    let mut rig = server.rig();
    assert_eq!(shown(&one(&mut rig, "SELECT 1", vec![]).await), shown(&Value::Int64(1)));
    rig.call.deadline = Deadline::after(Duration::from_millis(300));
    assert_eq!(query(&mut rig, "SELECT nap()", vec![]).await.unwrap_err().code, "deadline");
    assert_eq!(query(&mut rig, "SELECT 1", vec![]).await.unwrap_err().code, "deadline");
    // The server stops working on it, too.
    let working = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'psn_plugin_tester' AND state = 'active'";
    while sqlx::query_scalar::<_, i64>(working).fetch_one(&mut server.admin).await.unwrap() > 0 {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }

    for (more, less) in [
        ("GRANT other TO psn_plugin_tester", "REVOKE other FROM psn_plugin_tester"),
        ("ALTER ROLE psn_plugin_tester BYPASSRLS", "ALTER ROLE psn_plugin_tester NOBYPASSRLS"),
        ("ALTER ROLE psn_plugin_tester SUPERUSER", "ALTER ROLE psn_plugin_tester NOSUPERUSER"),
        ("ALTER ROLE psn_plugin_tester CREATEROLE", "ALTER ROLE psn_plugin_tester NOCREATEROLE"),
        ("ALTER ROLE psn_plugin_tester CREATEDB", "ALTER ROLE psn_plugin_tester NOCREATEDB"),
        ("ALTER ROLE psn_plugin_tester REPLICATION", "ALTER ROLE psn_plugin_tester NOREPLICATION"),
        ("ALTER TABLE owned OWNER TO psn_plugin_tester", "ALTER TABLE owned OWNER TO CURRENT_USER"),
        ("ALTER DATABASE postgres OWNER TO psn_plugin_tester", "ALTER DATABASE postgres OWNER TO CURRENT_USER"),
    ] {
        server.admin(more).await;
        let e = query(&mut server.rig(), "SELECT 1", vec![]).await.unwrap_err();
        assert_eq!(e.code, "denied", "{more}");
        server.admin(less).await;
        query(&mut server.rig(), "SELECT 1", vec![]).await.unwrap();
    }

    let mut rig = Rig::new(Db::new(&manifest(GRANTS), DbAccess::new(None, TlsRoots::WebPki)));
    let e = query(&mut rig, "SELECT 1", vec![]).await.unwrap_err();
    assert_eq!(e.code, "unavailable");
    assert!(e.message.contains("psn run migrate"));
    let wrong = server.url(server.info.port).replace("test-password", "wrong");
    let e = query(&mut server.rig_at(wrong), "SELECT 1", vec![]).await.unwrap_err();
    assert_eq!(e.code, "unavailable");
    assert!(!e.message.contains("wrong"), "{e:?}");
}

/// As the policy sends them and Postgres types their parameters, on the tables of the migrations.
#[tokio::test]
async fn the_first_party_plugins_statements_run() {
    let mut server = Server::start().await;
    for migration in crate::hub::Migrations::embedded().iter() {
        server.admin(migration.sql.as_str()).await;
    }
    server
        .admin(
            "ALTER ROLE psn_plugin_watchdog LOGIN PASSWORD 'test-password';
             GRANT USAGE ON SCHEMA psn TO psn_plugin_watchdog;
             GRANT ALL ON ALL TABLES IN SCHEMA public, psn TO psn_plugin_watchdog;
             GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA psn TO psn_plugin_watchdog;
             INSERT INTO users (id, email) VALUES ('00000000-0000-4000-8000-00000000000a', 'a@example.com');
             INSERT INTO posts (id, user_id, platform, content, status, scheduled_at, rescue_at)
             VALUES ('00000000-0000-4000-8000-00000000000b', '00000000-0000-4000-8000-00000000000a', 'nowhere', 'c', 'scheduled', now(), now() - interval '1 minute')",
        )
        .await;
    let url = server.url(server.info.port).replace("psn_plugin_tester", "psn_plugin_watchdog");
    let mut ran = Vec::new();
    for (manifest, source) in [
        (
            include_str!("../../../../../plugins/watchdog/plugin.toml"),
            include_str!("../../../../../plugins/watchdog/src/posts.rs"),
        ),
        (
            include_str!("../../../../../plugins/validate/plugin.toml"),
            include_str!("../../../../../plugins/validate/src/database.rs"),
        ),
        (
            include_str!("../../../../../examples/publish-post/plugin.toml"),
            include_str!("../../../../../examples/publish-post/src/lib.rs"),
        ),
    ] {
        let manifest = Manifest::parse(manifest.as_bytes()).unwrap();
        let mut rig = Rig::new(Db::new(&manifest, DbAccess::new(Some(Secret::new(url.clone())), server.tls.clone())));
        for sql in super::statements(source) {
            let params = parameters(&sql);
            let rows = query(&mut rig, &sql, params).await.unwrap_or_else(|e| panic!("{sql}: {e:?}"));
            ran.push(rows);
        }
    }
    assert!(ran.len() >= 10, "{}", ran.len());
    // The lease came first, and found the post that is due.
    let leased = ran[0].rows[0].iter().map(shown);
    let leased: std::collections::BTreeMap<_, _> = ran[0].columns.iter().map(String::as_str).zip(leased).collect();
    for (column, value) in [
        ("id", Value::Uuid(BOB.to_owned())),
        ("attempt", Value::Int64(0)),
        ("run_id", Value::Null),
        ("has_begun", Value::Boolean(false)),
        ("is_late", Value::Boolean(false)),
    ] {
        assert_eq!(leased[column], shown(&value), "{column}: {leased:?}");
    }
    let lag = ran[0].columns.iter().position(|c| c == "lag_s").unwrap();
    assert!(matches!(ran[0].rows[0][lag], Value::Float64(lag) if lag >= 60.0), "{leased:?}");
}

/// What the plugins give for the parameters of a statement: by its function, or told from where they stand.
fn parameters(sql: &str) -> Vec<Value> {
    let count = (1..=9).take_while(|n| sql.contains(&format!("${n}"))).count();
    let function = sql.split("psn.").nth(1).and_then(|rest| rest.split('(').next());
    let kinds = match function {
        Some("lease") => "ii",
        Some("postpone") => "uiib",
        Some("park" | "fail" | "finish") => "uit",
        Some("confirm") => "uitit",
        Some("begin_side_effect") => "ui",
        Some("begin_tick" | "unnotified" | "prune" | "gauges") => "i",
        Some("end_tick") => "u",
        Some("notified") => "j",
        Some(other) => panic!("psn.{other} takes what?"),
        None => "u",
    };
    kinds
        .chars()
        .take(count)
        .map(|kind| match kind {
            'u' => Value::Uuid(BOB.to_owned()),
            'i' => Value::Int64(1),
            'b' => Value::Boolean(false),
            'j' => Value::Json("[]".to_owned()),
            _ => text("words"),
        })
        .collect()
}
