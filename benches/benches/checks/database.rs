//! A query through the capability against sqlx, as the same role at the same server, over TLS on loopback.
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use psn::capabilities::db::{Db, DbAccess};
use psn::capabilities::{Deadline, Meter, MeterLimits, View};
use psn::hub::TlsRoots;
use psn::hub::connection::{HubUrl, connect_url};
use psn::plugins::manifest::Manifest;
use psn::secret::Secret;
use psn_bindings::imports::psn::plugin::db::{Host, Value};
use psn_local_hub::pg::{Clusters, PgOptions};
use sqlx::{ConnectOptions as _, PgConnection, Row as _};
use wasmtime::component::ResourceTable;

const SCHEMA: &str = "
    CREATE TABLE notes (id int PRIMARY KEY, said text NOT NULL, at timestamptz NOT NULL DEFAULT now());
    INSERT INTO notes SELECT i, 'a note of some length, number ' || i FROM generate_series(1, 1000) i;
    ANALYZE notes;
    CREATE ROLE psn_plugin_bench LOGIN PASSWORD 'bench-password' NOINHERIT;
    GRANT SELECT ON notes TO psn_plugin_bench;
";
const SQL: &str = "SELECT id, said, at FROM notes WHERE id <= $1 ORDER BY id";
const MANIFEST: &str = "[plugin]\nname = \"bench\"\nversion = \"0\"\nworld = \"psn:plugin/step@0.1.0\"\nsummary = \"\"\n\
    [db]\n\"notes\" = { select = [\"id\", \"said\", \"at\"] }\n";

/// A query as a program without psn makes it: a statement prepared once, without a limit of any kind.
async fn bare(connection: &mut PgConnection, rows: i32) {
    let found = sqlx::query(SQL).bind(rows).fetch_all(connection).await.expect("rows");
    read(&found, rows);
}

/// The same under the same bounds, which behind a transaction-mode pooler is: in a transaction that sets them, prepared in there.
async fn bounded(connection: &mut PgConnection, rows: i32) {
    sqlx::raw_sql(
        "BEGIN; SET LOCAL search_path = pg_catalog, public, pg_temp; SET LOCAL standard_conforming_strings = on; SET LOCAL row_security = on; \
         SET LOCAL TIME ZONE 'UTC'; SET LOCAL statement_timeout = 60000; SET LOCAL lock_timeout = 10000; \
         SET LOCAL client_connection_check_interval = 1000; SET LOCAL app.current_user_id = ''",
    )
    .execute(&mut *connection)
    .await
    .expect("a transaction");
    let found = sqlx::query(SQL).bind(rows).persistent(false).fetch_all(&mut *connection).await.expect("rows");
    read(&found, rows);
    sqlx::raw_sql("COMMIT").execute(connection).await.expect("its end");
}

/// Values are made of the rows, as the capability makes them.
fn read(found: &[sqlx::postgres::PgRow], rows: i32) {
    assert_eq!(found.len(), rows as usize);
    for row in found {
        std::hint::black_box((
            row.get::<i32, _>(0),
            row.get::<String, _>(1),
            row.get::<chrono::DateTime<chrono::Utc>, _>(2),
        ));
    }
}

pub(crate) async fn bench() {
    let home = tempfile::tempdir().expect("a folder");
    // As root, the server runs as another account.
    std::fs::set_permissions(home.path(), std::fs::Permissions::from_mode(0o755)).expect("its mode");
    let clusters = Clusters::open(home.path(), PgOptions::default()).expect("clusters");
    let info = clusters.create("bench").await.expect("a cluster");
    let mut admin = info.superuser_options("postgres").connect().await.expect("its superuser");
    sqlx::raw_sql(SCHEMA).execute(&mut admin).await.expect("a table");
    drop(admin);
    let url = Secret::new(format!("postgresql://psn_plugin_bench:bench-password@127.0.0.1:{}/postgres", info.port));
    let tls = TlsRoots::Pem(clusters.ca_pem());
    measure(&url, &tls).await;
    clusters.stop_all().await.expect("the cluster stops");
}

async fn measure(url: &Secret, tls: &TlsRoots) {
    let manifest = Manifest::parse(MANIFEST.as_bytes()).expect("a manifest");
    let parsed = HubUrl::parse("bench", url).expect("a URL");
    let connect = || connect_url(&parsed, tls, Deadline::after(Duration::from_secs(30)));
    let mut direct = connect().await.expect("a connection");
    // Of its own: a statement that is kept on a connection is not prepared again, whatever the query says of it.
    let mut in_transactions = connect().await.expect("a connection");
    let mut db = Db::new(&manifest, DbAccess::new(Some(url.clone()), tls.clone()));
    let limits = MeterLimits { db_calls: u64::MAX, db_rows: u64::MAX, ..MeterLimits::default() };
    let mut call = crate::guest::call(Meter::new(limits));
    let mut table = ResourceTable::new();
    for (rows, batch, rounds, goal) in [(1, 20, 41, "< 1.25x"), (1_000, 5, 31, "< 1.1x")] {
        let (mut bare_times, mut bounded_times, mut ours) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..rounds {
            call.deadline = Deadline::after(Duration::from_secs(60));
            bare_times.push(
                crate::timed(async {
                    for _ in 0..batch {
                        bare(&mut direct, rows).await
                    }
                })
                .await,
            );
            bounded_times.push(
                crate::timed(async {
                    for _ in 0..batch {
                        bounded(&mut in_transactions, rows).await
                    }
                })
                .await,
            );
            let through = async {
                for _ in 0..batch {
                    let mut view = View { cap: &mut db, call: &mut call, table: &mut table };
                    let reply = view.query(SQL.to_owned(), vec![Value::Int64(rows.into())]).await.expect("no trap");
                    assert_eq!(reply.expect("rows").rows.len(), rows as usize);
                }
            };
            ours.push(crate::timed(through).await);
        }
        let per = |times: Vec<Duration>| crate::median(times).as_secs_f64() * 1e6 / f64::from(batch);
        let (bare, bounded, ours) = (per(bare_times), per(bounded_times), per(ours));
        crate::show_ratio(
            &format!("{rows} rows: capability ({ours:.0} us) / sqlx in a bounded transaction ({bounded:.0} us)"),
            ours / bounded,
            goal,
        );
        crate::show_ratio(
            &format!("{rows} rows: capability / sqlx without any bound, prepared once ({bare:.0} us)"),
            ours / bare,
            goal,
        );
    }
}
