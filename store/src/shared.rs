//! What all threads of one store share.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use otter_protocol::{Answer, Query};

use crate::Ticket;
use crate::clock::{Clock, SteadyClock};
use crate::depot::Depot;
use crate::image::Image;
use crate::images::ImageName;
use crate::inbox::Inbox;
use crate::stats::Counters;
use crate::tables::{Tables, Write};
use crate::tickets::HeldKeys;
use crate::token::Mint;

/// Facts, images, time, randomness, counters and keys of TLS tickets of one store.
#[derive(Debug)]
pub(crate) struct Shared {
    tables: RwLock<Tables>,
    pub(crate) depot: Depot,
    pub(crate) clock: SteadyClock,
    pub(crate) mint: Mint,
    pub(crate) counters: Counters,
    pub(crate) ticket_keys: HeldKeys,
    closed: AtomicBool,
}

impl Shared {
    pub(crate) fn new(tables: Tables, depot: Depot, clock: Clock, highest_ms: u64) -> Self {
        Self {
            tables: RwLock::new(tables),
            depot,
            clock: SteadyClock::new(clock, highest_ms),
            mint: Mint::new(),
            counters: Counters::default(),
            ticket_keys: HeldKeys::default(),
            closed: AtomicBool::new(false),
        }
    }

    /// The facts, to read.
    pub(crate) fn tables(&self) -> RwLockReadGuard<'_, Tables> {
        self.tables.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The facts, to change.
    pub(crate) fn tables_mut(&self) -> RwLockWriteGuard<'_, Tables> {
        self.tables.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks at all rows of a table that only grows, a few thousand under one lock, so that
    /// devices are answered in between.
    pub(crate) fn each_row(
        &self,
        len: impl Fn(&Tables) -> usize,
        mut each: impl FnMut(&Tables, usize),
    ) {
        let mut next = 0;
        loop {
            let tables = self.tables();
            let end = len(&tables).min(next + ROWS_PER_LOOK);
            (next..end).for_each(|row| each(&tables, row));
            if end == len(&tables) {
                return;
            }
            next = end;
        }
    }

    /// From now on every query is answered as unavailable.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.depot.close();
    }

    /// Removes the images that nothing needs any more.
    pub(crate) fn sweep(&self, freed: &[ImageName]) {
        if freed.is_empty() {
            return;
        }
        let tables = self.tables();
        for image in freed.iter().filter(|image| !tables.image_needed(image)) {
            self.depot.images.remove(image);
        }
    }

    /// A staged image is not held any more; its file goes unless something needs it.
    pub(crate) fn let_go(&self, image: &ImageName) {
        let tables = self.tables();
        self.depot.images.let_go(image, tables.image_needed(image));
    }

    /// Why nothing can be answered, if that is so.
    pub(crate) fn trouble(&self) -> Option<String> {
        (!self.open()).then(|| "the store was closed, or a change of it broke off".to_owned())
    }

    /// Is it open for queries? Not after it was closed, nor after a change broke off half-way,
    /// which no answer may stand on.
    fn open(&self) -> bool {
        !self.closed.load(Ordering::Acquire) && !self.tables.is_poisoned()
    }
}

/// One thread's answers that wait for its next `collect`. Kept from turn to turn for its room.
#[derive(Debug, Default)]
pub(crate) struct Ready {
    answers: Vec<(Ticket, Answer<Image>)>,
    /// Answers that still lack their image.
    bare: Vec<(Ticket, Answer<()>)>,
}

impl Ready {
    /// Answers the reads of one turn under one lock, and hands the writes on.
    pub(crate) fn take(
        &mut self,
        shared: &Shared,
        queries: &mut Vec<(Ticket, Query)>,
        on_write: impl FnMut((Ticket, Write)),
    ) {
        if !shared.open() {
            let unavailable = |(ticket, _)| (ticket, Answer::Unavailable);
            self.answers.extend(queries.drain(..).map(unavailable));
            return;
        }
        let mut reads = 0;
        let tables = shared.tables();
        for (ticket, query) in queries.iter() {
            // Nearly every query: answered where its answer waits, without a move on the way.
            if let Query::Identify(identify) = query {
                self.answers.push((*ticket, Answer::Standing(tables.identify(identify))));
            } else if let Some(bare) = tables.read(query, || shared.clock.now_ms()) {
                self.bare.push((*ticket, bare));
            } else {
                continue;
            }
            reads += 1;
        }
        drop(tables);
        if reads == queries.len() {
            queries.clear();
        } else {
            let writes = queries.drain(..).filter_map(|(t, query)| Some((t, Write::of(query)?)));
            writes.for_each(on_write);
        }
    }

    /// An answer that still lacks its image.
    pub(crate) fn add(&mut self, ticket: Ticket, answer: Answer<()>) {
        self.bare.push((ticket, answer));
    }

    /// Takes the answers that another thread left.
    pub(crate) fn receive(&mut self, inbox: &Inbox) {
        inbox.append_to(&mut self.bare);
    }

    /// Gives out what waits. Images are opened here, on the thread that asked; an answer whose
    /// image has to be fetched comes back through the inbox.
    pub(crate) fn collect(
        &mut self,
        depot: &Depot,
        inbox: &Arc<Inbox>,
        answers: &mut Vec<(Ticket, Answer<Image>)>,
    ) {
        if answers.is_empty() {
            // The case of every turn: the room is exchanged, and no answer is moved.
            std::mem::swap(answers, &mut self.answers);
        } else {
            answers.append(&mut self.answers);
        }
        let filled = self.bare.drain(..).filter_map(|(ticket, answer)| {
            let answer = depot.fill(ticket, answer, inbox)?;
            Some((ticket, answer))
        });
        answers.extend(filled);
    }
}

/// A fraction of a millisecond.
const ROWS_PER_LOOK: usize = 4096;
