//! What a server on Redis must at least do: one connection to Redis, over which the commands of a
//! turn leave in one write.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;

use anyhow::{Context, Result, bail};
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use slab::Slab;

/// Serves until the process ends. Asks for no keys and keeps no devices but those of the load: one
/// key is asked for, and one device is kept, over and over. What is kept for that key must not
/// change: it knows whole answers by their length.
pub(super) fn serve(url: &str) -> Result<()> {
    let redis: SocketAddr = url
        .strip_prefix("redis://")
        .map(|address| address.trim_end_matches('/'))
        .context("not redis://ADDRESS:PORT")?
        .parse()?;
    let commands = commands();
    let reply_bytes = reply_bytes(redis, &commands)?;
    let mut redis = TcpStream::connect(redis)?;
    redis.set_nodelay(true)?;
    let mut poll = Poll::new()?;
    poll.registry().register(&mut redis, REDIS, Interest::READABLE | Interest::WRITABLE)?;
    let mut listener = TcpListener::bind("127.0.0.1:0".parse()?)?;
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    super::say_ready(listener.local_addr()?)?;
    let mut floor = Floor {
        reply: super::whole_reply(),
        commands,
        reply_bytes,
        redis,
        unsent: Vec::new(),
        received: 0,
        waiting: VecDeque::new(),
        peers: Slab::new(),
        buffer: vec![0; 256 * 1024],
    };
    let mut events = Events::with_capacity(256);
    loop {
        poll.poll(&mut events, None)?;
        for event in &events {
            match event.token() {
                LISTENER => floor.accept(&poll, &listener)?,
                REDIS => floor.hear()?,
                Token(number) => floor.read(number),
            }
        }
        floor.flush()?;
    }
}

struct Floor {
    reply: Vec<u8>,
    /// Those of one request.
    commands: Vec<u8>,
    /// What Redis says to them.
    reply_bytes: usize,
    redis: TcpStream,
    unsent: Vec<u8>,
    /// Bytes from Redis that are not a whole answer yet.
    received: usize,
    /// Who waits for Redis, in the order of asking.
    waiting: VecDeque<usize>,
    peers: Slab<TcpStream>,
    buffer: Vec<u8>,
}

impl Floor {
    fn accept(&mut self, poll: &Poll, listener: &TcpListener) -> Result<()> {
        loop {
            let mut stream = match listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error.into()),
            };
            let entry = self.peers.vacant_entry();
            poll.registry().register(&mut stream, Token(entry.key()), Interest::READABLE)?;
            entry.insert(stream);
        }
    }

    fn read(&mut self, number: usize) {
        let Some(peer) = self.peers.get_mut(number) else { return };
        match peer.read(&mut self.buffer) {
            Ok(n) if n > 0 => {
                self.unsent.extend_from_slice(&self.commands);
                self.waiting.push_back(number);
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Ok(_) | Err(_) => {
                self.peers.remove(number);
            }
        }
    }

    /// Answers everybody whose answers are here.
    fn hear(&mut self) -> Result<()> {
        loop {
            match self.redis.read(&mut self.buffer) {
                Ok(0) => bail!("Redis has gone"),
                Ok(n) => self.received += n,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error.into()),
            }
            while self.received >= self.reply_bytes {
                self.received -= self.reply_bytes;
                let number = self.waiting.pop_front().context("an answer for nobody")?;
                if let Some(peer) = self.peers.get_mut(number) {
                    // One that has gone has nothing to hear.
                    let _ = peer.write(&self.reply);
                }
            }
        }
    }

    fn flush(&mut self) -> Result<()> {
        while !self.unsent.is_empty() {
            match self.redis.write(&self.unsent) {
                Ok(n) => self.unsent.drain(..n),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error.into()),
            };
        }
        Ok(())
    }
}

/// A `GET` of the keys and a `SET` of 418 bytes, as Redis reads them.
fn commands() -> Vec<u8> {
    let key = format!("ak:{}", "a".repeat(64));
    let device = "device:5ccf7fee-1337-4000-8000-00000000ab01";
    let kept = String::from_utf8_lossy(&super::KEPT);
    let command = |words: &[&str]| {
        let words: String = words.iter().map(|w| format!("${}\r\n{w}\r\n", w.len())).collect();
        words
    };
    let get = format!("*2\r\n{}", command(&["GET", &key]));
    let set = format!("*3\r\n{}", command(&["SET", device, &kept]));
    [get, set].concat().into_bytes()
}

/// How long the answers to the commands of one request are.
fn reply_bytes(redis: SocketAddr, commands: &[u8]) -> Result<usize> {
    let mut stream = std::net::TcpStream::connect(redis).context("cannot reach Redis")?;
    stream.write_all(commands)?;
    let (mut reply, mut filled) = ([0; 4096], 0);
    while !reply[..filled].ends_with(b"+OK\r\n") {
        let n = stream.read(&mut reply[filled..])?;
        if n == 0 || reply[0] != b'$' {
            bail!("Redis says {}", String::from_utf8_lossy(&reply[..filled + n]));
        }
        filled += n;
    }
    Ok(filled)
}

const LISTENER: Token = Token(usize::MAX);
const REDIS: Token = Token(usize::MAX - 1);

#[cfg(test)]
mod tests {
    #[test]
    fn commands_are_those_of_redis() {
        let text = String::from_utf8(super::commands()).expect("text");
        assert!(text.starts_with("*2\r\n$3\r\nGET\r\n$67\r\nak:aaaa"), "{text}");
        assert!(text.contains("\r\n*3\r\n$3\r\nSET\r\n$43\r\ndevice:"), "{text}");
        assert!(text.contains("\r\n$418\r\nxxx"), "{text}");
        assert!(text.ends_with("xxx\r\n"), "{text}");
    }
}
