//! What the operator, or fate, does to a world.

use std::time::Duration;

use otter_protocol::OwnerId;

use super::World;
use super::agenda::Entry;
use super::link::Link;
use crate::{Draft, Faults, Target};

/// What the operator, or fate, does at some time.
#[derive(Clone, Debug)]
pub enum Deed {
    /// Publishes to all devices of an owner.
    Publish(OwnerId, Box<Draft>),
    /// Withdraws what was published last.
    Withdraw,
    /// Lets every device that is known take offers.
    AllowUpdates,
    /// The store becomes this unruly.
    StoreFaults(Faults),
    /// The store's clock is wrong by so many seconds.
    StoreClock(i64),
    /// The store's replica takes its place, if it has one.
    FailOver,
    /// The power of the device that joined as this number fails for a moment.
    Reboot(usize),
    /// So many of 100 new connections break within their first 20 s.
    BreakLinks(u64),
    /// A server stops at once; its connections break.
    Crash(usize),
    /// It comes back.
    Restart(usize),
    /// A server is told to finish and go; it stays down until it is restarted.
    Drain(usize),
    /// A server has no way to the store.
    CutOff(usize),
    /// It has one again.
    Reconnect(usize),
    /// The unix time of a server is wrong by so many seconds.
    ServerClock(usize, i64),
    /// The blow falls at the next such moment, and not before.
    Ambush(Moment, Blow),
    /// No blow waits any more.
    CallOff,
}

/// When something hurts most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// A first attempt is to be kept.
    Start,
    /// A check-in is to be kept.
    Record,
    /// The store's answer has come.
    Answer,
    /// A claim was sent to the store.
    Claim,
    /// A tail begins to leave.
    Tail,
}

/// What falls on a server at such a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blow {
    /// It stops, and is back a few seconds later.
    Crash,
    /// It is cut off from the store for a few seconds.
    CutOff,
    /// The store's replica takes its place.
    FailOver,
    /// What was published last is withdrawn.
    Withdraw,
}

impl Moment {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Start, Self::Record, Self::Answer, Self::Claim, Self::Tail];
}

impl Deed {
    /// What kind of deed it is.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Publish(..) => "publish",
            Self::Withdraw => "withdraw",
            Self::AllowUpdates => "allow updates",
            Self::StoreFaults(_) => "store faults",
            Self::StoreClock(_) => "store clock",
            Self::FailOver => "failover",
            Self::Reboot(_) => "reboot",
            Self::BreakLinks(_) => "break links",
            Self::Crash(_) => "crash",
            Self::Restart(_) => "restart",
            Self::Drain(_) => "drain",
            Self::CutOff(_) => "cut off",
            Self::Reconnect(_) => "reconnect",
            Self::ServerClock(..) => "server clock",
            Self::Ambush(..) => "ambush",
            Self::CallOff => "call off",
        }
    }
}

impl Deed {
    /// In words, without whole images.
    fn told(&self) -> String {
        let Self::Publish(_, draft) = self else { return format!("{self:?}") };
        let Draft { version, platform, image, .. } = &**draft;
        format!("Publish({version} for {platform}, {} bytes)", image.len())
    }
}

impl World {
    pub(super) fn do_deeds(&mut self) {
        let now = self.clock.at();
        while let Some(entry) = self.deeds.first_entry().filter(|entry| entry.key().0 <= now) {
            let deed = entry.remove();
            self.carry_out(deed);
        }
    }

    fn carry_out(&mut self, deed: Deed) {
        let at = self.clock.at();
        self.tell(|| deed.told());
        self.count(deed.name(), 1);
        match deed {
            Deed::Publish(_, _) | Deed::Withdraw | Deed::AllowUpdates => {
                self.operate(deed);
                self.desk.copy_all();
            }
            Deed::StoreFaults(faults) => self.desk.faults = faults,
            Deed::StoreClock(skew_s) => self.store_skew_s = skew_s,
            Deed::FailOver => self.desk.fail_over(),
            Deed::Reboot(actor) => {
                if let Some(link) = self.link_of(actor) {
                    link.leave();
                }
                self.agenda.touch(Entry::Actor(actor));
                if let Some(actor) = self.actors.get_mut(actor) {
                    actor.reboot(at);
                }
            }
            Deed::BreakLinks(percent) => self.break_percent = percent,
            Deed::Crash(server) => {
                self.servers[server].is_up = false;
                let cut_short =
                    self.links_of(server).filter_map(|link| link.crash(at).then_some(()));
                self.cut_short += cut_short.count() as u64;
            }
            Deed::Restart(server) => self.servers[server].is_up = true,
            Deed::Drain(server) => {
                self.servers[server].is_up = false;
                let now = self.clock.skewed(self.servers[server].skew_s).now();
                let at_work =
                    self.links_of(server).filter_map(|link| link.drain(now).then_some(()));
                self.drained_at_work += at_work.count() as u64;
            }
            Deed::CutOff(server) => self.desk.cut_off(server),
            Deed::Reconnect(server) => self.desk.reconnect(at, server),
            Deed::ServerClock(server, skew_s) => self.servers[server].skew_s = skew_s,
            Deed::Ambush(moment, blow) => self.ambushes.push((moment, blow)),
            Deed::CallOff => self.ambushes.clear(),
        }
    }

    fn operate(&mut self, deed: Deed) {
        match deed {
            Deed::Publish(owner, draft) => {
                let release = self.desk.store.publish(Target::Owner(owner), &draft);
                self.published.push(release);
            }
            Deed::Withdraw => {
                if let Some(release) = self.published.pop() {
                    self.desk.store.withdraw(release);
                }
            }
            Deed::AllowUpdates => {
                let known: Vec<_> = self.desk.store.devices().map(|kept| kept.device.id).collect();
                for device in known {
                    self.desk.store.set_auto_update(device, true);
                }
            }
            Deed::StoreFaults(_)
            | Deed::StoreClock(_)
            | Deed::FailOver
            | Deed::Reboot(_)
            | Deed::BreakLinks(_)
            | Deed::Crash(_)
            | Deed::Restart(_)
            | Deed::Drain(_)
            | Deed::CutOff(_)
            | Deed::Reconnect(_)
            | Deed::ServerClock(_, _)
            | Deed::Ambush(_, _)
            | Deed::CallOff => {}
        }
    }

    /// It is such a moment on `server`: one blow that waited for it falls.
    pub(super) fn spring(&mut self, moment: Moment, server: usize) {
        let Some(index) = self.ambushes.iter().position(|(waits, _)| *waits == moment) else {
            return;
        };
        let over_at = self.clock.at() + RECOVERY;
        match self.ambushes.remove(index).1 {
            Blow::Crash => {
                self.carry_out(Deed::Crash(server));
                self.plan(over_at, Deed::Restart(server));
            }
            Blow::CutOff => {
                self.carry_out(Deed::CutOff(server));
                self.plan(over_at, Deed::Reconnect(server));
            }
            Blow::FailOver => self.carry_out(Deed::FailOver),
            Blow::Withdraw => self.carry_out(Deed::Withdraw),
        }
    }

    fn links_of(&mut self, server: usize) -> impl Iterator<Item = &mut Link> {
        let (links, agenda) = (&mut self.links, &mut self.agenda);
        let of_server = links.iter_mut().filter(move |(_, link)| link.server == server);
        of_server.map(|(id, link)| {
            agenda.touch(Entry::Link(*id));
            link
        })
    }
}

const RECOVERY: Duration = Duration::from_secs(5);
