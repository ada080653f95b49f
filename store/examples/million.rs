//! Measures an embedded store with a million devices. See `docs/store.md` for the figures.
//!
//! ```sh
//! cargo run --release -p otter-store --example million -- /var/tmp/million
//! cargo run --release -p otter-store --example million -- /var/tmp/million 100000
//! ```
//!
//! The first argument is a directory, which is filled unless it is filled already; the second the
//! number of devices. Printed are: the time to load, the resident bytes per device, the time of a
//! steady `Identify` (alone, and in batches of 32 as a busy driver asks), and durable writes per
//! second in groups of 1, 16 and 64.
//!
//! With `identify <count>` as third and fourth argument it does nothing but fill a small memory
//! store and ask so often, for an instruction count:
//!
//! ```sh
//! for n in 100000 200000; do
//!     valgrind --tool=callgrind --callgrind-out-file=/dev/null \
//!         target/release/examples/million /var/tmp/small 1000 identify $n
//! done
//! ```
#![expect(clippy::print_stdout, reason = "a measuring program prints what it measured")]

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use otter_protocol::{
    Answer, ApiKey, CheckIn, DeviceId, Identify, Kind, Mac, OwnerId, Query, Record, Standing,
};
use otter_store::{
    Embedded, EmbeddedOptions, Image, Memory, MemoryOptions, NewRelease, Operator, Store, Target,
    Ticket,
};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let directory = PathBuf::from(arguments.next().ok_or("which directory?")?);
    let devices: u64 = arguments.next().map_or(Ok(1_000_000), |text| text.parse())?;
    if arguments.next().as_deref() == Some("identify") {
        let count: usize = arguments.next().ok_or("how often?")?.parse()?;
        return count_identify(&directory, devices, count);
    }
    println!(
        "Standing: {} bytes; Answer<Image>: {} bytes",
        size_of::<Standing>(),
        size_of::<Answer<Image>>()
    );
    fill(&directory, devices)?;

    let before = resident_bytes()?;
    let begun = Instant::now();
    let store = Embedded::open(&directory, EmbeddedOptions::default())?;
    let took = begun.elapsed();
    let grown = resident_bytes()?.saturating_sub(before);
    let known = store.operator().stats().devices;
    println!("load of {known} devices: {took:.2?}");
    println!("resident: {} MiB, {} bytes per device", grown >> 20, grown / known);

    let key = store.operator().create_key(&owner(), "measured")?.key;
    let mut asker = Asker::new(|wake| store.store(wake));
    for batch in [1, 32] {
        let ns = time_identify(&mut asker, key, devices, batch);
        println!("steady Identify, {batch} per turn: {ns} ns");
    }
    for group in [1, 16, 64] {
        let (per_second, each) = time_writes(&mut asker, devices, group);
        println!("durable, {group} per turn: {per_second} writes/s, {each:.2?} per commit");
    }
    Ok(())
}

/// Fills a store, unless the directory has one.
fn fill(directory: &Path, devices: u64) -> Result<(), Box<dyn Error>> {
    if directory.join("otter.db").exists() {
        return Ok(());
    }
    let begun = Instant::now();
    let store = Embedded::open(directory, EmbeddedOptions::default())?;
    populate(&store.operator())?;
    register(&mut Asker::new(|wake| store.store(wake)), devices);
    store.close();
    let size = fs::metadata(directory.join("otter.db"))?.len();
    println!("filled in {:.1?}: {} bytes per device on disk", begun.elapsed(), size / devices);
    Ok(())
}

/// An owner, and a release for each of ten platforms.
fn populate(operator: &Operator) -> Result<(), Box<dyn Error>> {
    operator.create_owner(Some(owner()))?;
    for number in 0..10 {
        let release = NewRelease {
            owner: owner(),
            target: Target::All,
            version: format!("2.{number}.0"),
            platform: platform(number),
            env_hash: None,
            kind: Kind::Image,
            source: None,
        };
        let staged = operator.stage(&mut &[7; 100_000][..], 1 << 20)?;
        operator.publish(release, staged, &|_, _, _| true)?;
    }
    Ok(())
}

fn register<S: Store<Image = Image>>(asker: &mut Asker<S>, devices: u64) {
    for first in (0..devices).step_by(1024) {
        let records = (first..devices.min(first + 1024)).map(|number| record(number, 0));
        asker.ask(records.collect());
    }
}

/// What a device of this number says in its check-in of this number.
fn record(number: u64, time: u64) -> Query {
    let version = format!("1.{}.{}", number % 20, time);
    let facts = format!(
        "{{\"mac\":\"{number:012X}\",\"firmware\":\"thinx-lib-esp8266-arduino:{version}\",\
         \"version\":\"{version}\",\"platform\":\"{}\",\"status\":\"Registered\",\"fcid\":\
         \"000000000000\",\"rssi\":\"-71\",\"snr\":null,\"station\":\"unknown\",\"lat\":null,\
         \"lon\":null,\"commit\":\"52e5b0dcb2ef8e1a41bc8c7d2ea8ce7ddc72fa4b\"}}",
        platform(number % 10)
    );
    let check_in = CheckIn {
        mac: Mac::from_bits(number),
        alias: None,
        version: Some(version.into()),
        platform: Some(platform(number % 10).into()),
        env_hash: None,
        facts: facts.into(),
        digest: number ^ time << 32,
        told_auto_update: false,
    };
    let device = Some(device(number));
    let (offered, grant) = (None, None);
    let check_in = Some(check_in);
    Query::Record(Box::new(Record { owner: owner(), device, check_in, offered, grant }))
}

fn time_identify<S: Store<Image = Image>>(
    asker: &mut Asker<S>,
    key: ApiKey,
    devices: u64,
    batch: usize,
) -> u128 {
    let owner = owner();
    let mut number = 0_u64;
    let mut best = Duration::MAX;
    let turns = 200_000 / batch;
    for _ in 0..7 {
        let begun = Instant::now();
        for _ in 0..turns {
            for _ in 0..batch {
                number = (number + 618_033) % devices;
                asker.queries.push((Ticket(0), identify(owner, key, number)));
            }
            asker.store.submit(&mut asker.queries);
            asker.store.collect(&mut asker.answers);
            assert_eq!(asker.answers.len(), batch);
            asker.answers.clear();
        }
        best = best.min(begun.elapsed());
    }
    best.as_nanos() / (turns * batch) as u128
}

fn time_writes<S: Store<Image = Image>>(
    asker: &mut Asker<S>,
    devices: u64,
    group: u64,
) -> (u64, Duration) {
    let turns = 300;
    let begun = Instant::now();
    for turn in 0..turns {
        let numbers = (0..group).map(|i| (turn * group + i) * 7_919 % devices);
        asker.ask(numbers.map(|number| record(number, turn + 1000 * group)).collect());
    }
    let took = begun.elapsed();
    ((turns * group * 1000) / took.as_millis() as u64, took / turns as u32)
}

/// Does as little else as it can, so that two counts differ by the queries alone.
fn count_identify(directory: &Path, devices: u64, count: usize) -> Result<(), Box<dyn Error>> {
    let memory = Memory::open(directory, MemoryOptions::default())?;
    populate(&memory.operator())?;
    let key = memory.operator().create_key(&owner(), "measured")?.key;
    let mut asker = Asker::new(|wake| memory.store(wake));
    register(&mut asker, devices);
    let owner = owner();
    for number in (0..devices).cycle().take(count) {
        asker.queries.push((Ticket(0), identify(owner, key, number)));
        asker.store.submit(&mut asker.queries);
        asker.store.collect(&mut asker.answers);
        asker.answers.clear();
    }
    Ok(())
}

/// One thread's side of a store, and its bell.
struct Asker<S> {
    store: S,
    bell: Receiver<()>,
    queries: Vec<(Ticket, Query)>,
    answers: Vec<(Ticket, Answer<Image>)>,
}

impl<S: Store<Image = Image>> Asker<S> {
    fn new(store: impl FnOnce(otter_store::Wake) -> S) -> Self {
        let (ring, bell) = mpsc::channel();
        let store = store(Arc::new(move || {
            let _ = ring.send(());
        }));
        Self { store, bell, queries: Vec::new(), answers: Vec::new() }
    }

    /// Asks all in one turn and waits for all answers.
    fn ask(&mut self, queries: Vec<Query>) {
        let asked = queries.len();
        self.queries.extend(queries.into_iter().map(|query| (Ticket(0), query)));
        self.store.submit(&mut self.queries);
        loop {
            self.store.collect(&mut self.answers);
            if self.answers.len() >= asked {
                break;
            }
            self.bell.recv_timeout(Duration::from_secs(60)).expect("an answer");
        }
        let kept =
            |(_, answer): &(Ticket, Answer<Image>)| matches!(answer, Answer::Recorded(Some(_)));
        assert!(self.answers.drain(..).all(|answer| kept(&answer)));
    }
}

fn identify(owner: OwnerId, key: ApiKey, number: u64) -> Query {
    let device = Some(device(number));
    Query::Identify(Identify { owner: Some(owner), key, device, mac: Mac::from_bits(number) })
}

/// Ids that look random and can be made again.
fn device(number: u64) -> DeviceId {
    let spread = u128::from(number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
    DeviceId(spread.to_be_bytes())
}

fn owner() -> OwnerId {
    OwnerId::parse(&"0123456789abcdef".repeat(4)).expect("an owner id")
}

fn platform(number: u64) -> String {
    format!("platform{number}:esp8266")
}

fn resident_bytes() -> Result<u64, Box<dyn Error>> {
    let statm = fs::read_to_string("/proc/self/statm")?;
    let pages: u64 = statm.split(' ').nth(1).ok_or("no resident pages")?.parse()?;
    Ok(pages * 4096)
}
