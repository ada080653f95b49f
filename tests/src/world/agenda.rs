//! When whom something happens to next, so that a step costs what happens in it, however many there
//! are.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Whom something happens to. Actors are looked at before links.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Entry {
    /// By number.
    Actor(usize),
    /// By number.
    Link(u64),
}

/// When to look at whom, and at whom at once.
#[derive(Debug, Default)]
pub(super) struct Agenda {
    by_time: BTreeSet<(Duration, Entry)>,
    times: BTreeMap<Entry, Duration>,
    /// Something happened to them since their time was set.
    touched: BTreeSet<Entry>,
}

impl Agenda {
    /// When somebody is to be looked at; `None` for never, or not before something happens.
    pub(super) fn set(&mut self, entry: Entry, at: Option<Duration>) {
        let before = match at {
            Some(at) => self.times.insert(entry, at),
            None => self.times.remove(&entry),
        };
        if before == at {
            return;
        }
        if let Some(before) = before {
            self.by_time.remove(&(before, entry));
        }
        if let Some(at) = at {
            self.by_time.insert((at, entry));
        }
    }

    /// Something happened to somebody.
    pub(super) fn touch(&mut self, entry: Entry) {
        self.touched.insert(entry);
    }

    /// The earliest time.
    pub(super) fn next(&self) -> Option<Duration> {
        self.by_time.first().map(|(at, _)| *at)
    }

    /// The actors whose time has come, in their order.
    pub(super) fn actors(&self, now: Duration) -> Vec<usize> {
        let mut due: Vec<usize> = self.due(now).filter_map(Entry::actor).collect();
        due.sort_unstable();
        due
    }

    /// The links whose time has come and those to which something happened, in their order. All of
    /// them are looked at again afterwards.
    pub(super) fn links(&mut self, now: Duration) -> BTreeSet<u64> {
        let due: Vec<Entry> = self.due(now).filter(|entry| entry.link().is_some()).collect();
        self.touched.extend(due);
        self.touched.iter().filter_map(|entry| entry.link()).collect()
    }

    /// Those to which something happened, once each; also those that are touched meanwhile.
    pub(super) fn pop_touched(&mut self) -> Option<Entry> {
        self.touched.pop_first()
    }

    fn due(&self, now: Duration) -> impl Iterator<Item = Entry> {
        self.by_time.iter().take_while(move |(at, _)| *at <= now).map(|(_, entry)| *entry)
    }
}

impl Entry {
    fn actor(self) -> Option<usize> {
        match self {
            Self::Actor(index) => Some(index),
            Self::Link(_) => None,
        }
    }

    fn link(self) -> Option<u64> {
        match self {
            Self::Link(id) => Some(id),
            Self::Actor(_) => None,
        }
    }
}
