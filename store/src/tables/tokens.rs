//! Tokens that are alive, or that a transfer under way may still claim.

use std::collections::BTreeSet;
use std::hash::BuildHasher;

use hashbrown::{HashMap, HashTable};
use otter_protocol::ReleaseId;
use rapidhash::fast::RandomState;

use crate::token::TokenHash;

/// All tokens.
#[derive(Debug, Default)]
pub(crate) struct Tokens {
    slots: Vec<Slot>,
    free: Vec<u32>,
    by_hash: HashTable<u32>,
    by_device: HashTable<u32>,
    /// By the moment from which not even a claim is answered.
    by_end: BTreeSet<(u64, u32)>,
    by_release: HashMap<ReleaseId, u32, RandomState>,
    started: u64,
    hasher: RandomState,
}

/// What is kept of a token. All times are milliseconds since 1970, all durations milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TokenFacts {
    pub(crate) release: Option<ReleaseId>,
    /// From then on it cannot be redeemed: issue + `unused`, from the first attempt on at most
    /// that + `used`.
    pub(crate) deadline_ms: u64,
    pub(crate) used_ms: u64,
    pub(crate) transfer_ms: u64,
    pub(crate) started: bool,
    pub(crate) forced: bool,
    /// A newer one took its place while a transfer was under way: it can only be claimed.
    pub(crate) replaced: bool,
}

impl TokenFacts {
    /// From then on it cannot be claimed.
    pub(crate) fn end_ms(&self) -> u64 {
        self.deadline_ms.saturating_add(self.transfer_ms)
    }

    /// Can it be redeemed?
    pub(crate) fn lives(&self, now_ms: u64) -> bool {
        !self.replaced && now_ms < self.deadline_ms
    }
}

impl Tokens {
    /// A token and the row of its device.
    pub(crate) fn find(&self, hash: &TokenHash) -> Option<(u32, &TokenFacts)> {
        let slot = &self.slots[self.slot_of(hash)? as usize];
        Some((slot.device, &slot.facts))
    }

    /// The tokens of a device that can at least be claimed, in no order. [`Tokens::ended`] has the
    /// others.
    pub(crate) fn of_device(
        &self,
        device: u32,
        now_ms: u64,
    ) -> impl Iterator<Item = (TokenHash, &TokenFacts)> {
        let slots = self.by_device.iter_hash(self.hasher.hash_one(device));
        let slots = slots.map(|slot| &self.slots[*slot as usize]);
        let slots = slots.filter(move |slot| slot.device == device && now_ms < slot.facts.end_ms());
        slots.map(|slot| (slot.hash, &slot.facts))
    }

    /// Tokens that cannot even be claimed any more, the oldest first. No write changes them, so
    /// that their removal never meets one.
    pub(crate) fn ended(&self, now_ms: u64) -> impl Iterator<Item = TokenHash> {
        let ended = self.by_end.range(..=(now_ms, u32::MAX));
        ended.map(|(_, slot)| self.slots[*slot as usize].hash)
    }

    /// Does a token speak of this release?
    pub(crate) fn need(&self, release: ReleaseId) -> bool {
        self.by_release.contains_key(&release)
    }

    /// How many have had no first attempt, and how many have.
    pub(crate) fn open_and_started(&self) -> (u64, u64) {
        (self.by_hash.len() as u64 - self.started, self.started)
    }

    /// How many slots there are to look into.
    pub(crate) fn slots_len(&self) -> usize {
        self.slots.len()
    }

    /// The token in a slot, and the row of its device, unless the slot is free.
    pub(crate) fn in_slot(&self, slot: usize) -> Option<(TokenHash, u32, &TokenFacts)> {
        let Slot { hash, device, facts } = &self.slots[slot];
        let is_used = self.slot_of(hash).is_some_and(|used| used as usize == slot);
        is_used.then_some((*hash, *device, facts))
    }

    /// Keeps a token of a device, or what became of it.
    pub(crate) fn keep(&mut self, hash: TokenHash, device: u32, facts: TokenFacts) {
        match self.slot_of(&hash) {
            Some(slot) => {
                let old = std::mem::replace(&mut self.slots[slot as usize].facts, facts);
                self.uncount(slot, &old);
                self.count(slot);
            }
            None => {
                let slot = self.fill(Slot { hash, device, facts });
                let (slots, hasher) = (&self.slots, &self.hasher);
                self.by_hash.insert_unique(hasher.hash_one(hash), slot, |slot| {
                    hasher.hash_one(slots[*slot as usize].hash)
                });
                self.by_device.insert_unique(hasher.hash_one(device), slot, |slot| {
                    hasher.hash_one(slots[*slot as usize].device)
                });
                self.count(slot);
            }
        }
    }

    /// Forgets a token.
    pub(crate) fn remove(&mut self, hash: &TokenHash) {
        let Some(slot) = self.slot_of(hash) else { return };
        let Slot { device, facts, .. } = self.slots[slot as usize];
        for (table, hash) in [
            (&mut self.by_hash, self.hasher.hash_one(hash)),
            (&mut self.by_device, self.hasher.hash_one(device)),
        ] {
            if let Ok(entry) = table.find_entry(hash, |other| *other == slot) {
                entry.remove();
            }
        }
        self.uncount(slot, &facts);
        self.free.push(slot);
    }

    fn slot_of(&self, hash: &TokenHash) -> Option<u32> {
        let slots = &self.slots;
        let equal = |slot: &u32| slots[*slot as usize].hash == *hash;
        self.by_hash.find(self.hasher.hash_one(hash), equal).copied()
    }

    fn fill(&mut self, content: Slot) -> u32 {
        match self.free.pop() {
            Some(slot) => {
                self.slots[slot as usize] = content;
                slot
            }
            None => {
                self.slots.push(content);
                self.slots.len() as u32 - 1
            }
        }
    }

    fn count(&mut self, slot: u32) {
        let facts = &self.slots[slot as usize].facts;
        self.by_end.insert((facts.end_ms(), slot));
        self.started += u64::from(facts.started);
        if let Some(release) = facts.release {
            *self.by_release.entry(release).or_default() += 1;
        }
    }

    fn uncount(&mut self, slot: u32, facts: &TokenFacts) {
        self.by_end.remove(&(facts.end_ms(), slot));
        self.started -= u64::from(facts.started);
        if let Some(release) = facts.release
            && let Some(tokens) = self.by_release.get_mut(&release)
        {
            *tokens -= 1;
            if *tokens == 0 {
                self.by_release.remove(&release);
            }
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    hash: TokenHash,
    device: u32,
    facts: TokenFacts,
}

#[cfg(test)]
mod tests {
    use super::*;

    const RELEASE: ReleaseId = ReleaseId([9; 16]);

    fn facts(deadline_ms: u64) -> TokenFacts {
        TokenFacts {
            release: Some(RELEASE),
            deadline_ms,
            used_ms: 10,
            transfer_ms: 5,
            started: false,
            forced: false,
            replaced: false,
        }
    }

    #[test]
    fn a_token_is_found_until_it_is_removed() {
        let mut tokens = Tokens::default();
        let (one, other) = (TokenHash([1; 32]), TokenHash([2; 32]));
        tokens.keep(one, 7, facts(100));
        tokens.keep(other, 7, TokenFacts { release: None, ..facts(50) });
        assert_eq!(tokens.find(&one), Some((7, &facts(100))));
        assert_eq!(tokens.of_device(7, 54).count(), 2);
        assert_eq!(tokens.of_device(8, 0).count(), 0);
        assert_eq!(tokens.of_device(7, 55).count(), 1, "one has ended");
        assert_eq!(tokens.open_and_started(), (2, 0));
        assert!(tokens.need(RELEASE));
        tokens.keep(one, 7, TokenFacts { started: true, ..facts(100) });
        assert_eq!(tokens.open_and_started(), (1, 1));
        tokens.remove(&one);
        tokens.remove(&one);
        assert_eq!(tokens.find(&one), None);
        assert_eq!(tokens.open_and_started(), (1, 0));
        assert!(!tokens.need(RELEASE));
        tokens.keep(one, 8, facts(100));
        assert_eq!(tokens.slots.len(), 2, "the slot is used again");
    }

    #[test]
    fn the_end_follows_the_deadline() {
        let mut tokens = Tokens::default();
        let (one, other) = (TokenHash([1; 32]), TokenHash([2; 32]));
        tokens.keep(one, 7, facts(100));
        tokens.keep(other, 7, facts(90));
        assert_eq!(tokens.ended(94).next(), None);
        assert_eq!(tokens.ended(95).collect::<Vec<_>>(), [other]);
        tokens.keep(one, 7, facts(20));
        assert_eq!(tokens.ended(95).collect::<Vec<_>>(), [one, other]);
        tokens.remove(&one);
        assert_eq!(tokens.ended(u64::MAX).collect::<Vec<_>>(), [other]);
    }

    #[test]
    fn a_token_lives_until_its_deadline_and_ends_with_the_transfer() {
        let token = facts(100);
        assert!(token.lives(99));
        assert!(!token.lives(100));
        assert_eq!(token.end_ms(), 105);
        assert!(!TokenFacts { replaced: true, ..token }.lives(99));
        assert_eq!(TokenFacts { transfer_ms: u64::MAX, ..token }.end_ms(), u64::MAX);
    }
}
