//! Instructions and misses of the last cache per steady check-in, as callgrind counts them.

use std::path::Path;

use anyhow::{Context, Result};
use otter_benches::{APART, cpu};

use crate::fleet::Fleet;
use crate::load::{Load, Until};
use crate::server::Server;

/// What one more check-in of a random device takes.
#[derive(Clone, Copy)]
pub(crate) struct Counts {
    pub(crate) instructions: f64,
    /// Reads and writes that a last cache like this machine's did not have.
    pub(crate) misses: f64,
}

/// The difference between two runs, so that start-up falls out.
///
/// # Errors
/// If `valgrind` or the server does not do what it should.
pub(crate) fn count(
    otter: &Path,
    data: &Path,
    store: Option<&str>,
    fleet: &Fleet,
) -> Result<Counts> {
    let few = run(otter, data, store, fleet, SENT[0])?;
    let many = run(otter, data, store, fleet, SENT[1])?;
    let per_request = |of: fn(&Totals) -> u64| {
        of(&many).saturating_sub(of(&few)) as f64 / (many.answered - few.answered) as f64
    };
    Ok(Counts {
        instructions: per_request(|totals| totals.instructions),
        misses: per_request(|totals| totals.misses),
    })
}

struct Totals {
    answered: u64,
    instructions: u64,
    misses: u64,
}

fn run(otter: &Path, data: &Path, store: Option<&str>, fleet: &Fleet, sent: u64) -> Result<Totals> {
    let file = tempfile::NamedTempFile::new()?;
    let name = format!("--callgrind-out-file={}", file.path().display());
    let traced = ["valgrind", "--tool=callgrind", "--cache-sim=yes", &name];
    let wrapper = [&APART[..], &traced].concat();
    let server = Server::otter(otter, data, store, 1, &wrapper)?;
    cpu::prefer(server.pid());
    let answered = Load::connect(server.address, fleet, CONNECTIONS)?.run(Until::Sent(sent))?;
    server.stop()?;
    let text = std::fs::read_to_string(file.path())?;
    let events = words_behind(&text, "events: ")?;
    let totals = words_behind(&text, "summary: ")?;
    let of = |name: &str| -> Result<u64> {
        let place = events.iter().position(|event| *event == name).context("no such event")?;
        totals.get(place).context("no count")?.parse().context("no number")
    };
    let misses = of("DLmr")? + of("DLmw")?;
    Ok(Totals { answered, instructions: of("Ir")?, misses })
}

fn words_behind<'a>(text: &'a str, name: &str) -> Result<Vec<&'a str>> {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    Ok(line.with_context(|| format!("no {name}"))?.split_whitespace().collect())
}

const CONNECTIONS: usize = 64;
const SENT: [u64; 2] = [1_000, 6_000];
