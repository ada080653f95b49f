//! A replica of the model store: it copies each write a while later, in order, and may have to take
//! the store's place with what it has by then.

use std::time::Duration;

use super::ModelStore;
use crate::Random;

/// How a replica follows its store.
#[derive(Clone, Copy, Debug)]
pub struct Replication {
    /// Longest time until the replica has a write, in milliseconds.
    pub lag_ms_max: u64,
    /// Is a claim answered only once the replica has it?
    pub claims_wait: bool,
}

/// The replica.
#[derive(Debug)]
pub(super) struct Replica {
    pub(super) replication: Replication,
    /// What it has copied.
    state: ModelStore,
    /// Writes that were done, and of them those that were copied.
    written: u64,
    copied: u64,
    /// When it will have all writes so far.
    current_at: Duration,
}

impl Replica {
    pub(super) fn of(store: &ModelStore, replication: Replication) -> Self {
        let current_at = Duration::ZERO;
        Self { replication, state: store.clone(), written: 0, copied: 0, current_at }
    }

    /// A write was done at the time `at`: its number, and when it will be copied.
    pub(super) fn write(&mut self, at: Duration, random: &mut Random) -> (u64, Duration) {
        self.written += 1;
        let lag = Duration::from_millis(random.between(0, self.replication.lag_ms_max));
        self.current_at = self.current_at.max(at + lag);
        (self.written, self.current_at)
    }

    /// Copies what the store was after the write `number`.
    pub(super) fn copy(&mut self, number: u64, state: ModelStore) {
        if self.copied < number {
            (self.copied, self.state) = (number, state);
        }
    }

    /// Copies everything at once.
    pub(super) fn copy_all(&mut self, store: &ModelStore) {
        (self.copied, self.state) = (self.written, store.clone());
    }

    pub(super) fn has(&self, number: u64) -> bool {
        number <= self.copied
    }

    /// What takes the store's place.
    pub(super) fn promoted(&self, seed: u64) -> ModelStore {
        let mut state = self.state.clone();
        state.reseed(seed);
        state
    }
}
