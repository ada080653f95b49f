//! The thread that keeps TLS up to date: certificates that were replaced, certificates that end,
//! and whatever else is to be done from time to time.

use std::fmt;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::certificates::{Certificates, Set};
use crate::failure::{Context, Failure};

/// Something that is done at each tick of the thread, every 2 s. It should not take long.
pub(crate) type Task = Box<dyn FnMut() + Send>;

/// The thread `otter-tls`. Dropping this ends it.
pub(crate) struct Keeper {
    /// None: it was told to end.
    sender: Option<Sender<Reload>>,
    thread: Option<JoinHandle<()>>,
}

/// Read all files again, whether they changed or not.
struct Reload;

impl Keeper {
    /// Starts it. Each of `tasks` is done at once and at each tick.
    pub(crate) fn start(
        certificates: Arc<Certificates>,
        tasks: Vec<Task>,
    ) -> Result<Self, Failure> {
        let (sender, receiver) = channel();
        let rounds = Rounds::new(certificates, tasks);
        let thread = thread::Builder::new()
            .name("otter-tls".to_owned())
            .spawn(move || rounds.run(&receiver, TICK))
            .context(|| "cannot start the thread that watches certificates".to_owned())?;
        Ok(Self { sender: Some(sender), thread: Some(thread) })
    }

    /// Has all files read again, soon. The log says what came of it.
    pub(crate) fn reload(&self) {
        let sent = self.sender.as_ref().is_some_and(|sender| sender.send(Reload).is_ok());
        if !sent {
            tracing::error!("certificates are no longer watched: restart the server");
        }
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.sender = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that watches certificates panicked");
        }
    }
}

impl fmt::Debug for Keeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keeper").finish_non_exhaustive()
    }
}

/// What the thread does.
struct Rounds {
    certificates: Arc<Certificates>,
    tasks: Vec<Task>,
    /// Was the last attempt after a change a failure that nobody was told of?
    again: bool,
    warned: Option<Instant>,
}

impl Rounds {
    fn new(certificates: Arc<Certificates>, tasks: Vec<Task>) -> Self {
        Self { certificates, tasks, again: false, warned: None }
    }

    fn run(mut self, receiver: &Receiver<Reload>, tick: Duration) {
        loop {
            self.tick(Instant::now());
            match receiver.recv_timeout(tick) {
                Ok(Reload) => self.reload(),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn tick(&mut self, now: Instant) {
        self.watch();
        if self.warned.is_none_or(|warned| now.duration_since(warned) >= DAY) {
            self.warned = Some(now);
            warn(&self.certificates.current());
        }
        self.tasks.iter_mut().for_each(|task| task());
    }

    /// Reads the files again if they changed. Who replaces a certificate replaces its key a moment
    /// later, so the first failure is not told but tried again at the next tick.
    fn watch(&mut self) {
        let changed = self.certificates.have_changed();
        if !changed && !self.again {
            return;
        }
        match self.certificates.reload() {
            Ok(set) => self.renewed(&set),
            Err(_) if changed && !self.again => self.again = true,
            Err(failure) => self.kept(&failure),
        }
    }

    fn reload(&mut self) {
        match self.certificates.reload() {
            Ok(set) => self.renewed(&set),
            Err(failure) => self.kept(&failure),
        }
    }

    fn renewed(&mut self, set: &Set) {
        self.again = false;
        tracing::info!(certificates = set.summary(), "certificates were read again");
        warn(set);
    }

    fn kept(&mut self, failure: &Failure) {
        self.again = false;
        tracing::error!(%failure, "new certificates cannot be used; the old ones stay in use");
    }
}

fn warn(set: &Set) {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    for warning in set.warnings(since_1970.as_secs()) {
        tracing::warn!("{warning}");
    }
}

/// How often files are looked at.
const TICK: Duration = Duration::from_secs(2);
/// How often certificates that end soon are warned of.
const DAY: Duration = Duration::from_secs(86_400);
