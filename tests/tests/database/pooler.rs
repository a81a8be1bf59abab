//! Through a real pgbouncer in transaction mode, with one server connection per role: whatever a transaction leaves behind on it, the
//! next one meets. Without pgbouncer on this machine the test says so, and in CI it fails.
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use psn::hub::{EnvFiles, ProjectDir};
use psn::secret::Secret;
use psn_tests::Machine;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, Row as _};
use url::Url;

use super::{connect, machine};

/// The account that pgbouncer runs as where the tests run as root, which it refuses to be.
const NOBODY: (&str, u32) = ("nobody", 65534);

fn program() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/usr/local/sbin".into()])
        .map(|dir| dir.join("pgbouncer"))
        .find(|file| file.is_file())
}

struct Bouncer {
    child: Child,
    port: u16,
}

impl Drop for Bouncer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn url(m: &Machine, name: &str) -> Url {
    m.secret(name).unwrap_or_else(|| panic!("{name}")).parse().expect("a URL")
}

impl Bouncer {
    fn start(m: &Machine, program: &PathBuf) -> Self {
        let root = rustix::process::geteuid().is_root();
        let folder = m.root().join("bouncer");
        std::fs::create_dir(&folder).expect("a folder");
        let direct = url(m, "DATABASE_URL_DIRECT");
        let tls = m.home().join("local-hub/tls");
        // Every role that psn has a connection string of, with the password in it.
        let hub_env = std::fs::read_to_string(m.project().join("config/hub.env")).expect("a hub");
        let names = hub_env.lines().filter_map(|line| line.split_once('=')).map(|(name, _)| name);
        let users: std::collections::BTreeSet<String> = names
            .filter(|name| name.starts_with("DATABASE_URL"))
            .map(|name| url(m, name))
            .map(|u| format!("\"{}\" \"{}\"", u.username(), u.password().expect("a password")))
            .collect();
        let users: Vec<String> = users.into_iter().collect();
        let port = {
            let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
            free.local_addr().expect("an address").port()
        };
        let at = folder.display();
        let config = format!(
            "[databases]\n* = host=127.0.0.1 port={pg}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n\
             auth_type = scram-sha-256\nauth_file = {at}/users\npool_mode = transaction\ndefault_pool_size = 1\n\
             client_tls_sslmode = require\nclient_tls_key_file = {at}/key\nclient_tls_cert_file = {at}/crt\nserver_tls_sslmode = require\n\
             logfile = {at}/log\n",
            pg = direct.port().expect("a port"),
        );
        for (name, bytes) in [
            ("users", users.join("\n").into_bytes()),
            ("ini", config.into_bytes()),
            ("key", std::fs::read(tls.join("server.key")).expect("the server's key")),
            ("crt", std::fs::read(tls.join("server.crt")).expect("the server's certificate")),
        ] {
            let path = folder.join(name);
            std::fs::write(&path, bytes).expect("written");
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).expect("its own file");
            if root {
                std::os::unix::fs::chown(&path, Some(NOBODY.1), None).expect("root may");
            }
        }
        let mut command = Command::new(program);
        if root {
            std::os::unix::fs::chown(&folder, Some(NOBODY.1), None).expect("root may");
            command.args(["-u", NOBODY.0]);
        }
        let child = command.arg(folder.join("ini")).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let mut bouncer = Self { child: child.expect("pgbouncer starts"), port };
        let until = Instant::now() + Duration::from_secs(20);
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            let log = std::fs::read_to_string(folder.join("log")).unwrap_or_default();
            assert!(Instant::now() < until, "pgbouncer does not listen: {log}");
            assert!(bouncer.child.try_wait().expect("a child").is_none(), "pgbouncer ended: {log}");
            std::thread::sleep(Duration::from_millis(50));
        }
        bouncer
    }

    fn url(&self, m: &Machine, name: &str) -> String {
        let mut url = url(m, name);
        url.set_port(Some(self.port)).expect("a URL with a host");
        url.to_string()
    }
}

/// The one value that a statement answers, or its SQLSTATE.
async fn ask(db: &mut PgConnection, sql: &str) -> Option<String> {
    match sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).fetch_optional(db).await {
        Ok(row) => row.and_then(|row| row.get::<Option<String>, _>(0)),
        Err(sqlx::Error::Database(e)) => e.code().map(std::borrow::Cow::into_owned),
        Err(e) => panic!("{sql}: {e}"),
    }
}

const USER: &str = "SELECT current_setting('app.current_user_id', true)";

#[test]
fn what_psn_does_holds_behind_a_transaction_pooler() {
    let Some(program) = program() else {
        assert!(std::env::var_os("CI").is_none(), "CI needs pgbouncer: apt-get install pgbouncer");
        eprintln!("SKIPPED: there is no pgbouncer here; apt-get install pgbouncer");
        return;
    };
    let m = machine();
    m.psn(&["run", "setup"]).exits(0);
    let bouncer = Bouncer::start(&m, &program);

    let runtime = tokio::runtime::Runtime::new().expect("threads");
    runtime.block_on(transaction_mode(&m, &bouncer));

    // The hub is pointed at the pooler; the roles follow, with the passwords that they have.
    let before = url(&m, "DATABASE_URL_APP");
    let project = ProjectDir::at(&m.project()).expect("a project");
    let pooled = bouncer.url(&m, "DATABASE_URL_DIRECT");
    EnvFiles::new(&project).write("DATABASE_URL", &Secret::new(pooled)).expect("written");
    let migrated = m.psn(&["db", "migrate"]).exits(0);
    assert_eq!(migrated.steps(), [("migrate".to_owned(), "success".to_owned())], "{}", migrated.stdout);
    let after = url(&m, "DATABASE_URL_APP");
    assert_eq!((after.port(), after.password()), (Some(bouncer.port), before.password()));
    assert_ne!(url(&m, "DATABASE_URL_DIRECT").port(), Some(bouncer.port), "migrations go past the pooler");

    // As psn_app, as a plugin through the db capability (prepared statements, transactions), and past the pooler.
    let verified = m.psn(&["db", "verify"]).exits(0);
    let rows = verified.result()["behaviours"].as_array().expect("a list");
    let of = |way: &str| rows.iter().filter(|r| r["way"] == way).count();
    assert!(of("pooled") > 100 && of("pooled") == of("direct"), "{} {}", of("pooled"), of("direct"));
    for _ in 0..3 {
        m.psn(&["run", "watchdog"]).exits(0);
    }

    // Nothing of all that stays on the server's connections: no user, no lock, no prepared statement.
    runtime.block_on(async {
        for name in ["DATABASE_URL_APP", "DATABASE_URL_PLUGIN_WATCHDOG"] {
            let mut db = connect(&m, &bouncer.url(&m, name)).await;
            assert_eq!(ask(&mut db, USER).await.unwrap_or_default(), "", "{name}");
            let left = "SELECT count(*)::text FROM pg_prepared_statements WHERE NOT from_sql";
            assert_eq!(ask(&mut db, left).await.as_deref(), Some("0"), "{name}");
        }
        let mut owner = super::owner(&m).await;
        let locks = "SELECT count(*)::text FROM pg_locks WHERE locktype = 'advisory'";
        assert_eq!(ask(&mut owner, locks).await.as_deref(), Some("0"));
    });
}

/// What a transaction-mode pooler does to those who do not know of it; so the harness is one, and psn's rules are needed.
async fn transaction_mode(m: &Machine, bouncer: &Bouncer) {
    let app = bouncer.url(m, "DATABASE_URL_APP");
    let mut first = connect(m, &app).await;
    let mut second = connect(m, &app).await;

    ask(&mut first, "SET app.current_user_id = 'user-1'").await;
    assert_eq!(ask(&mut second, USER).await.as_deref(), Some("user-1"), "a session's SET leaks");
    ask(&mut first, "SET app.current_user_id = ''").await;
    ask(&mut first, "BEGIN; SET LOCAL app.current_user_id = 'user-2'").await;
    assert_eq!(ask(&mut first, USER).await.as_deref(), Some("user-2"));
    ask(&mut first, "COMMIT").await;
    assert_eq!(ask(&mut second, USER).await.as_deref(), Some(""), "SET LOCAL ends with its transaction");
    ask(&mut first, "SELECT set_config('app.current_user_id', 'user-3', true)").await;
    assert_eq!(ask(&mut first, USER).await.as_deref(), Some(""), "and without one at once");

    ask(&mut first, "PREPARE s1 AS SELECT 1").await;
    assert_eq!(ask(&mut second, "PREPARE s1 AS SELECT 1").await.as_deref(), Some("42P05"), "a name is taken");
    ask(&mut second, "DEALLOCATE s1").await;

    ask(&mut first, "SELECT pg_advisory_lock(42)::text").await;
    first.close().await.expect("it says goodbye");
    let mut owner = super::owner(m).await;
    let try_lock = "BEGIN; SELECT pg_try_advisory_xact_lock(42)::text";
    assert_eq!(ask(&mut owner, try_lock).await.as_deref(), Some("false"), "a session's lock outlives its client");
    ask(&mut owner, "ROLLBACK").await;
    ask(&mut second, "SELECT pg_advisory_unlock(42)::text").await;
    ask(&mut second, "BEGIN; SELECT pg_advisory_xact_lock(42)::text; COMMIT").await;
    assert_eq!(ask(&mut owner, try_lock).await.as_deref(), Some("true"), "a transaction's does not");
    ask(&mut owner, "ROLLBACK").await;
}
