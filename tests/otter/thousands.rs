//! Thousands of connections that present one token at the same moment: one of them gets the image.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use otter_tests::redis::RedisServer;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::Barrier;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::device::{Answer, image, sha256};
use crate::program::text;
use crate::site::{Place, Site, allow_updates, alone, wanted};

const IMAGE_BYTES: usize = 64 << 10;
/// What stands behind the claim (docs/token.md).
const TAIL_BYTES: usize = 4096;
/// Only a server that hangs needs that long.
const PATIENCE: Duration = Duration::from_secs(120);
/// Connections are made so many at a time, as the queue of a listener is finite.
const CONNECTING_MAX: usize = 512;
/// Open files of the other tests in this process.
const OTHER_FILES: usize = 512;

/// How a crowd behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Manner {
    /// Each takes what it gets: who is late is refused.
    Rush,
    /// Nobody reads on before all have begun, and all that a connection can hold is less than what
    /// stands before the tail: so all claim at the same moment.
    Wait,
}

/// A crowd of 10,000 for three servers on one Redis, and of 2,000 for the others, or of as many as
/// `OTTER_CROWD` says for all.
#[test]
fn of_thousands_with_one_token_one_gets_the_image() {
    let _turn = alone();
    let small = room_for(wanted("OTTER_CROWD", 2000) as usize);
    let full = room_for(wanted("OTTER_CROWD", 10_000) as usize);
    for store in ["memory", "embedded"] {
        for runtime in ["mio", "tokio"] {
            let args = ["--runtime", runtime, "--store", store];
            let site = Site::of(vec![Place::start(&args, &PATIENT)]);
            race(&args.join(" "), &site, small);
        }
    }
    for (runtimes, crowd) in
        [(&["mio"][..], small), (&["tokio"], small), (&["mio", "tokio", "mio"], full)]
    {
        let redis = RedisServer::start();
        let shared = tempfile::tempdir().expect("a directory");
        let images = shared.path().display().to_string();
        let places = runtimes.iter().map(|runtime| {
            let args = ["--runtime", runtime, "--store", &redis.url()];
            Place::start(&args, &[&[("OTTER_IMAGES", images.as_str())], &PATIENT[..]].concat())
        });
        race(&format!("{runtimes:?} on Redis"), &Site::of(places.collect()), crowd);
    }
}

/// A busy machine may take long for thousands of questions at once; what is tried here is not how
/// long.
const PATIENT: [(&str, &str); 4] = [
    ("OTTER_SEND_BUFFER_BYTES", "16384"),
    ("OTTER_ANSWER_TIMEOUT_MS", "60000"),
    ("OTTER_REDIS_TIMEOUT_MS", "60000"),
    ("OTTER_HEAD_TIMEOUT_S", "60"),
];

/// Raises the limit of open files as far as it may be; a crowd that does not fit is made smaller.
fn room_for(crowd: usize) -> usize {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    setrlimit(Resource::Nofile, raised).expect("the hard limit is allowed");
    let most = limit.maximum.map_or(usize::MAX, |most| most as usize);
    let fits = crowd.min(most.saturating_sub(OTHER_FILES));
    if fits < crowd {
        eprintln!("{fits} in place of {crowd} connections: {most} files may be open");
    }
    fits
}

/// Lets crowds present one token each, once in each manner.
fn race(name: &str, site: &Site, crowd: usize) {
    let bytes = image(IMAGE_BYTES, 9);
    site.publish(0, "1.1.0", &bytes);
    let device = site.device(0, 1);
    device.check_in("1.0.0");
    allow_updates(&site.server(0).admin, &device.udid);
    for manner in [Manner::Rush, Manner::Wait] {
        let name = format!("{name}, {manner:?}");
        hand_out(&name, site, &bytes, manner, crowd);
    }
    assert_eq!(device.check_in("1.1.0")["status"], "OK", "{name}: it serves on");
}

/// Gives one token to a crowd, and judges what each of it got.
fn hand_out(name: &str, site: &Site, bytes: &[u8], manner: Manner, crowd: usize) {
    let device = site.device(0, 1);
    let token = text(&device.check_in("1.0.0"), "ott");
    let servers: Vec<SocketAddr> = site.places.iter().map(|place| place.server().http).collect();

    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let (got, took) =
        runtime.expect("a runtime").block_on(present(&servers, &token, manner, crowd));
    let (mut whole, mut parts, mut refused, mut silent) = (0, 0, 0, 0);
    for received in got {
        // A reset may take what was received with it, and a server without room ends without a
        // word.
        let Some(answer) = Answer::parse(received) else {
            silent += 1;
            continue;
        };
        match answer.status {
            200 if answer.body.len() == IMAGE_BYTES => {
                assert_eq!(sha256(&answer.body), sha256(bytes), "{name}");
                whole += 1;
            }
            200 => {
                let received = answer.body.len();
                assert!(bytes.starts_with(&answer.body), "{name}: {received} other bytes");
                assert!(received <= IMAGE_BYTES - TAIL_BYTES, "{name}: {received} bytes");
                parts += 1;
            }
            404 => {
                assert_eq!(answer.text(), "OTT_UPDATE_NOT_FOUND");
                refused += 1;
            }
            status => panic!("{name}: {status} {}", answer.text()),
        }
    }
    eprintln!(
        "{name}: {crowd} connections in {took:?}: {whole} whole, {parts} without the tail, \
         {refused} refused, {silent} closed without a word"
    );
    assert_eq!(whole, 1, "{name}");
    assert_eq!(silent, 0, "{name}");
    if manner == Manner::Wait {
        assert_eq!(parts, crowd - 1, "{name}: all had begun before anybody claimed");
    }
    for place in &site.places {
        let again = crate::device::Device { server: place.server().http, ..device.clone() };
        assert_eq!(again.download(&token, 0).status, 404, "{name}");
    }
}

/// Connects all, lets all ask at once, and returns what each received, and how long that took from
/// the first question to the last end.
async fn present(
    servers: &[SocketAddr],
    token: &str,
    manner: Manner,
    crowd: usize,
) -> (Vec<Vec<u8>>, Duration) {
    let request: Arc<[u8]> = format!(
        "GET /device/firmware?ott={token} HTTP/1.0\r\nHost: otter\r\n\
         User-Agent: ESP8266-http-Update\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
    )
    .into_bytes()
    .into();
    let mut streams = Vec::with_capacity(crowd);
    while streams.len() < crowd {
        let next = streams.len()..crowd.min(streams.len() + CONNECTING_MAX);
        let mut connecting: JoinSet<_> =
            next.map(|n| connect(servers[n % servers.len()])).collect();
        while let Some(connected) = connecting.join_next().await {
            let stream = connected.expect("no panic").expect("connected; is RLIMIT_NOFILE enough?");
            streams.push(stream);
        }
    }
    let barrier = Arc::new(Barrier::new(crowd));
    let begun = Instant::now();
    let mut asking = JoinSet::new();
    for mut stream in streams {
        let (barrier, request) = (Arc::clone(&barrier), Arc::clone(&request));
        asking.spawn(async move {
            barrier.wait().await;
            let mut received = Vec::new();
            let exchange = async {
                stream.write_all(&request).await?;
                if manner == Manner::Wait {
                    // Its first byte is there: it has begun, or is refused.
                    stream.readable().await?;
                    barrier.wait().await;
                }
                // A reset keeps what came before it.
                stream.read_to_end(&mut received).await
            };
            let _ = timeout(PATIENCE, exchange).await.expect("an end in time");
            received
        });
    }
    (asking.join_all().await, begun.elapsed())
}

/// With little room, so that the server sends little before it is read.
async fn connect(server: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.set_recv_buffer_size(8192)?;
    socket.connect(server).await
}
