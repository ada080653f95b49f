//! Resumption as a real client sees it, and tickets by themselves: not in their own file, because a
//! program of `benches/` has that, too.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use otter_store::{Memory, MemoryOptions, Operator, TicketKey};
use otter_tests::handshake::{Handshake, Identity, shake};
use rustls::client::Tls12Resumption;
use rustls::pki_types::UnixTime;
use rustls::server::{NoServerSessionStorage, ProducesTickets, StoresServerSessions};
use rustls::time_provider::TimeProvider;
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, HandshakeKind, ServerConfig};
use tracing_subscriber::fmt::MakeWriter;

use super::sessions::Sessions;
use super::tickets::Tickets;

/// A period begins.
const NOW: u64 = 83_124 * TicketKey::PERIOD_S;
const TEN_MINUTES_S: u64 = 600;

/// A clock that the test holds.
#[derive(Debug)]
struct Hands(AtomicU64);

impl TimeProvider for Hands {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(Duration::from_secs(self.0.load(Ordering::Relaxed))))
    }
}

fn store() -> (tempfile::TempDir, Operator) {
    let directory = tempfile::tempdir().expect("a directory");
    let memory = Memory::open(directory.path(), MemoryOptions::default()).expect("a store");
    (directory, memory.operator())
}

fn tickets(operator: &Operator) -> Arc<Tickets> {
    let tickets = Tickets::new();
    tickets.refresh(NOW, operator);
    Arc::new(tickets)
}

fn sessions(entries_max: usize) -> (Arc<Hands>, Arc<Sessions>) {
    let hands = Arc::new(Hands(AtomicU64::new(NOW)));
    (Arc::clone(&hands), Arc::new(Sessions::new(entries_max, hands)))
}

fn nothing() -> Arc<dyn StoresServerSessions> {
    Arc::new(NoServerSessionStorage {})
}

fn kind(client: &Arc<ClientConfig>, server: &Arc<ServerConfig>) -> HandshakeKind {
    let Handshake { kind, .. } = shake(client, server).expect("a handshake");
    kind
}

#[test]
fn tickets_resume_at_every_server_on_the_store() {
    let (_directory, operator) = store();
    let identity = Identity::new();
    for version in [&TLS12, &TLS13] {
        let servers = [(); 2].map(|()| identity.server(version, tickets(&operator), nothing()));
        let client = identity.client(Tls12Resumption::SessionIdOrTickets);
        assert_eq!(kind(&client, &servers[0]), HandshakeKind::Full, "{version:?}");
        for server in [&servers[1], &servers[0], &servers[1]] {
            assert_eq!(kind(&client, server), HandshakeKind::Resumed, "{version:?}");
        }
    }
}

#[test]
fn tickets_of_another_store_or_realm_are_of_no_use() {
    let (_directory, operator) = store();
    let (_other_directory, other) = store();
    let identity = Identity::new();
    for version in [&TLS12, &TLS13] {
        let own = tickets(&operator);
        let here = identity.server(version, own.clone(), nothing());
        let mutual = identity.server(version, Arc::new(own.of_realm(b"an authority")), nothing());
        let there = identity.server(version, tickets(&other), nothing());
        for elsewhere in [&mutual, &there] {
            let client = identity.client(Tls12Resumption::SessionIdOrTickets);
            assert_eq!(kind(&client, &here), HandshakeKind::Full);
            assert_eq!(kind(&client, elsewhere), HandshakeKind::Full, "{version:?}");
            assert_eq!(kind(&client, elsewhere), HandshakeKind::Resumed, "its own");
        }
    }
}

#[test]
fn a_ticket_is_of_no_use_after_three_periods_and_does_no_harm() {
    let (_directory, operator) = store();
    let identity = Identity::new();
    for version in [&TLS12, &TLS13] {
        let tickets = tickets(&operator);
        let server = identity.server(version, tickets.clone(), nothing());
        let client = identity.client(Tls12Resumption::SessionIdOrTickets);
        assert_eq!(kind(&client, &server), HandshakeKind::Full);
        let ticket = tickets.encrypt(b"old").expect("a ticket");
        tickets.refresh(NOW + TicketKey::TICKET_LIFE_S, &operator);
        assert!(tickets.decrypt(&ticket).is_some(), "after two");
        tickets.refresh(NOW + 3 * TicketKey::PERIOD_S, &operator);
        assert_eq!(kind(&client, &server), HandshakeKind::Full, "{version:?}");
        assert_eq!(kind(&client, &server), HandshakeKind::Resumed, "{version:?}");
    }
}

#[test]
fn ids_resume_without_tickets() {
    let (_directory, operator) = store();
    let identity = Identity::new();
    let (hands, sessions) = sessions(100);
    let workers = [(); 2].map(|()| identity.server(&TLS12, tickets(&operator), sessions.clone()));
    let client = identity.client(Tls12Resumption::SessionIdOnly);
    assert_eq!(kind(&client, &workers[0]), HandshakeKind::Full);
    assert_eq!(kind(&client, &workers[1]), HandshakeKind::Resumed, "at another worker");
    assert_eq!(kind(&client, &workers[0]), HandshakeKind::Resumed, "more than once");
    hands.0.store(NOW + 12 * 3600, Ordering::Relaxed);
    assert_eq!(kind(&client, &workers[0]), HandshakeKind::Full, "too old");
    assert_eq!(kind(&client, &workers[0]), HandshakeKind::Resumed);
    let without = identity.server(&TLS12, tickets(&operator), self::sessions(0).1);
    assert_eq!(kind(&client, &without), HandshakeKind::Full);
    assert_eq!(kind(&client, &without), HandshakeKind::Full, "nothing is kept");
}

#[test]
fn without_keys_both_versions_resume_by_the_cache_alone() {
    let identity = Identity::new();
    for version in [&TLS12, &TLS13] {
        let server = identity.server(version, Arc::new(Tickets::new()), sessions(100).1);
        let client = identity.client(Tls12Resumption::SessionIdOrTickets);
        assert_eq!(kind(&client, &server), HandshakeKind::Full);
        assert_eq!(kind(&client, &server), HandshakeKind::Resumed, "{version:?}");
    }
}

#[test]
fn a_client_that_gets_no_ticket_is_served_all_the_same() {
    let (_directory, operator) = store();
    let identity = Identity::new();
    for version in [&TLS12, &TLS13] {
        let tickets = tickets(&operator);
        let ticket = tickets.encrypt(b"old").expect("a ticket");
        // The store is away for so long that no key of the present period is held.
        let (away_directory, away) = closed_store();
        tickets.refresh(NOW + 2 * TicketKey::PERIOD_S, &away);
        drop(away_directory);
        assert!(tickets.encrypt(b"new").is_none() && tickets.decrypt(&ticket).is_some());
        let server = identity.server(version, tickets, nothing());
        let client = identity.client(Tls12Resumption::SessionIdOrTickets);
        assert_eq!(kind(&client, &server), HandshakeKind::Full);
        assert_eq!(kind(&client, &server), HandshakeKind::Full, "{version:?}");
    }
}

/// A store that answers nothing any more.
fn closed_store() -> (tempfile::TempDir, Operator) {
    let directory = tempfile::tempdir().expect("a directory");
    let options = otter_store::EmbeddedOptions::default();
    let store = otter_store::Embedded::open(directory.path(), options).expect("a store");
    let operator = store.operator();
    store.close();
    (directory, operator)
}

fn with_keys() -> Tickets {
    let tickets = Tickets::new();
    tickets.refresh(NOW, &store().1);
    tickets
}

#[test]
fn a_ticket_gives_back_what_it_was_made_of() {
    let tickets = with_keys();
    assert!(tickets.enabled());
    assert_eq!(tickets.lifetime(), 12 * 3600);
    for plain in [&b""[..], b"session", &[7; 70_000]] {
        let ticket = tickets.encrypt(plain).expect("a ticket");
        assert_eq!(ticket.len(), 8 + 12 + plain.len() + 16);
        assert_eq!(tickets.decrypt(&ticket).as_deref(), Some(plain));
        assert_ne!(tickets.encrypt(plain), Some(ticket), "never the same twice");
    }
}

#[test]
fn garbage_is_no_ticket() {
    let tickets = with_keys();
    let ticket = tickets.encrypt(b"session").expect("a ticket");
    for length in 0..ticket.len() {
        assert_eq!(tickets.decrypt(&ticket[..length]), None, "cut to {length}");
    }
    for at in 0..ticket.len() {
        for bit in 0..8 {
            let mut changed = ticket.clone();
            changed[at] ^= 1 << bit;
            assert_eq!(tickets.decrypt(&changed), None, "bit {bit} of byte {at}");
        }
    }
    assert_eq!(tickets.decrypt(&[ticket.as_slice(), b"x"].concat()), None, "longer");
    for length in 0..200 {
        for byte in [0, 0x5a, 0xff] {
            assert_eq!(tickets.decrypt(&vec![byte; length]), None);
        }
    }
    // Also with the number of a period that has a key.
    let mut zeros = [0; 100];
    zeros[..8].copy_from_slice(&ticket[..8]);
    for length in 8..zeros.len() {
        assert_eq!(tickets.decrypt(&zeros[..length]), None);
    }
}

#[test]
fn without_keys_there_are_no_tickets() {
    let tickets = Tickets::new();
    let ticket = with_keys().encrypt(b"session").expect("a ticket");
    assert!(!tickets.enabled());
    assert_eq!(tickets.encrypt(b"session"), None);
    assert_eq!(tickets.decrypt(&ticket), None);
    // Its period has the number zero before the first refresh, and no key either.
    assert_eq!(tickets.decrypt(&[0; 100]), None);
}

#[test]
fn the_store_is_asked_in_each_period_and_every_ten_minutes() {
    let (_directory, first) = store();
    let of = |operator: &Operator, now_unix| {
        let tickets = Tickets::new();
        tickets.refresh(now_unix, operator);
        tickets.encrypt(b"session").expect("a ticket")
    };
    for (later_s, is_asked) in [
        (10, false),
        (TEN_MINUTES_S - 1, false),
        (TEN_MINUTES_S, true),
        (TicketKey::PERIOD_S, true),
    ] {
        let (_other_directory, other) = store();
        let tickets = Tickets::new();
        tickets.refresh(NOW, &first);
        tickets.refresh(NOW + later_s, &other);
        let is_known = tickets.decrypt(&of(&other, NOW + later_s)).is_some();
        assert_eq!(is_known, is_asked, "after {later_s} s");
    }
    // The last seconds of a period, and a clock that was set back.
    for (asked_unix, then_unix) in [(NOW - 5, NOW + 5), (NOW + 5, NOW - 5)] {
        let (_other_directory, other) = store();
        let tickets = Tickets::new();
        tickets.refresh(asked_unix, &first);
        tickets.refresh(then_unix, &other);
        assert!(tickets.decrypt(&of(&other, then_unix)).is_some(), "{asked_unix} {then_unix}");
    }
}

#[test]
fn a_store_that_is_away_at_the_turn_of_a_period_does_no_harm() {
    let (_directory, operator) = store();
    let (_away_directory, away) = closed_store();
    let (tickets, other) = (Tickets::new(), Tickets::new());
    tickets.refresh(NOW, &operator);
    other.refresh(NOW, &operator);
    let before = tickets.encrypt(b"before").expect("a ticket");
    tickets.refresh(NOW + TicketKey::PERIOD_S, &away);
    let after = tickets.encrypt(b"after").expect("by the key that was made ahead");
    assert_ne!(before[..8], after[..8], "of another period");
    assert!(tickets.decrypt(&before).is_some());
    assert!(other.decrypt(&after).is_some(), "its clock may be behind");
    tickets.refresh(NOW + 2 * TicketKey::PERIOD_S, &away);
    assert_eq!(tickets.encrypt(b"later"), None);
    assert!(tickets.decrypt(&before).is_some() && tickets.enabled());
    tickets.refresh(NOW + 3 * TicketKey::PERIOD_S, &away);
    assert!(tickets.decrypt(&before).is_none(), "it is over, store or not");
    assert!(tickets.decrypt(&after).is_some());
    tickets.refresh(NOW + 4 * TicketKey::PERIOD_S, &away);
    assert!(!tickets.enabled(), "nothing is left");
    // Asked again at once, not in ten minutes.
    tickets.refresh(NOW + 4 * TicketKey::PERIOD_S + 10, &operator);
    assert!(tickets.encrypt(b"again").is_some());
}

/// What is logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Log {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

#[test]
fn trouble_is_logged_once_until_it_is_over() {
    let (_directory, operator) = store();
    let (_away_directory, away) = closed_store();
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(log.clone());
    tracing::subscriber::with_default(subscriber.finish(), || {
        let tickets = Tickets::new();
        let mut now_unix = NOW;
        for operator in [&operator, &away, &away, &away, &operator, &operator, &away] {
            tickets.refresh(now_unix, operator);
            now_unix += TEN_MINUTES_S;
        }
    });
    let text = String::from_utf8(log.0.lock().expect("no panic").clone()).expect("text");
    let levels: Vec<_> = text.lines().filter_map(|line| line.split_whitespace().nth(1)).collect();
    assert_eq!(levels, ["WARN", "INFO", "WARN"], "{text}");
    assert!(text.contains("the store cannot do this now"), "{text}");
}

#[test]
fn keys_are_not_shown() {
    assert_eq!(format!("{:?}", with_keys()), "Tickets { period: 83124, .. }");
}
