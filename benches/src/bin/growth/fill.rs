//! Fills a store as a server would, without sockets: owners, keys and releases as a copy takes them
//! in, devices by their first check-in through the core, thousands of them at a time.
//!
//! It runs in a process of its own, so that its memory is gone when something is measured.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};
use otter_benches::{APART, cpu};
use otter_protocol::{Answer, Config, Connection, Kind, Now, Offer, ReleaseId};
use otter_store::{
    Embedded, EmbeddedOptions, Fact, Image, KeyRow, Operator, Redis, RedisOptions, ReleaseRow,
    Store, Target, Ticket, Wake,
};

use crate::fleet::{Fleet, Owner};

/// Fills the embedded store in `place`, or the Redis with this URL, from another process; returns
/// how long that took.
///
/// # Errors
/// If that process failed.
pub(crate) fn fill(place: &str, fleet: &Fleet) -> Result<Duration> {
    let begun = Instant::now();
    let (devices, owners) = (fleet.devices.to_string(), fleet.owners().len().to_string());
    let mut child = Command::new(APART[0])
        .args(&APART[1..])
        .arg(std::env::current_exe()?)
        .args(["fill", place, &devices, &owners])
        .spawn()?;
    cpu::prefer(child.id());
    let status = child.wait()?;
    ensure!(status.success(), "{place} was not filled");
    Ok(begun.elapsed())
}

/// That process.
///
/// # Errors
/// If the store cannot be opened, or does not keep something.
pub(crate) fn run(mut words: impl Iterator<Item = String>) -> Result<()> {
    let place = words.next().context("what?")?;
    let devices = words.next().context("how many devices?")?.parse()?;
    let owners = words.next().context("how many owners?")?.parse()?;
    let fleet = Fleet::of_owners(devices, owners)?;
    if place.contains("://") {
        let directory = tempfile::tempdir()?;
        let mut options = RedisOptions::new(place);
        // What is late here is not lost.
        options.timeout = Duration::from_secs(60);
        let redis = Redis::open(directory.path(), options)?;
        populate(&redis.operator(), &fleet)?;
        register(|wake| redis.store(wake), &fleet)?;
        redis.close();
    } else {
        let options = EmbeddedOptions::default();
        let embedded = Embedded::open(Path::new(&place), options)?;
        populate(&embedded.operator(), &fleet)?;
        register(|wake| embedded.store(wake), &fleet)?;
        embedded.close();
    }
    Ok(())
}

/// Owners, each with a key and a release that its devices run.
fn populate(operator: &Operator, fleet: &Fleet) -> Result<()> {
    for owners in fleet.owners().chunks(256) {
        let created = 1_795_478_791;
        let mut facts: Vec<_> =
            owners.iter().map(|owner| Fact::Owner { owner: owner.id, created }).collect();
        facts.extend(owners.iter().map(|owner| Fact::Keys {
            owner: owner.id,
            keys: vec![KeyRow {
                owner: owner.id,
                hash: owner.key_hash(),
                alias: "measured".to_owned(),
                created,
            }],
            kept: None,
        }));
        facts.extend(owners.iter().map(|owner| Fact::Release { row: release(owner), place: 1 }));
        operator.import(facts)?;
    }
    Ok(())
}

/// Its image is nowhere: nobody asks for it.
fn release(owner: &Owner) -> ReleaseRow {
    let mut id = [0; 16];
    id.copy_from_slice(&owner.key_hash()[..16]);
    let offer = Offer {
        release: ReleaseId(id),
        version: "2.9.450".into(),
        platform: "arduino".into(),
        env_hash: None,
        sha256: [1; 32],
        md5: [2; 16],
        size: 1 << 20,
        kind: Kind::Image,
    };
    ReleaseRow {
        offer: Arc::new(offer),
        owner: owner.id,
        target: Target::All,
        published: 1_795_478_791,
        withdrawn: None,
        source: None,
    }
}

/// Lets each device check in for the first time.
fn register<S: Store<Image = Image>>(store: impl FnOnce(Wake) -> S, fleet: &Fleet) -> Result<()> {
    let (ring, bell) = mpsc::channel();
    let mut plane = Plane {
        store: store(Arc::new(move || {
            let _ = ring.send(());
        })),
        bell,
        queries: Vec::new(),
        answers: Vec::new(),
        connections: Vec::new(),
        free: Vec::new(),
    };
    let (config, mut registered, mut begun) = (Arc::new(Config::default()), 0, 0);
    let mut request = Vec::new();
    while registered < fleet.devices {
        let now = now();
        while begun < fleet.devices && begun - registered < AT_A_TIME {
            fleet.write_check_in(begun, crate::fleet::BUILD, &mut request);
            plane.begin(&config, now, &request);
            begun += 1;
        }
        registered += plane.turn(now)?;
    }
    Ok(())
}

/// Connections and a store, as in a server's loop.
struct Plane<S> {
    store: S,
    bell: Receiver<()>,
    queries: Vec<(Ticket, otter_protocol::Query)>,
    answers: Vec<(Ticket, Answer<Image>)>,
    connections: Vec<Slot>,
    /// Places of those that are not in use.
    free: Vec<usize>,
}

struct Slot {
    connection: Connection<Image>,
    /// Its open question.
    query: Option<otter_protocol::QueryId>,
}

impl<S: Store<Image = Image>> Plane<S> {
    /// A device says this over a connection that is not in use.
    fn begin(&mut self, config: &Arc<Config>, now: Now, request: &[u8]) {
        let place = match self.free.pop() {
            Some(place) => place,
            None => {
                let connection = Connection::plain(Arc::clone(config), now);
                self.connections.push(Slot { connection, query: None });
                self.connections.len() - 1
            }
        };
        self.connections[place].connection.handle_input(now, request);
        self.ask(place);
    }

    fn ask(&mut self, place: usize) {
        let slot = &mut self.connections[place];
        if let Some((id, query)) = slot.connection.poll_query() {
            slot.query = Some(id);
            self.queries.push((Ticket(place as u64), query));
        }
    }

    /// Carries questions and answers once; returns how many devices were answered.
    fn turn(&mut self, now: Now) -> Result<u64> {
        self.store.submit(&mut self.queries);
        self.store.collect(&mut self.answers);
        if self.answers.is_empty() {
            self.bell.recv_timeout(Duration::from_secs(60)).context("no answer for a minute")?;
            self.store.collect(&mut self.answers);
        }
        let mut answers = std::mem::take(&mut self.answers);
        let mut told = 0;
        for (Ticket(place), answer) in answers.drain(..) {
            let place = place as usize;
            let slot = &mut self.connections[place];
            let id = slot.query.take().context("an answer that nobody waits for")?;
            slot.connection.handle_answer(now, id, answer);
            while let Some(next) = slot.connection.transmit() {
                let n = next.as_slice().len();
                if !next.as_slice().starts_with(b"HTTP/1.1 200 ") {
                    bail!("refused: {}", next.as_slice().escape_ascii());
                }
                slot.connection.handle_sent(now, n);
                told += 1;
                self.free.push(place);
            }
            self.ask(place);
        }
        self.answers = answers;
        Ok(told)
    }
}

fn now() -> Now {
    let unix = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    Now { instant: Instant::now(), unix }
}

/// Enough that the next group gathers while one is written.
const AT_A_TIME: u64 = 8192;
