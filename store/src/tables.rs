//! All facts in memory, with their rules. Pure: no clock, no randomness, no files.
//!
//! Reads are answered from here alone. A write has two steps: [`Tables::decide`] says what it
//! changes and what it is answered, [`Tables::apply`] makes the change visible. Between them lies
//! whatever makes the change durable; nothing that is not durable is ever visible here.

use std::sync::Arc;

use otter_protocol::{
    Answer, DeviceStanding, Identify, KeyStanding, Offer, OwnerId, Query, Redemption, ReleaseId,
    Standing,
};

use crate::images::ImageName;
use crate::token::TokenHash;

pub(crate) use change::{Change, KeptDevice, KeptToken, PublishedRelease, Removal, TokenEvent};
pub(crate) use decide::Write;
pub(crate) use details::{Detail, Details};
pub(crate) use devices::DeviceFacts;
pub(crate) use owners::{Key, Owners};
pub(crate) use plan::{Plan, Touch, Touched};
pub(crate) use releases::{Release, Releases};
pub(crate) use tokens::TokenFacts;

mod change;
mod decide;
mod details;
mod devices;
mod macs;
mod owners;
mod plan;
mod releases;
mod texts;
mod tokens;

/// All facts.
#[derive(Debug, Default)]
pub(crate) struct Tables {
    pub(crate) owners: Owners,
    pub(crate) devices: devices::Devices,
    pub(crate) releases: Releases,
    pub(crate) tokens: tokens::Tokens,
    /// What only operators read, where no database keeps it.
    pub(crate) details: Option<Details>,
    /// Accept the SHA-256 of a key in place of the key.
    pub(crate) accept_key_hash: bool,
}

impl Tables {
    /// Answers a read, all but the image; `None` if the query is a write.
    pub(crate) fn read(&self, query: &Query, now_ms: impl FnOnce() -> u64) -> Option<Answer<()>> {
        match query {
            Query::Identify(identify) => Some(standing(self.identify(identify))),
            Query::Fetch { release } => {
                let offer = self.releases.offered(*release).map(Arc::clone);
                Some(Answer::Release(
                    offer.map(|offer| otter_protocol::Release { offer, image: () }),
                ))
            }
            Query::Redeem { token } => {
                Some(Answer::Redemption(self.redeem(&TokenHash::of(token), now_ms())))
            }
            Query::Start { .. } | Query::Record(_) | Query::Push { .. } | Query::Claim { .. } => {
                None
            }
        }
    }

    /// Who presents this key, and which device is it?
    pub(crate) fn identify(&self, identify: &Identify) -> Standing {
        let by_id = identify.device.and_then(|device| self.devices.find(device));
        let owner = match &identify.owner {
            Some(owner) => self.owners.find(owner),
            None => by_id.map(|row| self.devices.owner(row)),
        };
        let key = match owner {
            Some(owner) => self.owners.standing(owner, &identify.key, self.accept_key_hash),
            None if identify.owner.is_none() => KeyStanding::Wrong,
            None => KeyStanding::UnknownOwner,
        };
        let row = match by_id {
            Some(row) if Some(self.devices.owner(row)) == owner => Some(row),
            Some(_) => {
                return Standing { key, device: DeviceStanding::Foreign, newest: None };
            }
            None => owner.zip(identify.mac).and_then(|(o, mac)| self.devices.find_mac(o, mac)),
        };
        let Some(row) = row else {
            return Standing { key, device: DeviceStanding::Unknown, newest: None };
        };
        Standing {
            key,
            device: DeviceStanding::Known(self.devices.device(row)),
            newest: self.newest(row).cloned(),
        }
    }

    /// What is behind this token?
    pub(crate) fn redeem(&self, hash: &TokenHash, now_ms: u64) -> Redemption<()> {
        let Some((device, token)) = self.tokens.find(hash) else { return Redemption::Unknown };
        if !token.lives(now_ms) {
            return Redemption::Unknown;
        }
        let offer = match token.release {
            Some(release) => self.releases.offered(release),
            None => self.newest(device),
        };
        offer.map_or(Redemption::Nothing, |offer| Redemption::Ready {
            device: self.devices.udid(device),
            release: otter_protocol::Release { offer: Arc::clone(offer), image: () },
            started: token.started,
            forced: token.forced,
        })
    }

    /// The newest release for the device in a row.
    pub(crate) fn newest(&self, row: u32) -> Option<&Arc<Offer>> {
        let devices = &self.devices;
        self.releases.newest(devices.owner(row), devices.udid(row), devices.platform(row))
    }

    /// The image of what a token gives, whether it may still be redeemed or not.
    pub(crate) fn image_of(&self, hash: &TokenHash) -> Option<(ImageName, u64)> {
        let (device, token) = self.tokens.find(hash)?;
        let offer = match token.release {
            Some(release) => &self.releases.row(self.releases.find(release)?).offer,
            None => self.newest(device)?,
        };
        Some((offer.sha256, offer.size))
    }

    /// Does a release that is not withdrawn, or a token, need this image?
    pub(crate) fn image_needed(&self, image: &ImageName) -> bool {
        let mut releases = self.releases.of_image(image);
        releases
            .any(|release| release.withdrawn.is_none() || self.tokens.need(release.offer.release))
    }

    /// Images of withdrawn releases that these changes, not applied yet, may leave without use.
    pub(crate) fn images_freed(&self, changes: &[Change]) -> Vec<ImageName> {
        let row = |release: ReleaseId| self.releases.find(release).map(|r| self.releases.row(r));
        let freed = changes.iter().filter_map(|change| match change {
            Change::ReleaseWithdrawn { release, .. } => row(*release),
            Change::TokenRemoved { hash, .. } => {
                let release = self.tokens.find(hash)?.1.release?;
                row(release).filter(|release| release.withdrawn.is_some())
            }
            Change::OwnerAdded { .. }
            | Change::KeyAdded { .. }
            | Change::KeyRevoked { .. }
            | Change::DeviceKept(_)
            | Change::PushKept { .. }
            | Change::TokenKept(_)
            | Change::ReleasePublished(_) => None,
        });
        freed.map(|release| release.offer.sha256).collect()
    }

    /// Images of releases that nothing needs any more.
    pub(crate) fn images_unneeded(&self) -> Vec<ImageName> {
        self.releases.images().filter(|image| !self.image_needed(image)).copied().collect()
    }

    /// Makes a change visible. Only what [`Tables::decide`] said of these very tables.
    pub(crate) fn apply(&mut self, change: &Change) {
        match change {
            Change::OwnerAdded { owner, created } => self.owners.add(*owner, *created),
            Change::KeyAdded { owner, hash, alias, created } => {
                if let Some(owner) = self.owners.find(owner) {
                    self.owners.add_key(owner, *hash, alias, *created);
                }
            }
            Change::KeyRevoked { hash } => self.owners.remove_key(hash),
            Change::DeviceKept(kept) => self.keep_device(kept),
            Change::PushKept { device, push } => {
                if let Some(details) = &mut self.details {
                    details.keep_push(*device, push);
                }
            }
            Change::TokenKept(kept) => {
                if let Some(device) = self.devices.find(kept.device) {
                    self.tokens.keep(kept.hash, device, kept.facts);
                }
            }
            Change::TokenRemoved { hash, .. } => self.tokens.remove(hash),
            Change::ReleasePublished(published) => {
                self.add_release(published.release.clone());
            }
            Change::ReleaseWithdrawn { release, unix_s } => {
                if let Some(row) = self.releases.find(*release) {
                    self.releases.withdraw(row, *unix_s);
                }
            }
        }
    }

    /// Keeps a device that no row has yet.
    pub(crate) fn add_device(&mut self, facts: &DeviceFacts<&str>) {
        self.owners.rows[facts.owner as usize].devices += 1;
        self.devices.add(facts);
    }

    /// Keeps a release that no row has yet.
    pub(crate) fn add_release(&mut self, release: Release) {
        self.owners.rows[release.owner as usize].releases += 1;
        self.releases.add(release);
    }

    /// The id of the owner in a row.
    pub(crate) fn owner_id(&self, row: u32) -> OwnerId {
        self.owners.row(row).id
    }

    fn keep_device(&mut self, kept: &KeptDevice) {
        let facts = kept.facts.with_texts(|text| &**text);
        match self.devices.find(facts.udid) {
            Some(row) => self.devices.replace(row, &facts),
            None => self.add_device(&facts),
        }
        if let Some(details) = &mut self.details {
            details.keep(kept);
        }
    }
}

/// The one place that knows how an answer carries a standing.
fn standing<I>(standing: Standing) -> Answer<I> {
    Answer::Standing(standing)
}
