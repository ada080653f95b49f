//! Servers are restarted one after another while devices download, as an operator updates them:
//! no download fails that the drain leaves time for, and one that takes longer goes on elsewhere.

use std::time::Duration;

use otter_protocol::{Config, Mac, Outcome, Refusal};
use otter_tests::device::Identity;
use otter_tests::device::arduino::{Arduino, Library};
use otter_tests::device::fetch::Updater;
use otter_tests::scene::{self, KEY, OWNER};
use otter_tests::world::Deed;
use otter_tests::{Draft, ModelStore, Random, World};

const SERVERS: usize = 3;
const SEEDS: u64 = 10;
/// What the driver gives connections by default before it drops them.
const DRAIN: Duration = Duration::from_secs(30);
const PUBLISHED_AT: Duration = Duration::from_secs(15 * 60);
const END: Duration = Duration::from_secs(40 * 60);
const VERSION: &str = "2.0.0";

/// A fleet that is registered and may be updated, a release of `size` bytes, and servers behind a
/// load balancer that sends nobody to one that is down.
fn world(seed: u64, updaters: &[Updater], size: usize) -> World {
    let mut random = Random::new(seed);
    let mut store = ModelStore::new(random.draw());
    let (owner, key) = (scene::owner(OWNER), scene::key(KEY));
    store.add_key(owner, key);
    let mut world = World::new(random.draw(), store, Config::default(), SERVERS);
    world.is_balanced = true;
    for (number, updater) in updaters.iter().enumerate() {
        let mac = Mac::parse(&format!("5CCF7F0000{number:02X}")).expect("a MAC");
        let identity = Identity { owner, key, mac };
        let on_at = Duration::from_millis(random.below(120_000));
        world.join(Arduino::new(Library::V2_9, *updater, identity, on_at, random.fork()));
    }
    world.plan(Duration::from_secs(4 * 60), Deed::AllowUpdates);
    let draft = Box::new(Draft::binary(VERSION, size));
    world.plan(PUBLISHED_AT, Deed::Publish(owner, draft));
    world
}

/// One server after another finishes, stops and is back, over and over. The drivers' own rule:
/// what is not done at the end of the drain is dropped.
fn restart_in_turn(world: &mut World, until: Duration) {
    let mut at = PUBLISHED_AT + Duration::from_secs(5);
    for server in (0..SERVERS).cycle() {
        if at >= until {
            break;
        }
        world.plan(at, Deed::Drain(server));
        world.plan(at + DRAIN, Deed::Crash(server));
        world.plan(at + DRAIN + Duration::from_secs(1), Deed::Restart(server));
        at += DRAIN + Duration::from_secs(2);
    }
}

fn count(world: &World, outcome: Outcome) -> u64 {
    world.outcomes().get(&outcome).copied().unwrap_or_default()
}

#[test]
fn no_download_fails_that_the_drain_leaves_time_for() {
    let updaters = [
        Updater::Esp8266,
        Updater::Esp8266,
        Updater::Esp8266,
        Updater::IdfWhole,
        Updater::IdfWhole,
        Updater::IdfParts { part_bytes: 16_384 },
        Updater::IdfParts { part_bytes: 16_384 },
    ];
    let mut drained_at_work = 0;
    for seed in 0..SEEDS {
        let mut world = world(seed, &updaters, 200_000);
        restart_in_turn(&mut world, END);
        world.run(END);
        for actor in world.actors() {
            let flash = actor.flash().expect("a device");
            assert_eq!(flash.version(), VERSION, "seed {seed}: {actor:#?}");
            assert_eq!(flash.hauls.len(), 1, "seed {seed}: {actor:#?}");
            assert_eq!(actor.lost(), 0, "seed {seed}: {actor:#?}");
        }
        assert_eq!(world.cut_short(), 0, "seed {seed}: the drain was too short for this test");
        for failure in [
            Outcome::Aborted,
            Outcome::Unclaimed,
            Outcome::Refused(Refusal::Unavailable),
            Outcome::Refused(Refusal::DeadToken),
        ] {
            assert_eq!(count(&world, failure), 0, "seed {seed}: {failure:?}");
        }
        assert_eq!(count(&world, Outcome::Offered), updaters.len() as u64, "seed {seed}");
        drained_at_work += world.drained_at_work();
    }
    assert!(drained_at_work > 0, "no server was told to finish while it had work");
}

/// Longer than the drain: cut off, and resumed with the same token on another server.
#[test]
fn a_download_that_takes_longer_goes_on_elsewhere() {
    let updaters = [Updater::IdfWhole; 3];
    let (mut cut_short, mut moved) = (0, 0);
    for seed in 0..SEEDS / 2 {
        let mut world = world(seed, &updaters, 4_000_000);
        restart_in_turn(&mut world, END);
        world.run(END);
        for actor in world.actors() {
            let flash = actor.flash().expect("a device");
            assert_eq!(flash.version(), VERSION, "seed {seed}: {actor:#?}");
        }
        let offered = count(&world, Outcome::Offered);
        assert_eq!(offered, updaters.len() as u64, "seed {seed}: a second token was needed");
        assert_eq!(world.tails(), updaters.len(), "seed {seed}");
        cut_short += world.cut_short();
        moved += world.tails_of_many_servers();
    }
    assert!(cut_short > 0 && moved > 0, "{cut_short} were cut off, {moved} went on elsewhere");
}
