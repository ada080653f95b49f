//! Drives the protocol core of Otter with [mio]: one thread per core, each with its own
//! listening socket, its own poll, its own side of the store and its own connections. Threads
//! share nothing while they serve; what they count is added up when somebody asks.
//!
//! ```text
//!            one turn of a worker
//!   poll --> events, new connections, deadlines --> peers: recv -> core -> send
//!                                                     | queries         ^ answers
//!                                                     v                 |
//!                                          Store::submit (one batch) -> Store::collect
//! ```
//!
//! # Running a server
//!
//! ```
//! use otter_mio::{Options, Server};
//! use otter_store::{Memory, MemoryOptions};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let directory = tempfile::tempdir()?;
//! let memory = Memory::open(directory.path(), MemoryOptions::default())?;
//! let server = Server::bind(Options::new("127.0.0.1:0".parse()?))?;
//! println!("devices may check in at {}", server.local_addr());
//! let handle = server.spawn(|_worker, wake| memory.store(wake))?;
//! // ... until a signal says stop:
//! handle.shutdown();
//! handle.join()?;
//! # Ok(())
//! # }
//! ```
//!
//! # What one connection costs
//!
//! While it is idle: 88 bytes in the table of peers (the core's connection and 16), an eighth of a
//! byte for its deadline, and no buffer; 10,000 of them were measured at 98 bytes each, everything
//! included.
//! While it is served: one `recv` and one `send` per request and its share of one `epoll_wait`,
//! 2.02 system calls in all for a check-in on one of 64 busy connections, and no heap call. In the
//! kernel: at most twice [`Options::send_buffer_bytes`] and twice
//! [`Options::receive_buffer_bytes`].
//!
//! Linux only. `SIGPIPE` never comes: everything is sent with `MSG_NOSIGNAL`.
#![forbid(unsafe_code)]

mod deadlines;
mod listen;
mod peer;
mod worker;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::num::NonZero;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use otter_protocol::{Config, Counters, Legible, Report, Security};
use otter_store::{Store, Wake};

pub use crate::listen::{Listeners, bind, listen};
use crate::worker::{Desk, Seat, Worker};

/// Called with the report of every request, on the worker's thread, and where the peer is, if it
/// is still there: an access log.
pub type OnReport = Arc<dyn Fn(&Report, Option<SocketAddr>) + Send + Sync>;

/// Settings of a [`Server`].
///
/// ```
/// use otter_mio::Options;
/// let mut options = Options::new("0.0.0.0:7442".parse().expect("an address"));
/// options.workers = 2;
/// assert_eq!(options.send_buffer_bytes, 65536);
/// ```
#[derive(Clone)]
#[non_exhaustive]
pub struct Options {
    /// Where to listen, and what protects the connections of each place. Port 0 lets the system
    /// choose; see [`Server::local_addrs`].
    pub listen: Vec<(SocketAddr, Security)>,
    /// Threads, each with its own listening sockets on the same ports. Default: one per CPU. 0
    /// counts as 1.
    pub workers: usize,
    /// Let other servers listen on the same port too, so that a new one can start before the old
    /// one drains. Default false: binding fails if anybody listens there.
    pub port_shared: bool,
    /// Connections of the whole process. Default 16384. Each worker has an equal share. Beyond:
    /// a connection that waits for its peer is closed; if none does, the new one is answered 503.
    /// Keep it well below the limit of open files.
    pub connections_max: usize,
    /// Connections that may wait to be accepted, per worker. Default 4096; the system's
    /// `net.core.somaxconn` bounds it. Beyond: the system lets the peer try again.
    pub backlog: i32,
    /// `SO_SNDBUF` of every connection; the kernel takes twice as much. Default 65536: a peer
    /// that does not read pins 128 KiB of the kernel's memory, not the 4 MiB that the kernel
    /// would grow to, and more bytes in flight only fall out of the CPU's cache.
    pub send_buffer_bytes: usize,
    /// `SO_RCVBUF` of every connection; the kernel takes twice as much. Default 16384: more than
    /// the longest request whose answer is not an error.
    pub receive_buffer_bytes: usize,
    /// Bytes that one connection may move in one turn of the loop before the others have theirs.
    /// Default 1 MiB.
    pub turn_bytes_max: usize,
    /// How long open transfers may go on after [`Handle::shutdown`]. Default 30 s. Beyond: they
    /// are cut off.
    pub drain_timeout: Duration,
    /// Limits and switches of the core.
    pub config: Arc<Config>,
    /// Is shown every report. Default none, which costs nothing.
    pub on_report: Option<OnReport>,
}

/// A server that listens and does not serve yet.
#[derive(Debug)]
pub struct Server {
    options: Options,
    local_addrs: Vec<SocketAddr>,
    seats: Vec<Seat>,
    handle: Handle,
}

/// The reins of a server: stop it, wait for it, read its counters. Clones are the same server,
/// which goes on if all of them are dropped.
#[derive(Clone, Debug)]
pub struct Handle {
    desks: Arc<[Arc<Desk>]>,
    threads: Arc<Mutex<Vec<JoinHandle<io::Result<()>>>>>,
}

impl Options {
    /// The defaults, and where to listen for plain HTTP.
    #[must_use]
    pub fn new(listen: SocketAddr) -> Self {
        Self {
            listen: vec![(listen, Security::Plain)],
            workers: thread::available_parallelism().map_or(1, NonZero::get),
            port_shared: false,
            connections_max: 16384,
            backlog: 4096,
            send_buffer_bytes: 65536,
            receive_buffer_bytes: 16384,
            turn_bytes_max: 1 << 20,
            drain_timeout: Duration::from_secs(30),
            config: Arc::new(Config::default()),
            on_report: None,
        }
    }
}

impl Server {
    /// Binds the ports and listens: peers can connect from now on, and are served from
    /// [`Server::run`] or [`Server::spawn`] on.
    ///
    /// # Errors
    /// An address is in use or not ours, or the process may not open as many descriptors.
    pub fn bind(options: Options) -> io::Result<Self> {
        Self::with_listeners(bind(&options)?, options)
    }

    /// Serves on sockets that are bound or listen already, as a service manager hands them over:
    /// one worker for each list. Clones of a socket share its connections. [`Options::listen`],
    /// [`Options::port_shared`] and [`Options::workers`] are not looked at.
    ///
    /// # Errors
    /// There are none, or they cannot be prepared.
    pub fn with_listeners(listeners: Vec<Listeners>, options: Options) -> io::Result<Self> {
        let none = || io::Error::new(io::ErrorKind::InvalidInput, "no socket to listen on");
        let first = listeners.first().filter(|sockets| !sockets.is_empty()).ok_or_else(none)?;
        let local_addrs =
            first.iter().map(|(socket, _)| socket.local_addr()).collect::<Result<_, _>>()?;
        let seats = listeners.into_iter().map(|listeners| Seat::new(listeners, &options));
        let seats = seats.collect::<io::Result<Vec<_>>>()?;
        let desks = seats.iter().map(|seat| Arc::clone(&seat.desk)).collect();
        let handle = Handle { desks, threads: Arc::default() };
        Ok(Self { options, local_addrs, seats, handle })
    }

    /// Where it listens, in the order of [`Options::listen`].
    #[must_use]
    pub fn local_addrs(&self) -> &[SocketAddr] {
        &self.local_addrs
    }

    /// The first of [`Server::local_addrs`].
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addrs[0]
    }

    /// Stops and observes the server; works before it runs, too.
    #[must_use]
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Serves until [`Handle::shutdown`] and the drain that follows.
    ///
    /// `make_store` is called once per worker, with its number and what its store rings when
    /// answers wait.
    ///
    /// # Errors
    /// As [`Server::spawn`] and [`Handle::join`].
    pub fn run<S: Store<Image: Legible>>(
        self,
        make_store: impl FnMut(usize, Wake) -> S,
    ) -> io::Result<()> {
        self.spawn(make_store)?.join()
    }

    /// Serves on threads of its own; see [`Server::run`].
    ///
    /// # Errors
    /// The system has no thread for it. Those that were started stop again.
    pub fn spawn<S: Store<Image: Legible>>(
        self,
        mut make_store: impl FnMut(usize, Wake) -> S,
    ) -> io::Result<Handle> {
        let Self { mut options, seats, handle, .. } = self;
        options.connections_max = options.connections_max.div_ceil(seats.len());
        for (index, seat) in seats.into_iter().enumerate() {
            let desk = Arc::clone(&seat.desk);
            let store = make_store(index, Arc::new(move || desk.ring()));
            let config = Arc::new(Config::clone(&options.config));
            let worker = Worker::new(seat, store, Options { config, ..options.clone() });
            // A worker that ends, in whatever way, ends the server: half a server that answers half
            // of the devices helps nobody, a restart does. So does one that cannot even start.
            let server = handle.clone();
            let serve = move || {
                let ended = catch_unwind(AssertUnwindSafe(|| worker.run()));
                server.shutdown();
                ended.unwrap_or_else(|panic| resume_unwind(panic))
            };
            let thread = thread::Builder::new().name(format!("otter-mio-{index}")).spawn(serve);
            let thread = thread.inspect_err(|_| handle.shutdown())?;
            handle.threads.lock().unwrap_or_else(PoisonError::into_inner).push(thread);
        }
        Ok(handle)
    }
}

impl Handle {
    /// Stops the server gracefully: no new connections; idle ones are closed; requests and
    /// transfers under way may finish within [`Options::drain_timeout`]. Returns at once.
    pub fn shutdown(&self) {
        self.desks.iter().for_each(|desk| desk.stop());
    }

    /// Waits until all workers have ended.
    ///
    /// # Errors
    /// Why the first of them failed: its poll did, or it panicked. Told to one caller only.
    pub fn join(&self) -> io::Result<()> {
        let mut threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        let panicked = |_| Err(io::Error::other("a worker panicked"));
        let ended = threads.drain(..).map(|thread| thread.join().unwrap_or_else(panicked));
        ended.fold(Ok(()), Result::and)
    }

    /// What all workers counted.
    #[must_use]
    pub fn counters(&self) -> Counters {
        Counters::sum(self.desks.iter().map(|desk| &desk.tally))
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options").field("listen", &self.listen).finish_non_exhaustive()
    }
}
