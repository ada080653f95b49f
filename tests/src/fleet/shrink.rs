//! The smallest part of a fleet that still fails in the same way.

use std::collections::BTreeSet;
use std::time::Duration;

use super::{END, Failure, Fleet, Keep};

/// Takes members, faults and time away for as long as it still fails, with `failure`'s class, and
/// tells what is left. What is left fails as the second value says. At most some hundreds of runs.
#[must_use]
pub fn shrunk(fleet: &Fleet, failure: &Failure) -> (Fleet, Failure) {
    let mut search =
        Search { fleet: fleet.clone(), failure: failure.clone(), tries_left: TRIES_MAX };
    search.cut_time();
    loop {
        let before = search.fleet.keep.clone();
        search.drop_some(|keep| &mut keep.members);
        search.drop_some(|keep| &mut keep.faults);
        // Without its course no fleet is whole in the end.
        if search.fleet.keep.until < END {
            search.drop_some(|keep| &mut keep.course);
        }
        search.cut_time();
        if search.fleet.keep == before || search.tries_left == 0 {
            return (search.fleet, search.failure);
        }
    }
}

struct Search {
    fleet: Fleet,
    failure: Failure,
    tries_left: u32,
}

impl Search {
    /// Nothing after the failure matters, unless it is one that shows only in the end.
    fn cut_time(&mut self) {
        // By whole milliseconds, as a command line names them.
        let until = Duration::from_millis(self.failure.at.as_millis() as u64 + 1).min(END);
        self.attempt(Keep { until, ..self.fleet.keep.clone() });
    }

    /// Leaves out halves, then quarters, and in the end one by one.
    fn drop_some(&mut self, part: impl Fn(&mut Keep) -> &mut BTreeSet<usize>) {
        let mut keep = self.fleet.keep.clone();
        let mut size = part(&mut keep).len().div_ceil(2);
        while size > 0 {
            let numbers: Vec<usize> = part(&mut keep).iter().copied().collect();
            for chunk in numbers.chunks(size) {
                let mut less = self.fleet.keep.clone();
                part(&mut less).retain(|number| !chunk.contains(number));
                self.attempt(less);
            }
            keep = self.fleet.keep.clone();
            size = if size == 1 { 0 } else { size.div_ceil(2) };
        }
    }

    /// Goes on with that part if it still fails in the same way.
    fn attempt(&mut self, keep: Keep) {
        if self.tries_left == 0 || keep == self.fleet.keep {
            return;
        }
        self.tries_left -= 1;
        let smaller = self.fleet.only(keep);
        if let Err(failure) = smaller.run()
            && failure.class() == self.failure.class()
        {
            (self.fleet, self.failure) = (smaller, failure);
        }
    }
}

const TRIES_MAX: u32 = 400;
