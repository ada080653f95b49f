//! Facts out of one store and into another (`otter store copy`).

use std::fmt::{self, Write as _};

use otter_protocol::{DeviceId, OwnerId, ReleaseId};
use ring::digest::{Context, SHA256};

use crate::error::OperatorError;
use crate::job::Outcome;
use crate::operator::{DeviceRow, KeyRow, Operator};
use crate::publishing::ReleaseRow;

mod tabled;

/// One fact, as every kind of store can give and take it.
///
/// ```
/// use otter_store::{Fact, Memory, MemoryOptions};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let (one, other) = (tempfile::tempdir()?, tempfile::tempdir()?);
/// let from = Memory::open(one.path(), MemoryOptions::default())?.operator();
/// let to = Memory::open(other.path(), MemoryOptions::default())?.operator();
/// let owner = from.create_owner(None)?;
/// to.begin_copy()?;
/// from.export(&mut |facts| to.import(facts))?;
/// to.finish_copy()?;
/// assert_eq!(to.owners()?[0].owner, owner);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fact {
    /// An owner.
    Owner {
        /// Its id.
        owner: OwnerId,
        /// Unix seconds of its creation.
        created: u64,
    },
    /// The API keys of an owner.
    Keys {
        /// Whose they are.
        owner: OwnerId,
        /// All of them, in the order of their creation, none twice.
        keys: Vec<KeyRow>,
        /// The same as Redis has them, for another Redis.
        kept: Option<KeptKeys>,
    },
    /// A release, without its image.
    Release {
        /// All that operators see of it.
        row: ReleaseRow,
        /// Its place among those of its owner, from 1: the last one that fits a device is its
        /// newest.
        place: u64,
    },
    /// A device.
    Device(Box<DeviceCopy>),
    /// A token that can at least be claimed.
    Token(Box<TokenCopy>),
}

/// The keys of an owner as Redis has them: with what THiNX wrote, which may be keys in the clear.
#[derive(Clone, PartialEq, Eq)]
pub struct KeptKeys(pub(crate) String);

/// All that is kept of a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceCopy {
    /// What operators see of it. [`DeviceRow::newest`] is `None`: it follows from the releases.
    pub row: DeviceRow,
    /// Digest of the last check-in that was kept.
    pub digest: u64,
    /// The `auto_update` that the device was told last.
    pub told_auto_update: bool,
}

/// All that is kept of a token. Times are milliseconds since 1970, and stay what they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokenCopy {
    /// SHA-256 of its 64 digits. Its text is nowhere.
    pub hash: [u8; 32],
    /// The device that it was issued for.
    pub device: DeviceId,
    /// Whose that device is.
    pub owner: OwnerId,
    /// What it is good for; `None` binds at the first redemption.
    pub release: Option<ReleaseId>,
    /// From then on it cannot be redeemed.
    pub deadline_ms: u64,
    /// Milliseconds that it lives from the first attempt.
    pub used_ms: u64,
    /// Milliseconds after its deadline in which a transfer may still claim it.
    pub transfer_ms: u64,
    /// Has a first attempt been made?
    pub started: bool,
    /// Was it asked for with `forced`?
    pub forced: bool,
    /// Has a newer one taken its place? Then it can only be claimed.
    pub replaced: bool,
}

impl TokenCopy {
    /// From then on it cannot be claimed.
    #[must_use]
    pub fn end_ms(&self) -> u64 {
        self.deadline_ms.saturating_add(self.transfer_ms)
    }
}

impl Fact {
    /// Equal for equal facts, whichever kind of store they come from; of different ones only by a
    /// collision of SHA-256. Leaves out [`KeptKeys`].
    #[must_use]
    pub fn fingerprint(&self) -> u128 {
        let mut hasher = Hasher(Context::new(&SHA256));
        // A hasher takes everything.
        let _ = match self {
            Self::Keys { owner, keys, kept: _ } => write!(hasher, "{owner:?} {keys:?}"),
            Self::Owner { .. } | Self::Release { .. } | Self::Device(_) | Self::Token(_) => {
                write!(hasher, "{self:?}")
            }
        };
        let hash = hasher.0.finish();
        let (first, _) = hash.as_ref().as_chunks::<16>();
        first.first().map_or(0, |bytes| u128::from_be_bytes(*bytes))
    }
}

impl Operator {
    /// Takes all facts out, in pages: owners with their keys in the order of their creation,
    /// releases in the order of their publication, devices in the order of their registration,
    /// tokens behind their devices. That is the order in which [`Operator::import`] needs them.
    ///
    /// What is written meanwhile may be in it or not, so nobody should write. Left out are the keys
    /// of TLS session tickets ([`Operator::ticket_keys`]): they are no facts, and the fewer have
    /// them the better.
    ///
    /// # Errors
    /// What `each` returned, or [`OperatorError::Unavailable`] if the store cannot be read.
    pub fn export(
        &self,
        each: &mut dyn FnMut(Vec<Fact>) -> Result<(), OperatorError>,
    ) -> Result<(), OperatorError> {
        self.backing.export(each)
    }

    /// Takes facts in; they are durable when it returns. What is there already is overwritten, so
    /// that a copy that broke off can be made again. A token that has ended is left out.
    ///
    /// # Errors
    /// [`OperatorError::Conflict`] if a device or key is another owner's here;
    /// [`OperatorError::NotFound`] if something comes before what it belongs to;
    /// [`OperatorError::Unavailable`] if it cannot be kept.
    pub fn import(&self, facts: Vec<Fact>) -> Result<(), OperatorError> {
        self.backing.import(facts)
    }

    /// Marks the store as one that is being copied into: until [`Operator::finish_copy`] it opens
    /// only for that (`unfinished` in its options), so that no server works on half of the facts.
    /// True if it was marked before: that copy broke off.
    ///
    /// # Errors
    /// [`OperatorError::Conflict`] if it has facts already and is not marked.
    pub fn begin_copy(&self) -> Result<bool, OperatorError> {
        self.backing.begin_copy()
    }

    /// The counterpart of [`Operator::begin_copy`]: everything is there.
    ///
    /// # Errors
    /// [`OperatorError::Unavailable`] if the mark cannot be removed.
    pub fn finish_copy(&self) -> Result<(), OperatorError> {
        self.backing.finish_copy()
    }
}

/// The part of a store's side for operators that copies; see [`Operator`] for what each means.
pub(crate) trait Copying: Send + Sync {
    fn export(&self, each: &mut dyn FnMut(Vec<Fact>) -> Outcome<()>) -> Outcome<()>;
    fn import(&self, facts: Vec<Fact>) -> Outcome<()>;
    fn begin_copy(&self) -> Outcome<bool>;
    fn finish_copy(&self) -> Outcome<()>;
}

/// Releases in their order, each with its place among those of its owner.
pub(crate) fn placed(rows: Vec<ReleaseRow>) -> Vec<Fact> {
    let mut places = std::collections::HashMap::<OwnerId, u64>::new();
    let rows = rows.into_iter().map(|row| {
        let place = places.entry(row.owner).or_default();
        *place += 1;
        Fact::Release { place: *place, row }
    });
    rows.collect()
}

impl fmt::Debug for KeptKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("KeptKeys").finish_non_exhaustive()
    }
}

/// Hashes what is written to it.
struct Hasher(Context);

impl fmt::Write for Hasher {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.update(text.as_bytes());
        Ok(())
    }
}

/// Facts in one page.
pub(crate) const PAGE_FACTS: usize = 1024;
/// Why a store is not copied into.
pub(crate) const NOT_EMPTY: &str =
    "the store has facts already; copy into an empty one, or empty this one first";
