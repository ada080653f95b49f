//! Why a command failed, in words that say what to do, and with which exit code.

use std::fmt;
use std::process::ExitCode;

/// A command's failure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) kind: Kind,
    /// What is wrong, in one sentence without a final stop.
    pub(crate) error: String,
    /// What to do about it.
    pub(crate) hint: Option<String>,
}

/// What sort of failure; decides the exit code, and the status on the admin socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// It was tried and cannot be done.
    Failed,
    /// Our own mistake.
    Internal,
    /// The request or the arguments make no sense.
    Usage,
    /// Something that was named does not exist.
    NotFound,
    /// It exists already, or somebody else holds it.
    Conflict,
    /// The store or the server cannot answer now.
    Unavailable,
}

impl Kind {
    /// The exit code of the process.
    pub(crate) fn exit_code(self) -> u8 {
        match self {
            Self::Failed | Self::Internal => 1,
            Self::Usage => 2,
            Self::NotFound => 3,
            Self::Conflict => 4,
            Self::Unavailable => 5,
        }
    }
}

impl Failure {
    pub(crate) fn failed(error: impl Into<String>) -> Self {
        Self::new(Kind::Failed, error)
    }

    pub(crate) fn internal(error: impl Into<String>) -> Self {
        Self::new(Kind::Internal, error)
    }

    pub(crate) fn usage(error: impl Into<String>) -> Self {
        Self::new(Kind::Usage, error)
    }

    pub(crate) fn not_found(error: impl Into<String>) -> Self {
        Self::new(Kind::NotFound, error)
    }

    pub(crate) fn conflict(error: impl Into<String>) -> Self {
        Self::new(Kind::Conflict, error)
    }

    pub(crate) fn unavailable(error: impl Into<String>) -> Self {
        Self::new(Kind::Unavailable, error)
    }

    /// Adds what to do about it.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The exit code of the process.
    pub(crate) fn exit_code(&self) -> ExitCode {
        ExitCode::from(self.kind.exit_code())
    }

    fn new(kind: Kind, error: impl Into<String>) -> Self {
        Self { kind, error: error.into(), hint: None }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.error)?;
        self.hint.iter().try_for_each(|hint| write!(f, "; {hint}"))
    }
}

impl std::error::Error for Failure {}

/// Names what was being done when the system refused.
pub(crate) trait Context<T> {
    fn context(self, doing: impl FnOnce() -> String) -> Result<T, Failure>;
}

impl<T, E: fmt::Display> Context<T> for Result<T, E> {
    fn context(self, doing: impl FnOnce() -> String) -> Result<T, Failure> {
        self.map_err(|error| Failure::failed(format!("{}: {error}", doing())))
    }
}
