//! What an operator does to the store, and what he can see in it.

use std::sync::Arc;

use bytes::Bytes;
use otter_protocol::{
    Alias, ApiKey, CheckIn, DeviceId, Grant, Kind, Mac, OwnerId, Record, Release, ReleaseId, Token,
};

use super::{KeptDevice, KeptToken, ModelStore, Published, offer_of};

/// Whom a release is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// One device.
    Device(DeviceId),
    /// All devices of an owner that run the release's platform.
    Owner(OwnerId),
}

/// A release before it is published.
#[derive(Clone, Debug)]
pub struct Draft {
    /// Its version, in any of the shapes of docs/wire.md 5.
    pub version: String,
    /// Its platform, lower case.
    pub platform: String,
    /// Its environment hash.
    pub env_hash: Option<String>,
    /// Its bytes.
    pub image: Bytes,
    /// What the bytes are.
    pub kind: Kind,
}

impl Draft {
    /// A binary for `arduino` of `size` bytes that names its version.
    #[must_use]
    pub fn binary(version: &str, size: usize) -> Self {
        Self {
            version: version.to_owned(),
            platform: "arduino".to_owned(),
            env_hash: None,
            image: crate::image::image(version, size),
            kind: Kind::Image,
        }
    }

    /// A rendered bundle (docs/wire.md 6.2) for `micropython`.
    #[must_use]
    pub fn bundle(version: &str, json: &str) -> Self {
        let image = Bytes::copy_from_slice(json.as_bytes());
        let platform = "micropython".to_owned();
        Self { version: version.to_owned(), platform, env_hash: None, image, kind: Kind::Bundle }
    }
}

impl ModelStore {
    /// Gives an owner one more key; an owner exists from his first key on.
    pub fn add_key(&mut self, owner: OwnerId, key: ApiKey) {
        self.keys.entry(owner).or_default().insert(key.0);
    }

    /// Takes a key away.
    pub fn remove_key(&mut self, owner: OwnerId, key: ApiKey) {
        if let Some(keys) = self.keys.get_mut(&owner) {
            keys.remove(&key.0);
        }
    }

    /// Registers a device as its first check-in would have done.
    pub fn register(&mut self, owner: OwnerId, id: DeviceId, mac: Option<Mac>, alias: &str) {
        let check_in = CheckIn {
            mac,
            alias: Alias::clean(alias),
            version: None,
            platform: None,
            env_hash: None,
            facts: "{}".into(),
            digest: 0,
            told_auto_update: false,
        };
        let check_in = Some(check_in);
        let record = Record { owner, device: Some(id), check_in, offered: None, grant: None };
        self.record(&record);
    }

    /// Allows or forbids offers that the device did not ask for. Either way its guard rails start
    /// over.
    pub fn set_auto_update(&mut self, device: DeviceId, auto_update: bool) {
        if let Some(kept) = self.devices.get_mut(&device) {
            kept.device.auto_update = auto_update;
            kept.device.offered = None;
        }
    }

    /// Publishes a release; from now on it is the newest for its target.
    pub fn publish(&mut self, target: Target, draft: &Draft) -> ReleaseId {
        let id = ReleaseId(self.random.bytes());
        let offer = Arc::new(offer_of(id, draft));
        let release = Release { offer, image: draft.image.clone() };
        self.releases.push(Published { target, withdrawn: false, release });
        id
    }

    /// Withdraws a release: it is neither offered nor given any more.
    pub fn withdraw(&mut self, release: ReleaseId) {
        for published in &mut self.releases {
            published.withdrawn |= published.release.offer.release == release;
        }
    }

    /// Issues a token by hand.
    pub fn issue(&mut self, device: DeviceId, grant: Grant) -> Token {
        self.grant(device, grant)
    }

    /// Revokes a token, also for a transfer under way; was it there?
    pub fn revoke(&mut self, token: Token) -> bool {
        self.tokens.remove(&token.0).is_some()
    }

    /// What is kept of a device.
    #[must_use]
    pub fn device(&self, id: DeviceId) -> Option<&KeptDevice> {
        self.devices.get(&id)
    }

    /// All devices, by id.
    pub fn devices(&self) -> impl Iterator<Item = &KeptDevice> {
        self.devices.values()
    }

    /// What is kept of a token that was neither claimed nor revoked.
    #[must_use]
    pub fn token(&self, token: Token) -> Option<&KeptToken> {
        self.tokens.get(&token.0)
    }

    /// How many tokens are kept, expired ones among them.
    #[must_use]
    pub fn tokens_kept(&self) -> usize {
        self.tokens.len()
    }

    /// The image of a release, withdrawn or not.
    #[must_use]
    pub fn image(&self, release: ReleaseId) -> Option<&Bytes> {
        let found = self.releases.iter().find(|p| p.release.offer.release == release);
        found.map(|p| &p.release.image)
    }

    /// Every image that was ever published, withdrawn ones among them.
    pub fn images(&self) -> impl Iterator<Item = &Bytes> {
        self.releases.iter().map(|p| &p.release.image)
    }
}
