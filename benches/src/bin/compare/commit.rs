//! Goal 12: durable writes.

use anyhow::{Context, Result};
use otter_benches::durable::{Cost, Writer, Writers};
use otter_benches::report::{Bar, Line, is_settled};
use otter_benches::rounds::{Goal, turns_until};

use crate::scene::{Scene, columns};

/// Groups of 64, beside a bare log on the same file system.
pub(crate) fn groups(scene: &Scene) -> Result<Vec<Line>> {
    // Where the program is, there is a disk; the folder for temporary files may be memory.
    let folder = scene.here.parent().context("the program is nowhere")?;
    let mut writers = Writers::new(folder)?;
    // Half the speed of the log.
    let bar = Bar::Ratio(Goal { pass: 2.0, stretch: 1.25 });
    let pair = |rounds: &[Vec<Cost>], of: fn(&Cost) -> f64| -> [Vec<f64>; 2] {
        let columns = columns(rounds);
        [0, 1].map(|place| columns[place].iter().map(of).collect())
    };
    let mut contestants = [Writer::Store, Writer::Log];
    let rounds = turns_until(
        &mut contestants,
        scene.plan(ROUNDS),
        |writer| writers.write(*writer),
        |rounds| {
            let [ours, theirs] = pair(rounds, |cost| cost.us);
            is_settled([&ours, &theirs], bar)
        },
    )?;
    let [_, syncs] = pair(&rounds, |cost| cost.sync_ms);
    let sync = otter_benches::rounds::Spread::of(syncs.into_iter()).median;
    let line = |what: &str, of: fn(&Cost) -> f64, bar| {
        let [ours, theirs] = pair(&rounds, of);
        Line::measured(12, what, "bare log", [&ours, &theirs], bar)
    };
    let what = format!("us of a durable write, 64 at once (fdatasync {sync:.2} ms)");
    Ok(vec![
        line(&what, |cost| cost.us, bar),
        line("CPU us of a durable write, 64 at once", |cost| cost.cpu_us, Bar::None),
    ])
}

const ROUNDS: usize = 9;
