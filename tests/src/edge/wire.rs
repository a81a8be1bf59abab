//! HTTP/1.1 as bytes, as far as a proxy on loopback needs it.
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// Bytes of a head or a body beyond which something is wrong.
const MOST: usize = 16 << 20;
/// The local hub answers within this, or not at all.
const ANSWER: Duration = Duration::from_secs(120);

/// A request as it came in: the head's lines, and the body.
#[derive(Debug)]
pub(super) struct Incoming {
    pub(super) method: String,
    pub(super) target: String,
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
}

#[derive(Clone, Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Reply {
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }
}

fn bad(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}

/// The bytes up to the empty line, and what came along behind it. None where the other side is done.
fn head(stream: &mut impl Read) -> io::Result<Option<(String, Vec<u8>)>> {
    let mut bytes = Vec::new();
    let mut buffer = [0u8; 8192];
    loop {
        if let Some(at) = bytes.windows(4).position(|w| w == b"\r\n\r\n") {
            let rest = bytes.split_off(at + 4);
            return Ok(Some((String::from_utf8(bytes).map_err(|_| bad("a head that is not text"))?, rest)));
        }
        match stream.read(&mut buffer)? {
            0 if bytes.is_empty() => return Ok(None),
            0 => return Err(bad("half a head")),
            n => bytes.extend_from_slice(&buffer[..n]),
        }
        if bytes.len() > MOST {
            return Err(bad("a head without end"));
        }
    }
}

fn headers(head: &str) -> Vec<(String, String)> {
    let lines = head.split("\r\n").skip(1).filter_map(|l| l.split_once(':'));
    lines.map(|(n, v)| (n.trim().to_ascii_lowercase(), v.trim().to_owned())).collect()
}

fn find<'a>(headers: &'a [(String, String)], name: &str) -> Option<&'a str> {
    headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
}

pub(super) fn receive(stream: &mut TcpStream) -> io::Result<Option<Incoming>> {
    let Some((head, mut body)) = head(stream)? else { return Ok(None) };
    let headers = headers(&head);
    let mut words = head.split(' ');
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let length: usize = find(&headers, "content-length").unwrap_or("0").parse().map_err(|_| bad("content-length"))?;
    let have = body.len().min(length);
    body.resize(length, 0);
    stream.read_exact(&mut body[have..])?;
    Ok(Some(Incoming { method: method.to_owned(), target: target.to_owned(), headers, body }))
}

/// One request to a service on loopback, with its whole reply.
pub fn request(
    port: u16,
    method: &str,
    target: &str,
    headers_out: &[(String, String)],
    body: &[u8],
) -> io::Result<Reply> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(ANSWER))?;
    let mut text = format!("{method} {target} HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\nconnection: close\r\n");
    for (name, value) in
        headers_out.iter().filter(|(n, _)| !matches!(n.as_str(), "host" | "connection" | "content-length"))
    {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    text.push_str(&format!("content-length: {}\r\n\r\n", body.len()));
    stream.write_all(text.as_bytes())?;
    stream.write_all(body)?;
    let (head, mut rest) = head(&mut stream)?.ok_or_else(|| bad("no reply"))?;
    stream.read_to_end(&mut rest)?;
    let headers = headers(&head);
    let status = head.split(' ').nth(1).and_then(|s| s.parse().ok()).ok_or_else(|| bad("no status"))?;
    let body = if find(&headers, "transfer-encoding").is_some() { unchunk(&rest)? } else { rest };
    Ok(Reply { status, headers, body })
}

fn unchunk(mut bytes: &[u8]) -> io::Result<Vec<u8>> {
    let mut whole = Vec::new();
    loop {
        let at = bytes.windows(2).position(|w| w == b"\r\n").ok_or_else(|| bad("half a chunk"))?;
        let size = std::str::from_utf8(&bytes[..at]).ok().and_then(|s| usize::from_str_radix(s.trim(), 16).ok());
        let size = size.ok_or_else(|| bad("a chunk's size"))?;
        let chunk = bytes.get(at + 2..at + 2 + size).ok_or_else(|| bad("half a chunk"))?;
        if size == 0 {
            return Ok(whole);
        }
        whole.extend_from_slice(chunk);
        bytes = &bytes[at + 2 + size + 2..];
    }
}

/// The reply's head for a body of this length.
pub(super) fn head_bytes(status: u16, headers: &[(String, String)], length: usize) -> Vec<u8> {
    let mut text = format!("HTTP/1.1 {status} x\r\n");
    for (name, value) in
        headers.iter().filter(|(n, _)| !matches!(n.as_str(), "connection" | "content-length" | "transfer-encoding"))
    {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    text.push_str(&format!("content-length: {length}\r\n\r\n"));
    text.into_bytes()
}
