//! A reverse proxy in front of the local hub's HTTP services.
use std::collections::BTreeMap;
use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::Victim;
use super::fault::Fault;
use super::sql::SqlEdge;
use super::wire::{Incoming, Reply, head_bytes, receive, request};

/// How long a reply that never comes keeps its connection. psn's own limit in these tests is far below.
const SILENCE: Duration = Duration::from_secs(30);
/// Between two bytes of a reply that drips.
const DRIP: Duration = Duration::from_millis(200);
/// How long a look for a new connection takes when there is none; as long after it is known nothing listens.
const LOOK: Duration = Duration::from_millis(10);
/// More than psn takes of one reply: 8 MiB.
const OVERSIZED: usize = (8 << 20) + 1;

/// One call as it is known again in another run: ids are left out, and calls that look the same are numbered.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Call {
    pub service: String,
    pub request: String,
    pub nth: usize,
}

#[derive(Default)]
struct State {
    calls: Vec<Call>,
    fault: Option<(Call, Fault)>,
    fired: bool,
    /// Kill psn when the service has answered the call of this number.
    die_at: Option<usize>,
    refusal: Option<Refusal>,
    revocation: Option<Revocation>,
}

/// Somebody revokes the credential of a service between two calls: from this one on, none is accepted.
struct Revocation {
    service: String,
    nth: usize,
}

/// A connection can only be refused while it is not there yet: from the answer to the call before it on, nothing listens.
struct Refusal {
    service: String,
    after: Option<Call>,
    now: bool,
}

pub struct HttpEdge {
    state: Arc<Mutex<State>>,
    ports: BTreeMap<String, u16>,
}

struct Route {
    service: String,
    upstream: u16,
    state: Arc<Mutex<State>>,
    victim: Arc<Victim>,
    sql: Arc<SqlEdge>,
}

impl HttpEdge {
    /// `services`: names and the ports that they are on.
    pub fn new(services: &[(&str, u16)], victim: &Arc<Victim>, sql: &Arc<SqlEdge>) -> Self {
        let state = Arc::new(Mutex::new(State::default()));
        let mut ports = BTreeMap::new();
        for (service, upstream) in services {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
            let port = listener.local_addr().expect("bound").port();
            ports.insert((*service).to_owned(), port);
            let route = Arc::new(Route {
                service: (*service).to_owned(),
                upstream: *upstream,
                state: Arc::clone(&state),
                victim: Arc::clone(victim),
                sql: Arc::clone(sql),
            });
            thread::spawn(move || serve(&route, listener, port));
        }
        Self { state, ports }
    }

    pub fn port(&self, service: &str) -> u16 {
        self.ports[service]
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// The next psn starts: nothing is spoilt, and calls are counted anew.
    pub fn begin(&self) {
        *self.state() = State::default();
    }

    /// What was called since then.
    pub fn calls(&self) -> Vec<Call> {
        self.state().calls.clone()
    }

    pub fn die_at(&self, number: usize) {
        self.state().die_at = Some(number);
    }

    /// The credential is good for fewer calls of this service than this.
    pub fn revoke_at(&self, service: &str, nth: usize) {
        self.state().revocation = Some(Revocation { service: service.to_owned(), nth });
    }

    /// `before`: the call that comes before it in a run without faults.
    pub fn spoil(&self, call: &Call, before: Option<&Call>, fault: Fault) {
        let mut state = self.state();
        if fault == Fault::Refused {
            let (service, after, now) = (call.service.clone(), before.cloned(), before.is_none());
            state.refusal = Some(Refusal { service, after, now });
        } else {
            state.fault = Some((call.clone(), fault));
        }
    }

    /// Whether the call that was to be spoilt was made.
    pub fn fired(&self) -> bool {
        let state = self.state();
        state.fired || state.refusal.as_ref().is_some_and(|r| r.now)
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl State {
    fn is_revoked(&self, service: &str) -> bool {
        let made = self.calls.iter().filter(|call| call.service == service).count();
        self.revocation.as_ref().is_some_and(|r| r.service == service && made >= r.nth)
    }

    fn refuses(&self, service: &str) -> bool {
        self.refusal.as_ref().is_some_and(|r| r.now && r.service == service)
    }
}

/// While the service is to refuse, nothing listens.
fn serve(route: &Arc<Route>, listener: TcpListener, port: u16) {
    patient(&listener);
    let mut listener = Some(listener);
    loop {
        let refuses = lock(&route.state).refuses(&route.service);
        match (&listener, refuses) {
            (Some(_), true) => listener = None,
            (None, false) => {
                let Ok(again) = TcpListener::bind((Ipv4Addr::LOCALHOST, port)) else {
                    thread::sleep(Duration::from_millis(10));
                    continue;
                };
                patient(&again);
                listener = Some(again);
            }
            (None, true) => thread::sleep(Duration::from_millis(5)),
            (Some(open), false) => {
                // Else nobody came, or whoever came is gone again.
                if let Ok((stream, _)) = open.accept() {
                    let route = Arc::clone(route);
                    thread::spawn(move || {
                        // It has the listener's patience.
                        let _ = stream.set_read_timeout(None);
                        // A psn that is killed leaves connections in any state.
                        let _ = talk(&route, stream);
                    });
                }
            }
        }
    }
}

/// `accept` gives up after a while.
fn patient(listener: &TcpListener) {
    use rustix::net::sockopt::{Timeout, set_socket_timeout};
    set_socket_timeout(listener, Timeout::Recv, Some(LOOK)).expect("a socket");
}

fn talk(route: &Route, mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    while let Some(incoming) = receive(&mut stream)? {
        let (fault, dies, last, revoked) = {
            let mut state = lock(&route.state);
            let request = format!("{} {}", incoming.method, known_again(&incoming.target));
            let nth = 1 + state.calls.iter().filter(|c| c.service == route.service && c.request == request).count();
            let call = Call { service: route.service.clone(), request, nth };
            state.calls.push(call.clone());
            let fault = state.fault.take_if(|(spoilt, _)| *spoilt == call).map(|(_, fault)| fault);
            state.fired |= fault.is_some();
            let last = state.refusal.as_mut().filter(|r| r.after.as_ref() == Some(&call));
            let last = last.map(|r| r.now = true).is_some();
            (fault, state.die_at == Some(state.calls.len()), last, state.is_revoked(&route.service))
        };
        if revoked {
            answer(&mut stream, &unauthorized(), false)?;
            continue;
        }
        match fault {
            None => {
                let reply = forward(route, &incoming)?;
                if dies {
                    route.victim.kill();
                    return Ok(());
                }
                if last {
                    // Until nothing listens any more.
                    thread::sleep(Duration::from_millis(30));
                }
                answer(&mut stream, &reply, last)?;
                if last {
                    return Ok(());
                }
            }
            Some(fault) => return spoil(route, stream, &incoming, fault),
        }
    }
    Ok(())
}

fn forward(route: &Route, incoming: &Incoming) -> io::Result<Reply> {
    let mut reply = request(route.upstream, &incoming.method, &incoming.target, &incoming.headers, &incoming.body)?;
    if route.service == "neon" {
        reply.body = route.sql.lead_here(&reply.body);
    }
    Ok(reply)
}

fn answer(stream: &mut TcpStream, reply: &Reply, last: bool) -> io::Result<()> {
    let mut bytes = head_bytes(reply.status, &reply.headers, reply.body.len());
    if last {
        let end = bytes.len() - 2;
        bytes.splice(end..end, *b"connection: close\r\n");
    }
    bytes.extend_from_slice(&reply.body);
    stream.write_all(&bytes)
}

/// As Trigger.dev answers a token that it does not know.
fn unauthorized() -> Reply {
    Reply {
        status: 401,
        headers: vec![("content-type".to_owned(), "application/json".to_owned())],
        body: br#"{"error":"Invalid or Missing Access Token"}"#.to_vec(),
    }
}

fn spoil(route: &Route, mut stream: TcpStream, incoming: &Incoming, fault: Fault) -> io::Result<()> {
    if let Some((status, headers, body)) = fault.refusal() {
        let mut bytes = head_bytes(status, &headers, body.len());
        bytes.extend_from_slice(&body);
        return stream.write_all(&bytes);
    }
    let applied = if fault.is_applied() { Some(forward(route, incoming)?) } else { None };
    let json = [("content-type".to_owned(), "application/json".to_owned())];
    match (fault, applied) {
        (Fault::Timeout, _) => wait_for_end(&mut stream),
        (Fault::ResetMidBody, Some(reply)) => {
            let half = reply.body.len() / 2;
            stream.write_all(&head_bytes(reply.status, &reply.headers, reply.body.len().max(1)))?;
            stream.write_all(&reply.body[..half])?;
            reset(&stream)
        }
        (Fault::Drip, Some(reply)) => {
            // One byte more than will ever come, so that also an empty reply does not end.
            stream.write_all(&head_bytes(reply.status, &reply.headers, reply.body.len() + 1))?;
            let started = Instant::now();
            for byte in reply.body.iter().cycle() {
                if stream.write_all(&[*byte]).is_err() || started.elapsed() > SILENCE {
                    break;
                }
                thread::sleep(DRIP);
            }
            wait_for_end(&mut stream)
        }
        (Fault::MalformedJson, Some(reply)) => {
            let mut body = reply.body.clone();
            body.truncate(body.len() / 2);
            body.extend_from_slice(b"{\"oops");
            whole(&mut stream, reply.status, &json, &body)
        }
        (Fault::WrongSchema, Some(reply)) => {
            whole(&mut stream, reply.status, &json, br#"{"surprise":["another","shape"]}"#)
        }
        (Fault::EmptyBody, Some(reply)) => whole(&mut stream, reply.status, &json, b""),
        (Fault::OversizedBody, Some(reply)) => {
            stream.write_all(&head_bytes(reply.status, &json, OVERSIZED))?;
            let chunk = [b' '; 64 << 10];
            // psn stops listening long before the end.
            for _ in 0..OVERSIZED / chunk.len() {
                stream.write_all(&chunk)?;
            }
            Ok(())
        }
        // Before the body, and after it was applied: a connection that ends without a word.
        _ => reset(&stream),
    }
}

fn whole(stream: &mut TcpStream, status: u16, headers: &[(String, String)], body: &[u8]) -> io::Result<()> {
    let mut bytes = head_bytes(status, headers, body.len());
    bytes.extend_from_slice(body);
    stream.write_all(&bytes)
}

fn reset(stream: &TcpStream) -> io::Result<()> {
    // What was written first arrives first.
    thread::sleep(Duration::from_millis(20));
    rustix::net::sockopt::set_socket_linger(stream, Some(Duration::ZERO))?;
    Ok(())
}

fn wait_for_end(stream: &mut TcpStream) -> io::Result<()> {
    stream.set_read_timeout(Some(SILENCE))?;
    let _ = stream.read(&mut [0u8; 1]);
    stream.shutdown(Shutdown::Both)
}

/// The target without what differs from hub to hub: values of the query, and segments that are ids.
fn known_again(target: &str) -> String {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let is_id = |s: &str| s.len() > 4 && s.bytes().any(|b| b.is_ascii_digit()) || s.contains('_');
    let mut text: String = path.split('/').map(|s| if is_id(s) { "{}" } else { s }).collect::<Vec<_>>().join("/");
    for name in query.split('&').filter(|q| !q.is_empty()).map(|q| q.split('=').next().unwrap_or_default()) {
        text.push(if text.contains('?') { '&' } else { '?' });
        text.push_str(name);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::known_again;

    #[test]
    fn calls_are_known_again_in_another_hub() {
        assert_eq!(
            known_again("/api/v2/projects/quiet-river-12345678/operations?limit=100"),
            "/api/v2/projects/{}/operations?limit"
        );
        assert_eq!(known_again("/api/v1/projects/proj_abc/prod"), "/api/v1/projects/{}/prod");
        assert_eq!(known_again("/api/v3/deployments/deployment_x/finalize"), "/api/v3/deployments/{}/finalize");
    }
}
