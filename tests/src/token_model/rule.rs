//! The rule, and the rules that were rejected.

/// When a token ends, and what is made of an answer that does not come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// Otter's: the tail leaves only after the store removed the token for this connection. No
    /// answer: closed without the tail.
    HoldTheTail,
    /// Rejected, and what THiNX does: a token ends with its deadline only.
    NeverDelete,
    /// Rejected: the token is removed when all bytes were written.
    DeleteAfterLastWrite,
    /// Rejected: one transfer at a time has the token; it is removed when the peer closed cleanly,
    /// and given back when the connection or the server broke.
    LeaseGivenBackOnReset,
    /// Rejected: the token is removed before the first byte.
    DeleteAtStart,
    /// Rejected: hold the tail over a client of the store that sends commands again when its
    /// connection breaks.
    ReplayedClaim,
    /// Rejected: the same, and the second try may say that the first one had succeeded.
    TrustedReplay,
    /// Rejected: hold the tail, and a claim without an answer counts as done.
    UnknownIsSuccess,
}

impl Rule {
    /// Does the tail wait for a claim?
    #[must_use]
    pub fn claims(self) -> bool {
        match self {
            Self::HoldTheTail
            | Self::ReplayedClaim
            | Self::TrustedReplay
            | Self::UnknownIsSuccess => true,
            Self::NeverDelete
            | Self::DeleteAfterLastWrite
            | Self::LeaseGivenBackOnReset
            | Self::DeleteAtStart => false,
        }
    }

    /// Is a claim sent again when the connection to the store breaks?
    #[must_use]
    pub fn replays(self) -> bool {
        matches!(self, Self::ReplayedClaim | Self::TrustedReplay)
    }
}
