//! The store's own clock, on which all deadlines stand. It never goes back.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// Tells the time in milliseconds since 1970. Tests bring their own.
///
/// ```
/// let clock: otter_store::Clock = std::sync::Arc::new(|| 1_795_478_791_000);
/// assert_eq!(clock(), 1_795_478_791_000);
/// ```
pub type Clock = Arc<dyn Fn() -> u64 + Send + Sync>;

/// The system's clock.
pub(crate) fn system() -> Clock {
    Arc::new(|| {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    })
}

/// A clock that stands still where the one behind it is set back, until that has caught up. A
/// token's deadline can come late by that, and no dead token ever lives again.
pub(crate) struct SteadyClock {
    clock: Clock,
    highest_ms: AtomicU64,
}

impl SteadyClock {
    /// Never tells less than `highest_ms`, the highest time that was ever seen.
    pub(crate) fn new(clock: Clock, highest_ms: u64) -> Self {
        Self { clock, highest_ms: AtomicU64::new(highest_ms) }
    }

    /// Milliseconds since 1970.
    pub(crate) fn now_ms(&self) -> u64 {
        let now_ms = (self.clock)();
        self.highest_ms.fetch_max(now_ms, Ordering::Relaxed).max(now_ms)
    }
}

impl fmt::Debug for SteadyClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SteadyClock").field("highest_ms", &self.highest_ms).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_never_goes_back() {
        let wall = Arc::new(AtomicU64::new(500));
        let hands = Arc::clone(&wall);
        let clock = SteadyClock::new(Arc::new(move || hands.load(Ordering::Relaxed)), 1000);
        for (wall_ms, told_ms) in [(500, 1000), (1500, 1500), (200, 1500), (1501, 1501)] {
            wall.store(wall_ms, Ordering::Relaxed);
            assert_eq!(clock.now_ms(), told_ms);
        }
    }

    #[test]
    fn the_system_knows_that_it_is_past_2025() {
        assert!(system()() > 1_735_689_600_000);
    }
}
