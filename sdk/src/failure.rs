//! Why something failed, in words that tell a person what to do next.

use std::fmt;

use crate::{db, http, hub, state, tool, vault};

/// Used where nothing better is known: a failure without a next step leaves people and agents stuck.
const LAST_RESORT: &str = "psn run validate";

/// Milliseconds after which a service that was busy or away is worth another try.
const RETRY_SERVICE_MS: u64 = 30_000;
/// Milliseconds after which a service is asked again whose reply made no sense.
const RETRY_REPLY_MS: u64 = 1_000;
/// Milliseconds after which a database that was away is worth another try: a suspended one wakes within seconds.
const RETRY_DATABASE_MS: u64 = 5_000;

/// Deliberately no `std::error::Error`: every error a plugin meets converts into one of these with `?`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Stable, in kebab case, below the plugin's name: `key-rejected`.
    pub code: String,
    pub message: String,
    /// What to do, most useful first; commands exactly as they can be typed.
    pub fix: Vec<String>,
    /// None where trying again never helps.
    pub retry_after_ms: Option<u64>,
}

impl Failure {
    pub fn new(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self { code: code.into(), message: message.into(), fix: Vec::new(), retry_after_ms: None }
    }

    pub fn fix(mut self, fix: impl Into<String>) -> Self {
        self.fix.push(fix.into());
        self
    }

    /// The same call may succeed after this many milliseconds.
    pub fn retry_after_ms(mut self, ms: u64) -> Self {
        self.retry_after_ms = Some(ms);
        self
    }

    /// What failed is said before why.
    pub fn context(mut self, what: impl fmt::Display) -> Self {
        self.message = format!("{what}: {}", self.message);
        self
    }

    #[cfg_attr(not(target_family = "wasm"), allow(dead_code, reason = "used at the border to the host"))]
    pub(crate) fn with_fix(mut self) -> Self {
        if self.fix.is_empty() {
            self.fix.push(LAST_RESORT.into());
        }
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.message, self.code)
    }
}

impl From<http::Error> for Failure {
    fn from(error: http::Error) -> Self {
        use http::Kind;
        let failure = |code: &str| Failure::new(code, error.to_string());
        match error.kind {
            Kind::Denied => failure("http-denied")
                .fix("Add the line that the message names to plugin.toml, build the plugin again, and agree to its new rights"),
            Kind::Unreachable | Kind::Unanswered => failure("service-unreachable")
                .fix("Check the network connection, then run the same command again")
                .retry_after_ms(RETRY_SERVICE_MS),
            Kind::Status(401) => failure("key-rejected").fix("psn run keys"),
            Kind::Status(403) => {
                failure("key-forbidden").fix("Use a key whose owner may do this").fix("psn run keys")
            }
            Kind::Status(404) => failure("not-found"),
            Kind::Status(423 | 429 | 503) => failure("service-busy")
                .fix("Run the same command again in half a minute")
                .retry_after_ms(RETRY_SERVICE_MS),
            Kind::Status(500..) => {
                failure("service-failed").fix("Run the same command again later").retry_after_ms(RETRY_SERVICE_MS)
            }
            Kind::Status(_) => failure("service-refused"),
            // Most often a reply that was cut short or came from something in between.
            Kind::Body => failure("reply-not-understood")
                .fix("Run the same command again")
                .fix("Update psn: the service may have changed its replies")
                .retry_after_ms(RETRY_REPLY_MS),
            Kind::TooLarge => failure("reply-too-large").fix("Ask for fewer items at a time"),
            Kind::Deadline => {
                failure("deadline").fix("Run the same command again: it goes on where it was").retry_after_ms(0)
            }
            Kind::Other => failure("http-failed").fix("Run the same command again"),
        }
    }
}

impl From<db::Error> for Failure {
    fn from(error: db::Error) -> Self {
        let failure = |code: &str| Failure::new(code, error.to_string());
        match error.code.as_str() {
            "denied" => failure("database-denied")
                .fix("Add the table, column or function to [db] in plugin.toml, build the plugin again, and agree to its new rights"),
            "unavailable" => {
                failure("database-unavailable").fix("psn run validate").retry_after_ms(RETRY_DATABASE_MS)
            }
            "deadline" => {
                failure("deadline").fix("Run the same command again: it goes on where it was").retry_after_ms(0)
            }
            "too-large" => failure("result-too-large").fix("Read through a cursor, or ask for fewer rows"),
            _ => failure("database-error").fix("psn run validate"),
        }
    }
}

impl From<state::Error> for Failure {
    fn from(error: state::Error) -> Self {
        let code = if error.is_unreadable() { "state-not-understood" } else { "state-not-saved" };
        Failure::new(code, error.to_string())
            .fix("Make sure that psn's folder is writable and its disk has space, then run the same command again")
    }
}

impl From<tool::Error> for Failure {
    fn from(error: tool::Error) -> Self {
        let failure = |code: &str| Failure::new(code, error.to_string());
        match error.code.as_str() {
            // The host's message says how to install the program.
            "missing" => failure("tool-missing").fix(error.message.clone()),
            "denied" => failure("tool-denied").fix(
                "Add the arguments to [[tool]] in plugin.toml, build the plugin again, and agree to its new rights",
            ),
            "deadline" => failure("deadline").fix("Run the same command again").retry_after_ms(0),
            _ => failure("tool-failed").fix("Run the same command again"),
        }
    }
}

impl From<hub::Error> for Failure {
    fn from(error: hub::Error) -> Self {
        let failure = |code: &str| Failure::new(code, error.to_string());
        match error.code.as_str() {
            "denied" => failure("facts-denied").fix(
                "Add the topic to [hub] facts in plugin.toml, build the plugin again, and agree to its new rights",
            ),
            "unavailable" => failure("facts-unavailable").fix("psn run validate").retry_after_ms(RETRY_DATABASE_MS),
            _ => failure("facts-not-understood").fix("Update psn: plugin and host disagree about this topic"),
        }
    }
}

impl From<vault::Error> for Failure {
    fn from(error: vault::Error) -> Self {
        Failure::new("vault-refused", error.to_string()).fix("psn run validate")
    }
}

impl From<serde_json::Error> for Failure {
    fn from(error: serde_json::Error) -> Self {
        Failure::new("json-not-understood", error.to_string())
            .fix("Update psn: plugin and host disagree about this document")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_http_error_has_a_code_a_fix_or_a_status_the_plugin_explains() {
        let cases = [
            (http::Kind::Denied, "http-denied", false),
            (http::Kind::Unreachable, "service-unreachable", true),
            (http::Kind::Unanswered, "service-unreachable", true),
            (http::Kind::Status(401), "key-rejected", false),
            (http::Kind::Status(403), "key-forbidden", false),
            (http::Kind::Status(404), "not-found", false),
            (http::Kind::Status(422), "service-refused", false),
            (http::Kind::Status(423), "service-busy", true),
            (http::Kind::Status(429), "service-busy", true),
            (http::Kind::Status(500), "service-failed", true),
            (http::Kind::Status(503), "service-busy", true),
            (http::Kind::Status(524), "service-failed", true),
            (http::Kind::Body, "reply-not-understood", true),
            (http::Kind::Deadline, "deadline", true),
        ];
        for (kind, code, retryable) in cases {
            let failure = Failure::from(http::Error::for_test(kind)).with_fix();
            assert_eq!(failure.code, code, "{kind:?}");
            assert_eq!(failure.retry_after_ms.is_some(), retryable, "{kind:?}");
            assert!(!failure.fix.is_empty(), "{kind:?}");
        }
    }

    #[test]
    fn database_errors_keep_what_postgres_said() {
        let error =
            db::Error { code: "database".into(), message: "no such table".into(), sqlstate: Some("42P01".into()) };
        let failure = Failure::from(error);
        assert_eq!(failure.code, "database-error");
        assert!(failure.message.contains("no such table") && failure.message.contains("42P01"), "{}", failure.message);
    }

    #[test]
    fn a_failure_without_a_fix_gets_one_at_the_border() {
        assert_eq!(Failure::new("x", "y").with_fix().fix, ["psn run validate"]);
        assert_eq!(Failure::new("x", "y").fix("z").with_fix().fix, ["z"]);
    }
}
