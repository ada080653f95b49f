//! What any number of connections share, and the ways in: one stream, or a listening socket.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use otter_protocol::{CloseReason, Config, Counters, Legible, Report, Security, Tally, no_room};
use otter_store::{Store, Wake};
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, Semaphore};
use tokio::task::yield_now;
use tokio::time::{sleep, timeout};

use crate::batcher::{self, Batcher};
use crate::desk::{Desk, Floor, Order};
use crate::peer::Peer;

/// A store with the settings to serve it with, and who is being served. Cheap to clone, and may go
/// to any thread; all clones are one service.
///
/// ```
/// use otter_store::{Memory, MemoryOptions};
/// use otter_tokio::{Options, Security, Service, serve};
/// use tokio::net::TcpListener;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let directory = tempfile::tempdir()?;
/// let memory = Memory::open(directory.path(), MemoryOptions::default())?;
/// let (service, batching) = Service::new(Options::default(), |wake| memory.store(wake));
/// tokio::spawn(batching);
/// let listener = TcpListener::bind("127.0.0.1:0").await?;
/// println!("devices may check in at {}", listener.local_addr()?);
/// # service.shutdown(); // The example is over.
/// // ... until somebody calls `service.shutdown()`:
/// serve(&service, listener, Security::Plain).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Service<I>(pub(crate) Arc<Shared<I>>);

pub(crate) struct Shared<I> {
    pub(crate) options: Options,
    pub(crate) desk: Desk,
    pub(crate) batcher: Batcher<I>,
    /// Who may go on with a handshake.
    pub(crate) handshakes: Arc<Semaphore>,
}

/// Settings of a [`Service`].
///
/// ```
/// let mut options = otter_tokio::Options::default();
/// options.connections_max = 1000;
/// assert_eq!(options.turn_bytes_max, 1 << 20);
/// ```
#[derive(Clone)]
#[non_exhaustive]
pub struct Options {
    /// Connections of what [`serve`] accepts. Default 16384. Beyond: an idle connection is closed;
    /// if there is none, the new one is answered 503. Keep it well below the limit of open files.
    pub connections_max: usize,
    /// Connections that may wait until [`serve`] accepts them. Default 4096; the system's
    /// `net.core.somaxconn` bounds it. Beyond: the system lets the peer try again.
    pub backlog: i32,
    /// Bytes that one connection may move in one turn before the others have theirs. Default
    /// 1 MiB.
    pub turn_bytes_max: usize,
    /// TLS handshakes that go on at once, before all others that are ready have their turn.
    /// Default 1. On a runtime of many threads, how many of these a flood of handshakes may have.
    pub handshakes_at_once: usize,
    /// How long open transfers may go on after [`Service::shutdown`] before [`serve`] cuts them
    /// off. Default 30 s.
    pub drain_timeout: Duration,
    /// Limits and switches of the core.
    pub config: Arc<Config>,
    /// Is shown every report. Default none, which costs nothing.
    pub on_report: Option<OnReport>,
}

/// Called with the report of every request, and where the peer is, if that is known: an access
/// log. It must not block.
pub type OnReport = Arc<dyn Fn(&Report, Option<SocketAddr>) + Send + Sync>;

/// Carries queries to the store and answers back, until the last clone of its [`Service`] and the
/// last of its connections are gone. Spawn it. A panic in it is the store's: without it each query
/// waits for [`otter_protocol::Config::answer_timeout`], and is answered 503.
pub type Batching = Pin<Box<dyn Future<Output = ()> + Send>>;

impl Default for Options {
    fn default() -> Self {
        Self {
            connections_max: 16384,
            backlog: 4096,
            turn_bytes_max: 1 << 20,
            handshakes_at_once: 1,
            drain_timeout: Duration::from_secs(30),
            config: Arc::default(),
            on_report: None,
        }
    }
}

impl<I: AsRef<[u8]> + Clone + Send + 'static> Service<I> {
    /// A service of the store that `make_store` makes, given what that rings when answers wait.
    pub fn new<S: Store<Image = I>>(
        options: Options,
        make_store: impl FnOnce(Wake) -> S,
    ) -> (Self, Batching) {
        let bell = Arc::new(Notify::new());
        let ring = Arc::clone(&bell);
        let store = make_store(Arc::new(move || ring.notify_one()));
        let (desk, batcher) = (Desk::default(), Batcher::new(Arc::clone(&bell)));
        let handshakes = Arc::new(Semaphore::new(options.handshakes_at_once.max(1)));
        let shared = Arc::new(Shared { options, desk, batcher, handshakes });
        let batching = batcher::run(Arc::downgrade(&shared), bell, store);
        (Self(shared), Box::pin(batching))
    }
}

impl<I> Service<I> {
    /// Stops gracefully: idle connections are closed, requests and transfers under way may finish,
    /// [`serve`] takes nobody new. Connections that come later are closed at once, or after
    /// their request if it is there already. Returns at once.
    pub fn shutdown(&self) {
        self.0.desk.tell(Order::Leave);
    }

    /// What was counted so far.
    #[must_use]
    pub fn counters(&self) -> Counters {
        Counters::sum([self.tally()])
    }

    /// Where it counts: for the [`Counters::sum`] of several services.
    #[must_use]
    pub fn tally(&self) -> &Tally {
        &self.0.desk.tally
    }
}

/// Drives one connection over anything that reads and writes, such as a pipe in memory, until it is
/// closed. Dropping the future resets it.
///
/// The bytes of an image pass through user space here, which is why it must be [`Legible`]; over
/// plain TCP [`drive_tcp`] costs less. [`Options::connections_max`] does not hold it back.
///
/// # Errors
/// Why the stream failed. Else: why the connection was closed.
///
/// ```
/// # use otter_store::{Memory, MemoryOptions};
/// use otter_tokio::{Options, Service, drive};
/// use tokio::io::{AsyncReadExt, AsyncWriteExt};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let directory = tempfile::tempdir()?;
/// # let memory = Memory::open(directory.path(), MemoryOptions::default())?;
/// let (service, batching) = Service::new(Options::default(), |wake| memory.store(wake));
/// tokio::spawn(batching);
/// let (mut device, server) = tokio::io::duplex(4096);
/// let driven = tokio::spawn(drive(&service, server));
///
/// device.write_all(b"GET / HTTP/1.0\r\n\r\n").await?;
/// let mut answer = String::new();
/// device.read_to_string(&mut answer).await?;
/// assert!(answer.ends_with(r#"{"healthcheck":true}"#));
/// drop(device);
/// driven.await??;
/// # Ok(())
/// # }
/// ```
pub fn drive<I, T>(
    service: &Service<I>,
    stream: T,
) -> impl Future<Output = io::Result<CloseReason>> + use<I, T>
where
    I: Legible + AsRef<[u8]> + Clone,
    T: AsyncRead + AsyncWrite + Unpin,
{
    let slot = service.0.desk.enter(usize::MAX).unwrap_or_default();
    Peer::new(service, slot, stream, |_| None, &Security::Plain).run()
}

/// Drives one TCP connection, accepted by whomever and protected so, until it is closed: as
/// [`drive`], but without TLS images leave from their mapping without passing through user space.
///
/// # Errors
/// As [`drive`].
pub fn drive_tcp<I: Legible + AsRef<[u8]> + Clone>(
    service: &Service<I>,
    stream: TcpStream,
    security: &Security,
) -> impl Future<Output = io::Result<CloseReason>> + use<I> {
    // Without it an answer may wait for a peer's acknowledgement; the answer is as good.
    let _ = stream.set_nodelay(true);
    let slot = service.0.desk.enter(usize::MAX).unwrap_or_default();
    Peer::new(service, slot, stream, |tcp| Some(tcp), security).run()
}

/// Serves a listening socket until [`Service::shutdown`] and the drain that follows: at most
/// [`Options::drain_timeout`], then what is left of the service's connections is cut off. One
/// service may have any number of them.
///
/// Each connection is a task of the runtime that this runs on. Accepted sockets have the buffers
/// of the listening one, which are the caller's to choose. Left to itself the kernel lets a peer
/// that does not read pin 4 MiB of its memory; with `SO_SNDBUF` at 64 KiB it is 128 KiB. Requests
/// whose answer is not an error fit into 16 KiB.
///
/// ```
/// # async fn listen() -> std::io::Result<()> {
/// let socket = tokio::net::TcpSocket::new_v4()?;
/// socket.set_reuseaddr(true)?;
/// socket.set_send_buffer_size(64 * 1024)?;
/// socket.set_recv_buffer_size(16 * 1024)?;
/// socket.bind(([0, 0, 0, 0], 7442).into())?;
/// let listener = socket.listen(1024)?; // `serve` asks for `Options::backlog`
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// The socket is none of TCP. What accepting fails of passes: it is logged and tried again.
pub async fn serve<I: Legible + AsRef<[u8]> + Clone + Send + 'static>(
    service: &Service<I>,
    listener: TcpListener,
    security: Security,
) -> io::Result<()> {
    let socket = SockRef::from(&listener);
    // Every accepted socket inherits it; see `drive_tcp`.
    socket.set_tcp_nodelay(true)?;
    // As it does already, but for a larger crowd than is usual.
    socket.listen(service.0.options.backlog)?;
    let stopped = |floor: &Floor| floor.order > Order::Stay;
    while let Some(accepted) = tokio::select! {
        biased;
        () = service.0.desk.until(stopped) => None,
        accepted = listener.accept() => Some(accepted),
    } {
        match accepted {
            Ok((stream, _)) => admit(service, stream, &security),
            Err(error) => pause(service, &error).await,
        }
    }
    // Takes no more than wait already; who does is known once the runtime has looked.
    yield_now().await;
    for _ in 0..service.0.options.backlog {
        tokio::select! {
            biased;
            Ok((stream, _)) = listener.accept() => admit(service, stream, &security),
            () = std::future::ready(()) => break,
        }
    }
    drop(listener);
    let emptied = service.0.desk.until(|floor| floor.seats.is_empty());
    if timeout(service.0.options.drain_timeout, emptied).await.is_err() {
        service.0.desk.tell(Order::Cut);
    }
    Ok(())
}

/// No descriptor, no memory: trying again at once would only burn the CPU that the others need to
/// finish and make room.
async fn pause<I>(service: &Service<I>, error: &io::Error) {
    if !matches!(error.kind(), ErrorKind::ConnectionAborted | ErrorKind::Interrupted) {
        service.0.desk.count(|tally| tally.accept_pauses.add(1));
        tracing::warn!(%error, "cannot accept; allow more open files or lower connections_max");
        sleep(PAUSE).await;
    }
}

fn admit<I: Legible + AsRef<[u8]> + Clone + Send + 'static>(
    service: &Service<I>,
    stream: TcpStream,
    security: &Security,
) {
    if let Some(slot) = service.0.desk.enter(service.0.options.connections_max) {
        tokio::spawn(Peer::new(service, slot, stream, |tcp| Some(tcp), security).run());
        return;
    }
    // What is not read would turn the end into a reset, which can destroy the answer.
    let _ = stream.try_read(&mut [0; 4096]);
    let refused = service.tally().refused.read();
    service.0.desk.count(|tally| tally.refused.add(1));
    if !matches!(security, Security::Plain) {
        return;
    }
    // Once, if the socket takes it.
    let _ = stream.try_write(&no_room(&service.0.options.config, refused));
}

/// Also how often the log may say so.
const PAUSE: Duration = Duration::from_millis(250);
