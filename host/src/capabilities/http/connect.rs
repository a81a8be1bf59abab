//! Connections to addresses that were checked, and one exchange over one of them. One [`Dialler`] belongs to one plugin: neither
//! its connections nor its TLS sessions are shared with another.
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Body as _;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{CONTENT_ENCODING, CONTENT_LENGTH, HeaderMap, TRANSFER_ENCODING};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_util::task::AbortOnDropHandle;

use super::inject::Outgoing;
use super::resolve::{Origin, Resolved};
use super::wire::{Allowance, Bounded};
use crate::boundary::{Kind, Phase, passed};
use crate::capabilities::{Exceeded, Meter};

/// How long one address gets to answer while there are others to try.
const ADDRESS_LIMIT: Duration = Duration::from_secs(3);

/// How long all addresses of a service get together, TLS included.
const CONNECT_LIMIT: Duration = Duration::from_secs(15);

/// An idle connection older than this is not used again: servers close theirs, and a request that crosses with that is lost.
const MAX_IDLE: Duration = Duration::from_secs(5);

/// Bytes of a response's body, as it is decoded. A list of 400 projects is about 1 MiB.
pub(super) const MAX_RESPONSE_BODY: u64 = 8 << 20;

/// Headers of a response. Vendors send about 30.
const MAX_RESPONSE_HEADERS: usize = 100;

/// Bytes of a response's head.
const MAX_RESPONSE_HEAD: usize = 32 * 1024;

/// Bytes of one response as they come over the connection: the body in chunks, each with its size, and what the parser takes away
/// without a word, such as interim responses, chunk extensions and trailers.
const MAX_RESPONSE_WIRE: u64 = 2 * MAX_RESPONSE_BODY;

/// Opens connections, and keeps the last one while it is warm.
pub(super) struct Dialler {
    roots: Arc<RootCertStore>,
    tls: OnceLock<Arc<ClientConfig>>,
    idle: Option<Connection>,
}

/// To one origin, at an address that was checked.
pub(super) struct Connection {
    origin: Origin,
    sender: SendRequest<Full<Bytes>>,
    allowance: Allowance,
    reused: bool,
    used: Instant,
    _driver: AbortOnDropHandle<()>,
}

/// No connection; nothing was sent.
#[derive(Debug, thiserror::Error)]
#[error("{origin} could not be reached: {reason}")]
pub(super) struct Unreachable {
    pub(super) origin: String,
    pub(super) reason: String,
}

/// A whole response.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Vec<u8>,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum ExchangeError {
    #[error("the connection was closed before the request was sent")]
    NotSent,
    #[error("the connection leads to {0}, and the request is for another service")]
    Elsewhere(Origin),
    #[error("no whole response came back: {0}")]
    Unanswered(String),
    #[error("the response is encoded as `{0}`, although it was asked for as it is")]
    Encoded(String),
    #[error("the response's {what} is larger than {limit} bytes")]
    TooLarge { what: &'static str, limit: u64 },
    #[error(transparent)]
    Exceeded(#[from] Exceeded),
}

impl Dialler {
    pub(super) fn new() -> Self {
        Self::trusting(public_roots())
    }

    pub(super) fn trusting(roots: Arc<RootCertStore>) -> Self {
        Self { roots, tls: OnceLock::new(), idle: None }
    }

    /// The connection of the call before, if it is to the same origin and warm, or a new one.
    pub(super) async fn connect(&mut self, resolved: &Resolved) -> Result<Connection, Unreachable> {
        if let Some(mut idle) = self.idle.take()
            && idle.origin == *resolved.origin()
            && idle.used.elapsed() < MAX_IDLE
            && idle.sender.ready().await.is_ok()
        {
            idle.reused = true;
            return Ok(idle);
        }
        let origin = resolved.origin();
        let unreachable = |reason: String| Unreachable { origin: origin.to_string(), reason };
        match tokio::time::timeout(CONNECT_LIMIT, self.dial(resolved)).await {
            Ok(Ok(connection)) => Ok(connection),
            Ok(Err(reason)) => Err(unreachable(reason)),
            Err(_) => Err(unreachable(format!("no connection within {} s", CONNECT_LIMIT.as_secs()))),
        }
    }

    /// Takes a connection back whose response was read to its end.
    pub(super) fn keep(&mut self, mut connection: Connection) {
        connection.used = Instant::now();
        self.idle = Some(connection);
    }

    async fn dial(&self, resolved: &Resolved) -> Result<Connection, String> {
        let addresses: Vec<SocketAddr> = resolved.addresses().collect();
        let mut failures = Vec::new();
        for (i, address) in addresses.iter().enumerate() {
            let limit = if i + 1 < addresses.len() { ADDRESS_LIMIT } else { CONNECT_LIMIT };
            match tokio::time::timeout(limit, TcpStream::connect(address)).await {
                Ok(Ok(tcp)) => return self.greet(resolved.origin(), tcp).await,
                Ok(Err(e)) => failures.push(format!("{}: {e}", address.ip())),
                Err(_) => failures.push(format!("{}: no answer within {} s", address.ip(), limit.as_secs())),
            }
        }
        Err(failures.join("; "))
    }

    /// With the sessions that can be resumed: of this plugin's connections only.
    pub(super) fn config(&self) -> Arc<ClientConfig> {
        self.tls.get_or_init(|| Arc::new(config(self.roots.clone()))).clone()
    }

    async fn greet(&self, origin: &Origin, tcp: TcpStream) -> Result<Connection, String> {
        // A request is written at once; there is nothing to gather.
        tcp.set_nodelay(true).map_err(|e| e.to_string())?;
        if !origin.https {
            return speak(origin, tcp).await;
        }
        // Without brackets an IPv6 address is one.
        let name = origin.host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let name = ServerName::try_from(name).map_err(|e| e.to_string())?;
        let stream = TlsConnector::from(self.config()).connect(name, tcp).await.map_err(|e| format!("TLS: {e}"))?;
        speak(origin, stream).await
    }
}

async fn speak(
    origin: &Origin,
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
) -> Result<Connection, String> {
    let allowance = Allowance::default();
    let (sender, connection) = http1::Builder::new()
        .max_headers(MAX_RESPONSE_HEADERS)
        .max_header_size(MAX_RESPONSE_HEAD)
        .handshake(TokioIo::new(Bounded::new(stream, allowance.clone())))
        .await
        .map_err(|e| e.to_string())?;
    let driver = tokio::spawn(async move {
        // Whoever waits for the response is told of an error too.
        let _ = connection.await;
    });
    Ok(Connection {
        origin: origin.clone(),
        sender,
        allowance,
        reused: false,
        used: Instant::now(),
        _driver: AbortOnDropHandle::new(driver),
    })
}

impl Connection {
    /// Whether an earlier request went over it, so that the service may have closed it in the meantime.
    pub(super) fn reused(&self) -> bool {
        self.reused
    }

    /// Sends the request and reads the response to its end. Everything read is counted, and nothing is read beyond the limits.
    pub(super) async fn exchange(
        &mut self,
        outgoing: &Outgoing<'_>,
        meter: &mut Meter,
    ) -> Result<Answer, ExchangeError> {
        if outgoing.origin().as_ref() != Some(&self.origin) {
            return Err(ExchangeError::Elsewhere(self.origin.clone()));
        }
        self.allowance.renew(MAX_RESPONSE_WIRE);
        match self.round_trip(outgoing.request(), meter).await {
            Err(ExchangeError::Unanswered(_)) if self.allowance.is_used_up() => {
                Err(ExchangeError::TooLarge { what: "framing", limit: MAX_RESPONSE_WIRE })
            }
            answer => answer,
        }
    }

    async fn round_trip(&mut self, request: Request<Full<Bytes>>, meter: &mut Meter) -> Result<Answer, ExchangeError> {
        let what = format!("{} {}", request.method(), request.uri());
        passed(Kind::Http, Phase::Before, || what.clone());
        let response = self.sender.try_send_request(request).await.map_err(|mut e| {
            let unsent = e.take_message().is_some();
            let error = e.into_error();
            match () {
                () if unsent => ExchangeError::NotSent,
                () if error.is_parse_too_large() => {
                    ExchangeError::TooLarge { what: "head", limit: MAX_RESPONSE_HEAD as u64 }
                }
                () => ExchangeError::Unanswered(causes(&error)),
            }
        })?;
        let answer = read(response, meter).await?;
        passed(Kind::Http, Phase::After, || what);
        Ok(answer)
    }
}

async fn read(response: Response<hyper::body::Incoming>, meter: &mut Meter) -> Result<Answer, ExchangeError> {
    let (head, mut body) = response.into_parts();
    if head.status.is_informational() {
        return Err(ExchangeError::Unanswered(format!("the service answered {}", head.status)));
    }
    let size: usize = head.headers.iter().map(|(n, v)| n.as_str().len() + v.len()).sum();
    meter.http_in(size as u64)?;
    // What is encoded is not searched for secrets, so it is not shown.
    for (name, plain) in [(CONTENT_ENCODING, "identity"), (TRANSFER_ENCODING, "chunked")] {
        if let Some(value) =
            head.headers.get_all(&name).iter().find(|v| !v.as_bytes().eq_ignore_ascii_case(plain.as_bytes()))
        {
            return Err(ExchangeError::Encoded(
                String::from_utf8_lossy(value.as_bytes()).escape_debug().take(40).collect(),
            ));
        }
    }
    let too_large = ExchangeError::TooLarge { what: "body", limit: MAX_RESPONSE_BODY };
    let stated = head.headers.get(CONTENT_LENGTH).is_some() && body.size_hint().lower() > MAX_RESPONSE_BODY;
    if stated {
        return Err(too_large);
    }
    let mut whole = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|e| ExchangeError::Unanswered(causes(&e)))?;
        // Trailers are not for guests.
        let Ok(data) = frame.into_data() else { continue };
        meter.http_in(data.len() as u64)?;
        if (whole.len() + data.len()) as u64 > MAX_RESPONSE_BODY {
            return Err(too_large);
        }
        whole.extend_from_slice(&data);
    }
    Ok(Answer { status: head.status, headers: head.headers, body: whole })
}

/// An error and what caused it, in one line.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}

fn config(roots: Arc<RootCertStore>) -> ClientConfig {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("ring supports the versions that rustls calls safe")
        .with_root_certificates(roots)
        .with_no_client_auth();
    // A plugin makes one call at a time: HTTP/2 would add only what can go wrong.
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config
}

/// The certificate authorities of the public web. Parsed once.
fn public_roots() -> Arc<RootCertStore> {
    static ROOTS: OnceLock<Arc<RootCertStore>> = OnceLock::new();
    ROOTS.get_or_init(|| Arc::new(webpki_roots::TLS_SERVER_ROOTS.iter().cloned().collect())).clone()
}
