//! Client certificates that name an owner or a device (docs/tls.md): whom their connections may
//! speak for, and what those are told that they may not speak for.

use std::sync::Arc;

use otter_protocol::{CloseReason, Config, Connection, Handshake, Security, TlsFailure};
use otter_tests::scene::{DEVICE, KEY, OTHER_DEVICE, OTHER_OWNER, OWNER, Redeemable, registration};
use otter_tests::tls::{Session, Terms};
use otter_tests::{Clock, Draft, Request, Scene};
use rcgen::{CertificateParams, KeyPair, SanType};
use rustls::pki_types::PrivateKeyDer;
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};

use crate::health;

/// A server that asks for certificates, and a client that has one with these names, or none.
fn pair(uris: Option<&[&str]>) -> (Arc<ServerConfig>, Arc<ClientConfig>) {
    let terms = Terms::default();
    let (mut server, mut client) = ((*terms.server()).clone(), (*terms.client()).clone());
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::new(Vec::new()).expect("no names");
    let name = |uri: &&str| SanType::URI((*uri).try_into().expect("ASCII"));
    params.subject_alt_names = uris.unwrap_or_default().iter().map(name).collect();
    let certificate = params.self_signed(&key).expect("a certificate");
    let mut roots = RootCertStore::empty();
    roots.add(certificate.der().clone()).expect("a root");
    let provider = Arc::clone(server.crypto_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
    server = ServerConfig::builder_with_details(
        Arc::clone(server.crypto_provider()),
        Arc::clone(&server.time_provider),
    )
    .with_safe_default_protocol_versions()
    .expect("versions")
    .with_client_cert_verifier(verifier.expect("a root"))
    .with_cert_resolver(Arc::clone(&server.cert_resolver));
    if uris.is_some() {
        let key = PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
        let chain = vec![certificate.der().clone()];
        let signer = client.crypto_provider().key_provider.load_private_key(key).expect("a key");
        let certified = rustls::sign::CertifiedKey::new(chain, signer);
        client.client_auth_cert_resolver =
            Arc::new(rustls::sign::SingleCertAndKey::from(certified));
    }
    (Arc::new(server), Arc::new(client))
}

/// What a check-in of [`DEVICE`] is told by a connection with these names.
fn check_in(uris: &[&str]) -> String {
    let (server, client) = pair(Some(uris));
    let mut session = Session::with(&Scene::new(), &server, &client);
    session.settle();
    let request = Request::check_in(KEY, &registration().wrapped("registration"));
    String::from_utf8(session.request(&request.bytes())).expect("text")
}

#[test]
fn a_certificate_speaks_for_whom_it_names() {
    let wrong = "{\"success\":false,\"response\":\"owner_found_but_no_key\"}";
    let owner = |owner: &str| format!("urn:otter:owner:{owner}");
    let device = |device: &str| format!("urn:otter:device:{device}");
    for (uris, may) in [
        (vec![], true),
        (vec!["urn:example:device".to_owned()], true),
        (vec![owner(OWNER)], true),
        (vec![device(DEVICE)], true),
        (vec![owner(OWNER), device(DEVICE)], true),
        (vec![owner(OTHER_OWNER)], false),
        (vec![device(OTHER_DEVICE)], false),
        (vec![owner(OWNER), device(OTHER_DEVICE)], false),
        (vec!["urn:otter:fleet:1".to_owned()], false),
    ] {
        let names: Vec<&str> = uris.iter().map(String::as_str).collect();
        let told = check_in(&names);
        assert_eq!(told.contains("\"status\":\"OK\""), may, "{uris:?}: {told}");
        assert_eq!(told.ends_with(wrong), !may, "{uris:?}: {told}");
    }
}

/// A token of another device is as unknown as one that never was.
#[test]
fn a_certificate_redeems_tokens_of_its_device_only() {
    let image = Redeemable::of(&Draft::binary("1.2.0", 5000));
    for (device, status) in [(DEVICE, "200 OK"), (OTHER_DEVICE, "404 Not Found")] {
        let (server, client) = pair(Some(&[&format!("urn:otter:device:{device}")]));
        let mut session = Session::with(&image.scene, &server, &client);
        session.settle();
        let heard = session.request(&image.get().bytes());
        assert!(heard.starts_with(format!("HTTP/1.1 {status}\r\n").as_bytes()), "{device}");
    }
}

#[test]
fn without_a_certificate_there_is_no_connection() {
    let (server, client) = pair(None);
    let mut session = Session::with(&Scene::new(), &server, &client);
    session.settle();
    assert!(session.request(&health()).is_empty());
    assert_eq!(session.peer.handshake(), Some(Handshake::Failed(TlsFailure::NotTrusted)));
    assert_eq!(session.close(), CloseReason::Tls);
}

/// A chain of certificates that is longer than the memory for a batch is sent all the same.
#[test]
fn a_long_chain_is_sent_whole() {
    let (server, client) = pair(Some(&[]));
    let key = KeyPair::generate().expect("a key");
    let names: Vec<String> = (0..2000).map(|n| format!("device-{n}.example")).collect();
    let certificate = CertificateParams::new(names).expect("names").self_signed(&key);
    let certificate = certificate.expect("a certificate").der().clone();
    assert!(certificate.len() > 20_000);
    let key = PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
    let signer = server.crypto_provider().key_provider.load_private_key(key).expect("a key");
    let certified = rustls::sign::CertifiedKey::new(vec![certificate], signer);
    let mut long = (*server).clone();
    long.cert_resolver = Arc::new(rustls::sign::SingleCertAndKey::from(certified));
    let mut session = Session::with(&Scene::new(), &Arc::new(long), &client);
    session.settle();
    // The client, which has another name in mind, has read all of it.
    assert_eq!(session.peer.handshake(), Some(Handshake::Failed(TlsFailure::PeerRefused)));
}

#[test]
fn a_socket_says_what_protects_it() {
    let now = Clock::start().now();
    for (security, is_handshaking) in
        [(Security::Plain, false), (Security::Tls(Terms::default().server()), true)]
    {
        let config = Arc::new(Config::default());
        let connection: Connection = Connection::accept(config, &security, now);
        assert_eq!(connection.is_handshaking(), is_handshaking);
    }
}
