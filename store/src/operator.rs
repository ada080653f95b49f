//! What operators ask of a store: owners, keys, devices, tokens, releases.

use std::io::Read;
use std::sync::Arc;

use otter_protocol::{
    Alias, ApiKey, DeviceId, Grant, Kind, Mac, Offer, Offered, OwnerId, ReleaseId, Token,
};

use crate::error::OperatorError;
use crate::images::Staged;
use crate::stats::StoreStats;

/// Says whether an offer is an update for a device of this version and environment hash. The rule
/// is the core's, so callers bring it.
pub type Judge<'a> = &'a dyn Fn(&Offer, Option<&str>, Option<&str>) -> bool;

/// The operator's side of a store. Cheap to clone; every call blocks until what it did is
/// durable, so call it from a thread that may wait.
#[derive(Clone)]
pub struct Operator {}

/// An owner, as operators see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnerRow {
    /// Its id.
    pub owner: OwnerId,
    /// How many API keys it has.
    pub keys: u64,
    /// How many devices it has.
    pub devices: u64,
    /// How many releases it has, withdrawn ones included.
    pub releases: u64,
    /// Unix seconds of its creation.
    pub created: u64,
}

/// An API key that was just made. The only moment at which its text is known.
#[derive(Clone, Debug)]
pub struct NewKey {
    /// Whose it is.
    pub owner: OwnerId,
    /// The key, for the owner's eyes.
    pub key: ApiKey,
    /// SHA-256 of its 64 digits, by which it is listed and revoked.
    pub hash: [u8; 32],
    /// Its name.
    pub alias: String,
}

/// An API key, as operators see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRow {
    /// Whose it is.
    pub owner: OwnerId,
    /// SHA-256 of its 64 digits.
    pub hash: [u8; 32],
    /// Its name.
    pub alias: String,
    /// Unix seconds of its creation.
    pub created: u64,
}

/// Which devices to list, in the order of their ids.
#[derive(Clone, Debug)]
pub struct DeviceFilter {
    /// Only this owner's. Default all.
    pub owner: Option<OwnerId>,
    /// Only ids after this one: the last of the page before. Default from the first.
    pub after: Option<DeviceId>,
    /// How many at most. Default 100.
    pub limit: usize,
}

/// A device, as operators see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceRow {
    /// Its id.
    pub udid: DeviceId,
    /// Whose it is.
    pub owner: OwnerId,
    /// Its name.
    pub alias: Alias,
    /// Its MAC or SigFox id.
    pub mac: Option<Mac>,
    /// The platform it reported last.
    pub platform: Option<Box<str>>,
    /// The version it reported last.
    pub version: Option<Box<str>>,
    /// The environment hash it reported last.
    pub env_hash: Option<Box<str>>,
    /// May it be offered updates without being asked?
    pub auto_update: bool,
    /// Unix seconds of its registration.
    pub registered: u64,
    /// Unix seconds of the last check-in that was kept.
    pub last_seen: u64,
    /// Every field of the last check-in that was kept, as one JSON object.
    pub facts: Box<str>,
    /// Its push token.
    pub push: Option<String>,
    /// State of the guard rails.
    pub offered: Option<Offered>,
    /// The newest release for it.
    pub newest: Option<Arc<Offer>>,
}

/// What to change of a device; `None` keeps.
#[derive(Clone, Copy, Debug, Default)]
pub struct DeviceChange {
    /// May it be offered updates without being asked?
    pub auto_update: Option<bool>,
    /// Its name.
    pub alias: Option<Alias>,
}

/// A token that was just issued. The only moment at which its text is known.
#[derive(Clone, Debug)]
pub struct IssuedToken {
    /// The token.
    pub token: Token,
    /// What it is good for; `None` binds at the first redemption.
    pub release: Option<ReleaseId>,
    /// Unix seconds at which it runs out if nobody tries it.
    pub expires: u64,
}

/// Whom a release is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// One device, whatever its platform; it need not be registered yet.
    Device(DeviceId),
    /// All devices of the owner whose platform, or the part of it before `:`, is the release's.
    All,
}

/// A release to publish.
#[derive(Clone, Debug)]
pub struct NewRelease {
    /// Whose it is.
    pub owner: OwnerId,
    /// Whom it is for.
    pub target: Target,
    /// Its version: 1 to [`Offer::VERSION_BYTES_MAX`] bytes, no `"`, `\` or control characters.
    pub version: String,
    /// Its platform; kept in lower case.
    pub platform: String,
    /// Its environment hash, if it has one.
    pub env_hash: Option<String>,
    /// What the image is.
    pub kind: Kind,
    /// Where it came from, such as THiNX' `build_id`; only shown.
    pub source: Option<String>,
}

/// What a publication led to.
#[derive(Clone, Debug)]
pub struct Published {
    /// The release as it is offered from now on.
    pub offer: Arc<Offer>,
    /// Registered devices it is for and is an update for.
    pub devices: u64,
    /// Those of them that wait to be asked, because their `auto_update` is off.
    pub waiting: u64,
}

/// A release, as operators see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReleaseRow {
    /// The release.
    pub offer: Arc<Offer>,
    /// Whose it is.
    pub owner: OwnerId,
    /// Whom it is for.
    pub target: Target,
    /// Unix seconds of its publication.
    pub published: u64,
    /// Unix seconds of its withdrawal, if it was withdrawn.
    pub withdrawn: Option<u64>,
    /// [`NewRelease::source`].
    pub source: Option<String>,
}

impl Operator {
    /// Makes an owner; mints an id of 64 digits if none is given.
    ///
    /// # Errors
    /// [`OperatorError::Conflict`] if it exists.
    pub fn create_owner(&self, _owner: Option<OwnerId>) -> Result<OwnerId, OperatorError> {
        todo!()
    }

    /// All owners, in the order of their creation.
    #[must_use]
    pub fn owners(&self) -> Vec<OwnerRow> {
        todo!()
    }

    /// Makes an API key of 32 random bytes; only its SHA-256 is kept.
    ///
    /// # Errors
    /// [`OperatorError::NotFound`] if the owner does not exist.
    pub fn create_key(&self, _owner: &OwnerId, _alias: &str) -> Result<NewKey, OperatorError> {
        todo!()
    }

    /// All keys, or those of one owner, in the order of their creation.
    #[must_use]
    pub fn keys(&self, _owner: Option<&OwnerId>) -> Vec<KeyRow> {
        todo!()
    }

    /// Takes a key back: no request that presents it is accepted once this returned.
    ///
    /// # Errors
    /// [`OperatorError::NotFound`] if no key has this SHA-256.
    pub fn revoke_key(&self, _hash: &[u8; 32]) -> Result<KeyRow, OperatorError> {
        todo!()
    }

    /// One page of devices, in the order of their ids.
    ///
    /// # Errors
    /// [`OperatorError::Unavailable`] if the database cannot be read.
    pub fn devices(&self, _filter: &DeviceFilter) -> Result<Vec<DeviceRow>, OperatorError> {
        todo!()
    }

    /// One device.
    ///
    /// # Errors
    /// [`OperatorError::Unavailable`] if the database cannot be read.
    pub fn device(&self, _device: DeviceId) -> Result<Option<DeviceRow>, OperatorError> {
        todo!()
    }

    /// Changes a device.
    ///
    /// # Errors
    /// [`OperatorError::NotFound`] if it is not registered.
    pub fn set_device(
        &self,
        _device: DeviceId,
        _change: DeviceChange,
    ) -> Result<DeviceRow, OperatorError> {
        todo!()
    }

    /// Issues a token. [`Grant::release`] of `None` stands for the device's newest release; if
    /// there is none, the token binds at its first redemption.
    ///
    /// # Errors
    /// [`OperatorError::NotFound`] if the device is not registered, or the release is not one of
    /// its owner's.
    pub fn issue_token(
        &self,
        _device: DeviceId,
        _grant: &Grant,
    ) -> Result<IssuedToken, OperatorError> {
        todo!()
    }

    /// Takes a token back, a transfer under way included.
    ///
    /// # Errors
    /// [`OperatorError::NotFound`] if it is not there: never issued, expired, used or revoked.
    pub fn revoke_token(&self, _token: &Token) -> Result<(), OperatorError> {
        todo!()
    }

    /// Takes all tokens of a device back and says how many there were.
    ///
    /// # Errors
    /// [`OperatorError::NotFound`] if the device is not registered.
    pub fn revoke_tokens(&self, _device: DeviceId) -> Result<u64, OperatorError> {
        todo!()
    }

    /// Copies an image in, durably, without publishing it. Dropping what this returns removes the
    /// copy again, unless it was published or a release uses the same bytes.
    ///
    /// # Errors
    /// [`OperatorError::Invalid`] if it is empty or longer than `bytes_max`;
    /// [`OperatorError::Unavailable`] if it cannot be read or written.
    pub fn stage(&self, _source: &mut dyn Read, _bytes_max: u64) -> Result<Staged, OperatorError> {
        todo!()
    }

    /// Publishes a staged image, atomically: a device sees the old or the new release.
    ///
    /// # Errors
    /// [`OperatorError::NotFound`] if the owner does not exist; [`OperatorError::Conflict`] if the
    /// target device belongs to another owner; [`OperatorError::Invalid`] for a version, platform
    /// or environment hash that cannot be offered.
    pub fn publish(
        &self,
        _release: NewRelease,
        _image: Staged,
        _is_update: Judge<'_>,
    ) -> Result<Published, OperatorError> {
        todo!()
    }

    /// All releases, or those of one owner, in the order of their publication.
    #[must_use]
    pub fn releases(&self, _owner: Option<&OwnerId>) -> Vec<ReleaseRow> {
        todo!()
    }

    /// Withdraws a release: it is offered no more, and tokens for it give nothing. A transfer
    /// that is under way may finish.
    ///
    /// # Errors
    /// [`OperatorError::NotFound`] if there is no such release; [`OperatorError::Conflict`] if it
    /// is withdrawn already.
    pub fn withdraw(&self, _release: ReleaseId) -> Result<ReleaseRow, OperatorError> {
        todo!()
    }

    /// Counts, for metrics.
    #[must_use]
    pub fn stats(&self) -> StoreStats {
        todo!()
    }
}
