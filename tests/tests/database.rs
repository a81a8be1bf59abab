//! `psn db`: a person's own migrations, the lint, the look at row-level security, and what a pooler makes of it.
#[path = "database/mutations.rs"]
mod mutations;
#[path = "database/own_migrations.rs"]
mod own_migrations;
#[path = "database/pooler.rs"]
mod pooler;

use psn_tests::Machine;
use sqlx::{Connection as _, PgConnection};

fn machine() -> Machine {
    Machine::new(env!("CARGO_BIN_EXE_psn-tested"))
}

/// The owner's own connection, as a person's SQL client would make it.
async fn owner(machine: &Machine) -> PgConnection {
    let url = machine.secret("DATABASE_URL_DIRECT").expect("setup kept the connection string");
    connect(machine, &url).await
}

async fn connect(machine: &Machine, url: &str) -> PgConnection {
    let options: sqlx::postgres::PgConnectOptions = url.parse().expect("a connection string");
    let ca = machine.home().join("local-hub/tls/ca.pem");
    let options = options.ssl_mode(sqlx::postgres::PgSslMode::VerifyFull).ssl_root_cert(ca).extra_float_digits(None);
    PgConnection::connect_with(&options).await.expect("the database takes the password over TLS")
}
