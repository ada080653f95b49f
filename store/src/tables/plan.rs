//! What one write changes, and which facts its decision stands on.

use std::collections::HashSet;
use std::hash::{BuildHasher, Hash};

use otter_protocol::{DeviceId, Mac, OwnerId, ReleaseId};
use rapidhash::fast::RandomState;

use super::Tables;
use super::change::Change;

/// A fact that a decision reads or changes.
#[derive(Clone, Copy, Hash)]
pub(crate) enum Touch<'a> {
    Owner(&'a OwnerId),
    Key(&'a [u8; 32]),
    /// A device with its tokens.
    Device(DeviceId),
    /// Which device of an owner (by row) has a MAC.
    Mac(u32, Mac),
    Release(ReleaseId),
    /// What is published by an owner (by row).
    Published(u32),
}

/// What one write changes. Kept from write to write for its room.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    pub(crate) changes: Vec<Change>,
    reads: Vec<u64>,
    writes: Vec<u64>,
    hasher: RandomState,
}

/// What the writes of a group change before the group is durable.
///
/// Touches are kept as 64-bit hashes: should two different ones meet, a write waits for the next
/// group without need.
#[derive(Debug, Default)]
pub(crate) struct Touched(HashSet<u64, RandomState>);

impl Plan {
    /// The decision stands on this fact.
    pub(crate) fn reads(&mut self, touch: Touch<'_>) {
        self.reads.push(self.hasher.hash_one(touch));
    }

    /// The write makes this change.
    pub(crate) fn change(&mut self, tables: &Tables, change: Change) {
        let mut writes = |touch: Touch<'_>| self.writes.push(self.hasher.hash_one(touch));
        match &change {
            Change::OwnerAdded { owner, .. } => writes(Touch::Owner(owner)),
            Change::KeyAdded { hash, .. } | Change::KeyRevoked { hash } => {
                writes(Touch::Key(hash));
            }
            Change::DeviceKept(kept) => {
                writes(Touch::Device(kept.facts.udid));
                let known = tables.devices.find(kept.facts.udid);
                let old_mac = known.and_then(|row| tables.devices.facts(row).mac);
                if old_mac != kept.facts.mac {
                    for mac in [old_mac, kept.facts.mac].into_iter().flatten() {
                        writes(Touch::Mac(kept.facts.owner, mac));
                    }
                }
            }
            Change::PushKept { device, .. } => writes(Touch::Device(*device)),
            Change::TokenKept(kept) => writes(Touch::Device(kept.device)),
            Change::TokenRemoved { hash, .. } => {
                if let Some((device, _)) = tables.tokens.find(hash) {
                    writes(Touch::Device(tables.devices.udid(device)));
                }
            }
            Change::ReleasePublished(published) => {
                writes(Touch::Release(published.release.offer.release));
                writes(Touch::Published(published.release.owner));
            }
            Change::ReleaseWithdrawn { release, .. } => {
                writes(Touch::Release(*release));
                if let Some(row) = tables.releases.find(*release) {
                    writes(Touch::Published(tables.releases.row(row).owner));
                }
            }
        }
        self.changes.push(change);
    }

    /// Forgets what was planned and keeps the room.
    pub(crate) fn clear(&mut self) {
        self.changes.clear();
        self.reads.clear();
        self.writes.clear();
    }
}

impl Touched {
    /// Does the plan stand on, or change, what is touched already?
    pub(crate) fn meets(&self, plan: &Plan) -> bool {
        plan.reads.iter().chain(&plan.writes).any(|touch| self.0.contains(touch))
    }

    /// The plan is carried out in this group.
    pub(crate) fn add(&mut self, plan: &Plan) {
        self.0.extend(&plan.writes);
    }

    /// The plan has to wait; what stands on the same facts and comes after it waits too.
    pub(crate) fn bar(&mut self, plan: &Plan) {
        self.0.extend(plan.reads.iter().chain(&plan.writes));
    }

    /// A new group begins.
    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(reads: &[u8], writes: &[u8], hasher: &RandomState) -> Plan {
        let hash = |n: &u8| hasher.hash_one(Touch::Device(DeviceId([*n; 16])));
        Plan {
            reads: reads.iter().map(hash).collect(),
            writes: writes.iter().map(hash).collect(),
            ..Plan::default()
        }
    }

    #[test]
    fn reading_what_is_changed_waits_and_reading_alike_does_not() {
        let hasher = RandomState::default();
        let mut touched = Touched::default();
        touched.add(&plan(&[1], &[2], &hasher));
        assert!(!touched.meets(&plan(&[1], &[3], &hasher)), "both only read 1");
        assert!(touched.meets(&plan(&[2], &[], &hasher)));
        assert!(touched.meets(&plan(&[], &[2], &hasher)));
        touched.clear();
        assert!(!touched.meets(&plan(&[2], &[2], &hasher)));
    }

    #[test]
    fn what_waits_is_not_overtaken() {
        let hasher = RandomState::default();
        let mut touched = Touched::default();
        touched.add(&plan(&[], &[1], &hasher));
        let waits = plan(&[1, 2], &[], &hasher);
        assert!(touched.meets(&waits));
        touched.bar(&waits);
        assert!(touched.meets(&plan(&[], &[2], &hasher)));
    }
}
