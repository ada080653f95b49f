//! The examples, run.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use otter_store::{Memory, MemoryOptions};
use otter_tokio::{Options, Service};
use tokio::net::TcpListener;

#[allow(dead_code, reason = "its main is for people")]
#[path = "../examples/axum.rs"]
mod axum_beside;
#[allow(dead_code, reason = "its main is for people")]
#[path = "../examples/by_hand.rs"]
mod by_hand;

#[tokio::test]
async fn by_hand_prints_a_check_in() {
    let mut printed = Vec::new();
    by_hand::run(&mut printed).await.expect("it runs");
    let printed = String::from_utf8(printed).expect("text");
    for part in
        ["POST /device/register", "HTTP/1.1 200 OK", "\"status\":\"OK\"", "\nclosed: Peer\n"]
    {
        assert!(printed.contains(part), "{part} in {printed}");
    }
}

/// The example's server with a store, on threads of its own; an owner and a key.
fn start() -> (tokio::runtime::Runtime, SocketAddr, String) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("threads");
    let directory = tempfile::tempdir().expect("a directory");
    let memory = Memory::open(directory.path(), MemoryOptions::default()).expect("a store");
    let owner = memory.operator().create_owner(None).expect("an owner");
    let key = memory.operator().create_key(&owner, "test").expect("a key").key.text();
    let address = runtime.block_on(async {
        let (service, batching) = Service::new(Options::default(), |wake| memory.store(wake));
        tokio::spawn(batching);
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        tokio::spawn(axum_beside::serve(service, listener));
        address
    });
    let body = format!(r#"{{"registration":{{"mac":"5CCF7FEE1337","owner":"{owner}"}}}}"#);
    let check_in = format!(
        "POST /device/register HTTP/1.1\r\nHost: otter\r\nAuthentication: {}\r\n\
         Content-Length: {}\r\n\r\n{body}",
        String::from_utf8_lossy(&key),
        body.len()
    );
    (runtime, address, check_in)
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).expect("a connection");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
    stream
}

/// Sends a request and reads one answer with a length.
fn exchange(stream: &mut TcpStream, request: &str) -> String {
    stream.write_all(request.as_bytes()).expect("written");
    answer(stream)
}

fn answer(stream: &mut TcpStream) -> String {
    let mut read = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&read).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let head = head.to_ascii_lowercase();
            let length = head.split("content-length: ").nth(1).expect("a length");
            let length = length.lines().next().and_then(|n| n.parse().ok()).expect("a number");
            if body.len() >= length {
                assert_eq!(body.len(), length, "one answer: {text}");
                return text;
            }
        }
        let mut buffer = [0; 4096];
        let n = stream.read(&mut buffer).expect("an answer");
        assert_ne!(n, 0, "closed after {text:?}");
        read.extend_from_slice(&buffer[..n]);
    }
}

const HELLO: &str = "GET /hello HTTP/1.1\r\nHost: otter\r\n\r\n";

#[test]
fn devices_and_others_share_a_port_and_keep_their_connections() {
    let (_runtime, address, check_in) = start();
    let (mut device, mut other) = (connect(address), connect(address));
    for _ in 0..3 {
        let answered = exchange(&mut device, &check_in);
        assert!(answered.starts_with("HTTP/1.1 200 OK\r\nContent-Type: "), "{answered}");
        assert!(answered.contains("\"status\":\"OK\""), "{answered}");
        assert!(exchange(&mut other, HELLO).ends_with("hello\n"));
    }
}

#[test]
fn who_is_slow_to_say_what_it_wants_is_understood() {
    let (_runtime, address, check_in) = start();
    for (request, part) in [(check_in.as_str(), "\"status\":\"OK\""), (HELLO, "hello\n")] {
        let mut slow = connect(address);
        slow.set_nodelay(true).expect("a socket");
        for byte in request.bytes() {
            slow.write_all(&[byte]).expect("written");
        }
        assert!(answer(&mut slow).contains(part));
    }
}

#[test]
fn the_connection_is_chosen_by_the_whole_first_segment() {
    let (_runtime, address, check_in) = start();
    for (target, expected) in [
        ("/device", "{\"success\":false"),
        ("/device?x=1", "{\"success\":false"),
        ("/device/nothing", "{\"success\":false"),
        ("/devices", ""),
        ("/", ""),
    ] {
        let request = format!("GET {target} HTTP/1.1\r\nHost: otter\r\n\r\n");
        let answered = exchange(&mut connect(address), &request);
        let (_, body) = answered.split_once("\r\n\r\n").expect("a head");
        assert!(body.starts_with(expected) && body.is_empty() == expected.is_empty(), "{answered}");
    }
    let mut kept = connect(address);
    assert!(exchange(&mut kept, HELLO).ends_with("hello\n"));
    let answered = exchange(&mut kept, &check_in);
    assert!(answered.starts_with("HTTP/1.1 421 "), "axum cannot serve a device: {answered}");
}
