//! What other threads tell a worker: that answers wait, and to stop.
//!
//! `tests/shared` tries each interleaving of what is done here.

use crate::sync::{AtomicBool, Ordering};

/// Rings a worker out of its poll; a burst of rings wakes it once.
#[derive(Debug)]
pub(crate) struct Bell {
    stopping: AtomicBool,
    rung: AtomicBool,
}

impl Bell {
    pub(crate) fn new() -> Self {
        Self { stopping: AtomicBool::new(false), rung: AtomicBool::new(false) }
    }

    /// `wake` ends the worker's poll, or its next one.
    pub(crate) fn ring(&self, wake: impl FnOnce()) {
        if !self.rung.swap(true, Ordering::AcqRel) {
            wake();
        }
    }

    /// The order to stop.
    pub(crate) fn stop(&self, wake: impl FnOnce()) {
        self.stopping.store(true, Ordering::Release);
        self.ring(wake);
    }

    /// The worker is awake. To be said before it looks at what the ringing was for, or what comes
    /// after the look rings nobody.
    pub(crate) fn silence(&self) {
        self.rung.swap(false, Ordering::AcqRel);
    }

    /// Was there the order to stop?
    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }
}
