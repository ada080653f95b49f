//! One worker: a thread with a poll, a listening socket, a store and its peers.

mod door;

use std::collections::VecDeque;
use std::io;
use std::net::TcpListener;
use std::os::fd::{AsFd, AsRawFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use mio::event::Event;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token, Waker};
use otter_protocol::{Answer, CloseReason, Config, Now, Query, Tally};
use otter_store::{Store, Ticket};
use rustix::io::Errno;
use slab::Slab;

use self::door::Door;
use crate::deadlines::Deadlines;
use crate::peer::{ENDED, FAILED, Peer, QUEUED, READABLE, REGISTERED, Scope, WRITABLE};
use crate::{Options, Shared};

/// What a worker is made of before it has a store: made early, so that binding reports every error.
#[derive(Debug)]
pub(crate) struct Seat {
    poll: Poll,
    listener: TcpListener,
    bell: Arc<Bell>,
}

/// Rings a worker out of its poll. A burst of rings costs one system call.
#[derive(Debug)]
pub(crate) struct Bell {
    rung: AtomicBool,
    waker: Waker,
}

/// See the module.
pub(crate) struct Worker<S: Store> {
    index: usize,
    options: Arc<Options>,
    /// The worker's own: the core keeps spare buffers there.
    config: Arc<Config>,
    shared: Arc<Shared>,
    poll: Poll,
    bell: Arc<Bell>,
    door: Door,
    store: S,
    peers: Slab<Peer<S::Image>>,
    deadlines: Deadlines,
    start: Instant,
    /// Quarters of a millisecond from `start` to this turn; starts over every 16 s.
    quarter_ms: u16,
    /// Serial number of the last query.
    serial: u32,
    /// Where the search for a connection to close went last.
    hand: usize,
    /// `Some` from the order to stop on.
    drain_until: Option<Instant>,
    /// Peers with more to do than one turn allows.
    queue: VecDeque<u32>,
    /// Peers that were accepted in this turn and are not registered yet.
    fresh: Vec<u32>,
    due: Vec<u32>,
    queries: Vec<(Ticket, Query)>,
    answers: Vec<(Ticket, Answer<S::Image>)>,
    /// The store may have more to say at once.
    unfinished: bool,
    buffer: Box<[u8]>,
    log: Throttle,
}

/// Lets one message per second through.
#[derive(Default)]
struct Throttle(Option<Instant>);

impl Seat {
    pub(crate) fn new(listener: TcpListener) -> io::Result<Self> {
        let poll = Poll::new()?;
        let fd = listener.as_raw_fd();
        poll.registry().register(&mut SourceFd(&fd), LISTENER, Interest::READABLE)?;
        let waker = Waker::new(poll.registry(), WAKE)?;
        Ok(Self { poll, listener, bell: Arc::new(Bell { rung: AtomicBool::new(false), waker }) })
    }

    pub(crate) fn bell(&self) -> Arc<Bell> {
        Arc::clone(&self.bell)
    }
}

impl Bell {
    pub(crate) fn ring(&self) {
        if !self.rung.swap(true, Ordering::AcqRel)
            && let Err(error) = self.waker.wake()
        {
            tracing::error!(%error, "a worker cannot be woken; it goes on with its next event");
        }
    }

    /// To be called before looking at what the ringing was for.
    fn hush(&self) {
        self.rung.swap(false, Ordering::AcqRel);
    }
}

impl Throttle {
    fn allows(&mut self, now: Instant) -> bool {
        let allowed = self.0.is_none_or(|last| now.saturating_duration_since(last) >= LOG_INTERVAL);
        if allowed {
            self.0 = Some(now);
        }
        allowed
    }
}

impl<S: Store> Worker<S> {
    pub(crate) fn new(
        index: usize,
        seat: Seat,
        store: S,
        options: Arc<Options>,
        shared: Arc<Shared>,
    ) -> Self {
        let start = Instant::now();
        let Seat { poll, listener, bell } = seat;
        Self {
            index,
            config: Arc::new(Config::clone(&options.config)),
            options,
            shared,
            poll,
            bell,
            door: Door::new(listener),
            store,
            peers: Slab::new(),
            deadlines: Deadlines::new(start),
            start,
            quarter_ms: 0,
            serial: 0,
            hand: 0,
            drain_until: None,
            queue: VecDeque::new(),
            fresh: Vec::new(),
            due: Vec::new(),
            queries: Vec::new(),
            answers: Vec::new(),
            unfinished: false,
            buffer: vec![0; READ_BYTES].into_boxed_slice(),
            log: Throttle::default(),
        }
    }

    /// Serves until the order to stop and the end of the drain.
    pub(crate) fn run(mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(EVENTS_PER_TURN);
        let mut timeout = Some(Duration::ZERO);
        loop {
            match self.poll.poll(&mut events, timeout) {
                Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
                Ok(()) | Err(_) => {}
            }
            let now = clock();
            self.turn(&events, now);
            if let Some(until) = self.drain_until
                && (self.peers.is_empty() || now.instant >= until)
            {
                self.cut_off(now);
                return Ok(());
            }
            timeout = self.timeout(now.instant);
        }
    }

    fn turn(&mut self, events: &Events, now: Now) {
        let since_start = now.instant.saturating_duration_since(self.start);
        self.quarter_ms = (since_start.as_micros() / 250) as u16;
        for event in events {
            match event.token() {
                WAKE => {}
                LISTENER => self.door.knock(),
                Token(slot) => self.drive(slot as u32, now, |peer| note(peer, event)),
            }
        }
        self.accept(now, ACCEPTS_PER_TURN);
        for _ in 0..self.queue.len() {
            let Some(slot) = self.queue.pop_front() else { break };
            self.drive(slot, now, |peer| peer.clear(QUEUED));
        }
        self.expire(now);
        self.bell.hush();
        if self.drain_until.is_none() && self.shared.is_stopping() {
            self.drain(now);
        }
        self.exchange(now);
        self.register(now);
    }

    /// Tells a peer what happened, lets it do all it can, and keeps what it then wants.
    fn drive(&mut self, slot: u32, now: Now, happened: impl FnOnce(&mut Peer<S::Image>)) {
        let Some(peer) = self.peers.get_mut(slot as usize) else { return };
        let tally = &self.shared.tallies[self.index];
        let on_report = self.options.on_report.as_ref();
        let budget = self.options.turn_bytes_max.max(READ_BYTES);
        let mut scope = Scope { now, buffer: &mut self.buffer, budget, tally, on_report };
        // A panic in the code of one connection ends that connection and no other.
        let driven = catch_unwind(AssertUnwindSafe(|| {
            happened(peer);
            let turn = peer.turn(&mut scope);
            if turn.is_err() {
                peer.connection.handle_reset(now);
            }
            peer.report(tally, on_report);
            if let Some((id, query)) = peer.connection.poll_query() {
                self.serial = self.serial.wrapping_add(1);
                peer.ask(self.serial, id, self.quarter_ms);
                self.queries.push((ticket(slot, self.serial), query));
            }
            turn
        }));
        match (driven, peer.connection.closed()) {
            (Ok(Ok(_)), Some(reason)) => {
                tally.closed(reason);
                self.remove(slot);
            }
            (Ok(Ok(again)), None) => {
                if again && !peer.has(QUEUED) {
                    peer.set(QUEUED);
                    self.queue.push_back(slot);
                }
                if let Some(at) = peer.connection.poll_timeout() {
                    self.deadlines.arm(slot, at);
                }
            }
            (Ok(Err(error)), _) => {
                if error == Errno::FAULT {
                    peer.abort();
                    if self.log.allows(now.instant) {
                        tracing::error!("a file was cut short while its image was sent");
                    }
                }
                tally.broken.add(1);
                self.remove(slot);
            }
            (Err(_), _) => {
                tracing::error!("a connection ended with a panic: please report this bug");
                peer.abort();
                tally.panicked.add(1);
                self.remove(slot);
            }
        }
    }

    fn tally(&self) -> &Tally {
        &self.shared.tallies[self.index]
    }

    fn remove(&mut self, slot: u32) {
        self.deadlines.disarm(slot);
        // Closing the socket takes it out of the poll.
        self.peers.remove(slot as usize);
    }

    fn expire(&mut self, now: Now) {
        let mut due = std::mem::take(&mut self.due);
        self.deadlines.fire(now.instant, &mut due);
        for slot in due.drain(..) {
            let Some(peer) = self.peers.get(slot as usize) else { continue };
            match peer.connection.poll_timeout() {
                // It moved since, as almost all do.
                Some(at) if at > now.instant => self.deadlines.arm(slot, at),
                Some(_) | None => self.drive(slot, now, |peer| peer.expire(now)),
            }
        }
        self.due = due;
    }

    /// One batch of queries per turn, and one more for what the answers led to, and so on until
    /// the store has nothing more to say for now or the others must have their turn.
    fn exchange(&mut self, now: Now) {
        let mut answers = std::mem::take(&mut self.answers);
        for _ in 0..BATCHES_PER_TURN {
            if !self.queries.is_empty() {
                self.store.submit(&mut self.queries);
            }
            self.store.collect(&mut answers);
            self.unfinished = !answers.is_empty();
            if !self.unfinished {
                break;
            }
            for (ticket, answer) in answers.drain(..) {
                let (slot, serial) = (ticket_slot(ticket), ticket.0 as u32);
                let asked = self.peers.get_mut(slot as usize).and_then(|p| p.answered(serial));
                let Some((id, at)) = asked else { continue };
                let took = Duration::from_micros(250) * self.quarter_ms.wrapping_sub(at).into();
                self.tally().answered(took);
                self.drive(slot, now, |peer| peer.connection.handle_answer(now, id, answer));
            }
        }
        self.answers = answers;
    }

    /// Lets the poll know those of the new peers that are still there.
    fn register(&mut self, now: Now) {
        while let Some(slot) = self.fresh.pop() {
            let Some(peer) = self.peers.get_mut(slot as usize) else { continue };
            if peer.has(REGISTERED) {
                continue;
            }
            peer.set(REGISTERED);
            let fd = peer.as_fd().as_raw_fd();
            let interest = Interest::READABLE | Interest::WRITABLE;
            let registry = self.poll.registry();
            if let Err(error) =
                registry.register(&mut SourceFd(&fd), Token(slot as usize), interest)
            {
                // The system is out of memory for it, so for the next one, too.
                self.tally().accept_pauses.add(1);
                self.tally().broken.add(1);
                self.remove(slot);
                self.door.pause(now.instant, &error);
            }
        }
    }

    /// Takes no more connections than wait already, and lets the open ones finish.
    fn drain(&mut self, now: Now) {
        self.drain_until = Some(now.instant + self.options.drain_timeout);
        self.door.knock();
        self.accept(now, self.options.backlog.unsigned_abs() as usize);
        self.door.close();
        let slots = self.peers.iter().map(|(slot, _)| slot as u32).collect::<Vec<_>>();
        for slot in slots {
            self.drive(slot, now, |peer| peer.finish(now));
        }
    }

    /// The time to finish is over.
    fn cut_off(&mut self, now: Now) {
        let tally = &self.shared.tallies[self.index];
        for mut peer in self.peers.drain() {
            peer.abort();
            peer.connection.handle_reset(now);
            peer.report(tally, self.options.on_report.as_ref());
            tally.closed(CloseReason::Shutdown);
        }
    }

    fn timeout(&self, now: Instant) -> Option<Duration> {
        if self.unfinished || !self.queue.is_empty() {
            return Some(Duration::ZERO);
        }
        let drain = self.drain_until.map(|until| until.saturating_duration_since(now));
        let waits = [self.deadlines.timeout(now), self.door.timeout(now), drain];
        waits.into_iter().flatten().min()
    }
}

fn note<I: AsRef<[u8]> + Clone>(peer: &mut Peer<I>, event: &Event) {
    if !peer.has(REGISTERED) {
        // Meant for the peer that had this slot before, earlier in this turn.
        return;
    }
    for (seen, flags) in [
        (event.is_readable(), READABLE),
        (event.is_writable(), WRITABLE),
        (event.is_read_closed(), READABLE | ENDED),
        (event.is_error(), FAILED),
    ] {
        if seen {
            peer.set(flags);
        }
    }
}

/// Slot in the upper half, serial number in the lower. A slot is reused at once, a serial number
/// after four billion queries: an answer that comes too late finds its number nowhere.
fn ticket(slot: u32, serial: u32) -> Ticket {
    Ticket(u64::from(slot) << 32 | u64::from(serial))
}

fn ticket_slot(ticket: Ticket) -> u32 {
    (ticket.0 >> 32) as u32
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
const LOG_INTERVAL: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_complaint_is_made_once_per_second() {
        let mut log = Throttle::default();
        let start = Instant::now();
        for (ms, allowed) in [(0, true), (1, false), (999, false), (1000, true), (1999, false)] {
            assert_eq!(log.allows(start + Duration::from_millis(ms)), allowed, "{ms}");
        }
    }

    #[test]
    fn a_ticket_carries_slot_and_serial() {
        for (slot, serial) in [(0, 0), (1, u32::MAX), (0x00ff_ffff, 7), (u32::MAX, u32::MAX)] {
            let ticket = ticket(slot, serial);
            assert_eq!((ticket_slot(ticket), ticket.0 as u32), (slot, serial));
        }
    }
}
