//! One peer: a stream and the connection of the core behind it, as a future.

use std::future::poll_fn;
use std::io::{self, ErrorKind, IoSlice};
use std::mem::MaybeUninit;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, UNIX_EPOCH};

use otter_protocol::{CloseReason, Connection, Legible, Now, QueryId, Security, Transmit};
use otter_store::Ticket;
use rustix::io::Errno;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::{AcquireError, OwnedSemaphorePermit};
use tokio::time::{Instant, Sleep, sleep_until};

use crate::desk::Order;
use crate::service::Service;

/// One peer. Its future is what an idle connection costs, so nothing is in here that is not needed
/// then.
pub(crate) struct Peer<T: AsyncRead + AsyncWrite + Unpin, I: Legible + AsRef<[u8]> + Clone> {
    connection: Connection<I>,
    stream: T,
    way: Way<T>,
    service: Service<I>,
    slot: u32,
    /// The ticket of the query that is open: a small number, as the batcher's all are.
    asked: Option<(u32, QueryId)>,
    /// Its turn to go on with its handshake, or the wait for it.
    turn: Option<Box<Turn>>,
    /// The sending side is shut down.
    shut: bool,
    /// The stream failed.
    broken: bool,
    /// True in a drop: it panicked.
    polling: bool,
}

/// How bytes get out. A socket: the kernel takes those of an image from their mapping. `None`: they
/// are read, and written like all others.
pub(crate) type Way<T> = fn(&T) -> Option<&TcpStream>;

impl<T: AsyncRead + AsyncWrite + Unpin, I: Legible + AsRef<[u8]> + Clone> Peer<T, I> {
    /// `slot` is its seat at the service's desk, which it leaves when it is dropped.
    pub(crate) fn new(
        service: &Service<I>,
        slot: usize,
        stream: T,
        way: Way<T>,
        security: &Security,
    ) -> Self {
        let config = Arc::clone(&service.0.options.config);
        let connection = Connection::accept(config, security, clock());
        let (service, asked, turn) = (service.clone(), None, None);
        let (shut, broken, polling) = (false, false, false);
        let slot = slot as u32;
        Self { connection, stream, way, service, slot, asked, turn, shut, broken, polling }
    }

    /// Serves it to its end.
    #[expect(clippy::manual_async_fn, reason = "an async function would hold its argument twice")]
    pub(crate) fn run(mut self) -> impl Future<Output = io::Result<CloseReason>> {
        async move {
            let mut sleep = pin!(sleep_until(self.deadline()));
            poll_fn(|cx| self.poll(cx, sleep.as_mut())).await
        }
    }

    /// Takes in what happened, does all it can, and sees to it that it is woken for the rest.
    fn poll(&mut self, cx: &mut Context<'_>, sleep: Pin<&mut Sleep>) -> Ended {
        self.polling = true;
        // Everybody else that was ready has been polled since.
        self.turn = self.turn.take().filter(|turn| matches!(**turn, Turn::Awaited(_)));
        let now = clock();
        let mut budget = self.service.0.options.turn_bytes_max.max(READ_BYTES);
        self.hear(cx, now);
        let polled = loop {
            let moved = self.turn(cx, now, &mut budget);
            let moved = moved.inspect_err(|_| self.connection.handle_reset(now));
            self.report();
            match (moved, self.connection.closed()) {
                (Err(error), _) => {
                    if error.raw_os_error() == Some(Errno::FAULT.raw_os_error()) {
                        tracing::error!("{CUT_SHORT}");
                    }
                    self.broken = true;
                    self.abort();
                    break Poll::Ready(Err(error));
                }
                (Ok(()), Some(reason)) => {
                    if reason == CloseReason::Torn {
                        tracing::error!("{CUT_SHORT}");
                        self.abort();
                    }
                    break Poll::Ready(Ok(reason));
                }
                (Ok(()), None) => {}
            }
            if let Some((id, query)) = self.connection.poll_query() {
                self.asked = Some((self.service.0.batcher.ask(query, cx.waker()).0 as u32, id));
            }
            match self.service.0.desk.rest(
                self.slot as usize,
                cx.waker(),
                self.connection.is_idle(),
            ) {
                Order::Stay => break self.arm(cx, sleep),
                Order::Leave => self.connection.handle_shutdown(now),
                Order::Cut => break Poll::Ready(Ok(CloseReason::Shutdown)),
            }
        };
        self.polling = false;
        polled
    }

    /// Has the store answered? Has the deadline come?
    fn hear(&mut self, cx: &mut Context<'_>, now: Now) {
        if let Some((ticket, id)) = self.asked
            && let Some(answer) = self.service.0.batcher.answer(Ticket(ticket.into()), cx.waker())
        {
            self.asked = None;
            self.connection.handle_answer(now, id, answer);
        }
        self.connection.handle_timeout(now);
        if self.connection.closed() == Some(CloseReason::Slow) {
            self.abort();
        }
    }

    /// Moves bytes until nothing moves any more, or others must have their turn.
    ///
    /// # Errors
    /// The stream failed or the image is gone: there is no use in going on.
    fn turn(&mut self, cx: &mut Context<'_>, now: Now, budget: &mut usize) -> io::Result<()> {
        while self.write(cx, now, budget)? || self.read(cx, now, budget)? {
            if *budget == 0 {
                cx.waker().wake_by_ref();
                return Ok(());
            }
        }
        // What a stream keeps back must leave before it waits; most have nothing to do here.
        let _ = Pin::new(&mut self.stream).poll_flush(cx)?;
        if !self.shut && self.connection.wants_shutdown() {
            // Of a peer that is gone already, the next read tells.
            self.shut = Pin::new(&mut self.stream).poll_shutdown(cx).is_ready();
        }
        if let (Some(tcp), false) = (self.tcp(), self.connection.wants_read()) {
            // A reset shows although nobody reads. Bytes that nobody wants yet wake the task once;
            // behind them it shows when the answer is written.
            let _ = tcp.poll_read_ready(cx);
            if tcp.try_io(Interest::ERROR, || Ok(())).is_ok() {
                return Err(Errno::CONNRESET.into());
            }
        }
        Ok(())
    }

    /// Writes the next bytes. False: there are none, or the stream takes none.
    fn write(&mut self, cx: &mut Context<'_>, now: Now, budget: &mut usize) -> io::Result<bool> {
        let Some(next) = self.connection.transmit() else { return Ok(false) };
        let (mut buffer, mut slices);
        let sent = match (self.tcp(), next) {
            (Some(tcp), _) => {
                slices = [IoSlice::new(&[]); 2];
                let filled = self.connection.transmit_vectored(&mut slices);
                send(tcp, cx, &slices[..filled])
            }
            (None, Transmit::Image { image, offset, len }) => {
                let most = usize::try_from(len).map_or(READ_BYTES, |len| len.min(READ_BYTES));
                buffer = [0; READ_BYTES];
                let bytes = image.read(offset, &mut buffer[..most])?;
                Pin::new(&mut self.stream).poll_write(cx, bytes)
            }
            (None, Transmit::Bytes { bytes, .. }) => {
                Pin::new(&mut self.stream).poll_write(cx, bytes)
            }
        };
        let Poll::Ready(n) = sent? else { return Ok(false) };
        if n == 0 {
            // The image shrank, most likely: the same as if it were a mapping of a truncated file.
            return Err(Errno::FAULT.into());
        }
        *budget = budget.saturating_sub(n);
        self.service.0.desk.count(|tally| tally.bytes_sent.add(n as u64));
        self.connection.handle_sent(now, n);
        // The next pipelined request may end in this turn, too.
        self.report();
        Ok(true)
    }

    /// Reads what is there. False: nothing is wanted, or nothing there. The buffer is on the stack
    /// of this function, so nobody who waits holds one.
    fn read(&mut self, cx: &mut Context<'_>, now: Now, budget: &mut usize) -> io::Result<bool> {
        let mut memory = [MaybeUninit::uninit(); READ_BYTES];
        let mut buffer = ReadBuf::uninit(&mut memory);
        if !self.connection.wants_read()
            || self.connection.is_handshaking() && !self.has_turn(cx)?
            || Pin::new(&mut self.stream).poll_read(cx, &mut buffer)?.is_pending()
        {
            return Ok(false);
        }
        let bytes = buffer.filled();
        *budget = budget.saturating_sub(bytes.len());
        self.service.0.desk.count(|tally| tally.bytes_received.add(bytes.len() as u64));
        match bytes {
            [] => self.connection.handle_eof(now),
            bytes => self.connection.handle_input(now, bytes),
        }
        Ok(true)
    }

    /// Handshakes cost much, so one of them goes on, and the others once everybody else that was
    /// ready has been polled.
    fn has_turn(&mut self, cx: &mut Context<'_>) -> io::Result<bool> {
        if let Some(tcp) = self.tcp()
            && tcp.poll_read_ready(cx)?.is_pending()
        {
            return Ok(false);
        }
        let turn = self.turn.get_or_insert_with(|| {
            let turns = Arc::clone(&self.service.0.handshakes);
            Box::new(Turn::Awaited(Box::pin(turns.acquire_owned())))
        });
        if let Turn::Awaited(awaited) = &mut **turn {
            let Poll::Ready(Ok(permit)) = awaited.as_mut().poll(cx) else { return Ok(false) };
            **turn = Turn::Taken(permit);
            cx.waker().wake_by_ref();
        }
        Ok(true)
    }

    /// Sees to it that the task is woken by the deadline. One that moved later is left where it
    /// was armed: being woken once in vain is less work than moving it with each request.
    fn arm(&mut self, cx: &mut Context<'_>, mut sleep: Pin<&mut Sleep>) -> Ended {
        let deadline = self.deadline();
        if deadline < sleep.deadline() || sleep.is_elapsed() {
            sleep.as_mut().reset(deadline);
        }
        if sleep.poll(cx).is_ready() {
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }

    /// Hands on what became of the request that ended last, and of the handshake.
    fn report(&mut self) {
        if let Some(handshake) = self.connection.poll_handshake() {
            self.service.0.desk.count(|tally| tally.handshake(handshake));
        }
        while let Some(report) = self.connection.poll_report() {
            self.service.0.desk.count(|tally| tally.request(&report));
            if let Some(on_report) = &self.service.0.options.on_report {
                on_report(&report, self.tcp().and_then(|tcp| tcp.peer_addr().ok()));
            }
        }
    }

    /// Makes the end of the socket a reset: what still waits in the kernel for a peer that does not
    /// take it is freed at once, and cannot pass for the whole answer.
    fn abort(&self) {
        // Without it the end is a slower one.
        let _ = self.tcp().map(|tcp| SockRef::from(tcp).set_linger(Some(Duration::ZERO)));
    }

    fn tcp(&self) -> Option<&TcpStream> {
        (self.way)(&self.stream)
    }

    fn deadline(&self) -> Instant {
        self.connection.poll_timeout().map_or_else(Instant::now, Instant::from_std)
    }
}

/// See [`Peer::has_turn`].
enum Turn {
    Awaited(Pin<Box<dyn Future<Output = Result<OwnedSemaphorePermit, AcquireError>> + Send>>),
    /// Until the next poll.
    Taken(
        #[expect(dead_code, reason = "it is held, and given back when it is dropped")]
        OwnedSemaphorePermit,
    ),
}

type Ended = Poll<io::Result<CloseReason>>;

impl<T: AsyncRead + AsyncWrite + Unpin, I: Legible + AsRef<[u8]> + Clone> Drop for Peer<T, I> {
    fn drop(&mut self) {
        if let Some((ticket, _)) = self.asked {
            self.service.0.batcher.forget(Ticket(ticket.into()));
        }
        let mut closed = self.connection.closed();
        if self.polling {
            tracing::error!("a connection ended with a panic: please report this bug");
            self.abort();
        } else if closed.is_none() {
            // Its time is over.
            closed = Some(CloseReason::Shutdown);
            self.abort();
            self.connection.handle_reset(clock());
            self.report();
        }
        self.service.0.desk.leave(self.slot as usize, |tally| match closed {
            _ if self.polling => tally.panicked.add(1),
            Some(reason) if !self.broken => tally.closed(reason),
            Some(_) | None => tally.broken.add(1),
        });
    }
}

/// An image leaves straight from its mapping, with the head before it in one call. If a file is cut
/// short under its mapping, the call stops where it ends and the next one says `EFAULT`: nothing
/// faults in user space, which never touches the bytes.
///
/// Not `poll_write`, which waits for room after a short count: if the rest is gone, no edge will
/// tell, only another try does.
fn send(tcp: &TcpStream, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
    loop {
        ready!(tcp.poll_write_ready(cx))?;
        match tcp.try_write_vectored(slices) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            sent => return Poll::Ready(sent),
        }
    }
}

/// The time that tokio goes by, which its tests can stop.
fn clock() -> Now {
    let unix = UNIX_EPOCH.elapsed().map_or(0, |since| since.as_secs());
    Now { instant: Instant::now().into_std(), unix }
}

const READ_BYTES: usize = 16 * 1024;
const CUT_SHORT: &str = "a file was cut short while its image was sent";
