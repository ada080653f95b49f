//! A device's connection over TLS.

use std::io::Write;
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use otter_protocol::{Answer, Config, Connection, Legible, Now, Query};
use rustls::client::Resumption;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, SupportedCipherSuite};

use crate::peer::{now, settle};

/// Server and client that know each other: TLS 1.3, P-256, one cipher suite.
pub struct Suite {
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
}

/// A connection over TLS that has shaken hands, and what answers its questions. What the client
/// is told it does not open.
pub struct Tunnel<I, F> {
    now: Now,
    client: ClientConnection,
    server: Connection<I>,
    wire: Vec<u8>,
    answer: F,
}

impl Suite {
    /// With a certificate of its own.
    ///
    /// # Errors
    /// If rustls does not like it.
    pub fn new(suite: SupportedCipherSuite) -> Result<Self> {
        let provider = CryptoProvider {
            cipher_suites: vec![suite],
            kx_groups: vec![ring::kx_group::SECP256R1],
            ..ring::default_provider()
        };
        let provider = Arc::new(provider);
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
        let certificate: CertificateDer<'static> = made.cert.into();
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der());
        let mut server = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_no_client_auth()
            .with_single_cert(vec![certificate.clone()], key.map_err(anyhow::Error::msg)?)?;
        server.ticketer = ring::Ticketer::new()?;
        server.send_tls13_tickets = 1;
        let mut roots = RootCertStore::empty();
        roots.add(certificate)?;
        let mut client = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_root_certificates(roots)
            .with_no_client_auth();
        client.resumption = Resumption::in_memory_sessions(1);
        Ok(Self { server: Arc::new(server), client: Arc::new(client) })
    }

    /// The same, with a client that never comes back with what it was given.
    #[must_use]
    pub fn forgetful(&self) -> Self {
        let mut client = ClientConfig::clone(&self.client);
        client.resumption = Resumption::disabled();
        Self { server: Arc::clone(&self.server), client: Arc::new(client) }
    }
}

impl<I: AsRef<[u8]> + Clone + Legible, F: FnMut(Query) -> Answer<I>> Tunnel<I, F> {
    /// A connection after its handshake. `timed` gets each piece of work that the server does for
    /// it.
    ///
    /// # Errors
    /// If the two do not understand each other.
    pub fn open(suite: &Suite, answer: F, mut timed: impl FnMut(&mut dyn FnMut())) -> Result<Self> {
        let now = now();
        let name = ServerName::try_from("localhost")?;
        let client = ClientConnection::new(Arc::clone(&suite.client), name)?;
        let (config, tls) = (Arc::new(Config::default()), Arc::clone(&suite.server));
        let mut made = None;
        timed(&mut || {
            made = Some(Connection::tls(Arc::clone(&config), Arc::clone(&tls), now));
        });
        let server = made.context("no connection was made")?;
        let mut tunnel = Self { now, client, server, wire: Vec::new(), answer };
        while tunnel.client.is_handshaking() || tunnel.client.wants_write() {
            tunnel.write_wire()?;
            ensure!(!tunnel.wire.is_empty(), "both wait for each other");
            let mut told = Vec::new();
            timed(&mut || tunnel.exchange(&mut told));
            let mut told = &told[..];
            while !told.is_empty() {
                tunnel.client.read_tls(&mut told)?;
                tunnel.client.process_new_packets()?;
            }
        }
        if let Some(reason) = tunnel.server.closed() {
            bail!("closed: {reason:?}");
        }
        Ok(tunnel)
    }

    /// The device says this; returns how many bytes of records it is told in turn.
    ///
    /// # Errors
    /// If TLS does not take it.
    pub fn say(&mut self, bytes: &[u8]) -> Result<usize> {
        self.client.writer().write_all(bytes)?;
        self.write_wire()?;
        self.server.handle_input(self.now, &self.wire);
        Ok(settle(&mut self.server, self.now, usize::MAX, &mut self.answer))
    }

    fn write_wire(&mut self) -> Result<()> {
        self.wire.clear();
        while self.client.wants_write() {
            self.client.write_tls(&mut self.wire)?;
        }
        Ok(())
    }

    /// The server's side of a flight of the handshake.
    fn exchange(&mut self, told: &mut Vec<u8>) {
        self.server.handle_input(self.now, &self.wire);
        while let Some(next) = self.server.transmit() {
            let n = next.as_slice().len();
            told.extend_from_slice(next.as_slice());
            self.server.handle_sent(self.now, n);
        }
    }
}
