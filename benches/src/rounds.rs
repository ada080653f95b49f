//! Contestants that take turns, and what comes of it: the machine may be slower or faster from one
//! minute to the next, but hardly within one round.

use std::io::Write;
use std::time::Instant;

use anyhow::Result;

/// The median of some values and the quartiles around it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// Half of the values are smaller.
    pub median: f64,
    /// A quarter of them is smaller.
    pub low: f64,
    /// A quarter of them is larger.
    pub high: f64,
}

impl Spread {
    /// Of no values it is NaN.
    pub fn of(values: impl Iterator<Item = f64>) -> Self {
        let mut values: Vec<_> = values.collect();
        values.sort_by(f64::total_cmp);
        let at = |part: f64| {
            let place = (values.len().saturating_sub(1) as f64 * part).round() as usize;
            values.get(place).copied().unwrap_or(f64::NAN)
        };
        Self { median: at(0.5), low: at(0.25), high: at(0.75) }
    }
}

/// Gives each contestant one turn a round; returns what `slice` said, by round and contestant.
/// The first round warms up and does not count.
///
/// # Errors
/// The first of `slice`.
pub fn turns<C, R>(
    contestants: &mut [C],
    rounds: usize,
    mut slice: impl FnMut(&mut C) -> Result<R>,
) -> Result<Vec<Vec<R>>> {
    let mut all = more_turns(contestants, rounds + 1, &mut slice)?;
    all.remove(0);
    Ok(all)
}

/// As [`turns`], and goes on until `is_settled`, so many rounds at a time, at most `most`, and not
/// after `deadline`.
///
/// # Errors
/// The first of `slice`.
pub fn turns_until<C, R>(
    contestants: &mut [C],
    plan: Plan,
    mut slice: impl FnMut(&mut C) -> Result<R>,
    is_settled: impl Fn(&[Vec<R>]) -> bool,
) -> Result<Vec<Vec<R>>> {
    let mut all = turns(contestants, plan.rounds, &mut slice)?;
    while !is_settled(&all) && all.len() < plan.most && Instant::now() < plan.deadline {
        all.extend(more_turns(contestants, plan.rounds.min(plan.most - all.len()), &mut slice)?);
    }
    Ok(all)
}

/// How many rounds there are to be.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// So many, and as many again while that is not enough.
    pub rounds: usize,
    /// At most so many in all.
    pub most: usize,
    /// When to begin no more.
    pub deadline: Instant,
}

fn more_turns<C, R>(
    contestants: &mut [C],
    rounds: usize,
    mut slice: impl FnMut(&mut C) -> Result<R>,
) -> Result<Vec<Vec<R>>> {
    let mut all = Vec::new();
    for round in 0..rounds {
        // Neither of two neighbours always follows the other.
        let is_backward = round % 2 == 1;
        if is_backward {
            contestants.reverse();
        }
        let results: Result<Vec<_>> = contestants.iter_mut().map(&mut slice).collect();
        let mut results = results?;
        if is_backward {
            contestants.reverse();
            results.reverse();
        }
        all.push(results);
    }
    Ok(all)
}

/// What the ratio of two contestants should be at most.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Goal {
    /// Enough.
    pub pass: f64,
    /// Better.
    pub stretch: f64,
}

impl Goal {
    fn verdict(self, ratio: f64) -> String {
        let Self { pass, stretch } = self;
        if ratio <= stretch {
            format!("pass, stretch ({stretch:.2})")
        } else if ratio <= pass {
            format!("pass ({pass:.2})")
        } else {
            format!("FAIL ({pass:.2})")
        }
    }
}

/// Prints the medians of two contestants, and the ratio within each round with its quartiles; of
/// one alone, the quartiles of its own values.
///
/// # Errors
/// If nobody reads it.
pub fn row(
    out: &mut impl Write,
    what: &str,
    sides: &[Option<Vec<f64>>; 2],
    goal: Option<Goal>,
) -> Result<()> {
    write!(out, "{what:44}")?;
    for (side, width) in sides.iter().zip([9, 10]) {
        match side.as_ref().map(|values| Spread::of(values.iter().copied()).median) {
            Some(median) => write!(out, " {median:width$.3}")?,
            None => write!(out, " {:>width$}", "not here")?,
        }
    }
    match sides {
        [Some(ours), Some(theirs)] => {
            let ratio = Spread::of(ours.iter().zip(theirs).map(|(ours, theirs)| ours / theirs));
            write!(out, " {:6.2}", ratio.median)?;
            if ours.len() > 1 {
                write!(out, "  ({:.2} .. {:.2})", ratio.low, ratio.high)?;
            }
            if let Some(goal) = goal {
                write!(out, "  {}", goal.verdict(ratio.median))?;
            }
        }
        [Some(alone), None] | [None, Some(alone)] if alone.len() > 1 => {
            let spread = Spread::of(alone.iter().copied());
            write!(out, " {:>6}  ({:.3} .. {:.3})", "", spread.low, spread.high)?;
        }
        _ => {}
    }
    writeln!(out)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_is_that_of_one_round() {
        let mut out = Vec::new();
        let goal = Some(Goal { pass: 0.5, stretch: 0.4 });
        let sides = [vec![1.0, 20.0, 3.0], vec![2.0, 40.0, 6.0]].map(Some);
        row(&mut out, "time", &sides, goal).expect("written");
        let line = String::from_utf8(out).expect("text");
        assert!(
            line.ends_with("  3.000      6.000   0.50  (0.50 .. 0.50)  pass (0.50)\n"),
            "{line}"
        );
    }

    #[test]
    fn verdicts() {
        let goal = Goal { pass: 0.5, stretch: 0.4 };
        let verdicts = [0.4, 0.41, 0.51].map(|ratio| goal.verdict(ratio));
        assert_eq!(verdicts, ["pass, stretch (0.40)", "pass (0.50)", "FAIL (0.50)"]);
    }

    #[test]
    fn rounds_go_on_until_they_are_settled_or_enough() {
        let deadline = Instant::now() + std::time::Duration::from_secs(3600);
        let plan = Plan { rounds: 2, most: 5, deadline };
        let of = |plan, enough| {
            let all = turns_until(&mut [()], plan, |()| Ok(1), |all| all.len() >= enough);
            all.expect("rounds").len()
        };
        assert_eq!([of(plan, 1), of(plan, 3), of(plan, 9)], [2, 4, 5]);
        assert_eq!(of(Plan { deadline: Instant::now(), ..plan }, 9), 2);
    }

    #[test]
    fn the_first_round_does_not_count_and_neighbours_swap() {
        let mut order = Vec::new();
        let all = turns(&mut [1, 2], 2, |name| {
            order.push(*name);
            Ok(*name * 10)
        });
        assert_eq!(all.expect("rounds"), [[10, 20], [10, 20]]);
        assert_eq!(order, [1, 2, 2, 1, 1, 2]);
    }
}
