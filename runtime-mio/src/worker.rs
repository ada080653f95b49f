//! One worker: a thread with a poll, a listening socket, a store and its peers. The loop comes
//! first, then what it does with peers and their queries, then the way in and the end.

use std::collections::VecDeque;
use std::io;
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant, UNIX_EPOCH};

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token, Waker};
use otter_protocol::{
    Answer, CloseReason, Connection, Legible, Now, Query, Security, Tally, no_room,
};
use otter_store::{Store, Ticket};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, SocketFlags};
use slab::Slab;

use crate::Options;
use crate::bell::Bell;
use crate::deadlines::Deadlines;
use crate::listen::{Listeners, listen};
use crate::peer::{Peer, Scope};

/// What a worker is made of before it has a store: made early, so that binding reports every error.
#[derive(Debug)]
pub(crate) struct Seat {
    poll: Poll,
    /// None from the order to stop on.
    doors: Vec<Door>,
    pub(crate) desk: Arc<Desk>,
}

/// Where peers come in.
#[derive(Debug)]
struct Door {
    listener: TcpListener,
    security: Security,
    /// From when on to look for new connections; `None`: when the poll tells of one.
    open_at: Option<Instant>,
}

/// What other threads see of a worker: they ring, tell it to stop, and read what it counted.
#[derive(Debug)]
pub(crate) struct Desk {
    pub(crate) tally: Tally,
    bell: Bell,
    waker: Waker,
}

/// See the module.
pub(crate) struct Worker<S: Store> {
    seat: Seat,
    store: S,
    peers: Slab<Peer<S::Image>>,
    scope: Scope,
    deadlines: Deadlines,
    /// Of the last query, never 0.
    serial: u32,
    /// Where the search for a connection to close went last.
    hand: usize,
    /// Peers that wait to go on with their handshakes.
    handshakes: VecDeque<u32>,
    /// Who came in this turn, and by which door: the poll does not tell of them yet.
    newcomers: Vec<(u32, usize)>,
    /// When to look for the ends of those of whom the poll will never tell.
    leaving: VecDeque<(Instant, u32)>,
    /// Has somebody come in in this turn, or sent a part of a request?
    more_is_near: bool,
    /// `Some` from the order to stop on.
    drain_until: Option<Instant>,
    queries: Vec<(Ticket, Query)>,
    answers: Vec<(Ticket, Answer<S::Image>)>,
}

impl Seat {
    pub(crate) fn new(listeners: Listeners, options: &Options) -> io::Result<Self> {
        let poll = Poll::new()?;
        for (index, (listener, _)) in listeners.iter().enumerate() {
            listen(listener, options)?;
            let token = Token(DOORS + index);
            poll.registry().register(&mut SourceFd(&listener.as_raw_fd()), token, ANY)?;
        }
        let waker = Waker::new(poll.registry(), WAKE)?;
        let desk = Desk { tally: Tally::new(), bell: Bell::default(), waker };
        let open_at = Some(Instant::now());
        let door = |(listener, security)| Door { listener, security, open_at };
        let doors = listeners.into_iter().map(door).collect();
        Ok(Self { poll, doors, desk: Arc::new(desk) })
    }
}

impl Desk {
    /// Rings the worker out of its poll. A burst of rings costs one system call.
    pub(crate) fn ring(&self) {
        // It adds one to a number, which does not fail.
        self.bell.ring(|| _ = self.waker.wake());
    }

    pub(crate) fn stop(&self) {
        self.bell.stop();
        self.ring();
    }
}

impl<S: Store<Image: Legible>> Worker<S> {
    /// The options are the worker's own: its share of the connections, and a copy of the core's
    /// settings, where the core keeps spare buffers.
    pub(crate) fn new(seat: Seat, store: S, options: Options) -> Self {
        let (now, desk) = (clock(), Arc::clone(&seat.desk));
        let buffer = vec![0; READ_BYTES];
        Self {
            seat,
            store,
            peers: Slab::new(),
            scope: Scope { now, quarter_ms: 0, budget: 0, buffer, options, desk },
            deadlines: Deadlines::new(now.instant),
            serial: 0,
            hand: 0,
            handshakes: VecDeque::new(),
            newcomers: Vec::new(),
            leaving: VecDeque::new(),
            more_is_near: false,
            drain_until: None,
            queries: Vec::new(),
            answers: Vec::new(),
        }
    }

    /// Serves until the order to stop and the end of the drain.
    pub(crate) fn run(mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(EVENTS_PER_TURN);
        while self.drain_until.is_none_or(|at| self.now() < at && !self.peers.is_empty()) {
            match self.wait(&mut events) {
                Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
                Ok(()) | Err(_) => {}
            }
            self.scope.now = clock();
            self.scope.quarter_ms = ((self.now() - self.deadlines.start).as_micros() / 250) as u16;
            self.turn(&events);
        }
        // The time to finish is over, for those that have not.
        for mut peer in self.peers.drain() {
            peer.abort();
            peer.connection.handle_reset(self.scope.now);
            peer.report(&self.scope);
            self.scope.desk.tally.closed(CloseReason::Shutdown);
        }
        Ok(())
    }

    /// Waits until something happens. Who came in, or sent a part of a request, is mostly not
    /// alone, or has sent the rest within microseconds: where nobody has to be served at once, they
    /// gather meanwhile, which costs less than to wake up for each of them.
    fn wait(&mut self, events: &mut Events) -> io::Result<()> {
        let timeout = self.timeout();
        let has_time = timeout != Some(Duration::ZERO);
        if std::mem::take(&mut self.more_is_near) && has_time {
            self.seat.poll.poll(events, Some(Duration::ZERO))?;
            if !events.is_empty() {
                return Ok(());
            }
            thread::sleep(GATHER);
        }
        self.seat.poll.poll(events, timeout)
    }

    fn turn(&mut self, events: &Events) {
        // Nobody new comes in before all of them are seen, so none meets the wrong peer.
        for event in events {
            match event.token() {
                WAKE => {}
                Token(door @ DOORS..) => self.open(door - DOORS),
                Token(slot) => self.meet(slot as u32, |peer, _| peer.note(event)),
            }
        }
        self.accept(ACCEPTS_PER_TURN);
        self.shake_hands(1 + events.iter().count() / EVENTS_PER_HANDSHAKE);
        self.expire();
        if self.scope.desk.bell.silence() && self.drain_until.is_none() {
            self.drain();
        }
        self.exchange();
        self.settle();
    }

    /// Who came in this turn and stays is watched from now on. Most devices send a request at once,
    /// and its answer is all there is to do: their ends are looked for once, a little later, which
    /// costs less than to let the poll tell.
    fn settle(&mut self) {
        let (now, at) = (self.now(), self.now() + LOOK_AFTER);
        while self.leaving.front().is_some_and(|(at, _)| *at <= now) {
            self.look();
        }
        while let Some((slot, door)) = self.newcomers.pop() {
            match self.peers.get(slot as usize) {
                Some(peer) if peer.leaves_unwatched() => self.leaving.push_back((at, slot)),
                Some(_) | None => self.watch(slot, door),
            }
        }
    }

    /// Looks for the end of who has been leaving for longest.
    fn look(&mut self) {
        let Some((_, slot)) = self.leaving.pop_front() else { return };
        if self.peers.get(slot as usize).is_some_and(Peer::leaves_unwatched) {
            self.drive(slot, Peer::look);
            self.watch(slot, 0);
        }
    }

    /// Lets the poll tell of a peer, and first of what is there already.
    fn watch(&mut self, slot: u32, door: usize) {
        let peer = self.peers.get_mut(slot as usize).filter(|peer| !peer.is_watched());
        let Some(peer) = peer else { return };
        let mut source = SourceFd(&peer.socket.as_raw_fd());
        match self.seat.poll.registry().register(&mut source, Token(slot as usize), ANY) {
            Ok(()) => peer.watched(),
            Err(error) => {
                self.peers.remove(slot as usize);
                self.pause(&error, door);
            }
        }
    }

    /// Tells a peer what happened. Then it does all it can, unless that costs much and others are
    /// to have their turn first.
    fn meet(&mut self, slot: u32, happened: impl FnOnce(&mut Peer<S::Image>, Now)) {
        let Some(peer) = self.peers.get_mut(slot as usize) else { return };
        happened(peer, self.scope.now);
        let Some(is_new) = peer.queues() else { return self.drive(slot, |_, _| {}) };
        self.deadlines.arm(slot, peer.connection.poll_timeout().unwrap_or(self.scope.now.instant));
        if is_new {
            self.handshakes.push_back(slot);
        }
    }

    /// Goes on with so many handshakes, in the order in which they asked. Of those that come in a
    /// flood, each turn takes about as long as with as many requests and no more.
    fn shake_hands(&mut self, most: usize) {
        for _ in 0..most {
            let Some(slot) = self.handshakes.pop_front() else { return };
            self.peers.get_mut(slot as usize).into_iter().for_each(Peer::call);
            self.drive(slot, |_, _| {});
        }
    }

    /// Tells a peer what happened, lets it do all it can, and keeps what it then wants.
    fn drive(&mut self, slot: u32, happened: impl FnOnce(&mut Peer<S::Image>, Now)) {
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
                (peer.serial, peer.query, peer.asked_at) = (self.serial, id, scope.quarter_ms);
                let ticket = Ticket(u64::from(slot) << 32 | u64::from(self.serial));
                self.queries.push((ticket, query));
            }
            again
        }));
        match (driven, peer.connection.closed()) {
            (Ok(Ok(again)), None) => {
                if again && peer.is_watched() {
                    // For another edge at once, after the others have had their turn.
                    let mut source = SourceFd(&peer.socket.as_raw_fd());
                    let (registry, token) = (self.seat.poll.registry(), Token(slot as usize));
                    let _ = registry.reregister(&mut source, token, ANY);
                }
                self.more_is_near |= peer.is_midway();
                self.deadlines.arm(slot, peer.connection.poll_timeout().unwrap_or(now.instant));
                return;
            }
            (Ok(Ok(_)), Some(reason)) => {
                if reason == CloseReason::Torn {
                    tracing::error!("{CUT_SHORT}");
                    peer.abort();
                }
                self.scope.desk.tally.closed(reason);
            }
            (Ok(Err(error)), _) => {
                if error == Errno::FAULT {
                    tracing::error!("{CUT_SHORT}");
                }
                peer.abort();
                self.scope.desk.tally.broken.add(1);
            }
            (Err(_), _) => {
                tracing::error!("a connection ended with a panic: please report this bug");
                peer.abort();
                self.scope.desk.tally.panicked.add(1);
            }
        }
        // Closing the socket takes it out of the poll.
        self.peers.remove(slot as usize);
    }

    fn now(&self) -> Instant {
        self.scope.now.instant
    }

    fn expire(&mut self) {
        let mut from = 0;
        while let Some(slots) = self.deadlines.due(self.now(), from) {
            from = slots.end;
            slots.for_each(|slot| self.meet(slot, Peer::expire));
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
                let peer = self.peers.get_mut(slot as usize).filter(|peer| peer.serial == serial);
                let Some(peer) = peer else { continue };
                let (id, took) = (peer.query, self.scope.quarter_ms.wrapping_sub(peer.asked_at));
                peer.serial = 0;
                self.scope.desk.tally.answered(Duration::from_micros(250 * u64::from(took)));
                self.drive(slot, |peer, now| peer.connection.handle_answer(now, id, answer));
            }
        }
        self.answers = answers;
    }

    /// Somebody is at the door.
    fn open(&mut self, door: usize) {
        let (now, door) = (self.now(), self.seat.doors.get_mut(door));
        door.into_iter().for_each(|door| _ = door.open_at.get_or_insert(now));
    }

    /// Accepts at each door until nobody is left, or so many. Who will shake hands waits outside
    /// while too many do inside.
    fn accept(&mut self, most: usize) {
        for index in 0..self.seat.doors.len() {
            for _ in 0..most {
                let (now, crowd) = (self.now(), self.handshakes.len());
                let door = &mut self.seat.doors[index];
                let is_full = crowd >= HANDSHAKES_MAX && !matches!(door.security, Security::Plain);
                if is_full || door.open_at.is_none_or(|at| at > now) {
                    break;
                }
                match rustix::net::accept_with(&door.listener, SocketFlags::CLOEXEC) {
                    Ok(socket) => self.admit(socket.into(), index),
                    Err(Errno::AGAIN) => door.open_at = None,
                    Err(Errno::INTR | Errno::CONNABORTED | Errno::PROTO) => {}
                    Err(error) => self.pause(&error.into(), index),
                }
            }
        }
    }

    /// No descriptor, no memory: trying again at once would only burn the CPU that the peers need
    /// to finish and make room. No edge tells of those who wait already, so the pause has an end.
    fn pause(&mut self, error: &io::Error, door: usize) {
        let (until, door) = (self.now() + PAUSE, self.seat.doors.get_mut(door));
        door.into_iter().for_each(|door| door.open_at = Some(until));
        self.scope.desk.tally.accept_pauses.add(1);
        tracing::warn!(%error, "cannot accept; allow more open files or lower connections_max");
    }

    fn admit(&mut self, socket: TcpStream, door: usize) {
        if self.peers.len() >= self.scope.options.connections_max && !self.make_room() {
            return self.refuse(&socket, door);
        }
        let (config, security) = (&self.scope.options.config, &self.seat.doors[door].security);
        let connection = Connection::accept(Arc::clone(config), security, self.scope.now);
        let slot = self.peers.insert(Peer::new(connection, socket));
        self.newcomers.push((slot as u32, door));
        self.more_is_near = true;
        self.scope.desk.tally.accepted.add(1);
        // The request is often there already, and often its answer is all there is to do.
        self.meet(slot as u32, |_, _| {});
    }

    /// Closes a connection whose end has come, or else an idle one: going round, the next one. An
    /// exact order of all, to close the one that is idle for longest, would cost every connection
    /// 8 bytes, and every request an update.
    fn make_room(&mut self) -> bool {
        while !self.leaving.is_empty() {
            self.look();
            if self.peers.len() < self.scope.options.connections_max {
                return true;
            }
        }
        let is_found = (0..EVICTION_TRIES.min(self.peers.len())).any(|_| {
            // As many as there may be: no slot before the last one is free.
            self.hand = (self.hand + 1) % self.peers.len();
            self.peers.get(self.hand).is_some_and(|peer| peer.connection.is_idle())
        });
        if is_found {
            self.drive(self.hand as u32, |peer, now| peer.connection.handle_shutdown(now));
            self.scope.desk.tally.evicted.add(1);
        }
        is_found
    }

    /// Says 503 once, if the socket takes it, and forgets the peer.
    fn refuse(&mut self, socket: &TcpStream, door: usize) {
        // What is not read would turn the end into a reset, which can destroy the answer.
        let _ = rustix::net::recv(socket, &mut *self.scope.buffer, RecvFlags::DONTWAIT);
        let refused = &self.scope.desk.tally.refused;
        let answer = no_room(&self.scope.options.config, refused.read());
        refused.add(1);
        if !matches!(self.seat.doors[door].security, Security::Plain) {
            return;
        }
        let _ = rustix::net::send(socket, &answer, SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
    }

    /// Takes no more connections than wait already, and lets the open ones finish.
    fn drain(&mut self) {
        self.drain_until = Some(self.now() + self.scope.options.drain_timeout);
        (0..self.seat.doors.len()).for_each(|door| self.open(door));
        self.accept(self.scope.options.backlog.unsigned_abs() as usize);
        self.seat.doors.clear();
        (0..self.peers.capacity() as u32).for_each(|slot| {
            self.drive(slot, |peer, now| peer.connection.handle_shutdown(now));
        });
    }

    fn timeout(&self) -> Option<Duration> {
        let is_busy = !self.queries.is_empty() || !self.handshakes.is_empty();
        let look = self.leaving.front().map(|(at, _)| *at);
        let next = [is_busy.then_some(self.now()), self.deadlines.next(), self.drain_until, look];
        let doors = self.seat.doors.iter().map(|door| door.open_at);
        next.into_iter()
            .chain(doors)
            .flatten()
            .min()
            .map(|at| at.saturating_duration_since(self.now()))
    }
}

fn clock() -> Now {
    Now { instant: Instant::now(), unix: UNIX_EPOCH.elapsed().map_or(0, |since| since.as_secs()) }
}

const WAKE: Token = Token(DOORS - 1);
/// The token of the first door.
const DOORS: usize = usize::MAX / 2;
/// Whatever can happen to a socket.
const ANY: Interest = Interest::READABLE.add(Interest::WRITABLE);
const EVENTS_PER_TURN: usize = 1024;
/// A crowd at the door must not starve those who are inside.
const ACCEPTS_PER_TURN: usize = 64;
/// A full handshake takes about as long as so many check-ins.
const EVENTS_PER_HANDSHAKE: usize = 16;
/// Half a second's work.
const HANDSHAKES_MAX: usize = 2048;
/// A check-in needs two, a download four; who pipelines more waits for the others.
const BATCHES_PER_TURN: usize = 8;
const READ_BYTES: usize = 16 * 1024;
const EVICTION_TRIES: usize = 64;
/// With what a timer is late, 50 us, no more than a tenth of a millisecond.
const GATHER: Duration = Duration::from_micros(30);
/// A device that is told everything has mostly closed its side by then.
const LOOK_AFTER: Duration = Duration::from_millis(100);
const CUT_SHORT: &str = "a file was cut short while its image was sent";
/// Also how often the log may say so.
const PAUSE: Duration = Duration::from_millis(250);
