//! The pooled port of a cluster that has no pooler now, and had one: each connection goes on to the server as it is, so that connection
//! strings with that port stay good.
use std::io;
use std::net::Ipv4Addr;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

/// After a connection could not be taken, most often because the process has too many files open.
const PAUSE: Duration = Duration::from_millis(100);

/// Listens until it is dropped.
pub(super) struct Forward {
    ports: (u16, u16),
    task: JoinHandle<()>,
}

impl Forward {
    pub(super) async fn start(from: u16, to: u16) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, from)).await?;
        let task = tokio::spawn(async move {
            // Dropped with the task, and the connections with it.
            let mut connections = JoinSet::new();
            loop {
                match listener.accept().await {
                    Ok((client, _)) => {
                        connections.spawn(pass(client, to));
                    }
                    Err(_) => tokio::time::sleep(PAUSE).await,
                }
                while connections.try_join_next().is_some() {}
            }
        });
        Ok(Self { ports: (from, to), task })
    }

    pub(super) fn is(&self, from: u16, to: u16) -> bool {
        self.ports == (from, to) && !self.task.is_finished()
    }

    /// The port is free when this returns.
    pub(super) async fn stop(mut self) {
        self.task.abort();
        let _ = (&mut self.task).await;
    }
}

impl Drop for Forward {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// How it ends is told to both ends by the end itself.
async fn pass(mut client: TcpStream, to: u16) {
    if let Ok(mut server) = TcpStream::connect((Ipv4Addr::LOCALHOST, to)).await {
        let _ = (client.set_nodelay(true), server.set_nodelay(true));
        let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
    }
}
