//! What only the superuser of a hub's server can do: trouble, made real.
use std::path::Path;

use crate::Machine;

/// The folder of the socket of the server on this port: its postmaster.pid names both.
fn socket(folder: &Path, port: u16) -> Option<String> {
    for entry in std::fs::read_dir(folder).ok()?.flatten() {
        let path = entry.path();
        let found = match std::fs::read_to_string(path.join("postmaster.pid")) {
            Ok(text) => {
                let lines: Vec<&str> = text.lines().map(str::trim).collect();
                (lines.get(3) == Some(&port.to_string().as_str())).then(|| lines[4].to_owned())
            }
            Err(_) if path.is_dir() => socket(&path, port),
            Err(_) => None,
        };
        if found.is_some() {
            return found;
        }
    }
    None
}

/// The superuser of one of the local hub's servers, who may log in by the socket only.
pub struct Admin {
    runtime: tokio::runtime::Runtime,
    options: sqlx::postgres::PgConnectOptions,
}

impl Admin {
    pub fn at(machine: &Machine, port: u16, database: &str) -> Self {
        let home = machine.home().join("local-hub");
        let password = std::fs::read_to_string(home.join("superuser.secret")).expect("the clusters' secret");
        let socket = socket(&home.join("pg"), port).expect("the cluster's socket");
        let options = sqlx::postgres::PgConnectOptions::new_without_pgpass()
            .socket(socket)
            .port(port)
            .username("cloud_admin")
            .password(password.trim())
            .database(database);
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        Self { runtime: runtime.expect("a runtime"), options }
    }

    /// In one session, which lives as long as the answer.
    pub fn run(&self, statements: &[&'static str]) -> sqlx::PgConnection {
        use sqlx::Connection as _;
        self.runtime.block_on(async {
            let mut db = sqlx::PgConnection::connect_with(&self.options).await.expect("the superuser may log in");
            for sql in statements {
                sqlx::raw_sql(*sql).execute(&mut db).await.unwrap_or_else(|e| panic!("{sql}: {e}"));
            }
            db
        })
    }
}
