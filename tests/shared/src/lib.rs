//! What threads share, in each interleaving of their steps and each order of memory that the
//! language allows: files of the store and of the driver, compiled once more over loom's types.
//!
//! `cargo test -p otter-shared`. What is tried: an answer that is left wakes the worker that it is
//! for, whatever the worker does at that moment, and so does the order to stop. A worker that does
//! not hear of an answer sleeps for ever, which loom finds as a deadlock.
#![forbid(unsafe_code)]

#[cfg(test)]
#[path = "../../../runtime-mio/src/bell.rs"]
mod bell;
#[cfg(test)]
#[path = "../../../store/src/inbox.rs"]
mod inbox;

/// What the files stand on in the place of `std::sync`.
#[cfg(test)]
mod sync {
    pub(crate) use loom::sync::Mutex;
    pub(crate) use loom::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
}

#[cfg(test)]
use names::{Ticket, Wake};

/// As in the store.
#[cfg(test)]
mod names {
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) struct Ticket(pub(crate) u64);

    pub(crate) type Wake = std::sync::Arc<dyn Fn() + Send + Sync>;
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use loom::sync::{Arc, Condvar};
    use loom::thread;
    use otter_protocol::Answer;

    use crate::Ticket;
    use crate::bell::Bell;
    use crate::inbox::Inbox;
    use crate::sync::Mutex;

    /// A poll with a waker: as an event descriptor it keeps a wake-up until somebody waits.
    struct Poll {
        awake: Mutex<bool>,
        changed: Condvar,
    }

    impl Poll {
        fn new() -> Self {
            Self { awake: Mutex::new(false), changed: Condvar::new() }
        }

        fn wake(&self) {
            *self.awake.lock().expect("no panic") = true;
            self.changed.notify_one();
        }

        fn wait(&self) {
            let mut awake = self.awake.lock().expect("no panic");
            while !*awake {
                awake = self.changed.wait(awake).expect("no panic");
            }
            *awake = false;
        }
    }

    /// What a worker and those who ring it share.
    struct World {
        poll: Arc<Poll>,
        bell: Arc<Bell>,
        inbox: Arc<Inbox>,
    }

    impl World {
        fn new(expected: usize) -> Self {
            let (poll, bell) = (Arc::new(Poll::new()), Arc::new(Bell::default()));
            let (to_poll, to_bell) = (Arc::clone(&poll), Arc::clone(&bell));
            let wake = std::sync::Arc::new(move || to_bell.ring(|| to_poll.wake()));
            let inbox = Arc::new(Inbox::new(wake));
            (0..expected).for_each(|_| assert!(inbox.expect()));
            Self { poll, bell, inbox }
        }

        /// As the committer does for one group.
        fn answers(&self, ticket: u64) -> thread::JoinHandle<()> {
            let inbox = Arc::clone(&self.inbox);
            thread::spawn(move || {
                inbox.leave(Ticket(ticket), Answer::Kept);
                inbox.ring();
            })
        }

        fn stops(&self) -> thread::JoinHandle<()> {
            let (poll, bell) = (Arc::clone(&self.poll), Arc::clone(&self.bell));
            thread::spawn(move || {
                bell.stop();
                bell.ring(|| poll.wake());
            })
        }

        /// As `Worker::turn` does, until it has so many answers, and the order to stop if there is
        /// one to come.
        fn work(&self, answers: usize, stops: bool) -> Vec<u64> {
            let (mut got, mut stopping) = (Vec::new(), false);
            while got.len() < answers || stopping != stops {
                self.poll.wait();
                stopping |= self.bell.silence();
                self.inbox.append_to(&mut got);
            }
            let mut tickets: Vec<u64> = got.iter().map(|(ticket, _)| ticket.0).collect();
            tickets.sort_unstable();
            tickets
        }
    }

    /// Three switches at places where nobody waits find what can be found with two or three
    /// threads, and take seconds.
    fn each_interleaving(model: impl Fn() + Send + Sync + 'static) {
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound = Some(3);
        builder.check(model);
    }

    #[test]
    fn answers_of_two_threads_reach_the_worker_once_each() {
        each_interleaving(|| {
            let world = World::new(2);
            let others = [world.answers(1), world.answers(2)];
            assert_eq!(world.work(2, false), [1, 2]);
            others.into_iter().for_each(|other| other.join().expect("ended"));
        });
    }

    #[test]
    fn answers_that_come_one_after_the_other_reach_it_as_well() {
        each_interleaving(|| {
            let world = World::new(2);
            let inbox = Arc::clone(&world.inbox);
            let other = thread::spawn(move || {
                for ticket in [1, 2] {
                    inbox.leave(Ticket(ticket), Answer::Kept);
                    inbox.ring();
                }
            });
            assert_eq!(world.work(2, false), [1, 2]);
            other.join().expect("ended");
        });
    }

    #[test]
    fn an_order_to_stop_is_heard_beside_an_answer() {
        each_interleaving(|| {
            let world = World::new(1);
            let others = [world.answers(1), world.stops()];
            assert_eq!(world.work(1, true), [1]);
            others.into_iter().for_each(|other| other.join().expect("ended"));
        });
    }

    /// So the model finds what it is there for. In a process of its own: loom ends it.
    #[test]
    fn a_broken_rule_is_found() {
        let this = std::env::current_exe().expect("this test");
        let name = "tests::who_looks_before_silencing_the_bell_sleeps_for_ever";
        let ran = Command::new(this)
            .args(["--ignored", "--exact", "--nocapture", name])
            .output()
            .expect("runs");
        assert!(!ran.status.success(), "it must be found");
        let said = String::from_utf8_lossy(&ran.stderr);
        assert!(said.contains("deadlock"), "{said}");
    }

    /// The rule that `Bell::silence` states, broken.
    #[test]
    #[ignore = "fails, as `a_broken_rule_is_found` demands"]
    fn who_looks_before_silencing_the_bell_sleeps_for_ever() {
        each_interleaving(|| {
            let world = World::new(2);
            let others = [world.answers(1), world.answers(2)];
            let mut got = Vec::new();
            while got.len() < 2 {
                world.poll.wait();
                world.inbox.append_to(&mut got);
                let _ = world.bell.silence();
            }
            others.into_iter().for_each(|other| other.join().expect("ended"));
        });
    }

    #[test]
    fn room_comes_back_with_each_answer() {
        each_interleaving(|| {
            let world = World::new(1);
            let other = world.answers(1);
            assert!(world.inbox.expect());
            world.inbox.leave(Ticket(2), Answer::Unavailable);
            other.join().expect("ended");
            let mut got = Vec::new();
            world.inbox.append_to(&mut got);
            assert_eq!(got.len(), 2);
        });
    }
}
