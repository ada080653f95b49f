//! The thread that keeps TLS up to date: certificates that were replaced, certificates that end,
//! and whatever else is to be done from time to time.

use std::fmt;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::certificates::{Certificates, Set};
use super::now_unix;
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
    for warning in set.warnings(now_unix()) {
        tracing::warn!("{warning}");
    }
}

/// How often files are looked at.
const TICK: Duration = Duration::from_secs(2);
/// How often certificates that end soon are warned of.
const DAY: Duration = Duration::from_secs(86_400);

#[cfg(test)]
mod tests {
    use super::super::made::{Made, load};
    use super::*;

    fn counts(certificates: &Certificates) -> (u64, u64) {
        let stats = certificates.stats();
        (stats.reloads_total, stats.reloads_failed_total)
    }

    #[test]
    fn the_thread_reloads_does_its_tasks_and_ends() {
        let made = Made::new();
        let certificates = load(vec![made.ecdsa("a", &["old.example"])]);
        let (sender, ticks) = channel();
        let task: Task = Box::new(move || sender.send(()).expect("the test waits"));
        let keeper = Keeper::start(Arc::clone(&certificates), vec![task]).expect("started");
        ticks.recv().expect("a first tick");
        keeper.reload();
        ticks.recv().expect("a tick after it");
        assert_eq!(counts(&certificates), (1, 0), "asked for, so done without a change, too");
        made.ecdsa("a", &["new.example"]);
        while counts(&certificates).0 < 2 {
            ticks.recv().expect("ticks go on");
        }
        assert!(certificates.current().summary().starts_with("new.example"));
        drop(keeper);
        assert!(ticks.iter().count() < 10, "the thread has ended, and its tasks with it");
    }

    #[test]
    fn what_changes_is_read_once() {
        let made = Made::new();
        let certificates = load(vec![made.ecdsa("a", &["old.example"])]);
        let mut rounds = Rounds::new(Arc::clone(&certificates), Vec::new());
        rounds.watch();
        assert_eq!(counts(&certificates), (0, 0), "nothing changed");
        made.ecdsa("a", &["new.example"]);
        rounds.watch();
        rounds.watch();
        assert_eq!(counts(&certificates), (1, 0));
    }

    #[test]
    fn a_failure_is_told_if_it_lasts_and_only_once() {
        let made = Made::new();
        let certificates = load(vec![made.ecdsa("a", &["old.example"])]);
        let mut rounds = Rounds::new(Arc::clone(&certificates), Vec::new());
        // The new certificate is there, its key not yet.
        let new = made.ecdsa("new", &["new.example"]);
        std::fs::copy(&new.certificate, made.path("a.pem")).expect("copied");
        rounds.watch();
        assert!(rounds.again && counts(&certificates) == (0, 1), "nothing is said yet");
        std::fs::copy(&new.key, made.path("a.key")).expect("copied");
        rounds.watch();
        assert!(!rounds.again && counts(&certificates) == (1, 1));

        made.write("a.pem", "broken");
        for failed in [2, 3, 3, 3] {
            rounds.watch();
            assert_eq!(counts(&certificates), (1, failed));
        }
        assert!(!rounds.again, "it was told");
        assert!(certificates.current().summary().starts_with("new.example"));
    }

    #[test]
    fn what_ends_is_warned_of_once_a_day() {
        let made = Made::new();
        let certificates = load(vec![made.ecdsa("a", &["a.example"])]);
        let mut rounds = Rounds::new(certificates, Vec::new());
        let start = Instant::now();
        for (after, warned) in [(0, 0), (2, 0), (86_399, 0), (86_400, 86_400), (86_402, 86_400)] {
            rounds.tick(start + Duration::from_secs(after));
            assert_eq!(rounds.warned, Some(start + Duration::from_secs(warned)), "{after}");
        }
    }
}
