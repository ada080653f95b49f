//! How things stand between Otter and Redis, for all threads to see.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use super::trouble::Trouble;
use crate::stats::RedisStats;

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

    /// What was counted.
    pub(crate) fn stats(&self) -> RedisStats {
        RedisStats {
            is_up: self.is_up(),
            outages_total: self.outages.load(Ordering::Relaxed),
            calls_total: self.calls.load(Ordering::Relaxed),
            calls_failed_total: self.calls_failed.load(Ordering::Relaxed),
            operations_total: self.ops.load(Ordering::Relaxed),
        }
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
