//! postgresql.conf and pg_hba.conf: small, durable, private.
use std::path::Path;

use super::place::Place;
use super::tls::Tls;
use super::{PgError, SUPERUSER};
use crate::files;

/// Where a cluster can be reached besides its private socket.
#[derive(Clone, Copy)]
pub(crate) enum Network<'a> {
    /// Nowhere. The number is only a part of the socket's name.
    None {
        port: u16,
    },
    Loopback {
        port: u16,
        tls: &'a Tls,
    },
}

impl Network<'_> {
    pub(crate) fn port(&self) -> u16 {
        match self {
            Network::None { port } | Network::Loopback { port, .. } => *port,
        }
    }
}

/// Written at each start, so that a newer psn's settings apply to older clusters.
pub(crate) fn write(place: &Place, network: Network<'_>, socket_dir: &Path, major: u32) -> Result<(), PgError> {
    let put = |name: &str, text: String| {
        let file = place.dir.join(name);
        // No secrets inside; the servers' account must read it.
        files::write_atomic(&file, text.as_bytes(), 0o644).map_err(PgError::io("could not write", &file))
    };
    put("postgresql.conf", settings(place, network, socket_dir, major))?;
    put("pg_hba.conf", hba(network))?;
    put("pg_ident.conf", String::new())
}

fn settings(place: &Place, network: Network<'_>, socket_dir: &Path, major: u32) -> String {
    let path = |p: &Path| quote(&p.to_string_lossy());
    let mut set: Vec<(&str, String)> = vec![
        ("data_directory", path(&place.data())),
        ("cluster_name", quote(&place.name)),
        ("port", network.port().to_string()),
        // A list setting: its one element is quoted once more, so that commas and spaces are part of it.
        ("unix_socket_directories", quote(&format!("\"{}\"", socket_dir.to_string_lossy().replace('"', "\"\"")))),
        ("unix_socket_permissions", "0700".into()),
        ("password_encryption", quote("scram-sha-256")),
        // Small: several clusters share one person's machine.
        ("max_connections", "50".into()),
        ("shared_buffers", quote("32MB")),
        ("max_parallel_workers_per_gather", "0".into()),
        ("max_logical_replication_workers", "0".into()),
        ("huge_pages", "off".into()),
        ("jit", "off".into()),
        ("wal_level", "minimal".into()),
        ("max_wal_senders", "0".into()),
        ("min_wal_size", quote("32MB")),
        ("max_wal_size", quote("256MB")),
        // Durable: an acknowledged commit survives a crash of the machine.
        ("fsync", "on".into()),
        ("synchronous_commit", "on".into()),
        ("full_page_writes", "on".into()),
        ("timezone", quote("UTC")),
        ("log_timezone", quote("UTC")),
        ("default_text_search_config", quote("pg_catalog.english")),
        ("idle_in_transaction_session_timeout", quote("5min")),
        ("log_destination", "stderr".into()),
        ("log_line_prefix", quote("%m [%p] %u@%d ")),
        // Statements and the DETAIL of an error can hold people's data and secrets.
        ("log_statement", "none".into()),
        ("log_min_error_statement", "panic".into()),
        ("log_error_verbosity", "terse".into()),
        ("log_min_duration_statement", "-1".into()),
    ];
    let shared_memory = if Path::new("/dev/shm").is_dir() { "posix" } else { "mmap" };
    if cfg!(target_os = "linux") {
        set.push(("dynamic_shared_memory_type", shared_memory.into()));
        // After a crash one syncfs instead of an fsync for each of 1,200 files: 0.2 s instead of 2 to 4 s.
        set.push(("recovery_init_sync_method", "syncfs".into()));
    }
    if major >= 18 {
        // No idle I/O workers.
        set.push(("io_method", "sync".into()));
    }
    match network {
        Network::None { .. } => set.push(("listen_addresses", quote(""))),
        Network::Loopback { tls, .. } => {
            set.push(("listen_addresses", quote("127.0.0.1")));
            set.push(("ssl", "on".into()));
            set.push(("ssl_cert_file", path(&tls.cert)));
            set.push(("ssl_key_file", path(&tls.key)));
        }
    }
    let mut text = String::from("# Written by psn at each start: changes are lost.\n");
    for (name, value) in set {
        text.push_str(&format!("{name} = {value}\n"));
    }
    text
}

fn hba(network: Network<'_>) -> String {
    let mut text = String::from("# Written by psn at each start: changes are lost.\nlocal all all scram-sha-256\n");
    if let Network::Loopback { .. } = network {
        text.push_str(&format!(
            "hostnossl all all all reject\n\
             hostssl all {SUPERUSER} all reject\n\
             hostssl all all 127.0.0.1/32 scram-sha-256\n"
        ));
    }
    text
}

/// A string of postgresql.conf, where a backslash starts an escape.
fn quote(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_string_cannot_end_early() {
        assert_eq!(quote(r"a'b\c"), r"'a''b\\c'");
    }

    #[test]
    fn without_a_network_nothing_listens_and_nobody_comes_from_a_host() {
        let place = Place::new(Path::new("/x"), "y").unwrap();
        let network = Network::None { port: 5432 };
        let text = settings(&place, network, Path::new("/x/y/s"), 15);
        assert!(text.contains("listen_addresses = ''\n"));
        assert!(!text.contains("ssl"));
        assert!(!text.contains("io_method"));
        assert!(settings(&place, network, Path::new("/x/y/s"), 18).contains("io_method = sync"));
        assert!(!hba(network).contains("host"));
    }
}
