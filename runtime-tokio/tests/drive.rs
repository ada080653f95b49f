//! What is this driver's own: any stream, any runtime, one batch per turn, and time that stands.

use std::fs::{OpenOptions, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use otter_protocol::{
    Answer, CloseReason, Config, DeviceId, Endpoint, Kind, Offer, Outcome, Query, Redemption,
    Release, ReleaseId,
};
use otter_store::{Image, Memory, MemoryOptions, Store, Ticket};
use otter_tokio::{Options, Security, Service, drive, drive_tcp, serve};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufWriter, duplex};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio::time::Instant;

/// A store for which every token is good for one image; remembers how large its batches were.
#[derive(Clone)]
struct Gift<I> {
    image: I,
    size: u64,
    ready: Arc<Mutex<Answers<I>>>,
    batches: Arc<Mutex<Vec<usize>>>,
}

type Answers<I> = Vec<(Ticket, Answer<I>)>;

impl<I: AsRef<[u8]>> Gift<I> {
    fn of(image: I) -> Self {
        let size = image.as_ref().len() as u64;
        Self { image, size, ready: Arc::default(), batches: Arc::default() }
    }
}

impl<I: AsRef<[u8]> + Clone + Send + Sync + 'static> Store for Gift<I> {
    type Image = I;

    fn submit(&mut self, queries: &mut Vec<(Ticket, Query)>) {
        self.batches.lock().expect("no panic").push(queries.len());
        for (ticket, query) in queries.drain(..) {
            let started = matches!(query, Query::Start { .. });
            let answer = match query {
                Query::Claim { .. } => Answer::Claimed(true),
                Query::Redeem { .. } | Query::Start { .. } => {
                    Answer::Redemption(Redemption::Ready {
                        device: DeviceId([7; 16]),
                        release: Release { offer: offer(self.size), image: self.image.clone() },
                        started,
                        forced: false,
                    })
                }
                Query::Identify(_)
                | Query::Fetch { .. }
                | Query::Record(_)
                | Query::Push { .. } => Answer::Unavailable,
            };
            self.ready.lock().expect("no panic").push((ticket, answer));
        }
    }

    fn collect(&mut self, answers: &mut Vec<(Ticket, Answer<I>)>) {
        answers.append(&mut self.ready.lock().expect("no panic"));
    }
}

fn offer(size: u64) -> Arc<Offer> {
    Arc::new(Offer {
        release: ReleaseId([7; 16]),
        version: "2.0.0".into(),
        platform: "arduino".into(),
        env_hash: None,
        sha256: [1; 32],
        md5: [2; 16],
        size,
        kind: Kind::Image,
    })
}

/// A service of the store, its batcher spawned.
fn start<S: Store>(store: S, change: impl FnOnce(&mut Options)) -> Service<S::Image> {
    let mut options = Options::default();
    change(&mut options);
    let (service, batching) = Service::new(options, |_| store);
    tokio::spawn(batching);
    service
}

fn download(close: bool) -> String {
    let close = if close { "Connection: close\r\n" } else { "" };
    let token = "c".repeat(64);
    format!("GET /device/firmware?ott={token} HTTP/1.1\r\nHost: otter\r\n{close}\r\n")
}

fn image(length: usize) -> Bytes {
    (0..length).map(|at| (at * 31 % 251) as u8).collect()
}

/// Asks for the image, and reads up to the end.
async fn fetch(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> Vec<u8> {
    stream.write_all(download(true).as_bytes()).await.expect("written");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.expect("read");
    answer
}

fn body(answer: &[u8]) -> &[u8] {
    let head = answer.windows(4).position(|window| window == b"\r\n\r\n").expect("a head");
    &answer[head + 4..]
}

#[tokio::test]
async fn an_image_goes_through_any_stream_however_narrow() {
    let image = image(300_000);
    for room in [1000, 4096, 1 << 20] {
        let service = start(Gift::of(image.clone()), |_| {});
        let (device, server) = duplex(room);
        let driven = tokio::spawn(drive(&service, server));
        assert!(body(&fetch(device).await) == image, "{room}");
        assert!(matches!(driven.await.expect("no panic"), Ok(CloseReason::Peer)));
        let counters = service.counters();
        assert_eq!((counters.accepted, counters.open), (1, 0));
        assert!(counters.requests().any(|r| r.outcome == Outcome::Delivered));
    }
}

#[tokio::test]
async fn what_a_stream_keeps_back_is_flushed_before_waiting() {
    let service = start(Gift::of(image(5000)), |_| {});
    let (mut device, server) = duplex(1 << 16);
    tokio::spawn(drive(&service, BufWriter::with_capacity(1 << 20, server)));
    for _ in 0..3 {
        device.write_all(b"GET / HTTP/1.1\r\nHost: otter\r\n\r\n").await.expect("written");
        let mut answer = Vec::new();
        while !answer.ends_with(br#"{"healthcheck":true}"#) {
            assert_ne!(device.read_buf(&mut answer).await.expect("read"), 0);
        }
    }
}

#[tokio::test]
async fn a_mapped_image_that_is_cut_short_ends_its_transfer_and_nothing_else() {
    let directory = tempfile::tempdir().expect("a directory");
    let memory = Memory::open(directory.path(), MemoryOptions::default()).expect("a store");
    let staged = memory.operator().stage(&mut &image(300_001)[..], 1 << 20).expect("room");
    let service = start(Gift::<Image>::of(staged.image().expect("an image")), |_| {});
    let (mut device, server) = duplex(4096);
    let driven = tokio::spawn(drive(&service, server));
    device.write_all(download(true).as_bytes()).await.expect("written");
    let mut answer = vec![0; 20_000];
    device.read_exact(&mut answer).await.expect("the first part");
    let path = file_of_size(directory.path(), 300_001).expect("the image is a file");
    std::fs::set_permissions(&path, Permissions::from_mode(0o600)).expect("it is ours");
    let file = OpenOptions::new().write(true).open(path).expect("it may be written");
    file.set_len(40_000).expect("a shorter file");
    device.read_to_end(&mut answer).await.expect("the rest, and the end");
    assert_eq!(body(&answer).len(), 40_000);
    driven.await.expect("no panic").expect_err("the image is gone");
    let counters = service.counters();
    assert_eq!((counters.broken, counters.panicked, counters.open), (1, 0, 0));
}

fn file_of_size(directory: &Path, size: u64) -> Option<PathBuf> {
    std::fs::read_dir(directory).ok()?.flatten().find_map(|entry| {
        let path = entry.path();
        if path.is_dir() {
            return file_of_size(&path, size);
        }
        (entry.metadata().ok()?.len() == size).then_some(path)
    })
}

#[tokio::test]
async fn what_is_asked_in_one_turn_is_one_batch() {
    let gift = Gift::of(image(5000));
    let service = start(gift.clone(), |_| {});
    let mut devices = Vec::new();
    for _ in 0..20 {
        let (mut device, server) = duplex(1 << 16);
        device.write_all(download(true).as_bytes()).await.expect("written");
        tokio::spawn(drive(&service, server));
        devices.push(device);
    }
    for device in &mut devices {
        device.read_to_end(&mut Vec::new()).await.expect("read");
    }
    assert_eq!(*gift.batches.lock().expect("no panic"), [20, 20, 20], "Redeem, Start, Claim");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_connections_on_a_runtime_of_many_threads() {
    let image = image(50_000);
    let service = start(Gift::of(image.clone()), |_| {});
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let serving = tokio::spawn({
        let service = service.clone();
        async move { serve(&service, listener, Security::Plain).await }
    });
    let mut devices = JoinSet::new();
    for _ in 0..200 {
        devices.spawn(async move { fetch(TcpStream::connect(address).await.expect("room")).await });
    }
    while let Some(answer) = devices.join_next().await {
        assert!(body(&answer.expect("no panic")) == image);
    }
    service.shutdown();
    serving.await.expect("no panic").expect("the socket was fine");
    let counters = service.counters();
    assert_eq!((counters.accepted, counters.open, counters.panicked), (200, 0, 0));
    let delivered = counters.requests().filter(|r| r.outcome == Outcome::Delivered);
    assert_eq!(delivered.map(|r| r.count).sum::<u64>(), 200, "none is lost between threads");
    assert!(TcpStream::connect(address).await.is_err(), "the doors are closed");
}

#[tokio::test]
async fn who_waits_at_the_door_is_served_before_it_closes() {
    let service = start(Gift::of(image(5000)), |_| {});
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind(([127, 0, 0, 1], 0).into()).expect("a port");
    let listener = socket.listen(1024).expect("a port");
    let address = listener.local_addr().expect("an address");
    let mut devices = Vec::new();
    for _ in 0..300 {
        let mut device = TcpStream::connect(address).await.expect("room in the backlog");
        device.write_all(b"GET / HTTP/1.0\r\n\r\n").await.expect("written");
        devices.push(device);
    }
    service.shutdown();
    let serving = serve(&service, listener, Security::Plain);
    let reading = async {
        for device in &mut devices {
            let mut answer = Vec::new();
            device.read_to_end(&mut answer).await.expect("no reset");
            assert_eq!(body(&answer), br#"{"healthcheck":true}"#);
        }
        devices.clear();
    };
    let (served, ()) = tokio::join!(serving, reading);
    served.expect("the socket was fine");
    assert_eq!(service.counters().accepted, 300);
}

#[tokio::test(start_paused = true)]
async fn deadlines_go_by_the_clock_of_tokio() {
    let mut config = Config::default();
    config.idle_timeout = Duration::from_secs(75);
    let service = start(Gift::of(image(5000)), |options| options.config = Arc::new(config));
    let start = Instant::now();
    let (mut device, server) = duplex(4096);
    let driven = tokio::spawn(drive(&service, server));
    assert!(matches!(driven.await.expect("no panic"), Ok(CloseReason::Idle)));
    assert!((75..77).contains(&start.elapsed().as_secs()), "{:?}", start.elapsed());
    assert_eq!(device.read(&mut [0; 16]).await.expect("the end"), 0, "without a word");
}

#[tokio::test(start_paused = true)]
async fn a_store_that_never_answers_is_a_503_and_a_late_answer_is_lost() {
    let gift = Gift::of(image(5000));
    let (service, batching) = Service::new(Options::default(), |_| gift);
    let (device, server) = duplex(4096);
    tokio::spawn(drive(&service, server));
    let answer = String::from_utf8(fetch(device).await).expect("text");
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    tokio::spawn(batching);
    let (device, server) = duplex(4096);
    tokio::spawn(drive(&service, server));
    assert_eq!(body(&fetch(device).await).len(), 5000, "the next one gets its own answer");
    assert_eq!(service.counters().answers.iter().sum::<u64>(), 3);
}

#[tokio::test]
async fn a_future_that_is_dropped_leaves_nothing_behind() {
    let gift = Gift::of(image(5000));
    let (service, batching) = Service::new(Options::default(), |_| gift);
    let (mut device, server) = duplex(4096);
    device.write_all(download(true).as_bytes()).await.expect("written");
    let driven = tokio::spawn(drive(&service, server));
    while service.counters().bytes_received == 0 {
        tokio::task::yield_now().await;
    }
    driven.abort();
    assert!(driven.await.expect_err("aborted").is_cancelled());
    let counters = service.counters();
    assert_eq!((counters.open, counters.closed(CloseReason::Shutdown)), (0, 1));
    let aborted = counters.requests().find(|r| r.endpoint == Endpoint::Redeem);
    assert_eq!(aborted.expect("it was reported").outcome, Outcome::Aborted);
    // The last one goes: so does what carries its queries.
    drop(service);
    batching.await;
}

#[tokio::test]
async fn a_socket_that_was_accepted_elsewhere_is_served() {
    let image = image(300_000);
    let service = start(Gift::of(image.clone()), |_| {});
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let device = tokio::spawn(async move {
        fetch(TcpStream::connect(address).await.expect("a connection")).await
    });
    let (stream, _) = listener.accept().await.expect("the device");
    assert!(matches!(drive_tcp(&service, stream, &Security::Plain).await, Ok(CloseReason::Peer)));
    assert!(body(&device.await.expect("no panic")) == image);
}

#[test]
fn futures_go_to_any_thread() {
    fn is_send<T: Send>(_: &T) {}
    let gift = Gift::of(image(5000));
    let (service, batching) = Service::new(Options::default(), |_| gift);
    let (_device, server) = duplex(16);
    is_send(&service);
    is_send(&batching);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let _inside = runtime.as_ref().expect("a runtime").enter();
    is_send(&drive(&service, server));
}
