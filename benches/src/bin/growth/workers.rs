//! One worker and two, beside a floor of as many.

use std::io::Write;
use std::time::{Duration, Instant};

use anyhow::Result;
use otter_benches::rounds::{Spread, turns};
use otter_benches::{APART, cpu};

use crate::fleet::Fleet;
use crate::load::{Load, Until};
use crate::server::Server;
use crate::{Plan, fill};

/// Prints rates and CPU time of both, with as many workers each.
///
/// # Errors
/// If a server fails, or an answer is not what it should be.
pub(crate) fn measure(plan: &Plan, out: &mut impl Write) -> Result<()> {
    let fleet = Fleet::new(10_000)?;
    let mut contestants = Vec::new();
    let mut directories = Vec::new();
    for workers in [1, 2] {
        let directory = tempfile::tempdir()?;
        fill::fill(&directory.path().display().to_string(), &fleet)?;
        let otter = Server::otter(&plan.otter, directory.path(), None, workers, &APART)?;
        directories.push(directory);
        for server in [otter, Server::floor(workers)?] {
            cpu::prefer(server.pid());
            let load = Load::connect(server.address, &fleet, CONNECTIONS)?;
            contestants.push((server, load));
        }
    }
    let all = turns(&mut contestants, plan.rounds.max(1), |(server, load)| {
        let (begun, before) = (Instant::now(), cpu::used_ns(server.pid())?);
        let answers = load.run(Until::Elapsed(SLICE))? as f64;
        let us = (cpu::used_ns(server.pid())? - before) as f64 / 1000.0;
        let per_second = answers / begun.elapsed().as_secs_f64();
        Ok(Pace { per_second, us: us / answers })
    })?;
    drop(contestants);
    drop(directories);
    writeln!(out, "\nsteady check-ins on all CPUs, one thread of load beside them")?;
    writeln!(
        out,
        "{:>8} {:>12} {:>12} {:>20} {:>10} {:>10}",
        "workers", "otter per s", "floor per s", "ratio", "otter us", "floor us"
    )?;
    for (workers, at) in [(1, 0), (2, 2)] {
        let of = |value: fn(&Pace) -> f64, at: usize| {
            Spread::of(all.iter().map(|round| value(&round[at]))).median
        };
        let ratios = all.iter().map(|round| round[at].per_second / round[at + 1].per_second);
        let ratio = Spread::of(ratios);
        writeln!(
            out,
            "{workers:>8} {:>12.0} {:>12.0} {:>20} {:>10.2} {:>10.2}",
            of(|pace| pace.per_second, at),
            of(|pace| pace.per_second, at + 1),
            format!("{:.2} ({:.2}-{:.2})", ratio.median, ratio.low, ratio.high),
            of(|pace| pace.us, at),
            of(|pace| pace.us, at + 1),
        )?;
    }
    Ok(())
}

/// What came of one slice.
struct Pace {
    per_second: f64,
    /// CPU time per answer.
    us: f64,
}

const CONNECTIONS: usize = 128;
const SLICE: Duration = Duration::from_millis(400);
