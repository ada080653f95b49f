//! TLS handshakes in memory: a real client and a real server of rustls, and nothing between them.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256};
use rustix::time::{ClockId, clock_gettime};
use rustls::client::{Resumption, Tls12Resumption};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::server::{ProducesTickets, StoresServerSessions};
use rustls::{
    CipherSuite, ClientConfig, ClientConnection, ConnectionCommon, HandshakeKind, RootCertStore,
    ServerConfig, ServerConnection, SideData, SupportedProtocolVersion,
};

/// A server's certificate: self-signed, ECDSA over P-256, for `localhost`.
pub struct Identity {
    certificate: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
}

/// How a handshake went.
#[derive(Clone, Copy, Debug)]
pub struct Handshake {
    /// Full or resumed, as the server says.
    pub kind: HandshakeKind,
    /// CPU time of the server's side, from the making of its connection to the last byte.
    pub server_cpu: Duration,
    /// What the server sent.
    pub sent_bytes: usize,
}

impl Identity {
    /// Makes one.
    ///
    /// # Panics
    /// Without randomness.
    #[must_use]
    pub fn new() -> Self {
        let params = CertificateParams::new(["localhost".to_owned()]).expect("a name");
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).expect("a key");
        let certificate = params.self_signed(&key).expect("signed").der().clone();
        let key = PrivatePkcs8KeyDer::from(key.serialize_der()).into();
        Self { certificate, key }
    }

    /// A server that speaks one version.
    ///
    /// # Panics
    /// If rustls does not like what this makes.
    #[must_use]
    pub fn server(
        &self,
        version: &'static SupportedProtocolVersion,
        tickets: Arc<dyn ProducesTickets>,
        sessions: Arc<dyn StoresServerSessions>,
    ) -> Arc<ServerConfig> {
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[version])
            .expect("a version of ours")
            .with_no_client_auth()
            .with_single_cert(vec![self.certificate.clone()], self.key.clone_key())
            .expect("a certificate of ours");
        config.ticketer = tickets;
        config.session_storage = sessions;
        // As many as a device can use.
        config.send_tls13_tickets = 1;
        Arc::new(config)
    }

    /// A client that trusts it, and remembers one session.
    ///
    /// # Panics
    /// If rustls does not like what this makes.
    #[must_use]
    pub fn client(&self, resumption: Tls12Resumption) -> Arc<ClientConfig> {
        self.client_of(provider(), resumption)
    }

    /// A client that trusts it and has only this cipher suite.
    ///
    /// # Panics
    /// If ring does not have the suite.
    #[must_use]
    pub fn client_with(&self, suite: CipherSuite) -> Arc<ClientConfig> {
        let mut provider = CryptoProvider::clone(&provider());
        provider.cipher_suites.retain(|known| known.suite() == suite);
        self.client_of(Arc::new(provider), Tls12Resumption::Disabled)
    }

    fn client_of(
        &self,
        provider: Arc<CryptoProvider>,
        resumption: Tls12Resumption,
    ) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone()).expect("a certificate of ours");
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions of ours")
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.resumption = Resumption::in_memory_sessions(1).tls12_resumption(resumption);
        Arc::new(config)
    }
}

impl Default for Identity {
    fn default() -> Self {
        Self::new()
    }
}

/// One handshake, and all that the server sends behind it.
///
/// # Errors
/// What either side said.
///
/// # Panics
/// If both sides wait for each other.
pub fn shake(client: &Arc<ClientConfig>, server: &Arc<ServerConfig>) -> io::Result<Handshake> {
    let name = ServerName::try_from("localhost").map_err(io::Error::other)?;
    let mut client = ClientConnection::new(Arc::clone(client), name).map_err(io::Error::other)?;
    let before = cpu_time();
    let server = ServerConnection::new(Arc::clone(server));
    let mut server_cpu = cpu_time() - before;
    let mut server = server.map_err(io::Error::other)?;
    let mut sent_bytes = 0;
    loop {
        let flight = sent(&mut client)?;
        let before = cpu_time();
        let answer = received(&mut server, &flight).and_then(|()| sent(&mut server));
        server_cpu += cpu_time() - before;
        let answer = answer?;
        sent_bytes += answer.len();
        received(&mut client, &answer)?;
        if flight.is_empty() && answer.is_empty() {
            break;
        }
    }
    assert!(!client.is_handshaking() && !server.is_handshaking(), "both wait");
    let kind = server.handshake_kind().ok_or_else(|| io::Error::other("of no kind"))?;
    assert_eq!(client.handshake_kind(), Some(kind));
    Ok(Handshake { kind, server_cpu, sent_bytes })
}

/// What one side has to say.
fn sent<S>(side: &mut ConnectionCommon<S>) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    while side.wants_write() {
        side.write_tls(&mut bytes)?;
    }
    Ok(bytes)
}

/// Lets one side have all this.
fn received<S: SideData>(side: &mut ConnectionCommon<S>, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        side.read_tls(&mut bytes)?;
        side.process_new_packets().map_err(io::Error::other)?;
    }
    Ok(())
}

/// What this thread has used so far.
fn cpu_time() -> Duration {
    let used = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(used.tv_sec.unsigned_abs(), u32::try_from(used.tv_nsec).unwrap_or(0))
}

/// rustls with ring; P-256 alone, so that the groups of both versions are the same.
fn provider() -> Arc<CryptoProvider> {
    let kx_groups = vec![ring::kx_group::SECP256R1];
    Arc::new(CryptoProvider { kx_groups, ..ring::default_provider() })
}
