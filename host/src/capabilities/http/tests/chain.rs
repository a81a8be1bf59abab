//! That each value of the chain can be made of the one before only.
use super::super::connect::{Dialler, ExchangeError};
use super::super::inject::Outgoing;
use super::super::policy::Policy;
use super::super::resolve::Resolved;
use super::super::resolve::tests::Fixed;
use super::*;

/// A value that another module could put together would be no proof of a check.
#[test]
fn no_link_of_the_chain_can_be_made_elsewhere() {
    for (source, link) in [
        (include_str!("../policy.rs"), "Authorised"),
        (include_str!("../inject.rs"), "Outgoing"),
        (include_str!("../resolve.rs"), "Resolved"),
        (include_str!("../connect.rs"), "Connection"),
    ] {
        let begins = source.find(&format!("pub(super) struct {link}")).unwrap_or_else(|| panic!("no {link}"));
        let body = source[begins..].split_once('{').unwrap().1.split_once("\n}").unwrap().0;
        let fields: Vec<_> = body.lines().map(str::trim).filter(|l| l.contains(": ")).collect();
        assert!(fields.len() > 1, "{link}: {body}");
        assert!(fields.iter().all(|f| !f.starts_with("pub")), "{link} has a field that others can set: {body}");
        let before = source[..begins].lines().rev().take_while(|l| l.starts_with("#[") || l.starts_with("///"));
        let derived: String = before.collect();
        assert!(!derived.contains("Default") && !derived.contains("Clone"), "{link}: {derived}");
    }
}

#[tokio::test]
async fn a_request_goes_over_a_connection_to_its_own_service_only() {
    let neon = Service::start(|_, _| reply("200 OK", &[], "neon")).await;
    let other = Service::start(|_, _| reply("200 OK", &[], "other")).await;
    let mut services = ServiceMap::vendors();
    services.set("neon", neon.base());
    services.set("other", other.base());
    let policy = Policy::new(&manifest(TABLES), &services).unwrap();
    let mut rig = rig(&neon);
    rig.secret("OTHER_KEY", "other-canary-0002");
    let to_neon = policy.decide(&request(Method::Get, "/projects")).unwrap();
    let to_other = policy.decide(&Request { service: "other".into(), ..request(Method::Get, "/") }).unwrap();
    let resolved = Resolved::new(&to_neon, &Fixed(vec![])).await.unwrap();
    let mut connection = Dialler::new().connect(&resolved).await.unwrap();
    let outgoing = Outgoing::new(&to_other, None, &rig.secrets).unwrap();
    let e = connection.exchange(&outgoing, &mut rig.call.meter).await.unwrap_err();
    assert!(matches!(e, ExchangeError::Elsewhere(_)), "{e}");
    let outgoing = Outgoing::new(&to_neon, None, &rig.secrets).unwrap();
    assert_eq!(connection.exchange(&outgoing, &mut rig.call.meter).await.unwrap().body, b"neon");
    assert_eq!((neon.seen().len(), other.seen().len()), (1, 0));
}
