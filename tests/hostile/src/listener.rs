//! Two services on this machine: one that attacks may call as far as their manifests go, and one that nobody may reach. Both record
//! every byte that arrives.
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::SuiteError;

/// The longest request that is read, in bytes: psn sends less than a tenth of it.
const MAX_REQUEST: usize = 16 << 20;

/// How long a connection may say nothing.
const IDLE: Duration = Duration::from_secs(20);

/// The value that `/secret` answers, to be captured.
pub(crate) const CAPTURED: &str = "captured-canary-7b1f0c55";

/// Everything that arrived on one connection as one request.
#[derive(Clone, Debug)]
pub(crate) struct Arrived {
    /// As far as it was one: `METHOD /path`.
    pub(crate) line: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    /// Bytes beyond the request that its headers tell of: a second one, smuggled in.
    pub(crate) more: bool,
}

#[derive(Clone)]
pub(crate) struct Listener {
    pub(crate) address: SocketAddr,
    arrived: Arc<Mutex<Vec<Arrived>>>,
}

impl Listener {
    /// `open` answers requests; otherwise connections are recorded and closed.
    pub(crate) async fn start(open: bool) -> Result<Self, SuiteError> {
        let socket = TcpListener::bind("127.0.0.1:0").await.map_err(SuiteError::io("a port on this machine"))?;
        let address = socket.local_addr().map_err(SuiteError::io("a port on this machine"))?;
        let listener = Self { address, arrived: Arc::default() };
        let recorder = listener.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = socket.accept().await {
                let recorder = recorder.clone();
                tokio::spawn(async move {
                    // A connection that breaks is the other side's doing.
                    let _ = recorder.serve(stream, open).await;
                });
            }
        });
        Ok(listener)
    }

    /// What arrived since the last time.
    pub(crate) fn take(&self) -> Vec<Arrived> {
        std::mem::take(&mut *self.arrived.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn record(&self, arrived: Arrived) {
        self.arrived.lock().unwrap_or_else(PoisonError::into_inner).push(arrived);
    }

    async fn serve(&self, mut stream: TcpStream, open: bool) -> std::io::Result<()> {
        if !open {
            // The connection alone is too much.
            self.record(Arrived { line: "a connection".to_owned(), headers: vec![], body: vec![], more: false });
            return Ok(());
        }
        loop {
            let Some(request) = tokio::time::timeout(IDLE, read(&mut stream)).await?? else { return Ok(()) };
            self.record(request.clone());
            if !answer(&mut stream, &request).await? {
                return Ok(());
            }
        }
    }
}

async fn read(stream: &mut TcpStream) -> std::io::Result<Option<Arrived>> {
    let mut bytes = Vec::new();
    let mut buffer = vec![0; 64 << 10];
    let head = loop {
        if let Some(end) = bytes.windows(4).position(|w| w == b"\r\n\r\n") {
            break end;
        }
        let n = stream.read(&mut buffer).await?;
        if n == 0 || bytes.len() > MAX_REQUEST {
            let line = String::from_utf8_lossy(&bytes).into_owned();
            return Ok((!bytes.is_empty()).then(|| Arrived { line, headers: vec![], body: bytes, more: true }));
        }
        bytes.extend_from_slice(&buffer[..n]);
    };
    let text = String::from_utf8_lossy(&bytes[..head]).into_owned();
    let mut lines = text.split("\r\n");
    let line = lines.next().unwrap_or_default().rsplit_once(" HTTP/").map_or_else(String::new, |(l, _)| l.to_owned());
    let headers: Vec<(String, String)> = lines
        .map(|l| {
            l.split_once(':').map_or((l.to_owned(), String::new()), |(n, v)| (n.to_lowercase(), v.trim().to_owned()))
        })
        .collect();
    let length: usize =
        headers.iter().find(|(n, _)| n == "content-length").and_then(|(_, v)| v.parse().ok()).unwrap_or(0);
    let mut body = bytes[head + 4..].to_vec();
    while body.len() < length.min(MAX_REQUEST) {
        let n = stream.read(&mut buffer).await?;
        if n == 0 {
            break;
        }
        body.extend_from_slice(&buffer[..n]);
    }
    let more = body.len() > length;
    body.truncate(length);
    Ok(Some(Arrived { line, headers, body, more }))
}

/// Answers by path; false where the connection ends with it.
async fn answer(stream: &mut TcpStream, request: &Arrived) -> std::io::Result<bool> {
    let path = request.line.split(' ').nth(1).unwrap_or_default();
    let path = path.split('?').next().unwrap_or_default().trim_start_matches("/base");
    let credential = request.headers.iter().find(|(n, _)| n == "authorization").map_or("", |(_, v)| v.as_str());
    let credential = credential.trim_start_matches("Bearer ");
    let json = |body: String| {
        format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}", body.len())
    };
    let whole = match path {
        "/echo" => json(
            serde_json::json!({ "headers": request.headers, "body": String::from_utf8_lossy(&request.body) })
                .to_string(),
        ),
        "/echo-encoded" => {
            use base64::Engine as _;
            let base64 = base64::engine::general_purpose::STANDARD.encode(format!("u:{credential}"));
            json(serde_json::json!({ "b": base64, "h": hex::encode(credential), "u": format!("https://user:{credential}@x.example/") }).to_string())
        }
        "/echo-header" => format!(
            "HTTP/1.1 200 OK\r\nset-cookie: t={credential}\r\nx-request-id: {credential}\r\nlocation: https://x.example/?t={credential}\r\ncontent-length: 0\r\n\r\n"
        ),
        "/echo-key" => json(format!("{{\"{credential}\": {{\"{credential}\": [\"{credential}\"]}}}}")),
        "/echo-escaped" => {
            let escaped: String = credential.chars().map(|c| format!("\\u{:04x}", u32::from(c))).collect();
            json(format!("{{\"t\":\"{escaped}\"}}"))
        }
        "/redirect" => {
            "HTTP/1.1 302 Found\r\nlocation: /base/after-the-redirect\r\ncontent-length: 0\r\n\r\n".to_owned()
        }
        "/secret" => json(format!("{{\"token\":\"{CAPTURED}\",\"again\":{{\"{CAPTURED}\":\"x{CAPTURED}x\"}}}}")),
        // What psn itself writes, as if it were a key.
        "/secret-word" => json(serde_json::json!({ "token": "needs_consent" }).to_string()),
        "/secret-quote" => json(serde_json::json!({ "token": "\"type\":\"" }).to_string()),
        "/secret-password" => json(serde_json::json!({ "token": "https://u:memory_peak@x.example/" }).to_string()),
        "/many" => json(format!("[{}1]", "{\"a\":1},".repeat(900_000))),
        "/secret-not-json" => {
            let body = format!("token={CAPTURED}");
            format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len())
        }
        "/later" => "HTTP/1.1 429 Too Many Requests\r\nretry-after: 86400\r\ncontent-length: 0\r\n\r\n".to_owned(),
        "/deep" => json(format!("{}1{}", "[".repeat(200_000), "]".repeat(200_000))),
        "/long-header" => format!("HTTP/1.1 200 OK\r\nlink: {}\r\ncontent-length: 0\r\n\r\n", "x".repeat(1 << 20)),
        "/smuggled" => format!(
            "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nokHTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{CAPTURED}",
            CAPTURED.len()
        ),
        "/gzip" => {
            // 64 MiB of zeroes in 64 KiB.
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
            let zeroes = vec![0; 1 << 20];
            for _ in 0..64 {
                std::io::Write::write_all(&mut encoder, &zeroes)?;
            }
            let body = encoder.finish()?;
            let head = format!("HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: {}\r\n\r\n", body.len());
            stream.write_all(head.as_bytes()).await?;
            stream.write_all(&body).await?;
            return Ok(true);
        }
        "/drip" => {
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n").await?;
            loop {
                stream.write_all(b".").await?;
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
        "/silent" => {
            tokio::time::sleep(IDLE).await;
            return Ok(false);
        }
        "/endless" => {
            stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await?;
            let chunk = [b"10000\r\n".as_slice(), &vec![b'x'; 0x10000], b"\r\n"].concat();
            loop {
                stream.write_all(&chunk).await?;
            }
        }
        _ => json("{\"ok\":true}".to_owned()),
    };
    stream.write_all(whole.as_bytes()).await?;
    Ok(true)
}
