//! One thread of a load: many connections at once, none of which holds up the next.

use std::io::{self, Read, Write};
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use slab::Slab;

use super::fleet::Fleet;
use super::verdict::judge;
use super::{Class, Part, Plan, Sent, Shared};
use crate::Reply;

#[derive(Debug)]
pub(super) struct Driver {
    plan: Plan,
    shared: Arc<Shared>,
    fleet: Fleet,
    poll: Poll,
    flights: Slab<Flight>,
    /// When the next check-in is due.
    due: Instant,
    server: usize,
    lateness_max: Duration,
}

/// A check-in under way.
#[derive(Debug)]
struct Flight {
    stream: TcpStream,
    device: usize,
    version: u32,
    server: usize,
    at: Instant,
    request: Vec<u8>,
    written: usize,
    received: Vec<u8>,
}

/// How a flight ended.
enum End {
    Reply(Reply),
    Closed,
    Silent,
}

impl Driver {
    pub(super) fn new(number: u32, plan: Plan, shared: Arc<Shared>) -> Self {
        let fleet = Fleet::new(number, plan.threads, plan.seed);
        // The threads send one after the other.
        let due = Instant::now() + Duration::from_secs(1) * number / plan.rate;
        Self {
            fleet,
            shared,
            poll: Poll::new().expect("a poll"),
            flights: Slab::new(),
            due,
            server: number as usize,
            lateness_max: Duration::ZERO,
            plan,
        }
    }

    pub(super) fn run(mut self) -> Part {
        let mut events = Events::with_capacity(1024);
        loop {
            let is_stopping = self.shared.is_stopping.load(Ordering::Relaxed);
            if is_stopping && self.flights.is_empty() {
                break;
            }
            let mut now = Instant::now();
            while !is_stopping && self.due <= now {
                self.lateness_max = self.lateness_max.max(now - self.due);
                self.due += Duration::from_secs(1) * self.plan.threads / self.plan.rate;
                self.launch(now);
                now = Instant::now();
            }
            let wait = self.due.saturating_duration_since(now).clamp(WAIT_MIN, WAIT_MAX);
            match self.poll.poll(&mut events, Some(wait)) {
                Err(error) if error.kind() != io::ErrorKind::Interrupted => {
                    panic!("poll: {error}")
                }
                Ok(()) | Err(_) => {}
            }
            for event in &events {
                self.advance(event.token().0);
            }
            self.give_up();
        }
        Part { acknowledged: self.fleet.into_acknowledged(), lateness_max: self.lateness_max }
    }

    fn launch(&mut self, at: Instant) {
        let check_in = self.fleet.check_in(&self.plan);
        let servers = self.shared.servers.lock().unwrap_or_else(PoisonError::into_inner);
        let server = self.server % servers.len();
        let address = servers[server];
        drop(servers);
        self.server = server + 1;
        let (device, version) = (check_in.device, check_in.version);
        let Ok(stream) = TcpStream::connect(address) else {
            self.settle(device, version, server, at, End::Closed);
            return;
        };
        let entry = self.flights.vacant_entry();
        let token = Token(entry.key());
        let request = check_in.request;
        let received = Vec::new();
        let flight = Flight { stream, device, version, server, at, request, written: 0, received };
        let flight = entry.insert(flight);
        let interest = Interest::READABLE | Interest::WRITABLE;
        self.poll.registry().register(&mut flight.stream, token, interest).expect("registered");
    }

    fn advance(&mut self, key: usize) {
        // An event of a flight that has ended in this turn.
        let Some(flight) = self.flights.get_mut(key) else { return };
        if let Some(end) = flight.advance() {
            self.end(key, end);
        }
    }

    fn give_up(&mut self) {
        let now = Instant::now();
        let late = |flight: &Flight| now.duration_since(flight.at) > self.plan.patience;
        let late: Vec<_> =
            self.flights.iter().filter(|(_, flight)| late(flight)).map(|(key, _)| key).collect();
        for key in late {
            self.end(key, End::Silent);
        }
    }

    fn end(&mut self, key: usize, end: End) {
        let Flight { device, version, server, at, .. } = self.flights.remove(key);
        self.settle(device, version, server, at, end);
    }

    fn settle(&mut self, device: usize, version: u32, server: usize, at: Instant, end: End) {
        let (status, class, udid) = match end {
            End::Closed => (None, Class::Closed, None),
            End::Silent => (None, Class::Silent, None),
            End::Reply(reply) => {
                let asked = self.fleet.asked(device, &self.plan.owner);
                let (class, udid) = judge(&reply, &asked);
                (Some(reply.status), class, udid)
            }
        };
        let mac = self.fleet.mac(device).to_owned();
        self.fleet.settle(device, version, udid);
        self.shared.sent().push(Sent { at, latency: at.elapsed(), server, mac, status, class });
    }
}

impl Flight {
    /// Sends and receives what is possible now.
    fn advance(&mut self) -> Option<End> {
        while self.written < self.request.len() {
            match self.stream.write(&self.request[self.written..]) {
                Ok(n) => self.written += n,
                // Too early, or refused; then there may be an answer nevertheless.
                Err(_) => break,
            }
        }
        let mut buffer = [0; 4096];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => return Some(End::Closed),
                Ok(n) => self.received.extend_from_slice(&buffer[..n]),
                Err(error) if is_early(&error) => return None,
                Err(_) => return Some(End::Closed),
            }
            if let Some((reply, _)) = Reply::parse(&self.received, false) {
                return Some(End::Reply(reply));
            }
        }
    }
}

/// Not connected yet, or nothing there yet.
fn is_early(error: &io::Error) -> bool {
    [io::ErrorKind::WouldBlock, io::ErrorKind::Interrupted, io::ErrorKind::NotConnected]
        .contains(&error.kind())
}

/// A check-in that is nearly due need not be hit exactly.
const WAIT_MIN: Duration = Duration::from_micros(100);
/// How soon it is seen that the load is to stop, and that an answer takes too long.
const WAIT_MAX: Duration = Duration::from_millis(20);
