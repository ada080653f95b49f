//! What may be resumed where.
//!
//! Listeners share sessions and ticket keys, but not all of them ask for client certificates, and
//! a resumed session is as good as the certificate that was shown when it began: rustls asks for
//! none again. So each session is marked with what was asked of the client and which authorities
//! were trusted, and is resumed only where both are the same.

use std::sync::Arc;

use rustls::server::{ProducesTickets, StoresServerSessions};

use super::certificates::Certificates;
use crate::listen::ClientCertificates;

/// What is asked of clients, where authorities may change at any time.
#[derive(Clone, Debug)]
pub(super) struct Scope {
    certificates: Arc<Certificates>,
    asked: ClientCertificates,
}

impl Scope {
    pub(super) fn new(certificates: Arc<Certificates>, asked: ClientCertificates) -> Self {
        Self { certificates, asked }
    }

    /// Appends the mark. The last byte tells how long it is, so that no session that was marked in
    /// one way reads as one that was marked in another.
    fn mark(&self, session: &mut Vec<u8>) {
        let asked = match self.asked {
            ClientCertificates::Off => return session.push(0),
            ClientCertificates::Optional => 1,
            ClientCertificates::Required => 2,
        };
        let current = self.certificates.current();
        let hash = current.authorities.as_ref().map_or([0; 8], |authorities| authorities.hash());
        session.extend_from_slice(&hash);
        session.push(asked);
    }

    /// Takes the mark off, if it is that of this scope.
    fn unmark(&self, mut session: Vec<u8>) -> Option<Vec<u8>> {
        let mut mark = Vec::with_capacity(9);
        self.mark(&mut mark);
        let rest = session.strip_suffix(mark.as_slice())?.len();
        session.truncate(rest);
        Some(session)
    }
}

/// Sessions of one scope, in a store of all.
#[derive(Debug)]
pub(super) struct ScopedSessions {
    pub(super) scope: Scope,
    pub(super) sessions: Arc<dyn StoresServerSessions>,
}

impl StoresServerSessions for ScopedSessions {
    fn put(&self, key: Vec<u8>, mut value: Vec<u8>) -> bool {
        self.scope.mark(&mut value);
        self.sessions.put(key, value)
    }

    fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.scope.unmark(self.sessions.get(key)?)
    }

    fn take(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.scope.unmark(self.sessions.take(key)?)
    }

    fn can_cache(&self) -> bool {
        self.sessions.can_cache()
    }
}

/// Tickets of one scope, under the keys of all.
#[derive(Debug)]
pub(super) struct ScopedTickets {
    pub(super) scope: Scope,
    pub(super) tickets: Arc<dyn ProducesTickets>,
}

impl ProducesTickets for ScopedTickets {
    fn enabled(&self) -> bool {
        self.tickets.enabled()
    }

    fn lifetime(&self) -> u32 {
        self.tickets.lifetime()
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        let mut marked = Vec::with_capacity(plain.len() + 9);
        marked.extend_from_slice(plain);
        self.scope.mark(&mut marked);
        self.tickets.encrypt(&marked)
    }

    fn decrypt(&self, cipher: &[u8]) -> Option<Vec<u8>> {
        self.scope.unmark(self.tickets.decrypt(cipher)?)
    }
}

/// How sessions are resumed, on all listeners: by id from a store, and by tickets.
#[derive(Clone, Debug)]
pub(super) struct Resumption {
    pub(super) sessions: Arc<dyn StoresServerSessions>,
    pub(super) tickets: Arc<dyn ProducesTickets>,
}

#[cfg(test)]
mod tests {
    use rustls::client::Resumption as ClientResumption;
    use rustls::version::{TLS12, TLS13};
    use rustls::{HandshakeKind, ServerConfig, SupportedProtocolVersion};

    use super::super::certificates::Files;
    use super::super::made::{Authority, Client, Made, resumption};
    use super::super::{provider, server_config};
    use super::*;

    /// Listeners of one server.
    struct Stage {
        made: Made,
        certificates: Arc<Certificates>,
        resumption: Resumption,
    }

    impl Stage {
        fn new(authority: &Authority) -> Self {
            let made = Made::new();
            let client_ca = Some(made.write("ca.pem", &authority.pem));
            let files = Files { pairs: vec![made.ecdsa("a", &["a.example"])], client_ca };
            let certificates = Certificates::load(files, provider()).expect("loaded");
            let resumption = resumption();
            Self { made, certificates, resumption }
        }

        fn listener(&self, asked: &str) -> Arc<ServerConfig> {
            let listen = format!("127.0.0.1:0,client_certificates={asked}");
            let listen = listen.parse().expect("a listener");
            server_config(&listen, &self.certificates, &self.resumption).expect("a configuration")
        }
    }

    fn remembering(versions: &[&'static SupportedProtocolVersion]) -> Client {
        let resumption = Some(ClientResumption::in_memory_sessions(8));
        Client { versions: versions.to_vec(), resumption, ..Client::new(Some("a.example")) }
    }

    #[test]
    fn a_session_is_resumed_only_where_as_much_is_asked_of_clients() {
        let authority = Authority::new("ours");
        let stage = Stage::new(&authority);
        for versions in [&[&TLS12], &[&TLS13]] {
            for (from, to, kind) in [
                ("off", Some("off"), HandshakeKind::Resumed),
                ("optional", Some("optional"), HandshakeKind::Resumed),
                ("optional", Some("off"), HandshakeKind::Full),
                // Without a certificate it may not get in at all.
                ("off", None, HandshakeKind::Full),
                ("optional", None, HandshakeKind::Full),
            ] {
                let client = remembering(versions).ready();
                client.shake(&stage.listener(from)).expect("a handshake");
                let Some(to) = to else {
                    assert!(client.shake(&stage.listener("required")).is_err(), "{from}");
                    continue;
                };
                let again = client.shake(&stage.listener(to)).expect("a handshake");
                assert_eq!(again.kind, kind, "{versions:?} from {from} to {to}");
            }
        }
    }

    #[test]
    fn who_was_trusted_by_an_authority_that_is_gone_resumes_nothing() {
        let (old, new) = (Authority::new("old"), Authority::new("new"));
        let stage = Stage::new(&old);
        let certificate = Some(Arc::new(old.sign()));
        for versions in [&[&TLS12], &[&TLS13]] {
            stage.made.write("ca.pem", &old.pem);
            stage.certificates.reload().expect("good");
            let client = Client { certificate: certificate.clone(), ..remembering(versions) };
            let client = client.ready();
            let required = stage.listener("required");
            client.shake(&required).expect("a handshake");
            let again = client.shake(&required).expect("a handshake");
            assert_eq!(again.kind, HandshakeKind::Resumed);
            stage.made.write("ca.pem", &new.pem);
            stage.certificates.reload().expect("good");
            assert!(client.shake(&required).is_err(), "{versions:?}");
        }
    }

    #[test]
    fn marks_are_taken_off_whole_or_not_at_all() {
        let stage = Stage::new(&Authority::new("ours"));
        let scope = |asked| Scope::new(Arc::clone(&stage.certificates), asked);
        let all = [
            scope(ClientCertificates::Off),
            scope(ClientCertificates::Optional),
            scope(ClientCertificates::Required),
        ];
        for (at, one) in all.iter().enumerate() {
            let mut session = b"session".to_vec();
            one.mark(&mut session);
            for (other_at, other) in all.iter().enumerate() {
                let unmarked = other.unmark(session.clone());
                assert_eq!(unmarked, (at == other_at).then(|| b"session".to_vec()));
            }
        }
        assert!(all.iter().all(|scope| scope.unmark(Vec::new()).is_none()));
    }
}
