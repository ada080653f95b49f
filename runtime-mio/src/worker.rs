//! One worker: a thread with a poll, a listening socket, a store and its peers.

mod door;

use std::io;
use std::net::TcpListener;
use std::os::fd::AsRawFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token, Waker};
use otter_protocol::{Answer, CloseReason, Now, Query, Tally};
use otter_store::{Store, Ticket};
use rustix::io::Errno;
use slab::Slab;

use crate::Options;
use crate::deadlines::Deadlines;
use crate::listen::listen;
use crate::peer::{FAILED, Peer, REGISTERED, Scope};

/// What a worker is made of before it has a store: made early, so that binding reports every error.
#[derive(Debug)]
pub(crate) struct Seat {
    poll: Poll,
    listener: TcpListener,
    pub(crate) desk: Arc<Desk>,
}

/// What other threads see of a worker: they ring, tell it to stop, and read what it counted.
#[derive(Debug)]
pub(crate) struct Desk {
    pub(crate) tally: Tally,
    stopping: AtomicBool,
    rung: AtomicBool,
    waker: Waker,
}

/// See the module.
pub(crate) struct Worker<S: Store> {
    poll: Poll,
    /// `None` from the order to stop on.
    listener: Option<TcpListener>,
    store: S,
    peers: Slab<Peer<S::Image>>,
    scope: Scope,
    deadlines: Deadlines,
    /// Of the last query, never 0.
    serial: u32,
    /// Where the search for a connection to close went last.
    hand: usize,
    /// From when on to look for new connections; `None`: when the poll tells of one.
    accept_at: Option<Instant>,
    /// `Some` from the order to stop on.
    drain_until: Option<Instant>,
    /// Peers that the poll shall tell of: new ones, and those with more to do than one turn allows.
    untold: Vec<u32>,
    queries: Vec<(Ticket, Query)>,
    answers: Vec<(Ticket, Answer<S::Image>)>,
}

impl Seat {
    pub(crate) fn new(listener: TcpListener, options: &Options) -> io::Result<Self> {
        let poll = Poll::new()?;
        listen(&listener, options)?;
        let mut source = SourceFd(&listener.as_raw_fd());
        poll.registry().register(&mut source, LISTENER, Interest::READABLE)?;
        let waker = Waker::new(poll.registry(), WAKE)?;
        let desk = Desk { tally: Tally::new(), stopping: false.into(), rung: false.into(), waker };
        Ok(Self { poll, listener, desk: Arc::new(desk) })
    }
}

impl Desk {
    /// Rings the worker out of its poll. A burst of rings costs one system call.
    pub(crate) fn ring(&self) {
        if !self.rung.swap(true, Ordering::AcqRel) {
            // It adds one to a number, which does not fail.
            let _ = self.waker.wake();
        }
    }

    pub(crate) fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
        self.ring();
    }
}

impl<S: Store> Worker<S> {
    /// The options are the worker's own: its share of the connections, and a copy of the core's
    /// settings, where the core keeps spare buffers.
    pub(crate) fn new(seat: Seat, store: S, options: Options) -> Self {
        let Seat { poll, listener, desk } = seat;
        let (now, buffer) = (clock(), vec![0; READ_BYTES].into_boxed_slice());
        Self {
            poll,
            listener: Some(listener),
            store,
            peers: Slab::new(),
            scope: Scope { now, budget: 0, buffer, options, desk },
            deadlines: Deadlines::new(now.instant),
            serial: 0,
            hand: 0,
            accept_at: Some(now.instant),
            drain_until: None,
            untold: Vec::new(),
            queries: Vec::new(),
            answers: Vec::new(),
        }
    }

    /// Serves until the order to stop and the end of the drain.
    pub(crate) fn run(mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(EVENTS_PER_TURN);
        while self.drain_until.is_none_or(|at| self.now() < at && !self.peers.is_empty()) {
            match self.poll.poll(&mut events, self.timeout()) {
                Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
                Ok(()) | Err(_) => {}
            }
            self.scope.now = clock();
            self.turn(&events);
        }
        // The time to finish is over.
        for mut peer in self.peers.drain() {
            peer.abort();
            peer.connection.handle_reset(self.scope.now);
            peer.report(&self.scope);
            self.scope.desk.tally.closed(CloseReason::Shutdown);
        }
        Ok(())
    }

    fn turn(&mut self, events: &Events) {
        for event in events {
            match event.token() {
                WAKE => {}
                LISTENER => _ = self.accept_at.get_or_insert(self.now()),
                Token(slot) => self.drive(slot as u32, |peer, _| peer.note(event)),
            }
        }
        self.accept(ACCEPTS_PER_TURN);
        self.expire();
        // Before looking at what the ringing was for.
        self.scope.desk.rung.swap(false, Ordering::AcqRel);
        if self.drain_until.is_none() && self.scope.desk.stopping.load(Ordering::Acquire) {
            self.drain();
        }
        self.exchange();
        self.register();
    }

    /// Tells a peer what happened, lets it do all it can, and keeps what it then wants.
    fn drive(&mut self, slot: u32, happened: impl FnOnce(&mut Peer<S::Image>, Now)) {
        let asked_at = self.quarter_ms();
        let Some(peer) = self.peers.get_mut(slot as usize) else { return };
        let (now, scope) = (self.scope.now, &mut self.scope);
        scope.budget = scope.options.turn_bytes_max.max(READ_BYTES);
        // A panic in the code of one connection ends that connection and no other.
        let driven = catch_unwind(AssertUnwindSafe(|| {
            happened(peer, now);
            let again = peer.turn(scope).inspect_err(|_| peer.connection.handle_reset(now));
            peer.report(scope);
            // Slot and serial number name a query. A slot is reused at once, a serial number after
            // four billion queries: an answer that comes too late finds its number nowhere.
            if let Some((id, query)) = peer.connection.poll_query() {
                self.serial = self.serial.wrapping_add(1).max(1);
                (peer.serial, peer.query, peer.asked_at) = (self.serial, id, asked_at);
                let ticket = Ticket(u64::from(slot) << 32 | u64::from(self.serial));
                self.queries.push((ticket, query));
            }
            again
        }));
        let tally = &self.scope.desk.tally;
        match (driven, peer.connection.closed()) {
            (Ok(Ok(again)), None) => {
                self.untold.extend(again.then_some(slot));
                self.deadlines.arm(slot, peer.connection.poll_timeout().unwrap_or(now.instant));
                return;
            }
            (Ok(Ok(_)), Some(reason)) => tally.closed(reason),
            (Ok(Err(error)), _) => {
                if error == Errno::FAULT {
                    tracing::error!("a file was cut short while its image was sent");
                }
                peer.abort();
                tally.broken.add(1);
            }
            (Err(_), _) => {
                tracing::error!("a connection ended with a panic: please report this bug");
                peer.abort();
                tally.panicked.add(1);
            }
        }
        // Closing the socket takes it out of the poll.
        self.peers.remove(slot as usize);
    }

    fn now(&self) -> Instant {
        self.scope.now.instant
    }

    /// Quarters of a millisecond from the start to this turn; starts over every 16 s.
    fn quarter_ms(&self) -> u16 {
        ((self.now() - self.deadlines.start).as_micros() as u64 / 250) as u16
    }

    fn expire(&mut self) {
        let mut from = 0;
        while let Some(slots) = self.deadlines.due(self.now(), from) {
            from = slots.end;
            slots.for_each(|slot| self.drive(slot, Peer::expire));
        }
    }

    /// One batch of queries per turn, and one more for what the answers led to, and so on until
    /// the store has nothing more to say for now or the others must have their turn.
    fn exchange(&mut self) {
        let mut answers = std::mem::take(&mut self.answers);
        for _ in 0..BATCHES_PER_TURN {
            if !self.queries.is_empty() {
                self.store.submit(&mut self.queries);
            }
            self.store.collect(&mut answers);
            if answers.is_empty() {
                break;
            }
            for (ticket, answer) in answers.drain(..) {
                let (slot, serial) = ((ticket.0 >> 32) as u32, ticket.0 as u32);
                let quarter_ms = self.quarter_ms();
                let peer = self.peers.get_mut(slot as usize).filter(|peer| peer.serial == serial);
                let Some(peer) = peer else { continue };
                let (id, quarters) = (peer.query, quarter_ms.wrapping_sub(peer.asked_at));
                peer.serial = 0;
                self.scope.desk.tally.answered(Duration::from_micros(250 * u64::from(quarters)));
                self.drive(slot, |peer, now| peer.connection.handle_answer(now, id, answer));
            }
        }
        self.answers = answers;
    }

    /// Lets the poll tell of these peers, at once if there is something to tell.
    fn register(&mut self) {
        while let Some(slot) = self.untold.pop() {
            let token = Token(slot as usize);
            let Some(peer) = self.peers.get_mut(token.0) else { continue };
            let mut source = SourceFd(&peer.socket.as_raw_fd());
            let (registry, both) = (self.poll.registry(), Interest::READABLE | Interest::WRITABLE);
            let told = match peer.has(REGISTERED) {
                true => registry.reregister(&mut source, token, both),
                false => registry.register(&mut source, token, both),
            };
            peer.flags |= REGISTERED;
            if let Err(error) = told {
                // The system is out of memory for it, so for the next one, too.
                self.drive(slot, |peer, _| peer.flags |= FAILED);
                self.pause(&error);
            }
        }
    }

    /// Takes no more connections than wait already, and lets the open ones finish.
    fn drain(&mut self) {
        self.drain_until = Some(self.now() + self.scope.options.drain_timeout);
        self.accept_at.get_or_insert(self.now());
        self.accept(self.scope.options.backlog.unsigned_abs() as usize);
        (self.listener, self.accept_at) = (None, None);
        (0..self.peers.capacity() as u32).for_each(|slot| {
            self.drive(slot, |peer, now| peer.connection.handle_shutdown(now));
        });
    }

    fn timeout(&self) -> Option<Duration> {
        let left = (!self.queries.is_empty()).then_some(self.now());
        let next = [left, self.deadlines.next(), self.accept_at, self.drain_until];
        next.into_iter().flatten().min().map(|at| at.saturating_duration_since(self.now()))
    }
}

fn clock() -> Now {
    let unix = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    Now { instant: Instant::now(), unix }
}

const LISTENER: Token = Token(usize::MAX);
const WAKE: Token = Token(usize::MAX - 1);
const EVENTS_PER_TURN: usize = 1024;
/// A crowd at the door must not starve those who are inside.
const ACCEPTS_PER_TURN: usize = 64;
/// A check-in needs two, a download four; who pipelines more waits for the others.
const BATCHES_PER_TURN: usize = 8;
const READ_BYTES: usize = 16 * 1024;
