//! Counters, for metrics.

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
    /// Tokens that nobody has tried yet.
    pub tokens_open: u64,
    /// Tokens with a first attempt behind them, replaced ones included.
    pub tokens_started: u64,
    /// Tokens issued, in all.
    pub tokens_issued_total: u64,
    /// First attempts, in all.
    pub tokens_started_total: u64,
    /// Tokens claimed, in all.
    pub tokens_claimed_total: u64,
    /// Tokens that ran out, in all.
    pub tokens_expired_total: u64,
    /// Tokens that made way for a newer one of the same device and release, in all.
    pub tokens_replaced_total: u64,
    /// Tokens that an operator revoked, in all.
    pub tokens_revoked_total: u64,
    /// Commits that became durable, in all. Always 0 in a memory store.
    pub commits_total: u64,
    /// Commits that failed, in all: everything in them was answered as unavailable.
    pub commits_failed_total: u64,
    /// Writes that became durable, in all.
    pub writes_total: u64,
    /// Writes that had to wait for the next group because they touch what one before them
    /// touched, in all.
    pub writes_deferred_total: u64,
    /// Images that could not be opened or were not what was published, in all.
    pub images_refused_total: u64,
    /// Writes per commit.
    pub group_writes: Buckets,
    /// Microseconds per commit, from its first statement until it was durable.
    pub commit_us: Buckets,
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
