//! Services over TLS.
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{RootCertStore, ServerConfig};
use tokio_rustls::TlsAcceptor;

use super::super::connect::Dialler;
use super::*;

/// A service with a certificate of its own for `name`, and the store that trusts it.
async fn service_named(name: &str) -> (Service, Arc<RootCertStore>) {
    let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
    let certificate: CertificateDer<'static> = made.cert.der().clone();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(certificate.clone()).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let greet = move |tcp| {
        let accepting = acceptor.accept(tcp);
        async move { accepting.await.ok() }
    };
    (Service::start_over(|_, _| reply("200 OK", &[], "over TLS"), greet).await, Arc::new(roots))
}

fn rig_over_tls(service: &Service) -> Rig<Http> {
    let mut services = ServiceMap::vendors();
    services.set("neon", format!("https://127.0.0.1:{}/", service.port).parse().unwrap());
    let rig = Rig::with_secrets(|secrets| Http::new(&manifest(TABLES), &services, secrets).unwrap());
    rig.secret("NEON_API_KEY", KEY);
    rig
}

#[tokio::test]
async fn a_certificate_that_nobody_vouches_for_gets_no_request() {
    let (service, _) = service_named("127.0.0.1").await;
    let mut rig = rig_over_tls(&service);
    let e = send(&mut rig, request(Method::Post, "/projects")).await.unwrap_err();
    assert_eq!((e.code.as_str(), e.sent), ("unreachable", false), "{}", e.message);
    assert!(e.message.contains("TLS") && e.message.contains("certificate"), "{}", e.message);
    assert!(service.seen().is_empty());
}

#[tokio::test]
async fn a_certificate_for_another_name_gets_no_request() {
    let (service, roots) = service_named("console.neon.tech").await;
    let mut rig = rig_over_tls(&service);
    rig.cap.dialler = Dialler::trusting(roots);
    let e = send(&mut rig, request(Method::Post, "/projects")).await.unwrap_err();
    assert_eq!((e.code.as_str(), e.sent), ("unreachable", false), "{}", e.message);
    assert!(service.seen().is_empty());
}

#[tokio::test]
async fn a_trusted_certificate_for_the_right_name_is_spoken_to() {
    let (service, roots) = service_named("127.0.0.1").await;
    let mut rig = rig_over_tls(&service);
    rig.cap.dialler = Dialler::trusting(roots);
    for _ in 0..2 {
        assert_eq!(get(&mut rig).await.unwrap().body, b"over TLS");
    }
    assert_eq!(service.connections(), 1);
    assert_eq!(service.seen()[0].header("authorization"), Some(format!("Bearer {KEY}").as_str()));
}
