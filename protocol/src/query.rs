//! The whole contract with a store: facts go out, facts come back, no logic on either side.
//!
//! A [`Query`] asks for facts or keeps facts; the [`Answer`] to it brings them. Every decision
//! (authorised? newer? due?) is made in the core, so a store never judges; it only promises that
//! each write is atomic, and durable before it is answered.

use std::sync::Arc;
use std::time::Duration;

use crate::id::{Alias, ApiKey, DeviceId, Mac, OwnerId, ReleaseId, Token};

/// Names one query of one connection; the answer must carry it. Never reused while it matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct QueryId(pub u32);

/// What a connection wants to know, or wants kept.
#[derive(Clone, Debug)]
pub enum Query {
    /// Read: who presents this key, and which device is it? Answered by [`Answer::Standing`].
    Identify(Identify),
    /// Read: the image of a release. Answered by [`Answer::Release`].
    Fetch {
        /// The release, as an [`Offer`] named it.
        release: ReleaseId,
    },
    /// Read: what is behind this token? Starts nothing (docs/token.md: HEAD is no attempt).
    /// Answered by [`Answer::Redemption`].
    Redeem {
        /// The token that was presented.
        token: Token,
    },
    /// Write: the first attempt on this token begins now. Shortens its deadline to
    /// `min(issued + unused, now + used)` once, never lengthens it; binds a token that was issued
    /// before anything was published to the device's newest release, once. Answered by
    /// [`Answer::Redemption`] with what holds after the write.
    Start {
        /// The token that was presented.
        token: Token,
    },
    /// Write: keep what a check-in said and what was decided on it, in one step. Answered by
    /// [`Answer::Recorded`].
    Record(Box<Record>),
    /// Write: keep the push token of a device (docs/wire.md 1.5). Answered by [`Answer::Kept`].
    Push {
        /// The device, found by an [`Identify`] with a valid key.
        device: DeviceId,
        /// The push token, validated.
        push: Box<str>,
    },
    /// Write: remove the token and learn whether it was there. At most one `Claim` of a token
    /// is ever answered with `Claimed(true)`: it lets the tail of the image out (docs/token.md).
    /// Allowed until [`Grant::transfer`] after the token's deadline, for transfers under way.
    /// Answered by [`Answer::Claimed`].
    Claim {
        /// The token that was presented.
        token: Token,
    },
}

/// The read behind every authenticated request.
#[derive(Clone, Copy, Debug)]
pub struct Identify {
    /// The owner that the request names; `None` asks for the device's own (addpush).
    pub owner: Option<OwnerId>,
    /// The key that the request presents.
    pub key: ApiKey,
    /// The device that the request names.
    pub device: Option<DeviceId>,
    /// Where `device` is absent or unknown: find it by MAC, within the same owner.
    pub mac: Option<Mac>,
}

/// What a check-in said and what the core decided. Kept atomically, all or nothing.
#[derive(Clone, Debug)]
pub struct Record {
    /// The owner whose key was valid.
    pub owner: OwnerId,
    /// The device; `None` registers a new one and mints a random id, unless by then the MAC
    /// belongs to a device of this owner, which is adopted. An id that is not known yet is
    /// registered as it is; one that by then belongs to another owner makes the answer `None`.
    pub device: Option<DeviceId>,
    /// What the device said of itself; `None` keeps what is stored.
    pub check_in: Option<CheckIn>,
    /// New state of the guard rails; `None` keeps what is stored.
    pub offered: Option<Offered>,
    /// Mint a token in the same step.
    pub grant: Option<Grant>,
}

/// What a device said of itself in one check-in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckIn {
    /// Normalised; `None` clears what is stored (docs/wire.md 1.1).
    pub mac: Option<Mac>,
    /// A name; used only where the server has none. `None` lets the store keep or invent one
    /// ([`Alias::invented`]).
    pub alias: Option<Alias>,
    /// As sent; `None` keeps what is stored.
    pub version: Option<Box<str>>,
    /// As sent, lower case; `None` keeps what is stored.
    pub platform: Option<Box<str>>,
    /// As sent; `None` clears what is stored.
    pub env_hash: Option<Box<str>>,
    /// Every stored field as one canonical JSON object, for operators to read.
    pub facts: Box<str>,
    /// A 64-bit digest of all that was sent, but for the radio's moods (`rssi`, `snr`), which are
    /// kept with the next check-in that is: equal digests need no write.
    pub digest: u64,
    /// The reply that goes out with this record tells the device `auto_update` of this value.
    pub told_auto_update: bool,
}

/// The guard rails of one device: which release it was offered, how often, and until when it is
/// left alone (docs/wire.md 2.4 and 5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offered {
    /// The release that was offered last.
    pub release: ReleaseId,
    /// How many check-ins in a row were answered with this offer.
    pub times: u8,
    /// How often the device reported that installing it failed.
    pub failures: u8,
    /// Unix seconds before which it is not offered again; 0 for at once.
    pub quiet_until: u64,
}

/// The right to fetch one image once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grant {
    /// What was offered; `None` binds at the first redemption.
    pub release: Option<ReleaseId>,
    /// The device asked for it with `forced`: do not answer 304.
    pub forced: bool,
    /// How long an untouched token lives.
    pub unused: Duration,
    /// How long it lives from the first attempt.
    pub used: Duration,
    /// How long after its deadline a transfer that is under way may still claim it.
    pub transfer: Duration,
}

/// What a store answers. `I` is an image: cheap to clone, shows its bytes.
#[derive(Clone, Debug)]
pub enum Answer<I> {
    /// To [`Query::Identify`].
    Standing(Standing),
    /// To [`Query::Fetch`]: `None` if the release is withdrawn or its image cannot be read.
    Release(Option<Release<I>>),
    /// To [`Query::Redeem`] and [`Query::Start`].
    Redemption(Redemption<I>),
    /// To [`Query::Record`]: `None` if the id turned out to belong to another owner.
    Recorded(Option<Recorded>),
    /// To [`Query::Push`].
    Kept,
    /// To [`Query::Claim`]: may the tail leave?
    Claimed(bool),
    /// To anything: the store cannot answer now. Nothing was kept, as far as it knows.
    Unavailable,
}

/// Who presented the key, and what is known of the device.
#[derive(Clone, Debug)]
pub struct Standing {
    /// Is the key one of the owner's?
    pub key: KeyStanding,
    /// What the ids in the request lead to.
    pub device: DeviceStanding,
    /// The newest release for the device, if it is known and anything is published for it.
    pub newest: Option<Arc<Offer>>,
}

/// Is the key one of the owner's?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyStanding {
    /// Yes, exactly.
    Valid,
    /// The owner has keys, and this is none of them.
    Wrong,
    /// The owner has no keys.
    UnknownOwner,
}

/// What the ids in a request lead to.
#[derive(Clone, Debug)]
pub enum DeviceStanding {
    /// Neither the id nor the MAC is known.
    Unknown,
    /// The id belongs to another owner.
    Foreign,
    /// A device of this owner.
    Known(Device),
}

/// What is known of a device.
#[derive(Clone, Debug)]
pub struct Device {
    /// Its id; differs from the one that was asked for where the MAC led to it.
    pub id: DeviceId,
    /// Its name.
    pub alias: Alias,
    /// Its MAC as stored.
    pub mac: Option<Mac>,
    /// May it be offered updates without being asked?
    pub auto_update: bool,
    /// The version it reported last.
    pub version: Option<Arc<str>>,
    /// The environment hash it reported last.
    pub env_hash: Option<Arc<str>>,
    /// [`CheckIn::digest`] of the last check-in that was kept.
    pub digest: u64,
    /// [`CheckIn::told_auto_update`] of the last check-in that was kept.
    pub told_auto_update: bool,
    /// Unix seconds of the last check-in that was kept.
    pub seen: u64,
    /// State of the guard rails.
    pub offered: Option<Offered>,
}

/// A release as it is offered: everything but the image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// Its id.
    pub release: ReleaseId,
    /// Its version as published, at most [`Offer::VERSION_BYTES_MAX`] bytes, none of `"`, `\`,
    /// `{`, `}` and no control characters.
    pub version: Box<str>,
    /// Its platform as published, lower case.
    pub platform: Box<str>,
    /// Its environment hash, if it has one.
    pub env_hash: Option<Box<str>>,
    /// SHA-256 of the image: its identity, and the ETag.
    pub sha256: [u8; 32],
    /// MD5 of the image, for `x-MD5`.
    pub md5: [u8; 16],
    /// Length of the image in bytes.
    pub size: u64,
    /// What the image is.
    pub kind: Kind,
}

impl Offer {
    /// Most bytes of a version, so that every offer fits into one reply of 511 bytes (docs/wire.md
    /// 2.2, rule 1).
    pub const VERSION_BYTES_MAX: usize = 64;
    /// Bytes of an image that leave only after its token's claim (docs/token.md).
    pub const TAIL_BYTES: u64 = 4096;

    /// The first byte of the tail: an image of [`Offer::TAIL_BYTES`] or less is all tail.
    #[must_use]
    pub fn tail_start(&self) -> u64 {
        self.size - self.size.min(Self::TAIL_BYTES)
    }
}

/// What an image is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A binary that is flashed as it is.
    Image,
    /// Several files as one JSON text, rendered when published (docs/wire.md 6.2).
    Bundle,
}

/// A release with its image.
#[derive(Clone, Debug)]
pub struct Release<I> {
    /// What it is.
    pub offer: Arc<Offer>,
    /// Its bytes: exactly [`Offer::size`] of them.
    pub image: I,
}

/// What is behind a token.
#[derive(Clone, Debug)]
pub enum Redemption<I> {
    /// Unknown, expired, used up, replaced or revoked: the same answer for all of them.
    Unknown,
    /// The token is good, and there is nothing to give: nothing published, or withdrawn.
    Nothing,
    /// The token is good for this release.
    Ready {
        /// The device that it was issued for.
        device: DeviceId,
        /// What it is good for.
        release: Release<I>,
        /// Has a first attempt been made?
        started: bool,
        /// [`Grant::forced`].
        forced: bool,
    },
}

/// What a [`Record`] led to.
#[derive(Clone, Debug)]
pub struct Recorded {
    /// The device's id, minted or adopted where the request had none.
    pub device: DeviceId,
    /// The device's name after the write.
    pub alias: Alias,
    /// The device's flag after the write.
    pub auto_update: bool,
    /// The token, if one was granted.
    pub token: Option<Token>,
}
