//! What a connection reads from and writes to, and how the bytes of an image get there.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use otter_protocol::Transmit;
use otter_store::Image;
use rustix::io::Errno;
use rustix::net::SendFlags;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, Interest};
use tokio::net::TcpStream;

/// An image whose bytes user space can read: what [`crate::drive`] needs, because it must hand
/// bytes, not a place in memory that only the kernel may touch, to whatever is written to.
///
/// A type that shows a mapped file must not read the mapping here: a file that is cut short under
/// it ends the process (`SIGBUS`). [`Image`] reads from its descriptor.
pub trait Legible {
    /// The bytes from `offset` on: as many as fit into `buffer` or fewer, in `buffer` or wherever
    /// they lie. Empty if there are none any more. Must not wait for anything but the disk.
    ///
    /// # Errors
    /// They cannot be read: the connection ends.
    fn read<'a>(&'a self, offset: u64, buffer: &'a mut [u8]) -> io::Result<&'a [u8]>;
}

impl Legible for Image {
    fn read<'a>(&'a self, offset: u64, buffer: &'a mut [u8]) -> io::Result<&'a [u8]> {
        let n = rustix::io::pread(self, &mut *buffer, offset)?;
        Ok(&buffer[..n])
    }
}

impl Legible for [u8] {
    fn read<'a>(&'a self, offset: u64, buffer: &'a mut [u8]) -> io::Result<&'a [u8]> {
        let rest = usize::try_from(offset).ok().and_then(|offset| self.get(offset..));
        let rest = rest.unwrap_or_default();
        Ok(&rest[..rest.len().min(buffer.len())])
    }
}

impl Legible for Bytes {
    fn read<'a>(&'a self, offset: u64, buffer: &'a mut [u8]) -> io::Result<&'a [u8]> {
        (**self).read(offset, buffer)
    }
}

impl Legible for Arc<[u8]> {
    fn read<'a>(&'a self, offset: u64, buffer: &'a mut [u8]) -> io::Result<&'a [u8]> {
        (**self).read(offset, buffer)
    }
}

/// A stream, and what can be done better than with any stream.
pub(crate) trait Socket<I> {
    type Stream: AsyncRead + AsyncWrite;

    fn stream(&mut self) -> Pin<&mut Self::Stream>;

    /// Writes at most `most` bytes of what is next.
    fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        next: Transmit<'_, I>,
        most: usize,
    ) -> Poll<io::Result<usize>>;

    /// Nobody reads for now. Has the connection broken? If not, the task is woken when it does,
    /// where that can be known.
    fn watch(&mut self, _cx: &mut Context<'_>) -> io::Result<()> {
        Ok(())
    }

    /// Makes the end a reset: what still waits in the kernel for a peer that does not take it is
    /// freed at once, and cannot pass for the whole answer.
    fn abort(&self) {}

    fn address(&self) -> Option<SocketAddr> {
        None
    }
}

/// A plain TCP connection: images leave from their mapping, which only the kernel reads.
pub(crate) struct Tcp(pub(crate) TcpStream);

/// Any stream.
pub(crate) struct Any<T>(pub(crate) T);

impl<I: AsRef<[u8]>> Socket<I> for Tcp {
    type Stream = TcpStream;

    fn stream(&mut self) -> Pin<&mut TcpStream> {
        Pin::new(&mut self.0)
    }

    /// `send` as the mio driver does it: with `MSG_MORE` if an image follows. If a file is cut
    /// short under its mapping, it stops where the file ends and says `EFAULT` next.
    fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        next: Transmit<'_, I>,
        most: usize,
    ) -> Poll<io::Result<usize>> {
        let bytes = next.as_slice();
        let bytes = &bytes[..bytes.len().min(most)];
        if bytes.is_empty() {
            return Poll::Ready(Err(Errno::FAULT.into()));
        }
        let mut flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        flags.set(SendFlags::MORE, matches!(next, Transmit::Bytes { more: true, .. }));
        loop {
            ready!(self.0.poll_write_ready(cx))?;
            let send = || Ok(rustix::net::send(&self.0, bytes, flags)?);
            match self.0.try_io(Interest::WRITABLE, send) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                sent => return Poll::Ready(sent),
            }
        }
    }

    fn watch(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        // Also woken by bytes that nobody wants yet; then it is not woken again, and a reset shows
        // when the answer is written.
        let _ = self.0.poll_read_ready(cx);
        match self.0.try_io(Interest::ERROR, || Ok(())) {
            Ok(()) => Err(Errno::CONNRESET.into()),
            Err(_) => Ok(()),
        }
    }

    fn abort(&self) {
        // Without it the end is a slower one.
        let _ = SockRef::from(&self.0).set_linger(Some(std::time::Duration::ZERO));
    }

    fn address(&self) -> Option<SocketAddr> {
        self.0.peer_addr().ok()
    }
}

impl<I: Legible, T: AsyncRead + AsyncWrite + Unpin> Socket<I> for Any<T> {
    type Stream = T;

    fn stream(&mut self) -> Pin<&mut T> {
        Pin::new(&mut self.0)
    }

    fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        next: Transmit<'_, I>,
        most: usize,
    ) -> Poll<io::Result<usize>> {
        let mut buffer = [0; PIECE_BYTES];
        let bytes = match next {
            Transmit::Bytes { bytes, .. } => bytes,
            Transmit::Image { image, offset, len } => {
                let piece = usize::try_from(len).map_or(PIECE_BYTES, |len| len.min(PIECE_BYTES));
                image.read(offset, &mut buffer[..piece])?
            }
        };
        if bytes.is_empty() {
            return Poll::Ready(Err(Errno::FAULT.into()));
        }
        match ready!(Pin::new(&mut self.0).poll_write(cx, &bytes[..bytes.len().min(most)]))? {
            0 => Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
            n => Poll::Ready(Ok(n)),
        }
    }
}

/// Of an image, what is read and written at once.
const PIECE_BYTES: usize = 16 * 1024;
