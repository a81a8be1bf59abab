//! Services over TLS.
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{HandshakeKind, RootCertStore, ServerConfig};
use tokio_rustls::TlsAcceptor;

use super::super::connect::Dialler;
use super::*;

/// A service with a certificate of its own for `name`, and the store that trusts it.
async fn service_named(name: &str) -> (Service, Arc<RootCertStore>) {
    let (service, roots, _) = service_and_handshakes(name).await;
    (service, roots)
}

/// The same, and what kind each handshake was: in full, or resumed from a session.
async fn service_and_handshakes(name: &str) -> (Service, Arc<RootCertStore>, Arc<Mutex<Vec<HandshakeKind>>>) {
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
    let handshakes = Arc::new(Mutex::new(Vec::new()));
    let greet = {
        let handshakes = handshakes.clone();
        move |tcp| {
            let (accepting, handshakes) = (acceptor.accept(tcp), handshakes.clone());
            async move {
                let stream = accepting.await.ok()?;
                handshakes.lock().unwrap().extend(stream.get_ref().1.handshake_kind());
                Some(stream)
            }
        }
    };
    // Each answer closes its connection, so that the next request needs a handshake.
    let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 8\r\nconnection: close\r\n\r\nover TLS";
    let handler = move |n: usize, _: &Seen| match n {
        0 => reply("200 OK", &[], "over TLS"),
        _ => Reply::Last(answer.to_vec()),
    };
    (Service::start_over(handler, greet).await, Arc::new(roots), handshakes)
}

/// TLS resumption tells a service that it speaks to the one it spoke to before.
#[tokio::test]
async fn sessions_and_connections_belong_to_one_plugin() {
    let (service, roots, handshakes) = service_and_handshakes("127.0.0.1").await;
    let mut first = rig_over_tls(&service);
    first.cap.dialler = Dialler::trusting(roots.clone());
    let mut second = rig_over_tls(&service);
    second.cap.dialler = Dialler::trusting(roots);
    // Over one connection, then over another, which resumes the session.
    for _ in 0..3 {
        get(&mut first).await.unwrap();
    }
    assert_eq!(*handshakes.lock().unwrap(), [HandshakeKind::Full, HandshakeKind::Resumed]);
    // Another plugin has neither the connection nor the session.
    get(&mut second).await.unwrap();
    assert_eq!(handshakes.lock().unwrap().last(), Some(&HandshakeKind::Full));
    assert_eq!(service.connections(), 3);
    assert!(!Arc::ptr_eq(&first.cap.dialler.config(), &second.cap.dialler.config()));
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
