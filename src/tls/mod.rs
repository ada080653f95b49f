//! TLS towards devices: certificates, what all workers share to resume sessions, and the settings
//! of each listener. The bytes are the business of `otter_protocol`. docs/tls.md says what
//! operators see of this.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use otter_protocol::Security;
use otter_store::Operator;
use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::crypto::ring::{cipher_suite, default_provider, kx_group};
use rustls::server::{ProducesTickets, StoresServerSessions};
use rustls::time_provider::DefaultTimeProvider;
use rustls::version::{TLS12, TLS13};

use crate::config::Settings;
use crate::failure::Failure;
use crate::listen::{ClientCertificates, TlsListen};

pub(crate) use self::certificates::{Certificates, Expiry, TlsStats};
use self::clients::Verifier;
pub(crate) use self::keeper::Keeper;
use self::scope::{Resumption, Scope, ScopedSessions, ScopedTickets};
pub(crate) use self::sessions::SESSIONS_MAX;
use self::sessions::Sessions;
use self::tickets::Tickets;

mod certificates;
mod clients;
mod keeper;
#[cfg(test)]
mod made;
pub(crate) mod pem;
#[cfg(test)]
mod resumption;
mod scope;
mod sessions;
mod settings;
mod tickets;
pub(crate) mod x509;

/// The certificates that `settings` name, if any listener shows them.
pub(crate) fn certificates(settings: &Settings) -> Result<Option<Arc<Certificates>>, Failure> {
    if settings.tls_listen.is_empty() {
        return Ok(None);
    }
    Certificates::load(settings.tls_files()?, provider()).map(Some)
}

/// The TLS of a server: all its listeners have the same certificates and the same ways to resume.
pub(crate) struct Tls {
    /// Where devices connect by TLS, in the order of the settings.
    pub(crate) listen: Vec<(SocketAddr, Security)>,
    certificates: Arc<Certificates>,
    tickets: Arc<Tickets>,
    operator: Operator,
}

impl Tls {
    /// Sets it up, with keys for tickets from the store.
    pub(crate) fn new(
        settings: &Settings,
        certificates: &Arc<Certificates>,
        operator: &Operator,
    ) -> Result<Self, Failure> {
        let tickets = Arc::new(Tickets::new());
        tickets.refresh(now_unix(), operator);
        let sessions = Sessions::new(settings.tls_sessions_max, Arc::new(DefaultTimeProvider));
        let sessions: Arc<dyn StoresServerSessions> = Arc::new(sessions);
        let listener = |listen: &TlsListen| {
            let tickets: Arc<dyn ProducesTickets> = match listen.client_certificates {
                ClientCertificates::Off => Arc::clone(&tickets) as _,
                asked @ (ClientCertificates::Optional | ClientCertificates::Required) => {
                    Arc::new(tickets.of_realm(asked.name().as_bytes()))
                }
            };
            let resumption = Resumption { sessions: Arc::clone(&sessions), tickets };
            let config = server_config(listen, certificates, &resumption)?;
            Ok((listen.address, Security::Tls(config)))
        };
        let listen = settings.tls_listen.iter().map(listener).collect::<Result<_, Failure>>()?;
        let (certificates, operator) = (Arc::clone(certificates), operator.clone());
        Ok(Self { listen, certificates, tickets, operator })
    }

    /// Keeps certificates and ticket keys up to date, until what is returned is dropped.
    pub(crate) fn keep(self) -> Result<Keeper, Failure> {
        let Self { certificates, tickets, operator, .. } = self;
        let refresh = move || tickets.refresh(now_unix(), &operator);
        Keeper::start(certificates, vec![Box::new(refresh)])
    }
}

/// What one listener says to clients.
fn server_config(
    listen: &TlsListen,
    certificates: &Arc<Certificates>,
    resumption: &Resumption,
) -> Result<Arc<ServerConfig>, Failure> {
    let provider = provider();
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider));
    let builder = builder
        .with_protocol_versions(&[&TLS13, &TLS12])
        .map_err(|error| Failure::internal(format!("TLS cannot be set up: {error}")))?;
    let asked = listen.client_certificates;
    let builder = if asked == ClientCertificates::Off {
        builder.with_no_client_auth()
    } else {
        let verifier = Verifier::new(Arc::clone(certificates), asked, provider);
        builder.with_client_cert_verifier(Arc::new(verifier))
    };
    let resolver = Arc::clone(certificates);
    let mut config = builder.with_cert_resolver(resolver);
    // A device without instructions for AES names ChaCha20 first, and knows why.
    config.ignore_client_order = false;
    config.max_fragment_size = Some(listen.max_fragment_size + RECORD_HEADER_BYTES);
    // No list: with one, a client that offers other protocols only, such as h2, would get an alert.
    // Without one the extension is not answered, and all speak HTTP/1.1 (RFC 7301, section 3.2).
    config.alpn_protocols.clear();
    config.max_early_data_size = 0;
    config.send_half_rtt_data = false;
    // One is enough for a device, and each is 200 bytes of flash or memory there.
    config.send_tls13_tickets = 1;
    let scope = Scope::new(Arc::clone(certificates), asked);
    let Resumption { sessions, tickets } = resumption.clone();
    config.session_storage = Arc::new(ScopedSessions { scope: scope.clone(), sessions });
    config.ticketer = Arc::new(ScopedTickets { scope, tickets });
    Ok(Arc::new(config))
}

/// Exactly these suites and groups, whatever rustls has as its defaults.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    let suites = vec![
        cipher_suite::TLS13_AES_128_GCM_SHA256,
        cipher_suite::TLS13_AES_256_GCM_SHA384,
        cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
        cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
        cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
        cipher_suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
        cipher_suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
        cipher_suite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
        cipher_suite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
    ];
    let groups = vec![kx_group::X25519, kx_group::SECP256R1, kx_group::SECP384R1];
    Arc::new(CryptoProvider { cipher_suites: suites, kx_groups: groups, ..default_provider() })
}

fn now_unix() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// rustls counts the header of a record, settings do not.
const RECORD_HEADER_BYTES: usize = 5;

#[cfg(test)]
mod tests {
    use rustls::CipherSuite::{
        TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256 as AES128,
        TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256 as CHACHA20,
    };
    use rustls::SupportedProtocolVersion;
    use rustls::client::Resumption as ClientResumption;

    use super::made::{Client, Made, load, resumption};
    use super::*;

    fn config(text: &str) -> Arc<ServerConfig> {
        let made = Made::new();
        let certificates = load(vec![made.ecdsa("a", &["a.example"])]);
        let resumption = resumption();
        let listen: TlsListen = text.parse().expect("a listener");
        server_config(&listen, &certificates, &resumption).expect("a configuration")
    }

    fn client(versions: &[&'static SupportedProtocolVersion]) -> Client {
        Client { versions: versions.to_vec(), ..Client::new(Some("a.example")) }
    }

    #[test]
    fn suites_and_groups_are_exactly_ours() {
        let provider = provider();
        let suites: Vec<_> = provider.cipher_suites.iter().map(|suite| suite.suite()).collect();
        assert_eq!(suites.len(), 9);
        for suite in suites {
            let name = format!("{suite:?}");
            assert!(name.starts_with("TLS13_") || name.starts_with("TLS_ECDHE_"), "{name}");
            assert!(name.contains("_GCM_") || name.contains("_CHACHA20_POLY1305_"), "{name}");
        }
        let groups: Vec<_> =
            provider.kx_groups.iter().map(|group| format!("{:?}", group.name())).collect();
        assert_eq!(groups, ["X25519", "secp256r1", "secp384r1"]);
    }

    #[test]
    fn the_client_chooses_the_suite() {
        let config = config("127.0.0.1:0");
        let mut client = client(&[&TLS12]);
        for first in [CHACHA20, AES128] {
            client.suites.sort_by_key(|suite| suite.suite() != first);
            let shaken = client.shake(&config).expect("a handshake");
            assert_eq!(shaken.suite.suite(), first);
        }
    }

    #[test]
    fn who_offers_only_another_protocol_is_served_all_the_same() {
        let config = config("127.0.0.1:0");
        for versions in [&[&TLS12], &[&TLS13]] {
            let protocols = vec![b"h2".to_vec()];
            let client = Client { protocols, ..client(versions) };
            client.shake(&config).expect("a handshake");
        }
    }

    #[test]
    fn no_record_is_longer_than_the_listener_says() {
        // What AES-GCM adds to a record: in TLS 1.2 a nonce and a tag, in TLS 1.3 a type and a tag.
        for (most, versions, added) in [
            (512, &[&TLS12], 24),
            (512, &[&TLS13], 17),
            (1024, &[&TLS13], 17),
            (16_384, &[&TLS13], 17),
        ] {
            let config = config(&format!("127.0.0.1:0,max_fragment_size={most}"));
            let shaken = client(versions).shake(&config).expect("a handshake");
            let longest = *shaken.records.iter().max().expect("records");
            assert_eq!(longest, most.min(3000) + added, "{:?} with {most}", shaken.records);
        }
    }

    #[test]
    fn sessions_are_resumed() {
        for (versions, by_ticket) in [(&[&TLS12], false), (&[&TLS12], true), (&[&TLS13], true)] {
            let config = config("127.0.0.1:0");
            let resumption = ClientResumption::in_memory_sessions(8);
            let resumption = if by_ticket {
                resumption
            } else {
                resumption.tls12_resumption(rustls::client::Tls12Resumption::SessionIdOnly)
            };
            let client = Client { resumption: Some(resumption), ..client(versions) }.ready();
            let first = client.shake(&config).expect("a handshake");
            assert_eq!(first.kind, rustls::HandshakeKind::Full);
            let second = client.shake(&config).expect("a handshake");
            assert_eq!(second.kind, rustls::HandshakeKind::Resumed, "{versions:?} {by_ticket}");
        }
    }

    #[test]
    fn nothing_else_is_offered() {
        let config = config("127.0.0.1:0");
        assert_eq!((config.max_early_data_size, config.send_half_rtt_data), (0, false));
        assert!(config.cert_compressors.is_empty() && config.cert_decompressors.is_empty());
        assert_eq!(config.send_tls13_tickets, 1);
    }
}
