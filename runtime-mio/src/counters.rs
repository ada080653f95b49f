//! What the workers count. Each counts for itself, nothing is shared on the hot path; who asks
//! adds up.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use otter_protocol::{CloseReason, Endpoint, Outcome, Refusal, Report};

/// A sum of what workers counted since they started; see [`crate::Handle::counters`].
///
/// Taken while the workers go on: each number is exact, two of them may be a turn apart.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Counters {
    /// Connections that are open now.
    pub open: u64,
    /// Connections that were accepted and not refused.
    pub accepted: u64,
    /// Connections beyond [`crate::Options::connections_max`]: answered 503 and closed.
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
    /// first, at least half of that. Measured between turns of the loop, so what was answered
    /// within the turn counts as nothing. Latencies from 16 s on, which no store reaches within
    /// the usual [`otter_protocol::Config::answer_timeout`], start over at 0.
    pub answers: [u64; Self::LATENCIES],
    closed: [u64; REASONS.len() + 1],
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

impl Counters {
    /// Classes of [`Counters::answers`].
    pub const LATENCIES: usize = 17;

    /// Connections that were closed for this reason.
    #[must_use]
    pub fn closed(&self, reason: CloseReason) -> u64 {
        self.closed[reason_index(reason)]
    }

    /// Every reason with its number of connections, for a page of metrics.
    pub fn closed_by_reason(&self) -> impl Iterator<Item = (CloseReason, u64)> {
        REASONS.into_iter().zip(self.closed)
    }

    /// Requests by endpoint, outcome and class of status, without those that never happened.
    pub fn requests(&self) -> impl Iterator<Item = Requests> {
        let counted = self.requests.iter().enumerate().filter(|(_, count)| **count > 0);
        counted.map(|(index, count)| Requests {
            endpoint: ENDPOINTS[index / STATUS_CLASSES / OUTCOMES.len()],
            outcome: OUTCOMES[index / STATUS_CLASSES % OUTCOMES.len()],
            status_class: (index % STATUS_CLASSES) as u8,
            count: *count,
        })
    }

    pub(crate) fn sum<'a>(tallies: impl IntoIterator<Item = &'a Tally>) -> Self {
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
            .chain(sum.requests.iter_mut().zip(&tally.requests))
            {
                *total += count.read();
            }
        }
        let gone = sum.closed.iter().sum::<u64>() + sum.broken + sum.panicked;
        sum.open = sum.accepted.saturating_sub(gone);
        sum
    }
}

/// What one worker counts.
#[derive(Debug, Default)]
#[repr(align(128))] // no cache line is shared with another worker's
pub(crate) struct Tally {
    pub(crate) accepted: Count,
    pub(crate) refused: Count,
    pub(crate) evicted: Count,
    pub(crate) accept_pauses: Count,
    pub(crate) broken: Count,
    pub(crate) panicked: Count,
    pub(crate) bytes_received: Count,
    pub(crate) bytes_sent: Count,
    answers: [Count; Counters::LATENCIES],
    closed: [Count; REASONS.len() + 1],
    requests: Box<[Count]>,
}

impl Tally {
    pub(crate) fn new() -> Self {
        let requests = (0..REQUESTS).map(|_| Count::default()).collect();
        Self { requests, ..Self::default() }
    }

    /// An answer of the store came `quarter_ms` after its query.
    pub(crate) fn answer(&self, quarter_ms: u16) {
        self.answers[(u16::BITS - quarter_ms.leading_zeros()) as usize].add(1);
    }

    pub(crate) fn closed(&self, reason: CloseReason) {
        self.closed[reason_index(reason)].add(1);
    }

    pub(crate) fn request(&self, report: &Report) {
        self.requests[request_index(report)].add(1);
    }
}

/// A number that one thread writes and others read.
#[derive(Debug, Default)]
pub(crate) struct Count(AtomicU64);

impl Count {
    /// Not a `fetch_add`: there is one writer, so nothing has to be locked.
    pub(crate) fn add(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(n), Relaxed);
    }

    pub(crate) fn read(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

fn request_index(report: &Report) -> usize {
    let outcome = match report.outcome {
        Outcome::Registered => 0,
        Outcome::Current => 1,
        Outcome::Offered => 2,
        Outcome::HeldBack => 3,
        Outcome::Issued => 4,
        Outcome::Delivered => 5,
        Outcome::Ranged => 6,
        Outcome::NotModified => 7,
        Outcome::Answered => 8,
        Outcome::Aborted => 9,
        Outcome::Unclaimed => 10,
        Outcome::Refused(refusal) => 11 + refusal as usize,
    };
    let class = usize::from(report.status / 100).min(STATUS_CLASSES - 1);
    (report.endpoint as usize * OUTCOMES.len() + outcome) * STATUS_CLASSES + class
}

fn reason_index(reason: CloseReason) -> usize {
    REASONS.iter().position(|known| *known == reason).unwrap_or(REASONS.len())
}

const REASONS: [CloseReason; 6] = [
    CloseReason::Peer,
    CloseReason::Idle,
    CloseReason::Slow,
    CloseReason::Refused,
    CloseReason::Unclaimed,
    CloseReason::Shutdown,
];

const ENDPOINTS: [Endpoint; 7] = [
    Endpoint::CheckIn,
    Endpoint::Firmware,
    Endpoint::Issue,
    Endpoint::Redeem,
    Endpoint::Push,
    Endpoint::Health,
    Endpoint::Other,
];

/// In the order of [`request_index`].
const OUTCOMES: [Outcome; 24] = [
    Outcome::Registered,
    Outcome::Current,
    Outcome::Offered,
    Outcome::HeldBack,
    Outcome::Issued,
    Outcome::Delivered,
    Outcome::Ranged,
    Outcome::NotModified,
    Outcome::Answered,
    Outcome::Aborted,
    Outcome::Unclaimed,
    Outcome::Refused(Refusal::NoRoute),
    Outcome::Refused(Refusal::Malformed),
    Outcome::Refused(Refusal::TooLarge),
    Outcome::Refused(Refusal::TooSlow),
    Outcome::Refused(Refusal::BadBody),
    Outcome::Refused(Refusal::NoKey),
    Outcome::Refused(Refusal::UnknownOwner),
    Outcome::Refused(Refusal::WrongKey),
    Outcome::Refused(Refusal::UnknownDevice),
    Outcome::Refused(Refusal::DeadToken),
    Outcome::Refused(Refusal::NoRelease),
    Outcome::Refused(Refusal::BadRange),
    Outcome::Refused(Refusal::Unavailable),
];

const STATUS_CLASSES: usize = 6;
const REQUESTS: usize = ENDPOINTS.len() * OUTCOMES.len() * STATUS_CLASSES;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn report(endpoint: Endpoint, outcome: Outcome, status: u16) -> Report {
        Report { endpoint, status, outcome, device: None, bytes_sent: 0, took: Duration::ZERO }
    }

    #[test]
    fn every_kind_of_request_has_a_counter_of_its_own() {
        let tally = Tally::new();
        for endpoint in ENDPOINTS {
            for outcome in OUTCOMES {
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
        for reason in REASONS {
            tally.closed(reason);
        }
        let sum = Counters::sum([&tally]);
        assert!(sum.closed_by_reason().eq(REASONS.map(|reason| (reason, 1))));
        assert!(REASONS.iter().all(|reason| sum.closed(*reason) == 1));
    }

    #[test]
    fn latencies_fall_into_doubling_classes() {
        for (quarter_ms, class) in [(0, 0), (1, 1), (2, 2), (3, 2), (4, 3), (u16::MAX, 16)] {
            let tally = Tally::new();
            tally.answer(quarter_ms);
            assert_eq!(Counters::sum([&tally]).answers[class], 1, "{quarter_ms}");
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
}
