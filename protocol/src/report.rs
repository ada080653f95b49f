//! One line for the access log and the counters: what became of a request, and of a connection.

use std::time::Duration;

use crate::id::DeviceId;

/// What became of one request. Taken with [`crate::Connection::poll_report`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    /// Where it went.
    pub endpoint: Endpoint,
    /// The status that was sent; 0 if the connection ended before there was one.
    pub status: u16,
    /// What became of it.
    pub outcome: Outcome,
    /// The device, where the request named one that is known.
    pub device: Option<DeviceId>,
    /// Bytes of the answer that the socket took, head included.
    pub bytes_sent: u64,
    /// From the complete request to the last byte taken.
    pub took: Duration,
}

/// Why a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum CloseReason {
    /// The peer closed, or all it asked for was answered and it wanted to close.
    Peer,
    /// Silent for longer than [`crate::Config::idle_timeout`].
    Idle,
    /// The peer took an answer too slowly, or the store a claim.
    Slow,
    /// A request violated HTTP or a limit in a way that ends the connection.
    Refused,
    /// A token was claimed by somebody else, or the store could not say: the tail stays here.
    Unclaimed,
    /// [`crate::Connection::handle_shutdown`].
    Shutdown,
    /// TLS failed, in the handshake or later.
    Tls,
    /// The bytes of an image could not be read any more.
    Torn,
}

/// What became of a TLS handshake. Taken with [`crate::Connection::poll_handshake`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Handshake {
    /// A new session: the peer was shown the certificate.
    Full,
    /// A session of before, by its id or a ticket.
    Resumed,
    /// A device asked whether records may be small, was told that they may, and goes away to come
    /// back for more (docs/wire.md 2.5).
    Probed,
    /// There is none, and why.
    Failed(TlsFailure),
}

/// Why a TLS handshake failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TlsFailure {
    /// No version, cipher suite, group or signature scheme that both sides have: old devices.
    NothingInCommon,
    /// The peer said with an alert that it will not: mostly because of the certificate.
    PeerRefused,
    /// The peer's certificate is missing or not good.
    NotTrusted,
    /// What came is no TLS, or breaks its rules.
    Malformed,
    /// HTTP without TLS; it was answered 400.
    PlainHttp,
    /// The peer went away in the middle.
    Abandoned,
    /// It took longer than [`crate::Config::handshake_timeout`].
    TimedOut,
}

/// Where a request went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Endpoint {
    /// `POST /device/register`
    CheckIn,
    /// `POST /device/firmware` and its alias, without `use: ott`
    Firmware,
    /// `POST /device/firmware` and its alias, with `use: ott`
    Issue,
    /// `GET` or `HEAD /device/firmware`
    Redeem,
    /// `POST /device/addpush`
    Push,
    /// `GET /`
    Health,
    /// Anything else, and what was no request at all.
    Other,
}

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Outcome {
    /// Check-in: a new device was registered.
    Registered,
    /// Check-in: answered OK.
    Current,
    /// Check-in: answered with an offer and a token.
    Offered,
    /// Check-in: an update exists, and the device is left alone for now, because it reported a
    /// failure or was offered the same too often, or because the line has enough to carry.
    HeldBack,
    /// A token was issued on request.
    Issued,
    /// A whole image left.
    Delivered,
    /// A part of an image left, as asked for.
    Ranged,
    /// 304, or the answer that there is nothing new.
    NotModified,
    /// Answered, nothing of the above: health, HEAD, push token kept.
    Answered,
    /// The connection ended before the whole answer left.
    Aborted,
    /// The token was claimed by somebody else; the tail was not sent.
    Unclaimed,
    /// Refused, and why.
    Refused(Refusal),
}

/// Why a request was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Refusal {
    /// No such route.
    NoRoute,
    /// HTTP syntax or framing.
    Malformed,
    /// HTTP without TLS where TLS is spoken.
    NotTls,
    /// A limit of [`crate::Config`] was exceeded.
    TooLarge,
    /// The request did not arrive in time.
    TooSlow,
    /// The body is not the JSON it should be.
    BadBody,
    /// No key, or not in the form of a key.
    NoKey,
    /// The owner has no keys, or the owner id is malformed.
    UnknownOwner,
    /// The key is none of the owner's.
    WrongKey,
    /// The device is unknown, or belongs to somebody else.
    UnknownDevice,
    /// Unknown, expired or used token.
    DeadToken,
    /// Nothing is published for the device.
    NoRelease,
    /// The range cannot be satisfied.
    BadRange,
    /// The image is not the one that `If-Match` asks for.
    Precondition,
    /// The store cannot answer now.
    Unavailable,
    /// The line has enough to carry: a download must come back later.
    PutOff,
}

impl CloseReason {
    /// Every reason, each at its own number (`reason as usize`).
    pub const ALL: [Self; 8] = [
        Self::Peer,
        Self::Idle,
        Self::Slow,
        Self::Refused,
        Self::Unclaimed,
        Self::Shutdown,
        Self::Tls,
        Self::Torn,
    ];
}

impl Handshake {
    /// Every one, in their order; failures last.
    pub const ALL: [Self; 10] = [
        Self::Full,
        Self::Resumed,
        Self::Probed,
        Self::Failed(TlsFailure::NothingInCommon),
        Self::Failed(TlsFailure::PeerRefused),
        Self::Failed(TlsFailure::NotTrusted),
        Self::Failed(TlsFailure::Malformed),
        Self::Failed(TlsFailure::PlainHttp),
        Self::Failed(TlsFailure::Abandoned),
        Self::Failed(TlsFailure::TimedOut),
    ];

    /// Where it stands in [`Handshake::ALL`].
    pub(crate) const fn index(self) -> usize {
        match self {
            Self::Full => 0,
            Self::Resumed => 1,
            Self::Probed => 2,
            Self::Failed(failure) => 3 + failure as usize,
        }
    }
}

impl Endpoint {
    /// Every endpoint, each at its own number (`endpoint as usize`).
    pub const ALL: [Self; 7] = [
        Self::CheckIn,
        Self::Firmware,
        Self::Issue,
        Self::Redeem,
        Self::Push,
        Self::Health,
        Self::Other,
    ];
}

impl Outcome {
    /// Every outcome, in their order; refusals last.
    pub const ALL: [Self; 27] = [
        Self::Registered,
        Self::Current,
        Self::Offered,
        Self::HeldBack,
        Self::Issued,
        Self::Delivered,
        Self::Ranged,
        Self::NotModified,
        Self::Answered,
        Self::Aborted,
        Self::Unclaimed,
        Self::Refused(Refusal::NoRoute),
        Self::Refused(Refusal::Malformed),
        Self::Refused(Refusal::NotTls),
        Self::Refused(Refusal::TooLarge),
        Self::Refused(Refusal::TooSlow),
        Self::Refused(Refusal::BadBody),
        Self::Refused(Refusal::NoKey),
        Self::Refused(Refusal::UnknownOwner),
        Self::Refused(Refusal::WrongKey),
        Self::Refused(Refusal::UnknownDevice),
        Self::Refused(Refusal::DeadToken),
        Self::Refused(Refusal::NoRelease),
        Self::Refused(Refusal::BadRange),
        Self::Refused(Refusal::Precondition),
        Self::Refused(Refusal::Unavailable),
        Self::Refused(Refusal::PutOff),
    ];

    /// Where it stands in [`Outcome::ALL`].
    pub(crate) const fn index(self) -> usize {
        match self {
            Self::Registered => 0,
            Self::Current => 1,
            Self::Offered => 2,
            Self::HeldBack => 3,
            Self::Issued => 4,
            Self::Delivered => 5,
            Self::Ranged => 6,
            Self::NotModified => 7,
            Self::Answered => 8,
            Self::Aborted => 9,
            Self::Unclaimed => 10,
            Self::Refused(refusal) => 11 + refusal as usize,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_stands_at_its_own_number() {
        for (index, reason) in CloseReason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, index);
        }
        for (index, endpoint) in Endpoint::ALL.into_iter().enumerate() {
            assert_eq!(endpoint as usize, index);
        }
        for (index, outcome) in Outcome::ALL.into_iter().enumerate() {
            assert_eq!(outcome.index(), index);
        }
        assert!(Outcome::ALL.is_sorted());
        for (index, handshake) in Handshake::ALL.into_iter().enumerate() {
            assert_eq!(handshake.index(), index);
        }
    }
}
