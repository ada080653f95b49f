//! What operators ask of a store: owners, keys, devices, tokens, releases.

use std::fmt;
use std::sync::Arc;

use otter_protocol::{Alias, ApiKey, DeviceId, Mac, Offer, Offered, OwnerId};

use crate::copy::Copying;
use crate::depot::Depot;
use crate::error::{OperatorError, Subject};
use crate::image::Image;
use crate::job::Outcome;
#[cfg(feature = "origins")]
use crate::origin::OriginState;
use crate::publishing::Publication;
use crate::stats::StoreStats;
use crate::tickets::TicketKey;

/// The operator's side of a store. Cheap to clone; every call blocks until what it did is
/// durable, so call it from a thread that may wait.
///
/// ```
/// use otter_store::{Memory, MemoryOptions, OperatorError, Subject};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let directory = tempfile::tempdir()?;
/// let operator = Memory::open(directory.path(), MemoryOptions::default())?.operator();
/// let owner = operator.create_owner(None)?;
/// let key = operator.create_key(&owner, "workshop")?;
/// assert_eq!(operator.keys(Some(&owner))?[0].hash, key.hash);
/// operator.revoke_key(&key.hash)?;
/// let again = operator.revoke_key(&key.hash);
/// assert!(matches!(again, Err(OperatorError::NotFound { what: Subject::Key })));
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Operator {
    pub(crate) backing: Arc<dyn Backing>,
}

/// What a store does for operators; see [`Operator`] for what each means.
pub(crate) trait Backing: Facts + Publication + Copying {}

impl<B: Facts + Publication + Copying> Backing for B {}

/// The part of a [`Backing`] that speaks of owners, keys and devices, and of what servers share.
pub(crate) trait Facts: Send + Sync {
    fn create_owner(&self, owner: Option<OwnerId>) -> Outcome<OwnerId>;
    fn owners(&self) -> Outcome<Vec<OwnerRow>>;
    fn create_key(&self, owner: &OwnerId, alias: &str) -> Outcome<NewKey>;
    fn keys(&self, owner: Option<&OwnerId>) -> Outcome<Vec<KeyRow>>;
    fn revoke_key(&self, hash: &[u8; 32]) -> Outcome<KeyRow>;
    fn devices(&self, filter: &DeviceFilter) -> Outcome<Vec<DeviceRow>>;
    fn device(&self, device: DeviceId) -> Outcome<Option<DeviceRow>>;
    fn set_device(&self, device: DeviceId, change: DeviceChange) -> Outcome<DeviceRow>;
    fn ticket_keys(&self, period: u64) -> Outcome<Vec<TicketKey>>;
    fn stats(&self) -> StoreStats;
    fn trouble(&self) -> Option<String>;
    fn depot(&self) -> &Depot;
}

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

impl Operator {
    pub(crate) fn new(backing: impl Backing + 'static) -> Self {
        Self { backing: Arc::new(backing) }
    }

    /// Makes an owner; mints an id of 64 digits if none is given.
    ///
    /// # Errors
    /// [`OperatorError::Conflict`] if it exists.
    pub fn create_owner(&self, owner: Option<OwnerId>) -> Result<OwnerId, OperatorError> {
        self.backing.create_owner(owner)
    }

    /// All owners, in the order of their creation.
    ///
    /// # Errors
    /// [`OperatorError::Unavailable`] if the store cannot be asked.
    pub fn owners(&self) -> Result<Vec<OwnerRow>, OperatorError> {
        self.backing.owners()
    }

    /// Makes an API key of 32 random bytes; only its SHA-256 is kept.
    ///
    /// # Errors
    /// [`OperatorError::NotFound`] if the owner does not exist; [`OperatorError::Invalid`] for an
    /// alias of more than [`KEY_ALIAS_BYTES_MAX`] bytes.
    pub fn create_key(&self, owner: &OwnerId, alias: &str) -> Result<NewKey, OperatorError> {
        if alias.len() > KEY_ALIAS_BYTES_MAX {
            return Err(too_long("the alias of a key", KEY_ALIAS_BYTES_MAX));
        }
        self.backing.create_key(owner, alias)
    }

    /// All keys, or those of one owner: by owner, then in the order of their creation.
    ///
    /// # Errors
    /// [`OperatorError::Unavailable`] if the store cannot be asked.
    pub fn keys(&self, owner: Option<&OwnerId>) -> Result<Vec<KeyRow>, OperatorError> {
        self.backing.keys(owner)
    }

    /// Takes a key back: no request that presents it is accepted once this returned.
    ///
    /// # Errors
    /// [`OperatorError::NotFound`] if no key has this SHA-256.
    pub fn revoke_key(&self, hash: &[u8; 32]) -> Result<KeyRow, OperatorError> {
        self.backing.revoke_key(hash)
    }

    /// One page of devices, in the order of their ids.
    ///
    /// # Errors
    /// [`OperatorError::Unavailable`] if the database cannot be read.
    pub fn devices(&self, filter: &DeviceFilter) -> Result<Vec<DeviceRow>, OperatorError> {
        self.backing.devices(filter)
    }

    /// One device.
    ///
    /// # Errors
    /// [`OperatorError::Unavailable`] if the database cannot be read.
    pub fn device(&self, device: DeviceId) -> Result<Option<DeviceRow>, OperatorError> {
        self.backing.device(device)
    }

    /// Changes a device.
    ///
    /// # Errors
    /// [`OperatorError::NotFound`] if it is not registered.
    pub fn set_device(
        &self,
        device: DeviceId,
        change: DeviceChange,
    ) -> Result<DeviceRow, OperatorError> {
        self.backing.set_device(device, change)
    }

    /// The keys with which all servers of this store encrypt TLS session tickets during the period
    /// of `now_unix` (seconds), the oldest first: of the two periods before it as far as there are
    /// any, of it, and of the next one. Makes the last two where they are missing; whoever asks
    /// gets the same ones. No [`Operator::export`] contains them, and no file of ours.
    ///
    /// # Errors
    /// [`OperatorError::Unavailable`] if the store cannot be asked; [`OperatorError::Invalid`] if
    /// `now_unix` differs from Redis' own clock by so much that the keys of others are of no use.
    pub fn ticket_keys(&self, now_unix: u64) -> Result<Vec<TicketKey>, OperatorError> {
        self.backing.ticket_keys(TicketKey::period_at(now_unix))
    }

    /// Counts, for metrics.
    #[must_use]
    pub fn stats(&self) -> StoreStats {
        self.backing.stats()
    }
}

impl Operator {
    /// The image of this SHA-256 if it lies here and is whole, for another server that fetches it.
    /// Reads all of it; never asks an origin.
    #[must_use]
    pub fn image(&self, sha256: &[u8; 32]) -> Option<Image> {
        self.backing.depot().images.verified(sha256)
    }

    /// Where images are fetched from and how that went, in the order in which they are tried.
    #[cfg(feature = "origins")]
    #[must_use]
    pub fn origins(&self) -> Vec<OriginState> {
        self.backing.depot().origins()
    }

    /// Why the store cannot answer now, for a health check; `None` while it can.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        self.backing.trouble()
    }
}

impl Default for DeviceFilter {
    fn default() -> Self {
        Self { owner: None, after: None, limit: 100 }
    }
}

impl fmt::Debug for Operator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Operator").finish_non_exhaustive()
    }
}

/// Most bytes of the alias of an API key.
pub const KEY_ALIAS_BYTES_MAX: usize = 256;

/// There is no such thing.
pub(crate) fn not_found(what: Subject) -> OperatorError {
    OperatorError::NotFound { what }
}

/// It is there, and in the way.
pub(crate) fn conflict(what: Subject, reason: &'static str) -> OperatorError {
    OperatorError::Conflict { what, reason }
}

/// A text has too many bytes.
pub(crate) fn too_long(what: &str, bytes_max: usize) -> OperatorError {
    OperatorError::Invalid { reason: format!("{what} has at most {bytes_max} bytes; shorten it") }
}
