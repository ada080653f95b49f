//! The second reader of HTTP: hyper's server, with no socket.

use std::cell::RefCell;
use std::convert::Infallible;
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use http_body_util::{BodyExt, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode, Version};

/// A request as hyper hands it to a service.
#[derive(Clone, Debug)]
pub(super) struct Heard {
    pub(super) method: String,
    pub(super) path: String,
    pub(super) query: Option<String>,
    pub(super) http_1_1: bool,
    /// `None`: it is not whole, or was refused on the way.
    pub(super) body: Option<Vec<u8>>,
}

/// All requests that hyper's server finds in these bytes.
pub(super) fn heard(bytes: &[u8]) -> Vec<Heard> {
    let heard = Rc::new(RefCell::new(Vec::new()));
    let service = service_fn(|request: Request<Incoming>| {
        let heard = Rc::clone(&heard);
        async move {
            let index = heard.borrow().len();
            heard.borrow_mut().push(Heard {
                method: request.method().to_string(),
                path: request.uri().path().to_owned(),
                query: request.uri().query().map(str::to_owned),
                http_1_1: request.version() == Version::HTTP_11,
                body: None,
            });
            let body = request.into_body().collect().await;
            heard.borrow_mut()[index].body = body.ok().map(|body| body.to_bytes().to_vec());
            // No 2xx, so that a CONNECT opens no tunnel.
            let mut response = Response::new(Empty::<Bytes>::new());
            *response.status_mut() = StatusCode::NOT_FOUND;
            Ok::<_, Infallible>(response)
        }
    });
    let wire = Wire { bytes: bytes.to_vec(), at: 0 };
    let mut connection = pin!(http1::Builder::new().serve_connection(wire, service));
    let rung = Arc::new(Rung(AtomicBool::new(true)));
    let waker = Waker::from(Arc::clone(&rung));
    let mut context = Context::from_waker(&waker);
    // Until it waits for bytes that never come.
    while rung.0.swap(false, Ordering::Relaxed) {
        if connection.as_mut().poll(&mut context).is_ready() {
            break;
        }
    }
    heard.take()
}

struct Rung(AtomicBool);

impl Wake for Rung {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Gives its bytes, then nothing; takes all.
struct Wire {
    bytes: Vec<u8>,
    at: usize,
}

impl Read for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        mut buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let left = &self.bytes[self.at..];
        if left.is_empty() {
            return Poll::Pending;
        }
        let count = left.len().min(buffer.remaining());
        buffer.put_slice(&left[..count]);
        self.at += count;
        Poll::Ready(Ok(()))
    }
}

impl Write for Wire {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
