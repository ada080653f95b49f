//! Counters, for metrics.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crate::shared::Shared;
use crate::tables::{Change, Removal, TokenEvent};

/// Counts of one moment. All totals are since the store was opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoreStats {
    /// Owners.
    pub owners: u64,
    /// API keys.
    pub keys: u64,
    /// Devices.
    pub devices: u64,
    /// Releases, withdrawn ones included.
    pub releases: u64,
    /// Tokens that nobody has tried yet. Always 0 with Redis, which would have to look at all
    /// devices.
    pub tokens_open: u64,
    /// Tokens with a first attempt behind them, replaced ones included. Always 0 with Redis.
    pub tokens_started: u64,
    /// Tokens issued, in all.
    pub tokens_issued_total: u64,
    /// First attempts, in all.
    pub tokens_started_total: u64,
    /// Tokens claimed, in all.
    pub tokens_claimed_total: u64,
    /// Tokens that ran out, in all. Counted when they are removed, which is at the first write
    /// after the time in which a transfer could still have claimed them.
    pub tokens_expired_total: u64,
    /// Tokens that made way for a newer one of the same device and release, in all.
    pub tokens_replaced_total: u64,
    /// Tokens that an operator revoked, in all.
    pub tokens_revoked_total: u64,
    /// Commits that became durable, in all. Always 0 in a memory store.
    pub commits_total: u64,
    /// Commits that failed, in all: everything in them was answered as unavailable.
    pub commits_failed_total: u64,
    /// Writes that changed something and were kept, in all.
    pub writes_total: u64,
    /// Writes that had to wait for the next group because they touch what one before them
    /// touched, in all.
    pub writes_deferred_total: u64,
    /// Images that could not be opened or were not what was published, in all.
    pub images_refused_total: u64,
    /// Images that were fetched from an origin, in all.
    pub fetches_total: u64,
    /// Bytes of those images, in all.
    pub fetched_bytes_total: u64,
    /// Times that an origin did not have an image, in all.
    pub fetches_missing_total: u64,
    /// Times that an origin could not be reached, broke off or stood still, in all.
    pub fetches_unreachable_total: u64,
    /// Times that an origin refused to give an image, such as for a wrong secret, in all.
    pub fetches_refused_total: u64,
    /// Times that an origin gave something else than what was published, in all.
    pub fetches_wrong_total: u64,
    /// Times that an image could not be kept, because the disk is full or failing, in all.
    pub fetches_unkept_total: u64,
    /// Images that are being fetched or wait for it.
    pub fetches_open: u64,
    /// Images that were put to an origin when they were published, in all.
    pub images_put_total: u64,
    /// Images that could not be put to an origin, in all: they were not published.
    pub images_unput_total: u64,
    /// How things stand with Redis, in a store that has one.
    pub redis: Option<RedisStats>,
    /// Writes per commit.
    pub group_writes: Buckets,
    /// Microseconds per commit, from its first statement until it was durable.
    pub commit_us: Buckets,
}

/// How things stand with Redis.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RedisStats {
    /// Does it answer?
    pub is_up: bool,
    /// Times that it went away.
    pub outages_total: u64,
    /// Calls sent, in all: each carries what one turn asked of one hash slot.
    pub calls_total: u64,
    /// Calls that failed, in all.
    pub calls_failed_total: u64,
    /// Operations in all calls.
    pub operations_total: u64,
}

/// A histogram: how many values were at most each bound.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Buckets {
    /// Upper bound (inclusive) and number of values in this bucket alone, in rising order; the
    /// last bound is `u64::MAX`.
    pub counts: Vec<(u64, u64)>,
    /// Sum of all values.
    pub sum: u64,
}

/// What is counted while a store runs.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    tokens_issued: AtomicU64,
    tokens_started: AtomicU64,
    tokens_claimed: AtomicU64,
    tokens_expired: AtomicU64,
    tokens_replaced: AtomicU64,
    tokens_revoked: AtomicU64,
    commits: AtomicU64,
    commits_failed: AtomicU64,
    writes: AtomicU64,
    writes_deferred: AtomicU64,
    group_writes: Histogram<{ GROUP_WRITES.len() }>,
    commit_us: Histogram<{ COMMIT_US.len() }>,
}

impl Counters {
    /// So many writes were kept, which consisted of these changes.
    pub(crate) fn kept(&self, writes: usize, changes: &[Change]) {
        self.writes.fetch_add(writes as u64, Relaxed);
        for change in changes {
            if let Some(counter) = self.of_token(change) {
                counter.fetch_add(1, Relaxed);
            }
        }
    }

    /// So many tokens went this way.
    #[cfg(feature = "redis")]
    pub(crate) fn token(&self, way: TokenCount, tokens: u64) {
        let counter = match way {
            TokenCount::Issued => &self.tokens_issued,
            TokenCount::Started => &self.tokens_started,
            TokenCount::Claimed => &self.tokens_claimed,
            TokenCount::Expired => &self.tokens_expired,
            TokenCount::Replaced => &self.tokens_replaced,
            TokenCount::Revoked => &self.tokens_revoked,
        };
        counter.fetch_add(tokens, Relaxed);
    }

    /// A token was issued; so many were replaced by it, and so many had ended by then.
    #[cfg(feature = "redis")]
    pub(crate) fn issued(&self, replaced: u64, ended: u64) {
        self.token(TokenCount::Issued, 1);
        self.token(TokenCount::Replaced, replaced);
        self.token(TokenCount::Expired, ended);
    }

    /// So many writes were kept.
    #[cfg(feature = "redis")]
    pub(crate) fn wrote(&self, writes: u64) {
        self.writes.fetch_add(writes, Relaxed);
    }

    /// A commit of so many writes became durable after this time.
    pub(crate) fn committed(&self, writes: usize, took: Duration) {
        self.commits.fetch_add(1, Relaxed);
        self.group_writes.add(&GROUP_WRITES, writes as u64);
        self.commit_us.add(&COMMIT_US, u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
    }

    /// A commit failed.
    pub(crate) fn commit_failed(&self) {
        self.commits_failed.fetch_add(1, Relaxed);
    }

    /// So many writes wait for the next group.
    pub(crate) fn deferred(&self, writes: usize) {
        self.writes_deferred.fetch_add(writes as u64, Relaxed);
    }

    fn of_token(&self, change: &Change) -> Option<&AtomicU64> {
        match change {
            Change::TokenKept(kept) => match kept.event {
                TokenEvent::Issued { .. } => Some(&self.tokens_issued),
                TokenEvent::Started => Some(&self.tokens_started),
                TokenEvent::Replaced => Some(&self.tokens_replaced),
            },
            Change::TokenRemoved { removal, .. } => match removal {
                Removal::Claimed => Some(&self.tokens_claimed),
                Removal::Expired => Some(&self.tokens_expired),
                Removal::Replaced => Some(&self.tokens_replaced),
                Removal::Surplus => None,
                Removal::Revoked => Some(&self.tokens_revoked),
            },
            Change::OwnerAdded { .. }
            | Change::KeyAdded { .. }
            | Change::KeyRevoked { .. }
            | Change::DeviceKept(_)
            | Change::PushKept { .. }
            | Change::ReleasePublished(_)
            | Change::ReleaseWithdrawn { .. } => None,
        }
    }
}

/// What can become of a token.
#[cfg(feature = "redis")]
#[derive(Clone, Copy, Debug)]
pub(crate) enum TokenCount {
    Issued,
    Started,
    Claimed,
    Expired,
    Replaced,
    Revoked,
}

impl Shared {
    /// Counts of this moment.
    pub(crate) fn stats(&self) -> StoreStats {
        let tables = self.tables();
        let (tokens_open, tokens_started) = tables.tokens.open_and_started();
        let mut stats = StoreStats {
            owners: tables.owners.rows.len() as u64,
            keys: tables.owners.keys_len() as u64,
            devices: u64::from(tables.devices.len()),
            releases: tables.releases.rows.len() as u64,
            tokens_open,
            tokens_started,
            ..self.counters.totals()
        };
        drop(tables);
        self.depot.count(&mut stats);
        stats
    }
}

impl Counters {
    /// What was counted; the facts of the moment are left at 0.
    pub(crate) fn totals(&self) -> StoreStats {
        StoreStats {
            tokens_issued_total: self.tokens_issued.load(Relaxed),
            tokens_started_total: self.tokens_started.load(Relaxed),
            tokens_claimed_total: self.tokens_claimed.load(Relaxed),
            tokens_expired_total: self.tokens_expired.load(Relaxed),
            tokens_replaced_total: self.tokens_replaced.load(Relaxed),
            tokens_revoked_total: self.tokens_revoked.load(Relaxed),
            commits_total: self.commits.load(Relaxed),
            commits_failed_total: self.commits_failed.load(Relaxed),
            writes_total: self.writes.load(Relaxed),
            writes_deferred_total: self.writes_deferred.load(Relaxed),
            group_writes: self.group_writes.buckets(&GROUP_WRITES),
            commit_us: self.commit_us.buckets(&COMMIT_US),
            ..StoreStats::default()
        }
    }
}

#[derive(Debug)]
struct Histogram<const BOUNDS: usize> {
    counts: [AtomicU64; BOUNDS],
    sum: AtomicU64,
}

impl<const BOUNDS: usize> Default for Histogram<BOUNDS> {
    fn default() -> Self {
        Self { counts: std::array::from_fn(|_| AtomicU64::new(0)), sum: AtomicU64::new(0) }
    }
}

impl<const BOUNDS: usize> Histogram<BOUNDS> {
    fn add(&self, bounds: &[u64; BOUNDS], value: u64) {
        // The last bound is the greatest number there is, so the place is within the array.
        let place = bounds.partition_point(|bound| *bound < value);
        self.counts[place].fetch_add(1, Relaxed);
        self.sum.fetch_add(value, Relaxed);
    }

    fn buckets(&self, bounds: &[u64; BOUNDS]) -> Buckets {
        let counts = bounds.iter().zip(&self.counts);
        Buckets {
            counts: counts.map(|(bound, count)| (*bound, count.load(Relaxed))).collect(),
            sum: self.sum.load(Relaxed),
        }
    }
}

const GROUP_WRITES: [u64; 12] = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, u64::MAX];

const COMMIT_US: [u64; 14] = [
    100,
    200,
    500,
    1_000,
    2_000,
    5_000,
    10_000,
    20_000,
    50_000,
    100_000,
    200_000,
    500_000,
    1_000_000,
    u64::MAX,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_falls_into_the_first_bucket_that_holds_it() {
        let histogram = Histogram::default();
        for value in [0, 1, 2, 3, 4, 1024, 1025, u64::MAX - 3000] {
            histogram.add(&GROUP_WRITES, value);
        }
        let buckets = histogram.buckets(&GROUP_WRITES);
        let filled: Vec<(u64, u64)> = buckets.counts.into_iter().filter(|(_, n)| *n > 0).collect();
        assert_eq!(filled, [(1, 2), (2, 1), (4, 2), (1024, 1), (u64::MAX, 2)]);
        assert_eq!(buckets.sum, u64::MAX - 3000 + 2059);
    }
}
