//! Devices that update over and over by token, at any of several servers, whatever happens to
//! those; and what each token gave.

use std::collections::HashMap;
use std::fmt;
use std::io::Read;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use otter_tests::Random;
use otter_tests::redis::wait_for;
use serde_json::Value;

use crate::device::{Answer, Device, image};
use crate::site::{Site, allow_updates};

const IMAGE_BYTES: usize = 1 << 20;
/// What stands behind the claim (docs/token.md).
const TAIL_BYTES: usize = 4096;
/// The number of the first of the devices that only register.
const NEWCOMERS: u32 = 10_000;
const OLD: &str = "1.0.0";
const NEW: &str = "1.1.0";

/// Devices that download until [`Downloads::finish`].
pub(crate) struct Downloads {
    shared: Arc<Shared>,
    devices: Vec<JoinHandle<()>>,
    like: Device,
    random: Mutex<Random>,
    /// The number of the next device that only registers.
    newcomer: Arc<AtomicU32>,
}

struct Shared {
    servers: Mutex<Vec<SocketAddr>>,
    image: Vec<u8>,
    is_ending: AtomicBool,
    /// For each token, how many attempts had some of the tail, and how many all of it.
    tokens: Mutex<HashMap<String, Tails>>,
    /// Requests, answered or not.
    attempts: AtomicU64,
    resumed: AtomicU64,
    finished: AtomicU64,
    /// How often each device has finished.
    finishers: Mutex<HashMap<String, u64>>,
}

#[derive(Clone, Copy, Default)]
struct Tails {
    begun: u32,
    whole: u32,
}

/// What came of it.
pub(crate) struct Outcome {
    pub(crate) attempts: u64,
    /// Downloads that went on where an earlier one had ended.
    pub(crate) resumed: u64,
    finishers: HashMap<String, u64>,
    tokens: HashMap<String, Tails>,
}

impl Downloads {
    /// Registers devices, publishes an update for them, and lets them begin.
    pub(crate) fn start(site: &Site, devices: u32, random: &mut Random) -> Self {
        let image = image(IMAGE_BYTES, 7);
        let servers = site.places.iter().map(|place| place.server().http).collect();
        for n in 0..devices {
            let device = site.device(n as usize % site.places.len(), n);
            device.check_in(OLD);
            allow_updates(&site.server(0).admin, &device.udid);
        }
        site.publish(0, NEW, &image);
        let shared = Arc::new(Shared {
            servers: Mutex::new(servers),
            image,
            is_ending: AtomicBool::new(false),
            tokens: Mutex::default(),
            attempts: AtomicU64::new(0),
            resumed: AtomicU64::new(0),
            finished: AtomicU64::new(0),
            finishers: Mutex::default(),
        });
        let threads = (0..devices).map(|n| {
            let (shared, random) = (Arc::clone(&shared), random.fork());
            let mut updater = Updater { shared, device: site.device(0, n), random };
            thread::spawn(move || updater.run())
        });
        let devices = threads.collect();
        let random = Mutex::new(random.fork());
        let newcomer = Arc::new(AtomicU32::new(NEWCOMERS));
        Self { shared, devices, like: site.device(0, 0), random, newcomer }
    }

    /// Registers one new device after the other until the end; returns those that were
    /// acknowledged.
    pub(crate) fn register(&self) -> JoinHandle<Vec<String>> {
        let (shared, newcomer) = (Arc::clone(&self.shared), Arc::clone(&self.newcomer));
        let (like, mut random) = (self.like.clone(), self.random.lock().expect("kept").fork());
        thread::spawn(move || {
            let mut acknowledged = Vec::new();
            while !shared.is_ending.load(Ordering::Relaxed) {
                let n = newcomer.fetch_add(1, Ordering::Relaxed);
                let mut device = Device::nth(like.server, &like.owner, &like.key, n);
                device.server = shared.any(&mut random);
                // One that hears nothing has bad luck, and the next one comes.
                let answer = device.register(OLD);
                if answer.is_some_and(|answer| answer.text().contains("\"success\":true")) {
                    acknowledged.push(device.udid);
                }
            }
            acknowledged
        })
    }

    /// Server number `server` is at this address from now on.
    pub(crate) fn redirect(&self, server: usize, address: SocketAddr) {
        self.shared.servers.lock().expect("kept")[server] = address;
    }

    /// Waits until so many more requests were made, whatever became of them.
    pub(crate) fn wait_for_attempts(&self, more: u64) {
        let wanted = self.shared.attempts.load(Ordering::Relaxed) + more;
        wait_for("attempts", || {
            assert!(self.devices.iter().all(|device| !device.is_finished()), "a device ended");
            (self.shared.attempts.load(Ordering::Relaxed) >= wanted).then_some(())
        });
    }

    /// How many updates have been finished.
    pub(crate) fn finished(&self) -> u64 {
        self.shared.finished.load(Ordering::Relaxed)
    }

    /// Lets each device finish the update that it is at, and returns what came of all.
    pub(crate) fn finish(self) -> Outcome {
        self.shared.is_ending.store(true, Ordering::Relaxed);
        for device in self.devices {
            device.join().expect("a device finishes");
        }
        Outcome {
            attempts: self.shared.attempts.load(Ordering::Relaxed),
            resumed: self.shared.resumed.load(Ordering::Relaxed),
            finishers: std::mem::take(&mut *self.shared.finishers.lock().expect("kept")),
            tokens: std::mem::take(&mut *self.shared.tokens.lock().expect("kept")),
        }
    }
}

impl Shared {
    fn any(&self, random: &mut Random) -> SocketAddr {
        *random.pick(&self.servers.lock().expect("kept"))
    }

    /// Takes what the server sends from byte `start` on, up to `most` bytes, and judges it.
    /// `None` if there was no answer; else the status, and the body of one that is a success.
    fn attempt(
        &self,
        device: &Device,
        token: &str,
        start: usize,
        most: usize,
    ) -> Option<(u16, Vec<u8>)> {
        self.attempts.fetch_add(1, Ordering::Relaxed);
        let mut stream = device.request_download(token, start).ok()?;
        let mut received = Vec::new();
        let mut buffer = [0; 16 << 10];
        while received.len() < most {
            match stream.read(&mut buffer) {
                Ok(0) | Err(_) => break,
                Ok(n) => received.extend_from_slice(&buffer[..n]),
            }
        }
        let Answer { status, body, .. } = Answer::parse(received)?;
        match status {
            200 | 206 => {
                assert!(self.image[start..].starts_with(&body), "{} other bytes", body.len());
                let end = start + body.len();
                let mut tokens = self.tokens.lock().expect("kept");
                let tails = tokens.entry(token.to_owned()).or_default();
                tails.begun += u32::from(end > IMAGE_BYTES - TAIL_BYTES);
                tails.whole += u32::from(end == IMAGE_BYTES);
            }
            404 => assert_eq!(body, b"OTT_UPDATE_NOT_FOUND"),
            503 => {}
            _ => panic!("{status} {}", String::from_utf8_lossy(&body)),
        }
        Some((status, body))
    }
}

/// A device that updates, goes back to the old version, and updates again.
struct Updater {
    shared: Arc<Shared>,
    device: Device,
    random: Random,
}

impl Updater {
    fn run(&mut self) {
        loop {
            self.update();
            self.shared.finished.fetch_add(1, Ordering::Relaxed);
            let mut finishers = self.shared.finishers.lock().expect("kept");
            *finishers.entry(self.device.udid.clone()).or_default() += 1;
            drop(finishers);
            if self.shared.is_ending.load(Ordering::Relaxed) {
                return;
            }
        }
    }

    /// From the offer to the check-in with the new version, with as many tokens as it takes.
    fn update(&mut self) {
        loop {
            let offer = self.check_in(OLD, "FIRMWARE_UPDATE");
            let token = crate::program::text(&offer, "ott");
            let rival = self.random.chance(25).then(|| self.rival(&token));
            let is_whole = self.download(&token);
            if let Some(rival) = rival {
                rival.join().expect("a rival");
            }
            if is_whole {
                self.check_in(NEW, "OK");
                return;
            }
        }
    }

    /// Checks in until that is answered, and then with this status.
    fn check_in(&mut self, version: &str, status: &str) -> Value {
        let answer = wait_for("an answer to a check-in", || {
            self.shared.attempts.fetch_add(1, Ordering::Relaxed);
            self.device.server = self.shared.any(&mut self.random);
            self.device.register(version).filter(|answer| answer.status != 503)
        });
        let body: Value = serde_json::from_slice(&answer.body).expect("JSON");
        assert_eq!(body["registration"]["status"], status, "{body}");
        body["registration"].clone()
    }

    /// Downloads with one token until it has all, or the token is dead; says which.
    fn download(&mut self, token: &str) -> bool {
        let mut got = 0;
        loop {
            let (status, body) = wait_for("an answer to a download", || {
                self.device.server = self.shared.any(&mut self.random);
                // Some get all that the server gives, some lose the connection on the way.
                let most = self.random.below(IMAGE_BYTES as u64 * 2) as usize;
                let (status, body) = self.shared.attempt(&self.device, token, got, most.max(1))?;
                (status != 503).then_some((status, body))
            });
            if status == 404 {
                return false;
            }
            self.shared
                .resumed
                .fetch_add(u64::from(got > 0 && !body.is_empty()), Ordering::Relaxed);
            got += body.len();
            if got == IMAGE_BYTES {
                return true;
            }
        }
    }

    /// Somebody else who knows the token, and tries once.
    fn rival(&mut self, token: &str) -> JoinHandle<()> {
        let (shared, token) = (Arc::clone(&self.shared), token.to_owned());
        let device = Device { server: shared.any(&mut self.random), ..self.device.clone() };
        thread::spawn(move || drop(shared.attempt(&device, &token, 0, usize::MAX)))
    }
}

impl Outcome {
    /// No token gave its tail twice, and all devices finished.
    pub(crate) fn assert_once_each(&self, devices: u32) {
        for (token, tails) in &self.tokens {
            let Tails { begun, whole } = tails;
            assert!(*begun <= 1 && *whole <= 1, "{}: {begun} tails, {whole} whole", &token[..6]);
        }
        assert_eq!(self.finishers.len(), devices as usize, "all finished");
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tokens = self.tokens.values();
        let whole: u32 = tokens.clone().map(|tails| tails.whole).sum();
        let unused = tokens.filter(|tails| tails.begun == 0).count();
        write!(
            f,
            "{} requests, {} of them resumed, {} tokens, {whole} whole images, {unused} tokens \
             without a tail, {} updates finished",
            self.attempts,
            self.resumed,
            self.tokens.len(),
            self.finishers.values().sum::<u64>(),
        )
    }
}
