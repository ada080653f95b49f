//! Check-ins at a steady rate over real sockets, and a verdict on every answer.
//!
//! The load is open: requests leave when they are due, however long answers take. Each goes over a
//! connection of its own, as the device libraries make it. A device has one request under way at
//! most, and every device belongs to one thread.
//!
//! ```no_run
//! use otter_tests::load::{Load, Plan};
//!
//! let servers = vec!["127.0.0.1:7442".parse().unwrap()];
//! let load = Load::start(Plan::new(servers, "owner", "key"));
//! // Kill something, and restart it; then
//! let back = std::time::Instant::now();
//! let recovery = load.wait_until_recovered(back);
//! let report = load.stop();
//! report.assert_right();
//! println!("{report}, recovered in {recovery:?}");
//! ```

mod driver;
mod fleet;
mod verdict;

use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use driver::Driver;
pub use verdict::Class;

use crate::redis::wait_for;

/// What to send, and where to.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Servers, which take turns.
    pub servers: Vec<SocketAddr>,
    /// Whose devices they are.
    pub owner: String,
    /// With which key.
    pub key: String,
    /// Check-ins a second, of all threads together. 500 unless told otherwise.
    pub rate: u32,
    /// Of 100 check-ins, those by devices that nobody has seen. 20 unless told otherwise. Half of
    /// them send no `udid`, so that the server mints one.
    pub new_percent: u64,
    /// Of 100 check-ins by known devices, those with another version than the last one, which the
    /// store must keep. 50 unless told otherwise.
    pub changed_percent: u64,
    /// Threads that send. 2 unless told otherwise.
    pub threads: u32,
    /// How long an answer may take before it is [`Class::Silent`]. 10 s unless told otherwise.
    pub patience: Duration,
    /// Of all chance. 1 unless told otherwise.
    pub seed: u64,
}

/// A load that goes on until it is stopped or dropped.
#[derive(Debug)]
pub struct Load {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<Part>>,
}

/// What threads and the owner of the load have in common.
#[derive(Debug)]
struct Shared {
    servers: Mutex<Vec<SocketAddr>>,
    is_stopping: AtomicBool,
    /// All that has been answered, or has failed.
    sent: Mutex<Vec<Sent>>,
}

/// What one thread leaves, beside what it has shared.
#[derive(Debug)]
struct Part {
    acknowledged: Vec<Acknowledged>,
    lateness_max: Duration,
}

/// One check-in.
#[derive(Clone, Debug)]
pub struct Sent {
    /// When its connection was begun.
    pub at: Instant,
    /// How long it took until its answer was complete, or it was clear that there would be none.
    pub latency: Duration,
    /// Which of the servers.
    pub server: usize,
    /// The MAC of the device.
    pub mac: String,
    /// The status, if there was an answer.
    pub status: Option<u16>,
    /// What became of it.
    pub class: Class,
}

/// A device whose registration was acknowledged: the store must know it from then on.
#[derive(Clone, Debug)]
pub struct Acknowledged {
    /// Its id: its own, or the one that a server minted.
    pub udid: String,
    /// Its MAC, twelve hexadecimal digits.
    pub mac: String,
    /// The last version that was acknowledged.
    pub version: String,
    /// Versions that were sent after that one and whose fate is unknown: the store may know any.
    pub versions_unknown: Vec<String>,
}

/// All check-ins of a load.
#[derive(Debug)]
pub struct Report {
    /// In the order in which their answers came.
    pub sent: Vec<Sent>,
    /// Each once.
    pub acknowledged: Vec<Acknowledged>,
    /// How late a check-in left at worst; if it is much, the load was not the one that was asked
    /// for.
    pub lateness_max: Duration,
}

impl Plan {
    /// 500 check-ins a second.
    #[must_use]
    pub fn new(servers: Vec<SocketAddr>, owner: &str, key: &str) -> Self {
        Self {
            servers,
            owner: owner.to_owned(),
            key: key.to_owned(),
            rate: 500,
            new_percent: 20,
            changed_percent: 50,
            threads: 2,
            patience: Duration::from_secs(10),
            seed: 1,
        }
    }
}

impl Load {
    /// Begins.
    ///
    /// # Panics
    /// If the plan names no server, no rate or no thread.
    #[must_use]
    pub fn start(plan: Plan) -> Self {
        assert!(!plan.servers.is_empty() && plan.rate > 0 && plan.threads > 0, "a plan");
        let shared = Arc::new(Shared {
            servers: Mutex::new(plan.servers.clone()),
            is_stopping: AtomicBool::new(false),
            sent: Mutex::new(Vec::new()),
        });
        let threads = (0..plan.threads)
            .map(|number| {
                let driver = Driver::new(number, plan.clone(), Arc::clone(&shared));
                thread::spawn(move || driver.run())
            })
            .collect();
        Self { shared, threads }
    }

    /// Server number `server` is at this address from now on.
    ///
    /// # Panics
    /// If there is no such server.
    pub fn redirect(&self, server: usize, address: SocketAddr) {
        self.shared.servers.lock().unwrap_or_else(PoisonError::into_inner)[server] = address;
    }

    /// How many check-ins have ended so far.
    #[must_use]
    pub fn ended(&self) -> usize {
        self.shared.sent().len()
    }

    /// Waits until `more` more check-ins have been answered with 200.
    ///
    /// # Panics
    /// If that does not happen within a minute, or a thread has panicked.
    pub fn wait_for_right(&self, more: usize) {
        let mut seen = self.ended();
        let mut right = 0;
        wait_for("right answers", || {
            assert!(self.threads.iter().all(|thread| !thread.is_finished()), "a thread ended");
            let sent = self.shared.sent();
            right += sent[seen..].iter().filter(|sent| sent.class.is_right()).count();
            seen = sent.len();
            (right >= more).then_some(())
        });
    }

    /// Waits until service is back after `instant`: until a second's worth of check-ins that were
    /// sent after it have been answered with 200, and none of them with anything else. Returns how
    /// long after `instant` the first of those was answered.
    ///
    /// # Panics
    /// As [`Load::wait_for_right`].
    pub fn wait_until_recovered(&self, instant: Instant) -> Duration {
        wait_for("service to be back", || {
            let sent = self.shared.sent();
            let since = begun_again(&sent, instant)?;
            let last = sent.iter().map(|sent| sent.at).max()?;
            let recovery = since.saturating_duration_since(instant);
            (last > since + Duration::from_secs(1)).then_some(recovery)
        })
    }

    /// Sends nothing more, waits for what is under way, and returns all.
    ///
    /// # Panics
    /// If a thread has panicked.
    #[must_use]
    pub fn stop(mut self) -> Report {
        self.shared.is_stopping.store(true, Ordering::Relaxed);
        let mut report =
            Report { sent: Vec::new(), acknowledged: Vec::new(), lateness_max: Duration::ZERO };
        for thread in self.threads.drain(..) {
            let part = thread.join().expect("a thread of the load");
            report.acknowledged.extend(part.acknowledged);
            report.lateness_max = report.lateness_max.max(part.lateness_max);
        }
        report.sent = std::mem::take(&mut *self.shared.sent());
        report
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.shared.is_stopping.store(true, Ordering::Relaxed);
    }
}

impl Shared {
    fn sent(&self) -> std::sync::MutexGuard<'_, Vec<Sent>> {
        self.sent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Report {
    /// How many ended so.
    #[must_use]
    pub fn count(&self, is: impl Fn(&Class) -> bool) -> usize {
        self.sent.iter().filter(|sent| is(&sent.class)).count()
    }

    /// The answers that no server may give: see [`Class::is_allowed`].
    pub fn wrong(&self) -> impl Iterator<Item = &Sent> {
        self.sent.iter().filter(|sent| !sent.class.is_allowed())
    }

    /// # Panics
    /// If there was a wrong answer; shows the first ones.
    pub fn assert_right(&self) {
        let first: Vec<_> = self.wrong().take(5).collect();
        assert!(first.is_empty(), "{} wrong answers: {first:#?}", self.wrong().count());
    }

    /// How long after `instant` service was back: when the first check-in was answered from which
    /// on all were. Zero if no check-in that was sent after `instant` failed. `None` if the last
    /// one did, or none was sent.
    #[must_use]
    pub fn recovery_after(&self, instant: Instant) -> Option<Duration> {
        if self.sent.iter().all(|sent| sent.at < instant || sent.class.is_right()) {
            return self.sent.iter().any(|sent| sent.at >= instant).then_some(Duration::ZERO);
        }
        Some(begun_again(&self.sent, instant)?.saturating_duration_since(instant))
    }

    /// The latency that `percent` of those stay below that ended so.
    ///
    /// # Panics
    /// If none did.
    #[must_use]
    pub fn latency(&self, percent: usize, is: impl Fn(&Class) -> bool) -> Duration {
        let sent = self.sent.iter().filter(|sent| is(&sent.class));
        let mut all: Vec<_> = sent.map(|sent| sent.latency).collect();
        all.sort_unstable();
        all[(all.len() * percent / 100).min(all.len() - 1)]
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of = |class: &Class| self.count(|other| other == class);
        write!(
            f,
            "{} check-ins: {} known and {} new devices answered, {} times unavailable, {} closed, \
             {} wrong; {} devices acknowledged; at most {:?} late",
            self.sent.len(),
            of(&Class::Known),
            of(&Class::Registered),
            of(&Class::Unavailable),
            of(&Class::Closed),
            self.wrong().count(),
            self.acknowledged.len(),
            self.lateness_max,
        )
    }
}

/// When the first check-in was answered of those that were sent after `instant` and after the last
/// one that failed.
fn begun_again(sent: &[Sent], instant: Instant) -> Option<Instant> {
    let failed = sent.iter().filter(|sent| !sent.class.is_right()).map(|sent| sent.at).max();
    let since = failed.map_or(instant, |failed| failed.max(instant));
    sent.iter().filter(|s| s.at > since && s.class.is_right()).map(|s| s.at + s.latency).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(base: Instant, sent: &[(u64, u64, Class)]) -> Report {
        let sent = sent.iter().map(|(at, latency, class)| Sent {
            at: base + Duration::from_millis(*at),
            latency: Duration::from_millis(*latency),
            server: 0,
            mac: String::new(),
            status: None,
            class: class.clone(),
        });
        Report { sent: sent.collect(), acknowledged: Vec::new(), lateness_max: Duration::ZERO }
    }

    #[test]
    fn recovery_ends_with_the_first_answer_from_which_on_all_are_right() {
        let base = Instant::now();
        let after = |ms| base + Duration::from_millis(ms);
        let outage = report(
            base,
            &[
                (0, 1, Class::Known),
                (10, 1, Class::Closed),
                (20, 5, Class::Registered),
                (30, 2000, Class::Unavailable),
                (40, 3, Class::Known),
                (50, 3, Class::Known),
            ],
        );
        assert_eq!(outage.recovery_after(after(5)), Some(Duration::from_millis(38)));
        assert_eq!(outage.recovery_after(after(35)), Some(Duration::ZERO));
        assert_eq!(outage.recovery_after(after(60)), None);
        let cut = report(base, &[(0, 1, Class::Known), (10, 1, Class::Silent)]);
        assert_eq!(cut.recovery_after(base), None);
        assert_eq!(cut.wrong().count(), 1);
        assert_eq!(outage.wrong().count(), 0);
        assert_eq!(outage.latency(50, Class::is_right), Duration::from_millis(3));
        assert_eq!(outage.latency(100, |class| !class.is_right()), Duration::from_secs(2));
    }
}
