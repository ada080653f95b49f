//! Certificates that tests make, and handshakes in memory. Keys that ring cannot make are made by
//! the `openssl` program.

use std::fs;
use std::io::{self, Read, Write};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use otter_tests::tls::Trusting;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P384_SHA384,
};
use rustls::client::Resumption as ClientResumption;
use rustls::crypto::ring::Ticketer;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::ServerSessionMemoryCache;
use rustls::{
    ClientConfig, ClientConnection, Error, HandshakeKind, ServerConfig, ServerConnection,
    SignatureScheme, SupportedCipherSuite, SupportedProtocolVersion,
};
use tempfile::TempDir;

use super::certificates::{Certificates, Files};
use super::pem::PairFiles;
use super::scope::Resumption;
use super::x509::Facts;

/// A directory with certificates.
pub(super) struct Made {
    directory: TempDir,
}

impl Made {
    pub(super) fn new() -> Self {
        Self { directory: tempfile::tempdir().expect("a directory") }
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(super) fn write(&self, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, text).expect("written");
        path
    }

    /// An ECDSA P-256 certificate for `names` and its key, in `NAME.pem` and `NAME.key`.
    pub(super) fn ecdsa(&self, name: &str, names: &[&str]) -> PairFiles {
        self.signed(name, KeyPair::generate().expect("a key"), params(names))
    }

    pub(super) fn ecdsa_p384(&self, name: &str, names: &[&str]) -> PairFiles {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).expect("a key");
        self.signed(name, key, params(names))
    }

    /// As [`Self::ecdsa`], valid between two Unix times.
    pub(super) fn valid(&self, name: &str, from: u64, until: u64) -> PairFiles {
        let at = |s| rcgen::date_time_ymd(1970, 1, 1) + std::time::Duration::from_secs(s);
        let mut params = params(&["a.example"]);
        (params.not_before, params.not_after) = (at(from), at(until));
        self.signed(name, KeyPair::generate().expect("a key"), params)
    }

    fn signed(&self, name: &str, key: KeyPair, params: CertificateParams) -> PairFiles {
        let certificate = params.self_signed(&key).expect("signed");
        PairFiles {
            certificate: self.write(&format!("{name}.pem"), certificate.pem()),
            key: self.write(&format!("{name}.key"), key.serialize_pem()),
        }
    }

    /// A certificate with a key that `openssl req -newkey` makes of `kind`.
    pub(super) fn openssl(&self, name: &str, kind: &[&str], dns_name: &str) -> PairFiles {
        let pair = PairFiles {
            certificate: self.path(&format!("{name}.pem")),
            key: self.path(&format!("{name}.key")),
        };
        let subject = format!("subjectAltName=DNS:{dns_name}");
        let args = ["req", "-x509", "-nodes", "-subj", "/CN=made", "-addext", &subject, "-newkey"];
        run_openssl(&[&args, kind].concat(), &pair.key, &pair.certificate);
        pair
    }

    pub(super) fn rsa(&self, name: &str, dns_name: &str) -> PairFiles {
        self.openssl(name, &["rsa:2048"], dns_name)
    }
}

fn run_openssl(args: &[&str], key: &Path, certificate: &Path) {
    let mut command = Command::new("openssl");
    let ran = command.args(args).arg("-keyout").arg(key).arg("-out").arg(certificate).output();
    let ran = ran.expect("openssl runs");
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
}

/// Turns a key into another form of PEM.
pub(super) fn convert_key(args: &[&str], from: &Path, to: &Path) {
    let ran = Command::new("openssl").args(args).arg("-in").arg(from).arg("-out").arg(to).output();
    let ran = ran.expect("openssl runs");
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
}

pub(super) fn params(names: &[&str]) -> CertificateParams {
    let names: Vec<_> = names.iter().map(|&name| name.to_owned()).collect();
    CertificateParams::new(names).expect("names")
}

pub(super) fn load(pairs: Vec<PairFiles>) -> Arc<Certificates> {
    let files = Files { pairs, client_ca: None };
    Certificates::load(files, super::provider()).expect("loaded")
}

/// Sessions and tickets that nobody else has.
pub(super) fn resumption() -> Resumption {
    Resumption {
        sessions: ServerSessionMemoryCache::new(100),
        tickets: Ticketer::new().expect("keys"),
    }
}

/// An authority that signs certificates of clients.
pub(super) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub(super) pem: String,
}

impl Authority {
    pub(super) fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().expect("a key");
        let pem = params.self_signed(&key).expect("signed").pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    /// A certificate for a client, and its key.
    pub(super) fn sign(&self) -> (CertificateDer<'static>, PrivateKeyDer<'static>) {
        let key = KeyPair::generate().expect("a key");
        let certificate = params(&["client"]).signed_by(&key, &self.issuer).expect("signed");
        let key = PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes()).expect("PEM");
        (certificate.der().clone(), key)
    }
}

/// What a client of a test can do.
#[derive(Clone)]
pub(super) struct Client {
    /// None sends no name.
    pub(super) server: Option<&'static str>,
    pub(super) suites: Vec<SupportedCipherSuite>,
    pub(super) versions: Vec<&'static SupportedProtocolVersion>,
    /// None: all.
    pub(super) schemes: Option<Vec<SignatureScheme>>,
    pub(super) protocols: Vec<Vec<u8>>,
    pub(super) certificate: Option<Arc<(CertificateDer<'static>, PrivateKeyDer<'static>)>>,
    /// None: it resumes nothing.
    pub(super) resumption: Option<ClientResumption>,
}

/// A client that remembers its sessions.
pub(super) struct Ready {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
}

impl Ready {
    pub(super) fn shake(&self, server: &Arc<ServerConfig>) -> Result<Shaken, Error> {
        let client = ClientConnection::new(Arc::clone(&self.config), self.name.clone())?;
        shake(client, ServerConnection::new(Arc::clone(server))?)
    }
}

/// What a handshake came to, as the client sees it.
pub(super) struct Shaken {
    pub(super) certificate: CertificateDer<'static>,
    pub(super) suite: SupportedCipherSuite,
    pub(super) kind: HandshakeKind,
    /// Payload bytes of each record from the server.
    pub(super) records: Vec<usize>,
}

impl Shaken {
    fn of(client: &ClientConnection, records: Vec<usize>) -> Self {
        Self {
            certificate: client.peer_certificates().expect("a chain")[0].clone(),
            suite: client.negotiated_cipher_suite().expect("a suite"),
            kind: client.handshake_kind().expect("a handshake"),
            records,
        }
    }

    pub(super) fn facts(&self) -> Facts {
        Facts::of(&self.certificate).expect("readable")
    }

    pub(super) fn name(&self) -> String {
        self.facts().name().to_owned()
    }
}

impl Client {
    pub(super) fn new(server: Option<&'static str>) -> Self {
        Self {
            server,
            suites: super::provider().cipher_suites.clone(),
            versions: rustls::ALL_VERSIONS.to_vec(),
            schemes: None,
            protocols: Vec::new(),
            certificate: None,
            resumption: None,
        }
    }

    /// Shakes hands with a server, and takes a few bytes from it.
    pub(super) fn shake(&self, server: &Arc<ServerConfig>) -> Result<Shaken, Error> {
        self.ready().shake(server)
    }

    /// The same client for several handshakes.
    pub(super) fn ready(&self) -> Ready {
        let name = self.server.map_or_else(
            || ServerName::from(IpAddr::from([127, 0, 0, 1])),
            |name| ServerName::try_from(name).expect("a name"),
        );
        Ready { config: Arc::new(self.config()), name }
    }

    fn config(&self) -> ClientConfig {
        let mut provider = (*super::provider()).clone();
        provider.cipher_suites.clone_from(&self.suites);
        let trusting = Trusting::new(self.schemes.clone());
        let builder = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(&self.versions)
            .expect("versions")
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(trusting));
        let mut config = match self.certificate.as_deref() {
            Some((certificate, key)) => builder
                .with_client_auth_cert(vec![certificate.clone()], key.clone_key())
                .expect("a pair"),
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols.clone_from(&self.protocols);
        config.resumption = self.resumption.clone().unwrap_or_else(ClientResumption::disabled);
        config
    }
}

fn shake(mut client: ClientConnection, mut server: ServerConnection) -> Result<Shaken, Error> {
    let wrong = |error: io::Error| Error::General(error.to_string());
    let mut records = Vec::new();
    let mut written = false;
    loop {
        let wire = taken(|wire| client.wants_write().then(|| client.write_tls(wire)));
        let sent = wire.len();
        let mut rest = wire.as_slice();
        while !rest.is_empty() {
            server.read_tls(&mut rest).map_err(wrong)?;
            server.process_new_packets()?;
        }
        let wire = taken(|wire| server.wants_write().then(|| server.write_tls(wire)));
        let received = wire.len();
        records.extend(lengths(&wire));
        let mut rest = wire.as_slice();
        while !rest.is_empty() {
            client.read_tls(&mut rest).map_err(wrong)?;
            client.process_new_packets()?;
        }
        if sent + received == 0 {
            break;
        }
        if !server.is_handshaking() && !written {
            written = true;
            server.writer().write_all(&[7; 3000]).map_err(wrong)?;
        }
    }
    client.reader().read_exact(&mut [0; 3000]).map_err(wrong)?;
    Ok(Shaken::of(&client, records))
}

/// All that one side has to send.
fn taken(mut write: impl FnMut(&mut Vec<u8>) -> Option<io::Result<usize>>) -> Vec<u8> {
    let mut wire = Vec::new();
    while let Some(written) = write(&mut wire) {
        written.expect("memory takes all");
    }
    wire
}

/// The length of each record on the wire (RFC 8446, section 5.1).
fn lengths(mut wire: &[u8]) -> Vec<usize> {
    let mut lengths = Vec::new();
    while let [_, _, _, high, low, rest @ ..] = wire {
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        lengths.push(length);
        wire = &rest[length..];
    }
    lengths
}
