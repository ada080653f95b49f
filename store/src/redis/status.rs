//! How things stand between Otter and Redis, for all threads to see.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use super::trouble::Trouble;

/// Is Redis there, and what was last wrong with it?
#[derive(Debug, Default)]
pub(crate) struct Status {
    up: AtomicBool,
    trouble: Mutex<Option<String>>,
    calls: AtomicU64,
    calls_failed: AtomicU64,
    ops: AtomicU64,
    outages: AtomicU64,
}

impl Status {
    /// May anything be asked? While not, everything is answered as unavailable at once.
    pub(crate) fn is_up(&self) -> bool {
        self.up.load(Ordering::Acquire)
    }

    /// Why not, or what was wrong last.
    pub(crate) fn trouble(&self) -> Option<String> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Calls sent, calls that failed, operations in all of them, and times that Redis went away.
    pub(crate) fn counts(&self) -> [u64; 4] {
        let all = [&self.calls, &self.calls_failed, &self.ops, &self.outages];
        all.map(|count| count.load(Ordering::Relaxed))
    }

    pub(super) fn set_up(&self, is_up: bool) {
        let was_up = self.up.swap(is_up, Ordering::AcqRel);
        if was_up && !is_up {
            self.outages.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A call with so many operations was sent.
    pub(super) fn sent(&self, ops: usize) {
        self.calls.fetch_add(1, Ordering::Relaxed);
        self.ops.fetch_add(ops as u64, Ordering::Relaxed);
    }

    /// A call failed.
    pub(super) fn failed(&self, trouble: &Trouble) {
        self.calls_failed.fetch_add(1, Ordering::Relaxed);
        self.note(trouble.to_string());
    }

    /// Something is wrong with the line.
    pub(super) fn note(&self, trouble: String) {
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = Some(trouble);
    }
}
