//! What requests may cost, so that no device that goes round in a loop costs more than it may
//! (docs/wire.md 2.4).

use std::collections::BTreeMap;
use std::time::Duration;

use otter_protocol::{Outcome, Query, Refusal, Report};

/// What one request asked the store to keep.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Cost {
    /// First attempts that were begun.
    starts: u64,
    /// All other writes.
    writes: u64,
}

/// What each actor has cost in its present hour, and the dearest hours of all.
#[derive(Debug)]
pub(super) struct Budget {
    bills: BTreeMap<usize, Bill>,
    dearest: Bill,
    writes_max: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Bill {
    hour: u64,
    requests: u64,
    writes: u64,
    /// Downloads that were put off.
    put_off: u64,
}

impl Cost {
    pub(super) fn add(&mut self, query: &Query) {
        match query {
            Query::Start { .. } => self.starts += 1,
            Query::Record(_) | Query::Push { .. } | Query::Claim { .. } => self.writes += 1,
            Query::Identify(_) | Query::Fetch { .. } | Query::Redeem { .. } => {}
        }
    }
}

impl Default for Budget {
    fn default() -> Self {
        let writes_max = WRITES_PER_HOUR_MAX;
        Self { bills: BTreeMap::new(), dearest: Bill::default(), writes_max }
    }
}

impl Budget {
    /// Nothing is wrong any more: from now on all must be cheap.
    pub(super) fn calm_down(&mut self) {
        *self =
            Self { writes_max: CALM_WRITES_PER_HOUR_MAX, dearest: self.dearest, ..Self::default() };
    }

    /// A request of an actor ended.
    ///
    /// # Panics
    /// If it cost more than such a request may, or the actor more than it may in an hour.
    pub(super) fn charge(&mut self, at: Duration, actor: usize, report: &Report, cost: Cost) {
        check(report, cost);
        let bill = self.bills.entry(actor).or_default();
        let hour = at.as_secs() / 3600;
        if bill.hour != hour {
            *bill = Bill { hour, ..Bill::default() };
        }
        bill.requests += 1;
        bill.writes += cost.starts + cost.writes;
        bill.put_off += u64::from(report.outcome == Outcome::Refused(Refusal::PutOff));
        let Bill { requests, writes, put_off, .. } = *bill;
        assert!(requests <= REQUESTS_PER_HOUR_MAX, "budget: {requests} requests of actor {actor}");
        assert!(writes <= self.writes_max, "budget: {writes} writes for actor {actor}");
        self.dearest.requests = self.dearest.requests.max(requests);
        self.dearest.writes = self.dearest.writes.max(writes);
        self.dearest.put_off = self.dearest.put_off.max(put_off);
    }

    /// The most requests and the most writes of one actor in one hour.
    pub(super) fn dearest(&self) -> (u64, u64) {
        (self.dearest.requests, self.dearest.writes)
    }

    /// The most downloads of one actor that were put off in one hour.
    pub(super) fn put_off(&self) -> u64 {
        self.dearest.put_off
    }
}

/// A refusal is short and keeps nothing.
fn check(report: &Report, cost: Cost) {
    let Outcome::Refused(refusal) = report.outcome else { return };
    if refusal == Refusal::Unavailable {
        // It may have been kept, and only the acknowledgement was lost.
        return;
    }
    // What was behind the token may end between the look at it and the first attempt.
    let is_late = matches!(refusal, Refusal::DeadToken | Refusal::NoRelease);
    let (starts_max, is_dead) = (u64::from(is_late), refusal == Refusal::DeadToken);
    let bytes_max = if is_dead { DEAD_TOKEN_BYTES_MAX } else { REFUSAL_BYTES_MAX };
    let Cost { starts, writes } = cost;
    assert!(writes == 0 && starts <= starts_max, "budget: {refusal:?} was kept: {cost:?}");
    let bytes = report.bytes_sent;
    assert!(bytes <= bytes_max, "budget: {bytes} bytes to say {refusal:?}");
}

/// docs/wire.md 2.4.
const DEAD_TOKEN_BYTES_MAX: u64 = 111;
const REFUSAL_BYTES_MAX: u64 = 320;
/// The libraries' main loop, whose turn takes a second or so, twice as often as it can ask.
const REQUESTS_PER_HOUR_MAX: u64 = 4000;
/// While the store answers now with 503 and now with 404, an updater in its loop reports now one
/// error and now the other, which is something new each time; every second request of such a loop
/// is a check-in.
const WRITES_PER_HOUR_MAX: u64 = REQUESTS_PER_HOUR_MAX / 2;
/// Nothing new but that it was seen, six times; and an update or two.
const CALM_WRITES_PER_HOUR_MAX: u64 = 40;
