//! The states of a connection, each with the data that lives in it.

use crate::api::Part;
use crate::exchange::Exchange;
use crate::id::Token;
use crate::now::Now;
use crate::outflow::Share;
use crate::report::CloseReason;

/// What a connection is doing. It moves from one to the other in `connection.rs` only.
pub(crate) enum State<I> {
    /// Idle without an exchange; else part of a request is there. Deadline: idle, head or body.
    Receiving(Option<Box<Exchange>>),
    /// A query is open. Deadline: `answer_timeout`.
    Asking(Box<Exchange>),
    /// An answer is on its way. Deadline: the sending window, or the whole transfer's.
    Responding(Box<Exchange>, Option<Box<Stream<I>>>),
    /// All but the tail has left. Deadline: `answer_timeout`.
    Claiming(Box<Exchange>, Box<Stream<I>>),
    /// All has left. Deadline: `linger_timeout`.
    Lingering {
        bytes_left: u32,
        reason: CloseReason,
    },
    Closed(CloseReason),
}

/// An image on its way.
pub(crate) struct Stream<I> {
    pub(crate) image: I,
    /// The next byte to send.
    pub(crate) at: u64,
    /// The byte after the last one.
    pub(crate) end: u64,
    /// The token to claim, and the first byte that its claim lets out.
    pub(crate) hold: Option<(Token, u64)>,
    /// What it has of the line; `None` for what nobody sends.
    share: Option<Share>,
}

impl<I> State<I> {
    /// Has nothing been asked, nor begun to be?
    pub(crate) fn is_idle(&self) -> bool {
        match self {
            Self::Receiving(exchange) => {
                exchange.as_ref().is_none_or(|exchange| exchange.is_half_line_end())
            }
            Self::Asking(_)
            | Self::Responding(..)
            | Self::Claiming(..)
            | Self::Lingering { .. }
            | Self::Closed(_) => false,
        }
    }

    /// Why it is over, if it is.
    pub(crate) fn closed(&self) -> Option<CloseReason> {
        match self {
            Self::Closed(reason) => Some(*reason),
            Self::Receiving(_)
            | Self::Asking(_)
            | Self::Responding(..)
            | Self::Claiming(..)
            | Self::Lingering { .. } => None,
        }
    }

    /// For people who debug a driver.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Receiving(None) => "Idle",
            Self::Receiving(Some(_)) => "Receiving",
            Self::Asking(_) => "Asking",
            Self::Responding(..) => "Responding",
            Self::Claiming(..) => "Claiming",
            Self::Lingering { .. } => "Lingering",
            Self::Closed(_) => "Closed",
        }
    }
}

impl<I> Stream<I> {
    pub(crate) fn of(part: Part<I>) -> Self {
        let tail = part.release.offer.tail_start();
        let hold = part.token.filter(|_| part.end > tail);
        Self {
            image: part.release.image,
            at: part.start,
            end: part.end,
            hold: hold.map(|token| (token, tail.max(part.start))),
            share: part.share,
        }
    }

    /// Tells the line how far it is.
    pub(crate) fn note_sent(&mut self, now: Now, is_paced: bool) {
        if let Some(share) = &mut self.share {
            share.left(self.end - self.at, now, is_paced);
        }
    }

    /// The byte after the last one that may leave now.
    pub(crate) fn sendable_end(&self) -> u64 {
        self.hold.map_or(self.end, |(_, tail)| tail)
    }
}
