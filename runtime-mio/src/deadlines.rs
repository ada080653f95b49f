//! When to look at which peers: the earliest deadline of each 64 that are neighbours in the table.
//!
//! An exact order of all deadlines would cost each connection 12 bytes, and each request that
//! brings one forward (the store must answer within 2 s, a peer may be idle for 75 s) a step in a
//! list or a heap. Here both cost next to nothing: 64 peers share 8 bytes, arming is a minimum,
//! and who is gone, or whose deadline moved later, is found out by looking: at 64 peers, which is
//! a few microseconds, no more than once per tick, and in a busy block about once in 2 s.

use std::ops::Range;
use std::time::{Duration, Instant};

/// The deadlines of a worker's peers.
pub(crate) struct Deadlines {
    /// Tick 0.
    pub(crate) start: Instant,
    /// Of each block of neighbours: in no tick before this one is there anything to do.
    earliest: Vec<u64>,
    /// In no tick before this one is there anything to do at all.
    next: u64,
}

impl Deadlines {
    /// None; times before `start` count as `start`.
    pub(crate) fn new(start: Instant) -> Self {
        Self { start, earliest: Vec::new(), next: NEVER }
    }

    /// Makes sure that the slot is looked at within one tick after `at`, if not before.
    pub(crate) fn arm(&mut self, slot: u32, at: Instant) {
        let (block, tick) = ((slot / BLOCK) as usize, self.tick(at) + 1);
        self.earliest.resize(self.earliest.len().max(block + 1), NEVER);
        self.earliest[block] = self.earliest[block].min(tick);
        self.next = self.next.min(tick);
    }

    /// The first slots, from `from` on, that must be looked at and armed again. Ask until there
    /// are none.
    pub(crate) fn due(&mut self, now: Instant, from: u32) -> Option<Range<u32>> {
        let tick = self.tick(now);
        if tick < self.next {
            return None;
        }
        let mut blocks = self.earliest.iter_mut().enumerate().skip((from / BLOCK) as usize);
        if let Some((block, earliest)) = blocks.find(|(_, earliest)| **earliest <= tick) {
            *earliest = NEVER;
            return Some(block as u32 * BLOCK..(block as u32 + 1) * BLOCK);
        }
        self.next = self.earliest.iter().copied().min().unwrap_or(NEVER);
        None
    }

    /// When to ask again; `None`: not before the next is armed.
    pub(crate) fn next(&self) -> Option<Instant> {
        (self.next != NEVER).then(|| self.start + Duration::from_nanos(self.next * TICK_NS))
    }

    fn tick(&self, at: Instant) -> u64 {
        at.saturating_duration_since(self.start).as_nanos() as u64 / TICK_NS
    }
}

/// Slots that share an entry.
const BLOCK: u32 = 64;
/// 31.25 ms: a deadline of 10 s is kept to 0.3 %.
const TICK_NS: u64 = 1_000_000_000 / 32;
const NEVER: u64 = u64::MAX;

#[cfg(test)]
mod tests {
    use super::*;

    const TICK: Duration = Duration::from_nanos(TICK_NS);

    fn due(deadlines: &mut Deadlines, now: Instant) -> Vec<u32> {
        let mut found = Vec::new();
        let mut from = 0;
        while let Some(slots) = deadlines.due(now, from) {
            from = slots.end;
            found.extend(slots);
        }
        found
    }

    fn around(slot: u32) -> Vec<u32> {
        let first = slot / BLOCK * BLOCK;
        (first..first + BLOCK).collect()
    }

    #[test]
    fn a_slot_is_due_once_and_within_one_tick() {
        let start = Instant::now();
        let mut deadlines = Deadlines::new(start);
        for (slot, ms) in [(0, 1), (64, 80), (200, 125), (63, 10_000), (5000, 900_000)] {
            let at = start + Duration::from_millis(ms);
            deadlines.arm(slot, at);
            assert!(due(&mut deadlines, at - Duration::from_nanos(1)).is_empty());
            assert_eq!(due(&mut deadlines, at + TICK), around(slot));
            assert!(due(&mut deadlines, at + 2 * TICK).is_empty());
        }
        assert_eq!(deadlines.next(), None);
    }

    #[test]
    fn neighbours_are_due_with_the_first_of_them() {
        let start = Instant::now();
        let mut deadlines = Deadlines::new(start);
        let at = |s| start + Duration::from_secs(s);
        deadlines.arm(7, at(75));
        deadlines.arm(8, at(10));
        deadlines.arm(9, at(75));
        deadlines.arm(64, at(75));
        assert_eq!(due(&mut deadlines, at(10) + TICK), around(7));
        deadlines.arm(7, at(75));
        assert!(due(&mut deadlines, at(74)).is_empty());
        assert_eq!(due(&mut deadlines, at(75) + TICK), (0..128).collect::<Vec<_>>());
    }

    #[test]
    fn the_next_look_leads_to_the_tick_and_not_past_it() {
        let start = Instant::now();
        let mut deadlines = Deadlines::new(start);
        assert_eq!(deadlines.next(), None);
        let at = start + Duration::from_millis(2_500);
        deadlines.arm(1, at);
        deadlines.arm(100, at + Duration::from_secs(1));
        let next = deadlines.next().expect("an entry");
        assert!(next > at && next <= at + TICK, "{:?}", next - at);
        assert_eq!(due(&mut deadlines, next), around(1));
        let next = deadlines.next().expect("the other entry");
        assert_eq!(due(&mut deadlines, next), around(100));
    }

    #[test]
    fn what_is_armed_while_others_are_looked_at_is_not_lost() {
        let start = Instant::now();
        let mut deadlines = Deadlines::new(start);
        let at = |s| start + Duration::from_secs(s);
        deadlines.arm(0, at(1));
        deadlines.arm(64, at(1));
        assert_eq!(deadlines.due(at(2), 0), Some(0..64));
        deadlines.arm(0, at(5));
        // Overdue already, in a block before the one that is looked at.
        assert_eq!(deadlines.due(at(2), 64), Some(64..128));
        deadlines.arm(1, start);
        assert_eq!(deadlines.due(at(2), 128), None);
        assert!(deadlines.next().expect("an entry") <= at(2), "in the next turn, then");
        assert_eq!(due(&mut deadlines, at(2)), around(0));
    }

    #[test]
    fn a_long_pause_of_the_loop_loses_nothing() {
        let start = Instant::now();
        let mut deadlines = Deadlines::new(start);
        for slot in 0..1024 {
            deadlines.arm(slot, start + Duration::from_millis(u64::from(slot) * 300));
        }
        let years = start + Duration::from_secs(50 * 365 * 24 * 3600);
        assert_eq!(due(&mut deadlines, years), (0..1024).collect::<Vec<_>>());
        deadlines.arm(5, years + Duration::from_secs(75));
        assert!(due(&mut deadlines, years + Duration::from_secs(74)).is_empty());
        assert_eq!(due(&mut deadlines, years + Duration::from_secs(76)), around(5));
    }
}
