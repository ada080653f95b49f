//! The row-level facts that writes consist of.

use otter_protocol::{DeviceId, OwnerId, ReleaseId};

use super::devices::DeviceFacts;
use super::releases::Release;
use super::tokens::TokenFacts;
use crate::token::TokenHash;

/// One durable fact. The same value is written to the database and then applied to the tables.
#[derive(Clone, Debug)]
pub(crate) enum Change {
    /// An owner exists from now on. Times here are Unix seconds.
    OwnerAdded { owner: OwnerId, created: u64 },
    /// An API key is valid from now on.
    KeyAdded { owner: OwnerId, hash: [u8; 32], alias: Box<str>, created: u64 },
    /// An API key is not valid any more.
    KeyRevoked { hash: [u8; 32] },
    /// This is what is known of a device.
    DeviceKept(Box<KeptDevice>),
    /// This is the push token of a device.
    PushKept { device: DeviceId, push: Box<str> },
    /// This is what is known of a token.
    TokenKept(Box<KeptToken>),
    /// A token is no more.
    TokenRemoved { hash: TokenHash, removal: Removal },
    /// A release is offered from now on.
    ReleasePublished(Box<PublishedRelease>),
    /// A release is not offered any more.
    ReleaseWithdrawn { release: ReleaseId, unix_s: u64 },
}

impl Change {
    /// A token cannot even be claimed any more.
    pub(crate) fn expired(hash: TokenHash) -> Self {
        Self::TokenRemoved { hash, removal: Removal::Expired }
    }
}

/// What is known of a device after a write.
#[derive(Clone, Debug)]
pub(crate) struct KeptDevice {
    pub(crate) facts: DeviceFacts<Box<str>>,
    /// Whose it is, for the database; [`DeviceFacts::owner`] is a row in memory.
    pub(crate) owner: OwnerId,
    /// Unix seconds, if it was not known before.
    pub(crate) registered: Option<u64>,
    /// The JSON object for operators; `None` keeps what is stored.
    pub(crate) details: Option<Box<str>>,
}

/// A release that is new.
#[derive(Clone, Debug)]
pub(crate) struct PublishedRelease {
    pub(crate) release: Release,
    /// Whose it is, for the database; [`Release::owner`] is a row in memory.
    pub(crate) owner: OwnerId,
}

/// What is known of a token after a write.
#[derive(Clone, Copy, Debug)]
pub(crate) struct KeptToken {
    pub(crate) hash: TokenHash,
    pub(crate) device: DeviceId,
    pub(crate) facts: TokenFacts,
    pub(crate) event: TokenEvent,
}

/// What happened to a token that is still kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TokenEvent {
    /// It was issued at this time, in milliseconds since 1970.
    Issued { unix_ms: u64 },
    /// The first attempt on it was made.
    Started,
    /// A newer one took its place.
    Replaced,
}

/// Why a token is no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Removal {
    /// The tail of its image may leave.
    Claimed,
    /// Its time is over.
    Expired,
    /// A newer one took its place.
    Replaced,
    /// It was replaced earlier, and its device has too many such.
    Surplus,
    /// An operator took it back.
    Revoked,
}
