//! Devices and an axum router on one port.
//!
//! ```text
//! cargo run -p otter-tokio --example axum
//! ```
//!
//! Why not a handler in the router? Devices in the field cut answers apart by text search, at most
//! 511 bytes of them (docs/wire.md 2.2), and hyper writes heads in its own way; the core writes
//! the bytes that they know. So a connection goes to one or the other, by what it asks for first:
//! that is looked at (`MSG_PEEK`) before anything is read. Who is not a device gets axum as if
//! nothing had been there, and a device gets [`drive_tcp`]: its own limits and deadlines,
//! keep-alive and pipelining included, and images straight from their mapping.
//!
//! A device speaks to nothing else, so its connection stays Otter's, which answers 404 to other
//! targets. A proxy that sends requests of many clients over one kept connection must not mix the
//! two: let it send `/device` to an upstream of its own (the same address will do). If one comes to
//! axum all the same, 421 tells it to take another connection (RFC 9110 15.5.20).
#![forbid(unsafe_code)]

use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::http::StatusCode;
use axum::http::header::CONNECTION;
use axum::routing::{any, get};
use axum::serve::Listener;
use otter_store::{Image, Memory, MemoryOptions};
use otter_tokio::{Options, Security, Service, drive_tcp};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

#[tokio::main(flavor = "multi_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let directory = tempfile::tempdir()?;
    let memory = Memory::open(directory.path(), MemoryOptions::default())?;
    let owner = memory.operator().create_owner(None)?;
    let key = memory.operator().create_key(&owner, "axum")?.key.text();
    let listener = TcpListener::bind("127.0.0.1:7442").await?;
    let mut out = io::stdout();
    io::Write::write_fmt(
        &mut out,
        format_args!(
            "curl http://{0}/hello\n\
             curl -H 'Authentication: {1}' http://{0}/device/register -d \
             '{{\"registration\":{{\"mac\":\"5CCF7FEE1337\",\"owner\":\"{owner}\"}}}}'\n",
            listener.local_addr()?,
            String::from_utf8_lossy(&key),
        ),
    )?;
    let (service, batching) = Service::new(Options::default(), |wake| memory.store(wake));
    tokio::spawn(batching);
    Ok(serve(service, listener).await?)
}

/// Serves devices and [`routes`] on one port.
pub(crate) async fn serve(service: Service<Image>, listener: TcpListener) -> io::Result<()> {
    let (sender, others) = mpsc::channel(BACKLOG);
    let others = Others { streams: others, address: listener.local_addr()? };
    tokio::spawn(async move {
        loop {
            match listener.accept().await {
                // A task for each: one that is slow to say what it wants holds up nobody.
                Ok((stream, peer)) => {
                    tokio::spawn(route(service.clone(), stream, peer, sender.clone()));
                }
                // No descriptor, mostly: when others end there are some.
                Err(_) => sleep(Duration::from_millis(250)).await,
            }
        }
    });
    axum::serve(others, routes()).await
}

/// The program's own routes.
fn routes() -> Router {
    let elsewhere = || async { (StatusCode::MISDIRECTED_REQUEST, [(CONNECTION, "close")]) };
    Router::new()
        .route("/hello", get(|| async { "hello\n" }))
        .route("/device", any(elsewhere))
        .route("/device/{*path}", any(elsewhere))
}

/// Gives a connection to whom it asks for.
async fn route(
    service: Service<Image>,
    stream: TcpStream,
    peer: SocketAddr,
    others: mpsc::Sender<(TcpStream, SocketAddr)>,
) {
    // Who says nothing for as long as a request's head may take is let go.
    match timeout(Duration::from_secs(10), is_device(&stream)).await {
        // How it ended is counted in the service, and of no interest here.
        Ok(Ok(true)) => _ = drive_tcp(&service, stream, &Security::Plain).await,
        // Its receiver is gone only if axum is.
        Ok(Ok(false)) => _ = others.send((stream, peer)).await,
        Ok(Err(_)) | Err(_) => {}
    }
}

/// Is the first request for `/device`? Nothing is read.
async fn is_device(stream: &TcpStream) -> io::Result<bool> {
    let mut start = [0; 64];
    loop {
        let n = stream.peek(&mut start).await?;
        let line = start[..n].trim_ascii_start();
        let mut words = line.splitn(3, |byte| *byte == b' ').skip(1);
        match (words.next(), words.next()) {
            (Some(target), rest) => {
                let is_whole = rest.is_some() || target.len() > DEVICE.len();
                let after = target.strip_prefix(DEVICE).map(|rest| rest.first());
                let is_device = matches!(after, Some(None | Some(b'/' | b'?')));
                if is_whole || !DEVICE.starts_with(target) {
                    return Ok(is_device);
                }
            }
            (None, _) if n == 0 || n == start.len() => return Ok(false),
            (None, _) => {}
        }
        // The start of a request line comes in one piece, but nothing says that it must, and what
        // is not read makes the socket ready at once.
        sleep(Duration::from_millis(10)).await;
    }
}

/// Connections for axum.
struct Others {
    streams: mpsc::Receiver<(TcpStream, SocketAddr)>,
    address: SocketAddr,
}

impl Listener for Others {
    type Io = TcpStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (TcpStream, SocketAddr) {
        match self.streams.recv().await {
            Some(accepted) => accepted,
            // Nobody accepts any more.
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.address)
    }
}

const DEVICE: &[u8] = b"/device";
/// Connections that may wait for axum.
const BACKLOG: usize = 128;
