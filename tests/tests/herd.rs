//! After an outage all devices come at once, and there is a release for all of them
//! (docs/design.md, "Herd"): no download that was let in is cut off by a time limit, the line is
//! used, and in the end everybody has the release. Without admission nobody has.

use std::time::Duration;

use otter_protocol::fuzzing::admitted;
use otter_protocol::{Answer, Config, Mac, Outcome, Refusal};
use otter_tests::device::Identity;
use otter_tests::device::arduino::{Arduino, Library};
use otter_tests::device::fetch::Updater;
use otter_tests::device::node::NodeJs;
use otter_tests::device::script::{Dialect, Script};
use otter_tests::exchange::kind;
use otter_tests::scene::{self, KEY, OWNER, Redeemable};
use otter_tests::world::Deed;
use otter_tests::{Draft, Exchange, Heard, ModelStore, Random, Request, World};

/// A fleet that lost its power, and the line of the server that it comes back to.
struct Herd {
    devices: usize,
    image_bytes: usize,
    bytes_per_s: u64,
    floor_bytes: u64,
    seed: u64,
}

/// What became of it.
#[derive(Debug)]
struct Seen {
    /// Devices with the release.
    done: usize,
    /// From the return to the moment when everybody had it, or to the end.
    took: Duration,
    /// Answers that were cut off.
    aborted: u64,
    delivered: u64,
    put_off: u64,
    put_off_in_an_hour: u64,
    held_back: u64,
    /// What share of the line was used until nine in ten had the release.
    used_percent: u64,
    longest_idle: Duration,
}

impl Herd {
    /// How long the line needs for all images if it does nothing else.
    fn line_time(&self) -> Duration {
        Duration::from_secs((self.devices * self.image_bytes) as u64 / self.bytes_per_s)
    }

    /// A world in which all devices registered and then lost their power, until that is back.
    fn world(&self) -> World {
        let mut random = Random::new(self.seed);
        let mut store = ModelStore::new(random.draw());
        let (owner, key) = (scene::owner(OWNER), scene::key(KEY));
        store.add_key(owner, key);
        let mut config = Config::default();
        config.transfer_backlog_bytes_min = self.floor_bytes;
        let mut world = World::new(random.draw(), store, config, 1);
        for number in 0..self.devices {
            let mac = Mac::parse(&format!("5CCF7F{number:06X}")).expect("an address");
            let identity = Identity { owner, key, mac };
            let on_at = Duration::from_millis(random.below(300_000));
            join(&mut world, number, identity, on_at, random.fork());
            world.plan(RETURN, Deed::Reboot(number));
        }
        world.plan(OUTAGE, Deed::AllowUpdates);
        world.plan(OUTAGE, Deed::Crash(0));
        for platform in ["arduino", "nodemcu", "micropython"] {
            let platform = platform.to_owned();
            let draft = Draft { platform, ..Draft::binary("2.0.0", self.image_bytes) };
            world.plan(OUTAGE, Deed::Publish(owner, Box::new(draft)));
        }
        world.plan(RETURN, Deed::Restart(0));
        world.run(RETURN - Duration::from_secs(1));
        world.narrow(0, self.bytes_per_s);
        world
    }

    /// Lets it happen until everybody has the release, or for so many times as long as the line
    /// needs.
    fn run(&self, times: u32) -> Seen {
        let mut world = self.world();
        let mut used_percent = 0;
        let mut done = 0;
        while done < self.devices && world.clock.at() < RETURN + self.line_time() * times {
            world.run(world.clock.at() + Duration::from_secs(60));
            done = world.actors().iter().filter(|actor| is_done(&***actor)).count();
            let line = world.line(0).expect("a line");
            if done * 10 <= self.devices * 9 {
                let gone = world.clock.at().saturating_sub(RETURN).as_secs();
                used_percent = line.bytes() * 100 / (self.bytes_per_s * gone).max(1);
            }
        }
        let outcomes = world.outcomes();
        let of = |outcome| outcomes.get(&outcome).copied().unwrap_or_default();
        Seen {
            done,
            took: world.clock.at() - RETURN,
            aborted: of(Outcome::Aborted),
            delivered: of(Outcome::Delivered),
            put_off: of(Outcome::Refused(Refusal::PutOff)),
            put_off_in_an_hour: world.put_off_in_an_hour(),
            held_back: of(Outcome::HeldBack),
            used_percent,
            longest_idle: world.line(0).map(|line| line.longest_idle()).expect("a line"),
        }
    }
}

/// Those that take no updates have nothing to wait for.
fn is_done(actor: &dyn otter_tests::device::Actor) -> bool {
    actor.flash().is_none_or(|flash| flash.version() == "2.0.0")
}

/// A device of any kind.
fn join(world: &mut World, number: usize, identity: Identity, on_at: Duration, random: Random) {
    let arduino =
        |library, updater, random| Arduino::new(library, updater, identity.clone(), on_at, random);
    match number % 12 {
        0 => world.join(arduino(Library::V2_3, Updater::Esp8266, random)),
        1 => world.join(arduino(Library::V3_0, Updater::Esp8266, random)),
        2 => world.join(Script::new(Dialect::Lua, identity, on_at, random)),
        3 => world.join(Script::new(Dialect::MicroPython, identity, on_at, random)),
        4 if number < 120 => world.join(NodeJs::new(identity, on_at, random)),
        5 => world.join(arduino(Library::V2_9, Updater::Esp8266, random).impatient()),
        6 => {
            let updater = Updater::IdfParts { part_bytes: 4096 };
            world.join(arduino(Library::V2_9, updater, random));
        }
        7 => world.join(arduino(Library::V2_9, Updater::IdfWhole, random)),
        8 => {
            let updater = Updater::Esp32 { tells_md5: true };
            world.join(arduino(Library::V2_9, updater, random).far_away(5));
        }
        _ => world.join(arduino(Library::V2_9, Updater::Esp8266, random)),
    }
}

/// 20 MB on a line of 64 kbit/s: 42 minutes, if nothing is lost.
const THOUSAND: Herd = Herd {
    devices: 1000,
    image_bytes: 20_000,
    bytes_per_s: 8000,
    floor_bytes: 256 * 1024,
    seed: 1,
};

#[test]
fn a_thousand_that_come_at_once_all_get_the_release() {
    check(&THOUSAND);
}

#[test]
#[ignore = "takes minutes: cargo test --release -p otter-tests --test herd -- --ignored"]
fn ten_thousand_that_come_at_once_all_get_the_release() {
    check(&Herd { devices: 10_000, bytes_per_s: 80_000, ..THOUSAND });
}

fn check(herd: &Herd) {
    let seen = herd.run(2);
    assert_eq!(seen.done, herd.devices, "left behind: {seen:?}");
    assert_eq!(seen.aborted, 0, "cut off by a limit: {seen:?}");
    assert!(seen.took < herd.line_time() * 2, "{seen:?}");
    assert!(seen.held_back > seen.put_off, "offers are spread: {seen:?}");
    assert!(seen.put_off_in_an_hour <= PUT_OFF_IN_AN_HOUR_MAX, "{seen:?}");
    assert!(seen.longest_idle <= CHECK_IN_WAIT_MAX, "the line waits: {seen:?}");
    assert!(seen.used_percent >= 70, "the line waits: {seen:?}");
}

/// So the scene can fail: transfers are begun and cut off, over and over, and nobody gets on.
#[test]
fn without_admission_they_do_not() {
    let seen = Herd { floor_bytes: u64::MAX, ..THOUSAND }.run(1);
    assert!(seen.done < THOUSAND.devices / 10, "{seen:?}");
    assert!(seen.aborted > 100 * (seen.delivered + 1), "{seen:?}");
}

/// A scene whose line one download fills.
fn narrow(image_bytes: usize) -> Redeemable {
    let mut offered = Redeemable::of(&Draft::binary("2.0.0", image_bytes));
    offered.scene.config.transfer_backlog_bytes_min = 1;
    offered
}

/// What comes of a request on a connection of its own that shares the line.
fn fetch(offered: &Redeemable, request: &Request) -> (Exchange, Heard) {
    let mut exchange = offered.scene.exchange_beside_others();
    let heard = exchange.request(&request.bytes());
    (exchange, heard)
}

/// A download that has begun, and takes nothing.
fn begun(offered: &Redeemable) -> Exchange {
    let mut exchange = offered.scene.exchange_beside_others();
    exchange.input(&offered.get().bytes());
    for expected in ["Redeem", "Start"] {
        assert_eq!(exchange.ask().as_ref().map(kind), Some(expected));
        exchange.answer_truly();
    }
    exchange
}

#[test]
fn a_download_that_is_put_off_leaves_its_token_as_it_was() {
    let offered = narrow(50_000);
    let first = begun(&offered);
    for retry_after in ["10", "11"] {
        let (exchange, heard) = fetch(&offered, &offered.get());
        let reply = heard.reply();
        assert_eq!((reply.status, heard.kinds()), (503, vec!["Redeem"]));
        assert_eq!(reply.header("Retry-After"), Some(retry_after));
        assert_eq!(reply.text(), r#"{"success":false,"response":"unavailable"}"#);
        assert!(reply.says_close());
        assert_eq!(exchange.outcome(), Some(Outcome::Refused(Refusal::PutOff)));
        assert!(!exchange.store.token(offered.token).expect("alive").started);
    }
    drop(first);
    let (_, heard) = fetch(&offered, &offered.get());
    assert_eq!((heard.reply().status, heard.reply().body.len()), (200, 50_000));
}

#[test]
fn a_download_by_key_is_put_off_as_well() {
    let mut offered = narrow(50_000);
    offered.scene.store.set_auto_update(scene::device(scene::DEVICE), true);
    let first = begun(&offered);
    let by_key = Request::post("/device/firmware", &scene::firmware().json()).key(KEY);
    assert_eq!(fetch(&offered, &by_key).1.reply().status, 503);
    drop(first);
    assert_eq!(fetch(&offered, &by_key).1.reply().status, 200);
}

#[test]
fn heads_and_short_parts_are_never_put_off() {
    let offered = narrow(200_000);
    let _first = begun(&offered);
    let of = |request: &Request| fetch(&offered, request).1.replies()[0].status;
    let head = fetch(&offered, &offered.get().method("HEAD")).0;
    assert_eq!(head.outcome(), Some(Outcome::Answered));
    assert_eq!(of(&offered.get().header("Range", "bytes=1000-5000")), 206);
    assert_eq!(of(&offered.get().header("Range", "bytes=150000-")), 206);
    assert_eq!(of(&offered.get().header("Range", "bytes=100000-")), 503);
    assert_eq!(of(&offered.get().header("Range", "bytes=0-")), 503);
}

/// A line of 5.6 kB/s, as its owner says: of two that take 600 bytes/s together it is not full.
#[test]
fn who_reads_slowly_for_a_while_keeps_nobody_out() {
    let mut offered = Redeemable::of(&Draft::binary("2.0.0", 900_000));
    offered.scene.config.transfer_backlog_bytes_min = 1_000_000;
    let mut slow = [begun(&offered), begun(&offered)];
    assert_eq!(fetch(&offered, &offered.get()).1.reply().status, 503);
    for _ in 0..17 {
        for exchange in &mut slow {
            exchange.advance(Duration::from_secs(1));
            exchange.take(300);
        }
    }
    let mut late = offered.scene.exchange_beside_others();
    late.advance(Duration::from_secs(17));
    let heard = late.request(&offered.get().bytes());
    assert_eq!((heard.reply().status, heard.reply().body.len()), (200, 900_000));
    assert!(slow.iter().all(|exchange| exchange.peer.closed().is_none()));
}

#[test]
fn a_check_in_gets_no_offer_while_the_line_is_full_and_writes_nothing_for_it() {
    let mut offered = narrow(50_000);
    offered.scene.store.set_auto_update(scene::device(scene::DEVICE), true);
    let check_in = Request::check_in(KEY, &scene::registration().wrapped("registration"));
    let first = begun(&offered);
    // The first one tells that it runs 1.0.0, the second one nothing new.
    for kinds in [&["Identify", "Record"][..], &["Identify"]] {
        let (told, heard) = fetch(&offered, &check_in);
        assert!(heard.reply().text().contains(r#""status":"OK""#));
        assert_eq!(told.outcome(), Some(Outcome::HeldBack));
        assert_eq!(heard.kinds(), kinds);
        offered.scene.store = told.store;
        let kept = offered.scene.store.device(scene::device(scene::DEVICE)).expect("known");
        assert_eq!(kept.device.offered, None);
    }
    drop(first);
    let (asked, heard) = fetch(&offered, &check_in);
    assert_eq!(asked.outcome(), Some(Outcome::Offered));
    assert_eq!(heard.kinds(), ["Identify", "Record"]);
}

/// Whatever becomes of downloads, in any order: what was admitted is given back.
#[test]
fn nothing_stays_admitted_after_any_sequence_of_calls() {
    let mut most = 0;
    for seed in 0..400 {
        let mut random = Random::new(seed);
        let mut offered =
            Redeemable::of(&Draft::binary("2.0.0", random.between(1, 300_000) as usize));
        offered.scene.config.transfer_backlog_bytes_min = *random.pick(&[1, 500_000, u64::MAX]);
        let mut some: Vec<Exchange> =
            (0..4).map(|_| offered.scene.exchange_beside_others()).collect();
        for _ in 0..60 {
            let at = random.below(4) as usize;
            call(&mut some[at], &offered, &mut random);
            let (bytes, downloads) = admitted(&offered.scene.config);
            assert!(downloads <= 4 && bytes <= 4 * 300_000, "seed {seed}: {bytes} {downloads}");
            most = most.max(downloads);
        }
        for exchange in some.iter_mut().take(2) {
            exchange.peer.reset(exchange.clock.now());
        }
        some.drain(2..);
        // The first two are closed and not forgotten.
        assert_eq!(admitted(&offered.scene.config), (0, 0), "seed {seed}");
    }
    assert_eq!(most, 4);
}

/// Something happens to a connection.
fn call(exchange: &mut Exchange, offered: &Redeemable, random: &mut Random) {
    let now = exchange.clock.now();
    if exchange.peer.closed().is_some() {
        *exchange = offered.scene.exchange_beside_others();
    }
    match random.below(16) {
        0..3 => exchange.input(&offered.get().bytes()),
        3 => exchange.input(&offered.get().method("HEAD").bytes()),
        4 => exchange.input(&offered.get().header("Range", "bytes=9-20000").bytes()),
        5 => {
            let by_key = Request::post("/device/firmware", &scene::firmware().json()).key(KEY);
            exchange.input(&by_key.bytes());
        }
        6..10 if exchange.ask().is_some() => match random.below(5) {
            0 => exchange.answer(Answer::Unavailable),
            _ => exchange.answer_truly(),
        },
        10..13 => {
            exchange.take(random.below(400_000) as usize);
        }
        13 => {
            exchange.advance(Duration::from_secs(random.below(40)));
            exchange.peer.timeout(exchange.clock.now());
        }
        14 => exchange.peer.eof(now),
        15 if random.chance(30) => exchange.peer.reset(now),
        15 => exchange.peer.shutdown(now),
        _ => {}
    }
}

/// The power fails, and the server with it.
const OUTAGE: Duration = Duration::from_secs(600);
/// Both are back.
const RETURN: Duration = Duration::from_secs(900);
/// How long devices wait for their next check-in at most.
const CHECK_IN_WAIT_MAX: Duration = Duration::from_secs(300);
/// A library that does not look at `Retry-After` tries again at once, so this is what spreading the
/// offers must do.
const PUT_OFF_IN_AN_HOUR_MAX: u64 = 10;
