//! Fleets of model devices against several servers over one store, with faults of every kind: no
//! spliced image, at most one whole image per token, and every honest device ends on the release
//! that it should. A load balancer that knows nothing sends each connection to another server.
//!
//! Each seed is a world of its own. `SEED=17` replays one; `SEEDS=10000` tries more than the
//! default.

use std::collections::BTreeMap;
use std::env;
use std::time::Duration;

use otter_protocol::{ApiKey, Config, Handshake, Mac, Outcome, OwnerId, Refusal, TlsFailure};
use otter_tests::device::arduino::{Arduino, Library};
use otter_tests::device::fetch::Updater;
use otter_tests::device::node::NodeJs;
use otter_tests::device::rogue::{Mischief, Rogue};
use otter_tests::device::script::{Dialect, Script};
use otter_tests::device::{Haul, Identity};
use otter_tests::image::version_of;
use otter_tests::scene::{self, KEY, OWNER};
use otter_tests::world::{Blow, Deed, Moment};
use otter_tests::{Draft, Faults, ModelStore, Random, Replication, World};

const SEEDS_DEFAULT: u64 = 200;
const FAILOVER_SEEDS: u64 = 60;
/// With TLS a seed takes ten times as long.
const TLS_SEEDS: u64 = 10;
const UNREST: Duration = Duration::from_secs(30 * 60);
const CALM: Duration = Duration::from_secs(60 * 60);
/// What the unrest began may last a little longer.
const SETTLING: Duration = Duration::from_secs(5 * 60);
const LAST_VERSION: &str = "9.0.0";

/// Says which seed it was if the test fails.
struct Seed(u64);

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("replay with SEED={} cargo test -p otter-tests --test simulation", self.0);
        }
    }
}

/// The seeds that are asked for, or so many.
fn seeds(default: u64) -> impl Iterator<Item = u64> {
    let number = |name: &str| env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    match number("SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("SEEDS").unwrap_or(default),
    }
}

/// A world with a fleet, and a plan of what befalls it.
fn world(seed: u64) -> World {
    let mut random = Random::new(seed ^ 0x5eed);
    let servers = random.between(2, 3) as usize;
    let (mut world, owner, key) = empty_world(&mut random, servers);
    people(&mut world, &mut random, owner, key);
    plan(&mut world, &mut random, owner, servers);
    if random.chance(30) {
        fail_over(&mut world, &mut random, true);
    }
    world
}

/// Nobody has come yet; there is an owner with a key.
fn empty_world(random: &mut Random, servers: usize) -> (World, OwnerId, ApiKey) {
    let mut store = ModelStore::new(random.draw());
    let (owner, key) = (scene::owner(OWNER), scene::key(KEY));
    store.add_key(owner, key);
    (World::new(random.draw(), store, Config::default(), servers), owner, key)
}

fn people(world: &mut World, random: &mut Random, owner: OwnerId, key: ApiKey) {
    let mut count = 0;
    let mut identity = || {
        count += 1;
        let mac = Mac::parse(&format!("5CCF7F0000{count:02X}")).expect("a MAC");
        Identity { owner, key, mac }
    };
    for library in [Library::V2_3, Library::V3_0, Library::V2_9, Library::V2_9] {
        let on_at = Duration::from_millis(random.below(120_000));
        let updater = match library {
            Library::V2_3 | Library::V3_0 => Updater::Esp8266,
            Library::V2_9 => *random.pick(&[
                Updater::Esp8266,
                Updater::IdfWhole,
                Updater::IdfParts { part_bytes: 4096 },
                Updater::IdfParts { part_bytes: 16_384 },
            ]),
        };
        world.join(Arduino::new(library, updater, identity(), on_at, random.fork()));
    }
    for dialect in [Dialect::Lua, Dialect::MicroPython] {
        let on_at = Duration::from_millis(random.below(120_000));
        world.join(Script::new(dialect, identity(), on_at, random.fork()));
    }
    world.join(NodeJs::new(identity(), Duration::from_secs(5), random.fork()));
    for _ in 0..random.between(1, 3) {
        let mischief = *random.pick(&Mischief::ALL);
        world.join(Rogue::new(mischief, identity(), UNREST, random.fork()));
    }
}

/// Half an hour of unrest, then peace and one last release.
fn plan(world: &mut World, random: &mut Random, owner: OwnerId, servers: usize) {
    for minute in [1, 4, 10, 20] {
        world.plan(Duration::from_secs(60 * minute), Deed::AllowUpdates);
    }
    for minor in 1..=random.between(1, 4) {
        let size = random.between(1000, 20_000) as usize;
        let at = UNREST * u32::try_from(minor).expect("few") / 6;
        publish(world, at, owner, &format!("1.{minor}.0"), size);
    }
    if random.chance(30) {
        let at = sometime(random);
        world.plan(at, Deed::Withdraw);
    }
    trouble_servers(world, random, servers);
    world.plan(Duration::ZERO, Deed::BreakLinks(random.pick(&[0, 5, 30]).to_owned()));
    let faults = Faults {
        delay_ms_max: *random.pick(&[0, 5, 500]),
        refused_percent: *random.pick(&[0, 0, 5, 20]),
        unacknowledged_percent: *random.pick(&[0, 0, 5, 20]),
        stalled_percent: *random.pick(&[0, 0, 2, 10]),
    };
    world.plan(Duration::ZERO, Deed::StoreFaults(faults));
    world.plan(UNREST, Deed::StoreFaults(Faults { delay_ms_max: 5, ..Faults::default() }));
    world.plan(UNREST, Deed::BreakLinks(0));
    for server in 0..servers {
        world.plan(UNREST + Duration::from_secs(130), Deed::Restart(server));
    }
    for minute in [3, 10] {
        world.plan(UNREST + Duration::from_secs(60 * minute), Deed::AllowUpdates);
    }
    let size = random.between(1000, 20_000) as usize;
    publish(world, UNREST + Duration::from_secs(150), owner, LAST_VERSION, size);
}

fn sometime(random: &mut Random) -> Duration {
    Duration::from_secs(random.below(UNREST.as_secs()))
}

/// Servers stop, lose their way to the store, and have a wrong time; the store's is wrong as well.
fn trouble_servers(world: &mut World, random: &mut Random, servers: usize) {
    let any = |random: &mut Random| random.below(servers as u64) as usize;
    for _ in 0..random.below(5) {
        let (at, server) = (sometime(random), any(random));
        let down = if random.chance(50) { Deed::Crash(server) } else { Deed::Drain(server) };
        world.plan(at, down);
        world.plan(at + Duration::from_secs(random.between(1, 120)), Deed::Restart(server));
    }
    for _ in 0..random.below(5) {
        let (at, server) = (sometime(random), any(random));
        world.plan(at, Deed::CutOff(server));
        world.plan(at + Duration::from_secs(random.between(1, 60)), Deed::Reconnect(server));
    }
    for _ in 0..random.below(4) {
        let (at, server, skew_s) = (sometime(random), any(random), skew_s(random));
        world.plan(at, Deed::ServerClock(server, skew_s));
    }
    for _ in 0..random.below(3) {
        let (at, skew_s) = (sometime(random), skew_s(random));
        world.plan(at, Deed::StoreClock(skew_s));
    }
    for _ in 0..random.below(4) {
        let at = sometime(random);
        let moment = *random.pick(&[Moment::Claim, Moment::Tail]);
        let blow = *random.pick(&[Blow::Crash, Blow::CutOff]);
        world.plan(at, Deed::Ambush(moment, blow));
    }
    for server in 0..servers {
        world.plan(UNREST, Deed::Reconnect(server));
        world.plan(UNREST, Deed::ServerClock(server, 0));
    }
    world.plan(UNREST, Deed::StoreClock(0));
    world.plan(UNREST, Deed::CallOff);
}

/// A minute, an hour, a day, or all the way back to 1970.
fn skew_s(random: &mut Random) -> i64 {
    let skew_s = random.pick(&[60, 3600, 86_400, 2_000_000_000]).to_owned();
    if random.chance(50) { skew_s } else { -skew_s }
}

/// A replica that lags, and takes the store's place a few times.
fn fail_over(world: &mut World, random: &mut Random, claims_wait: bool) {
    let lag_ms_max = *random.pick(&[20, 500, 1500]);
    world.desk.follow(Replication { lag_ms_max, claims_wait });
    for _ in 0..random.between(1, 8) {
        let at = sometime(random);
        world.plan(at, Deed::FailOver);
        let (at, moment) = (sometime(random), *random.pick(&[Moment::Claim, Moment::Tail]));
        world.plan(at, Deed::Ambush(moment, Blow::FailOver));
    }
}

/// A version for each platform, each a little longer than the one before.
fn publish(world: &mut World, at: Duration, owner: OwnerId, version: &str, size: usize) {
    for (longer, platform) in ["nodemcu", "micropython", "arduino"].iter().enumerate() {
        let platform = (*platform).to_owned();
        let draft = Draft { platform, ..Draft::binary(version, size + longer) };
        world.plan(at, Deed::Publish(owner, Box::new(draft)));
    }
}

/// What must hold at any time: whole images that were published, one per token.
fn check_hauls(world: &World) {
    let mut by_token = BTreeMap::new();
    let hauls: Vec<&Haul> = world.actors().iter().flat_map(|actor| actor.hauls()).collect();
    for haul in hauls {
        let published = world.desk.store.images().any(|image| *image == haul.image);
        assert!(published, "an image that nobody published: {:?}", version_of(&haul.image));
        if let Some(token) = &haul.token {
            let before = by_token.insert(token, haul);
            assert_eq!(before, None, "two whole images for one token");
        }
    }
}

fn check_end(world: &World) {
    for actor in world.actors() {
        if let Some(flash) = actor.flash() {
            assert_eq!(flash.version(), LAST_VERSION, "left behind: {actor:#?}");
            assert!(actor.udid().is_some(), "never registered: {actor:#?}");
        }
    }
}

/// Check-ins that ended in nothing, over all devices.
fn lost(world: &World) -> u32 {
    world.actors().iter().map(|actor| actor.lost()).sum()
}

#[test]
fn fleets_survive_faults() {
    for seed in seeds(SEEDS_DEFAULT) {
        let named = Seed(seed);
        let mut world = world(seed);
        world.run(UNREST);
        check_hauls(&world);
        world.run(UNREST + SETTLING);
        let lost = lost(&world);
        world.run(UNREST + CALM);
        check_hauls(&world);
        check_end(&world);
        assert_eq!(self::lost(&world), lost, "check-ins are lost although nothing is wrong");
        drop(named);
    }
}

/// Law 10 for a whole world.
#[test]
fn a_seed_is_a_history() {
    let trace = |seed| {
        let mut world = world(seed);
        world.run(UNREST);
        (world.trace(), world.steps(), world.links_made())
    };
    for seed in 0..5 {
        let _named = Seed(seed);
        assert_eq!(trace(seed), trace(seed));
    }
    assert_ne!(trace(0), trace(1));
}

/// The fleets meet what they are meant to meet: every kind of trouble, and tokens that are
/// redeemed on one server and used up on another.
#[test]
fn the_worlds_are_eventful() {
    let (mut links, mut tails, mut moved, mut failovers, mut cut_short) = (0, 0, 0, 0, 0);
    let mut outcomes = BTreeMap::new();
    for seed in 0..10 {
        let _named = Seed(seed);
        let mut world = world(seed);
        world.run(UNREST);
        links += world.links_made();
        tails += world.tails();
        moved += world.tails_of_many_servers();
        failovers += world.desk.failovers();
        cut_short += world.cut_short();
        for (outcome, count) in world.outcomes() {
            *outcomes.entry(*outcome).or_insert(0) += count;
        }
    }
    assert!(links > 1000, "{links} connections");
    assert!(tails > 30, "{tails} tails");
    assert!(moved > 10, "{moved} tokens that were presented to several servers");
    assert!(failovers > 10, "{failovers} failovers");
    assert!(cut_short > 0, "no answer was due when a server stopped");
    for outcome in [
        Outcome::Delivered,
        Outcome::Ranged,
        Outcome::Aborted,
        Outcome::Unclaimed,
        Outcome::Refused(Refusal::DeadToken),
        Outcome::Refused(Refusal::Unavailable),
    ] {
        assert!(outcomes.contains_key(&outcome), "{outcome:?} never happens: {outcomes:?}");
    }
}

/// A fleet with thieves that try every token again, and a store that fails over now and then.
fn world_with_failovers(seed: u64, claims_wait: bool) -> World {
    let mut random = Random::new(seed ^ 0xfa11);
    let (mut world, owner, key) = empty_world(&mut random, 3);
    people(&mut world, &mut random, owner, key);
    for number in 0..3 {
        let mac = Mac::parse(&format!("5CCF7F00FF{number:02X}")).expect("a MAC");
        let identity = Identity { owner, key, mac };
        world.join(Rogue::new(Mischief::Steals, identity, UNREST, random.fork()));
    }
    plan(&mut world, &mut random, owner, 3);
    fail_over(&mut world, &mut random, claims_wait);
    world
}

/// Promise 1 where a replica takes the store's place: a claim is answered once the replica has it.
#[test]
fn replicated_claims_survive_failovers() {
    let mut failovers = 0;
    for seed in seeds(FAILOVER_SEEDS) {
        let named = Seed(seed);
        let mut world = world_with_failovers(seed, true);
        world.run(UNREST);
        check_hauls(&world);
        failovers += world.desk.failovers();
        drop(named);
    }
    assert!(failovers > 0);
}

/// The same worlds where nothing waits for the replica: so the law can be broken, and the check
/// sees it.
#[test]
#[should_panic(expected = "law 9")]
fn claims_that_wait_for_nothing_do_not() {
    for seed in 0..SEEDS_DEFAULT {
        let mut world = world_with_failovers(seed, false);
        world.run(UNREST);
        check_hauls(&world);
    }
}

/// The world of a seed whose devices speak TLS: all of them, or a share.
fn world_over_tls(seed: u64) -> World {
    let mut world = world(seed);
    let mut random = Random::new(seed);
    world.protect(seed, *random.pick(&[50, 100]));
    world
}

/// The same fleets, faults and laws with TLS beneath.
#[test]
fn fleets_over_tls_survive_faults() {
    for seed in seeds(TLS_SEEDS) {
        let named = Seed(seed);
        let mut world = world_over_tls(seed);
        world.run(UNREST);
        check_hauls(&world);
        world.run(UNREST + SETTLING);
        let lost = lost(&world);
        world.run(UNREST + CALM);
        check_hauls(&world);
        check_end(&world);
        assert_eq!(self::lost(&world), lost, "check-ins are lost although nothing is wrong");
        drop(named);
    }
}

/// Law 10: plaintext, times and the sizes of ciphertext follow from the seed.
#[test]
fn a_seed_is_a_history_over_tls() {
    let trace = |seed| {
        let mut world = world_over_tls(seed);
        world.run(UNREST);
        (world.trace(), world.steps(), world.links_made(), world.handshakes().clone())
    };
    let traces = [0, 1].map(|seed| {
        let _named = Seed(seed);
        let first = trace(seed);
        assert_eq!(first, trace(seed));
        first.0
    });
    assert_ne!(traces[0], traces[1]);
}

/// Sessions begin, are taken up again and break in the middle, and tails leave.
#[test]
fn the_worlds_over_tls_are_eventful() {
    let (mut tails, mut handshakes) = (0, BTreeMap::new());
    for seed in 0..5 {
        let _named = Seed(seed);
        let mut world = world_over_tls(seed);
        world.run(UNREST);
        tails += world.tails();
        for (handshake, count) in world.handshakes() {
            *handshakes.entry(*handshake).or_insert(0) += count;
        }
    }
    assert!(tails > 10, "{tails} tails");
    for (handshake, count) in [
        (Handshake::Full, 100),
        (Handshake::Resumed, 100),
        (Handshake::Probed, 20),
        (Handshake::Failed(TlsFailure::Abandoned), 1),
    ] {
        let happened = handshakes.get(&handshake).copied().unwrap_or(0);
        assert!(happened >= count, "{handshake:?} happens {happened} times: {handshakes:?}");
    }
}

/// Law 9 is seen to be broken through TLS, too.
#[test]
#[should_panic(expected = "law 9")]
fn claims_over_tls_that_wait_for_nothing_do_not() {
    for seed in 0..SEEDS_DEFAULT {
        let mut world = world_with_failovers(seed, false);
        world.protect(seed, 100);
        world.run(UNREST);
        check_hauls(&world);
    }
}
