//! A store with a script, devices with plain sockets, and waiting with a deadline.
#![allow(dead_code, reason = "each test binary uses its part")]

mod secret;

use std::fmt::Write as _;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

use otter_mio::{Handle, Options, Server};
use otter_protocol::{
    Alias, Answer, Counters, Device, DeviceId, DeviceStanding, Endpoint, KeyStanding, Kind,
    Legible, Offer, Outcome, Query, Record, Recorded, Redemption, Release, ReleaseId, Standing,
};
use otter_store::{Store, Ticket, Wake};

pub(crate) use self::secret::{OVER_TLS, security};
use self::secret::{Secret, Wire};

/// What test images are.
pub(crate) trait Image: AsRef<[u8]> + Legible + Clone + Send + Sync + 'static {}
impl<I: AsRef<[u8]> + Legible + Clone + Send + Sync + 'static> Image for I {}

/// The script of a store, shared by all workers: it knows every device and one image, and can hold
/// its answers back.
pub(crate) struct Script<I = Arc<[u8]>>(Arc<Mutex<Scene<I>>>);

struct Scene<I> {
    image: Option<Release<I>>,
    held: bool,
    held_back: usize,
    sides: Vec<Side<I>>,
}

struct Side<I> {
    wake: Wake,
    ready: Vec<(Ticket, Answer<I>)>,
    held_back: Vec<(Ticket, Answer<I>)>,
}

/// One worker's side of the script.
pub(crate) struct ScriptStore<I> {
    scene: Arc<Mutex<Scene<I>>>,
    index: usize,
}

impl<I: Image> Script<I> {
    pub(crate) fn new() -> Self {
        let sides = Vec::new();
        Self(Arc::new(Mutex::new(Scene { image: None, held: false, held_back: 0, sides })))
    }

    /// Every token is good for this image from now on.
    pub(crate) fn with_image(image: I) -> Self {
        let offer = Offer {
            release: ReleaseId([7; 16]),
            version: "2.0.0".into(),
            platform: "arduino".into(),
            env_hash: None,
            sha256: [1; 32],
            md5: [2; 16],
            size: image.as_ref().len() as u64,
            kind: Kind::Image,
        };
        let script = Self::new();
        script.scene().image = Some(Release { offer: Arc::new(offer), image });
        script
    }

    /// Answers nothing until [`Script::release`].
    pub(crate) fn hold(&self) {
        self.scene().held = true;
    }

    /// How many answers are held back.
    pub(crate) fn held_back(&self) -> usize {
        self.scene().held_back
    }

    /// Lets all answers go that were held back, and rings.
    pub(crate) fn release(&self) {
        let mut scene = self.scene();
        (scene.held, scene.held_back) = (false, 0);
        for side in &mut scene.sides {
            let Side { wake, ready, held_back } = side;
            for answer in held_back.drain(..) {
                ready.push(answer);
                wake();
            }
        }
    }

    pub(crate) fn store(&self, wake: Wake) -> ScriptStore<I> {
        let mut scene = self.scene();
        scene.sides.push(Side { wake, ready: Vec::new(), held_back: Vec::new() });
        ScriptStore { scene: Arc::clone(&self.0), index: scene.sides.len() - 1 }
    }

    fn scene(&self) -> MutexGuard<'_, Scene<I>> {
        self.0.lock().expect("no panic while it is locked")
    }
}

impl<I> Clone for Script<I> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<I: Image> Store for ScriptStore<I> {
    type Image = I;

    fn submit(&mut self, queries: &mut Vec<(Ticket, Query)>) {
        let mut scene = self.scene.lock().expect("no panic while it is locked");
        for (ticket, query) in queries.drain(..) {
            let answer = (ticket, scene.answer(query));
            if scene.held {
                scene.held_back += 1;
                scene.sides[self.index].held_back.push(answer);
            } else {
                scene.sides[self.index].ready.push(answer);
            }
        }
    }

    fn collect(&mut self, answers: &mut Vec<(Ticket, Answer<I>)>) {
        let mut scene = self.scene.lock().expect("no panic while it is locked");
        answers.append(&mut scene.sides[self.index].ready);
    }
}

impl<I: Image> Scene<I> {
    fn answer(&self, query: Query) -> Answer<I> {
        let redemption = |started| match &self.image {
            Some(release) => Redemption::Ready {
                device: DeviceId([7; 16]),
                release: release.clone(),
                started,
                forced: false,
            },
            None => Redemption::Unknown,
        };
        match query {
            Query::Identify(identify) => Answer::Standing(Standing {
                key: KeyStanding::Valid,
                device: identify.device.map_or(DeviceStanding::Unknown, known),
                newest: None,
            }),
            Query::Record(record) => Answer::Recorded(Some(recorded(&record))),
            Query::Redeem { .. } => Answer::Redemption(redemption(false)),
            Query::Start { .. } => Answer::Redemption(redemption(true)),
            Query::Claim { .. } => Answer::Claimed(true),
            Query::Push { .. } => Answer::Kept,
            Query::Fetch { .. } => Answer::Release(self.image.clone()),
        }
    }
}

fn known(id: DeviceId) -> DeviceStanding {
    DeviceStanding::Known(Device {
        id,
        alias: Alias::invented(id),
        mac: None,
        auto_update: false,
        version: None,
        env_hash: None,
        digest: 0,
        told_auto_update: false,
        seen: 0,
        offered: None,
    })
}

fn recorded(record: &Record) -> Recorded {
    let device = record.device.unwrap_or(DeviceId([9; 16]));
    Recorded { device, alias: Alias::invented(device), auto_update: false, token: None }
}

/// A server on a free port; ends with the value.
pub(crate) struct Running {
    pub(crate) handle: Handle,
    pub(crate) address: SocketAddr,
}

impl Running {
    /// One worker, unless `change` says otherwise.
    pub(crate) fn start<I: Image>(script: &Script<I>, change: impl FnOnce(&mut Options)) -> Self {
        let mut options = local(1);
        change(&mut options);
        let server = Server::bind(options).expect("a free port");
        let address = server.local_addrs()[0];
        let script = script.clone();
        let handle = server.spawn(|_, wake| script.store(wake)).expect("threads");
        Self { handle, address }
    }

    pub(crate) fn connect(&self) -> Peer {
        Peer::new(TcpStream::connect(self.address).expect("a connection"))
    }

    /// A connection for which there is no room, and what it is told, if anything.
    pub(crate) fn turned_away(&self) -> Option<Reply> {
        let stream = TcpStream::connect(self.address).expect("a connection");
        if OVER_TLS {
            stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
            let shaken = Secret::new().shake_hands(Wire { stream: &stream, sent: &mut 0 });
            let error = shaken.expect_err("no handshake").kind();
            assert!(!matches!(error, ErrorKind::WouldBlock | ErrorKind::InvalidData), "{error:?}");
            return None;
        }
        let mut peer = Peer::new(stream);
        let reply = peer.reply();
        assert!(peer.rest().is_empty());
        Some(reply)
    }

    pub(crate) fn counters(&self) -> Counters {
        self.handle.counters()
    }

    /// Waits until the counters say so.
    pub(crate) fn wait(&self, what: &str, mut said: impl FnMut(&Counters) -> bool) -> Counters {
        let mut counters = self.counters();
        wait(what, || {
            counters = self.counters();
            said(&counters)
        });
        counters
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.handle.shutdown();
        let ended = self.handle.join();
        if !thread::panicking() {
            ended.expect("no worker failed");
        }
    }
}

/// The other side of a connection.
pub(crate) struct Peer {
    pub(crate) stream: TcpStream,
    /// Bytes on the wire.
    pub(crate) sent: u64,
    /// It ended otherwise than the protocol says: by a reset, or in the middle of TLS.
    pub(crate) is_cut: bool,
    secret: Option<Secret>,
    read: Vec<u8>,
}

/// One answer.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Reply {
    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.body.clone()).expect("text")
    }

    pub(crate) fn has(&self, line: &str) -> bool {
        self.head.lines().any(|other| other.eq_ignore_ascii_case(line))
    }
}

impl Peer {
    /// With the handshake behind it, if there is one.
    pub(crate) fn new(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        stream.set_nodelay(true).expect("no delay");
        let (mut sent, mut secret) = (0, OVER_TLS.then(Secret::new));
        if let Some(secret) = &mut secret {
            let wire = Wire { stream: &stream, sent: &mut sent };
            secret.shake_hands(wire).expect("a handshake");
        }
        Self { stream, sent, is_cut: false, secret, read: Vec::new() }
    }

    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let mut wire = Wire { stream: &self.stream, sent: &mut self.sent };
        let sent = match &mut self.secret {
            Some(secret) => secret.send(bytes.as_ref(), wire),
            None => wire.write_all(bytes.as_ref()),
        };
        sent.expect("the server takes it");
    }

    /// Closes the sending side.
    pub(crate) fn finish(&mut self) {
        if let Some(secret) = &mut self.secret {
            let wire = Wire { stream: &self.stream, sent: &mut self.sent };
            secret.finish(wire).expect("the server takes it");
        }
        self.stream.shutdown(Shutdown::Write).expect("a connection");
    }

    /// Reads one answer.
    pub(crate) fn reply(&mut self) -> Reply {
        let end = loop {
            if let Some(end) = self.read.windows(4).position(|window| window == b"\r\n\r\n") {
                break end;
            }
            assert_ne!(self.more(), 0, "the end instead of a head: {:?}", self.read);
        };
        let rest = self.read.split_off(end + 4);
        let head = std::mem::replace(&mut self.read, rest);
        let head = String::from_utf8(head).expect("text");
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("Content-Length: "))
            .map_or(0, |length| length.parse().expect("a number"));
        while self.read.len() < length {
            assert_ne!(self.more(), 0, "{} of {length} bytes", self.read.len());
        }
        let rest = self.read.split_off(length);
        Reply { head, body: std::mem::replace(&mut self.read, rest) }
    }

    /// Reads up to the end, which may be a reset.
    pub(crate) fn rest(&mut self) -> Vec<u8> {
        while self.more() > 0 {}
        std::mem::take(&mut self.read)
    }

    /// Sends and reads one answer.
    pub(crate) fn exchange(&mut self, request: impl AsRef<[u8]>) -> Reply {
        self.send(request);
        self.reply()
    }

    fn more(&mut self) -> usize {
        let mut buffer = [0; 16384];
        match self.receive(&mut buffer) {
            Ok(n) => {
                self.read.extend_from_slice(&buffer[..n]);
                n
            }
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::ConnectionReset | ErrorKind::UnexpectedEof
                ) =>
            {
                self.is_cut = true;
                0
            }
            Err(error) => panic!("waited in vain: {error}"),
        }
    }

    fn receive(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &mut self.secret {
            Some(secret) => {
                secret.read(buffer, Wire { stream: &self.stream, sent: &mut self.sent })
            }
            None => self.stream.read(buffer),
        }
    }
}

/// Settings of a server on a free port.
pub(crate) fn local(workers: usize) -> Options {
    let mut options = Options::new("127.0.0.1:0".parse().expect("an address"));
    options.listen[0].1 = security();
    options.workers = workers;
    options
}

/// A check-in as the device library sends it, with a line end beyond the body.
pub(crate) fn check_in(device: u8) -> String {
    let owner = "a".repeat(64);
    let device = DeviceId([device; 16]);
    let body = format!(
        concat!(
            r#"{{"registration":{{"mac":"5CCF7FEE1337","owner":"{}","udid":"{}","#,
            r#""version":"1.0.0"}}}}"#
        ),
        owner, device
    );
    let mut request = String::from("POST /device/register HTTP/1.1\r\nHost: otter\r\n");
    let key = "b".repeat(64);
    write!(request, "Authentication: {key}\r\nContent-Type: application/json\r\n").expect("memory");
    write!(request, "Content-Length: {}\r\n\r\n{body}\r\n", body.len()).expect("memory");
    request
}

/// The name that the script gives a device.
pub(crate) fn alias(device: u8) -> String {
    Alias::invented(DeviceId([device; 16])).to_string()
}

/// A download with a token.
pub(crate) fn download() -> String {
    format!("GET /device/firmware?ott={} HTTP/1.1\r\nHost: otter\r\n\r\n", "c".repeat(64))
}

/// An image whose every part is different.
pub(crate) fn image(length: usize) -> Arc<[u8]> {
    (0..length).map(|at| (at * 31 % 251) as u8).collect()
}

/// How many requests of a kind were counted.
pub(crate) fn requests(counters: &Counters, endpoint: Endpoint, outcome: Outcome) -> u64 {
    let of_kind = counters.requests().filter(|r| (r.endpoint, r.outcome) == (endpoint, outcome));
    of_kind.map(|r| r.count).sum()
}

/// Waits until it is so; panics if it never is.
pub(crate) fn wait(what: &str, mut so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !so() {
        assert!(start.elapsed() < PATIENCE, "waited in vain: {what}");
        thread::park_timeout(Duration::from_millis(1));
    }
}

/// Only a failing test waits that long.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
