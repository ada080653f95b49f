//! One worker: a thread with a poll, a listening socket, a store and its peers.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::net::TcpListener;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use mio::event::Event;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token, Waker};
use otter_protocol::{Answer, CloseReason, Connection, Now, Query};
use otter_store::{Store, Ticket};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, SocketFlags};
use slab::Slab;

use crate::counters::Tally;
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
    shared: Arc<Shared>,
    poll: Poll,
    bell: Arc<Bell>,
    door: Door,
    store: S,
    peers: Slab<Peer<S::Image>>,
    deadlines: Deadlines,
    start: Instant,
    /// Serial number of the last query.
    serial: u32,
    /// Where the search for a connection to evict goes on.
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
    buffer: Box<[u8]>,
}

/// Where new connections come in.
struct Door {
    /// `None` from the order to stop on.
    listener: Option<TcpListener>,
    /// Connections may be waiting.
    ready: bool,
    /// Not before.
    paused_until: Option<Instant>,
    pause: Duration,
    logged: Option<Instant>,
}

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
        let door = Door {
            listener: Some(listener),
            ready: true,
            paused_until: None,
            pause: Duration::ZERO,
            logged: None,
        };
        Self {
            index,
            options,
            shared,
            poll,
            bell,
            door,
            store,
            peers: Slab::new(),
            deadlines: Deadlines::new(start),
            start,
            serial: 0,
            hand: 0,
            drain_until: None,
            queue: VecDeque::new(),
            fresh: Vec::new(),
            due: Vec::new(),
            queries: Vec::new(),
            answers: Vec::new(),
            buffer: vec![0; READ_BYTES].into_boxed_slice(),
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
        for event in events {
            match event.token() {
                WAKE => {}
                LISTENER => self.door.ready = true,
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
        self.register();
    }

    /// Tells a peer what happened, lets it do all it can, and keeps what it then wants.
    fn drive(&mut self, slot: u32, now: Now, happened: impl FnOnce(&mut Peer<S::Image>)) {
        let Some(peer) = self.peers.get_mut(slot as usize) else { return };
        let tally = &self.shared.tallies[self.index];
        let options = &self.options;
        let budget = options.turn_bytes_max;
        let mut scope = Scope { now, buffer: &mut self.buffer, budget, tally };
        // A panic in the code of one connection ends that connection and no other.
        let driven = catch_unwind(AssertUnwindSafe(|| {
            happened(peer);
            let turn = peer.turn(&mut scope);
            if turn.is_err() {
                peer.connection.handle_eof(now);
            }
            report(peer, tally, options);
            turn.map(|again| (again, peer.connection.poll_query(), peer.connection.closed()))
        }));
        match driven {
            Ok(Ok((_, _, Some(reason)))) => {
                tally.closed(reason);
                self.remove(slot);
            }
            Ok(Ok((again, query, None))) => {
                if let Some((id, query)) = query {
                    self.serial = self.serial.wrapping_add(1);
                    peer.ask(self.serial, id, quarter_ms(self.start, now));
                    self.queries.push((ticket(slot, self.serial), query));
                }
                if again && !peer.has(QUEUED) {
                    peer.set(QUEUED);
                    self.queue.push_back(slot);
                }
                if let Some(at) = peer.connection.poll_timeout() {
                    self.deadlines.arm(slot, at);
                }
            }
            Ok(Err(error)) => {
                if error == Errno::FAULT {
                    tracing::error!("an image ended before its transfer: its file was cut short");
                    peer.abort();
                }
                tally.broken.add(1);
                self.remove(slot);
            }
            Err(_) => {
                tracing::error!("a connection ended with a panic: please report this bug");
                peer.abort();
                tally.panicked.add(1);
                self.remove(slot);
            }
        }
    }

    fn remove(&mut self, slot: u32) {
        self.deadlines.disarm(slot);
        // Closing the socket takes it out of the poll.
        self.peers.remove(slot as usize);
    }

    fn accept(&mut self, now: Now, most: usize) {
        if self.door.paused_until.is_some_and(|until| now.instant < until) {
            return;
        }
        self.door.paused_until = None;
        for _ in 0..most {
            let Some(listener) = self.door.listener.as_ref().filter(|_| self.door.ready) else {
                return;
            };
            let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
            match rustix::net::accept_with(listener, flags) {
                Ok(socket) => {
                    self.door.pause = Duration::ZERO;
                    self.admit(socket, now);
                }
                Err(Errno::AGAIN) => self.door.ready = false,
                Err(Errno::INTR | Errno::CONNABORTED | Errno::PROTO) => {}
                Err(error) => return self.pause(error, now.instant),
            }
        }
    }

    /// No descriptor, no memory: trying again at once would only burn the CPU that the other
    /// peers need to finish and make room.
    fn pause(&mut self, error: Errno, now: Instant) {
        let door = &mut self.door;
        door.pause = (door.pause * 2).clamp(PAUSE_MIN, PAUSE_MAX);
        door.paused_until = Some(now + door.pause);
        self.shared.tallies[self.index].accept_pauses.add(1);
        if door.logged.is_none_or(|at| now.saturating_duration_since(at) >= LOG_INTERVAL) {
            door.logged = Some(now);
            tracing::warn!(
                %error,
                open = self.peers.len(),
                "cannot accept; raise the limit of open files or lower connections_max"
            );
        }
    }

    fn admit(&mut self, socket: OwnedFd, now: Now) {
        if self.peers.len() >= self.shared.connections_max && !self.make_room(now) {
            return self.refuse(&socket);
        }
        self.shared.tallies[self.index].accepted.add(1);
        let connection = Connection::plain(Arc::clone(&self.options.config), now);
        let slot = self.peers.insert(Peer::new(connection, socket)) as u32;
        self.fresh.push(slot);
        // The request is often there already, and often its answer is all there is to do.
        self.drive(slot, now, |_| {});
    }

    /// Closes a connection that waits for its peer: of a few at a time, going round, the one whose
    /// deadline comes first, which among idle ones is the one that is idle for longest. A list of
    /// all in exact order would cost every connection 8 bytes, and every request an update.
    fn make_room(&mut self, now: Now) -> bool {
        for _ in 0..EVICTION_TRIES {
            let mut oldest: Option<(Instant, usize)> = None;
            for _ in 0..EVICTION_SAMPLE.min(self.peers.capacity()) {
                self.hand = (self.hand + 1) % self.peers.capacity();
                if let Some(peer) = self.peers.get(self.hand)
                    && peer.is_waiting()
                    && let Some(at) = peer.connection.poll_timeout()
                    && oldest.is_none_or(|(first, _)| at < first)
                {
                    oldest = Some((at, self.hand));
                }
            }
            if let Some((_, slot)) = oldest {
                self.drive(slot as u32, now, |peer| peer.connection.handle_shutdown(now));
                if !self.peers.contains(slot) {
                    self.shared.tallies[self.index].evicted.add(1);
                    return true;
                }
            }
        }
        false
    }

    /// Says 503 once, if the socket takes it, and forgets the peer.
    fn refuse(&mut self, socket: &OwnedFd) {
        let tally = &self.shared.tallies[self.index];
        tally.refused.add(1);
        // What is not read would turn the end into a reset, which can destroy the answer.
        let _ = rustix::net::recv(socket, &mut *self.buffer, RecvFlags::DONTWAIT);
        // A crowd that was refused together should not come back together.
        let base = self.options.config.retry_after_s;
        let spread = tally.refused.read() % u64::from(base.max(1));
        let retry_after_s = u64::from(base) + spread;
        let mut answer = Vec::with_capacity(256);
        let written = write!(
            answer,
            "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\nConnection: close\r\nRetry-After: {retry_after_s}\r\n\r\n{}",
            REFUSAL.len(),
            REFUSAL
        );
        if written.is_ok() {
            let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
            let _ = rustix::net::send(socket, &answer, flags);
        }
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

    /// One batch of queries per turn, and one more for what the answers led to, until the store
    /// has nothing more to say for now.
    fn exchange(&mut self, now: Now) {
        let mut answers = std::mem::take(&mut self.answers);
        loop {
            if !self.queries.is_empty() {
                self.store.submit(&mut self.queries);
            }
            self.store.collect(&mut answers);
            if answers.is_empty() {
                break;
            }
            for (ticket, answer) in answers.drain(..) {
                let (slot, serial) = (ticket_slot(ticket), ticket.0 as u32);
                let asked = self.peers.get_mut(slot as usize).and_then(|p| p.answered(serial));
                let Some((id, at)) = asked else { continue };
                let tally = &self.shared.tallies[self.index];
                tally.answer(quarter_ms(self.start, now).wrapping_sub(at));
                self.drive(slot, now, |peer| peer.connection.handle_answer(now, id, answer));
            }
        }
        self.answers = answers;
    }

    /// Lets the poll know those of the new peers that are still there.
    fn register(&mut self) {
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
                tracing::warn!(%error, "cannot watch a connection; it is closed");
                self.shared.tallies[self.index].broken.add(1);
                self.remove(slot);
            }
        }
    }

    /// Takes no more connections than wait already, and lets the open ones finish.
    fn drain(&mut self, now: Now) {
        self.drain_until = Some(now.instant + self.options.drain_timeout);
        self.door.ready = true;
        self.accept(now, self.options.backlog.unsigned_abs() as usize);
        self.door.listener = None;
        let slots = self.peers.iter().map(|(slot, _)| slot as u32).collect::<Vec<_>>();
        for slot in slots {
            self.drive(slot, now, |peer| peer.connection.handle_shutdown(now));
        }
    }

    /// The time to finish is over.
    fn cut_off(&mut self, now: Now) {
        for mut peer in self.peers.drain() {
            peer.abort();
            peer.connection.handle_eof(now);
            let tally = &self.shared.tallies[self.index];
            report(&mut peer, tally, &self.options);
            tally.closed(CloseReason::Shutdown);
        }
    }

    fn timeout(&self, now: Instant) -> Option<Duration> {
        let paused = self.door.paused_until;
        let open = self.door.listener.is_some();
        if open && self.door.ready && paused.is_none() || !self.queue.is_empty() {
            return Some(Duration::ZERO);
        }
        let wait = |until: Instant| until.saturating_duration_since(now);
        let paused = paused.filter(|_| open).map(wait);
        let drain = self.drain_until.map(wait);
        [self.deadlines.timeout(now), paused, drain].into_iter().flatten().min()
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

fn report<I: AsRef<[u8]> + Clone>(peer: &mut Peer<I>, tally: &Tally, options: &Options) {
    while let Some(report) = peer.connection.poll_report() {
        tally.request(&report);
        if let Some(on_report) = &options.on_report {
            on_report(&report, peer.address());
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

fn quarter_ms(start: Instant, now: Now) -> u16 {
    (now.instant.saturating_duration_since(start).as_micros() / 250) as u16
}

const LISTENER: Token = Token(usize::MAX);
const WAKE: Token = Token(usize::MAX - 1);
const EVENTS_PER_TURN: usize = 1024;
/// A crowd at the door must not starve those who are inside.
const ACCEPTS_PER_TURN: usize = 64;
const READ_BYTES: usize = 16 * 1024;
const EVICTION_SAMPLE: usize = 16;
const EVICTION_TRIES: usize = 3;
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(1);
const LOG_INTERVAL: Duration = Duration::from_secs(1);
const REFUSAL: &str = r#"{"success":false,"response":"unavailable"}"#;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_carries_slot_and_serial() {
        for (slot, serial) in [(0, 0), (1, u32::MAX), (0x00ff_ffff, 7), (u32::MAX, u32::MAX)] {
            let ticket = ticket(slot, serial);
            assert_eq!((ticket_slot(ticket), ticket.0 as u32), (slot, serial));
        }
    }
}
