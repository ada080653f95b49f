//! The default store: one local directory.

use std::path::Path;

use otter_protocol::{Answer, Query};

use crate::{Clock, Image, OpenError, Operator, Store, Ticket, Wake};

/// The default store: one local directory, crash-safe, one durable commit per group of writes.
///
/// Dropping it waits for the last group to be committed and then gives the directory free.
/// Whatever [`Embedded::store`] and [`Embedded::operator`] gave out answers
/// [`Answer::Unavailable`] and [`OperatorError::Unavailable`](crate::OperatorError::Unavailable)
/// from then on.
pub struct Embedded {}

/// Settings of an [`Embedded`] store.
#[derive(Clone)]
#[non_exhaustive]
pub struct EmbeddedOptions {
    /// Accept the SHA-256 of a key in place of the key (WIRE.md 4). Default false.
    pub accept_key_hash: bool,
    /// The clock. Default the system's.
    pub clock: Clock,
    /// How many images are kept open for the next request. Default 64. Beyond: the one that was
    /// used least recently is closed as soon as no transfer needs it.
    pub images_open_max: usize,
    /// How many writes one commit carries at most. Default 1024. Beyond: the next commit.
    pub group_writes_max: usize,
}

impl Default for EmbeddedOptions {
    fn default() -> Self {
        todo!()
    }
}

impl Embedded {
    /// Opens the store in `directory`, or creates it there; loads all facts into memory.
    ///
    /// # Errors
    /// See [`OpenError`]; each says what to do.
    pub fn open(_directory: &Path, _options: EmbeddedOptions) -> Result<Self, OpenError> {
        todo!()
    }

    /// The store of one thread. `wake` is rung when answers wait.
    #[must_use]
    pub fn store(&self, _wake: Wake) -> EmbeddedStore {
        todo!()
    }

    /// The operator's side.
    #[must_use]
    pub fn operator(&self) -> Operator {
        todo!()
    }

    /// Waits for the last group to be committed and gives the directory free, as dropping does.
    pub fn close(self) {
        todo!()
    }
}

/// One thread's side of an [`Embedded`] store.
pub struct EmbeddedStore {}

impl Store for EmbeddedStore {
    type Image = Image;

    fn submit(&mut self, _queries: &mut Vec<(Ticket, Query)>) {
        todo!()
    }

    fn collect(&mut self, _answers: &mut Vec<(Ticket, Answer<Image>)>) {
        todo!()
    }
}
