//! Devices: at most 200 bytes of memory each, indexes included.

use std::hash::BuildHasher;
use std::sync::Arc;

use hashbrown::HashTable;
use otter_protocol::{Alias, Device, DeviceId, Mac, Offered, ReleaseId};
use rapidhash::fast::RandomState;

use super::macs::Macs;
use super::texts::{TextId, Texts};

/// All devices, in the order of their registration.
#[derive(Debug, Default)]
pub(crate) struct Devices {
    rows: Vec<Row>,
    by_id: HashTable<u32>,
    macs: Macs,
    texts: Texts,
    hasher: RandomState,
}

/// What is kept in memory of a device. `T` is its kind of text: borrowed or owned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DeviceFacts<T> {
    pub(crate) udid: DeviceId,
    /// Row of its owner.
    pub(crate) owner: u32,
    pub(crate) mac: Option<Mac>,
    pub(crate) alias: Alias,
    pub(crate) platform: Option<T>,
    pub(crate) version: Option<T>,
    pub(crate) env_hash: Option<T>,
    pub(crate) auto_update: bool,
    pub(crate) told_auto_update: bool,
    pub(crate) digest: u64,
    /// Unix seconds.
    pub(crate) seen: u64,
    pub(crate) offered: Option<Offered>,
}

impl Devices {
    /// How many there are.
    pub(crate) fn len(&self) -> u32 {
        self.rows.len() as u32
    }

    /// Makes room.
    pub(crate) fn reserve(&mut self, rows: usize) {
        self.rows.reserve_exact(rows);
        let (rows_, hasher) = (&self.rows, &self.hasher);
        self.by_id.reserve(rows, |row| hasher.hash_one(rows_[*row as usize].udid));
        self.macs.reserve(rows, |row| held(rows_, row));
    }

    /// The row of a device.
    pub(crate) fn find(&self, udid: DeviceId) -> Option<u32> {
        let hash = self.hasher.hash_one(udid);
        self.by_id.find(hash, |row| self.rows[*row as usize].udid == udid).copied()
    }

    /// The row of the device that is found by this MAC within an owner.
    pub(crate) fn find_mac(&self, owner: u32, mac: Mac) -> Option<u32> {
        self.macs.find((owner, mac), |row| held(&self.rows, row))
    }

    /// The id of the device in a row.
    pub(crate) fn udid(&self, row: u32) -> DeviceId {
        self.rows[row as usize].udid
    }

    /// The row of the owner of the device in a row.
    pub(crate) fn owner(&self, row: u32) -> u32 {
        self.rows[row as usize].owner
    }

    /// The platform of the device in a row.
    pub(crate) fn platform(&self, row: u32) -> Option<&str> {
        self.rows[row as usize].platform.map(|id| &**self.texts.text(id))
    }

    /// What the core is told of the device in a row.
    pub(crate) fn device(&self, row: u32) -> Device {
        let row = &self.rows[row as usize];
        let text = |id: Option<TextId>| id.map(|id| Arc::clone(self.texts.text(id)));
        Device {
            id: row.udid,
            alias: row.alias,
            mac: row.mac(),
            auto_update: row.is(AUTO_UPDATE),
            version: text(row.version),
            env_hash: text(row.env_hash),
            digest: row.digest,
            told_auto_update: row.is(TOLD_AUTO_UPDATE),
            seen: row.seen,
            offered: row.offered(),
        }
    }

    /// Everything that is known here of the device in a row.
    pub(crate) fn facts(&self, row: u32) -> DeviceFacts<&str> {
        let row = &self.rows[row as usize];
        let text = |id: Option<TextId>| id.map(|id| &**self.texts.text(id));
        DeviceFacts {
            udid: row.udid,
            owner: row.owner,
            mac: row.mac(),
            alias: row.alias,
            platform: text(row.platform),
            version: text(row.version),
            env_hash: text(row.env_hash),
            auto_update: row.is(AUTO_UPDATE),
            told_auto_update: row.is(TOLD_AUTO_UPDATE),
            digest: row.digest,
            seen: row.seen,
            offered: row.offered(),
        }
    }

    /// Version, environment hash and `auto_update` of the device in a row.
    pub(crate) fn reported(&self, row: u32) -> (Option<&Arc<str>>, Option<&Arc<str>>, bool) {
        let row = &self.rows[row as usize];
        let text = |id: Option<TextId>| id.map(|id| self.texts.text(id));
        (text(row.version), text(row.env_hash), row.is(AUTO_UPDATE))
    }

    /// Keeps a device that is not known yet.
    pub(crate) fn add(&mut self, facts: &DeviceFacts<&str>) {
        let row = self.len();
        let new = self.row_of(facts);
        self.rows.push(new);
        let (rows, hasher) = (&self.rows, &self.hasher);
        let hash = hasher.hash_one(facts.udid);
        self.by_id.insert_unique(hash, row, |row| hasher.hash_one(rows[*row as usize].udid));
        if let Some(mac) = facts.mac {
            self.macs.add((facts.owner, mac), row, |row| held(rows, row));
        }
    }

    /// Overwrites what is known of the device in a row. Its id and owner never change.
    pub(crate) fn replace(&mut self, row: u32, facts: &DeviceFacts<&str>) {
        let new = self.row_of(facts);
        let old_mac = self.rows[row as usize].mac();
        if old_mac != facts.mac
            && let Some(mac) = old_mac
        {
            self.macs.remove((facts.owner, mac), row, |row| held(&self.rows, row));
        }
        let old = std::mem::replace(&mut self.rows[row as usize], new);
        for text in [old.platform, old.version, old.env_hash].into_iter().flatten() {
            self.texts.remove(text);
        }
        if old_mac != facts.mac
            && let Some(mac) = facts.mac
        {
            self.macs.add((facts.owner, mac), row, |row| held(&self.rows, row));
        }
    }

    fn row_of(&mut self, facts: &DeviceFacts<&str>) -> Row {
        let mut text = |text: Option<&str>| text.map(|text| self.texts.add(text));
        let mut row = Row {
            udid: facts.udid,
            mac: facts.mac.map_or(NO_MAC, Mac::to_bits),
            digest: facts.digest,
            seen: facts.seen,
            quiet_until: 0,
            owner: facts.owner,
            platform: text(facts.platform),
            version: text(facts.version),
            env_hash: text(facts.env_hash),
            alias: facts.alias,
            release: [0; 16],
            times: 0,
            failures: 0,
            flags: 0,
        };
        row.set(AUTO_UPDATE, facts.auto_update);
        row.set(TOLD_AUTO_UPDATE, facts.told_auto_update);
        row.set(OFFERED, facts.offered.is_some());
        if let Some(offered) = facts.offered {
            row.release = offered.release.0;
            row.times = offered.times;
            row.failures = offered.failures;
            row.quiet_until = offered.quiet_until;
        }
        row
    }
}

impl<T> DeviceFacts<T> {
    /// The same with another kind of text.
    pub(crate) fn with_texts<'a, U>(&'a self, text: impl Fn(&'a T) -> U) -> DeviceFacts<U> {
        DeviceFacts {
            udid: self.udid,
            owner: self.owner,
            mac: self.mac,
            alias: self.alias,
            platform: self.platform.as_ref().map(&text),
            version: self.version.as_ref().map(&text),
            env_hash: self.env_hash.as_ref().map(&text),
            auto_update: self.auto_update,
            told_auto_update: self.told_auto_update,
            digest: self.digest,
            seen: self.seen,
            offered: self.offered,
        }
    }
}

/// One device, 152 bytes. The fields stand in the order that leaves no gaps.
#[derive(Debug)]
struct Row {
    udid: DeviceId,
    mac: u64,
    digest: u64,
    seen: u64,
    quiet_until: u64,
    owner: u32,
    platform: Option<TextId>,
    version: Option<TextId>,
    env_hash: Option<TextId>,
    /// Inline, because one more allocation would cost as much and make every answer slower.
    alias: Alias,
    release: [u8; 16],
    times: u8,
    failures: u8,
    flags: u8,
}

const _: () = assert!(size_of::<Row>() == 152);

impl Row {
    fn mac(&self) -> Option<Mac> {
        Mac::from_bits(self.mac)
    }

    fn is(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    fn set(&mut self, flag: u8, value: bool) {
        self.flags |= if value { flag } else { 0 };
    }

    fn offered(&self) -> Option<Offered> {
        self.is(OFFERED).then_some(Offered {
            release: ReleaseId(self.release),
            times: self.times,
            failures: self.failures,
            quiet_until: self.quiet_until,
        })
    }
}

/// What a row holds that is indexed by MAC.
fn held(rows: &[Row], row: u32) -> (u32, Mac) {
    let row = &rows[row as usize];
    (row.owner, row.mac().expect("only rows with a MAC are indexed by it"))
}

/// No MAC has these bits: [`Mac::from_bits`] takes them for none.
const NO_MAC: u64 = u64::MAX;
const AUTO_UPDATE: u8 = 1;
const TOLD_AUTO_UPDATE: u8 = 2;
const OFFERED: u8 = 4;

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(number: u8) -> DeviceFacts<&'static str> {
        let udid = DeviceId([number; 16]);
        DeviceFacts {
            udid,
            owner: 0,
            mac: Mac::from_bits(u64::from(number)),
            alias: Alias::invented(udid),
            platform: Some("arduino:esp8266"),
            version: Some("1.0.0"),
            env_hash: None,
            auto_update: false,
            told_auto_update: true,
            digest: 7,
            seen: 8,
            offered: None,
        }
    }

    #[test]
    fn what_is_kept_is_found_again() {
        let mut devices = Devices::default();
        devices.reserve(2);
        let one = facts(1);
        let other = DeviceFacts {
            mac: None,
            version: None,
            env_hash: Some("beef"),
            auto_update: true,
            offered: Some(Offered {
                release: ReleaseId([9; 16]),
                times: 3,
                failures: 2,
                quiet_until: u64::MAX,
            }),
            ..facts(2)
        };
        devices.add(&one);
        devices.add(&other);
        assert_eq!(devices.len(), 2);
        assert_eq!(devices.find(one.udid), Some(0));
        assert_eq!(devices.facts(0), one);
        assert_eq!(devices.facts(1), other);
        assert_eq!(devices.facts(1).with_texts(|text| *text), other);
        assert_eq!(devices.find(DeviceId([3; 16])), None);
    }

    #[test]
    fn a_device_leads_by_its_present_mac_only() {
        let mut devices = Devices::default();
        devices.add(&facts(1));
        let mac = |bits| Mac::from_bits(bits).expect("a MAC");
        assert_eq!(devices.find_mac(0, mac(1)), Some(0));
        assert_eq!(devices.find_mac(1, mac(1)), None);
        devices.replace(0, &DeviceFacts { mac: Some(mac(5)), ..facts(1) });
        assert_eq!(devices.find_mac(0, mac(1)), None);
        assert_eq!(devices.find_mac(0, mac(5)), Some(0));
        devices.replace(0, &DeviceFacts { mac: None, ..facts(1) });
        assert_eq!(devices.find_mac(0, mac(5)), None);
        assert_eq!(devices.facts(0).mac, None);
    }

    #[test]
    fn texts_follow_the_rows_that_use_them() {
        let mut devices = Devices::default();
        let version = |devices: &Devices, row| devices.facts(row).version.map(str::as_ptr);
        devices.add(&facts(1));
        devices.add(&facts(2));
        assert_eq!(version(&devices, 0), version(&devices, 1), "one text for both");
        devices.replace(0, &DeviceFacts { version: Some("2.0.0"), ..facts(1) });
        assert_eq!(devices.facts(0).version, Some("2.0.0"));
        assert_eq!(devices.facts(1).version, Some("1.0.0"));
        devices.replace(0, &facts(1));
        assert_eq!(version(&devices, 0), version(&devices, 1));
    }
}
