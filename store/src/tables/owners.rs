//! Owners and their API keys.

use std::collections::HashMap;
use std::hash::BuildHasher;
use std::sync::OnceLock;

use hashbrown::HashTable;
use otter_protocol::{ApiKey, KeyStanding, OwnerId};
use rapidhash::fast::RandomState;

use crate::token::{equal, key_hash};

/// All owners, in the order of their creation.
#[derive(Debug, Default)]
pub(crate) struct Owners {
    pub(crate) rows: Vec<Owner>,
    by_id: HashTable<u32>,
    by_key: HashMap<[u8; 32], u32, RandomState>,
    hasher: RandomState,
}

/// An owner.
#[derive(Debug)]
pub(crate) struct Owner {
    pub(crate) id: OwnerId,
    pub(crate) created: u64,
    pub(crate) keys: Vec<Key>,
    pub(crate) devices: u64,
    pub(crate) releases: u64,
}

/// An API key.
#[derive(Debug)]
pub(crate) struct Key {
    /// SHA-256 of its 64 digits: all that is kept of it.
    pub(crate) hash: [u8; 32],
    pub(crate) alias: Box<str>,
    pub(crate) created: u64,
    /// The key itself, once it was presented and found right. It saves the SHA-256 of every
    /// later request (139 ns, more than everything else that is done to answer it). It gives
    /// nothing away: a key that was just used stands in the same process in the clear anyway (in
    /// the buffer of the request), and this is never written to disk, to a backup or to a log.
    seen: OnceLock<[u8; 32]>,
}

impl Owners {
    /// The row of an owner.
    pub(crate) fn find(&self, id: &OwnerId) -> Option<u32> {
        let hash = self.hasher.hash_one(id);
        self.by_id.find(hash, |row| self.row(*row).id == *id).copied()
    }

    /// The owner in a row.
    pub(crate) fn row(&self, row: u32) -> &Owner {
        &self.rows[row as usize]
    }

    /// The owner of the key with this hash, and the key.
    pub(crate) fn key(&self, hash: &[u8; 32]) -> Option<(u32, &Key)> {
        let row = *self.by_key.get(hash)?;
        Some((row, self.row(row).keys.iter().find(|key| key.hash == *hash)?))
    }

    /// How many keys there are in all.
    pub(crate) fn keys_len(&self) -> usize {
        self.by_key.len()
    }

    /// Is the key one of the owner's? With `accept_hash` its SHA-256 will do (docs/wire.md 4).
    ///
    /// Every key of the owner is compared, each in constant time, so the time says neither which
    /// one matched nor how near a wrong one came.
    pub(crate) fn standing(&self, row: u32, key: &ApiKey, accept_hash: bool) -> KeyStanding {
        let keys = &self.row(row).keys;
        if keys.is_empty() {
            return KeyStanding::UnknownOwner;
        }
        let mut valid = false;
        let mut unseen = false;
        for known in keys {
            match known.seen.get() {
                Some(seen) => valid |= equal(seen, &key.0),
                None => unseen = true,
            }
            valid |= accept_hash && equal(&known.hash, &key.0);
        }
        if !valid && unseen {
            valid = first_seen(keys, key);
        }
        if valid { KeyStanding::Valid } else { KeyStanding::Wrong }
    }

    pub(crate) fn add(&mut self, id: OwnerId, created: u64) {
        let row = self.rows.len() as u32;
        self.rows.push(Owner { id, created, keys: Vec::new(), devices: 0, releases: 0 });
        let (rows, hasher) = (&self.rows, &self.hasher);
        let hash = hasher.hash_one(id);
        self.by_id.insert_unique(hash, row, |row| hasher.hash_one(rows[*row as usize].id));
    }

    pub(crate) fn add_key(&mut self, owner: u32, hash: [u8; 32], alias: &str, created: u64) {
        let key = Key { hash, alias: alias.into(), created, seen: OnceLock::new() };
        self.rows[owner as usize].keys.push(key);
        self.by_key.insert(hash, owner);
    }

    pub(crate) fn remove_key(&mut self, hash: &[u8; 32]) {
        if let Some(owner) = self.by_key.remove(hash) {
            self.rows[owner as usize].keys.retain(|key| key.hash != *hash);
        }
    }
}

/// Compares by SHA-256, and remembers the key that matched for the next time.
fn first_seen(keys: &[Key], presented: &ApiKey) -> bool {
    let hash = key_hash(presented);
    let mut valid = false;
    for known in keys {
        if equal(&known.hash, &hash) {
            valid = true;
            // A failure says that another thread was first with the same bytes.
            let _ = known.seen.set(presented.0);
        }
    }
    valid
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(letter: &str) -> OwnerId {
        OwnerId::parse(&letter.repeat(64)).expect("an owner id")
    }

    #[test]
    fn a_key_is_valid_for_its_owner_only() {
        let (mine, wrong) = (ApiKey([1; 32]), ApiKey([2; 32]));
        let mut owners = Owners::default();
        owners.add(owner("a"), 1);
        owners.add(owner("b"), 2);
        assert_eq!(owners.standing(0, &mine, false), KeyStanding::UnknownOwner);
        owners.add_key(0, key_hash(&mine), "mine", 3);
        owners.add_key(1, key_hash(&wrong), "theirs", 3);
        for _ in 0..2 {
            assert_eq!(owners.standing(0, &mine, false), KeyStanding::Valid);
            assert_eq!(owners.standing(0, &wrong, false), KeyStanding::Wrong);
            assert_eq!(owners.standing(1, &mine, false), KeyStanding::Wrong);
        }
        assert_eq!(owners.find(&owner("b")), Some(1));
        assert_eq!(owners.find(&owner("c")), None);
    }

    #[test]
    fn a_revoked_key_is_wrong_at_once_even_after_it_was_seen() {
        let (one, other) = (ApiKey([1; 32]), ApiKey([2; 32]));
        let mut owners = Owners::default();
        owners.add(owner("a"), 1);
        owners.add_key(0, key_hash(&one), "one", 3);
        owners.add_key(0, key_hash(&other), "other", 3);
        assert_eq!(owners.standing(0, &one, false), KeyStanding::Valid);
        owners.remove_key(&key_hash(&one));
        assert_eq!(owners.standing(0, &one, false), KeyStanding::Wrong);
        assert_eq!(owners.standing(0, &other, false), KeyStanding::Valid);
        assert_eq!(owners.keys_len(), 1);
    }

    #[test]
    fn the_hash_of_a_key_is_accepted_only_where_that_is_wished() {
        let key = ApiKey([1; 32]);
        let hash = ApiKey(key_hash(&key));
        let mut owners = Owners::default();
        owners.add(owner("a"), 1);
        owners.add_key(0, key_hash(&key), "key", 3);
        assert_eq!(owners.standing(0, &hash, false), KeyStanding::Wrong);
        assert_eq!(owners.standing(0, &hash, true), KeyStanding::Valid);
        assert_eq!(owners.standing(0, &key, true), KeyStanding::Valid);
    }
}
