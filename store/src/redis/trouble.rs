//! What can go wrong between Otter and Redis.

use crate::error::OperatorError;

/// Why a question has no answer.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum Trouble {
    /// There is no connection; nothing was sent.
    #[error("there is no connection to Redis")]
    Away,
    /// It was sent, and no answer came: it may have been carried out.
    #[error("Redis did not answer ({0}); what was asked may have been done, or not")]
    Unknown(String),
    /// Redis said no; nothing was done.
    #[error("Redis refuses: {0}")]
    Refused(String),
    /// A claim was carried out, and fewer replicas confirmed it than the operator asks for.
    #[error("only {confirmed} of {wanted} replicas confirmed")]
    Unreplicated {
        /// Replicas that have it.
        confirmed: i64,
        /// Replicas that should have it.
        wanted: u32,
    },
    /// Redis answered what no server of ours wrote.
    #[error("Redis holds something that is not ours: {0}")]
    Odd(String),
    /// The system has no randomness to give.
    #[error("the system gives no randomness")]
    NoRandomness,
}

impl Trouble {
    pub(super) fn odd(what: &str) -> Self {
        Self::Odd(what.to_owned())
    }
}

impl From<crate::token::NoRandomness> for Trouble {
    fn from(_: crate::token::NoRandomness) -> Self {
        Self::NoRandomness
    }
}

impl From<Trouble> for OperatorError {
    fn from(trouble: Trouble) -> Self {
        let advice = match &trouble {
            Trouble::Away => "is it running? try again when it is back",
            Trouble::Unknown(_) => "look whether it was done before you try again",
            Trouble::Refused(_) => "see what its own log says, and try again",
            Trouble::Unreplicated { .. } => "look after the replicas and try again",
            Trouble::Odd(_) => "give Otter a Redis or a database number of its own",
            Trouble::NoRandomness => "see what is wrong with the system, and try again",
        };
        Self::Unavailable { source: std::sync::Arc::new(trouble), advice }
    }
}
