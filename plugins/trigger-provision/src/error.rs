//! A call that went wrong, where what is to be done depends on whose credential Trigger.dev refused.

use std::ops::Deref;

use psn_plugin::{http, prelude::*};

use crate::access;

#[derive(Debug)]
pub(crate) struct Error(http::Error);

impl From<http::Error> for Error {
    fn from(error: http::Error) -> Self {
        Self(error)
    }
}

impl Deref for Error {
    type Target = http::Error;

    fn deref(&self) -> &http::Error {
        &self.0
    }
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl From<Error> for Failure {
    /// A token or a key can be revoked between any two calls.
    fn from(Error(error): Error) -> Self {
        match (error.status(), error.service.as_str()) {
            (Some(401), "trigger") => access::token_rejected(),
            (Some(401), _) => access::key_rejected(),
            _ => error.into(),
        }
    }
}
