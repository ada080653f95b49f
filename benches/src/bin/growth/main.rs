//! What growth costs: check-ins at a thousand to ten million registered devices, one and two
//! workers, and ten thousand slow downloads of one image at the same time.
//!
//! ```text
//! cargo build --release && cargo run --release -p otter-benches --bin growth
//! ```
//!
//! Takes half an hour and, at ten million devices, 6 GB of a temporary directory and of memory.
//! Needs `redis-server` and `valgrind` for what they count, and says what it leaves out. CPU time
//! is what the scheduler counted for all threads of a server; contestants take turns in slices,
//! and a ratio is that of two slices of one round (docs/performance.md).

mod downloads;
mod fill;
mod fleet;
mod floor;
mod instructions;
mod load;
mod server;
mod steady;
mod workers;

use std::io::Write;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};

const HELP: &str = "\
usage: growth [--devices N].. [--only PART].. [--rounds N] [OTTER]

  OTTER        the program to measure [default: otter beside this one]
  --devices N  registered devices; may be given again [default: 1000, 100000, 1000000, 10000000]
  --only PART  embedded, redis, workers or downloads; may be given again [default: all]
  --rounds N   how often each contestant has its turn, for each row [default: 24]";

/// What is measured, and how thoroughly.
pub(crate) struct Plan {
    pub(crate) otter: PathBuf,
    pub(crate) devices: Vec<u64>,
    pub(crate) rounds: usize,
    parts: Vec<String>,
}

fn main() -> Result<()> {
    let mut words = std::env::args().skip(1);
    let otter = std::env::current_exe()?.with_file_name("otter");
    let mut plan = Plan { otter, devices: Vec::new(), rounds: 24, parts: Vec::new() };
    let mut out = std::io::stdout();
    while let Some(word) = words.next() {
        match word.as_str() {
            "fill" => return fill::run(words),
            "floor" => return floor::run(words),
            "--devices" => plan.devices.push(words.next().context(HELP)?.parse().context(HELP)?),
            "--only" => plan.parts.push(words.next().context(HELP)?),
            "--rounds" => plan.rounds = words.next().context(HELP)?.parse().context(HELP)?,
            "--help" => return Ok(writeln!(out, "{HELP}")?),
            _ if word.starts_with('-') => bail!("{HELP}"),
            _ => plan.otter = PathBuf::from(word),
        }
    }
    if plan.devices.is_empty() {
        plan.devices = vec![1_000, 100_000, 1_000_000, 10_000_000];
    }
    plan.devices.sort_unstable();
    run(&plan, &mut out)
}

fn run(plan: &Plan, out: &mut impl Write) -> Result<()> {
    let known = ["embedded", "redis", "workers", "downloads"];
    if let Some(part) = plan.parts.iter().find(|part| !known.contains(&part.as_str())) {
        bail!("there is no part {part}\n{HELP}");
    }
    let wanted = |part: &str| plan.parts.is_empty() || plan.parts.iter().any(|name| name == part);
    if wanted("downloads") {
        downloads::measure(plan, out)?;
    }
    if wanted("workers") {
        workers::measure(plan, out)?;
    }
    if wanted("redis") {
        if is_here("redis-server") {
            steady::measure(plan, steady::Kind::Redis, out)?;
        } else {
            writeln!(out, "redis-server is not here: no figures with Redis")?;
        }
    }
    if wanted("embedded") {
        steady::measure(plan, steady::Kind::Embedded, out)?;
    }
    Ok(())
}

/// Can this program be started?
pub(crate) fn is_here(program: &str) -> bool {
    std::process::Command::new(program).arg("--version").output().is_ok()
}
