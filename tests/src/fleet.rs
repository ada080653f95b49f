//! A fleet: who there is and what befalls them, all from one seed.
//!
//! [`Fleet::of`] draws devices of every library, some that do not play by the rules, and half an
//! hour of unrest: servers crash at the worst moments, the store stalls, clocks jump, devices lose
//! their power, releases come and go. Then there is peace, and one last release that every device
//! must have in the end. [`Fleet::run`] lets it happen and tells what broke; [`shrunk`] finds the
//! smallest part of it that still breaks.

mod plan;
mod shrink;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use otter_protocol::{Config, Handshake, Mac, Outcome};

pub use self::shrink::shrunk;
use crate::device::arduino::{Arduino, Library};
use crate::device::fetch::Updater;
use crate::device::node::NodeJs;
use crate::device::rogue::{Mischief, Rogue};
use crate::device::script::{Dialect, Script};
use crate::device::{Absent, Identity};
use crate::scene::{self, KEY, OWNER};
use crate::world::{Deed, Journal};
use crate::{ModelStore, Random, Replication, World};

/// What is peculiar to a fleet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Nothing: three in ten have a replica of the store, whose claims wait for it.
    Plain,
    /// Half of the devices or all of them speak TLS.
    Tls,
    /// There is a replica, it takes the store's place now and then, and thieves try every token.
    Failovers,
    /// The same with a bug: claims are answered before the replica has them. The laws must find it.
    Planted,
}

/// Who there is and what befalls them.
#[derive(Clone, Debug)]
pub struct Fleet {
    kind: Kind,
    seed: u64,
    servers: usize,
    members: Vec<Member>,
    /// What a fleet cannot do without: releases, permission to update, and the end of all faults.
    course: Vec<(Duration, Deed)>,
    faults: Vec<(Duration, Deed)>,
    replication: Option<Replication>,
    tls_percent: Option<u64>,
    keep: Keep,
}

/// The part of a fleet that there is: numbers of members and of deeds, and for how long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keep {
    /// Members, in the order of their joining.
    pub members: BTreeSet<usize>,
    /// Faults.
    pub faults: BTreeSet<usize>,
    /// What else is planned.
    pub course: BTreeSet<usize>,
    /// The end. What must be so in the end is looked at only if it is [`END`].
    pub until: Duration,
}

/// What became of a fleet that broke no law.
#[derive(Clone, Debug, Default)]
pub struct Story {
    /// See [`World::trace`].
    pub trace: u64,
    /// See [`World::steps`].
    pub steps: u64,
    /// How many connections there were.
    pub links: u64,
    /// How long all devices together were there.
    pub device_time: Duration,
    /// How many tokens gave their tail, and how many of them after several servers had seen them.
    pub tails: (usize, usize),
    /// How many answers were due when their server stopped.
    pub cut_short: u64,
    /// See [`World::befallen`].
    pub befallen: BTreeMap<&'static str, u64>,
    /// What became of requests.
    pub outcomes: BTreeMap<Outcome, u64>,
    /// What became of handshakes.
    pub handshakes: BTreeMap<Handshake, u64>,
    /// See [`World::dearest_hour`].
    pub dearest_hour: (u64, u64),
}

/// A law that broke, or something that must be so in the end and is not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What it was.
    pub message: String,
    /// When.
    pub at: Duration,
    /// After how many steps.
    pub steps: u64,
}

/// One of a fleet.
#[derive(Clone, Debug)]
struct Member {
    who: Who,
    on_at: Duration,
    random: Random,
}

#[derive(Clone, Copy, Debug)]
enum Who {
    Arduino { library: Library, updater: Updater, loss_percent: u64, is_impatient: bool },
    Script(Dialect),
    NodeJs,
    Rogue(Mischief),
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Plain, Self::Tls, Self::Failovers, Self::Planted];

    /// The kind that a seed has when all seeds are tried: TLS is rare because it takes ten times as
    /// long.
    #[must_use]
    pub fn of(seed: u64) -> Self {
        match seed % 32 {
            31 => Self::Tls,
            7 | 15 | 23 => Self::Failovers,
            _ => Self::Plain,
        }
    }

    /// Its name on a command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Tls => "tls",
            Self::Failovers => "failovers",
            Self::Planted => "planted",
        }
    }
}

impl Fleet {
    /// The fleet of a seed, all of it.
    #[must_use]
    pub fn of(kind: Kind, seed: u64) -> Self {
        plan::fleet(kind, seed)
    }

    /// Only that part of it.
    #[must_use]
    pub fn only(&self, keep: Keep) -> Self {
        Self { keep, ..self.clone() }
    }

    /// The part of it that there is.
    #[must_use]
    pub fn keep(&self) -> &Keep {
        &self.keep
    }

    /// Its world, before anything happened.
    #[must_use]
    pub fn world(&self) -> World {
        let mut random = Random::new(self.seed ^ 0x3017);
        let mut store = ModelStore::new(random.draw());
        let (owner, key) = (scene::owner(OWNER), scene::key(KEY));
        store.add_key(owner, key);
        let mut world = World::new(random.draw(), store, Config::default(), self.servers);
        for (number, member) in self.members.iter().enumerate() {
            let mac = Mac::parse(&format!("5CCF7F0000{number:02X}"));
            match mac.filter(|_| self.keep.members.contains(&number)) {
                Some(mac) => member.join(&mut world, Identity { owner, key, mac }),
                // So that the numbers of the others stay what they are.
                None => world.join(Absent),
            }
        }
        if let Some(replication) = self.replication {
            world.desk.follow(replication);
        }
        for (deeds, kept) in [(&self.course, &self.keep.course), (&self.faults, &self.keep.faults)]
        {
            for (number, (at, deed)) in deeds.iter().enumerate() {
                if kept.contains(&number) {
                    world.plan(*at, deed.clone());
                }
            }
        }
        if let Some(percent) = self.tls_percent {
            world.protect(self.seed, percent);
        }
        world
    }

    /// Lets it happen.
    ///
    /// # Errors
    /// What broke, and when.
    pub fn run(&self) -> Result<Story, Failure> {
        self.run_with(None)
    }

    /// The same, and writes down what happens.
    ///
    /// # Errors
    /// What broke, and when.
    pub fn run_with(&self, journal: Option<Journal>) -> Result<Story, Failure> {
        let mut world = self.world();
        if let Some(journal) = journal {
            world.keep_journal(journal);
        }
        match catch_unwind(AssertUnwindSafe(|| self.live(&mut world))) {
            Ok(()) => Ok(self.story(&world)),
            Err(panic) => {
                let text = panic.downcast_ref::<String>().map(String::as_str);
                let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
                let message = text.unwrap_or("a panic without a word").to_owned();
                Err(Failure { message, at: world.clock.at(), steps: world.steps() })
            }
        }
    }

    /// The command that lets the same happen again.
    #[must_use]
    pub fn command(&self) -> String {
        let mut command =
            format!("tests/simulate --kind {} --seed {}", self.kind.name(), self.seed);
        let whole = Self::of(self.kind, self.seed).keep;
        for (name, kept, all) in [
            ("members", &self.keep.members, &whole.members),
            ("faults", &self.keep.faults, &whole.faults),
            ("course", &self.keep.course, &whole.course),
        ] {
            if kept != all {
                let numbers: Vec<String> = kept.iter().map(usize::to_string).collect();
                command += &format!(" --{name} {}", numbers.join(","));
            }
        }
        if self.keep.until != whole.until {
            command += &format!(" --until-ms {}", self.keep.until.as_millis());
        }
        command
    }

    fn live(&self, world: &mut World) {
        let mut lost = None;
        for at in [UNREST, SETTLED, END] {
            world.run(at.min(self.keep.until));
            if at == SETTLED && world.clock.at() == SETTLED {
                lost = Some(lost_check_ins(world));
                world.calm_down();
            }
        }
        if self.keep.until < END {
            return;
        }
        for actor in world.actors() {
            if let Some(flash) = actor.flash() {
                assert_eq!(flash.version(), LAST_VERSION, "left behind: {actor:#?}");
                assert!(actor.udid().is_some(), "never registered: {actor:#?}");
            }
        }
        let lost_since = lost_check_ins(world) - lost.unwrap_or_default();
        assert_eq!(lost_since, 0, "lost: check-ins although nothing is wrong");
    }

    fn story(&self, world: &World) -> Story {
        let devices = u32::try_from(self.keep.members.len()).unwrap_or(u32::MAX);
        Story {
            trace: world.trace(),
            steps: world.steps(),
            links: world.links_made(),
            device_time: world.clock.at() * devices,
            tails: (world.tails(), world.tails_of_many_servers()),
            cut_short: world.cut_short(),
            befallen: world.befallen(),
            outcomes: world.outcomes().clone(),
            handshakes: world.handshakes().clone(),
            dearest_hour: world.dearest_hour(),
        }
    }
}

impl Failure {
    /// What kind of failure it is: two of one kind are taken for the same.
    #[must_use]
    pub fn class(&self) -> &str {
        let text = self.message.trim_start_matches("assertion `left == right` failed: ");
        let end = text.find(':').or_else(|| text.find(|c: char| c.is_ascii_digit()));
        &text[..end.unwrap_or(text.len())]
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { message, at, steps } = self;
        write!(f, "after {:.3} s and {steps} steps: {message}", at.as_secs_f64())
    }
}

impl Member {
    fn join(&self, world: &mut World, identity: Identity) {
        let Self { on_at, random, .. } = self.clone();
        match self.who {
            Who::Arduino { library, updater, loss_percent, is_impatient } => {
                let device = Arduino::new(library, updater, identity, on_at, random);
                let device = device.far_away(loss_percent);
                world.join(if is_impatient { device.impatient() } else { device });
            }
            Who::Script(dialect) => world.join(Script::new(dialect, identity, on_at, random)),
            Who::NodeJs => world.join(NodeJs::new(identity, on_at, random)),
            Who::Rogue(mischief) => world.join(Rogue::new(mischief, identity, UNREST, random)),
        }
    }
}

/// Check-ins that ended in nothing, over all devices.
fn lost_check_ins(world: &World) -> u32 {
    world.actors().iter().map(|actor| actor.lost()).sum()
}

/// For so long everything goes wrong.
pub const UNREST: Duration = Duration::from_secs(30 * 60);
/// What the unrest began is over then.
pub const SETTLED: Duration = Duration::from_secs(35 * 60);
/// Every device has the last release then, half an hour after the last fault.
pub const END: Duration = Duration::from_secs(65 * 60);
const LAST_VERSION: &str = "9.0.0";
