//! Why the database gives no answer, as guests are told.
use psn_bindings::imports::psn::plugin::db::Error;

use crate::capabilities::Call;
use crate::hub::connection::ConnectError;

/// The longest message, in bytes: Postgres quotes whole values.
const MAX_MESSAGE: usize = 2048;

#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    /// Refused on this side: it never reached the database.
    #[error("{0}")]
    Denied(String),
    #[error("{message}")]
    Database { message: String, sqlstate: Option<String> },
    #[error("{0}")]
    Unavailable(String),
    /// There was a connection, and it is gone: whatever its transaction did is undone, unless the commit was on its way.
    #[error("{0}")]
    Lost(String),
    #[error("{0}")]
    TooLarge(String),
    #[error(
        "the call's time was up before the database had answered; what it was doing is rolled back, unless it was the commit"
    )]
    Deadline,
}

impl Fault {
    /// Whether the connection is not to be used again: an answer may still be on its way, or Postgres refused what the policy had let
    /// through, and whoever tries that does not get to try more with what it may have left behind.
    pub(super) fn is_fatal(&self) -> bool {
        match self {
            Fault::Denied(_) => false,
            Fault::Database { sqlstate, .. } => sqlstate.as_deref() == Some(INSUFFICIENT_PRIVILEGE),
            _ => true,
        }
    }

    /// A statement that Postgres accepted and psn cannot carry out.
    pub(super) fn unsupported(message: String) -> Self {
        Fault::Database { message, sqlstate: None }
    }

    pub(super) fn into_error(self, call: &mut Call) -> Error {
        let message = call.spoken("a database error", &self.to_string(), MAX_MESSAGE);
        let (code, sqlstate) = match self {
            Fault::Denied(_) => ("denied", None),
            Fault::Database { sqlstate, .. } => ("database", sqlstate),
            Fault::Unavailable(_) | Fault::Lost(_) => ("unavailable", None),
            Fault::TooLarge(_) => ("too-large", None),
            Fault::Deadline => ("deadline", None),
        };
        Error { code: code.to_owned(), message, sqlstate }
    }
}

/// `insufficient_privilege`: a right that the role has not, or a row that a policy does not let be written.
const INSUFFICIENT_PRIVILEGE: &str = "42501";

/// `query_canceled`: the only one who cancels is the time limit that the session set.
const CANCELED: &str = "57014";

impl From<sqlx::Error> for Fault {
    fn from(e: sqlx::Error) -> Self {
        match e {
            sqlx::Error::Database(e) => {
                let sqlstate = e.code().map(std::borrow::Cow::into_owned);
                match sqlstate.as_deref() {
                    Some(CANCELED) => Fault::Deadline,
                    // The server goes down, or ended the session.
                    Some(s) if s.starts_with("57P") || s.starts_with("08") || s == "25P03" => {
                        Fault::Lost(e.message().to_owned())
                    }
                    _ => Fault::Database { message: e.message().to_owned(), sqlstate },
                }
            }
            e => Fault::Lost(format!("the connection to the database broke: {e}")),
        }
    }
}

impl From<ConnectError> for Fault {
    fn from(e: ConnectError) -> Self {
        let fix = e.coded().fix.join("; ");
        Fault::Unavailable(format!("{e}. To fix: {fix}"))
    }
}
