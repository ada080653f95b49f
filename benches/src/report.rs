//! What came of a comparison: lines with a ratio and a bar, as text and as Markdown.

use std::fmt::Write;

use crate::rounds::{Goal, Spread};

/// One comparison.
#[derive(Clone, Debug, PartialEq)]
pub struct Line {
    /// Which of the goals it belongs to.
    pub goal: u8,
    /// What is compared.
    pub what: String,
    /// With whom.
    pub rival: &'static str,
    /// What it cost Otter: the median of all rounds, if there were some.
    pub ours: f64,
    /// What it cost the rival.
    pub theirs: f64,
    /// The median of the ratios within rounds with the quartiles, or the one ratio of two counts.
    pub ratio: Spread,
    /// The range in which the median of many more rounds would be (95 %).
    pub surely: [f64; 2],
    /// How many rounds there were; 1 for counts.
    pub rounds: usize,
    /// What it should be.
    pub bar: Bar,
}

/// What is asked of a [`Line`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Bar {
    /// A ratio of at most so much.
    Ratio(Goal),
    /// Of Otter itself, at most so much; the ratio only shows where that is.
    Own(f64),
    /// Nothing: it helps to understand the others.
    None,
}

/// What became of a [`Bar`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is reached.
    Pass,
    /// It is not.
    Fail,
    /// There is none.
    Open,
}

impl Line {
    /// Two counts. Where there is nobody to compare with, it is the bar.
    #[must_use]
    pub fn counted(goal: u8, what: &str, (rival, ours, theirs): Counted, bar: Bar) -> Self {
        let (rival, theirs) = match bar {
            Bar::Own(most) if theirs.is_nan() => ("the bar", most),
            Bar::Own(_) | Bar::Ratio(_) | Bar::None => (rival, theirs),
        };
        let ratio = ratio(ours, theirs);
        let (what, spread) = (what.to_owned(), Spread { median: ratio, low: ratio, high: ratio });
        let surely = [ratio; 2];
        Self { goal, what, rival, ours, theirs, ratio: spread, surely, rounds: 1, bar }
    }

    /// What both sides cost, by round.
    #[must_use]
    pub fn measured(
        goal: u8,
        what: &str,
        rival: &'static str,
        [ours, theirs]: [&[f64]; 2],
        bar: Bar,
    ) -> Self {
        let ratios: Vec<_> = ours.iter().zip(theirs).map(|(a, b)| ratio(*a, *b)).collect();
        let median = |values: &[f64]| Spread::of(values.iter().copied()).median;
        Self {
            goal,
            what: what.to_owned(),
            rival,
            ours: median(ours),
            theirs: median(theirs),
            ratio: Spread::of(ratios.iter().copied()),
            surely: surely(&ratios),
            rounds: ratios.len(),
            bar,
        }
    }

    /// Whether the bar is reached.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        let is_reached = match self.bar {
            Bar::Ratio(goal) => self.ratio.median <= goal.pass,
            Bar::Own(most) => self.ours <= most + EXACT,
            Bar::None => return Verdict::Open,
        };
        if is_reached { Verdict::Pass } else { Verdict::Fail }
    }

    /// Whether another run might say the opposite: the bar is within what is not sure, or so near
    /// to the median as two runs may be apart.
    #[must_use]
    pub fn is_close(&self) -> bool {
        match self.bar {
            Bar::Ratio(Goal { pass, .. }) => {
                self.rounds > 1
                    && (self.is_unsure() || (self.ratio.median / pass - 1.0).abs() <= RUNS)
            }
            Bar::Own(_) | Bar::None => false,
        }
    }

    /// Whether more rounds might say the opposite.
    fn is_unsure(&self) -> bool {
        matches!(self.bar, Bar::Ratio(Goal { pass, .. })
            if (self.surely[0]..=self.surely[1]).contains(&pass))
    }

    /// Where the bar is, as a ratio.
    #[must_use]
    pub fn bar_ratio(&self) -> Option<f64> {
        match self.bar {
            Bar::Ratio(goal) => Some(goal.pass),
            Bar::Own(most) => Some(ratio(most, self.theirs)),
            Bar::None => None,
        }
    }

    /// The verdict in words.
    #[must_use]
    pub fn judgement(&self) -> String {
        let word = match (self.verdict(), self.bar) {
            (Verdict::Pass, Bar::Ratio(goal)) if self.ratio.median <= goal.stretch => {
                "pass, stretch"
            }
            (Verdict::Pass, _) => "pass",
            (Verdict::Fail, _) => "FAIL",
            (Verdict::Open, _) => "",
        };
        if self.is_close() { format!("{word}, close") } else { word.to_owned() }
    }

    fn bar_text(&self) -> String {
        match self.bar {
            Bar::Ratio(goal) => format!("{:.2}", goal.pass),
            Bar::Own(most) => format!("{most:.2} each"),
            Bar::None => String::new(),
        }
    }

    /// The ratio with its quartiles.
    #[must_use]
    pub fn ratio_text(&self) -> String {
        let Spread { median, low, high } = self.ratio;
        if self.rounds > 1 {
            format!("{median:.2} ({low:.2} to {high:.2})")
        } else {
            format!("{median:.2}")
        }
    }
}

/// A rival and what both sides cost.
pub type Counted = (&'static str, f64, f64);

/// Whether the rounds of two contestants say enough: halves agree within 15 %, and the bar is not
/// within what is not sure.
#[must_use]
pub fn is_settled([ours, theirs]: [&[f64]; 2], bar: Bar) -> bool {
    let line = Line::measured(0, "", "", [ours, theirs], bar);
    let half = ours.len() / 2;
    let [first, second] = [0..half, half..ours.len()].map(|part| {
        Line::measured(0, "", "", [&ours[part.clone()], &theirs[part]], bar).ratio.median
    });
    (first / second - 1.0).abs() <= HALVES && !line.is_unsure()
}

/// The lines as columns of text.
#[must_use]
pub fn text(lines: &[Line]) -> String {
    let mut text = String::new();
    for line in lines {
        let _ = writeln!(
            text,
            "{:>2}  {:54} {:>10} {:>10} {:15} {:22} {:>10}  {}",
            line.goal,
            line.what,
            number(line.ours),
            number(line.theirs),
            line.rival,
            line.ratio_text(),
            line.bar_text(),
            line.judgement()
        );
    }
    text
}

/// The head of [`text`].
#[must_use]
pub fn text_head() -> String {
    format!(
        "{:>2}  {:54} {:>10} {:>10} {:15} {:22} {:>10}  {}\n",
        "", "", "otter", "rival", "", "ratio (quartiles)", "bar", "verdict"
    )
}

/// The lines as a table of Markdown.
#[must_use]
pub fn markdown(lines: &[Line]) -> String {
    let mut text = "| goal | | Otter | rival | | ratio (quartiles) | bar | |\n\
                    |---|---|---|---|---|---|---|---|\n"
        .to_owned();
    for line in lines {
        let judgement = line.judgement().replace("FAIL", "**FAIL**");
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {} | {} | {} | {judgement} |",
            line.goal,
            line.what,
            number(line.ours),
            number(line.theirs),
            line.rival,
            line.ratio_text(),
            line.bar_text(),
        );
    }
    text
}

/// A number with as many digits as say something, and thousands set apart.
fn number(value: f64) -> String {
    if value.is_infinite() || value.is_nan() {
        return "-".to_owned();
    }
    if value < 10.0 {
        return format!("{value:.2}");
    }
    if value < 1000.0 {
        return format!("{value:.1}");
    }
    let digits = format!("{value:.0}");
    let groups: Vec<_> = digits.as_bytes().rchunks(3).rev().map(String::from_utf8_lossy).collect();
    groups.join(",")
}

fn ratio(ours: f64, theirs: f64) -> f64 {
    // Nothing is no more than nothing.
    if ours.abs() < EXACT && theirs.abs() < EXACT { 0.0 } else { ours / theirs }
}

/// The range in which the median is, by the order of the values alone: 95 % sure.
fn surely(values: &[f64]) -> [f64; 2] {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    let count = values.len() as f64;
    // So many deviations of a binomial distribution around the middle.
    let off = 0.98 * count.sqrt();
    let low = (count / 2.0 - off).floor().max(0.0) as usize;
    let high = ((count / 2.0 + off).ceil() as usize).min(values.len().saturating_sub(1));
    let at = |place: usize| values.get(place).copied().unwrap_or(f64::NAN);
    [at(low), at(high)]
}

/// Counts are exact but for what happens once in a run.
const EXACT: f64 = 0.005;
/// How far the medians of two runs were apart where nothing but the machine's load had changed.
const RUNS: f64 = 0.08;
/// How far the ratios of two halves may be apart.
const HALVES: f64 = 0.15;

#[cfg(test)]
mod tests {
    use super::*;

    const BAR: Bar = Bar::Ratio(Goal { pass: 0.5, stretch: 0.4 });

    fn measured(ratios: &[f64]) -> Line {
        let theirs = vec![10.0; ratios.len()];
        let ours: Vec<_> = ratios.iter().map(|ratio| ratio * 10.0).collect();
        Line::measured(3, "a check-in", "nginx", [&ours, &theirs], BAR)
    }

    #[test]
    fn verdicts_are_those_of_the_median() {
        let verdicts = [[0.39; 3], [0.5, 0.45, 0.2], [0.51, 0.52, 0.1]]
            .map(|ratios| measured(&ratios).verdict());
        assert_eq!(verdicts, [Verdict::Pass, Verdict::Pass, Verdict::Fail]);
        assert_eq!(measured(&[0.39; 9]).judgement(), "pass, stretch");
        assert_eq!(measured(&[0.6; 9]).judgement(), "FAIL");
    }

    #[test]
    fn what_is_near_the_bar_is_called_close() {
        let near: Vec<_> = (0..24).map(|n| 0.46 + 0.01 * f64::from(n % 8)).collect();
        assert!(measured(&near).is_close());
        assert_eq!(measured(&near).judgement(), "pass, close");
        let far: Vec<_> = near.iter().map(|ratio| ratio + 0.2).collect();
        assert_eq!(measured(&far).judgement(), "FAIL");
    }

    #[test]
    fn rounds_are_settled_if_halves_agree_and_the_bar_is_far() {
        let settled = |ratios: &[f64]| is_settled([ratios, &vec![1.0; ratios.len()]], BAR);
        assert!(settled(&[0.3; 24]));
        assert!(!settled(&[[0.3; 12], [0.36; 12]].concat()));
        assert!(settled(&[[0.3; 12], [0.33; 12]].concat()));
        assert!(!settled(&[[0.49, 0.51]; 12].concat()));
    }

    #[test]
    fn counts_are_judged_by_themselves_or_by_their_ratio() {
        let of = |ours, bar| Line::counted(2, "heap calls", ("nginx", ours, 3.0), bar);
        assert_eq!(of(0.0, Bar::Own(0.0)).judgement(), "pass");
        assert_eq!(of(0.004, Bar::Own(0.0)).judgement(), "pass");
        assert_eq!(of(0.01, Bar::Own(0.0)).judgement(), "FAIL");
        assert_eq!(of(1.4, BAR).judgement(), "pass");
        assert_eq!(of(1.6, BAR).judgement(), "FAIL");
        assert_eq!(of(1.6, Bar::None).judgement(), "");
        assert_eq!(of(1.6, Bar::Own(1.5)).bar_ratio(), Some(0.5));
        let alone = Line::counted(2, "calls", ("nginx", 1.5, f64::NAN), Bar::Own(3.0));
        assert_eq!((alone.rival, alone.ratio.median), ("the bar", 0.5));
        let nothing = Line::counted(9, "reads", ("nginx", 0.0, 0.0), Bar::Own(0.0));
        assert_eq!((nothing.ratio.median, nothing.bar_ratio()), (0.0, Some(0.0)));
    }

    #[test]
    fn the_median_is_surely_within_the_middle() {
        let values: Vec<_> = (0..25).map(f64::from).collect();
        assert_eq!(surely(&values), [7.0, 18.0]);
        assert_eq!(surely(&[2.0]), [2.0, 2.0]);
    }

    #[test]
    fn tables_have_a_row_for_each_line() {
        let lines = [measured(&[0.6; 3]), Line::counted(1, "x", ("nginx", 9454.4, 2.0), Bar::None)];
        assert_eq!(
            markdown(&lines),
            "| goal | | Otter | rival | | ratio (quartiles) | bar | |\n\
             |---|---|---|---|---|---|---|---|\n\
             | 3 | a check-in | 6.00 | 10.0 | nginx | 0.60 (0.60 to 0.60) | 0.50 | **FAIL** |\n\
             | 1 | x | 9,454 | 2.00 | nginx | 4727.20 |  |  |\n"
        );
        let text = text(&lines);
        assert_eq!(text.lines().count(), 2);
        assert!(text.contains(" FAIL\n"), "{text}");
    }

    #[test]
    fn numbers_keep_the_digits_that_say_something() {
        let numbers = [0.016, 9.87, 97.94, 9454.2, 1_234_567.8, f64::INFINITY].map(number);
        assert_eq!(numbers, ["0.02", "9.87", "97.9", "9,454", "1,234,568", "-"]);
    }
}
