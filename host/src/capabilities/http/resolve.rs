//! From a name to addresses, once. What is not public is refused, whatever it is called.
use std::fmt;
use std::net::{IpAddr, SocketAddr};

use async_trait::async_trait;
use url::{Host, Url};

use super::address::is_global;
use super::policy::Authorised;

/// Addresses of one name that are tried. A service has a handful.
const MAX_ADDRESSES: usize = 16;

/// Asks for the addresses of a name.
#[async_trait]
pub(super) trait Lookup: Send + Sync {
    async fn lookup(&self, host: &str, port: u16) -> std::io::Result<Vec<SocketAddr>>;
}

/// As the operating system answers.
pub(super) struct SystemLookup;

#[async_trait]
impl Lookup for SystemLookup {
    async fn lookup(&self, host: &str, port: u16) -> std::io::Result<Vec<SocketAddr>> {
        Ok(tokio::net::lookup_host((host, port)).await?.take(MAX_ADDRESSES).collect())
    }
}

/// Where a service is spoken to: the same scheme, host and port share a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Origin {
    pub(super) https: bool,
    /// As it stands in a URL: lower case, ASCII, brackets around an IPv6 address.
    pub(super) host: String,
    pub(super) port: u16,
}

impl Origin {
    pub(super) fn of(url: &Url) -> Option<Self> {
        let (host, port) = (url.host()?, url.port_or_known_default()?);
        Some(Self { https: url.scheme() == "https", host: host.to_string(), port })
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// Addresses that an allowed call may be made to. Made of an [`Authorised`] only, and only of addresses that were checked.
#[derive(Debug)]
pub(super) struct Resolved {
    origin: Origin,
    addresses: Vec<SocketAddr>,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum ResolveError {
    #[error(
        "{host} is at {address}, which is not a public address: psn calls services on the public internet, and on this machine only those of the local hub"
    )]
    NotPublic { host: String, address: IpAddr },
    #[error("the address of {host} could not be found: {reason}")]
    NotFound { host: String, reason: String },
}

impl Resolved {
    pub(super) async fn new(authorised: &Authorised, lookup: &dyn Lookup) -> Result<Self, ResolveError> {
        let url = authorised.url();
        let (Some(host), Some(origin)) = (url.host(), Origin::of(url)) else {
            return Err(ResolveError::NotFound { host: url.to_string(), reason: "it names no host".into() });
        };
        let port = origin.port;
        let exception = authorised.service().exception;
        let addresses = match host {
            Host::Ipv4(address) => vec![SocketAddr::new(address.into(), port)],
            Host::Ipv6(address) => vec![SocketAddr::new(address.into(), port)],
            Host::Domain(name) => {
                let not_found = |reason: String| ResolveError::NotFound { host: name.to_owned(), reason };
                let found = lookup.lookup(name, port).await.map_err(|e| not_found(e.to_string()))?;
                if found.is_empty() {
                    return Err(not_found("there is none".into()));
                }
                // The port is the URL's, whatever the answer says.
                found.into_iter().map(|a| SocketAddr::new(a.ip(), port)).collect()
            }
        };
        // One address that is not public makes the whole answer one to distrust.
        match addresses.iter().find(|a| !is_global(a.ip()) && exception != Some(**a)) {
            Some(bad) => Err(ResolveError::NotPublic { host: origin.host, address: bad.ip() }),
            None => Ok(Self { origin, addresses }),
        }
    }

    pub(super) fn origin(&self) -> &Origin {
        &self.origin
    }

    /// In the order to try them: as answered, the two families by turns.
    pub(super) fn addresses(&self) -> impl Iterator<Item = SocketAddr> + '_ {
        let first_is_v4 = self.addresses.first().is_some_and(SocketAddr::is_ipv4);
        let mut first = self.addresses.iter().filter(move |a| a.is_ipv4() == first_is_v4);
        let mut second = self.addresses.iter().filter(move |a| a.is_ipv4() != first_is_v4);
        (0..self.addresses.len()).flat_map(move |_| [first.next(), second.next()]).flatten().copied()
    }
}

#[cfg(test)]
pub(super) mod tests {
    use psn_bindings::imports::psn::plugin::http::{Method, Request};

    use super::super::policy::Policy;
    use super::super::services::ServiceMap;
    use super::*;
    use crate::capabilities::testing::manifest;

    /// Answers every name with the same addresses.
    pub(crate) struct Fixed(pub(crate) Vec<&'static str>);

    #[async_trait]
    impl Lookup for Fixed {
        async fn lookup(&self, _: &str, port: u16) -> std::io::Result<Vec<SocketAddr>> {
            Ok(self.0.iter().map(|a| SocketAddr::new(a.parse().unwrap(), port)).collect())
        }
    }

    fn authorised(services: &ServiceMap) -> Authorised {
        let m = manifest("[[http]]\nservice = \"x\"\nbase = \"https://api.example.com\"\nroutes = [\"GET /\"]\n");
        let request = Request {
            service: "x".into(),
            method: Method::Get,
            path: "/".into(),
            headers: vec![],
            body: None,
            idempotent: false,
        };
        Policy::new(&m, services).unwrap().decide(&request).unwrap()
    }

    #[tokio::test]
    async fn one_address_that_is_not_public_refuses_all() {
        let authorised = authorised(&ServiceMap::vendors());
        for (addresses, fine) in [
            (vec!["1.1.1.1"], true),
            (vec!["2606:4700:4700::1111", "1.1.1.1"], true),
            (vec!["127.0.0.1"], false),
            (vec!["169.254.169.254"], false),
            (vec!["1.1.1.1", "10.0.0.1"], false),
            (vec!["::ffff:127.0.0.1"], false),
            (vec!["2002:7f00:1::"], false),
            (vec!["64:ff9b::7f00:1"], false),
            (vec!["fe80::1"], false),
            (vec![], false),
        ] {
            let result = Resolved::new(&authorised, &Fixed(addresses.clone())).await;
            assert_eq!(result.is_ok(), fine, "{addresses:?}: {result:?}");
        }
    }

    #[tokio::test]
    async fn the_exception_is_one_address_and_one_port() {
        let mut services = ServiceMap::vendors();
        services.set("x", "http://127.0.0.1:8030/".parse().unwrap());
        let local = authorised(&services);
        assert_eq!(
            Resolved::new(&local, &Fixed(vec![])).await.unwrap().addresses().collect::<Vec<_>>(),
            ["127.0.0.1:8030".parse().unwrap()]
        );
        // The name of a service that is not overridden cannot lead there, even on that port.
        services.set("x", "https://api.example.com:8030/".parse().unwrap());
        let named = authorised(&services);
        assert!(matches!(Resolved::new(&named, &Fixed(vec!["127.0.0.1"])).await, Err(ResolveError::NotPublic { .. })));
    }

    #[tokio::test]
    async fn families_take_turns() {
        let authorised = authorised(&ServiceMap::vendors());
        let resolved =
            Resolved::new(&authorised, &Fixed(vec!["2606:4700::1", "2606:4700::2", "1.1.1.1"])).await.unwrap();
        let order: Vec<_> = resolved.addresses().map(|a| a.ip().to_string()).collect();
        assert_eq!(order, ["2606:4700::1", "1.1.1.1", "2606:4700::2"]);
    }

    #[tokio::test]
    async fn the_system_knows_this_machine() {
        let found = SystemLookup.lookup("localhost", 1).await.unwrap();
        assert!(found.iter().all(|a| a.ip().is_loopback()));
    }
}
