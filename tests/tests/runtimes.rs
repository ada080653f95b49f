//! Law 11 of docs/design.md 8: every driver gives the same transcript for the same scenario, over
//! TLS the same plaintext. Real sockets on loopback, the model store behind both; what differs from
//! run to run is the time in replies, which is masked.
//!
//! Requests that come at once are held against the core by itself, too.
//!
//! Not the same over TLS: who is turned away because there is no room is not told so.

#[path = "../../src/tokio_server.rs"]
mod tokio_server;

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use otter_protocol::{Answer, Counters, Query, Security};
use otter_store::{Store, Ticket, Wake};
use otter_tests::scene::{KEY, Redeemable, registration};
use otter_tests::{Draft, ModelStore, Reply, Request, Scene, samples};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, StreamOwned};
use socket2::{Domain, SockRef, Socket, Type};

/// The model store as both drivers' one worker asks it; answers can be held back.
#[derive(Clone)]
struct Shop(Arc<Mutex<Counter>>);

struct Counter {
    model: ModelStore,
    held: bool,
    held_back: Vec<(Ticket, Answer<Bytes>)>,
    ready: Vec<(Ticket, Answer<Bytes>)>,
    wake: Option<Wake>,
}

impl Shop {
    fn of(scene: &Scene) -> Self {
        let model = scene.store.clone();
        let (held_back, ready) = (Vec::new(), Vec::new());
        Self(Arc::new(Mutex::new(Counter { model, held: false, held_back, ready, wake: None })))
    }

    fn store(&self, wake: Wake) -> Self {
        self.counter().wake = Some(wake);
        self.clone()
    }

    fn release(&self) {
        let mut counter = self.counter();
        counter.held = false;
        let released = std::mem::take(&mut counter.held_back);
        counter.ready.extend(released);
        counter.wake.iter().for_each(|wake| wake());
    }

    fn counter(&self) -> MutexGuard<'_, Counter> {
        self.0.lock().expect("no panic while it is locked")
    }
}

impl Store for Shop {
    type Image = Bytes;

    fn submit(&mut self, queries: &mut Vec<(Ticket, Query)>) {
        let mut counter = self.counter();
        for (ticket, query) in queries.drain(..) {
            let answer = (ticket, counter.model.answer(&query));
            let held = counter.held;
            if held { &mut counter.held_back } else { &mut counter.ready }.push(answer);
        }
    }

    fn collect(&mut self, answers: &mut Vec<(Ticket, Answer<Bytes>)>) {
        answers.append(&mut self.counter().ready);
    }
}

/// A server on one of the drivers.
struct Stage {
    address: SocketAddr,
    /// How peers speak TLS, if they do.
    client: Option<Arc<ClientConfig>>,
    shop: Shop,
    shutdown: Box<dyn Fn()>,
    join: Box<dyn Fn() -> io::Result<()>>,
    counters: Box<dyn Fn() -> Counters>,
}

macro_rules! start {
    ($driver:ident, $scene:expr, $connections_max:expr, $tls:expr) => {{
        let mut options = otter_mio::Options::new("127.0.0.1:0".parse().expect("an address"));
        let tls: Option<&Pair> = $tls;
        options.listen[0].1 =
            tls.map_or(Security::Plain, |pair| Security::Tls(Arc::clone(&pair.server)));
        options.workers = 1;
        options.config = Arc::new($scene.config.clone());
        options.connections_max = $connections_max;
        let server = $driver::Server::bind(options).expect("a free port");
        let (address, shop) = (server.local_addrs()[0], Shop::of($scene));
        let handle = server.spawn(|_, wake| shop.store(wake)).expect("a thread");
        let (stop, wait) = (handle.clone(), handle.clone());
        Stage {
            address,
            client: tls.map(|pair| Arc::clone(&pair.client)),
            shop,
            shutdown: Box::new(move || stop.shutdown()),
            join: Box::new(move || wait.join()),
            counters: Box::new(move || handle.counters()),
        }
    }};
}

impl Stage {
    fn connect(&self) -> Peer {
        self.peer(TcpStream::connect(self.address).expect("a connection"))
    }

    /// A peer with the smallest window that the kernel allows.
    fn small_window(&self) -> Peer {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        socket.set_recv_buffer_size(2048).expect("a buffer");
        socket.connect(&self.address.into()).expect("a connection");
        self.peer(socket.into())
    }

    fn peer(&self, stream: TcpStream) -> Peer {
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        stream.set_nodelay(true).expect("no delay");
        let line = match &self.client {
            Some(config) => {
                let name = ServerName::try_from(NAME).expect("a name");
                let client = ClientConnection::new(Arc::clone(config), name).expect("a client");
                Line::Tls(Box::new(StreamOwned::new(client, stream)))
            }
            None => Line::Plain(stream),
        };
        Peer { line, read: Vec::new() }
    }

    fn wait(&self, what: &str, said: impl Fn(&Counters) -> bool) {
        wait(what, || said(&(self.counters)()));
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        (self.shutdown)();
        let ended = (self.join)();
        if !thread::panicking() {
            ended.expect("no worker failed");
        }
    }
}

struct Peer {
    line: Line,
    read: Vec<u8>,
}

enum Line {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Peer {
    fn stream(&self) -> &TcpStream {
        match &self.line {
            Line::Plain(stream) => stream,
            Line::Tls(tls) => &tls.sock,
        }
    }

    /// Sends; a server that has refused already may not take all of it.
    fn send(&mut self, bytes: &[u8]) {
        let _ = match &mut self.line {
            Line::Plain(stream) => stream.write_all(bytes),
            Line::Tls(tls) => tls.write_all(bytes).and_then(|()| tls.flush()),
        };
    }

    /// Closes its side.
    fn finish(&mut self) {
        if let Line::Tls(tls) = &mut self.line {
            tls.conn.send_close_notify();
            tls.flush().expect("a connection");
        }
        self.stream().shutdown(Shutdown::Write).expect("a connection");
    }

    /// Reads one answer, and the end after it if that is announced.
    fn reply(&mut self, to_head: bool) -> Vec<u8> {
        loop {
            if let Some((reply, length)) = Reply::parse(&self.read, to_head) {
                let rest = self.read.split_off(length);
                let bytes = std::mem::replace(&mut self.read, rest);
                if reply.says_close() {
                    assert!(self.rest().is_empty(), "nothing follows a last answer");
                }
                return bytes;
            }
            assert!(self.more(), "the end in {:?}", String::from_utf8_lossy(&self.read));
        }
    }

    /// Reads up to the end, which is no reset.
    fn rest(&mut self) -> Vec<u8> {
        while self.more() {}
        std::mem::take(&mut self.read)
    }

    fn exchange(&mut self, request: &Request) -> Vec<u8> {
        self.send(&request.bytes());
        self.reply(false)
    }

    fn more(&mut self) -> bool {
        let mut buffer = [0; 16384];
        let n = match &mut self.line {
            Line::Plain(stream) => stream.read(&mut buffer),
            Line::Tls(tls) => tls.read(&mut buffer),
        };
        let n = n.expect("no reset, no timeout");
        self.read.extend_from_slice(&buffer[..n]);
        n > 0
    }
}

/// Plays a scenario on each driver, without TLS and with it, and holds the transcripts against each
/// other. Returns it.
fn compare(
    name: &str,
    scene: &Scene,
    connections_max: usize,
    play: impl Fn(&Stage) -> Vec<u8>,
) -> Vec<u8> {
    let mio = compare_plain(name, scene, connections_max, &play);
    for pair in pairs() {
        let over = |driver: &str| format!("{name} over TLS {} with {driver}", pair.version);
        let played = play(&start!(otter_mio, scene, connections_max, Some(pair)));
        hold(&over("mio"), &mio, &masked(played));
        let played = play(&start!(tokio_server, scene, connections_max, Some(pair)));
        hold(&over("tokio"), &mio, &masked(played));
    }
    mio
}

/// The same without TLS only. Returns the transcript.
fn compare_plain(
    name: &str,
    scene: &Scene,
    connections_max: usize,
    play: impl Fn(&Stage) -> Vec<u8>,
) -> Vec<u8> {
    let mio = masked(play(&start!(otter_mio, scene, connections_max, None)));
    let tokio = masked(play(&start!(tokio_server, scene, connections_max, None)));
    assert!(!mio.is_empty(), "{name}: something was said");
    hold(name, &mio, &tokio);
    mio
}

fn hold(name: &str, mio: &[u8], other: &[u8]) {
    let at = mio.iter().zip(other).take_while(|(a, b)| a == b).count();
    let shown = |bytes: &[u8]| {
        let around = at.saturating_sub(80)..bytes.len().min(at + 80);
        String::from_utf8_lossy(&bytes[around]).into_owned()
    };
    assert!(mio == other, "{name}: at {at}\nmio:   {}\nother: {}", shown(mio), shown(other));
}

/// The two sides of TLS in one version.
struct Pair {
    version: &'static str,
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
}

fn pairs() -> &'static [Pair; 2] {
    static PAIRS: OnceLock<[Pair; 2]> = OnceLock::new();
    PAIRS.get_or_init(|| {
        let made = rcgen::generate_simple_self_signed([NAME.to_owned()]).expect("a certificate");
        let key = made.signing_key.serialize_der();
        let certificate = CertificateDer::from(made.cert);
        let ring = Arc::new(rustls::crypto::ring::default_provider());
        [("1.2", &TLS12), ("1.3", &TLS13)].map(|(version, only)| {
            let key = PrivateKeyDer::try_from(key.clone()).expect("a key");
            let server = ServerConfig::builder_with_provider(Arc::clone(&ring))
                .with_protocol_versions(&[only])
                .expect("a version")
                .with_no_client_auth()
                .with_single_cert(vec![certificate.clone()], key)
                .expect("a configuration");
            let mut roots = RootCertStore::empty();
            roots.add(certificate.clone()).expect("a root");
            let client = ClientConfig::builder_with_provider(Arc::clone(&ring))
                .with_protocol_versions(&[only])
                .expect("a version")
                .with_root_certificates(roots)
                .with_no_client_auth();
            Pair { version, server: Arc::new(server), client: Arc::new(client) }
        })
    })
}

/// Digits after `"timestamp":` are zeros.
fn masked(mut bytes: Vec<u8>) -> Vec<u8> {
    let mark = b"\"timestamp\":";
    let ends: Vec<_> = bytes.windows(mark.len()).enumerate().filter(|(_, w)| w == mark).collect();
    let ends: Vec<_> = ends.into_iter().map(|(at, _)| at + mark.len()).collect();
    for end in ends {
        for byte in bytes[end..].iter_mut().take_while(|byte| byte.is_ascii_digit()) {
            *byte = b'0';
        }
    }
    bytes
}

fn is_head(bytes: &[u8]) -> bool {
    bytes.starts_with(b"HEAD ")
}

#[test]
fn every_kind_of_request_in_one_segment() {
    for sample in samples() {
        let mio = compare(sample.name, &sample.scene, 10, |stage| {
            let mut peer = stage.connect();
            peer.send(&sample.bytes);
            peer.reply(is_head(&sample.bytes))
        });
        // And the core by itself, without sockets.
        let core = sample.scene.exchange().request(&sample.bytes).bytes;
        hold(&format!("{} of the core", sample.name), &mio, &masked(core));
    }
}

#[test]
fn every_kind_of_request_byte_by_byte() {
    for sample in samples() {
        compare(sample.name, &sample.scene, 10, |stage| {
            let mut peer = stage.connect();
            sample.bytes.iter().for_each(|byte| peer.send(&[*byte]));
            peer.reply(is_head(&sample.bytes))
        });
    }
}

fn check_in() -> Request {
    Request::check_in(KEY, &registration().wrapped("registration")).without("Connection")
}

#[test]
fn kept_and_pipelined_requests() {
    let scene = Scene::new().with_release("1.2.0", 9000).with_auto_update();
    compare("kept", &scene, 10, |stage| {
        let mut peer = stage.connect();
        (0..5).flat_map(|_| peer.exchange(&check_in())).collect()
    });
    compare("pipelined", &scene, 10, |stage| {
        let mut peer = stage.connect();
        let requests: Vec<_> = [check_in(), check_in().chunked(7), Request::get("/")]
            .iter()
            .cycle()
            .take(40)
            .flat_map(Request::bytes)
            .collect();
        peer.send(&requests);
        // The 33rd that waited already is the last one.
        peer.rest()
    });
}

#[test]
fn a_token_gives_one_image_whatever_the_reader() {
    let offered = Redeemable::of(&Draft::binary("1.2.0", 3 << 20));
    let get = offered.get();
    compare("at once, then dead", &offered.scene, 10, |stage| {
        [stage.connect().exchange(&get), stage.connect().exchange(&get)].concat()
    });
    compare("slowly", &offered.scene, 10, |stage| stage.small_window().exchange(&get));
    compare("in parts", &offered.scene, 10, |stage| {
        let part = |range| stage.connect().exchange(&get.clone().header("Range", range));
        let mut parts = part("bytes=0-999999");
        let mut head = stage.connect();
        head.send(&get.clone().method("HEAD").bytes());
        parts.extend(head.reply(true));
        parts.extend(part("bytes=1000000-"));
        parts.extend(stage.connect().exchange(&get));
        parts
    });
}

#[test]
fn a_peer_that_closes_its_side_gets_its_answer() {
    compare("half-closed", &Scene::new(), 10, |stage| {
        stage.shop.counter().held = true;
        let mut peer = stage.connect();
        peer.send(&check_in().bytes());
        // Before it: what comes with the request is known when the answer begins.
        wait("a question", || !stage.shop.counter().held_back.is_empty());
        peer.finish();
        stage.shop.release();
        peer.rest()
    });
}

#[test]
fn a_reset_ends_its_connection_and_nothing_else() {
    let offered = Redeemable::of(&Draft::binary("1.2.0", 3 << 20));
    compare("reset", &offered.scene, 10, |stage| {
        for held in [false, true] {
            stage.shop.counter().held = held;
            let mut peer = stage.small_window();
            peer.send(&offered.get().bytes());
            if held {
                wait("a question", || !stage.shop.counter().held_back.is_empty());
            } else {
                stage.wait("a part", |counters| counters.bytes_sent > 10_000);
            }
            SockRef::from(peer.stream()).set_linger(Some(Duration::ZERO)).expect("a socket");
            drop(peer);
            stage.wait("the end", |counters| counters.open == 0);
        }
        stage.shop.release();
        let mut peer = stage.connect();
        let reply = peer.exchange(&check_in());
        stage.wait("the last report", |c| c.requests().map(|r| r.count).sum::<u64>() == 3);
        let counters = (stage.counters)();
        let mut counted: Vec<_> = counters.requests().map(|r| format!("{r:?}\n")).collect();
        counted.push(format!("{} of {} broken", counters.broken, counters.accepted));
        [reply, counted.concat().into_bytes()].concat()
    });
}

#[test]
fn deadlines_end_in_the_same_words() {
    let mut scene = Scene::new();
    scene.config.idle_timeout = Duration::from_millis(300);
    scene.config.head_timeout = Duration::from_millis(100);
    scene.config.body_timeout = Duration::from_millis(100);
    scene.config.answer_timeout = Duration::from_millis(100);
    compare("timeouts", &scene, 10, |stage| {
        let mut idle = stage.connect();
        let mut said = idle.exchange(&check_in());
        said.extend(idle.rest());
        for part in
            ["POST /device/reg", "POST /device/register HTTP/1.1\r\nContent-Length: 9\r\n\r\n{"]
        {
            let mut slow = stage.connect();
            slow.send(part.as_bytes());
            said.extend(slow.reply(false));
        }
        stage.shop.counter().held = true;
        said.extend(stage.connect().exchange(&check_in()));
        said
    });
}

#[test]
fn a_shutdown_lets_a_transfer_finish() {
    let offered = Redeemable::of(&Draft::binary("1.2.0", 3 << 20));
    compare("shutdown", &offered.scene, 10, |stage| {
        let mut idle = stage.connect();
        let mut said = idle.exchange(&check_in());
        let mut slow = stage.small_window();
        slow.send(&offered.get().bytes());
        stage.wait("the transfer", |counters| counters.bytes_sent > 65_536);
        (stage.shutdown)();
        said.extend(idle.rest());
        wait("closed doors", || TcpStream::connect(stage.address).is_err());
        said.extend(slow.reply(false));
        assert!(slow.rest().is_empty());
        drop((idle, slow));
        (stage.join)().expect("no worker failed");
        said
    });
}

#[test]
fn a_full_server_says_so() {
    compare_plain("full", &Scene::new(), 0, |stage| {
        (0..3).flat_map(|_| stage.connect().reply(false)).collect()
    });
    for pair in pairs() {
        for stage in [
            start!(otter_mio, &Scene::new(), 0, Some(pair)),
            start!(tokio_server, &Scene::new(), 0, Some(pair)),
        ] {
            let Line::Tls(mut tls) = stage.connect().line else { panic!("TLS") };
            let shaken = tls.conn.complete_io(&mut tls.sock).expect_err("no handshake").kind();
            assert!(!matches!(shaken, ErrorKind::WouldBlock | ErrorKind::InvalidData), "{shaken}");
            stage.wait("a refusal", |counters| counters.refused == 1);
        }
    }
    compare("idle ones make room", &Scene::new(), 2, |stage| {
        let mut peers = Vec::new();
        let mut said = Vec::new();
        for _ in 0..5 {
            let mut peer = stage.connect();
            said.extend(peer.exchange(&check_in()));
            peers.push(peer);
        }
        assert!(peers[..3].iter_mut().all(|peer| peer.rest().is_empty()));
        said.extend(peers[3].exchange(&check_in()));
        said.extend(peers[4].exchange(&check_in()));
        said
    });
}

/// Waits until it is so; panics if it never is.
fn wait(what: &str, so: impl Fn() -> bool) {
    let start = Instant::now();
    while !so() {
        assert!(start.elapsed() < PATIENCE, "waited in vain: {what}");
        thread::park_timeout(Duration::from_millis(1));
    }
}

const NAME: &str = "otter.example";
/// Only a failing test waits that long.
const PATIENCE: Duration = Duration::from_secs(20);
