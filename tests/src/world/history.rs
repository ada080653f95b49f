//! What happened in a world: its trace, its journal, and what there is to count.

use std::collections::BTreeMap;
use std::sync::PoisonError;

use otter_protocol::Outcome;

use super::World;

impl World {
    /// A hash of every byte that was sent, with its time and place.
    #[must_use]
    pub fn trace(&self) -> u64 {
        self.trace
    }

    /// How often time moved on.
    #[must_use]
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// How many tokens gave their tail.
    #[must_use]
    pub fn tails(&self) -> usize {
        self.ledger.tails()
    }

    /// How many of them had been presented to several servers.
    #[must_use]
    pub fn tails_of_many_servers(&self) -> usize {
        self.ledger.tails_of_many_servers()
    }

    /// What became of the requests on connections that are over.
    #[must_use]
    pub fn outcomes(&self) -> &BTreeMap<Outcome, u64> {
        &self.outcomes
    }

    /// How many answers were due or on their way when their server stopped.
    #[must_use]
    pub fn cut_short(&self) -> u64 {
        self.cut_short
    }

    /// How many answers were due or on their way when their server was told to finish.
    #[must_use]
    pub fn drained_at_work(&self) -> u64 {
        self.drained_at_work
    }

    /// How many connections there were.
    #[must_use]
    pub fn links_made(&self) -> u64 {
        self.links_made
    }

    /// The most requests and the most writes to the store that one of the actors made in one hour.
    #[must_use]
    pub fn dearest_hour(&self) -> (u64, u64) {
        self.budget.dearest()
    }

    /// The most downloads of one actor that were put off in one hour.
    #[must_use]
    pub fn put_off_in_an_hour(&self) -> u64 {
        self.budget.put_off()
    }

    /// What befell it, by kind: deeds, connections that broke, segments that were lost, answers of
    /// the store that were.
    #[must_use]
    pub fn befallen(&self) -> BTreeMap<&'static str, u64> {
        let mut counts = self.counts.clone();
        counts.extend(self.desk.befallen());
        counts
    }

    pub(super) fn count(&mut self, what: &'static str, times: u64) {
        *self.counts.entry(what).or_default() += times;
    }

    pub(super) fn tell(&self, line: impl FnOnce() -> String) {
        if let Some(journal) = &self.journal {
            let line = format!("{:>12.3} s  {}", self.clock.at().as_secs_f64(), line());
            journal.lock().unwrap_or_else(PoisonError::into_inner).push(line);
        }
    }

    pub(super) fn note(&mut self, place: u64, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let at = self.clock.at().as_nanos() as u64;
        let mut mix = |word: u64| self.trace = (self.trace ^ word).wrapping_mul(FNV_PRIME);
        [at, place, bytes.len() as u64].into_iter().for_each(&mut mix);
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            mix(u64::from_le_bytes(*word));
        }
        rest.iter().for_each(|byte| mix(u64::from(*byte)));
        // What is high in a word reaches what is low in the hash.
        self.trace ^= self.trace >> 32;
    }
}

/// A message, to be read: its first line, if that is text.
pub(super) fn shown(bytes: &[u8]) -> String {
    let line = bytes.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let start = &line[..line.len().min(SHOWN_BYTES_MAX)];
    let is_text = !start.is_empty() && start.iter().all(|b| (b' '..=b'~').contains(b));
    let text = if is_text { String::from_utf8_lossy(start) } else { "no text".into() };
    format!("{} bytes: {text}", bytes.len())
}

const SHOWN_BYTES_MAX: usize = 70;
const FNV_PRIME: u64 = 0x0100_0000_01b3;
