//! The keys that TLS session tickets (RFC 5077; RFC 8446 4.6.1) are encrypted with: which are held
//! when. They have nothing to do with [`Ticket`](crate::Ticket), which names a query.
//!
//! Time is cut into periods of six hours. The key of a period encrypts during it, and those of the
//! two periods before it still decrypt, so that a ticket is good for at least twelve hours and at
//! most eighteen. The key of the next period is made ahead: servers whose clocks differ a little
//! read each other's tickets, and a Redis that is away at the turn of a period does no harm.
//!
//! They are kept in memory only, not in the embedded store's database: whoever gets hold of a key
//! can read what was recorded of the connections whose tickets it encrypted, so nothing must
//! outlive it. A restart of the only server costs one full handshake per device, no more.

use std::fmt;
use std::ops::RangeInclusive;
use std::sync::{Mutex, PoisonError};

use zeroize::Zeroize;

use crate::token::{Mint, NoRandomness};

/// The key of one period. Its memory is wiped when it is dropped.
#[derive(Clone)]
pub struct TicketKey {
    /// Which period: Unix seconds divided by [`TicketKey::PERIOD_S`].
    pub period: u64,
    /// 32 random bytes.
    pub secret: [u8; 32],
}

impl TicketKey {
    /// Seconds of a period: six hours.
    pub const PERIOD_S: u64 = 6 * 3600;

    /// Seconds for which a ticket is good at least: twelve hours.
    pub const TICKET_LIFE_S: u64 = PERIODS_BEFORE * Self::PERIOD_S;

    /// The period of a moment in Unix seconds.
    #[must_use]
    pub fn period_at(unix_s: u64) -> u64 {
        unix_s / Self::PERIOD_S
    }

    /// The periods whose keys are held during this one.
    #[must_use]
    pub fn periods_held(period: u64) -> RangeInclusive<u64> {
        period.saturating_sub(PERIODS_BEFORE)..=period.saturating_add(1)
    }

    /// Keys for this period and the next one, should there be none.
    ///
    /// # Errors
    /// [`NoRandomness`]
    pub(crate) fn minted(period: u64, mint: &Mint) -> Result<[Self; 2], NoRandomness> {
        Ok([
            Self { period, secret: mint.bytes()? },
            Self { period: period.saturating_add(1), secret: mint.bytes()? },
        ])
    }
}

/// Shows no secret.
impl fmt::Debug for TicketKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TicketKey").field("period", &self.period).finish_non_exhaustive()
    }
}

impl Drop for TicketKey {
    fn drop(&mut self) {
        self.secret.zeroize();
    }
}

/// The keys of a store that has one process.
#[derive(Debug, Default)]
pub(crate) struct HeldKeys(Mutex<Vec<TicketKey>>);

impl HeldKeys {
    /// The keys held during a period, the oldest first. Those that are missing of it and the next
    /// one are taken from `minted`; what is long over is gone afterwards.
    pub(crate) fn during(&self, period: u64, minted: [TicketKey; 2]) -> Vec<TicketKey> {
        let mut keys = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        keys.retain(|key| key.period.abs_diff(period) <= PERIODS_BEFORE);
        for key in minted {
            if keys.iter().all(|known| known.period != key.period) {
                keys.push(key);
            }
        }
        keys.sort_unstable_by_key(|key| key.period);
        let held = TicketKey::periods_held(period);
        keys.iter().filter(|key| held.contains(&key.period)).cloned().collect()
    }
}

/// How many periods before the present one keep their keys.
const PERIODS_BEFORE: u64 = 2;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_is_good_for_twelve_hours_at_least_and_eighteen_at_most() {
        let (first_s, last_s) = (100 * TicketKey::PERIOD_S, 101 * TicketKey::PERIOD_S - 1);
        let is_held = |unix_s| {
            TicketKey::periods_held(TicketKey::period_at(unix_s))
                .contains(&TicketKey::period_at(first_s))
        };
        assert_eq!(TicketKey::period_at(first_s), TicketKey::period_at(last_s));
        assert_eq!(TicketKey::TICKET_LIFE_S, 12 * 3600);
        assert!(is_held(last_s + TicketKey::TICKET_LIFE_S));
        assert!(is_held(first_s + 18 * 3600 - 1) && !is_held(first_s + 18 * 3600));
        assert!(is_held(first_s - 1) && !is_held(first_s - TicketKey::PERIOD_S - 1), "made ahead");
    }

    #[test]
    fn the_ends_of_time_are_periods_like_others() {
        let held = HeldKeys::default();
        for unix_s in [0, u64::MAX] {
            let period = TicketKey::period_at(unix_s);
            let minted = TicketKey::minted(period, &Mint::new()).expect("random");
            assert_eq!(held.during(period, minted).len(), 2, "{unix_s}");
        }
    }

    #[test]
    fn the_secret_is_not_shown() {
        let key = TicketKey { period: 7, secret: [0x5a; 32] };
        assert_eq!(format!("{key:?}"), "TicketKey { period: 7, .. }");
    }
}
