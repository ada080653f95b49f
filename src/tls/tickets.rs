//! TLS session tickets (RFC 5077; RFC 8446 4.6.1): resumption by any worker of any server on one
//! store, with nothing kept per device.
//!
//! ```text
//! ticket = period (8 bytes) | nonce (12) | sealed session | tag (16)
//! ```
//!
//! Sealed is by AES-256-GCM, with the period and the realm as additional data.
//! The keys come from the store ([`Operator::ticket_keys`]), one per period of six hours.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard};

use otter_store::{Operator, TicketKey};
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::digest::{SHA256, digest};
use ring::rand::{SecureRandom, SystemRandom};
use rustls::server::ProducesTickets;

/// Makes and reads tickets. One value per realm, used by all its listeners and workers.
///
/// Without keys, as before the first [`Tickets::refresh`], tickets are off: TLS 1.3 then resumes by
/// the cache of sessions, on this server only. With keys, but none of the present period, tickets
/// are still read; TLS 1.2 sends an empty one, and TLS 1.3 none.
///
/// A nonce is random. The chance that one key ever meets a nonce twice stays below 2^-32 up to
/// 2^32 tickets (NIST SP 800-38D, 8.3): 198,000 per second for a whole period.
pub(crate) struct Tickets {
    ring: Arc<Ring>,
    realm: [u8; REALM_LEN],
}

impl Tickets {
    /// Without keys, for the realm of listeners that ask for no client's certificate.
    pub(crate) fn new() -> Self {
        let ring = Ring { held: RwLock::default(), asked: Mutex::default() };
        Self { ring: Arc::new(ring), realm: hashed(b"") }
    }

    /// The same keys for another realm: tickets of one realm are of no use in another.
    ///
    /// Listeners that trust different authorities for clients, or ask for no certificate, must be
    /// of different realms. A resumed session counts as authenticated as it was when it began, and
    /// nobody looks at the client's certificate again. `realm` must be the same on all servers, so
    /// it is made of what is configured, such as the authorities' certificates.
    pub(crate) fn of_realm(&self, realm: &[u8]) -> Self {
        Self { ring: Arc::clone(&self.ring), realm: hashed(realm) }
    }

    /// Sees to the keys of all realms. To be called every ten seconds or so, by a thread that may
    /// wait, and once before the first connection. `now_unix` is in seconds.
    ///
    /// Turns to the next period when that has begun, whatever the store says, and forgets the keys
    /// that are over. Asks the store in each new period, every ten minutes, and again after each
    /// failure; until it answers, what is held goes on, which includes the key of the next period.
    /// A failure is logged when it begins and when it is over.
    pub(crate) fn refresh(&self, now_unix: u64, operator: &Operator) {
        let mut asked = self.ring.asked.lock().unwrap_or_else(PoisonError::into_inner);
        let period = TicketKey::period_at(now_unix);
        self.ring.turn_to(period);
        if asked.is_fresh(now_unix) {
            return;
        }
        match operator.ticket_keys(now_unix) {
            Ok(keys) => {
                self.ring.hold(period, &keys);
                if asked.is_failing {
                    tracing::info!("the store gives keys for TLS session tickets again");
                }
                *asked = Asked { answered_unix: Some(now_unix), is_failing: false };
            }
            Err(error) => {
                if !asked.is_failing {
                    tracing::warn!(
                        "no keys for TLS session tickets: {error}; those that are held go on, and \
                         without any devices make full handshakes"
                    );
                }
                *asked = Asked { answered_unix: None, is_failing: true };
            }
        }
    }

    /// What is authenticated with a ticket and not in it: two realms never read each other's.
    fn additional(&self, period: [u8; PERIOD_LEN]) -> Aad<[u8; PERIOD_LEN + REALM_LEN]> {
        let mut additional = [0; PERIOD_LEN + REALM_LEN];
        additional[..PERIOD_LEN].copy_from_slice(&period);
        additional[PERIOD_LEN..].copy_from_slice(&self.realm);
        Aad::from(additional)
    }
}

impl ProducesTickets for Tickets {
    fn enabled(&self) -> bool {
        !self.ring.held().keys.is_empty()
    }

    fn lifetime(&self) -> u32 {
        LIFETIME_S
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        let mut nonce = [0; NONCE_LEN];
        SystemRandom::new().fill(&mut nonce).ok()?;
        let held = self.ring.held();
        let key = held.key(held.period)?;
        let period = held.period.to_be_bytes();
        let mut ticket = Vec::with_capacity(HEAD_LEN + plain.len() + AES_256_GCM.tag_len());
        ticket.extend_from_slice(&period);
        ticket.extend_from_slice(&nonce);
        ticket.extend_from_slice(plain);
        let (nonce, sealed) = (Nonce::assume_unique_for_key(nonce), &mut ticket[HEAD_LEN..]);
        let tag = key.seal_in_place_separate_tag(nonce, self.additional(period), sealed).ok()?;
        ticket.extend_from_slice(tag.as_ref());
        Some(ticket)
    }

    /// Anybody can send anything here.
    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        let (period, rest) = ticket.split_first_chunk()?;
        let (nonce, sealed) = rest.split_first_chunk()?;
        let held = self.ring.held();
        let key = held.key(u64::from_be_bytes(*period))?;
        let mut plain = sealed.to_vec();
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let length = key.open_in_place(nonce, self.additional(*period), &mut plain).ok()?.len();
        plain.truncate(length);
        Some(plain)
    }
}

/// Shows no key.
impl fmt::Debug for Tickets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tickets").field("period", &self.ring.held().period).finish_non_exhaustive()
    }
}

/// What all realms share.
struct Ring {
    held: RwLock<Held>,
    asked: Mutex<Asked>,
}

/// The keys, and with which of them to encrypt.
#[derive(Default)]
struct Held {
    period: u64,
    keys: Vec<(u64, LessSafeKey)>,
}

/// How it went when the store was asked last.
#[derive(Default)]
struct Asked {
    /// When it answered, unless it failed since.
    answered_unix: Option<u64>,
    is_failing: bool,
}

impl Ring {
    fn held(&self) -> RwLockReadGuard<'_, Held> {
        self.held.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Encrypts with the key of this period from now on; those that are over go.
    fn turn_to(&self, period: u64) {
        if self.held().period == period {
            return;
        }
        let mut held = self.held.write().unwrap_or_else(PoisonError::into_inner);
        held.period = period;
        held.keys.retain(|(of, _)| TicketKey::periods_held(period).contains(of));
    }

    /// Exchanges the keys.
    fn hold(&self, period: u64, keys: &[TicketKey]) {
        let expanded = keys.iter().filter_map(|key| {
            let expanded = UnboundKey::new(&AES_256_GCM, &key.secret).ok()?;
            Some((key.period, LessSafeKey::new(expanded)))
        });
        let new = Held { period, keys: expanded.collect() };
        *self.held.write().unwrap_or_else(PoisonError::into_inner) = new;
    }
}

impl Held {
    fn key(&self, period: u64) -> Option<&LessSafeKey> {
        self.keys.iter().find(|(of, _)| *of == period).map(|(_, key)| key)
    }
}

impl Asked {
    /// Did it answer in this period, and not long ago?
    fn is_fresh(&self, now_unix: u64) -> bool {
        self.answered_unix.is_some_and(|unix_s| {
            TicketKey::period_at(unix_s) == TicketKey::period_at(now_unix)
                && unix_s.abs_diff(now_unix) < ASK_EVERY_S
        })
    }
}

fn hashed(realm: &[u8]) -> [u8; REALM_LEN] {
    let mut hash = [0; REALM_LEN];
    hash.copy_from_slice(digest(&SHA256, realm).as_ref());
    hash
}

const PERIOD_LEN: usize = 8;
const REALM_LEN: usize = 32;
/// What stands before the sealed part.
const HEAD_LEN: usize = PERIOD_LEN + NONCE_LEN;
/// How long a ticket is good at least, which is what clients are told.
const LIFETIME_S: u32 = TicketKey::TICKET_LIFE_S as u32;
/// The store may have lost its keys meanwhile, and others have new ones.
const ASK_EVERY_S: u64 = 600;
