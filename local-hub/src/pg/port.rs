//! Ports on 127.0.0.1: a free one, whether one is taken, and by whom.
use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::net::{Ipv4Addr, TcpListener};

use super::PgError;

/// Below the range from which systems take ports for outgoing connections (32768 on Linux, 49152 elsewhere), so that a
/// recorded port is not taken by chance between two starts.
const FROM: u16 = 20_000;
const TO: u16 = 32_000;
/// Tries before giving up; with half of the range taken the chance to fail is 2^-200.
const TRIES: usize = 200;

/// A port that nobody listens on and that is not in `reserved` (recorded for something that is stopped now).
pub(crate) fn free(reserved: &BTreeSet<u16>) -> Result<u16, PgError> {
    for _ in 0..TRIES {
        let mut random = [0u8; 2];
        getrandom::fill(&mut random).expect("the operating system gives random bytes");
        let port = FROM + u16::from_le_bytes(random) % (TO - FROM);
        if !reserved.contains(&port) && is_free(port) {
            return Ok(port);
        }
    }
    Err(PgError::NoFreePort { from: FROM, to: TO })
}

pub(crate) fn is_free(port: u16) -> bool {
    match TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
        Ok(_) => true,
        Err(e) => e.kind() != io::ErrorKind::AddrInUse,
    }
}

pub(crate) fn taken(what: impl Into<String>, port: u16) -> PgError {
    PgError::PortTaken { what: what.into(), port, holder: holder(port) }
}

/// The program that listens on the port, where the system tells (Linux, for processes that this account may look at).
fn holder(port: u16) -> Option<String> {
    let inode = ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .find_map(|table| listening_inode(&fs::read_to_string(table).ok()?, port))?;
    let socket = format!("socket:[{inode}]");
    for entry in fs::read_dir("/proc").ok()?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse::<u32>().ok()) else {
            continue;
        };
        let fds = fs::read_dir(entry.path().join("fd")).into_iter().flatten().flatten();
        for fd in fds {
            if fs::read_link(fd.path()).is_ok_and(|to| to.as_os_str() == socket.as_str()) {
                let name = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
                return Some(format!("{} (process {pid})", name.trim()));
            }
        }
    }
    None
}

/// `sl local_address rem_address st … inode`; the port is hexadecimal, state 0A is LISTEN.
fn listening_inode(table: &str, port: u16) -> Option<u64> {
    table.lines().skip(1).find_map(|line| {
        let columns: Vec<&str> = line.split_ascii_whitespace().collect();
        let (_, hex) = columns.get(1)?.rsplit_once(':')?;
        (u16::from_str_radix(hex, 16) == Ok(port) && columns.get(3) == Some(&"0A"))
            .then(|| columns.get(9)?.parse().ok())
            .flatten()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_free_port_can_be_bound_and_is_not_a_reserved_one() {
        let port = free(&BTreeSet::new()).unwrap();
        assert!((FROM..TO).contains(&port));
        assert!(is_free(port));
        let all: BTreeSet<u16> = (FROM..TO).collect();
        assert!(matches!(free(&all), Err(PgError::NoFreePort { .. })));
    }

    #[test]
    fn a_taken_port_names_its_holder() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        assert!(!is_free(port));
        let error = taken("cluster x", port);
        assert_eq!(error.code(), "local.port-taken");
        if cfg!(target_os = "linux") {
            let me = format!("(process {})", std::process::id());
            assert!(error.to_string().contains(&me), "{error}");
        }
    }

    #[test]
    fn only_a_listener_counts() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
            0: 0100007F:1538 0100007F:0050 01 00000000:00000000 00:00000000 00000000 0 0 41 1\n\
            1: 0100007F:1538 00000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 42 1\n";
        assert_eq!(listening_inode(table, 0x1538), Some(42));
        assert_eq!(listening_inode(table, 80), None);
    }
}
