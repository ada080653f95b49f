//! The one clock of a test: it moves only when it is told to.

use std::time::{Duration, Instant};

use otter_protocol::Now;

/// Both clocks of [`Now`], moved together.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    base: Instant,
    at: Duration,
    skew_s: i64,
}

impl Clock {
    /// What the unix clock shows when a test begins: the second of the samples in docs/wire.md 1.1.
    pub const UNIX_START: u64 = 1_795_478_791;

    /// A clock at its beginning.
    #[must_use]
    pub fn start() -> Self {
        Self { base: Instant::now(), at: Duration::ZERO, skew_s: 0 }
    }

    /// Time since the beginning.
    #[must_use]
    pub fn at(&self) -> Duration {
        self.at
    }

    /// Lets `by` pass.
    pub fn advance(&mut self, by: Duration) {
        self.at += by;
    }

    /// Moves on to `at`; a time that has passed already changes nothing.
    pub fn jump(&mut self, at: Duration) {
        self.at = self.at.max(at);
    }

    /// The same clock where the unix time is wrong by so many seconds.
    #[must_use]
    pub fn skewed(self, skew_s: i64) -> Self {
        Self { skew_s, ..self }
    }

    /// The time as the core takes it.
    #[must_use]
    pub fn now(&self) -> Now {
        let unix = Self::UNIX_START + self.at.as_secs();
        Now { instant: self.base + self.at, unix: unix.saturating_add_signed(self.skew_s) }
    }

    /// The time since 1970, as the model store takes it.
    #[must_use]
    pub fn since_1970(&self) -> Duration {
        let unix = Self::UNIX_START.saturating_add_signed(self.skew_s);
        Duration::from_secs(unix) + self.at
    }

    /// Time from the beginning to `instant`, such as a deadline of the core.
    #[must_use]
    pub fn offset(&self, instant: Instant) -> Duration {
        instant.saturating_duration_since(self.base)
    }
}
