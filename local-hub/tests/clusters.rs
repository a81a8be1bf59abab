//! The supervisor against a real Postgres: start, attach, crash, repair, stop, remove.
mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

use common::{TempHome, client, kill, number, poolers, processes, run, superuser, uid_of, until_gone};
use psn_local_hub::pg::{PgOptions, SUPERUSER, scram_verifier};
use rustix::process::Signal;
use sqlx::ConnectOptions as _;
use sqlx::postgres::PgSslMode;
use tokio_util::sync::CancellationToken;

#[tokio::test]
async fn a_second_psn_attaches_to_the_running_server() {
    let home = TempHome::new();
    let clusters = home.clusters();
    let first = clusters.create("one").await.unwrap();
    let mut db = superuser(&first).await;
    run(&mut db, "CREATE TABLE t (n bigint); INSERT INTO t VALUES (42)").await;

    let other = home.clusters();
    assert!(other.info("one").is_none(), "it has not looked yet");
    let second = other.start("one").await.unwrap();
    assert_eq!((second.pid, second.port), (first.pid, first.port));
    assert_eq!(other.create("one").await.unwrap().pid, first.pid);
    assert_eq!(number(&mut superuser(&second).await, "SELECT n FROM t").await, 42);

    other.stop("one").await.unwrap();
    assert!(clusters.info("one").is_none());
    assert!(processes(&home.cluster_dir("one")).is_empty());
    let third = clusters.start("one").await.unwrap();
    assert_ne!(third.pid, first.pid);
    assert_eq!(third.port, first.port, "connection strings stay valid");
    assert_eq!(number(&mut superuser(&third).await, "SELECT n FROM t").await, 42);
}

#[tokio::test]
async fn committed_data_survives_a_kill_of_the_postmaster_and_of_everything() {
    let home = TempHome::new();
    let clusters = home.clusters();
    let mut info = clusters.create("one").await.unwrap();
    run(&mut superuser(&info).await, "CREATE TABLE t (n bigint)").await;
    for round in 1..=4i64 {
        run(&mut superuser(&info).await, &format!("INSERT INTO t VALUES ({round})")).await;
        if round % 2 == 1 {
            // Its children go on for a moment; the next start must neither run beside them nor give up.
            kill(info.pid, Signal::KILL);
        } else {
            processes(&home.cluster_dir("one")).into_iter().for_each(|pid| kill(pid, Signal::KILL));
        }
        common::until_dead(info.pid).await;
        let again = clusters.start("one").await.unwrap();
        assert_ne!(again.pid, info.pid);
        assert_eq!(again.port, info.port);
        info = again;
        assert_eq!(number(&mut superuser(&info).await, "SELECT count(*) FROM t").await, round);
    }
}

#[tokio::test]
async fn lock_files_that_name_a_stranger_do_not_stop_a_start() {
    let home = TempHome::new();
    let clusters = home.clusters();
    let info = clusters.create("one").await.unwrap();
    let dir = home.cluster_dir("one");
    processes(&dir).into_iter().for_each(|pid| kill(pid, Signal::KILL));
    until_gone(&dir).await;

    // Postgres respects a lock file whose process exists and belongs to the same account.
    let pid_file = dir.join("data/postmaster.pid");
    let owner = std::os::unix::fs::MetadataExt::uid(&fs::metadata(&pid_file).unwrap());
    let mut sleep = Command::new("sleep");
    sleep.arg("600");
    if rustix::process::geteuid().is_root() {
        sleep.uid(owner);
    }
    let mut stranger = sleep.spawn().unwrap();
    for file in [pid_file, info.socket_dir.join(format!(".s.PGSQL.{}.lock", info.port))] {
        let text = fs::read_to_string(&file).unwrap();
        let (_, rest) = text.split_once('\n').unwrap();
        fs::write(&file, format!("{}\n{rest}", stranger.id())).unwrap();
    }
    let again = clusters.start("one").await;
    assert!(stranger.try_wait().unwrap().is_none(), "the stranger was left alone");
    stranger.kill().unwrap();
    stranger.wait().unwrap();
    assert_eq!(number(&mut superuser(&again.unwrap()).await, "SELECT 1::bigint").await, 1);
}

/// Binaries whose initdb writes a line into a file that anybody may append to.
fn counting_binaries(home: &TempHome, real: &Path) -> (PgOptions, std::path::PathBuf) {
    let counter = home.outside().join("initdb-calls");
    fs::write(&counter, "").unwrap();
    fs::set_permissions(&counter, fs::Permissions::from_mode(0o666)).unwrap();
    let bin = home.outside().join("bin");
    fs::create_dir(&bin).unwrap();
    std::os::unix::fs::symlink(real.join("postgres"), bin.join("postgres")).unwrap();
    let script = format!("#!/bin/sh\necho call >> {}\nexec {}/initdb \"$@\"\n", counter.display(), real.display());
    fs::write(bin.join("initdb"), script).unwrap();
    fs::set_permissions(bin.join("initdb"), fs::Permissions::from_mode(0o755)).unwrap();
    (PgOptions { bin: Some(bin), ..PgOptions::default() }, counter)
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_at_once_make_one_cluster_with_one_initdb() {
    let probe = TempHome::new();
    let pid = probe.clusters().create("probe").await.unwrap().pid;
    let real = fs::read_link(format!("/proc/{pid}/exe")).unwrap().parent().unwrap().to_owned();

    let home = TempHome::new();
    let (options, counter) = counting_binaries(&home, &real);
    let ids = ["same", "same", "same", "same", "same", "same", "same", "same", "two", "three"];
    let tasks: Vec<_> = ids
        .into_iter()
        // Each with a value of its own, as ten processes would have.
        .map(|id| (home.clusters_with(options.clone()), id))
        .map(|(clusters, id)| tokio::spawn(async move { clusters.create(id).await }))
        .collect();
    let mut made = Vec::new();
    for task in tasks {
        let info = task.await.unwrap().unwrap();
        made.push((info.id.clone(), info.pid, info.port));
    }
    made.sort();
    made.dedup();
    assert_eq!(made.len(), 3, "{made:?}");
    assert_eq!(fs::read_to_string(counter).unwrap(), "call\n");
}

#[tokio::test]
async fn binaries_that_were_named_but_are_unusable_are_an_error() {
    let home = TempHome::new();
    let bin = home.outside().join("nothing-here");
    let clusters = home.clusters_with(PgOptions { bin: Some(bin.clone()), ..PgOptions::default() });
    let error = clusters.create("one").await.err().unwrap();
    assert_eq!(error.code(), "local.postgres-unusable");
    assert!(error.to_string().contains(bin.to_str().unwrap()), "{error}");
    assert!(error.fix().iter().any(|f| f.starts_with("PSN_PG_BIN=")));
    // Nothing half-made is in the way once the right ones are there.
    home.clusters().create("one").await.unwrap();
}

#[tokio::test]
async fn a_taken_port_is_named_with_its_holder_and_the_cluster_waits_unharmed() {
    let home = TempHome::new();
    let clusters = home.clusters();
    let info = clusters.create("one").await.unwrap();
    clusters.stop("one").await.unwrap();
    let stranger = std::net::TcpListener::bind(("127.0.0.1", info.port)).unwrap();
    let error = clusters.start("one").await.err().unwrap();
    assert_eq!(error.code(), "local.port-taken");
    let said = error.to_string();
    assert!(said.contains(&info.port.to_string()), "{said}");
    assert!(said.contains(&format!("(process {})", std::process::id())), "{said}");
    assert_eq!(error.fix(), ["psn local up --new-ports"]);
    drop(stranger);
    assert_eq!(clusters.start("one").await.unwrap().port, info.port);
}

#[tokio::test]
async fn clients_come_in_with_tls_and_scram_only() {
    let home = TempHome::new();
    let clusters = home.clusters();
    let info = clusters.create("one").await.unwrap();
    let password = "correct horse";
    let sql = format!("CREATE ROLE app LOGIN PASSWORD '{}'", scram_verifier(password));
    run(&mut superuser(&info).await, &sql).await;

    let good = client(&clusters, &info, "app", password);
    let mut db = good.clone().connect().await.unwrap();
    let me: (String, bool) =
        sqlx::query_as("SELECT current_user::text, ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()")
            .fetch_one(&mut db)
            .await
            .unwrap();
    assert_eq!(me, ("app".to_owned(), true));
    // The name in the certificate is checked too.
    good.clone().host("localhost").connect().await.unwrap();

    let code = |e: sqlx::Error| e.as_database_error().and_then(|d| d.code().map(|c| c.into_owned()));
    let wrong = client(&clusters, &info, "app", "wrong horse").connect().await.unwrap_err();
    assert_eq!(code(wrong).as_deref(), Some("28P01"));
    let plain = good.clone().ssl_mode(PgSslMode::Disable).connect().await.unwrap_err();
    assert_eq!(code(plain).as_deref(), Some("28000"));
    // The superuser does not come in from outside, whatever it knows.
    let sql = format!("ALTER ROLE {SUPERUSER} PASSWORD '{}'", scram_verifier("known"));
    run(&mut superuser(&info).await, &sql).await;
    let outside = client(&clusters, &info, SUPERUSER, "known").connect().await.unwrap_err();
    assert_eq!(code(outside).as_deref(), Some("28000"));
    // A certificate of another Home does not vouch for this server.
    let other = TempHome::new();
    let stranger = good.ssl_root_cert(other.clusters().ca_pem()).connect().await.unwrap_err();
    assert!(matches!(stranger, sqlx::Error::Tls(_) | sqlx::Error::Io(_)), "{stranger:?}");
}

#[tokio::test]
async fn libpq_connects_with_channel_binding_as_a_neon_connection_string_asks() {
    let home = TempHome::new();
    let clusters = home.clusters();
    let info = clusters.create("one").await.unwrap();
    let sql = format!("CREATE ROLE app LOGIN PASSWORD '{}'", scram_verifier("pw"));
    run(&mut superuser(&info).await, &sql).await;
    let url = format!(
        "postgresql://app:pw@127.0.0.1:{}/postgres?sslmode=verify-full&channel_binding=require&sslrootcert={}",
        info.port,
        clusters.ca_pem().display()
    );
    let out = Command::new("psql").args(["-XAtc", "SELECT 40 + 2", &url]).output().expect("psql is installed");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    assert_eq!(String::from_utf8_lossy(&out.stdout), "42\n");
}

#[tokio::test]
async fn the_server_is_never_root_and_its_files_are_its_own() {
    let home = TempHome::new();
    let clusters = home.clusters();
    let info = clusters.create("one").await.unwrap();
    let me = rustix::process::geteuid().as_raw();
    let uid = uid_of(info.pid);
    if me == 0 {
        assert_ne!(uid, 0);
    } else {
        assert_eq!(uid, me);
    }
    let mode = |p: &Path| fs::metadata(p).unwrap().permissions().mode() & 0o777;
    let owner = |p: &Path| std::os::unix::fs::MetadataExt::uid(&fs::metadata(p).unwrap());
    let key = home.path().join("tls/server.key");
    assert_eq!((owner(&key), mode(&key)), (uid, 0o600));
    assert_eq!((owner(&home.data("one")), mode(&home.data("one"))), (uid, 0o700));
    assert_eq!((owner(&info.socket_dir), mode(&info.socket_dir)), (uid, 0o700));
    // What psn writes is not where the server's account could put a link instead.
    assert_eq!(owner(&home.cluster_dir("one")), me);
    assert_eq!(mode(&home.path().join("superuser.secret")), 0o600);
    assert_eq!(mode(&home.cluster_dir("one").join("postgres.log")), 0o600);
}

#[tokio::test]
async fn clusters_know_nothing_of_each_other() {
    let home = TempHome::new();
    let clusters = home.clusters();
    let (a, b) = (clusters.create("a").await.unwrap(), clusters.create("b").await.unwrap());
    assert_ne!(a.port, b.port);
    let sql = format!("CREATE ROLE app LOGIN PASSWORD '{}'", scram_verifier("pw"));
    run(&mut superuser(&a).await, &sql).await;
    client(&clusters, &a, "app", "pw").connect().await.unwrap();
    assert!(client(&clusters, &b, "app", "pw").connect().await.is_err());
    let count = "SELECT count(*) FROM pg_roles WHERE rolname = 'app'";
    assert_eq!(number(&mut superuser(&a).await, count).await, 1);
    assert_eq!(number(&mut superuser(&b).await, count).await, 0);
}

#[tokio::test]
async fn a_removed_cluster_leaves_nothing_and_its_name_is_free() {
    let home = TempHome::new();
    let clusters = home.clusters();
    let info = clusters.create("one").await.unwrap();
    run(&mut superuser(&info).await, "CREATE TABLE t ()").await;
    let dir = home.cluster_dir("one");
    clusters.remove("one").await.unwrap();
    assert!(!dir.exists());
    assert!(processes(&dir).is_empty());
    assert!(clusters.info("one").is_none());
    let left: Vec<_> = fs::read_dir(home.path().join("pg/locks")).unwrap().flatten().map(|e| e.file_name()).collect();
    assert!(!left.contains(&"one.lock".into()), "{left:?}");
    clusters.remove("one").await.unwrap();
    assert_eq!(clusters.start("one").await.err().unwrap().code(), "local.no-cluster");
    let again = clusters.create("one").await.unwrap();
    let tables = "SELECT count(*) FROM pg_class WHERE relname = 't'";
    assert_eq!(number(&mut superuser(&again).await, tables).await, 0);
}

#[tokio::test]
async fn the_control_cluster_has_no_network_and_wants_its_password() {
    let home = TempHome::new();
    let clusters = home.clusters();
    let control = clusters.control().await.unwrap();
    let mut db = superuser(&control).await;
    assert_eq!(
        number(&mut db, "SELECT count(*) FROM pg_settings WHERE name = 'listen_addresses' AND setting = ''").await,
        1
    );
    for setting in ["fsync", "full_page_writes", "synchronous_commit", "data_checksums"] {
        let sql = format!("SELECT count(*) FROM pg_settings WHERE name = '{setting}' AND setting = 'on'");
        assert_eq!(number(&mut db, &sql).await, 1, "{setting}");
    }
    let wrong = control.superuser_options("postgres").password("guess").connect().await.unwrap_err();
    assert_eq!(wrong.as_database_error().unwrap().code().as_deref(), Some("28P01"));
}

#[tokio::test]
async fn odd_and_long_folders_work() {
    for name in ["it's, \"odd\" $HOME `x` \\ é", &"d".repeat(150)] {
        let home = TempHome::named(name);
        let clusters = home.clusters();
        let info = clusters.create("one").await.unwrap();
        assert_eq!(number(&mut superuser(&info).await, "SELECT 1::bigint").await, 1);
        assert_eq!(home.clusters().start("one").await.unwrap().pid, info.pid);
        kill(info.pid, Signal::KILL);
        common::until_dead(info.pid).await;
        let again = clusters.start("one").await.unwrap();
        assert_eq!(number(&mut superuser(&again).await, "SELECT 1::bigint").await, 1);
        clusters.remove("one").await.unwrap();
        assert!(!info.socket_dir.exists());
    }
}

#[tokio::test]
async fn what_a_killed_first_run_left_is_cleared_and_what_is_no_cluster_is_kept() {
    let home = TempHome::new();
    let clusters = home.clusters();
    let dir = home.path().join("pg/one");
    fs::create_dir_all(dir.join("data.init-1/base")).unwrap();
    fs::create_dir_all(home.path().join("pg/.deleted-two-1/data")).unwrap();
    clusters.create("one").await.unwrap();
    assert!(!dir.join("data.init-1").exists());
    home.clusters();
    assert!(!home.path().join("pg/.deleted-two-1").exists());

    let mine = home.path().join("pg/mine/data");
    fs::create_dir_all(&mine).unwrap();
    fs::write(mine.join("diary.txt"), "dear diary").unwrap();
    assert_eq!(clusters.create("mine").await.err().unwrap().code(), "local.not-a-cluster");
    assert_eq!(fs::read_to_string(mine.join("diary.txt")).unwrap(), "dear diary");
}

#[tokio::test]
async fn a_lost_superuser_password_makes_new_clusters_that_work() {
    let home = TempHome::new();
    let clusters = home.clusters();
    clusters.create("one").await.unwrap();
    clusters.stop_all().await.unwrap();
    fs::remove_file(home.path().join("superuser.secret")).unwrap();
    let clusters = home.clusters();
    let two = clusters.create("two").await.unwrap();
    assert_eq!(number(&mut superuser(&two).await, "SELECT 1::bigint").await, 1);
}

#[tokio::test]
async fn a_server_that_dies_is_started_again_and_one_that_was_stopped_is_not() {
    let home = TempHome::new();
    let clusters = home.clusters();
    let (dies, stopped) = (clusters.create("dies").await.unwrap(), clusters.create("stopped").await.unwrap());
    let end = CancellationToken::new();
    let supervisor = tokio::spawn(clusters.clone().supervise(end.clone()));
    clusters.stop("stopped").await.unwrap();
    kill(dies.pid, Signal::KILL);
    let again = loop {
        match clusters.info("dies") {
            Some(info) if info.pid != dies.pid => break info,
            _ => tokio::time::sleep(std::time::Duration::from_millis(20)).await,
        }
    };
    assert_eq!(number(&mut superuser(&again).await, "SELECT 1::bigint").await, 1);
    end.cancel();
    supervisor.await.unwrap();
    assert!(clusters.info("stopped").is_none());
    assert!(processes(&home.cluster_dir("stopped")).is_empty());
    assert!(!common::lives(stopped.pid));
}

#[tokio::test]
async fn what_was_stopped_for_good_is_not_started_by_those_who_come_late() {
    let home = TempHome::new();
    let clusters = home.clusters();
    clusters.create("one").await.unwrap();
    let late = clusters.clone();
    clusters.stop_all().await.unwrap();
    for ended in [late.start("one").await, late.create("two").await, late.control().await] {
        assert_eq!(ended.err().unwrap().code(), "local.ends");
    }
    assert!(processes(&home.cluster_dir("one")).is_empty() && poolers(&home.cluster_dir("one")).is_empty());
    home.clusters().start("one").await.unwrap();
}

/// A daemon that is killed leaves its poolers. Whatever became of the rest meanwhile, the next one ends those that nobody needs, and
/// nothing else: no stranger that has the same settings open, none that has the number now, none whose cluster runs.
#[tokio::test]
async fn a_killed_daemons_poolers_are_ended_by_the_next_one_and_nothing_else_is() {
    let home = TempHome::new();
    let clusters = home.clusters();
    let (gone, down, up) = (
        clusters.create("gone").await.unwrap(),
        clusters.create("down").await.unwrap(),
        clusters.create("up").await.unwrap(),
    );
    if gone.pooler_port.is_none() {
        eprintln!("SKIPPED: there is no pgbouncer here; apt-get install pgbouncer");
        return;
    }
    let dir = |id: &str| home.cluster_dir(id);
    let pooler = |id: &str| poolers(&dir(id))[0];
    let [of_gone, of_down, of_up] = ["gone", "down", "up"].map(pooler);
    let settings = dir("down").join("pgbouncer.ini");
    let mut reader = Command::new("tail").arg("-f").arg(&settings).stdout(std::process::Stdio::null()).spawn().unwrap();
    // The machine went on without the daemon: servers ended, a folder was deleted.
    for id in ["gone", "down"] {
        processes(&dir(id)).into_iter().for_each(|pid| kill(pid, Signal::KILL));
        until_gone(&dir(id)).await;
    }
    fs::remove_dir_all(dir("gone")).unwrap();
    assert!(common::lives(of_gone) && common::lives(of_down));
    // Another process has the recorded number of one whose record is stale.
    let stale = fs::canonicalize(home.path().join("pg/locks")).unwrap().join("other.pooler");
    fs::write(&stale, format!("{{\"pid\":{},\"began\":\"1\"}}", reader.id())).unwrap();

    assert_eq!(home.clusters().end_orphans().await, 2);
    common::until_dead(of_gone).await;
    common::until_dead(of_down).await;
    assert!(common::lives(of_up), "it serves a cluster that runs");
    assert!(reader.try_wait().unwrap().is_none(), "a stranger is left alone");
    assert!(!stale.exists());
    assert_eq!(home.clusters().end_orphans().await, 0);

    // Stopping looks at the record, not at who else has the settings open.
    let next = home.clusters();
    let again = next.start("down").await.unwrap();
    assert_eq!(again.pooler_port, down.pooler_port);
    next.stop("down").await.unwrap();
    assert!(reader.try_wait().unwrap().is_none());
    reader.kill().unwrap();
    reader.wait().unwrap();
    assert!(common::lives(up.pid));
}
