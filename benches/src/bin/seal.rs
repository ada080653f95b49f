//! What it costs to encrypt an image, with nothing around it ([`otter_benches::seal`]).
//!
//! ```text
//! cargo run --release -p otter-benches --bin seal
//! ```
//!
//! Contestants take turns in each round; a ratio is that of two of them in the same round, and
//! medians over all rounds are printed, with the quartiles.

use std::io::Write;

use anyhow::Result;
use otter_benches::rounds::{Spread, turns};
use otter_benches::seal::{Sealer, Seals};

const ROUNDS: usize = 41;

fn main() -> Result<()> {
    let mut seals = Seals::new()?;
    let mut sealers = [Sealer::Bare, Sealer::Memory, Sealer::File];
    let rounds = turns(&mut sealers, ROUNDS, |sealer| seals.seconds_per_gib(*sealer))?;
    let mut out = std::io::stdout();
    writeln!(
        out,
        "{:28} {:>7} {:>16} {:>8} {:>16}",
        "", "GiB/s", "quartiles", "of bare", "quartiles"
    )?;
    for (place, what) in ["bare AES-128-GCM", "the core, from memory", "the core, from a file"]
        .into_iter()
        .enumerate()
    {
        let speed = Spread::of(rounds.iter().map(|round| 1.0 / round[place]));
        let ratio = Spread::of(rounds.iter().map(|round| round[0] / round[place]));
        writeln!(
            out,
            "{what:28} {:7.2} {:7.2} ..{:6.2} {:8.2} {:7.2} ..{:6.2}",
            speed.median, speed.low, speed.high, ratio.median, ratio.low, ratio.high,
        )?;
    }
    Ok(())
}
