//! What a driver counts. A [`Tally`] belongs to one thread or task that adds to it; [`Counters`]
//! are the sum of any number of them, taken by whoever asks, while they go on.
//!
//! Nothing is shared between the writers, and nothing is locked: one number more costs a load and
//! a store. The core itself counts nothing; it is here because each driver counts the same things,
//! and all but the numbers of connections and bytes follow from [`Report`] and [`CloseReason`].
//!
//! ```
//! use otter_protocol::{CloseReason, Counters, Tally};
//!
//! let tallies = [Tally::new(), Tally::new()];
//! tallies[0].accepted.add(2);
//! tallies[1].accepted.add(1);
//! tallies[1].closed(CloseReason::Idle);
//! let counters = Counters::sum(&tallies);
//! assert_eq!((counters.accepted, counters.open), (3, 2));
//! assert_eq!(counters.closed(CloseReason::Idle), 1);
//! ```

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crate::report::{CloseReason, Endpoint, Handshake, Outcome, Report};

/// What one thread counts.
#[derive(Debug)]
#[repr(align(128))] // no cache line is shared with another thread's
pub struct Tally {
    /// As [`Counters::accepted`].
    pub accepted: Count,
    /// As [`Counters::refused`].
    pub refused: Count,
    /// As [`Counters::evicted`].
    pub evicted: Count,
    /// As [`Counters::accept_pauses`].
    pub accept_pauses: Count,
    /// As [`Counters::broken`].
    pub broken: Count,
    /// As [`Counters::panicked`].
    pub panicked: Count,
    /// As [`Counters::bytes_received`].
    pub bytes_received: Count,
    /// As [`Counters::bytes_sent`].
    pub bytes_sent: Count,
    answers: [Count; Counters::LATENCIES],
    closed: [Count; CloseReason::ALL.len()],
    handshakes: [Count; Handshake::ALL.len()],
    requests: [Count; REQUESTS],
}

/// A number that one thread adds to and any thread may read.
#[derive(Debug)]
pub struct Count(AtomicU64);

/// The sum of what was counted since the start, see the [module](self). Each number is exact; two
/// of them may be a moment apart.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Counters {
    /// Connections that are open now.
    pub open: u64,
    /// Connections that were accepted and not refused.
    pub accepted: u64,
    /// Connections beyond the driver's limit: answered 503 and closed.
    pub refused: u64,
    /// Idle connections that were closed to make room for new ones. Also in
    /// [`Counters::closed`], as [`CloseReason::Shutdown`].
    pub evicted: u64,
    /// How often accepting was suspended because the process or the system had no descriptor or
    /// no memory left.
    pub accept_pauses: u64,
    /// Connections that ended with an error of the socket: mostly peers that reset.
    pub broken: u64,
    /// Connections that ended because their code panicked: each one is a bug.
    pub panicked: u64,
    /// Bytes that were read from peers.
    pub bytes_received: u64,
    /// Bytes that the sockets took, images included.
    pub bytes_sent: u64,
    /// Answers of the store by latency: `answers[i]` took less than `2^i / 4` ms and, but for the
    /// first, at least half of that. The last one has all that took longer, too, which no store
    /// does within the usual [`crate::Config::answer_timeout`].
    pub answers: [u64; Self::LATENCIES],
    closed: [u64; CloseReason::ALL.len()],
    handshakes: [u64; Handshake::ALL.len()],
    requests: Vec<u64>,
}

/// How many requests of one kind there were.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Requests {
    /// Where they went.
    pub endpoint: Endpoint,
    /// What became of them.
    pub outcome: Outcome,
    /// First digit of the status; 0 if there was none.
    pub status_class: u8,
    /// How many.
    pub count: u64,
}

impl Tally {
    /// Nothing counted yet.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            accepted: Count::ZERO,
            refused: Count::ZERO,
            evicted: Count::ZERO,
            accept_pauses: Count::ZERO,
            broken: Count::ZERO,
            panicked: Count::ZERO,
            bytes_received: Count::ZERO,
            bytes_sent: Count::ZERO,
            answers: [const { Count::ZERO }; _],
            closed: [const { Count::ZERO }; _],
            handshakes: [const { Count::ZERO }; _],
            requests: [const { Count::ZERO }; _],
        }
    }

    /// The store answered a query after this time.
    pub fn answered(&self, took: Duration) {
        let quarters_ms = took.as_secs().saturating_mul(4000);
        let quarters_ms = quarters_ms.saturating_add(u64::from(took.subsec_micros() / 250));
        let class = (u64::BITS - quarters_ms.leading_zeros()) as usize;
        self.answers[class.min(Counters::LATENCIES - 1)].add(1);
    }

    /// A connection ended by itself: neither with an error of its socket, which is
    /// [`Tally::broken`], nor with a panic.
    pub fn closed(&self, reason: CloseReason) {
        self.closed[reason as usize].add(1);
    }

    /// A TLS handshake ended.
    pub fn handshake(&self, handshake: Handshake) {
        self.handshakes[handshake.index()].add(1);
    }

    /// A request ended.
    pub fn request(&self, report: &Report) {
        let class = usize::from(report.status / 100).min(STATUS_CLASSES - 1);
        let kind = report.endpoint as usize * Outcome::ALL.len() + report.outcome.index();
        self.requests[kind * STATUS_CLASSES + class].add(1);
    }
}

impl Default for Tally {
    fn default() -> Self {
        Self::new()
    }
}

impl Count {
    #[allow(clippy::declare_interior_mutable_const, reason = "what each number starts as")]
    const ZERO: Self = Self(AtomicU64::new(0));

    /// Not a `fetch_add`: there is one writer, so nothing has to be locked. Of two threads that
    /// add at the same time, one may be lost.
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(n), Relaxed);
    }

    /// The number so far.
    #[must_use]
    pub fn read(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

impl Counters {
    /// Classes of [`Counters::answers`].
    pub const LATENCIES: usize = 17;

    /// Adds up what all of them counted so far.
    #[must_use]
    pub fn sum<'a>(tallies: impl IntoIterator<Item = &'a Tally>) -> Self {
        let mut sum = Self { requests: vec![0; REQUESTS], ..Self::default() };
        for tally in tallies {
            for (total, count) in [
                (&mut sum.accepted, &tally.accepted),
                (&mut sum.refused, &tally.refused),
                (&mut sum.evicted, &tally.evicted),
                (&mut sum.accept_pauses, &tally.accept_pauses),
                (&mut sum.broken, &tally.broken),
                (&mut sum.panicked, &tally.panicked),
                (&mut sum.bytes_received, &tally.bytes_received),
                (&mut sum.bytes_sent, &tally.bytes_sent),
            ]
            .into_iter()
            .chain(sum.answers.iter_mut().zip(&tally.answers))
            .chain(sum.closed.iter_mut().zip(&tally.closed))
            .chain(sum.handshakes.iter_mut().zip(&tally.handshakes))
            .chain(sum.requests.iter_mut().zip(&tally.requests))
            {
                *total += count.read();
            }
        }
        let gone = sum.closed.iter().sum::<u64>() + sum.broken + sum.panicked;
        sum.open = sum.accepted.saturating_sub(gone);
        sum
    }

    /// Connections that were closed for this reason.
    #[must_use]
    pub fn closed(&self, reason: CloseReason) -> u64 {
        self.closed[reason as usize]
    }

    /// Every reason with its number of connections, for a page of metrics.
    pub fn closed_by_reason(&self) -> impl Iterator<Item = (CloseReason, u64)> {
        CloseReason::ALL.into_iter().zip(self.closed)
    }

    /// Every outcome of a TLS handshake with its number, for a page of metrics.
    pub fn handshakes(&self) -> impl Iterator<Item = (Handshake, u64)> {
        Handshake::ALL.into_iter().zip(self.handshakes)
    }

    /// Requests by endpoint, outcome and class of status, without those that never happened.
    pub fn requests(&self) -> impl Iterator<Item = Requests> {
        let counted = self.requests.iter().enumerate().filter(|(_, count)| **count > 0);
        counted.map(|(index, count)| Requests {
            endpoint: Endpoint::ALL[index / STATUS_CLASSES / Outcome::ALL.len()],
            outcome: Outcome::ALL[index / STATUS_CLASSES % Outcome::ALL.len()],
            status_class: (index % STATUS_CLASSES) as u8,
            count: *count,
        })
    }
}

/// None, then 1xx to 5xx.
const STATUS_CLASSES: usize = 6;
const REQUESTS: usize = Endpoint::ALL.len() * Outcome::ALL.len() * STATUS_CLASSES;

#[cfg(test)]
mod tests {
    use super::*;

    fn report(endpoint: Endpoint, outcome: Outcome, status: u16) -> Report {
        Report { endpoint, status, outcome, device: None, bytes_sent: 0, took: Duration::ZERO }
    }

    #[test]
    fn every_kind_of_request_has_a_counter_of_its_own() {
        let tally = Tally::new();
        for endpoint in Endpoint::ALL {
            for outcome in Outcome::ALL {
                for status in [0, 100, 200, 304, 404, 503] {
                    tally.request(&report(endpoint, outcome, status));
                    let sum = Counters::sum([&tally]);
                    let found = sum.requests().find(|requests| {
                        (requests.endpoint, requests.outcome) == (endpoint, outcome)
                            && u16::from(requests.status_class) == status / 100
                    });
                    assert_eq!(found.map(|requests| requests.count), Some(1));
                }
            }
        }
        let sum = Counters::sum([&tally]);
        assert_eq!(sum.requests().count(), REQUESTS);
        assert!(sum.requests().all(|requests| requests.count == 1));
    }

    #[test]
    fn every_reason_has_a_counter_of_its_own() {
        let tally = Tally::new();
        for reason in CloseReason::ALL {
            tally.closed(reason);
        }
        let sum = Counters::sum([&tally]);
        assert!(sum.closed_by_reason().eq(CloseReason::ALL.map(|reason| (reason, 1))));
        assert!(CloseReason::ALL.iter().all(|reason| sum.closed(*reason) == 1));
    }

    #[test]
    fn every_outcome_of_a_handshake_has_a_counter_of_its_own() {
        let tally = Tally::new();
        Handshake::ALL.into_iter().for_each(|handshake| tally.handshake(handshake));
        let sum = Counters::sum([&tally]);
        assert!(sum.handshakes().eq(Handshake::ALL.map(|handshake| (handshake, 1))));
    }

    #[test]
    fn latencies_fall_into_doubling_classes() {
        for (us, class) in [
            (0, 0),
            (249, 0),
            (250, 1),
            (500, 2),
            (999, 2),
            (1000, 3),
            (8_192_000, 16),
            (u64::MAX, 16),
        ] {
            let tally = Tally::new();
            tally.answered(Duration::from_micros(us));
            assert_eq!(Counters::sum([&tally]).answers[class], 1, "{us}");
        }
    }

    #[test]
    fn open_is_what_was_accepted_and_is_not_gone() {
        let (one, other) = (Tally::new(), Tally::new());
        one.accepted.add(5);
        other.accepted.add(7);
        one.closed(CloseReason::Idle);
        other.broken.add(2);
        other.panicked.add(1);
        assert_eq!(Counters::sum([&one, &other]).open, 8);
    }

    #[test]
    fn what_others_count_is_read_while_they_count() {
        let tally = Tally::new();
        std::thread::scope(|scope| {
            scope.spawn(|| (0..1000).for_each(|_| tally.bytes_sent.add(3)));
            let mut last = 0;
            while last < 3000 {
                let sum = Counters::sum([&tally]).bytes_sent;
                assert!(sum >= last && sum.is_multiple_of(3), "{sum} after {last}");
                last = sum;
            }
        });
    }
}
