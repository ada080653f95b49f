//! One peer: a stream and the connection of the core behind it, as a future.

use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::UNIX_EPOCH;

use otter_protocol::{CloseReason, Connection, Now, QueryId};
use otter_store::Ticket;
use rustix::io::Errno;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

use crate::desk::Order;
use crate::service::Service;
use crate::socket::Socket;

/// One peer. Its future is all that an idle connection costs, so nothing is in here that is not
/// needed then.
pub(crate) struct Peer<K: Socket<I>, I: AsRef<[u8]> + Clone> {
    connection: Connection<I>,
    socket: K,
    service: Service<I>,
    slot: usize,
    asked: Option<(Ticket, QueryId)>,
    /// Something was written since the last flush.
    unflushed: bool,
    /// The sending side is shut down.
    shut: bool,
    /// True in a drop: it panicked.
    polling: bool,
    end: End,
}

/// How it ended.
#[derive(Clone, Copy)]
enum End {
    Not,
    Closed(CloseReason),
    Broken,
}

impl<K: Socket<I>, I: AsRef<[u8]> + Clone> Peer<K, I> {
    /// `slot` is its seat at the service's desk, which it leaves when it is dropped.
    pub(crate) fn new(service: Service<I>, slot: usize, socket: K) -> Self {
        Self {
            connection: Connection::plain(Arc::clone(&service.options().config), clock()),
            socket,
            service,
            slot,
            asked: None,
            unflushed: false,
            shut: false,
            polling: false,
            end: End::Not,
        }
    }

    /// Serves it to its end.
    // Not an `async fn`, which would keep its argument twice.
    pub(crate) fn run(mut self) -> impl Future<Output = io::Result<CloseReason>> {
        async move {
            let mut sleep = pin!(sleep_until(self.deadline()));
            poll_fn(|cx| self.poll(cx, sleep.as_mut())).await
        }
    }

    /// Takes in what happened, does all it can, and sees to it that it is woken for the rest.
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        mut sleep: Pin<&mut Sleep>,
    ) -> Poll<io::Result<CloseReason>> {
        self.polling = true;
        let now = clock();
        let mut budget = self.service.options().turn_bytes_max.max(READ_BYTES);
        self.take_answer(cx, now);
        self.expire(now);
        let polled = loop {
            let moved = self.turn(cx, now, &mut budget);
            let moved = moved.inspect_err(|_| self.connection.handle_reset(now));
            self.report();
            match (moved, self.connection.closed()) {
                (Err(error), _) => {
                    if error.raw_os_error() == Some(Errno::FAULT.raw_os_error()) {
                        tracing::error!("a file was cut short while its image was sent");
                    }
                    self.socket.abort();
                    self.end = End::Broken;
                    break Poll::Ready(Err(error));
                }
                (Ok(()), Some(reason)) => {
                    self.end = End::Closed(reason);
                    break Poll::Ready(Ok(reason));
                }
                (Ok(()), None) => {}
            }
            self.ask(cx);
            let waits = self.connection.wants_read();
            match self.service.desk().rest(self.slot, cx.waker(), waits) {
                Some(Order::Leave) => self.connection.handle_shutdown(now),
                Some(Order::Cut) => break Poll::Ready(Ok(CloseReason::Shutdown)),
                None => {
                    self.arm(cx, sleep.as_mut());
                    break Poll::Pending;
                }
            }
        };
        self.polling = false;
        polled
    }

    fn take_answer(&mut self, cx: &mut Context<'_>, now: Now) {
        let Some((ticket, id)) = self.asked else { return };
        if let Some(answer) = self.service.batcher().answer(ticket, cx.waker()) {
            self.asked = None;
            self.connection.handle_answer(now, id, answer);
        }
    }

    fn expire(&mut self, now: Now) {
        if now.instant < self.deadline().into_std() {
            return;
        }
        let owed = self.connection.transmit().is_some();
        self.connection.handle_timeout(now);
        if owed && self.connection.closed().is_some() {
            self.socket.abort();
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
        if self.unflushed
            && let Poll::Ready(flushed) = self.socket.stream().poll_flush(cx)
        {
            flushed?;
            self.unflushed = false;
        }
        if !self.shut && self.connection.wants_shutdown() {
            // Of a peer that is gone already, the next read tells.
            self.shut = self.socket.stream().poll_shutdown(cx).is_ready();
        }
        if self.connection.wants_read() { Ok(()) } else { self.socket.watch(cx) }
    }

    /// Writes the next bytes. False: there are none, or the stream takes none.
    fn write(&mut self, cx: &mut Context<'_>, now: Now, budget: &mut usize) -> io::Result<bool> {
        let Some(next) = self.connection.transmit() else { return Ok(false) };
        let Poll::Ready(sent) = self.socket.poll_send(cx, next, *budget) else { return Ok(false) };
        let n = sent?;
        *budget -= n;
        self.unflushed = true;
        self.service.desk().count(|tally| tally.bytes_sent.add(n as u64));
        self.connection.handle_sent(now, n);
        // The next pipelined request may end in this turn, too.
        self.report();
        Ok(true)
    }

    /// Reads what is there. False: nothing is wanted, or nothing there. The buffer is on the stack
    /// of this function, so nobody who waits holds one.
    fn read(&mut self, cx: &mut Context<'_>, now: Now, budget: &mut usize) -> io::Result<bool> {
        if !self.connection.wants_read() {
            return Ok(false);
        }
        let mut memory = [MaybeUninit::uninit(); READ_BYTES];
        let mut buffer = ReadBuf::uninit(&mut memory);
        let Poll::Ready(read) = self.socket.stream().poll_read(cx, &mut buffer) else {
            return Ok(false);
        };
        read?;
        let bytes = buffer.filled();
        *budget = budget.saturating_sub(bytes.len());
        self.service.desk().count(|tally| tally.bytes_received.add(bytes.len() as u64));
        match bytes {
            [] => self.connection.handle_eof(now),
            bytes => self.connection.handle_input(now, bytes),
        }
        Ok(true)
    }

    fn ask(&mut self, cx: &mut Context<'_>) {
        if let Some((id, query)) = self.connection.poll_query() {
            self.forget();
            self.asked = Some((self.service.batcher().ask(query, cx.waker()), id));
        }
    }

    /// Sees to it that the task is woken by the deadline. One that moved later is left where it
    /// was armed: being woken once in vain is less work than moving it with each request.
    fn arm(&mut self, cx: &mut Context<'_>, mut sleep: Pin<&mut Sleep>) {
        let deadline = self.deadline();
        if deadline < sleep.deadline() || sleep.is_elapsed() {
            sleep.as_mut().reset(deadline);
        }
        if sleep.poll(cx).is_ready() {
            cx.waker().wake_by_ref();
        }
    }

    /// Hands on what became of the request that ended last.
    fn report(&mut self) {
        while let Some(report) = self.connection.poll_report() {
            self.service.desk().count(|tally| tally.request(&report));
            if let Some(on_report) = &self.service.options().on_report {
                on_report(&report, self.socket.address());
            }
        }
    }

    fn forget(&mut self) {
        if let Some((ticket, _)) = self.asked.take() {
            self.service.batcher().forget(ticket);
        }
    }

    fn deadline(&self) -> Instant {
        self.connection.poll_timeout().map_or_else(Instant::now, Instant::from_std)
    }
}

impl<K: Socket<I>, I: AsRef<[u8]> + Clone> Drop for Peer<K, I> {
    fn drop(&mut self) {
        self.forget();
        if let End::Not = self.end {
            // Its time is over, or it panicked.
            self.socket.abort();
            if self.polling {
                tracing::error!("a connection ended with a panic: please report this bug");
            } else {
                self.connection.handle_reset(clock());
                self.report();
            }
        }
        let (end, panicked) = (self.end, self.polling);
        self.service.desk().leave(self.slot, |tally| match end {
            End::Closed(reason) => tally.closed(reason),
            End::Broken => tally.broken.add(1),
            End::Not if panicked => tally.panicked.add(1),
            End::Not => tally.closed(CloseReason::Shutdown),
        });
    }
}

/// The time that tokio goes by, which its tests can stop.
fn clock() -> Now {
    let unix = UNIX_EPOCH.elapsed().map_or(0, |since| since.as_secs());
    Now { instant: Instant::now().into_std(), unix }
}

const READ_BYTES: usize = 16 * 1024;
