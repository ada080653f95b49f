//! What happens at the edges: slow peers, too many peers, no descriptors, broken images, panics,
//! the end.

mod support;

use std::collections::HashSet;
use std::fs::{OpenOptions, Permissions};
use std::io;
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use otter_mio::{OnReport, Server};
use otter_protocol::{Answer, CloseReason, Config, Counters, Endpoint, Legible, Outcome, Query};
use otter_store::{Memory, MemoryOptions, Store, Ticket};
use rustix::process::{Resource, getrlimit, setrlimit};
use socket2::{Domain, SockRef, Socket, Type};
use support::{
    OVER_TLS, Peer, Running, Script, alias, check_in, download, image, local, requests, security,
    wait,
};

type Plain = Script<Arc<[u8]>>;

/// A peer that offers the smallest window that the kernel allows.
fn small_window(server: &Running) -> Peer {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    socket.set_recv_buffer_size(2048).expect("a buffer");
    socket.connect(&server.address.into()).expect("a connection");
    Peer::new(TcpStream::from(socket))
}

#[test]
fn a_slow_reader_gets_the_whole_image_and_starves_nobody() {
    let image = image(4 << 20);
    let server = Running::start(&Script::with_image(Arc::clone(&image)), |_| {});
    let mut slow = small_window(&server);
    slow.send(download());
    let mut other = server.connect();
    for device in 0..100 {
        assert!(other.exchange(check_in(device)).text().contains(&alias(device)));
    }
    assert!(slow.reply().body == *image);
}

#[test]
fn a_fast_reader_does_not_starve_the_others_either() {
    let image = image(64 << 20);
    let server = Running::start(&Script::with_image(Arc::clone(&image)), |options| {
        options.turn_bytes_max = 65536;
    });
    let mut fast = server.connect();
    fast.send(download());
    let reader = thread::spawn(move || fast.reply().body.len());
    let mut other = server.connect();
    for device in 0..20 {
        assert!(other.exchange(check_in(device)).text().contains(&alias(device)));
    }
    assert_eq!(reader.join().expect("no panic"), image.len());
}

#[test]
fn an_answer_that_a_turn_cuts_in_two_goes_on_in_the_next() {
    let server = Running::start(&Plain::new(), |options| {
        options.turn_bytes_max = 0;
        let mut config = Config::default();
        config.pipelined_requests_max = u8::MAX;
        options.config = Arc::new(config);
    });
    let mut peer = server.connect();
    // Known to the poll from now on, so that only room in the socket makes an edge.
    peer.exchange(check_in(1));
    // Their answers are longer than the least that a turn may move, and no multiple of it.
    peer.send("GET / HTTP/1.1\r\nHost: otter\r\n\r\n".repeat(200));
    for _ in 0..200 {
        assert_eq!(peer.reply().text(), r#"{"healthcheck":true}"#);
    }
}

#[test]
fn beyond_the_limit_the_answer_is_503_while_everybody_is_busy() {
    let script = Plain::new();
    let server = Running::start(&script, |options| options.connections_max = 2);
    script.hold();
    let mut inside = [server.connect(), server.connect()];
    for (device, peer) in inside.iter_mut().enumerate() {
        peer.send(check_in(device as u8));
    }
    wait("two questions", || script.held_back() == 2);

    let mut retry_after = Vec::new();
    for _ in 0..20 {
        let Some(reply) = server.turned_away() else { continue };
        assert!(reply.head.starts_with("HTTP/1.1 503 Service Unavailable\r\n"), "{reply:?}");
        assert!(reply.has("Connection: close") && reply.has("Content-Type: application/json"));
        assert!(reply.head.len() + reply.body.len() <= 511, "docs/wire.md 2.2");
        let line = reply.head.lines().find_map(|line| line.strip_prefix("Retry-After: "));
        retry_after.push(line.expect("a time").parse::<u32>().expect("seconds"));
    }
    retry_after.sort_unstable();
    assert_eq!(retry_after.len(), if OVER_TLS { 0 } else { 20 });
    if let [first, .., last] = retry_after[..] {
        assert!(first >= 10 && last < 20 && first < last, "{retry_after:?}");
    }
    assert_eq!(server.counters().refused, 20);

    script.release();
    for (device, peer) in inside.iter_mut().enumerate() {
        assert!(peer.reply().text().contains(&alias(device as u8)));
    }
    drop(inside);
    server.wait("room", |counters| counters.open == 0);
    assert!(server.connect().exchange(check_in(7)).text().contains(&alias(7)));
}

#[test]
fn without_any_room_everybody_is_refused() {
    let server = Running::start(&Plain::new(), |options| options.connections_max = 0);
    for _ in 0..3 {
        let reply = server.turned_away();
        assert!(reply.map_or(OVER_TLS, |reply| reply.head.starts_with("HTTP/1.1 503")));
    }
    assert_eq!((server.counters().refused, server.counters().accepted), (3, 0));
}

/// The end of a connection on which all is said may be looked for later, but not while others wait
/// for its place.
#[test]
fn who_has_left_keeps_nobody_out() {
    let server = Running::start(&Plain::new(), |options| options.connections_max = 1);
    for device in 0..20 {
        let request = check_in(device).replace("Host:", "Connection: close\r\nHost:");
        let mut peer = server.connect();
        assert!(peer.exchange(request).text().contains(&alias(device)));
        assert!(peer.rest().is_empty(), "the end");
    }
    let counters = server.wait("an empty server", |counters| counters.open == 0);
    assert_eq!((counters.refused, counters.broken), (0, 0));
}

#[test]
fn an_idle_connection_makes_room_for_a_new_one() {
    let server = Running::start(&Plain::new(), |options| options.connections_max = 3);
    let mut peers = Vec::new();
    for device in 0..6 {
        let mut peer = server.connect();
        assert!(peer.exchange(check_in(device)).text().contains(&alias(device)));
        peers.push(peer);
    }
    for peer in &mut peers[..3] {
        assert!(peer.rest().is_empty(), "the oldest were closed");
    }
    for (device, peer) in (3..).zip(&mut peers[3..]) {
        assert!(peer.exchange(check_in(device)).text().contains(&alias(device)));
    }
    let counters = server.counters();
    assert_eq!((counters.evicted, counters.refused, counters.open), (3, 0, 3));
    assert_eq!(counters.closed(CloseReason::Shutdown), 3);
}

#[test]
fn who_has_begun_a_request_may_finish_it() {
    let server = Running::start(&Plain::new(), |options| options.connections_max = 3);
    let request = check_in(1);
    let mut begun = [server.connect(), server.connect()];
    for peer in &mut begun {
        peer.send(&request[..20]);
    }
    let mut idle = server.connect();
    idle.exchange(check_in(2));
    let sent = begun[0].sent + begun[1].sent + idle.sent;
    server.wait("what was begun", |counters| counters.bytes_received == sent);

    let mut new = server.connect();
    assert!(new.exchange(check_in(3)).text().contains(&alias(3)));
    assert!(idle.rest().is_empty());
    for peer in &mut begun {
        assert!(peer.exchange(&request[20..]).text().contains(&alias(1)));
    }
    assert_eq!(server.counters().evicted, 1);
}

#[test]
fn a_request_that_began_behind_another_one_may_finish_too() {
    let server = Running::start(&Plain::new(), |options| options.connections_max = 2);
    let request = check_in(1);
    let mut begun = server.connect();
    begun.send([&request[..], &request[..20]].concat());
    assert!(begun.reply().text().contains(&alias(1)));
    let mut idle = server.connect();
    idle.exchange(check_in(2));

    let mut new = server.connect();
    assert!(new.exchange(check_in(3)).text().contains(&alias(3)));
    assert!(idle.rest().is_empty());
    assert!(begun.exchange(&request[20..]).text().contains(&alias(1)));
    assert!(begun.exchange(check_in(1)).text().contains(&alias(1)), "and stay");
}

#[test]
fn deadlines_are_kept() {
    let script = Plain::new();
    let server = Running::start(&script, |options| {
        let mut config = Config::default();
        config.idle_timeout = Duration::from_millis(300);
        config.head_timeout = Duration::from_millis(100);
        config.answer_timeout = Duration::from_millis(100);
        options.config = Arc::new(config);
    });
    let mut idle = server.connect();
    idle.exchange(check_in(1));
    assert!(idle.rest().is_empty());
    let counters = server.wait("the idle one", |counters| counters.open == 0);
    assert_eq!(counters.closed(CloseReason::Idle), 1);

    let mut slow = server.connect();
    slow.send("POST /device/reg");
    assert!(slow.reply().head.starts_with("HTTP/1.1 408"));
    assert!(slow.rest().is_empty());
    server.wait("the slow one", |counters| counters.closed(CloseReason::Refused) == 1);

    script.hold();
    let mut unlucky = server.connect();
    assert!(unlucky.exchange(check_in(1)).head.starts_with("HTTP/1.1 503"));
    assert!(unlucky.rest().is_empty());
}

#[test]
fn who_does_not_read_at_all_is_cut_off() {
    let server = Running::start(&Script::with_image(image(4 << 20)), |options| {
        let mut config = Config::default();
        config.send_window = Duration::from_millis(100);
        options.config = Arc::new(config);
    });
    let mut stuck = small_window(&server);
    stuck.send(download());
    let counters = server.wait("the end", |c| c.accepted == 1 && c.open == 0);
    assert_eq!(counters.closed(CloseReason::Slow), 1);
    assert_eq!(requests(&counters, Endpoint::Redeem, Outcome::Aborted), 1);
    assert!(stuck.rest().len() < 4 << 20);
}

#[test]
fn a_shutdown_lets_a_download_finish_and_takes_nobody_new() {
    let image = image(4 << 20);
    let server = Running::start(&Script::with_image(Arc::clone(&image)), |_| {});
    let mut idle = server.connect();
    idle.exchange(check_in(1));
    let mut slow = small_window(&server);
    slow.send(download());
    server.wait("the transfer", |counters| counters.bytes_sent > 65536);

    server.handle.shutdown();
    assert!(idle.rest().is_empty());
    wait("closed doors", || TcpStream::connect(server.address).is_err());
    assert!(slow.reply().body == *image);
    assert!(slow.rest().is_empty());
    drop(slow);
    server.handle.join().expect("no worker failed");
    let counters = server.counters();
    assert_eq!(requests(&counters, Endpoint::Redeem, Outcome::Delivered), 1);
    assert_eq!((counters.open, counters.broken), (0, 0));
}

#[test]
fn the_drain_ends_at_its_limit() {
    let server = Running::start(&Script::with_image(image(4 << 20)), |options| {
        options.drain_timeout = Duration::from_millis(50);
    });
    let mut stuck = small_window(&server);
    stuck.send(download());
    server.wait("the transfer", |counters| counters.bytes_sent > 65536);
    server.handle.shutdown();
    server.handle.join().expect("no worker failed");
    assert_eq!(server.counters().open, 0);
    assert!(stuck.rest().len() < 4 << 20);
}

#[test]
fn a_server_that_was_stopped_before_it_ran_ends_at_once() {
    let server = Server::bind(local(2)).expect("a port");
    server.handle().shutdown();
    let script = Plain::new();
    server.run(|_, wake| script.store(wake)).expect("no worker failed");
}

/// An image whose file was cut: from some moment on it shows less.
#[derive(Clone)]
struct Cut(Arc<[u8]>, Arc<AtomicUsize>);

impl AsRef<[u8]> for Cut {
    fn as_ref(&self) -> &[u8] {
        &self.0[..self.1.load(SeqCst)]
    }
}

impl Legible for Cut {
    fn read<'a>(&'a self, offset: u64, buffer: &'a mut [u8]) -> io::Result<&'a [u8]> {
        self.0[..self.1.load(SeqCst)].read(offset, buffer)
    }
}

#[test]
fn an_image_that_shrinks_ends_its_transfer_and_nothing_else() {
    let left = Arc::new(AtomicUsize::new(4 << 20));
    let script = Script::with_image(Cut(image(4 << 20), Arc::clone(&left)));
    let server = Running::start(&script, |_| {});
    let mut other = server.connect();
    other.exchange(check_in(1));
    let mut slow = small_window(&server);
    slow.send(download());
    server.wait("the transfer", |counters| counters.bytes_sent > 65536);
    left.store(1000, SeqCst);
    assert!(slow.rest().len() < 4 << 20 && slow.is_cut);
    let counters = server.wait("its end", |counters| counters.open == 1);
    assert_eq!((torn(&counters), counters.panicked), (1, 0));
    assert!(other.exchange(check_in(1)).text().contains(&alias(1)));
}

#[test]
fn a_file_that_is_cut_short_ends_its_transfers_and_nothing_else() {
    let directory = tempfile::tempdir().expect("a directory");
    let memory = Memory::open(directory.path(), MemoryOptions::default()).expect("a store");
    let staged = memory.operator().stage(&mut &image(4 << 20)[..], 8 << 20).expect("room");
    let script = Script::with_image(staged.image().expect("an image"));
    let server = Running::start(&script, |_| {});
    let mut other = server.connect();
    other.exchange(check_in(1));
    let mut slow = [small_window(&server), small_window(&server)];
    for peer in &mut slow {
        peer.send(download());
    }
    server.wait("the transfers", |counters| counters.bytes_sent > 2 * 65536);
    let path = file_of_size(directory.path(), 4 << 20).expect("the image is a file");
    std::fs::set_permissions(&path, Permissions::from_mode(0o600)).expect("it is ours");
    let file = OpenOptions::new().write(true).open(path).expect("it may be written");
    // In the middle of a page: what the mapping shows from there on is zeros, then nothing.
    file.set_len(1_000_001).expect("a shorter file");
    for peer in &mut slow {
        let got = peer.rest();
        assert!(got.len() < 4 << 20 && peer.is_cut, "{} bytes", got.len());
    }
    let counters = server.wait("their end", |counters| counters.open == 1);
    assert_eq!((torn(&counters), counters.panicked), (2, 0));
    assert!(other.exchange(check_in(1)).text().contains(&alias(1)));
}

/// Connections that ended because their image was gone.
fn torn(counters: &Counters) -> u64 {
    if OVER_TLS { counters.closed(CloseReason::Torn) } else { counters.broken }
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

#[test]
fn a_panic_ends_one_connection() {
    let first = AtomicUsize::new(0);
    let on_report: OnReport = Arc::new(move |_, _| {
        assert!(first.fetch_add(1, SeqCst) > 0, "this panic is part of a test");
    });
    let server = Running::start(&Plain::new(), |options| options.on_report = Some(on_report));
    let mut other = server.connect();
    let mut unlucky = server.connect();
    unlucky.send(check_in(1));
    unlucky.rest();
    server.wait("the end of the first", |counters| counters.panicked == 1);
    assert!(other.exchange(check_in(2)).text().contains(&alias(2)));
}

/// A store with a bug.
struct Broken;

impl Store for Broken {
    type Image = Arc<[u8]>;

    fn submit(&mut self, queries: &mut Vec<(Ticket, Query)>) {
        assert!(queries.is_empty(), "this panic is part of a test");
    }

    fn collect(&mut self, _: &mut Vec<(Ticket, Answer<Arc<[u8]>>)>) {}
}

#[test]
fn a_worker_that_fails_ends_the_server_and_join_tells() {
    let server = Server::bind(local(2)).expect("a port");
    let address = server.local_addrs()[0];
    let handle = server.spawn(|_, _| Broken).expect("threads");
    // Stays: over TLS an end with tickets unread is a reset, which may overtake the request.
    let mut peer = Peer::new(TcpStream::connect(address).expect("a connection"));
    peer.send(check_in(1));
    let error = handle.join().expect_err("a worker panicked");
    assert!(error.to_string().contains("panicked"), "{error}");
    assert!(TcpStream::connect(address).is_err(), "nobody listens any more");
    handle.join().expect("it was told once");
}

#[test]
fn workers_share_a_port() {
    let threads = Arc::new(Mutex::new(HashSet::new()));
    let seen = Arc::clone(&threads);
    let on_report: OnReport = Arc::new(move |_, _| {
        seen.lock().expect("no panic").insert(thread::current().id());
    });
    let server = Running::start(&Plain::new(), |options| {
        options.workers = 2;
        options.on_report = Some(on_report);
    });
    let mut peers = (0..64).map(|_| server.connect()).collect::<Vec<_>>();
    for (device, peer) in peers.iter_mut().enumerate() {
        assert!(peer.exchange(check_in(device as u8)).text().contains(&alias(device as u8)));
    }
    let counted = |c: &Counters| requests(c, Endpoint::CheckIn, Outcome::Current);
    server.wait("all reports", |counters| counted(counters) == 64);
    assert_eq!(server.counters().accepted, 64);
    assert_eq!(threads.lock().expect("no panic").len(), 2, "both served some");
}

#[test]
fn a_port_is_not_taken_twice_unless_that_is_wanted() {
    for workers in [1, 2] {
        let first = Server::bind(local(workers)).expect("a port");
        let mut options = local(workers);
        options.listen = vec![(first.local_addrs()[0], security())];
        let error = Server::bind(options.clone()).expect_err("taken");
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    }
    let mut options = local(1);
    options.port_shared = true;
    let first = Server::bind(options.clone()).expect("a port");
    options.listen = vec![(first.local_addrs()[0], security())];
    Server::bind(options).expect("both wanted it");
}

#[test]
fn sockets_that_listen_already_can_be_handed_over() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let server =
        Server::with_listeners(vec![vec![(listener, security())]], local(2)).expect("a server");
    assert_eq!(server.local_addrs()[0], address);
    let script = Plain::new();
    let handle = server.spawn(|_, wake| script.store(wake)).expect("threads");
    let server = Running { handle, address };
    assert!(server.connect().exchange(check_in(1)).text().contains(&alias(1)));
    assert!(Server::with_listeners(Vec::new(), local(2)).is_err());
}

#[test]
fn without_descriptors_accepting_pauses_and_recovers() {
    // The limit is the whole process', so the process is another one.
    let name = "in_a_process_of_its_own_without_descriptors";
    let own = std::env::current_exe().expect("a path");
    let ended = Command::new(own)
        .args([name, "--ignored", "--nocapture", "--test-threads=1"])
        .output()
        .expect("it starts");
    let said = String::from_utf8_lossy(&ended.stdout).into_owned();
    assert!(ended.status.success() && said.contains("1 passed"), "{said}");
}

#[test]
#[ignore = "lowers a limit of its process; started by the test above"]
fn in_a_process_of_its_own_without_descriptors() {
    let server = Running::start(&Plain::new(), |_| {});
    let mut inside = server.connect();
    inside.exchange(check_in(1));
    // Sockets for the crowd, made before the limit: connecting needs no descriptor.
    let crowd = (0..8).map(|_| Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket"));
    let crowd = crowd.collect::<Vec<_>>();
    let open = std::fs::read_dir("/proc/self/fd").expect("a list").count() as u64;
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = Some(open + 2);
    setrlimit(Resource::Nofile, limit).expect("a lower limit");

    let start = Instant::now();
    for socket in &crowd {
        socket.connect(&server.address.into()).expect("the backlog has room");
    }
    server.wait("pauses", |counters| counters.accept_pauses >= 4);
    let busy = start.elapsed();
    assert!(busy > Duration::from_millis(50 + 100 + 200), "it span: {busy:?}");
    assert!(inside.exchange(check_in(2)).text().contains(&alias(2)), "the others are served");

    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).expect("the limit of before");
    for (device, socket) in crowd.into_iter().enumerate() {
        let mut peer = Peer::new(TcpStream::from(socket));
        assert!(peer.exchange(check_in(device as u8)).text().contains(&alias(device as u8)));
    }
    assert_eq!(server.counters().accepted, 9);
}

#[test]
fn accepted_sockets_inherit_what_the_listener_has() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let twin = listener.try_clone().expect("a descriptor");
    let server =
        Server::with_listeners(vec![vec![(listener, security())]], local(1)).expect("a server");
    let _client = TcpStream::connect(server.local_addrs()[0]).expect("a connection");
    twin.set_nonblocking(false).expect("a socket");
    let accepted = twin.accept().expect("the client").0;
    let socket = SockRef::from(&accepted);
    assert!(socket.tcp_nodelay().expect("an option"));
    assert_eq!(socket.send_buffer_size().expect("an option"), 2 * 65536);
    assert_eq!(socket.recv_buffer_size().expect("an option"), 2 * 16384);
}
