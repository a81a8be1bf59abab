//! Connections to the hub's database: by purpose, always over verified TLS, patient with a compute that is starting.
use std::path::PathBuf;
use std::time::Duration;

use percent_encoding::percent_decode_str;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgSslMode};
use sqlx::{ConnectOptions as _, Connection as _};
use url::Url;
use zeroize::Zeroizing;

use crate::capabilities::Deadline;
use crate::error::CodedError;
use crate::secret::{Secret, Secrets};

/// Whom a database server's certificate must come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TlsRoots {
    /// The authorities that browsers trust: Neon's.
    WebPki,
    /// The authority in this file, the local hub's, besides.
    Pem(PathBuf),
}

/// What a connection is for: decides the role, and the endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Migrations and roles: the owner, without a pooler in between.
    OwnerDirect,
    /// People's data under row-level security.
    App,
    /// A plugin's own role.
    Plugin(String),
}

/// The owner's connection string through the pooler: where every other role connects.
pub const POOLED_URL: &str = "DATABASE_URL";

impl Purpose {
    /// The secret that holds the connection string.
    pub fn secret_name(&self) -> String {
        match self {
            Purpose::OwnerDirect => "DATABASE_URL_DIRECT".to_owned(),
            Purpose::App => "DATABASE_URL_APP".to_owned(),
            Purpose::Plugin(name) => format!("DATABASE_URL_PLUGIN_{}", name.to_uppercase().replace('-', "_")),
        }
    }
}

/// How long a compute may take to start, and a pooler to hear of a new role.
const WINDOW: Duration = Duration::from_secs(30);
/// Where nothing listens on this machine, nothing will by itself: what starts the local hub has waited for it already.
const REFUSED_WINDOW: Duration = Duration::from_secs(3);
/// One attempt: TCP, TLS and login, with a compute that wakes up meanwhile.
const ATTEMPT: Duration = Duration::from_secs(15);
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// Prepared statements kept on one connection.
const STATEMENTS: usize = 64;

#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("{name} is not set: this hub has no database yet")]
    NoUrl { name: String },
    /// Never with the URL.
    #[error("{name} is not a Postgres connection string: {reason}")]
    BadUrl { name: String, reason: &'static str },
    #[error("the environment variable {0} changes how psn would connect to the hub's database")]
    Environment(&'static str),
    #[error("cannot reach the database at {host}:{port}: {reason}")]
    Unreachable { host: String, port: u16, reason: String },
    #[error("the database at {host}:{port} could not prove who it is: {reason}")]
    Tls { host: String, port: u16, reason: String },
    #[error("the database at {host}:{port} refused the role {role}: {reason}")]
    Refused { host: String, port: u16, role: String, reason: String, sqlstate: String },
    #[error(
        "DATABASE_URL leads to {pooled}, and DATABASE_URL_DIRECT to {direct}: that is not one database's pooler, and no role's password goes there"
    )]
    Elsewhere { pooled: String, direct: String },
    #[error("{path}: {source}")]
    Roots { path: PathBuf, source: std::io::Error },
}

impl ConnectError {
    /// Whether the server knows neither this role nor this password.
    pub fn is_auth(&self) -> bool {
        matches!(self, ConnectError::Refused { sqlstate, .. } if sqlstate.starts_with("28"))
    }

    pub fn coded(&self) -> CodedError {
        let say = |code: &str, fix: &[&str]| CodedError::new(code, self.to_string(), fix.iter().copied());
        match self {
            ConnectError::NoUrl { .. } => say("hub.no-database-url", &["psn run setup"]),
            ConnectError::BadUrl { name, .. } => CodedError::new(
                "hub.bad-database-url",
                self.to_string(),
                [format!("Remove the line {name}= from config/hub.env"), "psn run setup".to_owned()],
            ),
            ConnectError::Environment(name) => {
                CodedError::new("hub.environment", self.to_string(), [format!("unset {name}")])
            }
            ConnectError::Unreachable { host, .. } if is_loopback(host) => {
                say("hub.unreachable", &["psn local up", "psn local logs"]).retryable()
            }
            ConnectError::Unreachable { .. } => say(
                "hub.unreachable",
                &["psn run validate", "Look at https://neonstatus.com and at this machine's network"],
            )
            .retryable(),
            ConnectError::Tls { host, .. } if is_loopback(host) => say("hub.tls", &["psn local down", "psn local up"]),
            ConnectError::Tls { .. } => say(
                "hub.tls",
                &["Look for a proxy that opens TLS between this machine and the database, and at this machine's clock"],
            ),
            ConnectError::Refused { .. } if self.is_auth() => say("hub.auth", &["psn run setup"]),
            ConnectError::Refused { .. } => say("hub.refused", &["psn run validate"]),
            ConnectError::Elsewhere { .. } => say(
                "hub.pooler-elsewhere",
                &["Remove the lines DATABASE_URL= and DATABASE_URL_DIRECT= from config/hub.env", "psn run setup"],
            ),
            ConnectError::Roots { .. } => say("hub.tls-roots", &["psn local up"]),
        }
    }
}

fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// A connection string, taken apart. Parameters are not kept: psn always verifies the server, and sets what else it needs itself.
pub struct HubUrl {
    pub host: String,
    pub port: u16,
    pub user: String,
    pub database: String,
    password: Zeroizing<String>,
}

impl HubUrl {
    /// `name` is the secret's, for the error.
    pub fn parse(name: &str, url: &Secret) -> Result<Self, ConnectError> {
        let bad = |reason| ConnectError::BadUrl { name: name.to_owned(), reason };
        let url = Url::parse(url.expose()).map_err(|_| bad("it is not a URL"))?;
        if !matches!(url.scheme(), "postgres" | "postgresql") {
            return Err(bad("it does not begin with postgresql://"));
        }
        let decode = |s: &str| {
            percent_decode_str(s)
                .decode_utf8()
                .map(std::borrow::Cow::into_owned)
                .map_err(|_| bad("it holds an encoded byte that is not UTF-8"))
        };
        let host = decode(url.host_str().unwrap_or_default())?;
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        // Lists of hosts and sockets are libpq's ways to send a connection elsewhere.
        if host.is_empty() || host.contains(['/', ',', '@', ' ']) {
            return Err(bad("it names no single host"));
        }
        let database = decode(url.path().trim_start_matches('/'))?;
        let user = decode(url.username())?;
        if user.is_empty() || database.is_empty() || database.contains('/') {
            return Err(bad("it lacks the role or the database"));
        }
        let password = Zeroizing::new(decode(url.password().unwrap_or_default())?);
        Ok(Self { host, port: url.port().unwrap_or(5432), user, database, password })
    }

    pub fn password(&self) -> &str {
        &self.password
    }

    /// The same role in the same database, by another door.
    #[must_use]
    pub fn at(mut self, other: &HubUrl) -> Self {
        self.host.clone_from(&other.host);
        self.port = other.port;
        self
    }

    /// Whether this is the pooler of the other: the same database at the same host, or at Neon's name for its pooler.
    pub fn pools(&self, direct: &HubUrl) -> bool {
        let is_pooler = || {
            let (endpoint, domain) = self.host.split_once('.')?;
            let (of, in_domain) = direct.host.split_once('.')?;
            Some(endpoint.strip_suffix("-pooler")? == of && domain == in_domain)
        };
        self.database == direct.database && (self.host == direct.host || is_pooler() == Some(true))
    }

    /// Whether both are the same database at the same address.
    pub fn same_place(&self, other: &HubUrl) -> bool {
        (&self.host, self.port, &self.database) == (&other.host, other.port, &other.database)
    }
}

/// The connection string of another role at the same place.
pub fn with_role(name: &str, url: &Secret, role: &str, password: &str) -> Result<Secret, ConnectError> {
    let bad = |reason| ConnectError::BadUrl { name: name.to_owned(), reason };
    let mut url = Url::parse(url.expose()).map_err(|_| bad("it is not a URL"))?;
    url.set_username(role).and_then(|()| url.set_password(Some(password))).map_err(|()| bad("it names no host"))?;
    Ok(Secret::new(url))
}

/// Opens a connection. A transaction-mode pooler hands each transaction another server connection, so on all but the owner's direct
/// one everything must end with its transaction: no `SET`, no session locks, and statements with `persistent(false)` inside of one, or
/// prepared and closed there.
pub async fn connect(
    purpose: &Purpose,
    secrets: &Secrets,
    tls: &TlsRoots,
    deadline: Deadline,
) -> Result<PgConnection, ConnectError> {
    let name = purpose.secret_name();
    let url = secrets.get(&name).ok_or_else(|| ConnectError::NoUrl { name: name.clone() })?;
    connect_url(&HubUrl::parse(&name, &url)?, tls, deadline).await
}

/// The same, to a URL that no purpose names.
pub async fn connect_url(url: &HubUrl, tls: &TlsRoots, deadline: Deadline) -> Result<PgConnection, ConnectError> {
    let options = options(url, tls).await?;
    let window = Deadline::after(deadline.clamp(WINDOW));
    let refused = Deadline::after(deadline.clamp(REFUSED_WINDOW));
    let mut pause = FIRST_PAUSE;
    loop {
        let error = match tokio::time::timeout(window.clamp(ATTEMPT), PgConnection::connect_with(&options)).await {
            Ok(Ok(connection)) => return Ok(connection),
            Ok(Err(e)) => classify(url, &e),
            Err(_) => Attempt::later(url, "no answer in time".to_owned()),
        };
        let until = match error.again {
            Again::No => return Err(error.error),
            Again::Refused if is_loopback(&url.host) => refused,
            Again::Refused | Again::Later => window,
        };
        if until.remaining() <= pause {
            return Err(error.error);
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

async fn options(url: &HubUrl, tls: &TlsRoots) -> Result<PgConnectOptions, ConnectError> {
    // sqlx takes these from the environment and offers no way to take them back.
    for name in ["PGOPTIONS", "PGSSLCERT", "PGSSLKEY"] {
        if std::env::var_os(name).is_some() {
            return Err(ConnectError::Environment(name));
        }
    }
    let pem = match tls {
        // No certificate besides the built-in ones, not even one that PGSSLROOTCERT names.
        TlsRoots::WebPki => Vec::new(),
        TlsRoots::Pem(path) => {
            tokio::fs::read(path).await.map_err(|source| ConnectError::Roots { path: path.clone(), source })?
        }
    };
    Ok(PgConnectOptions::new_without_pgpass()
        .host(&url.host)
        .port(url.port)
        .username(&url.user)
        .password(url.password())
        .database(&url.database)
        .ssl_mode(PgSslMode::VerifyFull)
        .ssl_root_cert_from_pem(pem)
        .application_name("psn")
        // Not every pooler lets this startup parameter through, and values travel in binary anyway.
        .extra_float_digits(None)
        .statement_cache_capacity(STATEMENTS)
        .disable_statement_logging())
}

enum Again {
    No,
    Refused,
    Later,
}

struct Attempt {
    error: ConnectError,
    again: Again,
}

impl Attempt {
    fn later(url: &HubUrl, reason: String) -> Self {
        Self {
            error: ConnectError::Unreachable { host: url.host.clone(), port: url.port, reason },
            again: Again::Later,
        }
    }
}

/// 57P0x: going down or coming up. 53300: all connections taken. 08xxx: a pooler that lost its server.
pub(super) fn passes(sqlstate: &str) -> bool {
    sqlstate.starts_with("57P") || sqlstate == "53300" || sqlstate.starts_with("08")
}

/// PgBouncer's state for whatever it says itself.
const POOLER_STATE: &str = "08P01";
/// What PgBouncer answers, while a client logs in, to a wrong password and to a role that it does not know. Its state is the same for
/// these and for what passes (a server that is down, a full pool), so here its words decide: those of src/client.c, unchanged from 1.12
/// to 1.25.
const POOLER_REFUSALS: [&str; 3] = ["SASL authentication failed", "password authentication failed", "no such user"];
const INVALID_PASSWORD: &str = "28P01";

/// The state of an error that came while logging in: a pooler's refusal gets the one that Postgres has for it.
fn login_state(sqlstate: &str, message: &str) -> String {
    let refused = sqlstate == POOLER_STATE && POOLER_REFUSALS.contains(&message);
    if refused { INVALID_PASSWORD } else { sqlstate }.to_owned()
}

/// Of an attempt to log in.
fn classify(url: &HubUrl, error: &sqlx::Error) -> Attempt {
    let (host, port) = (url.host.clone(), url.port);
    let tls =
        |reason: String| Attempt { error: ConnectError::Tls { host: host.clone(), port, reason }, again: Again::No };
    match error {
        sqlx::Error::Tls(e) => tls(e.to_string()),
        sqlx::Error::Io(e) if e.get_ref().is_some_and(|inner| inner.is::<rustls::Error>()) => tls(e.to_string()),
        sqlx::Error::Io(e) if e.kind() == std::io::ErrorKind::ConnectionRefused => {
            Attempt { again: Again::Refused, ..Attempt::later(url, "nothing listens there".to_owned()) }
        }
        sqlx::Error::Io(e) => Attempt::later(url, e.to_string()),
        sqlx::Error::Database(e) => {
            let reason = e.message().to_owned();
            let sqlstate = login_state(&e.code().unwrap_or_default(), &reason);
            if passes(&sqlstate) {
                return Attempt::later(url, reason);
            }
            Attempt {
                error: ConnectError::Refused { host, port, role: url.user.clone(), reason, sqlstate },
                again: Again::No,
            }
        }
        other => Attempt::later(url, other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(url: &str) -> Result<HubUrl, ConnectError> {
        HubUrl::parse("DATABASE_URL", &Secret::new(url))
    }

    #[test]
    fn connection_strings_are_taken_apart_and_parameters_left_out() {
        let url = parse("postgresql://hub%5Fowner:p%40ss%2Fw@ep-x-pooler.eu.aws.neon.tech/my%20hub?sslmode=disable&options=-c%20role%3Dx&host=evil").unwrap();
        assert_eq!(
            (url.host.as_str(), url.port, url.user.as_str(), url.database.as_str()),
            ("ep-x-pooler.eu.aws.neon.tech", 5432, "hub_owner", "my hub")
        );
        assert_eq!(url.password(), "p@ss/w");
        assert_eq!(parse("postgres://u:p@[::1]:5499/d").unwrap().host, "::1");
    }

    #[test]
    fn what_is_no_single_place_is_refused_without_being_repeated() {
        for url in [
            "hunter2",
            "https://u:hunter2@h/d",
            "postgresql:///d",
            "postgresql://u:hunter2@h",
            "postgresql://:hunter2@h/d",
            "postgresql://u:hunter2@%2Ftmp/d",
            "postgresql://u:hunter2@a,b/d",
        ] {
            let error = parse(url).err().unwrap_or_else(|| panic!("{url}"));
            assert!(!error.to_string().contains("hunter2"), "{error}");
            assert_eq!(error.coded().code, "hub.bad-database-url");
        }
    }

    #[test]
    fn another_role_at_the_same_place() {
        let owner =
            Secret::new("postgresql://hub_owner:old@127.0.0.1:5499/hub?sslmode=require&channel_binding=require");
        let app = with_role("DATABASE_URL", &owner, "psn_app", "n3w").unwrap();
        assert_eq!(app.expose(), "postgresql://psn_app:n3w@127.0.0.1:5499/hub?sslmode=require&channel_binding=require");
        let (a, b) = (parse(owner.expose()).unwrap(), parse(app.expose()).unwrap());
        assert!(a.same_place(&b));
        assert!(!a.same_place(&parse("postgresql://u:p@127.0.0.1:5500/hub").unwrap()));
    }

    #[test]
    fn a_pooler_is_its_database_s() {
        let direct = parse("postgresql://o:p@ep-x-1.eu.aws.neon.tech/hub").unwrap();
        for (pooled, is) in [
            ("postgresql://o:p@ep-x-1-pooler.eu.aws.neon.tech/hub", true),
            ("postgresql://o:p@ep-x-1.eu.aws.neon.tech:6543/hub", true),
            ("postgresql://o:p@ep-x-1-pooler.eu.aws.neon.tech/other", false),
            ("postgresql://o:p@ep-x-2-pooler.eu.aws.neon.tech/hub", false),
            ("postgresql://o:p@ep-x-1-pooler.evil.example/hub", false),
            ("postgresql://o:p@ep-x-1-pooler/hub", false),
            ("postgresql://o:p@evil.example/hub", false),
        ] {
            assert_eq!(parse(pooled).unwrap().pools(&direct), is, "{pooled}");
        }
    }

    #[test]
    fn names_of_secrets() {
        assert_eq!(Purpose::Plugin("my-plugin2".into()).secret_name(), "DATABASE_URL_PLUGIN_MY_PLUGIN2");
        assert_eq!(Purpose::App.secret_name(), "DATABASE_URL_APP");
    }

    #[test]
    fn what_a_pooler_refuses_is_told_from_what_passes() {
        for refusal in POOLER_REFUSALS {
            assert_eq!(login_state("08P01", refusal), "28P01");
            assert_eq!(login_state("08006", refusal), "08006");
        }
        for passing in [
            "server login has been failing, try again later (server_login_retry)",
            "query_wait_timeout",
            "pgbouncer cannot connect to server",
        ] {
            assert!(passes(&login_state("08P01", passing)), "{passing}");
        }
    }

    #[tokio::test]
    async fn a_port_where_nothing_listens_is_given_up_on_with_a_fix() {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        let url = parse(&format!("postgresql://u:p@127.0.0.1:{port}/d")).unwrap();
        let error =
            connect_url(&url, &TlsRoots::WebPki, Deadline::after(Duration::from_millis(300))).await.unwrap_err();
        assert_eq!(error.coded().code, "hub.unreachable");
        assert_eq!(error.coded().fix[0], "psn local up");
        assert!(error.coded().retryable);
    }
}
