//! What the seed of a fleet decides.

use std::time::Duration;

use otter_protocol::OwnerId;

use super::{END, Fleet, Keep, Kind, LAST_VERSION, Member, UNREST, Who};
use crate::device::arduino::Library;
use crate::device::fetch::Updater;
use crate::device::rogue::Mischief;
use crate::device::script::Dialect;
use crate::scene::{self, OWNER};
use crate::world::{Blow, Deed, Moment};
use crate::{Draft, Faults, Random, Replication};

pub(super) fn fleet(kind: Kind, seed: u64) -> Fleet {
    let mut random = Random::new(seed ^ 0x5eed);
    let has_failovers = matches!(kind, Kind::Failovers | Kind::Planted);
    let servers = if has_failovers { 3 } else { random.between(2, 3) as usize };
    let members = people(&mut random, has_failovers);
    let mut plan = Plan { random, servers, members: members.len(), faults: Vec::new() };
    plan.trouble();
    let has_replica = plan.random.chance(30) || has_failovers;
    let replication = has_replica.then(|| plan.fail_over(kind != Kind::Planted));
    let course = plan.course();
    let tls_percent = *plan.random.pick(&[50, 100]);
    let keep = Keep {
        members: (0..members.len()).collect(),
        faults: (0..plan.faults.len()).collect(),
        course: (0..course.len()).collect(),
        until: END,
    };
    Fleet {
        kind,
        seed,
        servers,
        members,
        course,
        faults: plan.faults,
        replication,
        tls_percent: (kind == Kind::Tls).then_some(tls_percent),
        keep,
    }
}

fn people(random: &mut Random, has_thieves: bool) -> Vec<Member> {
    let mut who = Vec::new();
    for library in [Library::V2_3, Library::V3_0, Library::V2_9, Library::V2_9] {
        let updater = match library {
            Library::V2_3 | Library::V3_0 => Updater::Esp8266,
            Library::V2_9 => *random.pick(&[
                Updater::Esp8266,
                Updater::Esp32 { tells_md5: true },
                Updater::Esp32 { tells_md5: false },
                Updater::IdfWhole,
                Updater::IdfParts { part_bytes: 4096 },
                Updater::IdfParts { part_bytes: 16_384 },
            ]),
        };
        let loss_percent = *random.pick(&[0, 0, 2, 10]);
        let is_impatient = library != Library::V2_3 && random.chance(10);
        who.push(Who::Arduino { library, updater, loss_percent, is_impatient });
    }
    who.extend([Who::Script(Dialect::Lua), Who::Script(Dialect::MicroPython), Who::NodeJs]);
    if !has_thieves {
        // Small fleets are quick, and many of them meet more than few large ones.
        let mut number = 0;
        who.retain(|_| {
            number += 1;
            number == 4 || random.chance(45)
        });
    }
    for _ in 0..random.between(1, 3) {
        who.push(Who::Rogue(*random.pick(&Mischief::ALL)));
    }
    if has_thieves {
        who.extend([Who::Rogue(Mischief::Steals); 3]);
    }
    let mut member = |who| {
        let on_at = match who {
            Who::Arduino { .. } | Who::Script(_) => Duration::from_millis(random.below(120_000)),
            Who::NodeJs | Who::Rogue(_) => Duration::from_secs(5),
        };
        Member { who, on_at, random: random.fork() }
    };
    who.into_iter().map(&mut member).collect()
}

/// What is being planned.
struct Plan {
    random: Random,
    servers: usize,
    members: usize,
    faults: Vec<(Duration, Deed)>,
}

impl Plan {
    fn fault(&mut self, at: Duration, deed: Deed) {
        self.faults.push((at, deed));
    }

    fn sometime(&mut self) -> Duration {
        Duration::from_secs(self.random.below(UNREST.as_secs()))
    }

    fn server(&mut self) -> usize {
        self.random.below(self.servers as u64) as usize
    }

    /// Half an hour in which everything goes wrong.
    fn trouble(&mut self) {
        if self.random.chance(30) {
            let at = self.sometime();
            self.fault(at, Deed::Withdraw);
        }
        self.trouble_servers();
        self.trouble_clocks();
        for _ in 0..self.random.below(5) {
            let at = self.sometime();
            let moment = *self.random.pick(&Moment::ALL);
            let blow = *self.random.pick(&[Blow::Crash, Blow::CutOff, Blow::Withdraw]);
            self.fault(at, Deed::Ambush(moment, blow));
        }
        for _ in 0..self.random.below(4) {
            let (at, member) = (self.sometime(), self.random.below(self.members as u64));
            self.fault(at, Deed::Reboot(member as usize));
        }
        let percent = *self.random.pick(&[0, 5, 30]);
        self.fault(Duration::ZERO, Deed::BreakLinks(percent));
        let faults = Faults {
            delay_ms_max: *self.random.pick(&[0, 5, 500]),
            refused_percent: *self.random.pick(&[0, 0, 5, 20]),
            unacknowledged_percent: *self.random.pick(&[0, 0, 5, 20]),
            stalled_percent: *self.random.pick(&[0, 0, 2, 10]),
        };
        self.fault(Duration::ZERO, Deed::StoreFaults(faults));
    }

    /// Servers stop, and lose their way to the store.
    fn trouble_servers(&mut self) {
        for _ in 0..self.random.below(5) {
            let (at, server) = (self.sometime(), self.server());
            let is_sudden = self.random.chance(50);
            let back_at = at + Duration::from_secs(self.random.between(1, 120));
            self.fault(at, if is_sudden { Deed::Crash(server) } else { Deed::Drain(server) });
            self.fault(back_at, Deed::Restart(server));
        }
        for _ in 0..self.random.below(5) {
            let (at, server) = (self.sometime(), self.server());
            let back_at = at + Duration::from_secs(self.random.between(1, 60));
            self.fault(at, Deed::CutOff(server));
            self.fault(back_at, Deed::Reconnect(server));
        }
    }

    /// Servers have a wrong time; the store's is wrong as well.
    fn trouble_clocks(&mut self) {
        for _ in 0..self.random.below(4) {
            let (at, server, skew_s) = (self.sometime(), self.server(), self.skew_s());
            self.fault(at, Deed::ServerClock(server, skew_s));
        }
        for _ in 0..self.random.below(3) {
            let (at, skew_s) = (self.sometime(), self.skew_s());
            self.fault(at, Deed::StoreClock(skew_s));
        }
    }

    /// A minute, an hour, a day, or all the way back to 1970.
    fn skew_s(&mut self) -> i64 {
        let skew_s = self.random.pick(&[60, 3600, 86_400, 2_000_000_000]).to_owned();
        if self.random.chance(50) { skew_s } else { -skew_s }
    }

    /// A replica that lags, and takes the store's place a few times.
    fn fail_over(&mut self, claims_wait: bool) -> Replication {
        let lag_ms_max = *self.random.pick(&[20, 500, 1500]);
        for _ in 0..self.random.between(1, 8) {
            let at = self.sometime();
            self.fault(at, Deed::FailOver);
            let (at, moment) = (self.sometime(), *self.random.pick(&[Moment::Claim, Moment::Tail]));
            self.fault(at, Deed::Ambush(moment, Blow::FailOver));
        }
        Replication { lag_ms_max, claims_wait }
    }

    /// Releases meanwhile; then peace, and one last release.
    fn course(&mut self) -> Vec<(Duration, Deed)> {
        let owner = scene::owner(OWNER);
        let minutes = |minutes: u64| Duration::from_secs(60 * minutes);
        let allowed_at = [1, 4, 10, 20].map(minutes);
        let mut course: Vec<_> = allowed_at.map(|at| (at, Deed::AllowUpdates)).into();
        for minor in 1..=self.random.between(1, 4) {
            let at = UNREST / 6 * u32::try_from(minor).unwrap_or(1);
            self.publish(&mut course, at, owner, &format!("1.{minor}.0"));
        }
        for server in 0..self.servers {
            course.push((UNREST, Deed::Reconnect(server)));
            course.push((UNREST, Deed::ServerClock(server, 0)));
            course.push((UNREST + Duration::from_secs(130), Deed::Restart(server)));
        }
        let calm = Faults { delay_ms_max: 5, ..Faults::default() };
        course.extend([
            (UNREST, Deed::StoreClock(0)),
            (UNREST, Deed::CallOff),
            (UNREST, Deed::StoreFaults(calm)),
            (UNREST, Deed::BreakLinks(0)),
            (UNREST + minutes(3), Deed::AllowUpdates),
            (UNREST + minutes(10), Deed::AllowUpdates),
        ]);
        self.publish(&mut course, UNREST + Duration::from_secs(150), owner, LAST_VERSION);
        course
    }

    /// A version for each platform, each a little longer than the one before.
    fn publish(
        &mut self,
        course: &mut Vec<(Duration, Deed)>,
        at: Duration,
        owner: OwnerId,
        version: &str,
    ) {
        let size = self.random.between(1000, 20_000) as usize;
        for (longer, platform) in ["nodemcu", "micropython", "arduino"].iter().enumerate() {
            let platform = (*platform).to_owned();
            let draft = Draft { platform, ..Draft::binary(version, size + longer) };
            course.push((at, Deed::Publish(owner, Box::new(draft))));
        }
    }
}
