//! Which device of an owner has a MAC.

use std::collections::BTreeSet;
use std::hash::BuildHasher;

use hashbrown::HashTable;
use otter_protocol::Mac;
use rapidhash::fast::RandomState;

/// Rows of devices by owner and MAC.
///
/// Several devices of one owner may report the same MAC (cloned configurations do); the one that
/// was registered first is found by it. All but that one stand in a sorted set, so that however
/// many they are, each operation stays logarithmic.
#[derive(Debug, Default)]
pub(crate) struct Macs {
    first: HashTable<Held>,
    others: BTreeSet<(u32, u64, u32)>,
    hasher: RandomState,
}

impl Macs {
    /// Makes room.
    pub(crate) fn reserve(&mut self, rows: usize, held: impl Fn(u32) -> (u32, Mac)) {
        let hasher = &self.hasher;
        self.first.reserve(rows, |row| hash(hasher, held(row.0)));
    }

    /// The row of the device that is found by this MAC; `held` says what a row holds.
    pub(crate) fn find(&self, key: (u32, Mac), held: impl Fn(u32) -> (u32, Mac)) -> Option<u32> {
        let hash = hash(&self.hasher, key);
        self.first.find(hash, |row| held(row.0) == key).map(|row| row.0)
    }

    /// A row holds this MAC from now on; `held` must know it already.
    pub(crate) fn add(&mut self, key: (u32, Mac), row: u32, held: impl Fn(u32) -> (u32, Mac)) {
        let hasher = &self.hasher;
        let hash_of = |row: &Held| hash(hasher, held(row.0));
        match self.first.find_mut(hash(hasher, key), |first| held(first.0) == key) {
            Some(first) => {
                let later = first.0.max(row);
                first.0 = first.0.min(row);
                self.others.insert((key.0, key.1.to_bits(), later));
            }
            None => {
                self.first.insert_unique(hash(hasher, key), Held(row), hash_of);
            }
        }
    }

    /// A row does not hold this MAC any more; `held` must not have forgotten it yet.
    pub(crate) fn remove(&mut self, key: (u32, Mac), row: u32, held: impl Fn(u32) -> (u32, Mac)) {
        let bits = key.1.to_bits();
        if self.others.remove(&(key.0, bits, row)) {
            return;
        }
        let hash = hash(&self.hasher, key);
        let Ok(mut entry) = self.first.find_entry(hash, |first| held(first.0) == key) else {
            return;
        };
        let heir = self.others.range((key.0, bits, 0)..=(key.0, bits, u32::MAX)).next().copied();
        match heir {
            Some(heir) => {
                self.others.remove(&heir);
                entry.get_mut().0 = heir.2;
            }
            None => {
                entry.remove();
            }
        }
    }
}

/// A row that is found by its MAC.
#[derive(Debug)]
struct Held(u32);

fn hash(hasher: &RandomState, (owner, mac): (u32, Mac)) -> u64 {
    hasher.hash_one((owner, mac.to_bits()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mac(text: &str) -> Mac {
        Mac::parse(text).expect("a MAC")
    }

    #[test]
    fn the_first_registered_of_several_is_found() {
        let shared = mac("5CCF7F000001");
        let held = |row| (u32::from(row >= 10), shared);
        let mut macs = Macs::default();
        for row in [3, 1, 2, 10] {
            macs.add(held(row), row, held);
        }
        assert_eq!(macs.find((0, shared), held), Some(1));
        assert_eq!(macs.find((1, shared), held), Some(10), "owners do not meet");
        for (gone, found) in [(2, Some(1)), (1, Some(3)), (3, None)] {
            macs.remove((0, shared), gone, held);
            assert_eq!(macs.find((0, shared), held), found, "after {gone} left");
        }
        assert_eq!(macs.find((1, shared), held), Some(10));
        assert_eq!(macs.find((0, mac("5CCF7F000002")), held), None);
    }
}
