//! The default store: one local directory.

use std::fmt;
use std::path::Path;
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use otter_protocol::{Answer, Query};
use rusqlite::Connection;

use crate::clock::{self, Clock};
use crate::committer::{Committer, Message};
use crate::depot::{Depot, ImageOptions};
use crate::error::OpenError;
use crate::image::Image;
use crate::images::create_directory;
use crate::inbox::Inbox;
use crate::job::{Job, Promise};
use crate::load::load;
use crate::lock::Lock;
use crate::operator::Operator;
use crate::schema;
use crate::shared::{Ready, Shared};
use crate::tabled::Tabled;
use crate::tables::Tables;
use crate::unfinished::Unfinished;
use crate::{Store, Ticket, Wake};

/// The default store: one local directory, crash-safe, one durable commit per group of writes.
///
/// Dropping it waits for the last group to be committed and then gives the directory free.
/// Whatever [`Embedded::store`] and [`Embedded::operator`] gave out answers
/// [`Answer::Unavailable`] and [`OperatorError::Unavailable`](crate::OperatorError::Unavailable)
/// from then on.
///
/// ```
/// use otter_store::{Embedded, EmbeddedOptions};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let parent = tempfile::tempdir()?;
/// # let directory = parent.path().join("otter");
/// let store = Embedded::open(&directory, EmbeddedOptions::default())?;
/// let owner = store.operator().create_owner(None)?;
/// store.close();
///
/// let store = Embedded::open(&directory, EmbeddedOptions::default())?;
/// assert_eq!(store.operator().owners()?[0].owner, owner);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Embedded {
    shared: Arc<Shared>,
    messages: Sender<Message>,
    reader: Reader,
    committer: Option<JoinHandle<()>>,
    unfinished: Unfinished,
    _lock: Lock,
}

/// The connection that operators read by; none once the store is closed.
pub(crate) type Reader = Arc<Mutex<Option<Connection>>>;

/// Settings of an [`Embedded`] store.
#[derive(Clone)]
#[non_exhaustive]
pub struct EmbeddedOptions {
    /// Accept the SHA-256 of a key in place of the key (docs/wire.md 4). Default false.
    pub accept_key_hash: bool,
    /// The clock. Default the system's.
    pub clock: Clock,
    /// Where images lie, and where those come from that do not lie there.
    pub images: ImageOptions,
    /// How many writes one commit carries at most. Default 1024, least 1. Beyond: the next commit.
    pub group_writes_max: usize,
    /// Open it also if a copy into it was not finished, to go on with that. Default false.
    pub unfinished: bool,
}

impl Default for EmbeddedOptions {
    fn default() -> Self {
        Self {
            accept_key_hash: false,
            clock: clock::system(),
            images: ImageOptions::default(),
            group_writes_max: 1024,
            unfinished: false,
        }
    }
}

impl fmt::Debug for EmbeddedOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EmbeddedOptions")
            .field("accept_key_hash", &self.accept_key_hash)
            .field("images", &self.images)
            .field("group_writes_max", &self.group_writes_max)
            .finish_non_exhaustive()
    }
}

impl Embedded {
    /// Opens the store in `directory`, or creates it there; loads all facts into memory.
    ///
    /// # Errors
    /// See [`OpenError`]; each says what to do.
    pub fn open(directory: &Path, options: EmbeddedOptions) -> Result<Self, OpenError> {
        create_directory(directory)?;
        let lock = Lock::take(directory)?;
        let unfinished = Unfinished::in_directory(directory);
        if unfinished.is_marked() && !options.unfinished {
            return Err(OpenError::Unfinished { store: directory.display().to_string() });
        }
        let depot = Depot::open(directory, &options.images, true)?;
        let path = directory.join("otter.db");
        let mut database = schema::open(&path)?;
        let mut tables = Tables { accept_key_hash: options.accept_key_hash, ..Tables::default() };
        let highest_ms =
            load(&mut database, &mut tables).map_err(|error| schema::failed(&path, error))?;
        let reader = Arc::new(Mutex::new(Some(schema::open_reader(&path)?)));
        let unneeded = tables.images_unneeded();
        let shared = Arc::new(Shared::new(tables, depot, options.clock, highest_ms));
        shared.sweep(&unneeded);
        let (messages, received) = mpsc::channel();
        let committer =
            Committer::new(Arc::clone(&shared), database, received, options.group_writes_max);
        let committer = thread::Builder::new()
            .name("otter-commit".to_owned())
            .spawn(|| committer.run())
            .map_err(|source| OpenError::Thread { source })?;
        Ok(Self { shared, messages, reader, committer: Some(committer), unfinished, _lock: lock })
    }

    /// The store of one thread. `wake` is rung when answers to writes wait; answers to reads wait
    /// in the same turn and ring nothing. At most 32,768 writes of it wait for the disk: more are
    /// answered with [`Answer::Unavailable`] at once.
    #[must_use]
    pub fn store(&self, wake: Wake) -> EmbeddedStore {
        EmbeddedStore {
            shared: Arc::clone(&self.shared),
            messages: self.messages.clone(),
            inbox: Arc::new(Inbox::new(wake)),
            ready: Ready::default(),
        }
    }

    /// The operator's side.
    #[must_use]
    pub fn operator(&self) -> Operator {
        let (messages, reader) = (self.messages.clone(), Arc::clone(&self.reader));
        let (shared, unfinished) = (Arc::clone(&self.shared), self.unfinished.clone());
        Operator::new(Tabled::of_embedded(shared, messages, reader, unfinished))
    }

    /// Waits for the last group to be committed and gives the directory free, as dropping does.
    pub fn close(self) {
        drop(self);
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        self.shared.close();
        // Before the thread that writes: whoever hangs up last writes the log back and removes it,
        // and this connection may only read.
        self.reader.lock().unwrap_or_else(PoisonError::into_inner).take();
        // Both fail only if the committer broke off, and then there is nothing to wait for.
        let _ = self.messages.send(Message::Close);
        if let Some(committer) = self.committer.take() {
            let _ = committer.join();
        }
    }
}

/// One thread's side of an [`Embedded`] store.
pub struct EmbeddedStore {
    shared: Arc<Shared>,
    messages: Sender<Message>,
    inbox: Arc<Inbox>,
    ready: Ready,
}

impl Store for EmbeddedStore {
    type Image = Image;

    fn submit(&mut self, queries: &mut Vec<(Ticket, Query)>) {
        let (mut jobs, mut refused) = (Vec::new(), Vec::new());
        self.ready.take(&self.shared, queries, |(ticket, write)| {
            if self.inbox.expect() {
                let promise = Promise::new(ticket, Arc::clone(&self.inbox));
                jobs.push(Job { write, promise });
            } else {
                refused.push(ticket);
            }
        });
        refused.into_iter().for_each(|ticket| self.ready.add(ticket, Answer::Unavailable));
        if !jobs.is_empty() {
            // If the committer has ended, the jobs come back, and answer themselves when dropped.
            let _ = self.messages.send(Message::Jobs(jobs));
        }
    }

    fn collect(&mut self, answers: &mut Vec<(Ticket, Answer<Image>)>) {
        self.ready.receive(&self.inbox);
        self.ready.collect(&self.shared.depot, &self.inbox, answers);
    }
}

impl fmt::Debug for EmbeddedStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EmbeddedStore").finish_non_exhaustive()
    }
}
