//! When to wake which peer: a wheel of coarse ticks with exactly one entry per peer.
//!
//! An entry is 12 bytes in an array indexed by slot, linked into the list of its tick's bucket, so
//! arming and disarming are a few stores. Entries are lazy: a peer whose deadline moved later, as
//! it does with every request, is left where it is and looked at when its old tick comes.

use std::time::{Duration, Instant};

/// The deadlines of a worker's peers.
pub(crate) struct Deadlines {
    /// Tick 0.
    start: Instant,
    /// Ticks up to this one have fired.
    done: u32,
    /// No entry is earlier, counted from `done`; `NOTHING` if there are none at all.
    quiet: u32,
    /// First slot of each bucket.
    heads: Box<[u32]>,
    /// By slot.
    links: Vec<Link>,
}

#[derive(Clone, Copy)]
struct Link {
    tick: u32,
    next: u32,
    /// The slot before, or `HEAD` for the first of a bucket, or `NONE`: not linked.
    previous: u32,
}

impl Deadlines {
    /// Without entries; times before `start` count as `start`.
    pub(crate) fn new(start: Instant) -> Self {
        let heads = vec![NONE; BUCKETS].into_boxed_slice();
        Self { start, done: 0, quiet: NOTHING, heads, links: Vec::new() }
    }

    /// Makes sure that the slot fires at `at` or earlier: at most one tick later than asked, and
    /// earlier if it was armed for an earlier time before.
    pub(crate) fn arm(&mut self, slot: u32, at: Instant) {
        // Counted from `done`, so that the tick counter may wrap: after four years.
        let ahead = self.tick(at, true).wrapping_sub(self.done);
        let ahead = if ahead > AHEAD_MAX { 1 } else { ahead.max(1) };
        let index = slot as usize;
        if index >= self.links.len() {
            self.links.resize(index + 1, UNLINKED);
        }
        let link = self.links[index];
        if link.previous != NONE {
            if link.tick.wrapping_sub(self.done) <= ahead {
                return;
            }
            self.disarm(slot);
        }
        self.insert(slot, self.done.wrapping_add(ahead));
        self.quiet = self.quiet.min(ahead);
    }

    /// Forgets the slot.
    pub(crate) fn disarm(&mut self, slot: u32) {
        let Some(link) = self.links.get_mut(slot as usize) else { return };
        let Link { tick, next, previous } = std::mem::replace(link, UNLINKED);
        match previous {
            NONE => return,
            HEAD => self.heads[bucket(tick)] = next,
            slot => self.links[slot as usize].next = next,
        }
        if next != NONE {
            self.links[next as usize].previous = previous;
        }
    }

    /// Appends the slots whose tick has come; they are not armed any more.
    pub(crate) fn fire(&mut self, now: Instant, due: &mut Vec<u32>) {
        let passed = self.tick(now, false).wrapping_sub(self.done);
        if passed > AHEAD_MAX {
            return;
        }
        let until = self.done.wrapping_add(passed);
        if passed < self.quiet {
            self.done = until;
            self.quiet = if self.quiet == NOTHING { NOTHING } else { self.quiet - passed };
            return;
        }
        for step in 0..passed.min(BUCKETS as u32) {
            let mut slot = self.heads[bucket(until.wrapping_sub(step))];
            while slot != NONE {
                let Link { tick, next, .. } = self.links[slot as usize];
                if tick.wrapping_sub(self.done) <= passed {
                    self.disarm(slot);
                    due.push(slot);
                }
                slot = next;
            }
        }
        self.done = until;
        self.quiet = self.next_ahead();
    }

    /// How long nothing can fire; `None`: for ever.
    pub(crate) fn timeout(&self, now: Instant) -> Option<Duration> {
        let tick = (self.quiet != NOTHING).then(|| self.done.wrapping_add(self.quiet))?;
        // From the tick that `now` is in, for the same reason as above.
        let ahead = tick.wrapping_sub(self.tick(now, false));
        if ahead > AHEAD_MAX {
            return Some(Duration::ZERO);
        }
        let into = now.saturating_duration_since(self.start).subsec_nanos() % TICK_NS;
        let wait = Duration::from_nanos(u64::from(ahead) * u64::from(TICK_NS));
        Some(wait.saturating_sub(Duration::from_nanos(u64::from(into))))
    }

    fn insert(&mut self, slot: u32, tick: u32) {
        let head = &mut self.heads[bucket(tick)];
        let next = std::mem::replace(head, slot);
        self.links[slot as usize] = Link { tick, next, previous: HEAD };
        if next != NONE {
            self.links[next as usize].previous = slot;
        }
    }

    /// Ticks from `done` to the first bucket that is not empty; its entries may be of a later
    /// round of the wheel, which costs one early look.
    fn next_ahead(&self) -> u32 {
        let ahead = (1..=BUCKETS as u32)
            .find(|ahead| self.heads[bucket(self.done.wrapping_add(*ahead))] != NONE);
        ahead.unwrap_or(NOTHING)
    }

    fn tick(&self, at: Instant, round_up: bool) -> u32 {
        let since = at.saturating_duration_since(self.start);
        let part = if round_up { TICK_NS - 1 } else { 0 };
        let whole = (since.as_secs() as u32).wrapping_mul(TICKS_PER_S);
        whole.wrapping_add((since.subsec_nanos() + part) / TICK_NS)
    }
}

fn bucket(tick: u32) -> usize {
    tick as usize % BUCKETS
}

/// 31.25 ms: a deadline of 10 s is kept to 0.3 %.
const TICK_NS: u32 = 1_000_000_000 / TICKS_PER_S;
const TICKS_PER_S: u32 = 32;
/// 128 s: one round is longer than the longest of the usual deadlines (idle, 75 s). A power of
/// two, so that the wheel stays whole when the tick counter wraps.
const BUCKETS: usize = 4096;
/// A difference of ticks beyond this one is negative.
const AHEAD_MAX: u32 = u32::MAX / 2;
const NOTHING: u32 = u32::MAX;

const NONE: u32 = u32::MAX;
const HEAD: u32 = u32::MAX - 1;
const UNLINKED: Link = Link { tick: 0, next: NONE, previous: NONE };

#[cfg(test)]
mod tests {
    use super::*;

    const TICK: Duration = Duration::from_nanos(TICK_NS as u64);

    fn fired(deadlines: &mut Deadlines, now: Instant) -> Vec<u32> {
        let mut due = Vec::new();
        deadlines.fire(now, &mut due);
        due.sort_unstable();
        due
    }

    #[test]
    fn an_entry_fires_once_and_within_one_tick() {
        let start = Instant::now();
        let mut deadlines = Deadlines::new(start);
        for (slot, ms) in [(0, 1), (1, 80), (2, 125), (3, 10_000), (4, 900_000)] {
            let at = start + Duration::from_millis(ms);
            deadlines.arm(slot, at);
            assert_eq!(fired(&mut deadlines, at - Duration::from_nanos(1)), []);
            assert_eq!(fired(&mut deadlines, at + TICK), [slot]);
            assert_eq!(fired(&mut deadlines, at + 2 * TICK), []);
        }
        assert_eq!(deadlines.timeout(start), None);
    }

    #[test]
    fn later_is_lazy_and_earlier_is_not() {
        let start = Instant::now();
        let mut deadlines = Deadlines::new(start);
        let at = |s| start + Duration::from_secs(s);
        deadlines.arm(7, at(10));
        deadlines.arm(7, at(75));
        assert_eq!(fired(&mut deadlines, at(10)), [7]);
        deadlines.arm(7, at(75));
        deadlines.arm(7, at(12));
        assert_eq!(fired(&mut deadlines, at(12)), [7]);
        assert_eq!(fired(&mut deadlines, at(80)), []);
    }

    #[test]
    fn a_disarmed_slot_is_silent_whatever_its_neighbours_do() {
        let start = Instant::now();
        let at = start + Duration::from_secs(1);
        for gone in [[0, 1], [1, 2], [0, 2], [2, 1], [1, 0]] {
            let mut deadlines = Deadlines::new(start);
            for slot in 0..3 {
                deadlines.arm(slot, at);
            }
            for slot in gone {
                deadlines.disarm(slot);
                deadlines.disarm(slot);
            }
            let left = (0..3).filter(|slot| !gone.contains(slot)).collect::<Vec<_>>();
            assert_eq!(fired(&mut deadlines, at), left);
        }
        Deadlines::new(start).disarm(12);
    }

    #[test]
    fn the_timeout_leads_to_the_tick_and_not_past_it() {
        let start = Instant::now();
        let mut deadlines = Deadlines::new(start);
        let at = start + Duration::from_millis(2_500);
        deadlines.arm(1, at);
        let mut now = start + Duration::from_millis(7);
        let mut turns = 0;
        while fired(&mut deadlines, now).is_empty() {
            now += deadlines.timeout(now).expect("an entry");
            turns += 1;
        }
        assert!(now >= at && now <= at + TICK, "{:?}", now - at);
        assert!(turns <= 2, "{turns}");
    }

    #[test]
    fn a_deadline_beyond_one_round_waits_for_its_round() {
        let start = Instant::now();
        let mut deadlines = Deadlines::new(start);
        let at = start + Duration::from_secs(1000);
        deadlines.arm(3, at);
        let mut now = start;
        let mut turns = 0;
        while fired(&mut deadlines, now).is_empty() {
            now += deadlines.timeout(now).expect("an entry");
            turns += 1;
        }
        assert!(now >= at && now <= at + TICK);
        assert!(turns < 12, "one look per round: {turns}");
    }

    #[test]
    fn a_long_pause_of_the_loop_loses_nothing() {
        let start = Instant::now();
        let mut deadlines = Deadlines::new(start);
        for slot in 0..1000 {
            deadlines.arm(slot, start + Duration::from_millis(u64::from(slot) * 300));
        }
        let later = start + Duration::from_secs(3600);
        assert_eq!(fired(&mut deadlines, later), (0..1000).collect::<Vec<_>>());
        deadlines.arm(5, start);
        assert_eq!(fired(&mut deadlines, later + TICK), [5], "overdue: with the next tick");
    }

    #[test]
    fn the_tick_counter_may_wrap() {
        let start = Instant::now();
        let mut deadlines = Deadlines::new(start);
        let years = |n: u64| start + Duration::from_secs(n * 365 * 24 * 3600);
        for n in 1..20 {
            let now = years(n);
            assert_eq!(fired(&mut deadlines, now), []);
            deadlines.arm(1, now + Duration::from_secs(75));
            let wait = deadlines.timeout(now).expect("an entry");
            assert!(wait <= Duration::from_secs(76), "{wait:?}");
            assert_eq!(fired(&mut deadlines, now + Duration::from_secs(74)), []);
            assert_eq!(fired(&mut deadlines, now + Duration::from_secs(76)), [1]);
        }
    }

    #[test]
    fn an_entry_costs_twelve_bytes() {
        assert_eq!(size_of::<Link>(), 12);
    }
}
