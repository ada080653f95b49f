//! Servers are restarted one after another behind a balancer, while devices download all the time.

use std::io::Read;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;

use otter_tests::redis::{RedisServer, wait_for};
use rustix::process::Signal;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::LocalSet;

use crate::device::{Answer, Device, image};
use crate::site::{Site, wanted};

/// More than all buffers on the way hold.
const IMAGE_BYTES: usize = 8 << 20;
const DEVICES: u32 = 9;
/// What a device takes before it waits for the next restart.
const BEGUN_BYTES: usize = 64 << 10;
const BUFFER_BYTES: u32 = 32 << 10;

/// Each of three servers twice, or as many restarts as `OTTER_RESTARTS` says.
#[test]
fn no_download_fails_when_servers_are_restarted_one_after_the_other() {
    let redis = RedisServer::start();
    let images = tempfile::tempdir().expect("a directory");
    let images = images.path().display().to_string();
    let variables = [("OTTER_STORE", redis.url()), ("OTTER_IMAGES", images)];
    let variables = variables.each_ref().map(|(name, value)| (*name, value.as_str()));
    let mut site = Site::alike(3, &variables);
    let balancer = Balancer::start(site.places.iter().map(|place| place.server().http).collect());
    let crew = Arc::new(Crew { image: image(IMAGE_BYTES, 4), ..Crew::default() });
    for n in 0..DEVICES {
        site.device(0, n).check_in("1.0.0");
    }
    site.publish(0, "1.1.0", &crew.image);
    let devices: Vec<_> = (0..DEVICES)
        .map(|n| {
            let device = Device { server: balancer.address, ..site.device(0, n) };
            let crew = Arc::clone(&crew);
            thread::spawn(move || crew.download_until_the_end(&device))
        })
        .collect();

    let restarts = wanted("OTTER_RESTARTS", 6) as usize;
    for number in (0..3).cycle().take(restarts) {
        wait_for("downloads under way", || {
            assert!(devices.iter().all(|device| !device.is_finished()), "a device ended");
            (crew.waiting.load(Ordering::Relaxed) == DEVICES as usize).then_some(())
        });
        let open = balancer.backends.open[number].load(Ordering::Relaxed);
        assert!(open > 0, "the server has downloads to finish");
        let server = site.places[number].take();
        server.signal(Signal::TERM);
        crew.go_on(true);
        let ended = server.ended();
        assert!(ended.status.success(), "{}", ended.stderr);
        crew.go_on(false);
        site.places[number].restart();
        balancer.backends.addresses.lock().expect("kept")[number] = site.server(number).http;
    }
    crew.is_ending.store(true, Ordering::Relaxed);
    crew.go_on(true);
    for device in devices {
        device.join().expect("every download that begins is finished");
    }
    let [whole, untouched] = [&crew.whole, &crew.untouched].map(|n| n.load(Ordering::Relaxed));
    eprintln!("{restarts} restarts: {whole} downloads, {untouched} asked again without an answer");
    assert!(whole >= restarts as u64 * u64::from(DEVICES), "{whole}");
}

/// Devices, and what they wait for.
#[derive(Default)]
struct Crew {
    image: Vec<u8>,
    is_ending: AtomicBool,
    /// Devices that have begun a download and wait.
    waiting: AtomicUsize,
    /// May they go on?
    goes_on: Mutex<bool>,
    changed: Condvar,
    whole: AtomicU64,
    /// Requests whose connection ended without a byte of an answer.
    untouched: AtomicU64,
}

impl Crew {
    fn go_on(&self, goes_on: bool) {
        *self.goes_on.lock().expect("kept") = goes_on;
        self.changed.notify_all();
    }

    fn download_until_the_end(&self, device: &Device) {
        while !self.is_ending.load(Ordering::Relaxed) {
            let token = wait_for("a token", || self.token(device));
            let answer = wait_for("an answer", || self.download(device, &token));
            assert!(answer.status == 200 && answer.body == self.image, "{}", {
                format!("{} bytes of {}", answer.body.len(), answer.head)
            });
            self.whole.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// `None` if the server went before it answered.
    fn token(&self, device: &Device) -> Option<String> {
        let answer = device.ask_for_token();
        if answer.is_none() {
            self.untouched.fetch_add(1, Ordering::Relaxed);
        }
        Some(Device::token_in(&answer?))
    }

    /// Begins, waits for the next restart, and reads to the end.
    fn download(&self, device: &Device, token: &str) -> Option<Answer> {
        let mut stream = device.request_download(token, 0).expect("the balancer is there");
        let mut bytes = vec![0; BEGUN_BYTES];
        let begun = match stream.read(&mut bytes) {
            Ok(0) | Err(_) => {
                self.untouched.fetch_add(1, Ordering::Relaxed);
                return None;
            }
            Ok(begun) => begun,
        };
        stream.read_exact(&mut bytes[begun..]).expect("what was begun goes on");
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let guard = self.goes_on.lock().expect("kept");
        drop(self.changed.wait_while(guard, |goes_on| !*goes_on).expect("kept"));
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        stream.read_to_end(&mut bytes).expect("what was begun goes on");
        Answer::parse(bytes)
    }
}

/// Gives each connection to the server that has fewest of those that accept it.
struct Balancer {
    address: SocketAddr,
    backends: Arc<Backends>,
}

struct Backends {
    addresses: Mutex<Vec<SocketAddr>>,
    /// Connections to each.
    open: Vec<AtomicUsize>,
    next: AtomicUsize,
}

impl Balancer {
    fn start(addresses: Vec<SocketAddr>) -> Self {
        let backends = Arc::new(Backends {
            open: addresses.iter().map(|_| AtomicUsize::new(0)).collect(),
            addresses: Mutex::new(addresses),
            next: AtomicUsize::new(0),
        });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.expect("a runtime");
        let listener = runtime.block_on(async {
            let socket = TcpSocket::new_v4().expect("a socket");
            socket.set_send_buffer_size(BUFFER_BYTES).expect("small");
            socket.bind("127.0.0.1:0".parse().expect("an address")).expect("a port");
            socket.listen(1024).expect("a listener")
        });
        let address = listener.local_addr().expect("an address");
        let shared = Arc::clone(&backends);
        // Ends with the process.
        thread::spawn(move || {
            let tasks = LocalSet::new();
            tasks.block_on(&runtime, async {
                loop {
                    let (client, _) = listener.accept().await.expect("a connection");
                    tokio::task::spawn_local(Arc::clone(&shared).pass_on(client));
                }
            });
        });
        Self { address, backends }
    }
}

impl Backends {
    async fn pass_on(self: Arc<Self>, mut client: TcpStream) {
        // They take turns where they have as many.
        let turn = self.next.fetch_add(1, Ordering::Relaxed);
        let count = self.open.len();
        let mut order: Vec<usize> = (0..count).map(|number| (turn + number) % count).collect();
        order.sort_by_key(|number| self.open[*number].load(Ordering::Relaxed));
        for number in order {
            let address = self.addresses.lock().expect("kept")[number];
            let socket = TcpSocket::new_v4().expect("a socket");
            socket.set_recv_buffer_size(BUFFER_BYTES).expect("small");
            self.open[number].fetch_add(1, Ordering::Relaxed);
            let connected = socket.connect(address).await;
            let is_taken = connected.is_ok();
            if let Ok(mut server) = connected {
                // However it ends, both ends hear of it.
                let _ = copy_bidirectional(&mut client, &mut server).await;
            }
            self.open[number].fetch_sub(1, Ordering::Relaxed);
            if is_taken {
                return;
            }
        }
    }
}
