//! A proxy in front of a hub's Postgres. What goes through it is encrypted; a call is what the client says until the server speaks.
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use super::Victim;
use crate::points::Moment;

/// What goes wrong with one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SqlFault {
    /// Nothing listens, from the start.
    Refused,
    /// The server does not want to talk TLS.
    NoTls,
    /// The connection is gone before the call.
    LostBefore,
    /// The connection is gone when the server has done it.
    LostAfter,
}

#[derive(Default)]
struct State {
    calls: usize,
    connections: usize,
    die_at: Option<(usize, Moment)>,
    fault: Option<(usize, SqlFault)>,
    fired: bool,
}

/// One for many databases, one after the other.
pub struct SqlEdge {
    port: u16,
    upstream: Arc<AtomicU16>,
    state: Arc<Mutex<State>>,
}

impl SqlEdge {
    pub fn new(victim: &Arc<Victim>) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let port = listener.local_addr().expect("bound").port();
        let edge = Self { port, upstream: Arc::default(), state: Arc::default() };
        let (upstream, state, victim) = (Arc::clone(&edge.upstream), Arc::clone(&edge.state), Arc::clone(victim));
        thread::spawn(move || serve(&listener, port, &upstream, &state, &victim));
        edge
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// The address of a database in Neon's replies, as it is from now on: this proxy's.
    pub fn lead_here(&self, body: &[u8]) -> Vec<u8> {
        const HOST: &str = "127.0.0.1:";
        let text = String::from_utf8_lossy(body);
        let mut led = String::new();
        let mut rest = text.as_ref();
        while let Some(at) = rest.find(HOST) {
            let (before, after) = rest.split_at(at + HOST.len());
            let digits = after.bytes().take_while(u8::is_ascii_digit).count();
            led.push_str(before);
            if let Ok(port) = after[..digits].parse() {
                self.upstream.store(port, Ordering::SeqCst);
            }
            led.push_str(&self.port.to_string());
            rest = &after[digits..];
        }
        led.push_str(rest);
        led.into_bytes()
    }

    /// Where the database really is.
    pub fn upstream(&self) -> u16 {
        self.upstream.load(Ordering::SeqCst)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    pub fn begin(&self) {
        *self.state() = State::default();
    }

    pub fn calls(&self) -> usize {
        self.state().calls
    }

    pub fn connections(&self) -> usize {
        self.state().connections
    }

    pub fn die_at(&self, number: usize, moment: Moment) {
        self.state().die_at = Some((number, moment));
    }

    /// For `NoTls` the number is a connection's, else a call's.
    pub fn spoil(&self, number: usize, fault: SqlFault) {
        self.state().fault = Some((number, fault));
    }

    pub fn fired(&self) -> bool {
        self.state().fired
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

fn serve(listener: &TcpListener, _port: u16, upstream: &AtomicU16, state: &Arc<Mutex<State>>, victim: &Arc<Victim>) {
    for client in listener.incoming().flatten() {
        let port = upstream.load(Ordering::SeqCst);
        let (state, victim) = (Arc::clone(state), Arc::clone(victim));
        thread::spawn(move || {
            let number = {
                let mut state = lock(&state);
                state.connections += 1;
                state.connections
            };
            let _ = connection(client, port, number, &state, &victim);
        });
    }
}

fn connection(
    mut client: TcpStream,
    port: u16,
    number: usize,
    state: &Arc<Mutex<State>>,
    victim: &Arc<Victim>,
) -> io::Result<()> {
    let fault = lock(state).fault;
    match fault {
        // As near to it as a socket that has to stay bound comes: the connection ends before a byte is read.
        Some((_, SqlFault::Refused)) => {
            lock(state).fired = true;
            return reset(&client);
        }
        Some((n, SqlFault::NoTls)) if n == number => {
            lock(state).fired = true;
            // The request for TLS: eight bytes; the answer: no.
            client.read_exact(&mut [0u8; 8])?;
            client.write_all(b"N")?;
            return client.shutdown(Shutdown::Both);
        }
        _ => {}
    }
    let server = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let turn = Arc::new(Mutex::new(Turn { client_speaks: false, dies: None, lost: false }));
    let back = {
        let (mut server, mut client) = (server.try_clone()?, client.try_clone()?);
        let (turn, victim) = (Arc::clone(&turn), Arc::clone(victim));
        thread::spawn(move || {
            let _ = answers(&mut server, &mut client, &turn, &victim);
            let _ = client.shutdown(Shutdown::Both);
        })
    };
    let _ = calls(&mut client, server.try_clone()?, state, &turn, victim);
    let _ = server.shutdown(Shutdown::Both);
    let _ = back.join();
    Ok(())
}

struct Turn {
    client_speaks: bool,
    /// What becomes of psn when the server answers.
    dies: Option<Moment>,
    lost: bool,
}

fn calls(
    client: &mut TcpStream,
    mut server: TcpStream,
    state: &Mutex<State>,
    turn: &Mutex<Turn>,
    victim: &Victim,
) -> io::Result<()> {
    let mut buffer = [0u8; 16 << 10];
    loop {
        let n = client.read(&mut buffer)?;
        if n == 0 {
            return Ok(());
        }
        let mut now = turn.lock().unwrap_or_else(PoisonError::into_inner);
        if !now.client_speaks {
            now.client_speaks = true;
            let mut state = lock(state);
            state.calls += 1;
            match state.die_at {
                Some((number, Moment::Before)) if number == state.calls => {
                    victim.kill();
                    return Ok(());
                }
                Some((number, moment)) if number == state.calls => now.dies = Some(moment),
                _ => {}
            }
            match state.fault {
                Some((number, SqlFault::LostBefore)) if number == state.calls => {
                    state.fired = true;
                    return reset(client);
                }
                Some((number, SqlFault::LostAfter)) if number == state.calls => {
                    state.fired = true;
                    now.lost = true;
                }
                _ => {}
            }
        }
        drop(now);
        server.write_all(&buffer[..n])?;
    }
}

fn answers(server: &mut TcpStream, client: &mut TcpStream, turn: &Mutex<Turn>, victim: &Victim) -> io::Result<()> {
    let mut buffer = [0u8; 16 << 10];
    loop {
        let n = server.read(&mut buffer)?;
        if n == 0 {
            return Ok(());
        }
        let (dies, lost) = {
            let mut now = turn.lock().unwrap_or_else(PoisonError::into_inner);
            now.client_speaks = false;
            (now.dies.take(), std::mem::take(&mut now.lost))
        };
        if lost {
            return reset(client);
        }
        if dies == Some(Moment::Sent) {
            victim.kill();
            return Ok(());
        }
        client.write_all(&buffer[..n])?;
        if dies == Some(Moment::After) {
            // Until psn has it.
            thread::sleep(Duration::from_millis(1));
            victim.kill();
            return Ok(());
        }
    }
}

fn reset(stream: &TcpStream) -> io::Result<()> {
    rustix::net::sockopt::set_socket_linger(stream, Some(Duration::ZERO))?;
    stream.shutdown(Shutdown::Both)
}
