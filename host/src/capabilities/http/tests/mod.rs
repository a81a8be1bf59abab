//! The whole chain against real sockets on loopback.
mod chain;
mod egress;
mod failures;
mod responses;
mod tls;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use psn_bindings::imports::psn::plugin::http::{Error, Host as _, Method, Request, Response};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_util::task::AbortOnDropHandle;
use url::Url;

use super::{Http, ServiceMap};
use crate::capabilities::testing::{Rig, manifest};

/// What a server saw of one request.
#[derive(Clone, Debug)]
struct Seen {
    /// Request line and headers.
    head: String,
    body: Vec<u8>,
}

impl Seen {
    fn line(&self) -> &str {
        self.head.lines().next().unwrap_or_default()
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.head
            .lines()
            .skip(1)
            .filter_map(|l| l.split_once(": "))
            .find(|(n, _)| n.eq_ignore_ascii_case(name))
            .map(|(_, v)| v)
    }
}

/// What a server does with a request.
enum Reply {
    /// These bytes, and the next request.
    Raw(Vec<u8>),
    /// These bytes, and the connection ends.
    Last(Vec<u8>),
    /// These bytes, and then one byte again and again.
    Drip(Vec<u8>),
    /// These bytes, and then those again and again, as fast as they are taken.
    Flood(Vec<u8>, Vec<u8>),
}

/// Status line, headers and body.
fn reply(status: &str, headers: &[(&str, &str)], body: impl AsRef<[u8]>) -> Reply {
    let body = body.as_ref();
    let mut bytes = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n", body.len()).into_bytes();
    for (name, value) in headers {
        bytes.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
    }
    bytes.extend_from_slice(b"\r\n");
    bytes.extend_from_slice(body);
    Reply::Raw(bytes)
}

fn json(body: &serde_json::Value) -> Reply {
    reply("200 OK", &[("content-type", "application/json")], body.to_string())
}

type Handler = dyn Fn(usize, &Seen) -> Reply + Send + Sync;

#[derive(Default)]
struct Log {
    seen: Mutex<Vec<Seen>>,
    connections: AtomicUsize,
}

/// A service that answers as the test says.
struct Service {
    port: u16,
    log: Arc<Log>,
    _task: AbortOnDropHandle<()>,
}

impl Service {
    async fn start(handler: impl Fn(usize, &Seen) -> Reply + Send + Sync + 'static) -> Self {
        Self::start_over(handler, |tcp| async move { Some(tcp) }).await
    }

    /// With another protocol between TCP and HTTP.
    async fn start_over<S, F>(
        handler: impl Fn(usize, &Seen) -> Reply + Send + Sync + 'static,
        greet: impl Fn(tokio::net::TcpStream) -> F + Send + 'static,
    ) -> Self
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
        F: Future<Output = Option<S>> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let log = Arc::new(Log::default());
        let handler: Arc<Handler> = Arc::new(handler);
        let task = tokio::spawn({
            let log = log.clone();
            async move {
                let mut connections = tokio::task::JoinSet::new();
                while let Ok((tcp, _)) = listener.accept().await {
                    log.connections.fetch_add(1, Ordering::SeqCst);
                    let (log, handler, stream) = (log.clone(), handler.clone(), greet(tcp));
                    connections.spawn(async move {
                        if let Some(stream) = stream.await {
                            // A client that goes away ends the conversation.
                            let _ = serve(stream, &log, handler.as_ref()).await;
                        }
                    });
                }
            }
        });
        Self { port, log, _task: AbortOnDropHandle::new(task) }
    }

    fn seen(&self) -> Vec<Seen> {
        self.log.seen.lock().unwrap().clone()
    }

    fn connections(&self) -> usize {
        self.log.connections.load(Ordering::SeqCst)
    }

    fn base(&self) -> Url {
        format!("http://127.0.0.1:{}/api/v2", self.port).parse().unwrap()
    }
}

async fn serve(mut stream: impl AsyncRead + AsyncWrite + Unpin, log: &Log, handler: &Handler) -> std::io::Result<()> {
    let mut buffer = Vec::new();
    loop {
        let end = loop {
            if let Some(at) = buffer.windows(4).position(|w| w == b"\r\n\r\n") {
                break at + 4;
            }
            if stream.read_buf(&mut buffer).await? == 0 {
                return Ok(());
            }
        };
        let head = String::from_utf8_lossy(&buffer[..end]).into_owned();
        let mut seen = Seen { head, body: Vec::new() };
        let length: usize = seen.header("content-length").map_or(0, |n| n.parse().unwrap());
        while buffer.len() < end + length {
            stream.read_buf(&mut buffer).await?;
        }
        seen.body = buffer[end..end + length].to_vec();
        buffer.drain(..end + length);
        let n = {
            let mut all = log.seen.lock().unwrap();
            all.push(seen.clone());
            all.len() - 1
        };
        match handler(n, &seen) {
            Reply::Raw(bytes) => stream.write_all(&bytes).await?,
            Reply::Last(bytes) => {
                stream.write_all(&bytes).await?;
                return stream.shutdown().await;
            }
            Reply::Flood(bytes, again) => {
                stream.write_all(&bytes).await?;
                loop {
                    stream.write_all(&again).await?;
                }
            }
            Reply::Drip(bytes) => {
                stream.write_all(&bytes).await?;
                loop {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                    stream.write_all(b"x").await?;
                    stream.flush().await?;
                }
            }
        }
        stream.flush().await?;
    }
}

const TABLES: &str = r#"
[[http]]
service = "neon"
base = "https://console.neon.tech/api/v2"
auth = { bearer = "NEON_API_KEY" }
routes = ["GET /projects", "HEAD /projects", "POST /projects", "PUT /projects/{project}", "GET /projects/{project}/connection_uri"]
[http.inject]
"POST /projects" = { "/a" = ["HUB_KEY"] }
"PUT /projects/{project}" = { "/variables/*/value" = ["DATABASE_URL_PLUGIN_*"] }
[http.capture]
"POST /projects" = { "/connection_uris/0/connection_uri" = "DATABASE_URL_DIRECT" }
"GET /projects/{project}/connection_uri?pooled=true" = { "/uri" = "DATABASE_URL" }
[[http]]
service = "other"
base = "https://other.example.com"
auth = { header = { name = "X-Other-Key", secret = "OTHER_KEY" } }
routes = ["GET /", "PUT /things"]
"#;

const KEY: &str = "napi_canary/0001+with=signs";

/// A plugin whose service `neon` is that one.
fn rig(service: &Service) -> Rig<Http> {
    let mut services = ServiceMap::vendors();
    services.set("neon", service.base());
    let rig = Rig::with_secrets(|secrets| Http::new(&manifest(TABLES), &services, secrets).unwrap());
    rig.secret("NEON_API_KEY", KEY);
    rig
}

fn request(method: Method, path: &str) -> Request {
    Request { service: "neon".into(), method, path: path.into(), headers: vec![], body: None, idempotent: false }
}

async fn send(rig: &mut Rig<Http>, request: Request) -> Result<Response, Error> {
    rig.view().send(request).await.unwrap()
}

async fn get(rig: &mut Rig<Http>) -> Result<Response, Error> {
    send(rig, request(Method::Get, "/projects")).await
}
