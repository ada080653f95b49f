//! What a server of files must at least do: `send` from memory, with a buffer that stays in the
//! cache.

use std::collections::HashMap;
use std::io::{ErrorKind, Read, Write};
use std::rc::Rc;

use anyhow::{Context, Result};
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use rustix::net::sockopt::set_socket_send_buffer_size;
use slab::Slab;

/// Serves until the process ends. A request must arrive in one piece.
pub(super) fn serve() -> Result<()> {
    let mut poll = Poll::new()?;
    let mut listener = TcpListener::bind("127.0.0.1:0".parse()?)?;
    // Connections inherit it.
    set_socket_send_buffer_size(&listener, SEND_BUFFER_BYTES)?;
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    super::say_ready(listener.local_addr()?)?;
    let mut images = HashMap::new();
    let mut peers = Slab::new();
    let mut events = Events::with_capacity(256);
    loop {
        poll.poll(&mut events, None)?;
        for event in &events {
            let Token(number) = event.token();
            if event.token() == LISTENER {
                accept(&poll, &listener, &mut peers)?;
            } else {
                let peer: &mut Peer = peers.get_mut(number).context("an event of nobody")?;
                if !peer.advance(&mut images).with_context(|| format!("peer {number}"))? {
                    peers.remove(number);
                }
            }
        }
    }
}

fn accept(poll: &Poll, listener: &TcpListener, peers: &mut Slab<Peer>) -> Result<()> {
    loop {
        let mut stream = match listener.accept() {
            Ok((stream, _)) => stream,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let entry = peers.vacant_entry();
        let interest = Interest::READABLE | Interest::WRITABLE;
        poll.registry().register(&mut stream, Token(entry.key()), interest)?;
        entry.insert(Peer { stream, image: Rc::default(), sent: 0, end: 0 });
    }
}

struct Peer {
    stream: TcpStream,
    image: Rc<[u8]>,
    sent: usize,
    end: usize,
}

impl Peer {
    /// Sends what the socket takes, then looks for the next request; does the connection stay?
    fn advance(&mut self, images: &mut HashMap<String, Rc<[u8]>>) -> Result<bool> {
        let mut request = [0; 2048];
        loop {
            while self.sent < self.end {
                match self.stream.write(&self.image[self.sent..self.end]) {
                    Ok(n) => self.sent += n,
                    Err(error) => return Ok(error.kind() == ErrorKind::WouldBlock),
                }
            }
            match self.stream.read(&mut request) {
                Ok(0) => return Ok(false),
                Ok(n) => self.begin(&request[..n], images)?,
                Err(error) => return Ok(error.kind() == ErrorKind::WouldBlock),
            }
        }
    }

    fn begin(&mut self, request: &[u8], images: &mut HashMap<String, Rc<[u8]>>) -> Result<()> {
        let request = std::str::from_utf8(request)?;
        let (target, end) = range(request).with_context(|| format!("no range: {request}"))?;
        self.image = match images.get(target) {
            Some(image) => Rc::clone(image),
            None => {
                let image: Rc<[u8]> = std::fs::read(target).context("no image")?.into();
                images.entry(target.to_owned()).or_insert(image).clone()
            }
        };
        (self.sent, self.end) = (0, end.min(self.image.len()));
        let head = format!("HTTP/1.1 206 Partial Content\r\nContent-Length: {}\r\n\r\n", self.end);
        anyhow::ensure!(self.stream.write(head.as_bytes())? == head.len(), "no room for a head");
        Ok(())
    }
}

/// The file that is asked for, and where the asked range, which begins at its start, ends.
fn range(request: &str) -> Option<(&str, usize)> {
    let target = request.strip_prefix("GET /images/")?.split(' ').next()?;
    let (_, range) = request.split_once("\r\nRange: bytes=0-")?;
    let last: usize = range.split("\r\n").next()?.parse().ok()?;
    Some((target, last + 1))
}

const LISTENER: Token = Token(usize::MAX);
const SEND_BUFFER_BYTES: usize = 256 * 1024;

#[cfg(test)]
mod tests {
    #[test]
    fn a_range_is_read() {
        let request = "GET /images/3.bin HTTP/1.1\r\nHost: a\r\nRange: bytes=0-99\r\n\r\n";
        assert_eq!(super::range(request), Some(("3.bin", 100)));
        assert_eq!(super::range("GET /images/3.bin HTTP/1.1\r\n\r\n"), None);
    }
}
