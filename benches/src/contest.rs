//! Servers that are measured, and the slices of time in which they are loaded.

use std::time::{Duration, Instant};

use anyhow::Result;
use otter_tests::image::{image, sha256_of};

use crate::loader::{Loader, Until};
use crate::tls::{Certificate, Done, Job, SecureLoader, Terms, Then};
use crate::{APART, Contestant, Fleet, Server, cpu};

/// A server that runs, and who may ask it.
pub struct Side {
    /// The server.
    pub server: Server,
    /// Its devices.
    pub fleet: Fleet,
}

impl Side {
    /// Starts a contestant, under `wrapper` if that is not empty, and makes an owner with a key.
    ///
    /// # Errors
    /// If it does not become ready.
    pub fn start(contestant: Contestant<'_>, wrapper: &[&str]) -> Result<Self> {
        let server = Server::start(contestant, wrapper)?;
        let fleet = server.fleet()?;
        Ok(Self { server, fleet })
    }

    /// The same on a CPU of its own, and before other sessions of the machine where that is
    /// allowed. The load belongs on another CPU; as servers inherit where they may run, this
    /// process may run anywhere afterwards.
    ///
    /// # Errors
    /// If it does not become ready, or there is no such CPU.
    pub fn start_on(cpu: usize, contestant: Contestant<'_>) -> Result<Self> {
        cpu::unpin(std::process::id())?;
        let server = Server::start(contestant, &APART)?;
        cpu::pin(server.pid(), cpu)?;
        cpu::prefer(server.pid());
        let fleet = server.fleet()?;
        Ok(Self { server, fleet })
    }

    /// Clients of TLS that do one thing.
    ///
    /// # Errors
    /// If the server does not speak TLS.
    pub fn secure(
        &self,
        terms: &Terms,
        certificate: &Certificate,
        job: Job,
        clients: usize,
    ) -> Result<Entry<'_>> {
        let address = self.server.tls_address()?;
        let loader = SecureLoader::new(address, terms, certificate, job, clients)?;
        Ok(Entry { side: self, load: Box::new(loader) })
    }

    /// Clients without TLS that do one thing.
    ///
    /// # Errors
    /// If the process has no descriptor left.
    pub fn plain(&self, job: Job, clients: usize) -> Result<Entry<'_>> {
        let loader = SecureLoader::plain(self.server.address(), job, clients)?;
        Ok(Entry { side: self, load: Box::new(loader) })
    }

    /// Clients as small as devices: they take 2920 bytes at a time.
    ///
    /// # Errors
    /// If the process has no descriptor left.
    pub fn narrow(&self, job: Job, clients: usize) -> Result<Entry<'_>> {
        let mut loader = SecureLoader::plain(self.server.address(), job, clients)?;
        loader.narrow();
        Ok(Entry { side: self, load: Box::new(loader) })
    }

    /// Kept connections, each of a device of its own, that check in as soon as they are answered.
    ///
    /// # Errors
    /// If a device is refused.
    pub fn kept(&self, count: u32) -> Result<Entry<'_>> {
        let loader = Loader::connect(&self.server, &self.fleet, count)?;
        Ok(Entry { side: self, load: Box::new(loader) })
    }

    /// The same line by line.
    ///
    /// # Errors
    /// If a device is refused.
    pub fn kept_by_line(&self, count: u32) -> Result<Entry<'_>> {
        let mut loader = Loader::connect(&self.server, &self.fleet, count)?;
        loader.speak_by_line(&self.fleet);
        Ok(Entry { side: self, load: Box::new(loader) })
    }

    /// Device number `n` fetches an image of `size` bytes, again and again.
    ///
    /// # Errors
    /// If the image cannot be published.
    pub fn download(&self, n: u32, size: usize) -> Result<Job> {
        let image = image("1.1.0", size + TAIL_BYTES);
        let target = self.server.publish(&self.fleet, n, &image)?;
        let request = format!(
            "GET {target} HTTP/1.1\r\nHost: thinx.cloud:7443\r\nUser-Agent: ESP32\r\n\
             Range: bytes=0-{}\r\n\r\n",
            size - 1
        );
        let sha256 = Some(sha256_of(&image[..size]));
        Ok(Job { request: request.into_bytes(), status: 206, sha256, then: Then::AskAgain })
    }

    /// One device checks in, again and again.
    #[must_use]
    pub fn check_in(&self, then: Then) -> Job {
        let request = match then {
            Then::Reconnect => self.fleet.last_check_in(0),
            Then::AskAgain | Then::Keep => self.fleet.check_in(0),
        };
        Job { request, status: 200, sha256: None, then }
    }

    /// What the server grows by for each of so many connections that have asked once.
    ///
    /// # Errors
    /// If one is refused, or closed meanwhile.
    pub fn idle_bytes(&self, secure: Option<(&Terms, &Certificate)>, count: u64) -> Result<f64> {
        let loader = |then, clients| match secure {
            Some((terms, certificate)) => {
                let address = self.server.tls_address()?;
                SecureLoader::new(address, terms, certificate, self.check_in(then), clients)
            }
            None => SecureLoader::plain(self.server.address(), self.check_in(then), clients),
        };
        // The first ones warm the allocator and the tables.
        let mut warm = loader(Then::AskAgain, 64)?;
        warm.run(Until::Sent(64))?;
        let mut silent = loader(Then::Keep, 8)?;
        let before = self.server.resident_bytes()?;
        silent.run(Until::Sent(count))?;
        let after = self.server.resident_bytes()?;
        let kept = silent.kept()?;
        Ok((after as f64 - before as f64) / kept as f64)
    }
}

/// What can be let loose on a server for a while.
pub trait Load {
    /// Prepares a slice; what that costs does not count.
    ///
    /// # Errors
    /// If the server does not do what it must.
    fn introduce(&mut self) -> Result<()>;

    /// Asks until `until`, and waits for the answers that are missing.
    ///
    /// # Errors
    /// If an answer is not what it must be.
    fn run(&mut self, until: Until) -> Result<Done>;
}

impl Load for SecureLoader {
    fn introduce(&mut self) -> Result<()> {
        Self::introduce(self)
    }

    fn run(&mut self, until: Until) -> Result<Done> {
        Self::run(self, until)
    }
}

impl Load for Loader {
    fn introduce(&mut self) -> Result<()> {
        Ok(())
    }

    fn run(&mut self, until: Until) -> Result<Done> {
        let answers = Self::run(self, until)?;
        Ok(Done { answers, bytes: 0 })
    }
}

/// A load on one server.
pub struct Entry<'a> {
    /// The server.
    pub side: &'a Side,
    load: Box<dyn Load>,
}

/// What a slice cost.
#[derive(Clone, Copy, Debug)]
pub struct Cost {
    /// CPU time of the server.
    pub cpu_ns: f64,
    /// CPU time of this process.
    pub load_ns: f64,
    /// How long it took.
    pub seconds: f64,
    /// What came of it.
    pub done: Done,
}

impl Entry<'_> {
    /// Loads the server for 0.4 s.
    ///
    /// # Errors
    /// If an answer is not what it must be.
    pub fn slice(&mut self) -> Result<Cost> {
        self.load.introduce()?;
        let pids = [self.side.server.pid(), std::process::id()];
        let (start, before) = (Instant::now(), pids.map(cpu::used_ns));
        let done = self.load.run(Until::Elapsed(SLICE))?;
        let (seconds, after) = (start.elapsed().as_secs_f64(), pids.map(cpu::used_ns));
        let ([cpu_before, load_before], [cpu_after, load_after]) = (before, after);
        let cpu_ns = (cpu_after? - cpu_before?) as f64;
        let load_ns = (load_after? - load_before?) as f64;
        Ok(Cost { cpu_ns, load_ns, seconds, done })
    }
}

impl Cost {
    /// CPU time of the server for each answer.
    #[must_use]
    pub fn us_per_answer(&self) -> f64 {
        self.cpu_ns / 1e3 / self.done.answers as f64
    }

    /// CPU time of server and clients together for each answer.
    #[must_use]
    pub fn us_of_both_per_answer(&self) -> f64 {
        (self.cpu_ns + self.load_ns) / 1e3 / self.done.answers as f64
    }

    /// CPU time of the server for each GiB.
    #[must_use]
    pub fn seconds_per_gib(&self) -> f64 {
        self.cpu_ns / 1e9 / (self.done.bytes as f64 / GIB)
    }

    /// How much came in.
    #[must_use]
    pub fn mib_per_second(&self) -> f64 {
        self.done.bytes as f64 / f64::from(1 << 20) / self.seconds
    }

    /// How many CPUs so much CPU time kept busy.
    #[must_use]
    pub fn cpus(&self, ns: f64) -> f64 {
        ns / 1e9 / self.seconds
    }
}

/// How long a contestant is loaded at a time.
pub const SLICE: Duration = Duration::from_millis(400);
/// What Otter gives away once only (docs/token.md).
const TAIL_BYTES: usize = 4096;
const GIB: f64 = (1_u64 << 30) as f64;
