//! What the two sides of a test may speak.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use rcgen::{CertificateParams, KeyPair, date_time_ymd};
use rustls::client::Resumption;
use rustls::crypto::ring;
use rustls::crypto::{CryptoProvider, SupportedKxGroup};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::{NoServerSessionStorage, ServerSessionMemoryCache};
use rustls::time_provider::TimeProvider;
use rustls::{
    ClientConfig, RootCertStore, ServerConfig, SupportedCipherSuite, SupportedProtocolVersion,
};

use crate::Clock;

/// TLS 1.2 and nothing else.
pub const V1_2: &[&SupportedProtocolVersion] = &[&rustls::version::TLS12];
/// TLS 1.3 and nothing else.
pub const V1_3: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13];

/// All suites of docs/wire.md 2.5.
#[must_use]
pub fn suites() -> &'static [SupportedCipherSuite] {
    ring::ALL_CIPHER_SUITES
}

/// What the key of a server's certificate is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    /// ECDSA on P-256, what most servers have.
    P256,
    /// ECDSA on P-384.
    P384,
    /// RSA of 2048 bits.
    Rsa,
    /// Signatures that are the same each time, and fast.
    Ed25519,
}

/// What both sides of a test may speak. Default: all that ring has, with [`Key::Ed25519`], records
/// of any size, and tickets.
#[derive(Clone, Debug)]
pub struct Terms {
    /// The versions.
    pub versions: &'static [&'static SupportedProtocolVersion],
    /// The suites, best first.
    pub suites: Vec<SupportedCipherSuite>,
    /// The groups, best first.
    pub groups: Vec<&'static dyn SupportedKxGroup>,
    /// The protocols that the client offers.
    pub alpn: Vec<Vec<u8>>,
    /// The server's key.
    pub key: Key,
    /// The server's `max_fragment_size`, as rustls takes it: with the header of a record.
    pub fragment_max: Option<usize>,
    /// The same of the client.
    pub client_fragment_max: Option<usize>,
    /// May the server hand out tickets? Else TLS 1.2 resumes by id, and 1.3 not at all.
    pub tickets: bool,
    /// May the server remember sessions?
    pub sessions: bool,
    /// May the client's secrets be taken out of it?
    pub lets_secrets_out: bool,
    /// What both sides take for the time.
    pub time: Arc<Time>,
}

impl Default for Terms {
    fn default() -> Self {
        Self {
            versions: rustls::ALL_VERSIONS,
            suites: suites().to_vec(),
            groups: ring::ALL_KX_GROUPS.to_vec(),
            alpn: Vec::new(),
            key: Key::Ed25519,
            fragment_max: None,
            client_fragment_max: None,
            tickets: true,
            sessions: true,
            lets_secrets_out: false,
            time: Arc::default(),
        }
    }
}

impl Terms {
    /// Only one version.
    #[must_use]
    pub fn only(versions: &'static [&'static SupportedProtocolVersion]) -> Self {
        Self { versions, ..Self::default() }
    }

    /// The server's settings. Sessions and tickets are good for whoever has these.
    ///
    /// # Panics
    /// If the terms contradict each other.
    #[must_use]
    pub fn server(&self) -> Arc<ServerConfig> {
        let identity = self.key.identity();
        let mut config = ServerConfig::builder_with_details(self.provider(), self.time_provider())
            .with_protocol_versions(self.versions)
            .expect("versions with suites")
            .with_no_client_auth()
            .with_single_cert(vec![identity.certificate.clone()], identity.key.clone_key())
            .expect("a certificate with its key");
        config.max_fragment_size = self.fragment_max;
        config.session_storage = if self.sessions {
            ServerSessionMemoryCache::new(SESSIONS)
        } else {
            Arc::new(NoServerSessionStorage {})
        };
        if self.tickets {
            config.ticketer = ring::Ticketer::new().expect("randomness");
        } else {
            config.send_tls13_tickets = 0;
        }
        Arc::new(config)
    }

    /// A client's settings. It remembers the sessions that it had with these.
    ///
    /// # Panics
    /// If the terms contradict each other.
    #[must_use]
    pub fn client(&self) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(self.key.identity().certificate.clone()).expect("a root");
        let mut config = ClientConfig::builder_with_details(self.provider(), self.time_provider())
            .with_protocol_versions(self.versions)
            .expect("versions with suites")
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.max_fragment_size = self.client_fragment_max;
        config.enable_secret_extraction = self.lets_secrets_out;
        config.alpn_protocols = self.alpn.clone();
        config.resumption = Resumption::in_memory_sessions(SESSIONS);
        Arc::new(config)
    }

    fn provider(&self) -> Arc<CryptoProvider> {
        let (cipher_suites, kx_groups) = (self.suites.clone(), self.groups.clone());
        Arc::new(CryptoProvider { cipher_suites, kx_groups, ..ring::default_provider() })
    }

    fn time_provider(&self) -> Arc<dyn TimeProvider> {
        Arc::<Time>::clone(&self.time)
    }
}

/// A clock for TLS, in seconds since 1970. Default: [`Clock::UNIX_START`].
#[derive(Debug)]
pub struct Time(AtomicU64);

impl Time {
    /// It is this second.
    pub fn set(&self, unix: u64) {
        self.0.store(unix, Ordering::Relaxed);
    }
}

impl Default for Time {
    fn default() -> Self {
        Self(AtomicU64::new(Clock::UNIX_START))
    }
}

impl TimeProvider for Time {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(Duration::from_secs(self.0.load(Ordering::Relaxed))))
    }
}

/// A certificate and its key.
struct Identity {
    certificate: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
}

impl Key {
    /// A certificate of this kind, made once.
    fn identity(self) -> &'static Identity {
        static MADE: [OnceLock<Identity>; 4] = [const { OnceLock::new() }; 4];
        MADE[self as usize].get_or_init(|| {
            let pair = KeyPair::from_pem(self.pem()).expect("a key");
            let mut params = CertificateParams::new([NAME.to_owned()]).expect("a name");
            params.not_before = date_time_ymd(2020, 1, 1);
            params.not_after = date_time_ymd(2120, 1, 1);
            let certificate = params.self_signed(&pair).expect("a certificate").into();
            let key = PrivateKeyDer::try_from(pair.serialize_der()).expect("a key");
            Identity { certificate, key }
        })
    }

    /// Keys that everybody may know.
    fn pem(self) -> &'static str {
        match self {
            Self::P256 => include_str!("p256.pem"),
            Self::P384 => include_str!("p384.pem"),
            Self::Rsa => include_str!("rsa.pem"),
            Self::Ed25519 => include_str!("ed25519.pem"),
        }
    }
}

/// Whose certificate it is.
pub(super) const NAME: &str = "otter.example";
const SESSIONS: usize = 256;
