//! A store that forgets.

use std::path::Path;

use otter_protocol::{Answer, Query};

use crate::{Clock, Image, OpenError, Operator, Store, Ticket, Wake};

/// A store that forgets everything but its images: for demonstrations, benches and tests.
///
/// Cheap to clone; all clones are one store.
#[derive(Clone)]
pub struct Memory {}

/// Settings of a [`Memory`] store.
#[derive(Clone)]
#[non_exhaustive]
pub struct MemoryOptions {
    /// Accept the SHA-256 of a key in place of the key (WIRE.md 4). Default false.
    pub accept_key_hash: bool,
    /// The clock. Default the system's.
    pub clock: Clock,
    /// How many images are kept open for the next request. Default 64. Beyond: the one that was
    /// used least recently is closed as soon as no transfer needs it.
    pub images_open_max: usize,
}

impl Default for MemoryOptions {
    fn default() -> Self {
        todo!()
    }
}

impl Memory {
    /// Opens an empty store whose images lie in `directory/images`; the directory is created if
    /// it is not there.
    ///
    /// # Errors
    /// [`OpenError::Directory`] if the directory cannot be used.
    pub fn open(_directory: &Path, _options: MemoryOptions) -> Result<Self, OpenError> {
        todo!()
    }

    /// The store of one thread. `wake` is rung when answers wait.
    #[must_use]
    pub fn store(&self, _wake: Wake) -> MemoryStore {
        todo!()
    }

    /// The operator's side.
    #[must_use]
    pub fn operator(&self) -> Operator {
        todo!()
    }
}

/// One thread's side of a [`Memory`] store.
pub struct MemoryStore {}

impl Store for MemoryStore {
    type Image = Image;

    fn submit(&mut self, _queries: &mut Vec<(Ticket, Query)>) {
        todo!()
    }

    fn collect(&mut self, _answers: &mut Vec<(Ticket, Answer<Image>)>) {
        todo!()
    }
}
