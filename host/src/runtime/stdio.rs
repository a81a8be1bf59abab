//! The empty WASI that guests of other languages get: no files, environment, arguments or sockets. What they print is kept, up to a
//! limit, and told as log events; nothing of it reaches psn's own output as it comes.
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::io::AsyncWrite;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamResult};
use wasmtime_wasi::{WasiCtx, WasiCtxBuilder};

use crate::capabilities::Call;
use crate::events::Level;

/// What is kept of each of a guest's two streams, in bytes. Enough for a panic message with its backtrace.
const MAX_CAPTURED: usize = 64 << 10;

/// How many of their lines become events.
const MAX_LINES: usize = 200;

/// The longest line, in bytes.
const MAX_LINE: usize = 4 << 10;

/// The most random bytes of one call, in bytes. More is a generator's work, which a guest can seed itself.
const MAX_RANDOM: u64 = 64 << 10;

/// How much a guest may write at once, in bytes.
const WRITE_PERMIT: usize = 64 << 10;

pub(super) struct Wasi {
    pub(super) ctx: WasiCtx,
    stdout: Capture,
    stderr: Capture,
}

impl Wasi {
    pub(super) fn empty() -> Self {
        let (stdout, stderr) = (Capture::default(), Capture::default());
        let ctx = WasiCtxBuilder::new()
            .stdout(stdout.clone())
            .stderr(stderr.clone())
            .allow_tcp(false)
            .allow_udp(false)
            .allow_ip_name_lookup(false)
            .max_random_size(MAX_RANDOM)
            .build();
        Self { ctx, stdout, stderr }
    }

    /// Tells what the guest printed.
    pub(super) fn tell(self, call: &mut Call) {
        for (stream, level, captured) in [("stdout", Level::Info, self.stdout), ("stderr", Level::Warn, self.stderr)] {
            let kept = std::mem::take(&mut *captured.lock());
            let text = String::from_utf8_lossy(&kept.bytes);
            let mut lines = text.lines().filter(|line| !line.trim().is_empty());
            for line in lines.by_ref().take(MAX_LINES) {
                if call.meter.log(line.len() as u64).is_err() {
                    return;
                }
                let line = call.spoken(stream, line, MAX_LINE);
                call.events.log(level, &call.plugin, line);
            }
            let (lines, bytes) = (lines.count(), kept.dropped);
            if lines > 0 || bytes > 0 {
                call.events.log(
                    Level::Warn,
                    &call.plugin,
                    format!("{lines} more lines and {bytes} more bytes of its {stream} were left out"),
                );
            }
        }
    }
}

/// Keeps the first bytes and lets the guest go on writing: one that fails because its log is full would be hard to understand.
#[derive(Clone, Default)]
struct Capture(Arc<Mutex<Kept>>);

#[derive(Default)]
struct Kept {
    bytes: Vec<u8>,
    dropped: u64,
}

impl Capture {
    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn keep(&self, bytes: &[u8]) {
        let mut kept = self.lock();
        let room = MAX_CAPTURED.saturating_sub(kept.bytes.len()).min(bytes.len());
        kept.bytes.extend_from_slice(&bytes[..room]);
        kept.dropped += (bytes.len() - room) as u64;
    }
}

impl IsTerminal for Capture {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for Capture {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(self.clone())
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }
}

impl OutputStream for Capture {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.keep(&bytes);
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(WRITE_PERMIT)
    }
}

#[async_trait::async_trait]
impl Pollable for Capture {
    async fn ready(&mut self) {}
}

impl AsyncWrite for Capture {
    fn poll_write(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
        bytes: &[u8],
    ) -> std::task::Poll<std::io::Result<usize>> {
        self.keep(bytes);
        std::task::Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn poll_shutdown(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::task::Poll::Ready(Ok(()))
    }
}
