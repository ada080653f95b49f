//! Runs one hot path so often, for a count of its instructions: see `benches/instructions`.
//!
//! ```text
//! instructions              names and rounds of all paths
//! instructions NAME ROUNDS  runs one of them
//! ```

use std::io::Write;

use anyhow::{Context, Result};
use otter_paths::PATHS;

fn main() -> Result<()> {
    let mut words = std::env::args().skip(1);
    let Some(name) = words.next() else {
        let mut out = std::io::stdout();
        return PATHS
            .iter()
            .try_for_each(|path| Ok(writeln!(out, "{} {}", path.name, path.rounds)?));
    };
    let rounds: u32 = words.next().context("how many rounds?")?.parse()?;
    let path = PATHS.iter().find(|path| path.name == name).context("no such path")?;
    let mut round = (path.make)()?;
    (0..rounds).for_each(|_| round());
    Ok(())
}
