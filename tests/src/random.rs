//! Reproducible chance: everything random in the world comes from one seed.

/// A small generator (splitmix64): varied enough for tests, and the same on every machine.
///
/// ```
/// use otter_tests::Random;
/// assert_eq!(Random::new(7).draw(), Random::new(7).draw());
/// ```
#[derive(Clone, Debug)]
pub struct Random {
    state: u64,
    /// What is drawn first, from its end.
    given: Vec<u8>,
}

impl Random {
    /// Starts the sequence that belongs to `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { state: seed, given: Vec::new() }
    }

    /// Draws these bytes, one after the other, and then what belongs to seed 0: so a fuzzer or
    /// proptest chooses.
    #[must_use]
    pub fn given(bytes: &[u8]) -> Self {
        Self { state: 0, given: bytes.iter().rev().copied().collect() }
    }

    /// Nothing is left of what was given.
    #[must_use]
    pub fn is_spent(&self) -> bool {
        self.given.is_empty()
    }

    /// The next 64 bits.
    pub fn draw(&mut self) -> u64 {
        if let Some(byte) = self.given.pop() {
            return byte.into();
        }
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.state;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    /// A number from 0 to `limit - 1`; 0 if `limit` is 0.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.draw().checked_rem(limit).unwrap_or(0)
    }

    /// A number from `low` to `high`, both included.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high.saturating_sub(low) + 1)
    }

    /// True in `percent` of 100 cases.
    pub fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    /// One of `items`.
    ///
    /// # Panics
    /// If there are none.
    pub fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len() as u64) as usize]
    }

    /// `BYTES` bytes.
    pub fn bytes<const BYTES: usize>(&mut self) -> [u8; BYTES] {
        std::array::from_fn(|_| self.draw() as u8)
    }

    /// A generator of its own for one part of the world, so that what happens in one part does not
    /// shift the chance of another.
    pub fn fork(&mut self) -> Self {
        Self::new(self.draw())
    }
}
