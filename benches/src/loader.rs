//! Kept connections, each of which asks again as soon as it is answered.

use std::io::{self, Read, Write};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

use crate::{Fleet, Server, connect};

/// Devices that are registered and connected. One thread plays all of them.
pub struct Loader {
    poll: Poll,
    peers: Vec<Peer>,
    /// Whether the next request of a device differs from its last one.
    pub changes: bool,
}

/// When to send no more.
#[derive(Clone, Copy, Debug)]
pub enum Until {
    /// After this time.
    Elapsed(Duration),
    /// After so many requests.
    Sent(u64),
}

struct Peer {
    stream: TcpStream,
    /// In pieces, each of which is sent by itself. The second one says another version.
    requests: [Vec<Vec<u8>>; 2],
    turn: usize,
    answer: [u8; 1024],
    filled: usize,
}

impl Loader {
    /// Opens `count` connections and registers one device over each.
    ///
    /// # Errors
    /// If a connection fails or a device is refused.
    pub fn connect(server: &Server, fleet: &Fleet, count: u32) -> Result<Self> {
        let poll = Poll::new()?;
        let mut peers = Vec::new();
        for (n, (stream, request)) in (0..).zip(connect(server, fleet, count)?) {
            stream.set_nonblocking(true)?;
            let mut stream = TcpStream::from_std(stream);
            poll.registry().register(&mut stream, Token(n as usize), Interest::READABLE)?;
            let requests = [vec![request], vec![fleet.check_in_of(n, "2.9.451")]];
            peers.push(Peer { stream, requests, turn: 0, answer: [0; 1024], filled: 0 });
        }
        Ok(Self { poll, peers, changes: false })
    }

    /// From now on a request leaves line by line, as devices send it; each line in a segment of
    /// its own, one right behind the other.
    pub fn speak_by_line(&mut self, fleet: &Fleet) {
        for (n, peer) in (0..).zip(&mut self.peers) {
            let pieces = fleet.check_in_by_line(n);
            peer.requests = [pieces.clone(), pieces];
        }
    }

    /// Sends and reads until `until`, then waits for the answers that are missing; returns how
    /// many there were.
    ///
    /// # Errors
    /// If a connection fails, an answer is not 200, or takes more than 5 s.
    pub fn run(&mut self, until: Until) -> Result<u64> {
        let start = Instant::now();
        let (mut sent, mut answered) = (0, 0);
        for peer in &mut self.peers {
            peer.ask(self.changes)?;
            sent += 1;
        }
        let mut events = Events::with_capacity(256);
        while answered < sent {
            self.poll.poll(&mut events, Some(PATIENCE))?;
            if events.is_empty() {
                bail!("{} answers are missing", sent - answered);
            }
            let goes_on = match until {
                Until::Elapsed(time) => start.elapsed() < time,
                Until::Sent(count) => sent < count,
            };
            for event in &events {
                let peer = &mut self.peers[event.token().0];
                if !peer.read()? {
                    continue;
                }
                answered += 1;
                if goes_on {
                    peer.ask(self.changes)?;
                    sent += 1;
                }
            }
        }
        Ok(answered)
    }
}

impl Peer {
    fn ask(&mut self, changes: bool) -> Result<()> {
        self.turn = usize::from(changes && self.turn == 0);
        for piece in &self.requests[self.turn] {
            if self.stream.write(piece)? < piece.len() {
                bail!("a request did not fit");
            }
        }
        Ok(())
    }

    /// Is the answer complete?
    fn read(&mut self) -> Result<bool> {
        loop {
            let free = self.answer.get_mut(self.filled..).context("a long answer")?;
            match self.stream.read(free) {
                Ok(0) => bail!("closed: {}", self.text()),
                Ok(n) => self.filled += n,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error.into()),
            }
            if self.answer[..self.filled].ends_with(b"}}") {
                if !self.answer.starts_with(b"HTTP/1.1 200 ") {
                    bail!("refused: {}", self.text());
                }
                self.filled = 0;
                return Ok(true);
            }
        }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.answer[..self.filled]).into_owned()
    }
}

const PATIENCE: Duration = Duration::from_secs(5);
