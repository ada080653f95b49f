//! Clients that begin handshakes and end none: each costs a server a signature and a key
//! exchange, and the client next to nothing.

use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use rustls::ClientConfig;
use rustls::client::UnbufferedClientConnection;
use rustls::unbuffered::{ConnectionState, UnbufferedStatus};

use super::NAME;

/// A flood that goes on in a thread of its own until it is dropped or ended.
pub struct Flood {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<Result<()>>>,
}

#[derive(Default)]
struct Shared {
    is_ending: AtomicBool,
    answered: AtomicU64,
}

impl Flood {
    /// Keeps so many handshakes of these terms open at a time, always with the same first message.
    /// A connection is reset as soon as the server has answered it.
    ///
    /// # Errors
    /// If there are no descriptors left.
    pub fn start(address: SocketAddr, config: &Arc<ClientConfig>, at_once: usize) -> Result<Self> {
        let hello = hello(config)?;
        let shared = Arc::new(Shared::default());
        let poll = Poll::new()?;
        let flooder = Arc::clone(&shared);
        let thread = std::thread::spawn(move || flooder.run(poll, address, &hello, at_once));
        Ok(Self { shared, thread: Some(thread) })
    }

    /// How many handshakes the server has answered up to now.
    #[must_use]
    pub fn answered(&self) -> u64 {
        self.shared.answered.load(Ordering::Relaxed)
    }

    /// Ends it.
    ///
    /// # Errors
    /// Why it ended before.
    pub fn end(mut self) -> Result<()> {
        self.shared.is_ending.store(true, Ordering::Relaxed);
        let thread = self.thread.take().context("it runs")?;
        thread.join().map_err(|_| anyhow!("the flood panicked"))?
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.shared.is_ending.store(true, Ordering::Relaxed);
    }
}

impl Shared {
    fn run(&self, mut poll: Poll, address: SocketAddr, hello: &[u8], at_once: usize) -> Result<()> {
        let connect = |poll: &Poll, number| -> Result<Opening> {
            let mut stream = TcpStream::connect(address)?;
            let interest = Interest::READABLE | Interest::WRITABLE;
            poll.registry().register(&mut stream, Token(number), interest)?;
            let mut opening = Opening { stream, is_greeted: false };
            opening.greet(hello);
            Ok(opening)
        };
        let mut all = Vec::new();
        for number in 0..at_once {
            all.push(connect(&poll, number)?);
        }
        let mut events = Events::with_capacity(256);
        while !self.is_ending.load(Ordering::Relaxed) {
            poll.poll(&mut events, Some(PAUSE))?;
            for event in &events {
                let number = event.token().0;
                let opening = &mut all[number];
                opening.greet(hello);
                let is_answered = opening.is_answered();
                self.answered.fetch_add(u64::from(is_answered), Ordering::Relaxed);
                if is_answered || event.is_error() || event.is_read_closed() {
                    // What is closed with something unread is reset.
                    *opening = connect(&poll, number)?;
                }
            }
        }
        Ok(())
    }
}

struct Opening {
    stream: TcpStream,
    is_greeted: bool,
}

impl Opening {
    /// Sends the first message, once it can be sent. What the server has closed before says so by
    /// an event.
    fn greet(&mut self, hello: &[u8]) {
        self.is_greeted = self.is_greeted || self.stream.write(hello).is_ok();
    }

    fn is_answered(&self) -> bool {
        self.stream.peek(&mut [0]).is_ok_and(|n| n > 0)
    }
}

/// The first message of a client.
fn hello(config: &Arc<ClientConfig>) -> Result<Vec<u8>> {
    let mut tls = UnbufferedClientConnection::new(Arc::clone(config), NAME.try_into()?)?;
    let mut hello = vec![0; 4096];
    let UnbufferedStatus { state, .. } = tls.process_tls_records(&mut []);
    let ConnectionState::EncodeTlsData(mut data) = state? else { bail!("no first message") };
    let n = data.encode(&mut hello).map_err(|error| anyhow!("{error}"))?;
    hello.truncate(n);
    Ok(hello)
}

const PAUSE: Duration = Duration::from_millis(50);
