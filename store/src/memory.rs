//! A store that forgets.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use otter_protocol::{Answer, Query};

use crate::clock::{self, Clock};
use crate::depot::{Depot, ImageOptions};
use crate::error::OpenError;
use crate::image::Image;
use crate::inbox::Inbox;
use crate::job::Outcome;
use crate::operator::Operator;
use crate::shared::{Ready, Shared};
use crate::tabled::Tabled;
use crate::tables::{Change, Details, Plan, Tables, Write};
use crate::{Store, Ticket, Wake};

/// A store that forgets everything but its images: for demonstrations, benches and tests.
///
/// It keeps the same facts under the same rules as [`crate::Embedded`], without a database. Cheap
/// to clone; all clones are one store.
///
/// ```
/// use std::sync::Arc;
/// use otter_store::{Memory, MemoryOptions, Store};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let directory = tempfile::tempdir()?;
/// let memory = Memory::open(directory.path(), MemoryOptions::default())?;
/// let owner = memory.operator().create_owner(None)?;
/// let key = memory.operator().create_key(&owner, "first")?;
/// let mut store = memory.store(Arc::new(|| {}));
/// let mut answers = Vec::new();
/// store.submit(&mut Vec::new());
/// store.collect(&mut answers);
/// assert!(answers.is_empty());
/// assert_eq!(key.owner, owner);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Memory {
    shared: Arc<Shared>,
}

/// Settings of a [`Memory`] store.
#[derive(Clone)]
#[non_exhaustive]
pub struct MemoryOptions {
    /// Accept the SHA-256 of a key in place of the key (docs/wire.md 4). Default false.
    pub accept_key_hash: bool,
    /// The clock. Default the system's.
    pub clock: Clock,
    /// Where images lie, and where those come from that do not lie there.
    pub images: ImageOptions,
}

impl Default for MemoryOptions {
    fn default() -> Self {
        Self { accept_key_hash: false, clock: clock::system(), images: ImageOptions::default() }
    }
}

impl fmt::Debug for MemoryOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryOptions")
            .field("accept_key_hash", &self.accept_key_hash)
            .field("images", &self.images)
            .finish_non_exhaustive()
    }
}

impl Memory {
    /// Opens an empty store whose images lie in `directory/images`, unless its options say
    /// otherwise; the directory is created if it is not there.
    ///
    /// # Errors
    /// [`OpenError::Directory`] if the directory cannot be used; [`OpenError::Origin`] for an
    /// origin of images that cannot be one.
    pub fn open(directory: &Path, options: MemoryOptions) -> Result<Self, OpenError> {
        let depot = Depot::open(directory, &options.images, true)?;
        let tables = Tables {
            accept_key_hash: options.accept_key_hash,
            details: Some(Details::default()),
            ..Tables::default()
        };
        Ok(Self { shared: Arc::new(Shared::new(tables, depot, options.clock, 0)) })
    }

    /// The store of one thread. `wake` is rung only for images that had to be fetched from an
    /// origin: every other answer waits in the same turn.
    #[must_use]
    pub fn store(&self, wake: Wake) -> MemoryStore {
        MemoryStore {
            shared: Arc::clone(&self.shared),
            inbox: Arc::new(Inbox::new(wake)),
            ready: Ready::default(),
            writes: Vec::new(),
        }
    }

    /// The operator's side.
    #[must_use]
    pub fn operator(&self) -> Operator {
        Operator::new(Tabled::of_memory(Arc::clone(&self.shared)))
    }
}

/// One thread's side of a [`Memory`] store.
pub struct MemoryStore {
    shared: Arc<Shared>,
    inbox: Arc<Inbox>,
    ready: Ready,
    writes: Vec<(Ticket, Write)>,
}

impl Store for MemoryStore {
    type Image = Image;

    fn submit(&mut self, queries: &mut Vec<(Ticket, Query)>) {
        let writes = &mut self.writes;
        self.ready.take(&self.shared, queries, |write| writes.push(write));
        for (ticket, write) in self.writes.drain(..) {
            self.ready.add(ticket, write_now(&self.shared, &write));
        }
    }

    fn collect(&mut self, answers: &mut Vec<(Ticket, Answer<Image>)>) {
        self.ready.receive(&self.inbox);
        self.ready.collect(&self.shared.depot, &self.inbox, answers);
    }
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryStore").finish_non_exhaustive()
    }
}

/// Decides and applies a device's write.
fn write_now(shared: &Shared, write: &Write) -> Answer<()> {
    let Ok(minted) = shared.mint.minted() else { return Answer::Unavailable };
    let now_ms = shared.clock.now_ms();
    change_now(shared, now_ms, |tables, plan| {
        let image = write.token().and_then(|token| tables.image_of(token));
        let intact = image.is_none_or(|(name, size)| shared.depot.images.intact(&name, size));
        tables.decide(write, now_ms, &minted, intact, plan)
    })
}

/// Decides and applies an operator's write.
pub(crate) fn operate_now<R>(
    shared: &Shared,
    mut rule: impl FnMut(&Tables, u64, &mut Plan) -> Outcome<R>,
) -> Outcome<R> {
    let now_ms = shared.clock.now_ms();
    change_now(shared, now_ms, |tables, plan| rule(tables, now_ms, plan))
}

fn change_now<R>(shared: &Shared, now_ms: u64, decide: impl FnOnce(&Tables, &mut Plan) -> R) -> R {
    let mut plan = Plan::default();
    let mut tables = shared.tables_mut();
    let outcome = decide(&tables, &mut plan);
    let writes = usize::from(!plan.changes.is_empty());
    plan.changes
        .extend(tables.tokens.ended(now_ms).take(EXPIRED_PER_WRITE_MAX).map(Change::expired));
    let freed = tables.images_freed(&plan.changes);
    plan.changes.iter().for_each(|change| tables.apply(change));
    drop(tables);
    shared.counters.kept(writes, &plan.changes);
    shared.sweep(&freed);
    outcome
}

/// More than one write can issue, so that what has ended never piles up.
const EXPIRED_PER_WRITE_MAX: usize = 16;
