//! How should an image leave: by `sendfile` from its file, or by `send` from its mapping? And
//! after a short count: wait for the socket at once, or try until it says `EAGAIN`?
//!
//! ```text
//! cargo run --release -p otter-mio --example image_write -- [image KiB] [SO_SNDBUF KiB] [rounds]
//! ```
//!
//! One server thread on CPU 0 and one client thread on CPU 1, 8 loopback connections, a head with
//! `MSG_MORE` before each image. The contestants share sockets and process and take turns in
//! slices of 0.3 s; what is compared is the server thread's CPU time per GiB (`schedstat`), each
//! contestant with the first one of the same round, so that a noisy neighbour hits all alike.
#![forbid(unsafe_code)]
#![expect(clippy::print_stdout, reason = "what it measured is printed")]

use std::error::Error;
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use otter_store::{Image, Memory, MemoryOptions};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};
use rustix::thread::{CpuSet, gettid, sched_setaffinity};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1).map(|text| text.parse::<usize>());
    let mut argument = |default: usize| arguments.next().unwrap_or(Ok(default));
    let (image_kib, buffer_kib, rounds) = (argument(1024)?, argument(64)?, argument(15)?);

    let directory = tempfile::tempdir()?;
    let store = Memory::open(directory.path(), MemoryOptions::default())?;
    let bytes = (0..image_kib * 1024).map(|at| (at * 31 % 251) as u8).collect::<Vec<_>>();
    let staged = store.operator().stage(&mut &bytes[..], u64::MAX)?;
    let image = staged.image().ok_or("the image vanished")?;
    let scene = Arc::new(Scene::default());
    let listener = TcpListener::bind("127.0.0.1:0")?;
    socket2::SockRef::from(&listener).set_send_buffer_size(buffer_kib * 1024)?;
    let clients = (0..CONNECTIONS)
        .map(|_| TcpStream::connect(listener.local_addr()?))
        .collect::<Result<Vec<_>, _>>()?;
    let servers =
        (0..CONNECTIONS).map(|_| Ok(listener.accept()?.0)).collect::<std::io::Result<Vec<_>>>()?;

    let (one, other) = (Arc::clone(&scene), image.clone());
    thread::spawn(move || serve(servers, &other, &one).expect("the server runs"));
    let total = image.as_ref().len() + HEAD.len();
    thread::spawn(move || fetch(clients, total).expect("the client runs"));
    while scene.thread.load(Relaxed) == 0 {
        thread::yield_now();
    }
    println!("{image_kib} KiB images, SO_SNDBUF {buffer_kib} KiB, {rounds} rounds: CPU s/GiB");
    measure(&scene, rounds)
}

/// The contestants.
const WAYS: [(&str, Source, Short); 4] = [
    ("sendfile, until EAGAIN", Source::File, Short::Retry),
    ("sendfile, until short", Source::File, Short::Wait),
    ("send, until EAGAIN", Source::Mapping, Short::Retry),
    ("send, until short", Source::Mapping, Short::Wait),
];
const CONNECTIONS: usize = 8;
const HEAD: &[u8; 200] = &[b'h'; 200];
const SLICE: Duration = Duration::from_millis(300);
const SETTLE: Duration = Duration::from_millis(20);

#[derive(Clone, Copy)]
enum Source {
    File,
    Mapping,
}

#[derive(Clone, Copy, PartialEq)]
enum Short {
    Retry,
    Wait,
}

/// What the threads tell each other.
#[derive(Default)]
struct Scene {
    way: AtomicUsize,
    sent: AtomicU64,
    thread: AtomicUsize,
}

struct Peer {
    socket: TcpStream,
    /// Bytes of head and image that have left; all of them: nothing asked for.
    at: usize,
    writable: bool,
}

fn serve(sockets: Vec<TcpStream>, image: &Image, scene: &Scene) -> std::io::Result<()> {
    stay_on(0)?;
    scene.thread.store(gettid().as_raw_nonzero().get() as usize, Relaxed);
    let (mut poll, mut events) = (Poll::new()?, Events::with_capacity(64));
    let total = HEAD.len() + image.as_ref().len();
    let mut peers = Vec::new();
    for (token, socket) in sockets.into_iter().enumerate() {
        register(&poll, &socket, token, Interest::READABLE | Interest::WRITABLE)?;
        peers.push(Peer { socket, at: total, writable: true });
    }
    loop {
        poll.poll(&mut events, None)?;
        for event in &events {
            let peer = &mut peers[event.token().0];
            let mut request = [0; 8];
            if event.is_readable()
                && rustix::net::recv(&peer.socket, &mut request, WAIT_NOT).is_ok()
            {
                peer.at = 0;
            }
            peer.writable |= event.is_writable();
            let (_, source, short) = WAYS[scene.way.load(Relaxed)];
            while peer.writable && peer.at < total {
                let (wanted, sent) = write(peer, image, source);
                match sent {
                    Ok(n) => {
                        peer.at += n;
                        peer.writable = n == wanted || short == Short::Retry;
                        scene.sent.fetch_add(n as u64, Relaxed);
                    }
                    Err(Errno::AGAIN) => peer.writable = false,
                    Err(error) => return Err(error.into()),
                }
            }
        }
    }
}

fn write(peer: &Peer, image: &Image, source: Source) -> (usize, rustix::io::Result<usize>) {
    let Some(at) = peer.at.checked_sub(HEAD.len()) else {
        let rest = &HEAD[peer.at..];
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL | SendFlags::MORE;
        return (rest.len(), rustix::net::send(&peer.socket, rest, flags));
    };
    let rest = &image.as_ref()[at..];
    let sent = match source {
        Source::File => {
            let mut at = at as u64;
            rustix::fs::sendfile(&peer.socket, image, Some(&mut at), rest.len())
        }
        Source::Mapping => {
            let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
            rustix::net::send(&peer.socket, rest, flags)
        }
    };
    (rest.len(), sent)
}

fn fetch(sockets: Vec<TcpStream>, total: usize) -> std::io::Result<()> {
    stay_on(1)?;
    let (mut poll, mut events) = (Poll::new()?, Events::with_capacity(64));
    let mut left = vec![total; sockets.len()];
    for (token, socket) in sockets.iter().enumerate() {
        register(&poll, socket, token, Interest::READABLE)?;
        rustix::net::send(socket, b"g", SendFlags::empty())?;
    }
    let mut buffer = vec![0; 256 * 1024];
    loop {
        poll.poll(&mut events, None)?;
        for event in &events {
            let (socket, left) = (&sockets[event.token().0], &mut left[event.token().0]);
            // `MSG_TRUNC`: the bytes are dropped in the kernel, the client's copy is not our topic.
            while let Ok((_, n)) =
                rustix::net::recv(socket, &mut buffer[..], WAIT_NOT | RecvFlags::TRUNC)
            {
                *left -= n;
                if *left == 0 {
                    *left = total;
                    rustix::net::send(socket, b"g", SendFlags::empty())?;
                }
            }
        }
    }
}

const WAIT_NOT: RecvFlags = RecvFlags::DONTWAIT;

fn register(poll: &Poll, socket: &TcpStream, at: usize, interest: Interest) -> std::io::Result<()> {
    socket.set_nodelay(true)?;
    socket.set_nonblocking(true)?;
    poll.registry().register(&mut SourceFd(&socket.as_raw_fd()), Token(at), interest)
}

fn stay_on(cpu: usize) -> std::io::Result<()> {
    let mut cpus = CpuSet::new();
    cpus.set(cpu);
    Ok(sched_setaffinity(None, &cpus)?)
}

fn measure(scene: &Scene, rounds: usize) -> Result<(), Box<dyn Error>> {
    let mut costs = vec![Vec::new(); WAYS.len()];
    let mut ratios = vec![Vec::new(); WAYS.len()];
    let mut rates = vec![Vec::new(); WAYS.len()];
    for _ in 0..rounds {
        for way in 0..WAYS.len() {
            scene.way.store(way, Relaxed);
            thread::sleep(SETTLE);
            let (cpu, sent) = (cpu_ns(scene)?, scene.sent.load(Relaxed));
            thread::sleep(SLICE);
            let gib = (scene.sent.load(Relaxed) - sent) as f64 / f64::from(1 << 30);
            costs[way].push((cpu_ns(scene)? - cpu) as f64 / 1e9 / gib);
            rates[way].push(gib / SLICE.as_secs_f64());
        }
        let last = |way: usize| costs[way].last().copied().unwrap_or(f64::NAN);
        for (way, ratios) in ratios.iter_mut().enumerate() {
            ratios.push(last(way) / last(0));
        }
    }
    for (way, (name, ..)) in WAYS.iter().enumerate() {
        let [low, cost, high] = quartiles(&mut costs[way]);
        let [.., rate, _] = quartiles(&mut rates[way]);
        let [ratio_low, ratio, ratio_high] = quartiles(&mut ratios[way]);
        println!(
            "{name:24} {cost:.3} ({low:.3}..{high:.3}) s/GiB, {rate:.2} GiB/s, \
             / first {ratio:.2} ({ratio_low:.2}..{ratio_high:.2})"
        );
    }
    Ok(())
}

fn cpu_ns(scene: &Scene) -> Result<u64, Box<dyn Error>> {
    let path = format!("/proc/self/task/{}/schedstat", scene.thread.load(Relaxed));
    let text = std::fs::read_to_string(path)?;
    Ok(text.split(' ').next().ok_or("schedstat has a first field")?.parse()?)
}

fn quartiles(values: &mut [f64]) -> [f64; 3] {
    values.sort_by(f64::total_cmp);
    [1, 2, 3].map(|quarter| values[(values.len() - 1) * quarter / 4])
}
