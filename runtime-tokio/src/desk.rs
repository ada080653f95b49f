//! Who is here: the connections of one service, what they are told, and what they count.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use otter_protocol::Tally;
use slab::Slab;
use tokio::sync::Notify;

/// What the connections of one service, their acceptor and whoever stops them share.
#[derive(Debug, Default)]
pub(crate) struct Desk {
    tally: Tally,
    floor: Mutex<Floor>,
    /// Rings when the order to stop is given.
    stopped: Notify,
    /// Rings when somebody left, or stays although asked to leave.
    left: Notify,
}

#[derive(Debug, Default)]
struct Floor {
    seats: Slab<Seat>,
    /// Of the last who came: a slot is used again, a number is not.
    serial: u32,
    /// Where the search for a connection to close went last.
    hand: usize,
    stopping: bool,
    cut: bool,
}

/// One connection, as others see it.
#[derive(Debug)]
struct Seat {
    /// `None` until it was polled once.
    waker: Option<Waker>,
    serial: u32,
    told: Told,
    /// For its peer, as it was when it was polled last.
    waits: bool,
}

/// The order to leave, and what became of it.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Told {
    Nothing,
    Leave,
    /// It has heard it.
    Leaving,
    /// It has something to finish first.
    Stays,
}

/// What a connection is told.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Order {
    /// Finish, then go.
    Leave,
    /// Go.
    Cut,
}

impl Desk {
    /// What was counted; to add, see [`Desk::count`].
    pub(crate) fn tally(&self) -> &Tally {
        &self.tally
    }

    /// Counts: one at a time, because a [`Tally`] has one writer and tasks may run on any thread.
    pub(crate) fn count(&self, add: impl FnOnce(&Tally)) {
        let _floor = self.floor();
        add(&self.tally);
    }

    /// A seat for one more connection, unless there are `most` already.
    pub(crate) fn enter(&self, most: usize) -> Option<usize> {
        let mut floor = self.floor();
        if floor.seats.len() >= most {
            return None;
        }
        floor.serial = floor.serial.wrapping_add(1);
        let told = if floor.stopping { Told::Leave } else { Told::Nothing };
        let seat = Seat { waker: None, serial: floor.serial, told, waits: false };
        self.tally.accepted.add(1);
        Some(floor.seats.insert(seat))
    }

    /// The connection has done all it can for now, and is to be woken if it is told something.
    pub(crate) fn rest(&self, slot: usize, waker: &Waker, waits: bool) -> Option<Order> {
        let mut floor = self.floor();
        if floor.cut {
            return Some(Order::Cut);
        }
        let seat = &mut floor.seats[slot];
        seat.waits = waits;
        match &mut seat.waker {
            Some(known) => known.clone_from(waker),
            unknown @ None => *unknown = Some(waker.clone()),
        }
        match seat.told {
            Told::Nothing | Told::Stays => None,
            Told::Leave => {
                seat.told = Told::Leaving;
                Some(Order::Leave)
            }
            Told::Leaving => {
                seat.told = Told::Stays;
                self.left.notify_waiters();
                None
            }
        }
    }

    /// The connection is over.
    pub(crate) fn leave(&self, slot: usize, add: impl FnOnce(&Tally)) {
        let mut floor = self.floor();
        floor.seats.remove(slot);
        add(&self.tally);
        self.left.notify_waiters();
    }

    /// Closes a connection that waits for its peer: going round, the next one that has not begun
    /// a request; those that have are told to close after it. False: there is none.
    pub(crate) async fn make_room(&self) -> bool {
        for _ in 0..EVICTION_TRIES {
            let Some((slot, serial)) = self.floor().tell_next() else { return false };
            let is_gone = |floor: &Floor| match floor.seats.get(slot) {
                Some(seat) if seat.serial == serial => (seat.told == Told::Stays).then_some(false),
                Some(_) | None => Some(true),
            };
            if Self::until(&self.left, || is_gone(&self.floor())).await {
                self.count(|tally| tally.evicted.add(1));
                return true;
            }
        }
        false
    }

    /// Tells everybody to finish and go, also those who are still to come.
    pub(crate) fn stop(&self) {
        let mut floor = self.floor();
        floor.stopping = true;
        floor.seats.iter_mut().for_each(|(_, seat)| seat.tell());
        self.stopped.notify_waiters();
    }

    /// Ends everybody's time to finish.
    pub(crate) fn cut(&self) {
        let mut floor = self.floor();
        floor.cut = true;
        floor.seats.iter().filter_map(|(_, seat)| seat.waker.as_ref()).for_each(Waker::wake_by_ref);
    }

    /// Waits for the order to stop.
    pub(crate) async fn stopped(&self) {
        Self::until(&self.stopped, || self.floor().stopping.then_some(())).await;
    }

    /// Waits until nobody is here.
    pub(crate) async fn emptied(&self) {
        Self::until(&self.left, || self.floor().seats.is_empty().then_some(())).await;
    }

    async fn until<R>(bell: &Notify, said: impl Fn() -> Option<R>) -> R {
        loop {
            // It hears each ring from here on.
            let rung = bell.notified();
            if let Some(said) = said() {
                return said;
            }
            rung.await;
        }
    }

    fn floor(&self) -> MutexGuard<'_, Floor> {
        // Nothing is half done where it could panic.
        self.floor.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Floor {
    fn tell_next(&mut self) -> Option<(usize, u32)> {
        let slots = self.seats.capacity();
        (0..slots).find_map(|_| {
            self.hand = (self.hand + 1) % slots;
            let waits = |seat: &&mut Seat| seat.waits && seat.told == Told::Nothing;
            let seat = self.seats.get_mut(self.hand).filter(waits)?;
            seat.tell();
            Some((self.hand, seat.serial))
        })
    }
}

impl Seat {
    fn tell(&mut self) {
        if self.told == Told::Nothing {
            self.told = Told::Leave;
            if let Some(waker) = &self.waker {
                waker.wake_by_ref();
            }
        }
    }
}

const EVICTION_TRIES: usize = 64;
