//! The time, as the core is told it.

use std::time::Instant;

/// The time, read by the driver once per turn of its loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// Monotonic: deadlines.
    pub instant: Instant,
    /// Seconds since 1970: `timestamp` of replies, `last seen`.
    pub unix: u64,
}
