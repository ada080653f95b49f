//! What lies between a client and Redis: a line that breaks at the worst moment.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use crate::Random;

/// A listener on loopback that passes bytes on to a server and back, and cuts lines.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    server: SocketAddr,
    rule: Mutex<Rule>,
    cuts: AtomicU64,
    closed: AtomicBool,
    lines: Mutex<Vec<(TcpStream, TcpStream)>>,
}

/// When a line is cut.
#[derive(Debug)]
pub enum Rule {
    /// Never.
    Never,
    /// After the server has answered a request that contains this text, instead of one such answer
    /// in so many: before its first byte, or in the middle of it. The server has done what was
    /// asked, and nobody is told.
    Answers {
        /// What such a request contains.
        of: &'static str,
        /// Of so many answers one is lost.
        one_in: u64,
        /// What decides.
        random: Random,
    },
}

impl Proxy {
    /// Listens on a port of its own, and passes everything on to `server`.
    ///
    /// # Panics
    /// If there is no port.
    #[must_use]
    pub fn to(server: SocketAddr) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let address = listener.local_addr().expect("an address");
        let shared = Arc::new(Shared {
            server,
            rule: Mutex::new(Rule::Never),
            cuts: AtomicU64::new(0),
            closed: AtomicBool::new(false),
            lines: Mutex::default(),
        });
        let accepting = Arc::clone(&shared);
        thread::spawn(move || {
            for client in listener.incoming() {
                if accepting.closed.load(Ordering::Acquire) {
                    break;
                }
                if let Ok(client) = client {
                    // A server that is away refuses; so the client is hung up on.
                    let _ = connect(client, &accepting);
                }
            }
        });
        Self { address, shared }
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many answers were lost so far.
    #[must_use]
    pub fn cuts(&self) -> u64 {
        self.shared.cuts.load(Ordering::Acquire)
    }

    /// From now on lines are cut by this rule.
    pub fn set(&self, rule: Rule) {
        *locked(&self.shared.rule) = rule;
    }

    /// Cuts all lines that there are.
    pub fn cut_all(&self) {
        for (client, server) in locked(&self.shared.lines).drain(..) {
            cut(&client, &server);
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.closed.store(true, Ordering::Release);
        // Wakes whoever accepts. If it cannot, nobody does.
        let _ = TcpStream::connect(self.address);
        self.cut_all();
    }
}

fn connect(client: TcpStream, shared: &Arc<Shared>) -> io::Result<()> {
    let server = TcpStream::connect(shared.server)?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let line = (client.try_clone()?, server.try_clone()?);
    locked(&shared.lines).push(line);
    let asked = Arc::new(AtomicU64::new(0));
    let (up, down) = ((client.try_clone()?, server.try_clone()?), (server, client));
    let (upward, asking) = (Arc::clone(shared), Arc::clone(&asked));
    thread::spawn(move || {
        // An end of either side is an end of both.
        let _ = pass_up(&up, &upward, &asking);
        cut(&up.0, &up.1);
    });
    let downward = Arc::clone(shared);
    thread::spawn(move || {
        let _ = pass_down(&down, &downward, &asked);
        cut(&down.0, &down.1);
    });
    Ok(())
}

fn pass_up(
    (client, server): &(TcpStream, TcpStream),
    shared: &Shared,
    asked: &AtomicU64,
) -> io::Result<()> {
    let (mut client, mut server) = (client, server);
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let bytes = read(&mut client, &mut buffer)?;
        if let Rule::Answers { of, .. } = &*locked(&shared.rule)
            && bytes.windows(of.len()).any(|part| part == of.as_bytes())
        {
            asked.fetch_add(1, Ordering::AcqRel);
        }
        server.write_all(bytes)?;
    }
}

fn pass_down(
    (server, client): &(TcpStream, TcpStream),
    shared: &Shared,
    asked: &AtomicU64,
) -> io::Result<()> {
    let (mut server, mut client) = (server, client);
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let mut bytes = read(&mut server, &mut buffer)?;
        let mut is_lost = false;
        if asked.swap(0, Ordering::AcqRel) > 0
            && let Rule::Answers { one_in, random, .. } = &mut *locked(&shared.rule)
        {
            is_lost = random.below(*one_in) == 0;
            if is_lost {
                bytes = &bytes[..random.below(bytes.len() as u64) as usize];
            }
        }
        client.write_all(bytes)?;
        if is_lost {
            shared.cuts.fetch_add(1, Ordering::AcqRel);
            return Ok(());
        }
    }
}

fn read<'a>(from: &mut impl Read, buffer: &'a mut [u8]) -> io::Result<&'a [u8]> {
    match from.read(buffer)? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        length => Ok(&buffer[..length]),
    }
}

fn cut(one: &TcpStream, other: &TcpStream) {
    // One that is gone already is as good.
    let _ = one.shutdown(Shutdown::Both);
    let _ = other.shutdown(Shutdown::Both);
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

const BUFFER_BYTES: usize = 64 << 10;
