//! Named HTTP services. A guest names a service and a path; everything else is the host's. A call goes through one chain, in which
//! each value can only be made of the one before:
//!
//! ```text
//! policy.rs    Authorised   this service, this route, this one URL
//! inject.rs    Outgoing     with the credential and the secrets that it refers to
//! resolve.rs   Resolved     addresses, each of them public (or the one of the local hub)
//! connect.rs   Connection   to one of those addresses; Answer, whole and within limits
//! capture.rs   Response     secrets kept and replaced
//! ```
mod address;
pub(super) mod capture;
mod connect;
mod headers;
mod host;
mod inject;
#[cfg(feature = "full")]
pub(crate) mod invariants;
mod path;
mod policy;
mod resolve;
mod retry;
mod route;
mod services;
#[cfg(test)]
mod tests;
mod wire;

use std::sync::Arc;
use std::time::Duration;

use psn_bindings::imports::psn::plugin::http::Request;
use url::Url;

use crate::plugins::manifest::Manifest;
use crate::secret::{Keeper, Secrets};

pub use services::{PolicyError, ServiceMap};

/// From the first byte sent to the last byte received, for one try. A gateway in front of a service gives up after 100 s; the
/// slowest call of a setup takes about 10 s.
const TRY_LIMIT: Duration = Duration::from_secs(60);

/// The services that one plugin may call, and its connections to them.
pub struct Http {
    policy: policy::Policy,
    secrets: Arc<Secrets>,
    keeper: Keeper,
    lookup: Box<dyn resolve::Lookup>,
    dialler: connect::Dialler,
    try_limit: Duration,
}

impl Http {
    /// The decision alone, for whoever only asks: where a call would go, or why it would not be made.
    pub fn decide(&self, request: &Request) -> Result<Url, String> {
        self.policy.decide(request).map(|a| a.url().clone()).map_err(|e| e.to_string())
    }

    pub fn new(manifest: &Manifest, services: &ServiceMap, secrets: Arc<Secrets>) -> Result<Self, PolicyError> {
        Ok(Self {
            policy: policy::Policy::new(manifest, services)?,
            secrets,
            keeper: manifest.keeper(),
            lookup: Box::new(resolve::SystemLookup),
            dialler: connect::Dialler::new(),
            try_limit: TRY_LIMIT,
        })
    }

    /// Another limit for one try.
    #[must_use]
    pub fn with_try_limit(mut self, limit: Option<Duration>) -> Self {
        self.try_limit = limit.unwrap_or(self.try_limit);
        self
    }
}
