//! The thread that fetches: each image once, however many ask for it, a few images at a time.
//!
//! Whoever asks never waits: the answer is put aside with the inbox that it came from, and goes
//! back there when the fetch has ended. If that takes longer than a connection waits for an answer,
//! the device is told to come again, and the fetch goes on for its next attempt.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use otter_protocol::Answer;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::Semaphore;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::spawn_blocking;

use super::{Failure, Origin, OriginOptions, OriginState, transfer};
use crate::Ticket;
use crate::depot::{lacking, wanted};
use crate::error::{OpenError, OperatorError};
use crate::images::{ImageName, Images};
use crate::inbox::Inbox;
use crate::stats::StoreStats;

/// The side of the fetching thread that all others see.
pub(crate) struct Fetcher {
    board: Arc<Board>,
    orders: UnboundedSender<Order>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// An answer that waits for its image. It goes back exactly once, whatever happens: one that is
/// dropped goes back as unavailable.
pub(crate) struct Waiter {
    ticket: Ticket,
    answer: Option<Answer<()>>,
    inbox: Arc<Inbox>,
    since: Instant,
}

/// An image by what must be true of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Wanted {
    pub(super) name: ImageName,
    pub(super) size: u64,
}

impl Fetcher {
    /// Starts the thread; does nothing if there are no origins.
    ///
    /// # Errors
    /// [`OpenError::Origin`], [`OpenError::Thread`]
    pub(crate) fn start(
        options: &OriginOptions,
        images: &Arc<Images>,
    ) -> Result<Option<Self>, OpenError> {
        if options.addresses.is_empty() {
            return Ok(None);
        }
        let origins = options.addresses.iter().map(|address| Origin::open(address, options));
        let board = Arc::new(Board {
            origins: origins.collect::<Result<_, _>>()?,
            images: Arc::clone(images),
            permits: Semaphore::new(options.fetches_max.max(1)),
            options: options.clone(),
            pending: Mutex::default(),
            counts: Counts::default(),
        });
        let runtime = Builder::new_current_thread()
            .enable_all()
            .thread_name("otter-fetch-file")
            .max_blocking_threads(BLOCKING_THREADS_MAX)
            .build()
            .map_err(|source| OpenError::Thread { source })?;
        let (orders, received) = unbounded_channel();
        let working = Arc::clone(&board);
        let thread = thread::Builder::new()
            .name("otter-fetch".to_owned())
            .spawn(move || run(runtime, working, received))
            .map_err(|source| OpenError::Thread { source })?;
        Ok(Some(Self { board, orders, thread: Mutex::new(Some(thread)) }))
    }

    /// Lets an answer wait for its image: it comes back through its inbox. Gives back what to
    /// answer at once where there is no point in waiting.
    pub(crate) fn ask(&self, waiter: Waiter) -> Option<Answer<()>> {
        let Some(wanted) = waiter.wanted() else { return Some(waiter.unavailable()) };
        let mut pending = self.board.pending();
        let now = Instant::now();
        if let Some(lack) = pending.known_to_lack(&wanted, now) {
            return Some(waiter.lacking(lack));
        }
        if pending.closed || !pending.has_room(&wanted, now) {
            return Some(waiter.unavailable());
        }
        pending.waiting += 1;
        match pending.flights.entry(wanted) {
            Entry::Occupied(mut flight) => flight.get_mut().push(waiter),
            Entry::Vacant(flight) => {
                flight.insert(vec![waiter]);
                // The thread ends only after `closed` was set under this lock.
                let _ = self.orders.send(Order::Fetch(wanted));
            }
        }
        None
    }

    /// Puts an image that lies here to the first origin that takes any, and waits for it.
    ///
    /// # Errors
    /// [`OperatorError::Origin`]
    pub(crate) fn put(&self, name: &ImageName, size: u64) -> Result<(), OperatorError> {
        let takes = self.board.origins.iter().position(Origin::takes_images);
        let Some(place) = takes else { return Ok(()) };
        let (reply, outcome) = sync_channel(1);
        let order = Order::Put { place, wanted: Wanted { name: *name, size }, reply };
        let done = match self.orders.send(order) {
            Ok(()) => outcome.recv().unwrap_or_else(|_| Err(CLOSED.to_owned())),
            Err(_) => Err(CLOSED.to_owned()),
        };
        let origin = self.board.origins[place].state().origin;
        done.map_err(|reason| OperatorError::Origin { origin, reason })
    }

    pub(crate) fn origins(&self) -> Vec<OriginState> {
        self.board.origins.iter().map(Origin::state).collect()
    }

    /// Adds what was counted.
    pub(crate) fn count(&self, stats: &mut StoreStats) {
        let counts = &self.board.counts;
        stats.fetches_total = counts.fetched.load(Relaxed);
        stats.fetched_bytes_total = counts.bytes.load(Relaxed);
        stats.fetches_missing_total = counts.missing.load(Relaxed);
        stats.fetches_unreachable_total = counts.unreachable.load(Relaxed);
        stats.fetches_refused_total = counts.refused.load(Relaxed);
        stats.fetches_wrong_total = counts.wrong.load(Relaxed);
        stats.fetches_unkept_total = counts.unkept.load(Relaxed);
        stats.images_put_total = counts.put.load(Relaxed);
        stats.images_unput_total = counts.unput.load(Relaxed);
        stats.fetches_open = self.board.pending().flights.len() as u64;
    }

    /// Ends all fetches and the thread. Nothing half is left of them.
    pub(crate) fn close(&self) {
        let flights = {
            let mut pending = self.board.pending();
            pending.closed = true;
            pending.waiting = 0;
            std::mem::take(&mut pending.flights)
        };
        drop(flights);
        // It has ended already if nobody takes this.
        let _ = self.orders.send(Order::Close);
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            // A panic there has no further consequence.
            let _ = thread.join();
        }
    }
}

impl Drop for Fetcher {
    fn drop(&mut self) {
        self.close();
    }
}

impl fmt::Debug for Fetcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fetcher").field("origins", &self.board.origins).finish_non_exhaustive()
    }
}

impl Waiter {
    pub(crate) fn new(ticket: Ticket, answer: Answer<()>, inbox: &Arc<Inbox>) -> Self {
        let (answer, inbox) = (Some(answer), Arc::clone(inbox));
        Self { ticket, answer, inbox, since: Instant::now() }
    }

    fn wanted(&self) -> Option<Wanted> {
        let offer = wanted(self.answer.as_ref()?)?;
        Some(Wanted { name: offer.sha256, size: offer.size })
    }

    fn unavailable(mut self) -> Answer<()> {
        self.answer = None;
        Answer::Unavailable
    }

    fn lacking(mut self, lack: Lack) -> Answer<()> {
        match (self.answer.take(), lack) {
            (Some(answer), Lack::Certain) => lacking(answer),
            (Some(_) | None, _) => Answer::Unavailable,
        }
    }

    /// Sends it back: to be filled from what lies here now, or without its image.
    fn land(mut self, landed: Result<(), Lack>) -> Arc<Inbox> {
        let answer = match (self.answer.take(), landed) {
            (Some(answer), Ok(())) => answer,
            (Some(answer), Err(Lack::Certain)) => lacking(answer),
            (Some(_) | None, _) => Answer::Unavailable,
        };
        self.inbox.hand_back(self.ticket, answer);
        Arc::clone(&self.inbox)
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        if self.answer.take().is_some() {
            self.inbox.hand_back(self.ticket, Answer::Unavailable);
            self.inbox.ring();
        }
    }
}

/// Why there is no image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lack {
    /// No origin has it.
    Certain,
    /// One that may have it did not give it.
    Uncertain,
}

enum Order {
    Fetch(Wanted),
    Put { place: usize, wanted: Wanted, reply: SyncSender<Result<(), String>> },
    Close,
}

/// What the thread and those that ask share.
struct Board {
    origins: Vec<Origin>,
    images: Arc<Images>,
    permits: Semaphore,
    options: OriginOptions,
    pending: Mutex<Pending>,
    counts: Counts,
}

#[derive(Default)]
struct Counts {
    fetched: AtomicU64,
    bytes: AtomicU64,
    missing: AtomicU64,
    unreachable: AtomicU64,
    refused: AtomicU64,
    wrong: AtomicU64,
    unkept: AtomicU64,
    put: AtomicU64,
    unput: AtomicU64,
}

#[derive(Default)]
struct Pending {
    /// Who waits for each image that is being fetched.
    flights: HashMap<Wanted, Vec<Waiter>>,
    /// How many wait in all.
    waiting: usize,
    /// What could not be had, and until when that is not tried again.
    failed: HashMap<Wanted, (Instant, Lack)>,
    closed: bool,
}

impl Pending {
    fn known_to_lack(&self, wanted: &Wanted, now: Instant) -> Option<Lack> {
        self.failed.get(wanted).filter(|(until, _)| now < *until).map(|(_, lack)| *lack)
    }

    /// Makes room by sending back those for whom nobody listens any more.
    fn has_room(&mut self, wanted: &Wanted, now: Instant) -> bool {
        if !self.flights.contains_key(wanted) && self.flights.len() >= FLIGHTS_MAX {
            return false;
        }
        if self.waiting >= WAITING_MAX {
            let is_young = |waiter: &Waiter| now.duration_since(waiter.since) < WAIT_MAX;
            self.flights.values_mut().for_each(|waiters| waiters.retain(is_young));
            self.waiting = self.flights.values().map(Vec::len).sum();
        }
        self.waiting < WAITING_MAX
    }

    fn note(&mut self, wanted: Wanted, lack: Lack, kept: Duration) {
        let now = Instant::now();
        if self.failed.len() >= FLIGHTS_MAX {
            self.failed.retain(|_, (until, _)| now < *until);
        }
        self.failed.insert(wanted, (now + kept, lack));
    }
}

impl Board {
    /// A fetch has ended: whoever waited for it is answered.
    fn land(&self, wanted: Wanted, landed: Result<(), Lack>) {
        let waiters = {
            let mut pending = self.pending();
            if let Err(lack) = landed {
                pending.note(wanted, lack, self.options.failure_kept);
            }
            let waiters = pending.flights.remove(&wanted).unwrap_or_default();
            pending.waiting = pending.waiting.saturating_sub(waiters.len());
            waiters
        };
        let mut inboxes: Vec<Arc<Inbox>> = Vec::new();
        for waiter in waiters {
            let inbox = waiter.land(landed);
            if !inboxes.iter().any(|other| Arc::ptr_eq(other, &inbox)) {
                inboxes.push(inbox);
            }
        }
        inboxes.iter().for_each(|inbox| inbox.ring());
    }

    async fn fetch(&self, wanted: Wanted) -> Result<(), Lack> {
        // The permits are never closed.
        let _permit = self.permits.acquire().await.map_err(|_| Lack::Uncertain)?;
        let images = Arc::clone(&self.images);
        // A publication, or another server in a shared directory, may have been faster.
        let here = spawn_blocking(move || images.image(&wanted.name, wanted.size).is_some());
        if here.await.unwrap_or(false) {
            return Ok(());
        }
        let mut lack = Lack::Certain;
        for origin in self.in_turn() {
            let patience = self.options.progress_timeout;
            match transfer::get(origin, &self.images, wanted, patience).await {
                Ok(()) => {
                    self.counts.fetched.fetch_add(1, Relaxed);
                    self.counts.bytes.fetch_add(wanted.size, Relaxed);
                    origin.gave();
                    return Ok(());
                }
                Err(failure) => {
                    if !matches!(failure, Failure::Missing) {
                        lack = Lack::Uncertain;
                    }
                    self.failed(origin, &failure);
                    if matches!(failure, Failure::Unkept(_)) {
                        break;
                    }
                }
            }
        }
        Err(lack)
    }

    /// All origins; those that could not be reached lately come last.
    fn in_turn(&self) -> Vec<&Origin> {
        let now = Instant::now();
        let mut origins: Vec<&Origin> = self.origins.iter().collect();
        origins.sort_by_key(|origin| origin.is_paused(now));
        origins
    }

    fn failed(&self, origin: &Origin, failure: &Failure) {
        let counts = &self.counts;
        let (counter, reason) = match failure {
            Failure::Missing => {
                counts.missing.fetch_add(1, Relaxed);
                return;
            }
            Failure::Unreachable(reason) => (&counts.unreachable, reason),
            Failure::Refused(reason) => (&counts.refused, reason),
            Failure::Wrong(reason) => (&counts.wrong, reason),
            Failure::Unkept(reason) => (&counts.unkept, reason),
        };
        counter.fetch_add(1, Relaxed);
        origin.failed(reason, matches!(failure, Failure::Unreachable(_)));
        self.tell(origin, reason);
    }

    async fn put(&self, place: usize, wanted: Wanted) -> Result<(), String> {
        let origin = &self.origins[place];
        let patience = self.options.progress_timeout;
        let put = transfer::put(origin, &self.images, wanted, patience).await;
        match &put {
            Ok(()) => self.counts.put.fetch_add(1, Relaxed),
            Err(reason) => {
                // Giving may work where taking does not: it is not paused.
                origin.failed(reason, false);
                self.tell(origin, reason);
                self.counts.unput.fetch_add(1, Relaxed)
            }
        };
        put
    }

    fn tell(&self, origin: &Origin, reason: &str) {
        if let Some(on_failure) = &self.options.on_failure {
            on_failure(&origin.state().origin, reason);
        }
    }

    fn pending(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A fetch under way; one that breaks off answers whoever waits for it.
struct Flight {
    board: Arc<Board>,
    wanted: Wanted,
    landed: Result<(), Lack>,
}

impl Flight {
    async fn fly(mut self) {
        self.landed = self.board.fetch(self.wanted).await;
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.board.land(self.wanted, self.landed);
    }
}

fn run(runtime: Runtime, board: Arc<Board>, mut orders: UnboundedReceiver<Order>) {
    runtime.block_on(async move {
        while let Some(order) = orders.recv().await {
            match order {
                Order::Fetch(wanted) => {
                    let board = Arc::clone(&board);
                    tokio::spawn(Flight { board, wanted, landed: Err(Lack::Uncertain) }.fly());
                }
                Order::Put { place, wanted, reply } => {
                    let board = Arc::clone(&board);
                    tokio::spawn(async move {
                        // The operator may have gone away meanwhile.
                        let _ = reply.send(board.put(place, wanted).await);
                    });
                }
                Order::Close => break,
            }
        }
    });
    runtime.shutdown_timeout(CLOSE_WAIT);
}

/// Images that may be on their way or wait for it. Beyond: unavailable.
const FLIGHTS_MAX: usize = 1024;
/// Answers that may wait for images. Beyond: unavailable, unless others have waited too long.
const WAITING_MAX: usize = 16 * 1024;
/// Longer than a connection waits for an answer.
const WAIT_MAX: Duration = Duration::from_secs(10);
/// Threads for files and for the names of hosts; one that hangs in a dead mount is lost.
const BLOCKING_THREADS_MAX: usize = 64;
/// For files that are being written when the store is closed.
const CLOSE_WAIT: Duration = Duration::from_secs(1);
/// Why nothing is put any more.
const CLOSED: &str = "the store was closed";
