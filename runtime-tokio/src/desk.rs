//! Who is here: the connections of one service, what they are told, and what they count.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use otter_protocol::Tally;
use slab::Slab;
use tokio::sync::Notify;

/// What the connections of one service, their acceptor and whoever stops them share.
#[derive(Default)]
pub(crate) struct Desk {
    pub(crate) tally: Tally,
    floor: Mutex<Floor>,
    /// Rings when somebody left, and when all are told something.
    bell: Notify,
}

/// What a connection is told.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Order {
    #[default]
    Stay,
    /// Finish, then go.
    Leave,
    /// Go.
    Cut,
}

#[derive(Default)]
pub(crate) struct Floor {
    pub(crate) seats: Slab<Seat>,
    /// How many of them were told to make room.
    leaving: usize,
    /// Of the last who came.
    serial: u64,
    pub(crate) order: Order,
}

/// One connection, as others see it.
pub(crate) struct Seat {
    /// `None` until it was polled once.
    waker: Option<Waker>,
    serial: u64,
    order: Order,
    /// It was when it was polled last.
    idle: bool,
    makes_room: bool,
}

impl Desk {
    /// Counts: one at a time, because a [`Tally`] has one writer and tasks may run on any thread.
    pub(crate) fn count(&self, add: impl FnOnce(&Tally)) {
        let _floor = self.floor();
        add(&self.tally);
    }

    /// A seat for one more connection: if there are `most` already, in place of an idle one, which
    /// is told to go. `None`: all are busy.
    pub(crate) fn enter(&self, most: usize) -> Option<usize> {
        let mut floor = self.floor();
        if floor.seats.len() - floor.leaving >= most {
            floor.make_room()?;
            self.tally.evicted.add(1);
        }
        self.tally.accepted.add(1);
        floor.serial += 1;
        let (serial, order) = (floor.serial, floor.order);
        let seat = Seat { waker: None, serial, order, idle: false, makes_room: false };
        Some(floor.seats.insert(seat))
    }

    /// The connection has done all it can for now. What is it told since it asked last? `waker` is
    /// woken when there is something.
    pub(crate) fn rest(&self, slot: usize, waker: &Waker, idle: bool) -> Order {
        let mut floor = self.floor();
        let seat = &mut floor.seats[slot];
        seat.idle = idle;
        seat.waker.get_or_insert_with(|| waker.clone()).clone_from(waker);
        std::mem::take(&mut seat.order)
    }

    /// The connection is over.
    pub(crate) fn leave(&self, slot: usize, add: impl FnOnce(&Tally)) {
        let mut floor = self.floor();
        let seat = floor.seats.remove(slot);
        floor.leaving -= usize::from(seat.makes_room);
        add(&self.tally);
        self.bell.notify_waiters();
    }

    /// Tells everybody, also those who are still to come.
    pub(crate) fn tell(&self, order: Order) {
        let mut floor = self.floor();
        floor.order = order;
        floor.seats.iter_mut().for_each(|(_, seat)| seat.tell(order));
        self.bell.notify_waiters();
    }

    /// Waits until it is so.
    pub(crate) async fn until(&self, so: impl Fn(&Floor) -> bool) {
        loop {
            // It hears each ring from here on.
            let rung = self.bell.notified();
            if so(&self.floor()) {
                return;
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
    /// Of those who are idle, tells the one that came first. Only when it is full are
    /// all looked at, some 20 us for 16,000.
    fn make_room(&mut self) -> Option<()> {
        let seats = self.seats.iter_mut().map(|(_, seat)| seat);
        let idle = seats.filter(|seat| seat.idle && !seat.makes_room);
        let seat = idle.min_by_key(|seat| seat.serial)?;
        seat.makes_room = true;
        seat.tell(Order::Leave);
        self.leaving += 1;
        Some(())
    }
}

impl Seat {
    fn tell(&mut self, order: Order) {
        self.order = self.order.max(order);
        self.waker.iter().for_each(Waker::wake_by_ref);
    }
}
