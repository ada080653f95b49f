//! What other threads tell a worker: that answers wait, and to stop.
//!
//! `tests/shared` tries each interleaving of what is done here.

use crate::sync::{AtomicBool, Ordering};

/// Rings a worker out of its poll; a burst of rings wakes it once.
#[derive(Debug, Default)]
pub(crate) struct Bell {
    stopping: AtomicBool,
    rung: AtomicBool,
}

impl Bell {
    /// `wake` ends the worker's poll, or its next one.
    pub(crate) fn ring(&self, wake: impl FnOnce()) {
        if !self.rung.swap(true, Ordering::AcqRel) {
            wake();
        }
    }

    /// The order to stop. [`Bell::ring`] must follow.
    pub(crate) fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
    }

    /// The worker is awake; was there the order to stop? To be asked before it looks at what the
    /// ringing was for, or what comes after the look rings nobody.
    pub(crate) fn silence(&self) -> bool {
        self.rung.swap(false, Ordering::AcqRel);
        self.stopping.load(Ordering::Acquire)
    }
}
