//! A whole server: threads of its own, each with a runtime, a listening socket and a store.

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::num::NonZero;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use otter_protocol::{Config, Counters};
use otter_store::{Store, Wake};
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::runtime::Builder;

use crate::desk::{Desk, Order};
use crate::service::{Batching, OnReport, Service, serve};

/// Settings of a [`Server`] or a [`Service`]; the same as the mio driver's.
///
/// ```
/// use otter_tokio::Options;
/// let mut options = Options::new("0.0.0.0:7442".parse().expect("an address"));
/// options.workers = 2;
/// assert_eq!(options.send_buffer_bytes, 65536);
/// ```
#[derive(Clone)]
#[non_exhaustive]
pub struct Options {
    /// Where a [`Server`] listens. Port 0 lets the system choose; see [`Server::local_addr`].
    pub listen: SocketAddr,
    /// Threads of a [`Server`], each with its own listening socket on the same port. Default: one
    /// per CPU. 0 counts as 1.
    pub workers: usize,
    /// Let other servers listen on the same port too, so that a new one can start before the old
    /// one drains. Default false: binding fails if anybody listens there.
    pub port_shared: bool,
    /// Connections of a [`Server`], of which each worker has an equal share, or of what
    /// [`serve`] accepts for one [`Service`]. Default 16384. Beyond: a connection that waits for
    /// its peer is closed; if none does, the new one is answered 503. Keep it well below the limit
    /// of open files.
    pub connections_max: usize,
    /// Connections that may wait to be accepted, per worker. Default 4096; the system's
    /// `net.core.somaxconn` bounds it. Beyond: the system lets the peer try again.
    pub backlog: i32,
    /// `SO_SNDBUF` of every accepted connection; the kernel takes twice as much. Default 65536: a
    /// peer that does not read pins 128 KiB of the kernel's memory, not the 4 MiB that the kernel
    /// would grow to.
    pub send_buffer_bytes: usize,
    /// `SO_RCVBUF` of every accepted connection; the kernel takes twice as much. Default 16384:
    /// more than the longest request whose answer is not an error.
    pub receive_buffer_bytes: usize,
    /// Bytes that one connection may move in one turn before the others have theirs. Default
    /// 1 MiB.
    pub turn_bytes_max: usize,
    /// How long open transfers may go on after the order to stop. Default 30 s. Beyond: they are
    /// cut off.
    pub drain_timeout: Duration,
    /// Limits and switches of the core.
    pub config: Arc<Config>,
    /// Is shown every report. Default none, which costs nothing.
    pub on_report: Option<OnReport>,
}

/// A server that listens and does not serve yet: one thread per core, each with a runtime of its
/// own, its own listening socket, its own side of the store and its own connections.
///
/// ```
/// use otter_store::{Memory, MemoryOptions};
/// use otter_tokio::{Options, Server};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let directory = tempfile::tempdir()?;
/// let memory = Memory::open(directory.path(), MemoryOptions::default())?;
/// let server = Server::bind(Options::new("127.0.0.1:0".parse()?))?;
/// println!("devices may check in at {}", server.local_addr());
/// let handle = server.spawn(|_worker, wake| memory.store(wake))?;
/// // ... until a signal says stop:
/// handle.shutdown();
/// handle.join()?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Server {
    options: Options,
    local_addr: SocketAddr,
    listeners: Vec<TcpListener>,
    handle: Handle,
}

/// The reins of a [`Server`]: stop it, wait for it, read its counters. Clones are the same server,
/// which goes on if all of them are dropped.
#[derive(Clone, Debug)]
pub struct Handle {
    desks: Arc<[Arc<Desk>]>,
    threads: Arc<Mutex<Vec<JoinHandle<io::Result<()>>>>>,
}

impl Options {
    /// The defaults, and where to listen.
    #[must_use]
    pub fn new(listen: SocketAddr) -> Self {
        Self {
            listen,
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

impl Default for Options {
    /// For a [`Service`], which is told elsewhere where to listen; else port 7442 everywhere.
    fn default() -> Self {
        Self::new((Ipv4Addr::UNSPECIFIED, 7442).into())
    }
}

impl Server {
    /// Binds the port and listens: peers can connect from now on, and are served from
    /// [`Server::run`] or [`Server::spawn`] on.
    ///
    /// # Errors
    /// The address is in use or not ours, or the process may not open as many descriptors.
    pub fn bind(options: Options) -> io::Result<Self> {
        Self::with_listeners(bind(&options)?, options)
    }

    /// Serves on sockets that are bound or listen already, as a service manager hands them over:
    /// one worker on each. Clones of a socket share its connections. [`Options::listen`],
    /// [`Options::port_shared`] and [`Options::workers`] are not looked at.
    ///
    /// # Errors
    /// There are none, or they cannot be prepared.
    pub fn with_listeners(listeners: Vec<TcpListener>, options: Options) -> io::Result<Self> {
        let none = || io::Error::new(io::ErrorKind::InvalidInput, "no socket to listen on");
        let local_addr = listeners.first().ok_or_else(none)?.local_addr()?;
        listeners.iter().try_for_each(|listener| prepare(&SockRef::from(listener), &options))?;
        let desks = listeners.iter().map(|_| Arc::default()).collect();
        let handle = Handle { desks, threads: Arc::default() };
        Ok(Self { options, local_addr, listeners, handle })
    }

    /// Where it listens: of several addresses, the first.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
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
    pub fn run<S: Store>(self, make_store: impl FnMut(usize, Wake) -> S) -> io::Result<()> {
        self.spawn(make_store)?.join()
    }

    /// Serves on threads of its own; see [`Server::run`].
    ///
    /// # Errors
    /// The system has no thread for it. Those that were started stop again.
    pub fn spawn<S: Store>(
        self,
        mut make_store: impl FnMut(usize, Wake) -> S,
    ) -> io::Result<Handle> {
        let Self { mut options, listeners, handle, .. } = self;
        options.connections_max = options.connections_max.div_ceil(listeners.len());
        for (index, listener) in listeners.into_iter().enumerate() {
            let desk = Arc::clone(&handle.desks[index]);
            // The core keeps spare buffers in its settings: a copy for each thread.
            let config = Arc::new(Config::clone(&options.config));
            let options = Options { config, ..options.clone() };
            let (service, batching) = Service::at(desk, options, |wake| make_store(index, wake));
            // A worker that ends, in whatever way, ends the server: half a server that answers half
            // of the devices helps nobody, a restart does. So does one that cannot even start.
            let server = handle.clone();
            let serve = move || {
                let work = AssertUnwindSafe(|| work(&service, listener, batching));
                let ended = catch_unwind(work);
                server.shutdown();
                ended.unwrap_or_else(|panic| resume_unwind(panic))
            };
            let thread = thread::Builder::new().name(format!("otter-tokio-{index}")).spawn(serve);
            let thread = thread.inspect_err(|_| handle.shutdown())?;
            handle.threads.lock().unwrap_or_else(PoisonError::into_inner).push(thread);
        }
        Ok(handle)
    }
}

/// Serves to the end. With the runtime the tasks of those end that have not finished.
fn work<I: AsRef<[u8]> + Clone + Send + 'static>(
    service: &Service<I>,
    listener: TcpListener,
    batching: Batching,
) -> io::Result<()> {
    let mut runtime = Builder::new_current_thread();
    runtime.enable_all().event_interval(POLLS_PER_TURN).build()?.block_on(async {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        // A task, not a branch below: tasks that are woken run after those woken before them.
        let batching = tokio::spawn(batching);
        tokio::select! {
            ended = serve(service, listener) => ended,
            ended = batching => ended.map_err(io::Error::other),
        }
    })
}

impl Handle {
    /// Stops the server gracefully: no new connections; idle ones are closed; requests and
    /// transfers under way may finish within [`Options::drain_timeout`]. Returns at once.
    pub fn shutdown(&self) {
        self.desks.iter().for_each(|desk| desk.tell(Order::Leave));
    }

    /// Waits until all workers have ended.
    ///
    /// # Errors
    /// Why the first of them failed: its store panicked, or it did. Told to one caller only.
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

/// Binds once per worker. The kernel spreads new connections over the sockets (`SO_REUSEPORT`).
fn bind(options: &Options) -> io::Result<Vec<TcpListener>> {
    let mut address = options.listen;
    let workers = options.workers.max(1);
    if workers > 1 && !options.port_shared {
        // `SO_REUSEPORT` would let a second server in unnoticed. A socket without it says so.
        bound(address, false)?;
    }
    let next = |_| {
        let listener = bound(address, workers > 1 || options.port_shared)?;
        // Port 0: the first socket picks, the others join it.
        address = listener.local_addr()?;
        Ok(listener)
    };
    (0..workers).map(next).collect()
}

fn bound(address: SocketAddr, port_shared: bool) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // A restarted server need not wait for its old connections to leave TIME_WAIT.
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(port_shared)?;
    socket.bind(&address.into())?;
    Ok(socket.into())
}

/// Sets what every accepted socket inherits, and listens, or listens with another backlog.
pub(crate) fn prepare(socket: &SockRef<'_>, options: &Options) -> io::Result<()> {
    socket.set_nonblocking(true)?;
    socket.set_tcp_nodelay(true)?;
    socket.set_send_buffer_size(options.send_buffer_bytes)?;
    socket.set_recv_buffer_size(options.receive_buffer_bytes)?;
    socket.listen(options.backlog)
}

/// Tasks that run before the runtime looks for what happened meanwhile. All that were woken at once
/// should have their turn in one: the more ask in one turn, the fewer batches the store is given.
const POLLS_PER_TURN: u32 = 256;
