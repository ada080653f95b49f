//! Another server's image listener, or what an attacker or a broken disk makes of it.
#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex};
use std::thread;

/// What it does with a request.
#[derive(Clone)]
pub(crate) enum Gives {
    Image(Vec<u8>),
    /// The same once the test says so.
    Gated(Vec<u8>, Arc<Mutex<Receiver<()>>>),
    Status(u16),
    /// A length, and then these bytes and the end of the connection.
    Cut(usize, Vec<u8>),
    /// A length, these bytes, and then nothing more.
    Stuck(usize, Vec<u8>),
    /// Without a length, and without an end.
    Endless,
    /// Not even a head.
    Silence,
}

pub(crate) struct Peer {
    pub(crate) address: SocketAddr,
    heads: Arc<Mutex<Vec<String>>>,
    arrived: Receiver<()>,
    gives: Arc<Mutex<Gives>>,
}

impl Peer {
    pub(crate) fn start(gives: Gives) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let heads = Arc::new(Mutex::new(Vec::new()));
        let gives = Arc::new(Mutex::new(gives));
        let (arrival, arrived) = mpsc::channel();
        let (kept, given) = (Arc::clone(&heads), Arc::clone(&gives));
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (kept, given) = (Arc::clone(&kept), Arc::clone(&given));
                let arrival: Sender<()> = arrival.clone();
                thread::spawn(move || {
                    let mut stream = stream.expect("a connection");
                    let Some(head) = head_of(&mut stream) else { return };
                    kept.lock().expect("heads").push(head);
                    // The test may have ended.
                    let _ = arrival.send(());
                    let gives = given.lock().expect("set").clone();
                    // Whoever asked may have gone away.
                    let _ = answer(&mut stream, &gives);
                });
            }
        });
        Self { address, heads, arrived, gives }
    }

    /// An address where nobody listens.
    pub(crate) fn nobody() -> SocketAddr {
        TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address")
    }

    pub(crate) fn set(&self, gives: Gives) {
        *self.gives.lock().expect("set") = gives;
    }

    pub(crate) fn origin(&self) -> String {
        format!("http://{}/images", self.address)
    }

    /// The heads of all requests so far.
    pub(crate) fn heads(&self) -> Vec<String> {
        self.heads.lock().expect("heads").clone()
    }

    pub(crate) fn wait_for_request(&self) {
        self.arrived.recv_timeout(std::time::Duration::from_secs(60)).expect("a request");
    }
}

fn head_of(stream: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    String::from_utf8(head).ok()
}

fn answer(stream: &mut TcpStream, gives: &Gives) -> std::io::Result<()> {
    match gives {
        Gives::Image(bytes) => {
            with_length(stream, bytes.len(), bytes)?;
        }
        Gives::Gated(bytes, gate) => {
            let _ = gate.lock().map(|gate| gate.recv());
            with_length(stream, bytes.len(), bytes)?;
        }
        Gives::Status(status) => write!(
            stream,
            "HTTP/1.1 {status} No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        )?,
        Gives::Cut(length, bytes) => with_length(stream, *length, bytes)?,
        Gives::Stuck(length, bytes) => {
            with_length(stream, *length, bytes)?;
            let _ = stream.read(&mut [0]);
        }
        Gives::Endless => {
            stream.write_all(
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n",
            )?;
            loop {
                stream.write_all(b"10\r\n0123456789abcdef\r\n")?;
            }
        }
        Gives::Silence => {
            let _ = stream.read(&mut [0]);
        }
    }
    Ok(())
}

fn with_length(stream: &mut TcpStream, length: usize, bytes: &[u8]) -> std::io::Result<()> {
    write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n")?;
    stream.write_all(bytes)
}
