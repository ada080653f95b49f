//! The image listener: other servers fetch here what they lack, `GET /images/<sha256>`.
//!
//! It runs on a thread of its own, so that neither devices nor operators wait for it. It gives only
//! what lies here and is whole, and never asks another server on behalf of one: so servers may name
//! each other, and themselves, in any order.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{self, Poll};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use axum::http::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, ETAG, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use otter_store::{Image, Operator};
use ring::digest::{SHA256, digest};
use subtle::ConstantTimeEq;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};

use crate::failure::{Context, Failure};
use crate::secret::Secret;

/// The listener of a running server.
pub(crate) struct ImageListener {
    address: SocketAddr,
    thread: JoinHandle<()>,
    stop: oneshot::Sender<()>,
}

impl ImageListener {
    /// Listens, and answers whoever knows the secret; everybody if there is none.
    pub(crate) fn start(
        listen: SocketAddr,
        secret: Option<&Secret>,
        operator: Operator,
    ) -> Result<Self, Failure> {
        let starting = || format!("cannot listen for other servers on {listen}");
        let listener = std::net::TcpListener::bind(listen).map_err(|error| {
            let failure = if error.kind() == io::ErrorKind::AddrInUse {
                Failure::conflict(format!("{}: {error}", starting()))
            } else {
                Failure::failed(format!("{}: {error}", starting()))
            };
            failure.hint("choose another address with `image_listen`")
        })?;
        listener.set_nonblocking(true).context(starting)?;
        let address = listener.local_addr().context(starting)?;
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().context(starting)?;
        let shelf = Arc::new(Shelf { secret: secret.map(Secret::hash), operator });
        let (stop, stopped) = oneshot::channel();
        let thread = thread::Builder::new()
            .name("otter-images".to_owned())
            .spawn(move || {
                if let Err(error) = runtime.block_on(accept(listener, shelf, stopped)) {
                    tracing::error!(%error, "the image listener ended");
                }
                runtime.shutdown_background();
            })
            .context(starting)?;
        Ok(Self { address, thread, stop })
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Lets transfers under way finish, for a while.
    pub(crate) fn stop(self) {
        let _ = self.stop.send(());
        if self.thread.join().is_err() {
            tracing::error!("the image listener panicked");
        }
    }
}

/// What is given to other servers.
struct Shelf {
    secret: Option<[u8; 32]>,
    operator: Operator,
}

impl Shelf {
    /// The secret is asked for before anything is looked at.
    async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Response<Sent> {
        if !self.admits(request.headers()) {
            let mut refused = empty(StatusCode::UNAUTHORIZED);
            refused.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            return refused;
        }
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return empty(StatusCode::METHOD_NOT_ALLOWED);
        }
        let is_head = request.method() == Method::HEAD;
        let Some(name) = name_in(request.uri().path()) else {
            return empty(StatusCode::NOT_FOUND);
        };
        let operator = self.operator.clone();
        match spawn_blocking(move || operator.image(&name)).await {
            Ok(Some(image)) => given(image, request.uri().path(), is_head),
            Ok(None) => empty(StatusCode::NOT_FOUND),
            Err(_) => empty(StatusCode::INTERNAL_SERVER_ERROR),
        }
    }

    fn admits(&self, headers: &HeaderMap) -> bool {
        let Some(secret) = &self.secret else { return true };
        let presented = headers.get(AUTHORIZATION).map(HeaderValue::as_bytes).unwrap_or_default();
        let presented = presented.strip_prefix(b"Bearer ").unwrap_or_default();
        // Of hashes, so that the time says nothing of the length either.
        digest(&SHA256, presented).as_ref().ct_eq(secret).into()
    }
}

async fn accept(
    listener: std::net::TcpListener,
    shelf: Arc<Shelf>,
    mut stopped: oneshot::Receiver<()>,
) -> io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX as usize));
    loop {
        let next = async {
            let permit = Arc::clone(&room).acquire_owned().await.map_err(io::Error::other)?;
            let (stream, _) = listener.accept().await?;
            Ok::<_, io::Error>((stream, permit))
        };
        let accepted = tokio::select! {
            _ = &mut stopped => break,
            accepted = next => accepted,
        };
        match accepted {
            Ok((stream, permit)) => {
                tokio::spawn(connection(stream, Arc::clone(&shelf), permit));
            }
            // Out of descriptors, or a peer that went away at once.
            Err(_) => sleep(ACCEPT_PAUSE).await,
        }
    }
    drop(listener);
    // Whatever is still under way after that is fetched elsewhere, or again.
    let _ = timeout(DRAIN, room.acquire_many(CONNECTIONS_MAX)).await;
    Ok(())
}

/// One request; its connection then ends, so that nobody holds one of the few for nothing.
async fn connection(stream: TcpStream, shelf: Arc<Shelf>, _permit: OwnedSemaphorePermit) {
    // Ends a peer that takes nothing any more. Without it the limit on the whole holds.
    let _ = rustix::net::sockopt::set_tcp_user_timeout(&stream, STUCK_MS);
    let _ = stream.set_nodelay(true);
    let answering = service_fn(move |request| {
        let shelf = Arc::clone(&shelf);
        async move { Ok::<_, Infallible>(shelf.answer(request).await) }
    });
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(HEAD_BYTES_MAX)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), answering);
    if let Ok(Err(error)) = timeout(TRANSFER_TIMEOUT, serving).await {
        tracing::debug!(%error, "another server's connection broke off");
    }
}

/// The SHA-256 that a path names.
fn name_in(path: &str) -> Option<[u8; 32]> {
    let digits = path.strip_prefix("/images/")?.as_bytes();
    let mut name = [0; 32];
    if digits.len() != 2 * name.len() {
        return None;
    }
    let (pairs, _) = digits.as_chunks::<2>();
    for (byte, [high, low]) in name.iter_mut().zip(pairs) {
        *byte = digit(*high)? << 4 | digit(*low)?;
    }
    Some(name)
}

/// Lower case only: one image, one address.
fn digit(c: u8) -> Option<u8> {
    match c {
        b'0'..=b'9' => Some(c - b'0'),
        b'a'..=b'f' => Some(c - b'a' + 10),
        _ => None,
    }
}

fn given(image: Image, path: &str, is_head: bool) -> Response<Sent> {
    let length = image.len();
    let digits = path.rsplit('/').next().unwrap_or_default();
    let etag = HeaderValue::try_from(format!("\"{digits}\""));
    let body = if is_head { Sent::nothing() } else { Sent::read(image) };
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    if let Ok(etag) = etag {
        headers.insert(ETAG, etag);
    }
    response
}

fn empty(status: StatusCode) -> Response<Sent> {
    let mut response = Response::new(Sent::nothing());
    *response.status_mut() = status;
    response
}

/// The bytes of an image, read a little ahead of the peer on a thread that may wait for the disk.
struct Sent {
    chunks: Option<mpsc::Receiver<io::Result<Bytes>>>,
    left: u64,
}

impl Sent {
    fn nothing() -> Self {
        Self { chunks: None, left: 0 }
    }

    fn read(image: Image) -> Self {
        let left = image.len();
        let (sender, chunks) = mpsc::channel(CHUNKS_AHEAD);
        spawn_blocking(move || {
            let mut offset = 0;
            while offset < image.len() {
                let chunk = chunk(&image, offset);
                offset += chunk.as_ref().map_or(u64::MAX, |bytes| bytes.len() as u64);
                if sender.blocking_send(chunk).is_err() {
                    return;
                }
            }
        });
        Self { chunks: Some(chunks), left }
    }
}

impl Body for Sent {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut task::Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let Some(chunks) = &mut self.chunks else { return Poll::Ready(None) };
        let chunk = task::ready!(chunks.poll_recv(context));
        if let Some(Ok(bytes)) = &chunk {
            self.left = self.left.saturating_sub(bytes.len() as u64);
        }
        Poll::Ready(chunk.map(|chunk| chunk.map(Frame::data)))
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

/// From the file, not from its mapping: a file that somebody cuts short is an error, no signal.
fn chunk(image: &Image, offset: u64) -> io::Result<Bytes> {
    let mut bytes = vec![0; CHUNK_BYTES];
    let length = rustix::io::pread(image, &mut bytes, offset)?;
    if length == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    bytes.truncate(length);
    Ok(bytes.into())
}

/// Beyond: they wait to be accepted.
const CONNECTIONS_MAX: u32 = 64;
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// How long a peer may take nothing, in milliseconds.
const STUCK_MS: u32 = 30_000;
/// How long one request may take in all.
const TRANSFER_TIMEOUT: Duration = Duration::from_secs(15 * 60);
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long transfers may go on when the server stops.
const DRAIN: Duration = Duration::from_secs(5);
const CHUNK_BYTES: usize = 64 * 1024;
const CHUNKS_AHEAD: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_64_lower_case_digits_below_images_name_one() {
        let digits = "0123456789abcdef".repeat(4);
        let name = name_in(&format!("/images/{digits}")).expect("a name");
        assert_eq!(name[..8], [0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef]);
        for path in [
            "/images/".to_owned(),
            "/images".to_owned(),
            "/".to_owned(),
            format!("/images/{}", digits.to_uppercase()),
            format!("/images/{digits}0"),
            format!("/images/{}", &digits[1..]),
            format!("/images//{}", &digits[1..]),
            format!("/images/../{}", &digits[3..]),
            format!("/images/%2e%2e%2f{}", &digits[9..]),
            format!("/images/{digits}/"),
            format!("/Images/{digits}"),
            format!("/x/images/{digits}"),
        ] {
            assert_eq!(name_in(&path), None, "{path}");
        }
    }

    #[test]
    fn a_secret_is_asked_for_to_the_letter() {
        let directory = tempfile::tempdir().expect("a directory");
        let options = otter_store::MemoryOptions::default();
        let memory = otter_store::Memory::open(directory.path(), options).expect("a store");
        let secret = Secret::from("0123456789abcdef0123456789abcdef".to_owned());
        let shelf = Shelf { secret: Some(secret.hash()), operator: memory.operator() };
        let admitted = |value: Option<&'static str>| {
            let headers =
                value.map(|value| (AUTHORIZATION, HeaderValue::from_static(value))).into_iter();
            shelf.admits(&headers.collect())
        };
        assert!(admitted(Some("Bearer 0123456789abcdef0123456789abcdef")));
        for wrong in [
            None,
            Some(""),
            Some("Bearer "),
            Some("Bearer 0123456789abcdef0123456789abcde"),
            Some("Bearer 0123456789abcdef0123456789abcdeff"),
            Some("Bearer 0123456789ABCDEF0123456789abcdef"),
            Some("Basic 0123456789abcdef0123456789abcdef"),
            Some("0123456789abcdef0123456789abcdef"),
        ] {
            assert!(!admitted(wrong), "{wrong:?}");
        }
    }
}
