//! One direction of a connection as a byte pipe without sockets: segments travel for a while and
//! arrive in order; a bounded window holds the writer back; an end or a reset may come at any
//! time.

use std::collections::VecDeque;
use std::mem;
use std::time::Duration;

use crate::Random;

/// How a pipe treats what is written to it.
#[derive(Clone, Copy, Debug)]
pub struct Line {
    /// Most bytes that travel in one segment. A shorter write stays whole: what was written at
    /// once and fits is readable at once, as on a real network.
    pub segment_bytes_max: usize,
    /// Cut segments at random below that.
    pub cut: bool,
    /// Most bytes that are under way or unread.
    pub window_bytes: usize,
    /// Shortest and longest time a segment travels, in milliseconds.
    pub delay_ms: (u64, u64),
    /// So many of 100 segments are lost. As TCP sends them again, that shows as a delay, twice as
    /// long each time, and all that was sent behind one waits for it.
    pub loss_percent: u64,
}

impl Line {
    /// A default ESP8266 (docs/wire.md 2.2): segments of 536 bytes, a window of four of them.
    pub const ESP8266: Self = Self {
        segment_bytes_max: 536,
        cut: false,
        window_bytes: 2144,
        delay_ms: (1, 40),
        loss_percent: 0,
    };
    /// A computer on a good network.
    pub const WIDE: Self = Self {
        segment_bytes_max: 1460,
        cut: false,
        window_bytes: 65_535,
        delay_ms: (0, 3),
        loss_percent: 0,
    };
}

/// What all connections of a place leave by: so many bytes per second, one segment after the other.
/// As each connection has few under way, all have the same share.
#[derive(Clone, Debug)]
pub struct SharedLine {
    bytes_per_s: u64,
    /// When all that was sent has left.
    free_at: Duration,
    bytes: u64,
    longest_idle: Duration,
}

impl SharedLine {
    /// A line that carries so much, from the time `at` on.
    #[must_use]
    pub fn new(at: Duration, bytes_per_s: u64) -> Self {
        Self { bytes_per_s, free_at: at, bytes: 0, longest_idle: Duration::ZERO }
    }

    /// When a segment that is sent at the time `at` has left.
    pub fn pass(&mut self, at: Duration, bytes: usize) -> Duration {
        self.longest_idle = self.longest_idle.max(at.saturating_sub(self.free_at));
        self.free_at = self.free_at.max(at) + self.takes(bytes);
        self.bytes += bytes as u64;
        self.free_at
    }

    /// Bytes that were sent do not have to leave after all: those behind them leave as planned, and
    /// those that come the earlier.
    fn forget(&mut self, at: Duration, bytes: usize) {
        self.bytes -= bytes as u64;
        self.free_at = self.free_at.saturating_sub(self.takes(bytes)).max(at);
    }

    fn takes(&self, bytes: usize) -> Duration {
        let nanoseconds = (bytes as u64).saturating_mul(1_000_000_000) / self.bytes_per_s.max(1);
        Duration::from_nanos(nanoseconds)
    }

    /// The longest time between two segments in which it carried nothing.
    #[must_use]
    pub fn longest_idle(&self) -> Duration {
        self.longest_idle
    }

    /// What it carried.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

/// What a read brings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Read {
    /// Nothing now.
    Empty,
    /// Bytes, at least one.
    Bytes(Vec<u8>),
    /// The writer ended, and all of it was read.
    End,
    /// The connection broke; what was unread is lost.
    Reset,
}

/// One direction of a connection.
#[derive(Debug)]
pub struct Pipe {
    line: Line,
    random: Random,
    travelling: VecDeque<(Duration, Piece)>,
    arrived: VecDeque<u8>,
    ended: bool,
    /// When a reset arrives. It waits for nothing: a segment that is slower is lost.
    reset_at: Option<Duration>,
    is_reset: bool,
    /// The writer has ended or broken it: later writes vanish.
    finished: bool,
    lost: u64,
}

#[derive(Debug)]
enum Piece {
    Bytes(Vec<u8>),
    End,
}

impl Pipe {
    /// An open, empty pipe.
    #[must_use]
    pub fn new(line: Line, random: Random) -> Self {
        Self {
            line,
            random,
            travelling: VecDeque::new(),
            arrived: VecDeque::new(),
            ended: false,
            reset_at: None,
            is_reset: false,
            finished: false,
            lost: 0,
        }
    }

    /// How many bytes a write would take now.
    #[must_use]
    pub fn room(&self) -> usize {
        let travelling = self.travelling.iter().map(|(_, piece)| piece.len()).sum::<usize>();
        self.line.window_bytes.saturating_sub(travelling + self.arrived.len())
    }

    /// Writes as much as there is room for; how much that was.
    pub fn write(&mut self, at: Duration, bytes: &[u8]) -> usize {
        self.write_by(at, bytes, None)
    }

    /// The same by a line that others use as well.
    pub fn write_by(
        &mut self,
        at: Duration,
        bytes: &[u8],
        mut line: Option<&mut SharedLine>,
    ) -> usize {
        let taken = bytes.len().min(self.room());
        if self.finished {
            return taken;
        }
        let mut left = &bytes[..taken];
        while !left.is_empty() {
            let most = left.len().min(self.line.segment_bytes_max);
            let length =
                if self.line.cut { self.random.between(1, most as u64) as usize } else { most };
            let leaves_at = line.as_mut().map_or(at, |line| line.pass(at, length));
            self.travel(leaves_at, Piece::Bytes(left[..length].to_vec()));
            left = &left[length..];
        }
        taken
    }

    /// The reader is gone, and a reset tells the writer: what has not left by the line never does.
    pub fn give_up(&mut self, at: Duration, line: &mut SharedLine) {
        let arrives_by = at + Duration::from_millis(self.line.delay_ms.1);
        let mut bytes = 0;
        self.travelling.retain(|(due, piece)| {
            let stays = *due <= arrives_by;
            bytes += if stays { 0 } else { piece.len() };
            stays
        });
        line.forget(at, bytes);
    }

    /// Ends the pipe after what was written.
    pub fn end(&mut self, at: Duration) {
        if !self.finished {
            self.travel(at, Piece::End);
            self.finished = true;
        }
    }

    /// Breaks the pipe; what is unread when that arrives is lost.
    pub fn reset(&mut self, at: Duration) {
        if self.reset_at.is_none() {
            self.reset_at = Some(at + self.delay());
            self.finished = true;
        }
    }

    /// How many segments were lost on their way, and sent again.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.lost
    }

    /// When the next segment arrives.
    #[must_use]
    pub fn next(&self) -> Option<Duration> {
        let front = self.travelling.front().map(|(due, _)| *due);
        let reset_at = self.reset_at.filter(|_| !self.is_reset);
        [front, reset_at].into_iter().flatten().min()
    }

    /// Lets arrive what is due at the time `at`.
    pub fn arrive(&mut self, at: Duration) {
        while let Some((_, piece)) = self.travelling.pop_front_if(|(due, _)| *due <= at) {
            match piece {
                Piece::Bytes(bytes) => self.arrived.extend(bytes),
                Piece::End => self.ended = true,
            }
        }
        if self.reset_at.is_some_and(|reset_at| reset_at <= at) {
            self.is_reset = true;
            self.travelling.clear();
            self.arrived.clear();
        }
    }

    /// How many bytes a read would bring at most.
    #[must_use]
    pub fn readable(&self) -> usize {
        self.arrived.len()
    }

    /// Would a read bring anything, the end included?
    #[must_use]
    pub fn is_ready(&self) -> bool {
        !self.arrived.is_empty() || self.ended || self.is_reset
    }

    /// Reads at most `bytes_max` bytes.
    pub fn read(&mut self, bytes_max: usize) -> Read {
        if self.is_reset {
            return Read::Reset;
        }
        let length = bytes_max.min(self.arrived.len());
        if length > 0 {
            let rest = self.arrived.split_off(length);
            return Read::Bytes(mem::replace(&mut self.arrived, rest).into());
        }
        if self.ended && self.arrived.is_empty() { Read::End } else { Read::Empty }
    }

    fn travel(&mut self, at: Duration, piece: Piece) {
        let due = at + self.delay();
        let in_order = self.travelling.back().map_or(due, |(before, _)| due.max(*before));
        self.travelling.push_back((in_order, piece));
    }

    fn delay(&mut self) -> Duration {
        let (low, high) = self.line.delay_ms;
        let mut delay = Duration::from_millis(self.random.between(low, high));
        let mut again = AGAIN_AFTER;
        while again <= AGAIN_AFTER_MAX && self.random.chance(self.line.loss_percent) {
            self.lost += 1;
            delay += again;
            again *= 2;
        }
        delay
    }
}

impl Piece {
    fn len(&self) -> usize {
        match self {
            Self::Bytes(bytes) => bytes.len(),
            Self::End => 0,
        }
    }
}

/// When a segment that was not acknowledged is sent again (RFC 6298 with the least that systems
/// wait), and the longest such wait here.
const AGAIN_AFTER: Duration = Duration::from_millis(200);
const AGAIN_AFTER_MAX: Duration = Duration::from_millis(6400);

#[cfg(test)]
mod tests {
    use super::*;

    const LATER: Duration = Duration::from_secs(1);

    fn pipe(line: Line) -> Pipe {
        Pipe::new(line, Random::new(3))
    }

    #[test]
    fn bytes_arrive_in_order_however_they_are_cut() {
        let mut pipe = pipe(Line { cut: true, ..Line::WIDE });
        let sent: Vec<u8> = (0..=255).collect();
        assert_eq!(pipe.write(Duration::ZERO, &sent), 256);
        pipe.arrive(LATER);
        assert_eq!(pipe.read(usize::MAX), Read::Bytes(sent));
        assert_eq!(pipe.read(usize::MAX), Read::Empty);
    }

    #[test]
    fn the_window_holds_the_writer_back_until_the_reader_reads() {
        let mut pipe = pipe(Line { window_bytes: 10, ..Line::WIDE });
        assert_eq!(pipe.write(Duration::ZERO, &[1; 15]), 10);
        pipe.arrive(LATER);
        assert_eq!(pipe.room(), 0);
        assert_eq!(pipe.read(4), Read::Bytes(vec![1; 4]));
        assert_eq!(pipe.room(), 4);
    }

    #[test]
    fn a_line_is_shared_and_nothing_of_it_is_lost_to_those_that_are_gone() {
        let mut line = SharedLine::new(Duration::ZERO, 1000);
        let quick = Line { delay_ms: (0, 0), segment_bytes_max: 100, ..Line::WIDE };
        let (mut one, mut other) = (pipe(quick), pipe(quick));
        one.write_by(Duration::ZERO, &[1; 500], Some(&mut line));
        other.write_by(Duration::ZERO, &[2; 500], Some(&mut line));
        one.arrive(LATER / 2);
        other.arrive(LATER / 2);
        assert_eq!((one.readable(), other.readable()), (500, 0));
        other.give_up(LATER / 2, &mut line);
        one.write_by(LATER / 2, &[1; 500], Some(&mut line));
        one.arrive(LATER);
        assert_eq!((one.readable(), line.bytes()), (1000, 1000));
        assert_eq!(line.longest_idle(), Duration::ZERO);
    }

    #[test]
    fn what_is_lost_comes_later_and_holds_up_what_is_behind_it() {
        let mut lossy = pipe(Line { loss_percent: 50, segment_bytes_max: 1, ..Line::WIDE });
        let sent: Vec<u8> = (0..100).collect();
        lossy.write(Duration::ZERO, &sent);
        assert!(lossy.lost() > 20, "{} lost", lossy.lost());
        lossy.arrive(Duration::from_millis(150));
        let early = lossy.readable();
        assert!(early < 50, "{early} bytes came without a second try");
        lossy.arrive(AGAIN_AFTER_MAX * 2);
        assert_eq!(lossy.read(usize::MAX), Read::Bytes(sent), "in order, and all of it");
    }

    #[test]
    fn an_end_comes_after_the_bytes_and_a_reset_before_the_unread() {
        let mut ended = pipe(Line::ESP8266);
        ended.write(Duration::ZERO, b"bye");
        ended.end(Duration::ZERO);
        ended.arrive(LATER);
        assert_eq!(ended.read(9), Read::Bytes(b"bye".to_vec()));
        assert_eq!(ended.read(9), Read::End);

        let mut broken = pipe(Line::ESP8266);
        broken.write(Duration::ZERO, b"bye");
        broken.reset(Duration::ZERO);
        broken.arrive(LATER);
        assert_eq!(broken.read(9), Read::Reset);
    }
}
