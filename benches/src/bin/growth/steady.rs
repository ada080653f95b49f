//! Check-ins at several numbers of registered devices: servers of all sizes and the floor take
//! turns.

use std::io::Write;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use otter_benches::rounds::{Spread, turns};
use otter_benches::{APART, cpu};
use otter_tests::redis::{RedisOptions, RedisServer};

use crate::fleet::Fleet;
use crate::instructions::{self, Counts};
use crate::load::{Load, Until};
use crate::server::{Server, disk_bytes, number_behind};
use crate::{Plan, fill, is_here};

/// On which store.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Embedded,
    Redis,
}

/// A store with so many devices.
struct Size {
    fleet: Fleet,
    place: Place,
    counts: Option<Counts>,
}

enum Place {
    Directory(tempfile::TempDir),
    /// And a directory for images.
    Redis(RedisServer, tempfile::TempDir),
}

/// Prints what each number of devices costs.
///
/// # Errors
/// If a server fails, or an answer is not what it should be.
pub(crate) fn measure(plan: &Plan, kind: Kind, out: &mut impl Write) -> Result<()> {
    let title = match kind {
        Kind::Embedded => "embedded store",
        Kind::Redis => "Redis",
    };
    writeln!(out, "\n{title}, resident: bytes per registered device; a hundred devices an owner")?;
    writeln!(
        out,
        "{:>10} {:>9} {:>10} {:>9} {:>9} {:>9} {:>9}",
        "devices", "filled s", "disk B", "server B", "Redis B", "start s", "CPU s"
    )?;
    let empty = resident_when_empty(plan, kind)?;
    let mut sizes = Vec::new();
    for devices in &plan.devices {
        if kind == Kind::Redis && available_bytes()? < devices * REDIS_BYTES_PER_DEVICE + SPARE {
            writeln!(out, "{devices:>10} do not fit into the memory that is free, in Redis")?;
            continue;
        }
        sizes.push(size(plan, kind, *devices, empty, out)?);
    }
    take_turns(plan, &sizes, false, out)?;
    take_turns(plan, &sizes, true, out)
}

fn resident_when_empty(plan: &Plan, kind: Kind) -> Result<u64> {
    let fleet = Fleet::new(1)?;
    let place = Place::new(kind)?;
    fill::fill(&place.to_fill(), &fleet)?;
    place.serve(plan, &APART)?.resident_bytes()
}

/// Fills a store, and prints what it takes and how long a server on it needs to start.
fn size(plan: &Plan, kind: Kind, devices: u64, empty: u64, out: &mut impl Write) -> Result<Size> {
    let fleet = Fleet::new(devices)?;
    let place = Place::new(kind)?;
    let redis_before = place.redis_bytes()?;
    let filled = fill::fill(&place.to_fill(), &fleet)?;
    let per_device = |bytes: u64| bytes as f64 / devices as f64;
    let disk = match &place {
        Place::Directory(directory) => per_device(disk_bytes(directory.path())?),
        Place::Redis(..) => 0.0,
    };
    let redis = per_device(place.redis_bytes()? - redis_before);
    let first = place.serve(plan, &APART)?;
    let start = first.start;
    first.stop()?;
    let second = place.serve(plan, &APART)?;
    let cpu_s = cpu::used_ns(second.pid())? as f64 / 1e9;
    let start = start.min(second.start).as_secs_f64();
    let server = per_device(second.resident_bytes()?.saturating_sub(empty));
    second.stop()?;
    writeln!(
        out,
        "{devices:>10} {:>9.1} {disk:>10.0} {server:>9.0} {redis:>9.0} {start:>9.3} {cpu_s:>9.3}",
        filled.as_secs_f64()
    )?;
    let is_counted = devices <= COUNTED_DEVICES_MAX && is_here("valgrind");
    let counts = is_counted.then(|| place.count(plan, &fleet)).transpose()?;
    Ok(Size { fleet, place, counts })
}

impl Place {
    fn new(kind: Kind) -> Result<Self> {
        let directory = tempfile::tempdir()?;
        Ok(match kind {
            Kind::Embedded => Self::Directory(directory),
            Kind::Redis => Self::Redis(RedisServer::start_with(RedisOptions::default()), directory),
        })
    }

    fn to_fill(&self) -> String {
        match self {
            Self::Directory(directory) => directory.path().display().to_string(),
            Self::Redis(redis, _) => redis.url(),
        }
    }

    fn serve(&self, plan: &Plan, wrapper: &[&str]) -> Result<Server> {
        let (data, store) = self.served();
        Server::otter(&plan.otter, data, store.as_deref(), 1, wrapper)
    }

    fn count(&self, plan: &Plan, fleet: &Fleet) -> Result<Counts> {
        let (data, store) = self.served();
        instructions::count(&plan.otter, data, store.as_deref(), fleet)
    }

    fn served(&self) -> (&Path, Option<String>) {
        match self {
            Self::Directory(directory) => (directory.path(), None),
            Self::Redis(redis, directory) => (directory.path(), Some(redis.url())),
        }
    }

    fn redis_bytes(&self) -> Result<u64> {
        match self {
            Self::Directory(_) => Ok(0),
            Self::Redis(redis, _) => {
                Ok(redis.info("used_memory").context("no used_memory")?.parse()?)
            }
        }
    }

    fn redis_ns(&self) -> Result<u64> {
        match self {
            Self::Directory(_) => Ok(0),
            Self::Redis(redis, _) => cpu::used_ns(redis.pid()),
        }
    }
}

/// Who takes turns: a server of a size, or the floor.
struct Contestant<'a> {
    server: Server,
    load: Load<'a>,
    size: Option<&'a Size>,
}

/// What one answer cost in one slice.
#[derive(Clone, Copy)]
struct Cost {
    server_us: f64,
    redis_us: f64,
    written: f64,
    per_second: f64,
}

fn take_turns(plan: &Plan, sizes: &[Size], changes: bool, out: &mut impl Write) -> Result<()> {
    let mut contestants = Vec::new();
    for size in sizes {
        let server = size.place.serve(plan, &APART)?;
        let mut load = Load::connect(server.address, &size.fleet, CONNECTIONS)?;
        load.changes = changes;
        if let Place::Redis(redis, _) = &size.place {
            cpu::pin(redis.pid(), LOAD_CPU)?;
        }
        contestants.push(Contestant { server, load, size: Some(size) });
    }
    let anybody = Fleet::new(1000)?;
    let server = Server::floor(1)?;
    let load = Load::connect(server.address, &anybody, CONNECTIONS)?;
    contestants.push(Contestant { server, load, size: None });
    for Contestant { server, .. } in &contestants {
        cpu::pin(server.pid(), SERVER_CPU)?;
        cpu::prefer(server.pid());
    }
    cpu::pin(std::process::id(), LOAD_CPU)?;
    let all = turns(&mut contestants, plan.rounds.max(1), slice);
    cpu::unpin(std::process::id())?;
    rows(sizes, changes, &all?, out)
}

fn slice(contestant: &mut Contestant<'_>) -> Result<Cost> {
    let Contestant { server, load, size } = contestant;
    let sample = || -> Result<[u64; 3]> {
        let redis = size.map_or(Ok(0), |size| size.place.redis_ns())?;
        Ok([cpu::used_ns(server.pid())?, redis, server.written_bytes()?])
    };
    let begun = std::time::Instant::now();
    let before = sample()?;
    let answers = load.run(Until::Elapsed(SLICE))? as f64;
    let after = sample()?;
    let per_answer = |place: usize| (after[place] - before[place]) as f64 / answers;
    Ok(Cost {
        server_us: per_answer(0) / 1000.0,
        redis_us: per_answer(1) / 1000.0,
        written: per_answer(2),
        per_second: answers / begun.elapsed().as_secs_f64(),
    })
}

/// One row per size; the last contestant is the floor.
fn rows(sizes: &[Size], changes: bool, all: &[Vec<Cost>], out: &mut impl Write) -> Result<()> {
    let what = if changes { "check-ins that are kept" } else { "steady check-ins" };
    writeln!(out, "\n{what} of random devices, per check-in; quartiles in brackets")?;
    writeln!(
        out,
        "{:>10} {:>12} {:>9} {:>20} {:>20} {:>20} {:>9} {:>9} {:>8}",
        "devices",
        "instructions",
        "misses",
        "CPU us",
        "of the floor",
        "of the smallest",
        "Redis us",
        "disk B",
        "per s"
    )?;
    let floor = sizes.len();
    for place in 0..=floor {
        let spread = |of: &dyn Fn(&[Cost]) -> f64| Spread::of(all.iter().map(|round| of(round)));
        let shown = |of: &dyn Fn(&[Cost]) -> f64| {
            let Spread { median, low, high } = spread(of);
            format!("{median:.2} ({low:.2}-{high:.2})")
        };
        let size = sizes.get(place);
        let name = size.map_or_else(|| "floor".to_owned(), |size| size.fleet.devices.to_string());
        let counts = size.and_then(|size| size.counts).filter(|_| !changes);
        let count = |of: fn(Counts) -> f64, digits: usize| {
            counts.map_or_else(|| "-".to_owned(), |counts| format!("{:.digits$}", of(counts)))
        };
        writeln!(
            out,
            "{name:>10} {:>12} {:>9} {:>20} {:>20} {:>20} {:>9.2} {:>9.0} {:>8.0}",
            count(|counts| counts.instructions, 0),
            count(|counts| counts.misses, 1),
            shown(&|round| round[place].server_us),
            shown(&|round| round[place].server_us / round[floor].server_us),
            shown(&|round| round[place].server_us / round[0].server_us),
            spread(&|round| round[place].redis_us).median,
            spread(&|round| round[place].written).median,
            spread(&|round| round[place].per_second).median,
        )?;
    }
    Ok(())
}

/// Memory that can be had.
fn available_bytes() -> Result<u64> {
    let table = std::fs::read_to_string("/proc/meminfo")?;
    Ok(number_behind(&table, "MemAvailable:")? * 1024)
}

const CONNECTIONS: usize = 64;
const SLICE: Duration = Duration::from_millis(400);
const SERVER_CPU: usize = 0;
const LOAD_CPU: usize = 1;
/// Loading more takes callgrind too long.
const COUNTED_DEVICES_MAX: u64 = 100_000;
/// With room for what the allocator adds.
const REDIS_BYTES_PER_DEVICE: u64 = 1200;
/// Left for others.
const SPARE: u64 = 4 << 30;
