//! The least that a server on sockets can do: a loop on epoll per worker that answers each request
//! with a constant of the length of a check-in's reply, and does not look at it.

use std::io::{self, Read, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver};
use std::thread;

use anyhow::{Context, Result};
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token, Waker};

/// Serves on a free port of loopback until the process ends; prints `ready http=<address>`.
/// Connections go to the workers in turn.
///
/// # Errors
/// What the system said.
pub(crate) fn run(mut words: impl Iterator<Item = String>) -> Result<()> {
    let workers: usize = words.next().context("how many workers?")?.parse()?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let mut desks = Vec::new();
    for _ in 0..workers.max(1) {
        let poll = Poll::new()?;
        let waker = Arc::new(Waker::new(poll.registry(), BELL)?);
        let (send, receive) = mpsc::channel();
        thread::spawn(move || work(poll, &receive));
        desks.push((send, waker));
    }
    let mut out = io::stdout();
    writeln!(out, "ready http={}", listener.local_addr()?)?;
    out.flush()?;
    for (send, waker) in desks.iter().cycle() {
        let (stream, _) = listener.accept()?;
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        send.send(TcpStream::from_std(stream)).context("a worker has ended")?;
        waker.wake()?;
    }
    Ok(())
}

fn work(mut poll: Poll, receive: &Receiver<TcpStream>) -> Result<()> {
    let mut events = Events::with_capacity(256);
    let mut streams: Vec<TcpStream> = Vec::new();
    let mut buffer = vec![0; 16 * 1024];
    loop {
        poll.poll(&mut events, None)?;
        for event in &events {
            if event.token() == BELL {
                while let Ok(mut stream) = receive.try_recv() {
                    let token = Token(streams.len());
                    poll.registry().register(&mut stream, token, Interest::READABLE)?;
                    streams.push(stream);
                }
                continue;
            }
            let stream = &mut streams[event.token().0];
            // One request is one segment on loopback. At the end nothing comes any more.
            if stream.read(&mut buffer)? > 0 {
                stream.write_all(REPLY)?;
            }
        }
    }
}

const BELL: Token = Token(usize::MAX);
const REPLY: &[u8] = concat!(
    "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nCache-Control: no-store\r\n",
    "Content-Length: 248\r\n\r\n",
    r#"{"registration":{"success":true,"status":"OK","auto_update":false,"owner":"#,
    r#""aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa","alias":"otter-00ab01","#,
    r#""mesh_ids":[],"udid":"5ccf7fee-1337-4000-8000-00000000ab01","timestamp":1795478791}}"#,
)
.as_bytes();
