//! What a server over epoll must at least do: wait, receive, send.

use std::io::{ErrorKind, Read, Write};

use anyhow::{Context, Result};
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use slab::Slab;

/// How much it looks at what it is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Manner {
    /// Not at all: whatever arrives at once is a request.
    Blind,
    /// It looks for the end of the head and for the length of the body.
    Whole,
    /// As `Blind`; tries at once whether the request is there, and closes after the answer.
    Closing,
}

/// Serves until the process ends.
pub(super) fn serve(manner: Manner) -> Result<()> {
    let mut poll = Poll::new()?;
    let mut listener = TcpListener::bind("127.0.0.1:0".parse()?)?;
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    super::say_ready(listener.local_addr()?)?;
    let mut floor = Floor {
        manner,
        reply: super::whole_reply(),
        peers: Slab::new(),
        buffer: vec![0; 16 * 1024],
    };
    let mut events = Events::with_capacity(256);
    loop {
        poll.poll(&mut events, None)?;
        for event in &events {
            if event.token() == LISTENER {
                floor.accept(&poll, &listener)?;
                continue;
            }
            let number = event.token().0;
            let peer = floor.peers.get_mut(number).context("an event of nobody")?;
            if !peer.serve(manner, &floor.reply, &mut floor.buffer) {
                floor.peers.remove(number);
            }
        }
    }
}

struct Floor {
    manner: Manner,
    reply: Vec<u8>,
    peers: Slab<Peer>,
    buffer: Vec<u8>,
}

struct Peer {
    stream: TcpStream,
    /// What has come of a request, where it is read to its end.
    received: Vec<u8>,
}

impl Floor {
    fn accept(&mut self, poll: &Poll, listener: &TcpListener) -> Result<()> {
        loop {
            let stream = match listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error.into()),
            };
            let mut peer = Peer { stream, received: Vec::new() };
            let is_closing = self.manner == Manner::Closing;
            if is_closing && !peer.serve(self.manner, &self.reply, &mut self.buffer) {
                continue;
            }
            let entry = self.peers.vacant_entry();
            let token = Token(entry.key());
            poll.registry().register(&mut peer.stream, token, Interest::READABLE)?;
            entry.insert(peer);
        }
    }
}

impl Peer {
    /// Answers what is there; does the connection stay?
    fn serve(&mut self, manner: Manner, reply: &[u8], buffer: &mut [u8]) -> bool {
        let n = match self.stream.read(buffer) {
            Ok(0) => return false,
            Ok(n) => n,
            Err(error) => return error.kind() == ErrorKind::WouldBlock,
        };
        if manner == Manner::Whole && !self.is_whole(&buffer[..n]) {
            return true;
        }
        // An answer is far smaller than what the socket takes.
        self.stream.write(reply).is_ok_and(|n| n == reply.len()) && manner != Manner::Closing
    }

    fn is_whole(&mut self, more: &[u8]) -> bool {
        if self.received.is_empty() && is_request(more) {
            return true;
        }
        self.received.extend_from_slice(more);
        let is_whole = is_request(&self.received);
        if is_whole {
            self.received.clear();
        }
        is_whole
    }
}

/// Is it a head, and as many bytes as it says?
fn is_request(bytes: &[u8]) -> bool {
    let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else { return false };
    let head = String::from_utf8_lossy(&bytes[..end]);
    let length = head.split("\r\n").find_map(|line| line.strip_prefix("Content-Length: "));
    let length = length.and_then(|length| length.parse().ok()).unwrap_or(0);
    bytes.len() >= end + 4 + length
}

const LISTENER: Token = Token(usize::MAX);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_ends_where_its_length_says() {
        let request = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc";
        for cut in 0..request.len() {
            assert!(!is_request(&request[..cut]), "{cut}");
        }
        assert!(is_request(request));
        assert!(is_request(b"GET / HTTP/1.1\r\n\r\n"));
    }
}
