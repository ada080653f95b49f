//! Releases, and which of them is the newest for a device.

use std::hash::BuildHasher;
use std::sync::Arc;

use hashbrown::{Equivalent, HashMap, HashTable};
use otter_protocol::{DeviceId, Offer, ReleaseId};
use rapidhash::fast::RandomState;

use crate::images::ImageName;
use crate::publishing::Target;

/// All releases, in the order of their publication.
#[derive(Debug, Default)]
pub(crate) struct Releases {
    pub(crate) rows: Vec<Release>,
    by_id: HashTable<u32>,
    /// Rows that are not withdrawn, rising, by owner and platform.
    for_all: HashMap<(u32, Box<str>), Vec<u32>, RandomState>,
    /// Rows that are not withdrawn, rising, by owner and device.
    for_one: HashMap<(u32, DeviceId), Vec<u32>, RandomState>,
    /// Rows by image, withdrawn ones included.
    by_image: HashMap<ImageName, Vec<u32>, RandomState>,
    hasher: RandomState,
}

/// A release.
#[derive(Clone, Debug)]
pub(crate) struct Release {
    pub(crate) offer: Arc<Offer>,
    /// Row of its owner.
    pub(crate) owner: u32,
    pub(crate) target: Target,
    /// Unix seconds.
    pub(crate) published: u64,
    /// Unix seconds.
    pub(crate) withdrawn: Option<u64>,
    pub(crate) source: Option<Box<str>>,
}

impl Releases {
    /// The row of a release.
    pub(crate) fn find(&self, id: ReleaseId) -> Option<u32> {
        let hash = self.hasher.hash_one(id);
        self.by_id.find(hash, |row| self.row(*row).offer.release == id).copied()
    }

    /// The release in a row.
    pub(crate) fn row(&self, row: u32) -> &Release {
        &self.rows[row as usize]
    }

    /// A release, unless it is unknown or withdrawn.
    pub(crate) fn offered(&self, id: ReleaseId) -> Option<&Arc<Offer>> {
        let release = self.row(self.find(id)?);
        release.withdrawn.is_none().then_some(&release.offer)
    }

    /// What was published last for a device: for itself, or for all of its owner's whose platform,
    /// or the part of it before `:`, is the release's.
    pub(crate) fn newest(
        &self,
        owner: u32,
        device: DeviceId,
        platform: Option<&str>,
    ) -> Option<&Arc<Offer>> {
        let last = |rows: Option<&Vec<u32>>| rows.and_then(|rows| rows.last().copied());
        let mut newest =
            if self.for_one.is_empty() { None } else { last(self.for_one.get(&(owner, device))) };
        if let Some(platform) = platform.filter(|_| !self.for_all.is_empty()) {
            newest = newest.max(last(self.for_all.get(&ForAll(owner, platform))));
            if let Some((family, _)) = platform.split_once(':') {
                newest = newest.max(last(self.for_all.get(&ForAll(owner, family))));
            }
        }
        newest.map(|row| &self.row(row).offer)
    }

    /// The releases that have this image.
    pub(crate) fn of_image(&self, image: &ImageName) -> impl Iterator<Item = &Release> {
        self.by_image.get(image).into_iter().flatten().map(|row| self.row(*row))
    }

    /// The images of all releases.
    pub(crate) fn images(&self) -> impl Iterator<Item = &ImageName> {
        self.by_image.keys()
    }

    pub(crate) fn add(&mut self, release: Release) {
        let row = self.rows.len() as u32;
        let (id, withdrawn) = (release.offer.release, release.withdrawn.is_some());
        self.rows.push(release);
        let (rows, hasher) = (&self.rows, &self.hasher);
        let id_of = |row: &u32| rows[*row as usize].offer.release;
        self.by_id.insert_unique(hasher.hash_one(id), row, |row| hasher.hash_one(id_of(row)));
        self.by_image.entry(self.row(row).offer.sha256).or_default().push(row);
        if !withdrawn {
            self.aimed_with(row).push(row);
        }
    }

    pub(crate) fn withdraw(&mut self, row: u32, unix_s: u64) {
        self.rows[row as usize].withdrawn = Some(unix_s);
        let rows = self.aimed_with(row);
        rows.retain(|other| *other != row);
        let last = rows.is_empty();
        let Release { offer, owner, target, .. } = &self.rows[row as usize];
        if last {
            match target {
                Target::All => self.for_all.remove(&ForAll(*owner, &offer.platform)),
                Target::Device(device) => self.for_one.remove(&(*owner, *device)),
            };
        }
    }

    /// The rows that have the same owner and the same target as this one.
    fn aimed_with(&mut self, row: u32) -> &mut Vec<u32> {
        let Release { offer, owner, target, .. } = &self.rows[row as usize];
        match target {
            Target::All => self.for_all.entry((*owner, offer.platform.clone())).or_default(),
            Target::Device(device) => self.for_one.entry((*owner, *device)).or_default(),
        }
    }
}

/// A key of [`Releases::for_all`] whose text is borrowed. Hashes like the tuple.
#[derive(Hash)]
struct ForAll<'a>(u32, &'a str);

impl Equivalent<(u32, Box<str>)> for ForAll<'_> {
    fn equivalent(&self, key: &(u32, Box<str>)) -> bool {
        self.0 == key.0 && *self.1 == *key.1
    }
}

#[cfg(test)]
mod tests {
    use otter_protocol::Kind;

    use super::*;

    const DEVICE: DeviceId = DeviceId([1; 16]);

    fn publish(releases: &mut Releases, owner: u32, target: Target, platform: &str) -> u32 {
        let row = releases.rows.len() as u8;
        releases.add(Release {
            offer: Arc::new(Offer {
                release: ReleaseId([row; 16]),
                version: "1.0.0".into(),
                platform: platform.into(),
                env_hash: None,
                sha256: [row / 2; 32],
                md5: [0; 16],
                size: 1,
                kind: Kind::Image,
            }),
            owner,
            target,
            published: 0,
            withdrawn: None,
            source: None,
        });
        u32::from(row)
    }

    fn newest(releases: &Releases, platform: Option<&str>) -> Option<u8> {
        releases.newest(0, DEVICE, platform).map(|offer| offer.release.0[0])
    }

    #[test]
    fn the_last_published_that_fits_is_the_newest() {
        let mut releases = Releases::default();
        assert_eq!(newest(&releases, Some("arduino")), None);
        publish(&mut releases, 0, Target::All, "arduino");
        publish(&mut releases, 1, Target::All, "arduino");
        publish(&mut releases, 0, Target::All, "nodemcu");
        assert_eq!(newest(&releases, Some("arduino")), Some(0));
        assert_eq!(newest(&releases, Some("arduino:esp8266")), Some(0));
        assert_eq!(newest(&releases, Some("arduinos")), None);
        assert_eq!(newest(&releases, None), None);
        publish(&mut releases, 0, Target::All, "arduino:esp8266");
        assert_eq!(newest(&releases, Some("arduino:esp8266")), Some(3));
        assert_eq!(newest(&releases, Some("arduino:esp32")), Some(0));
        publish(&mut releases, 0, Target::All, "arduino");
        assert_eq!(newest(&releases, Some("arduino:esp8266")), Some(4));
        publish(&mut releases, 0, Target::Device(DEVICE), "other");
        assert_eq!(newest(&releases, Some("arduino")), Some(5));
        assert_eq!(newest(&releases, None), Some(5), "aimed at it, whatever its platform");
        publish(&mut releases, 0, Target::Device(DeviceId([2; 16])), "arduino");
        assert_eq!(newest(&releases, Some("arduino")), Some(5));
    }

    #[test]
    fn withdrawing_brings_the_one_before_back() {
        let mut releases = Releases::default();
        let first = publish(&mut releases, 0, Target::All, "arduino");
        let second = publish(&mut releases, 0, Target::All, "arduino");
        releases.withdraw(second, 9);
        assert_eq!(newest(&releases, Some("arduino")), Some(0));
        assert!(releases.offered(ReleaseId([1; 16])).is_none());
        assert!(releases.offered(ReleaseId([0; 16])).is_some());
        let live = |releases: &Releases| {
            releases.of_image(&[0; 32]).filter(|release| release.withdrawn.is_none()).count()
        };
        assert_eq!(live(&releases), 1, "the first has the same image");
        releases.withdraw(first, 9);
        assert_eq!(live(&releases), 0);
        assert_eq!(releases.images().collect::<Vec<_>>(), [&[0; 32]]);
        assert_eq!(newest(&releases, Some("arduino")), None);
        assert_eq!(releases.find(ReleaseId([0; 16])), Some(first));
        assert!(releases.for_all.is_empty());
    }
}
