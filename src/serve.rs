//! `otter serve`.

use std::io;
use std::net::SocketAddr;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use axum::Router;
use otter_protocol::{Report, Security};
use otter_store::OpenError;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use tokio::sync::oneshot;

use crate::admin::{self, Admin};
use crate::cli::Serve;
use crate::config::{self, Settings};
use crate::devices::{DeviceServer, Devices};
use crate::failure::{Context, Failure};
use crate::first_run;
use crate::images::ImageListener;
use crate::limits;
use crate::listen::Places;
use crate::logs;
use crate::output::Output;
use crate::socket::{self, Socket};
use crate::store::{AnyStore, StoreChoice};
use crate::tls::{self, Keeper, Tls};

pub(crate) fn run(data: &Path, args: &Serve, output: Output) -> Result<ExitCode, Failure> {
    let settings = Settings::for_serve(data, args)?;
    logs::start(settings.log_format)?;
    for name in config::unknown_variables() {
        tracing::warn!("{name} is no setting: docs/configuration.md lists them all");
    }
    for unused in settings.unused() {
        tracing::warn!("{unused}");
    }
    let data = socket::fitting(data)?;
    let certificates = tls::certificates(&settings)?;
    let (sender, events) = channel();
    listen_for_signals(sender.clone())?;
    let store = open_store(&data, &settings)?;
    for warning in store.warnings() {
        tracing::warn!("{warning}");
    }
    if matches!(settings.store, StoreChoice::Redis(_)) && data.join("otter.db").exists() {
        tracing::warn!("otter.db in the data directory is not used: the facts are in Redis");
    }
    let operator = store.operator();
    let tls = certificates.as_ref().map(|shown| Tls::new(&settings, shown, &operator));
    let tls = tls.transpose()?;
    let server = bind(&settings, tls.as_ref())?;
    let places = Places::of(settings.listen, server.local_addrs());
    let images = settings.image_listen.map(|listen| {
        ImageListener::start(listen, settings.image_secret.as_ref(), operator.clone())
    });
    let images = images.transpose()?;
    let (socket, listener) = Socket::bind(&data)?;
    let devices = store.serve(server)?;
    let admin = Admin::new(
        operator.clone(),
        settings.core(),
        settings.image_bytes_max,
        Some(devices.clone()),
        certificates,
    );
    let control = Control::start(listener, admin::router(admin))?;
    if let Some(text) = first_run::welcome(&operator, &data, socket.path(), &places.url())? {
        output.note(&text);
    }
    let to_servers = images.as_ref().map(|images| format!(" images={}", images.address()));
    let to_servers = to_servers.unwrap_or_default();
    let keeper = tls.map(Tls::keep).transpose()?;
    output.line(&format!("ready {places}{to_servers} admin={}", socket.path().display()))?;
    tracing::info!(data = %data.display(), "ready {places}");
    let ended = wait(devices, sender, &events, keeper.as_ref());
    drop(keeper);
    images.into_iter().for_each(ImageListener::stop);
    control.stop();
    drop(socket);
    store.close();
    match ended {
        Ok(()) => {
            tracing::info!("stopped");
            Ok(ExitCode::SUCCESS)
        }
        Err(error) => Err(Failure::failed(format!("the server ended: {error}"))
            .hint("the log above says why; please report it if it was a panic")),
    }
}

/// Opens the store. Waits for a command that holds an embedded one for a moment, but not for a
/// server.
fn open_store(data: &Path, settings: &Settings) -> Result<AnyStore, Failure> {
    let patience = Instant::now() + PATIENCE;
    loop {
        // Only the embedded store has a lock; a server that answers is as good.
        if settings.store != StoreChoice::Embedded && socket::answers(data) {
            let error = format!("a server runs on {} already", data.display());
            return Err(Failure::conflict(error).hint("stop it, or choose another --data"));
        }
        match AnyStore::open(data, settings) {
            Err(OpenError::Locked { .. })
                if Instant::now() < patience && !socket::answers(data) =>
            {
                thread::sleep(PAUSE);
            }
            Err(error @ OpenError::Directory { .. }) => {
                let failure = Failure::from(error);
                return Err(failure.hint("choose another data directory with --data"));
            }
            opened => return Ok(opened?),
        }
    }
}

/// The thread of the admin API.
struct Control {
    thread: JoinHandle<()>,
    stop: oneshot::Sender<()>,
}

impl Control {
    fn start(listener: UnixListener, router: Router) -> Result<Self, Failure> {
        let (stop, stopped) = oneshot::channel();
        let starting = || "cannot start the admin API".to_owned();
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().context(starting)?;
        let thread = thread::Builder::new()
            .name("otter-admin".to_owned())
            .spawn(move || {
                if let Err(error) = runtime.block_on(answer(listener, router, stopped)) {
                    tracing::error!(%error, "the admin API ended");
                }
                runtime.shutdown_timeout(CONTROL_DRAIN);
            })
            .context(starting)?;
        Ok(Self { thread, stop })
    }

    /// Lets requests under way finish, for a while.
    fn stop(self) {
        let _ = self.stop.send(());
        if self.thread.join().is_err() {
            tracing::error!("the admin API panicked");
        }
    }
}

async fn answer(
    listener: UnixListener,
    router: Router,
    stopped: oneshot::Receiver<()>,
) -> io::Result<()> {
    let listener = tokio::net::UnixListener::from_std(listener)?;
    let (expire, expired) = oneshot::channel();
    let serving = axum::serve(listener, router).with_graceful_shutdown(async move {
        let _ = stopped.await;
        let _ = expire.send(());
    });
    let deadline = async {
        let _ = expired.await;
        tokio::time::sleep(CONTROL_DRAIN).await;
    };
    tokio::select! {
        ended = serving => ended,
        () = deadline => Ok(()),
    }
}

/// What the server is told while it runs.
enum Event {
    /// To end.
    Signal,
    /// To read certificates again.
    Reload,
    /// The workers have ended.
    Ended(io::Result<()>),
}

/// The first signal to end is an event; a second one ends the process at once. SIGHUP is an event
/// each time, and ends nothing.
fn listen_for_signals(sender: Sender<Event>) -> Result<(), Failure> {
    let doing = || "cannot listen for signals".to_owned();
    let stopping = Arc::new(AtomicBool::new(false));
    for signal in [SIGTERM, SIGINT] {
        let again = Arc::clone(&stopping);
        signal_hook::flag::register_conditional_shutdown(signal, EXIT_AT_ONCE, again)
            .context(doing)?;
    }
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP]).context(doing)?;
    let run = move || {
        for signal in signals.forever() {
            let event = if signal == SIGHUP {
                Event::Reload
            } else {
                stopping.store(true, Ordering::SeqCst);
                Event::Signal
            };
            if sender.send(event).is_err() {
                return;
            }
        }
    };
    thread::Builder::new().name("otter-signals".to_owned()).spawn(run).context(doing)?;
    Ok(())
}

fn bind(settings: &Settings, tls: Option<&Tls>) -> Result<DeviceServer, Failure> {
    let plain = settings.listen.address().map(|address| (address, Security::Plain));
    let by_tls = tls.iter().flat_map(|tls| tls.listen.iter().cloned());
    let listen: Vec<_> = plain.into_iter().chain(by_tls).collect();
    let places: Vec<_> = listen.iter().map(|(address, _)| address.to_string()).collect();
    let mut options = settings.driver(listen);
    options.connections_max = limits::make_room(options.connections_max);
    if tracing::enabled!(target: REQUESTS, tracing::Level::DEBUG) {
        options.on_report = Some(Arc::new(log_request));
    }
    DeviceServer::bind(settings.runtime, options).map_err(|error| {
        let text = format!("cannot listen on {}: {error}", places.join(" and "));
        let kind = error.kind();
        if kind == io::ErrorKind::AddrInUse {
            Failure::conflict(text)
                .hint("stop what listens there, or choose another place (--listen, --tls-listen)")
        } else if kind == io::ErrorKind::AddrNotAvailable {
            Failure::usage(text).hint(
                "choose an address of this machine, such as 0.0.0.0:7442 (--listen, --tls-listen)",
            )
        } else if kind == io::ErrorKind::PermissionDenied {
            Failure::failed(text)
                .hint("ports below 1024 need a privilege; choose another one with --listen")
        } else {
            Failure::failed(text)
        }
    })
}

fn log_request(report: &Report, peer: Option<SocketAddr>) {
    tracing::debug!(
        target: REQUESTS,
        peer = peer.map(tracing::field::display),
        endpoint = ?report.endpoint,
        status = report.status,
        outcome = ?report.outcome,
        device = report.device.map(tracing::field::display),
        bytes = report.bytes_sent,
        took_us = u64::try_from(report.took.as_micros()).unwrap_or(u64::MAX),
        "request"
    );
}

/// Waits for a signal and the drain after it, or for the workers to end by themselves.
fn wait(
    devices: Devices,
    sender: Sender<Event>,
    events: &Receiver<Event>,
    keeper: Option<&Keeper>,
) -> io::Result<()> {
    let workers = devices.clone();
    thread::Builder::new().name("otter-join".to_owned()).spawn(move || {
        // Its receiver is there until this arrives.
        let _ = sender.send(Event::Ended(workers.join()));
    })?;
    loop {
        match events.recv() {
            Ok(Event::Signal) => {
                tracing::info!("draining; a second signal ends at once");
                devices.shutdown();
            }
            Ok(Event::Reload) => match keeper {
                Some(keeper) => keeper.reload(),
                None => tracing::info!("there are no certificates to read again"),
            },
            Ok(Event::Ended(result)) => return result,
            Err(_) => return Err(io::Error::other("nobody watches the workers")),
        }
    }
}

/// How long a lock that no server holds is waited for.
const PATIENCE: Duration = Duration::from_secs(3);
/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(20);
/// The target of the log's lines for requests.
const REQUESTS: &str = "otter::requests";
/// The exit status after a second signal.
const EXIT_AT_ONCE: i32 = 1;
/// How long requests on the admin socket may go on once the devices are gone.
const CONTROL_DRAIN: Duration = Duration::from_secs(5);
