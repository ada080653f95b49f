//! Kept connections over which random devices of a fleet check in, each as soon as the last one is
//! answered.

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use otter_tests::Random;

use crate::fleet::{BUILD, Fleet};

/// When to send no more.
#[derive(Clone, Copy)]
pub(crate) enum Until {
    Elapsed(Duration),
    Sent(u64),
}

/// Connections to one server. One thread plays all devices.
pub(crate) struct Load<'a> {
    fleet: &'a Fleet,
    poll: Poll,
    peers: Vec<Peer>,
    random: Random,
    /// Each check-in says another version, which is kept.
    pub(crate) changes: bool,
    build: u64,
    request: Vec<u8>,
}

struct Peer {
    stream: TcpStream,
    answer: [u8; 1024],
    filled: usize,
}

impl<'a> Load<'a> {
    /// # Errors
    /// If the server cannot be reached.
    pub(crate) fn connect(
        server: SocketAddr,
        fleet: &'a Fleet,
        connections: usize,
    ) -> Result<Self> {
        let poll = Poll::new()?;
        let mut peers = Vec::new();
        for place in 0..connections {
            let stream = std::net::TcpStream::connect(server)?;
            stream.set_nodelay(true)?;
            stream.set_nonblocking(true)?;
            let mut stream = TcpStream::from_std(stream);
            poll.registry().register(&mut stream, Token(place), Interest::READABLE)?;
            peers.push(Peer { stream, answer: [0; 1024], filled: 0 });
        }
        let random = Random::new(7);
        let (changes, build, request) = (false, BUILD, Vec::new());
        Ok(Self { fleet, poll, peers, random, changes, build, request })
    }

    /// Sends until then, and waits for all answers; returns how many there were.
    ///
    /// # Errors
    /// If a connection fails, an answer is not 200, or takes more than a minute.
    pub(crate) fn run(&mut self, until: Until) -> Result<u64> {
        let start = Instant::now();
        let (mut sent, mut answered) = (0, 0);
        for place in 0..self.peers.len() {
            self.ask(place)?;
            sent += 1;
        }
        let mut events = Events::with_capacity(256);
        while answered < sent {
            self.poll.poll(&mut events, Some(Duration::from_secs(60)))?;
            if events.is_empty() {
                bail!("{} answers are missing", sent - answered);
            }
            let goes_on = match until {
                Until::Elapsed(time) => start.elapsed() < time,
                Until::Sent(count) => sent < count,
            };
            for event in &events {
                let place = event.token().0;
                if !self.peers[place].read()? {
                    continue;
                }
                answered += 1;
                if goes_on {
                    self.ask(place)?;
                    sent += 1;
                }
            }
        }
        Ok(answered)
    }

    fn ask(&mut self, place: usize) -> Result<()> {
        let number = self.random.below(self.fleet.devices);
        if self.changes {
            // None that it had before.
            self.build = (self.build + 1) % 1000;
        }
        self.fleet.write_check_in(number, self.build, &mut self.request);
        let n = self.peers[place].stream.write(&self.request)?;
        if n < self.request.len() {
            bail!("a request did not fit");
        }
        Ok(())
    }
}

impl Peer {
    /// Is the answer complete?
    fn read(&mut self) -> Result<bool> {
        loop {
            let free = self.answer.get_mut(self.filled..).context("a long answer")?;
            match self.stream.read(free) {
                Ok(0) => bail!("closed: {}", self.answer[..self.filled].escape_ascii()),
                Ok(n) => self.filled += n,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error.into()),
            }
            if self.answer[..self.filled].ends_with(b"}}") {
                if !self.answer.starts_with(b"HTTP/1.1 200 ") {
                    bail!("refused: {}", self.answer[..self.filled].escape_ascii());
                }
                self.filled = 0;
                return Ok(true);
            }
        }
    }
}
