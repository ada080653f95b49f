//! What operators ask of a store: owners, keys, devices, tokens, releases.

use std::fmt;
use std::sync::mpsc::Sender;
use std::sync::{Arc, PoisonError};

use otter_protocol::id::hex_text;
use otter_protocol::{Alias, ApiKey, DeviceId, Mac, Offer, Offered, OwnerId};
use rusqlite::Connection;

use crate::committer::Message;
use crate::embedded::Reader;
use crate::error::{OperatorError, Subject};
use crate::image::Image;
use crate::job::{Outcome, operation};
use crate::listing;
use crate::memory::operate_now;
#[cfg(feature = "origins")]
use crate::origin::OriginState;
use crate::shared::Shared;
use crate::stats::StoreStats;
use crate::tables::{Change, KeptDevice, Key, Plan, Tables, Touch};
use crate::token::key_hash;

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
/// assert_eq!(operator.keys(Some(&owner))[0].hash, key.hash);
/// operator.revoke_key(&key.hash)?;
/// let again = operator.revoke_key(&key.hash);
/// assert!(matches!(again, Err(OperatorError::NotFound { what: Subject::Key })));
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Operator {
    shared: Arc<Shared>,
    backing: Backing,
}

/// What makes an operator's writes durable, if anything does.
#[derive(Clone)]
enum Backing {
    Memory,
    Embedded { messages: Sender<Message>, reader: Reader },
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
    pub(crate) fn of_memory(shared: Arc<Shared>) -> Self {
        Self { shared, backing: Backing::Memory }
    }

    pub(crate) fn of_embedded(
        shared: Arc<Shared>,
        messages: Sender<Message>,
        reader: Reader,
    ) -> Self {
        Self { shared, backing: Backing::Embedded { messages, reader } }
    }

    /// Makes an owner; mints an id of 64 digits if none is given.
    ///
    /// # Errors
    /// [`OperatorError::Conflict`] if it exists.
    pub fn create_owner(&self, owner: Option<OwnerId>) -> Result<OwnerId, OperatorError> {
        let owner = match owner {
            Some(owner) => owner,
            None => self.mint_owner()?,
        };
        self.write(move |tables, now_ms, plan| {
            plan.reads(Touch::Owner(&owner));
            if tables.owners.find(&owner).is_some() {
                return Err(conflict(
                    Subject::Owner,
                    "it exists already; use it or choose another",
                ));
            }
            plan.change(tables, Change::OwnerAdded { owner, created: now_ms / 1000 });
            Ok(owner)
        })
    }

    /// All owners, in the order of their creation.
    #[must_use]
    pub fn owners(&self) -> Vec<OwnerRow> {
        let mut rows = Vec::new();
        self.shared.each_row(owners_len, |tables, row| {
            let owner = &tables.owners.rows[row];
            rows.push(OwnerRow {
                owner: owner.id,
                keys: owner.keys.len() as u64,
                devices: owner.devices,
                releases: owner.releases,
                created: owner.created,
            });
        });
        rows
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
        let key = self.shared.mint.key().map_err(OperatorError::unavailable)?;
        let (owner, hash, kept): (_, _, Box<str>) = (*owner, key_hash(&key), alias.into());
        self.write(move |tables, now_ms, plan| {
            plan.reads(Touch::Owner(&owner));
            if tables.owners.find(&owner).is_none() {
                return Err(not_found(Subject::Owner));
            }
            let (alias, created) = (kept.clone(), now_ms / 1000);
            plan.change(tables, Change::KeyAdded { owner, hash, alias, created });
            Ok(())
        })?;
        Ok(NewKey { owner, key, hash, alias: alias.to_owned() })
    }

    /// All keys, or those of one owner: by owner, then in the order of their creation.
    #[must_use]
    pub fn keys(&self, owner: Option<&OwnerId>) -> Vec<KeyRow> {
        let mut rows = Vec::new();
        self.shared.each_row(owners_len, |tables, row| {
            let known = &tables.owners.rows[row];
            if owner.is_none_or(|owner| known.id == *owner) {
                rows.extend(known.keys.iter().map(|key| key_row(known.id, key)));
            }
        });
        rows
    }

    /// Takes a key back: no request that presents it is accepted once this returned.
    ///
    /// # Errors
    /// [`OperatorError::NotFound`] if no key has this SHA-256.
    pub fn revoke_key(&self, hash: &[u8; 32]) -> Result<KeyRow, OperatorError> {
        let hash = *hash;
        self.write(move |tables, _, plan| {
            plan.reads(Touch::Key(&hash));
            let (owner, key) = tables.owners.key(&hash).ok_or_else(|| not_found(Subject::Key))?;
            plan.change(tables, Change::KeyRevoked { hash });
            Ok(key_row(tables.owner_id(owner), key))
        })
    }

    /// One page of devices, in the order of their ids.
    ///
    /// # Errors
    /// [`OperatorError::Unavailable`] if the database cannot be read.
    pub fn devices(&self, filter: &DeviceFilter) -> Result<Vec<DeviceRow>, OperatorError> {
        match &self.backing {
            Backing::Memory => Ok(listing::from_memory(&self.shared.tables(), filter)),
            Backing::Embedded { reader, .. } => {
                let listed = read(reader, |database| listing::from_database(database, filter))?;
                Ok(listed.into_iter().map(|row| self.with_newest(row)).collect())
            }
        }
    }

    /// One device.
    ///
    /// # Errors
    /// [`OperatorError::Unavailable`] if the database cannot be read.
    pub fn device(&self, device: DeviceId) -> Result<Option<DeviceRow>, OperatorError> {
        match &self.backing {
            Backing::Memory => Ok(listing::one_from_memory(&self.shared.tables(), device)),
            Backing::Embedded { reader, .. } => {
                let listed = read(reader, |database| listing::one_from_database(database, device))?;
                Ok(listed.map(|row| self.with_newest(row)))
            }
        }
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
        self.write(move |tables, _, plan| {
            plan.reads(Touch::Device(device));
            let row = tables.devices.find(device).ok_or_else(|| not_found(Subject::Device))?;
            let facts = tables.devices.facts(row);
            let mut facts = facts.with_texts(|text| Box::from(*text));
            if let Some(auto_update) = change.auto_update {
                facts.auto_update = auto_update;
                // Somebody looked at the device: what held it back is over.
                facts.offered = None;
            }
            facts.alias = change.alias.unwrap_or(facts.alias);
            let owner = tables.owner_id(facts.owner);
            let kept = KeptDevice { facts, owner, registered: None, details: None };
            plan.change(tables, Change::DeviceKept(Box::new(kept)));
            Ok(())
        })?;
        self.device(device)?.ok_or_else(|| not_found(Subject::Device))
    }

    /// Counts, for metrics.
    #[must_use]
    pub fn stats(&self) -> StoreStats {
        self.shared.stats()
    }

    /// The image of this SHA-256 if it lies here and is whole, for another server that fetches it.
    /// Reads all of it; never asks an origin.
    #[must_use]
    pub fn image(&self, sha256: &[u8; 32]) -> Option<Image> {
        self.shared.depot.images.verified(sha256)
    }

    /// Where images are fetched from and how that went, in the order in which they are tried.
    #[cfg(feature = "origins")]
    #[must_use]
    pub fn origins(&self) -> Vec<OriginState> {
        self.shared.depot.origins()
    }

    /// What all threads of the store share.
    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Decides by the rule and waits until what it changes is durable.
    pub(crate) fn write<R, F>(&self, rule: F) -> Outcome<R>
    where
        R: Send + 'static,
        F: FnMut(&Tables, u64, &mut Plan) -> Outcome<R> + Send + 'static,
    {
        match &self.backing {
            Backing::Memory => operate_now(&self.shared, rule),
            Backing::Embedded { messages, .. } => {
                let (operation, outcome) = operation(rule);
                // If the committer has ended, the operation is dropped and the wait ends at once.
                let _ = messages.send(Message::Operation(operation));
                outcome.recv().unwrap_or_else(|_| Err(OperatorError::unavailable(Closed)))
            }
        }
    }

    fn mint_owner(&self) -> Result<OwnerId, OperatorError> {
        let bytes: [u8; 32] = self.shared.mint.bytes().map_err(OperatorError::unavailable)?;
        let digits: [u8; 64] = hex_text(&bytes);
        let owner = std::str::from_utf8(&digits).ok().and_then(OwnerId::parse);
        Ok(owner.expect("64 hexadecimal digits are an owner id"))
    }

    fn with_newest(&self, row: DeviceRow) -> DeviceRow {
        let tables = self.shared.tables();
        let known = tables.devices.find(row.udid);
        let newest = known.and_then(|known| tables.newest(known).cloned());
        DeviceRow { newest, ..row }
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

fn owners_len(tables: &Tables) -> usize {
    tables.owners.rows.len()
}

fn key_row(owner: OwnerId, key: &Key) -> KeyRow {
    KeyRow { owner, hash: key.hash, alias: key.alias.to_string(), created: key.created }
}

fn read<R>(
    reader: &Reader,
    query: impl FnOnce(&Connection) -> rusqlite::Result<R>,
) -> Result<R, OperatorError> {
    let reader = reader.lock().unwrap_or_else(PoisonError::into_inner);
    let database = reader.as_ref().ok_or_else(|| OperatorError::unavailable(Closed))?;
    query(database).map_err(OperatorError::unavailable)
}

#[derive(Debug, thiserror::Error)]
#[error("it was closed")]
struct Closed;
