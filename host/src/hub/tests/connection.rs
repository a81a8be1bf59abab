//! Who answers is verified, and what passes by itself is waited for.
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use psn_local_hub::pg::{ClusterInfo, Clusters, PgOptions};
use sqlx::{ConnectOptions as _, Connection as _, PgConnection};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::capabilities::Deadline;
use crate::hub::connection::{ConnectError, HubUrl, TlsRoots, connect_url};
use crate::secret::Secret;

struct Server {
    home: tempfile::TempDir,
    clusters: Clusters,
    info: ClusterInfo,
}

impl Server {
    async fn start() -> Self {
        let home = tempfile::tempdir().unwrap();
        // The server runs as another account.
        std::fs::set_permissions(home.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let clusters = Clusters::open(home.path(), PgOptions::default()).unwrap();
        let info = clusters.create("main").await.unwrap();
        let mut admin = info.superuser_options("postgres").connect().await.unwrap();
        sqlx::raw_sql("CREATE ROLE app LOGIN PASSWORD 'test-password'").execute(&mut admin).await.unwrap();
        admin.close().await.unwrap();
        Self { home, clusters, info }
    }

    fn tls(&self) -> TlsRoots {
        TlsRoots::Pem(self.clusters.ca_pem())
    }

    /// Of the data folder, as Postgres itself notes it.
    fn postmaster(&self) -> rustix::process::Pid {
        rustix::process::Pid::from_raw(i32::try_from(self.clusters.info("main").unwrap().pid).unwrap()).unwrap()
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

fn url(host: &str, port: u16, user: &str, password: &str) -> HubUrl {
    let url = format!("postgresql://{user}:{password}@{host}:{port}/postgres");
    HubUrl::parse("DATABASE_URL", &Secret::new(url)).unwrap()
}

fn seconds(n: u64) -> Deadline {
    Deadline::after(Duration::from_secs(n))
}

#[track_caller]
fn refusal(answer: Result<PgConnection, ConnectError>, code: &str) -> crate::error::CodedError {
    let error = answer.expect_err("a refusal").coded();
    assert_eq!(error.code, code, "{error}");
    assert!(!error.fix.is_empty());
    assert!(!error.message.contains("test-password"), "{error}");
    error
}

fn other_authority(folder: &Path) -> TlsRoots {
    let key = rcgen::KeyPair::generate().unwrap();
    let authority = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap().self_signed(&key).unwrap();
    let path = folder.join("other.pem");
    std::fs::write(&path, authority.pem()).unwrap();
    TlsRoots::Pem(path)
}

/// Hands a connection on to the server, once `wait` is over.
async fn forward(listener: TcpListener, to: u16, wait: Duration) {
    while let Ok((mut client, _)) = listener.accept().await {
        tokio::time::sleep(wait).await;
        if let Ok(mut server) = TcpStream::connect(("127.0.0.1", to)).await {
            tokio::spawn(async move { tokio::io::copy_bidirectional(&mut client, &mut server).await });
        }
    }
}

async fn listen(host: &str) -> (TcpListener, u16) {
    let listener = TcpListener::bind((host, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

#[tokio::test]
async fn who_answers_must_prove_it_and_who_asks_must_know_the_password() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let server = Server::start().await;
    let port = server.info.port;
    let good = url("127.0.0.1", port, "app", "test-password");
    connect_url(&good, &server.tls(), seconds(20)).await.unwrap().close().await.unwrap();

    // Another authority's certificate; the browsers' authorities; the right certificate for another name; no TLS at all.
    let error = refusal(connect_url(&good, &other_authority(server.home.path()), seconds(20)).await, "hub.tls");
    assert_eq!(error.fix[0], "psn local down");
    refusal(connect_url(&good, &TlsRoots::WebPki, seconds(20)).await, "hub.tls");
    let (listener, elsewhere) = listen("127.0.0.2").await;
    let forwarding = tokio::spawn(forward(listener, port, Duration::ZERO));
    refusal(
        connect_url(&url("127.0.0.2", elsewhere, "app", "test-password"), &server.tls(), seconds(20)).await,
        "hub.tls",
    );
    forwarding.abort();
    let (listener, plain) = listen("127.0.0.1").await;
    let refusing = tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let mut request = [0; 8];
            let _ = client.read_exact(&mut request).await;
            let _ = client.write_all(b"N").await;
        }
    });
    refusal(connect_url(&url("127.0.0.1", plain, "app", "test-password"), &server.tls(), seconds(20)).await, "hub.tls");
    refusing.abort();
    let missing = TlsRoots::Pem(server.home.path().join("none.pem"));
    refusal(connect_url(&good, &missing, seconds(20)).await, "hub.tls-roots");

    // Not waited for: another attempt would end the same.
    let started = Instant::now();
    refusal(connect_url(&url("127.0.0.1", port, "app", "wrong"), &server.tls(), seconds(60)).await, "hub.auth");
    refusal(connect_url(&url("127.0.0.1", port, "nobody", "wrong"), &server.tls(), seconds(60)).await, "hub.auth");
    // PgBouncer has a state of its own for both, and the same one for what passes.
    if let Some(pooled) = server.info.pooler_port {
        connect_url(&url("127.0.0.1", pooled, "app", "test-password"), &server.tls(), seconds(20)).await.unwrap();
        refusal(connect_url(&url("127.0.0.1", pooled, "app", "wrong"), &server.tls(), seconds(60)).await, "hub.auth");
        refusal(connect_url(&url("127.0.0.1", pooled, "nobody", "x"), &server.tls(), seconds(60)).await, "hub.auth");
    }
    let mut other = url("127.0.0.1", port, "app", "test-password");
    other.database = "none".to_owned();
    refusal(connect_url(&other, &server.tls(), seconds(60)).await, "hub.refused");
    assert!(started.elapsed() < Duration::from_secs(25), "{:?}", started.elapsed());
}

#[tokio::test]
async fn a_database_that_wakes_up_or_comes_back_is_waited_for() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let server = Server::start().await;
    let port = server.info.port;

    // A compute that was suspended: the first answer takes a while.
    let (listener, slow) = listen("127.0.0.1").await;
    let forwarding = tokio::spawn(forward(listener, port, Duration::from_secs(2)));
    let started = Instant::now();
    let woken = connect_url(&url("127.0.0.1", slow, "app", "test-password"), &server.tls(), seconds(60)).await.unwrap();
    assert!(started.elapsed() >= Duration::from_secs(2));
    woken.close().await.unwrap();
    // And past its deadline it is given up on.
    let answer = connect_url(
        &url("127.0.0.1", slow, "app", "test-password"),
        &server.tls(),
        Deadline::after(Duration::from_millis(500)),
    )
    .await;
    assert!(refusal(answer, "hub.unreachable").retryable);
    forwarding.abort();

    // A pooler or proxy stands before a server that is killed, recovers and says 57P03 meanwhile.
    let (listener, through) = listen("127.0.0.1").await;
    let forwarding = tokio::spawn(forward(listener, port, Duration::ZERO));
    let door = url("127.0.0.1", through, "app", "test-password");
    let mut open = connect_url(&door, &server.tls(), seconds(30)).await.unwrap();
    rustix::process::kill_process(server.postmaster(), rustix::process::Signal::KILL).unwrap();
    let tls = server.tls();
    let waiting = tokio::spawn(async move { connect_url(&door, &tls, seconds(60)).await });
    // A backend learns of its postmaster's death when it next waits, not at once: it may answer a few more times.
    let gone = async {
        while sqlx::query("SELECT 1").execute(&mut open).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), gone).await.expect("the server is gone");
    server.clusters.start("main").await.unwrap();
    let mut back = waiting.await.unwrap().unwrap();
    let one: i32 = sqlx::query_scalar("SELECT 1").fetch_one(&mut back).await.unwrap();
    assert_eq!(one, 1);
    back.close().await.unwrap();
    forwarding.abort();
}

#[test]
fn what_passes_is_told_from_what_does_not_by_sqlstate() {
    use crate::hub::connection::passes;
    for sqlstate in ["57P01", "57P02", "57P03", "53300", "08006", "08P01"] {
        assert!(passes(sqlstate), "{sqlstate}");
    }
    for sqlstate in ["28P01", "28000", "3D000", "42501", "57014"] {
        assert!(!passes(sqlstate), "{sqlstate}");
    }
}
