//! TLS beneath the exchanges: a client of rustls' and the core in memory.

use std::io::{Read, Write};
use std::sync::Arc;

use otter_protocol::{CloseReason, Config, Connection, Handshake};
use otter_tests::Clock;
use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig};

fn pair() -> (Arc<ServerConfig>, Arc<ClientConfig>) {
    let made = rcgen::generate_simple_self_signed(["otter.example".to_owned()]).expect("a cert");
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).expect("a key");
    let ring = Arc::new(rustls::crypto::ring::default_provider());
    let certificate = rustls::pki_types::CertificateDer::from(made.cert);
    let server = ServerConfig::builder_with_provider(Arc::clone(&ring))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], key)
        .expect("a config");
    let mut roots = RootCertStore::empty();
    roots.add(certificate).expect("a root");
    let client = ClientConfig::builder_with_provider(ring)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    (Arc::new(server), Arc::new(client))
}

#[test]
fn health_over_tls() {
    let (server, client) = pair();
    let now = Clock::start().now();
    let mut connection: Connection = Connection::tls(Arc::new(Config::default()), server, now);
    let name = ServerName::try_from("otter.example").expect("a name");
    let mut client = ClientConnection::new(client, name).expect("a client");
    client
        .writer()
        .write_all(b"GET / HTTP/1.1\r\nHost: otter\r\nConnection: close\r\n\r\n")
        .expect("room");
    let mut answer = Vec::new();
    for _ in 0..20 {
        let mut wire = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut wire).expect("memory");
        }
        if !wire.is_empty() {
            connection.handle_input(now, &wire);
        }
        while let Some(next) = connection.transmit() {
            let bytes = next.as_slice().to_vec();
            let mut from = &bytes[..];
            while !from.is_empty() {
                client.read_tls(&mut from).expect("memory");
                client.process_new_packets().expect("good records");
            }
            connection.handle_sent(now, bytes.len());
        }
        let _ = client.reader().read_to_end(&mut answer);
    }
    assert!(answer.ends_with(br#"{"healthcheck":true}"#), "{}", answer.escape_ascii());
    assert_eq!(connection.poll_handshake(), Some(Handshake::Full));
    assert!(connection.wants_shutdown());
    connection.handle_eof(now);
    assert_eq!(connection.closed(), Some(CloseReason::Peer));
}
