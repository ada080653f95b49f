//! The device side on tokio: one thread per core, each with a runtime of its own, its own listening
//! socket, its own side of the store and its own connections, over what `otter_tokio` has for
//! everybody.
//!
//! Who embeds Otter has threads already, so this is no part of that crate; its tests run it.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use otter_mio::{Listeners, Options, bind, listen};
use otter_protocol::{Config, Counters, Legible, Tally};
use otter_store::{Store, Wake};
use otter_tokio::{Batching, Service, serve};
use tokio::runtime::Builder;
use tokio::task::JoinSet;

/// A server that listens and does not serve yet: as `otter_mio::Server`, with its options.
#[derive(Debug)]
pub(crate) struct Server {
    options: Options,
    local_addrs: Vec<SocketAddr>,
    listeners: Vec<Listeners>,
    pub(crate) handle: Handle,
}

/// The reins of a [`Server`]: stop it, wait for it, read its counters; works before it runs, too.
/// Clones are the same server, which goes on if all of them are dropped.
#[derive(Clone, Debug, Default)]
pub(crate) struct Handle {
    services: Arc<Mutex<Services>>,
    threads: Arc<Mutex<Vec<JoinHandle<io::Result<()>>>>>,
}

#[derive(Default)]
struct Services {
    all: Vec<Box<dyn Serving>>,
    stopped: bool,
}

/// A service, whatever its images are.
trait Serving: Send {
    fn shutdown(&self);
    fn tally(&self) -> &Tally;
}

impl Server {
    /// Binds the ports and listens: peers can connect from now on, and are served from
    /// [`Server::spawn`] on.
    pub(crate) fn bind(options: Options) -> io::Result<Self> {
        Self::with_listeners(bind(&options)?, options)
    }

    /// Serves on sockets that are bound or listen already, one worker for each list.
    pub(crate) fn with_listeners(listeners: Vec<Listeners>, options: Options) -> io::Result<Self> {
        let none = || io::Error::new(io::ErrorKind::InvalidInput, "no socket to listen on");
        let first = listeners.first().filter(|sockets| !sockets.is_empty()).ok_or_else(none)?;
        let local_addrs = first.iter().map(|(socket, _)| socket.local_addr());
        let local_addrs = local_addrs.collect::<io::Result<_>>()?;
        listeners.iter().flatten().try_for_each(|(socket, _)| listen(socket, &options))?;
        Ok(Self { options, local_addrs, listeners, handle: Handle::default() })
    }

    /// Where it listens, in the order of [`Options::listen`].
    pub(crate) fn local_addrs(&self) -> &[SocketAddr] {
        &self.local_addrs
    }

    /// Serves on threads of its own until [`Handle::shutdown`] and the drain that follows.
    ///
    /// `make_store` is called once per worker, with its number and what its store rings when
    /// answers wait. If the system has no thread for one, those that were started stop again.
    pub(crate) fn spawn<S: Store<Image: Legible>>(
        self,
        mut make_store: impl FnMut(usize, Wake) -> S,
    ) -> io::Result<Handle> {
        let Self { options, listeners, handle, .. } = self;
        let workers = listeners.len();
        for (index, listeners) in listeners.into_iter().enumerate() {
            let options = share(&options, workers);
            let (service, batching) = Service::new(options, |wake| make_store(index, wake));
            handle.watch(service.clone());
            // A worker that ends, in whatever way, ends the server: half a server that answers half
            // of the devices helps nobody, a restart does. So does one that cannot even start.
            let server = handle.clone();
            let serve = move || {
                let work = AssertUnwindSafe(|| work(&service, listeners, batching));
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

impl Handle {
    /// Stops the server gracefully: no new connections; idle ones are closed; requests and
    /// transfers under way may finish within the time to drain. Returns at once.
    pub(crate) fn shutdown(&self) {
        let mut services = self.services.lock().unwrap_or_else(PoisonError::into_inner);
        services.stopped = true;
        services.all.iter().for_each(|service| service.shutdown());
    }

    /// Waits until all workers have ended. Fails with why the first of them did: its store
    /// panicked, or it did. Told to one caller only.
    pub(crate) fn join(&self) -> io::Result<()> {
        let mut threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        let panicked = |_| Err(io::Error::other("a worker panicked"));
        let ended = threads.drain(..).map(|thread| thread.join().unwrap_or_else(panicked));
        ended.fold(Ok(()), Result::and)
    }

    /// What all workers counted.
    pub(crate) fn counters(&self) -> Counters {
        let services = self.services.lock().unwrap_or_else(PoisonError::into_inner);
        Counters::sum(services.all.iter().map(|service| service.tally()))
    }

    fn watch(&self, service: impl Serving + 'static) {
        let mut services = self.services.lock().unwrap_or_else(PoisonError::into_inner);
        if services.stopped {
            service.shutdown();
        }
        services.all.push(Box::new(service));
    }
}

impl<I: Send> Serving for Service<I> {
    fn shutdown(&self) {
        Self::shutdown(self);
    }

    fn tally(&self) -> &Tally {
        Self::tally(self)
    }
}

impl fmt::Debug for Services {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Services").field("stopped", &self.stopped).finish_non_exhaustive()
    }
}

/// One worker's settings.
fn share(options: &Options, workers: usize) -> otter_tokio::Options {
    let mut share = otter_tokio::Options::default();
    share.connections_max = options.connections_max.div_ceil(workers);
    share.backlog = options.backlog;
    share.turn_bytes_max = options.turn_bytes_max;
    share.drain_timeout = options.drain_timeout;
    // The core keeps spare buffers in its settings: a copy for each thread.
    share.config = Arc::new(Config::clone(&options.config));
    share.on_report = options.on_report.clone();
    share
}

/// Serves to the end. With the runtime the tasks of those end that have not finished.
fn work<I: Legible + AsRef<[u8]> + Clone + Send + 'static>(
    service: &Service<I>,
    listeners: Listeners,
    batching: Batching,
) -> io::Result<()> {
    let mut runtime = Builder::new_current_thread();
    runtime.enable_all().event_interval(POLLS_PER_TURN).build()?.block_on(async {
        let mut tasks = JoinSet::new();
        let sockets = listeners.len();
        for (listener, security) in listeners {
            let (service, listener) =
                (service.clone(), tokio::net::TcpListener::from_std(listener)?);
            tasks.spawn(async move { serve(&service, listener, security).await });
        }
        // A task, not a branch below: tasks that are woken run after those woken before them.
        tasks.spawn(async {
            batching.await;
            Ok(())
        });
        // All have ended but the batcher, or it has.
        for _ in 0..sockets {
            match tasks.join_next().await {
                Some(ended) => ended.map_err(io::Error::other)??,
                None => break,
            }
        }
        Ok(())
    })
}

/// Tasks that run before the runtime looks for what happened meanwhile. All that were woken at once
/// should have their turn in one: the more ask in one turn, the fewer batches the store is given.
const POLLS_PER_TURN: u32 = 256;
