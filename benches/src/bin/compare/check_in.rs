//! Goals 1 to 3, 5 and 6: the check-in.

use anyhow::Result;
use otter_benches::Contestant;
use otter_benches::contest::{Cost, Entry, Side};
use otter_benches::counts::{self, Work};
use otter_benches::report::{Bar, Line};
use otter_benches::rounds::Goal;
use otter_benches::tls::Then;

use crate::scene::{Pair, Scene, lines};

/// Goals 1 and 6.
pub(crate) fn instructions(scene: &Scene) -> Result<Vec<Line>> {
    if !scene.has_valgrind {
        return Ok(Vec::new());
    }
    let count = |contestant| counts::instructions(contestant, &Work::steady());
    let ours = count(scene.otter())?;
    let mut lines = Vec::new();
    let what = "user instructions of a check-in";
    let beside = |rival, theirs, pass, stretch| {
        let bar = Bar::Ratio(Goal { pass, stretch });
        Line::counted(1, what, (rival, ours, theirs), bar)
    };
    if scene.has_nginx {
        lines.push(beside("nginx", count(Contestant::Nginx)?, 0.55, 0.40));
    }
    lines.push(beside("hyper + serde", count(scene.rival(&["rival", "hyper"]))?, 0.25, 0.20));
    let by_line = counts::instructions(scene.otter(), &Work::by_line())?;
    lines.push(Line::counted(
        6,
        "user instructions line by line, beside one piece",
        ("itself", by_line, ours),
        Bar::Ratio(Goal { pass: 1.3, stretch: 1.1 }),
    ));
    Ok(lines)
}

/// Goals 2, 5 and 6.
pub(crate) fn calls(scene: &Scene) -> Result<Vec<Line>> {
    let mut lines = Vec::new();
    let both = |count: &dyn Fn(Contestant<'_>) -> Result<f64>| -> Result<[f64; 2]> {
        let theirs = if scene.has_nginx { count(Contestant::Nginx)? } else { f64::NAN };
        Ok([count(scene.otter())?, theirs])
    };
    let line = |goal, what, [ours, theirs]: [f64; 2], most| {
        Line::counted(goal, what, ("nginx", ours, theirs), Bar::Own(most))
    };
    if scene.has_valgrind {
        let heap = both(&|contestant| counts::heap_calls(contestant, &Work::steady()))?;
        lines.push(line(2, "heap calls of a check-in", heap, 0.0));
    }
    if scene.has_strace {
        let of = |work: Work<'static>, of: fn(&counts::Calls) -> f64| {
            both(&|contestant| Ok(of(&counts::system_calls(contestant, &work)?)))
        };
        let steady = of(Work::steady(), counts::Calls::total)?;
        lines.push(line(2, "system calls of a check-in", steady, 2.05));
        let closing = of(Work::closing(), counts::Calls::without_waits)?;
        let what = "system calls of a connection for one check-in, but waits";
        lines.push(line(5, what, closing, 4.0));
        let by_line = of(Work::by_line(), counts::Calls::reads)?;
        lines.push(line(6, "reads of a check-in line by line", by_line, 3.0));
    }
    Ok(lines)
}

/// Goal 3.
pub(crate) fn kept(scene: &Scene) -> Result<Vec<Line>> {
    let rivals = Rivals {
        floor: &["rival", "floor"],
        nginx: Bar::Ratio(Goal { pass: 0.85, stretch: 0.70 }),
        floor_bar: Bar::Ratio(Goal { pass: 1.25, stretch: 1.10 }),
    };
    let what = "CPU us of a check-in on one of 64 kept connections";
    rivals.meet(
        scene,
        |side| side.kept(64),
        |columns, pairs| lines(3, what, columns, Cost::us_per_answer, pairs),
    )
}

/// Goal 5.
pub(crate) fn closing(scene: &Scene) -> Result<Vec<Line>> {
    let rivals = Rivals {
        floor: &["rival", "floor", "close"],
        nginx: Bar::Ratio(Goal { pass: 0.80, stretch: 0.65 }),
        floor_bar: Bar::None,
    };
    let what = "CPU us of a check-in, connection included";
    let both = "CPU us of the same, server and client together";
    rivals.meet(
        scene,
        |side| side.plain(side.check_in(Then::Reconnect), 16),
        |columns, pairs| {
            let open = pairs.iter().map(|(place, rival, _)| (*place, *rival, Bar::None));
            let open: Vec<_> = open.filter(|(_, rival, _)| *rival == "nginx").collect();
            let mut all = lines(5, what, columns, Cost::us_per_answer, pairs);
            all.extend(lines(5, both, columns, Cost::us_of_both_per_answer, &open));
            all
        },
    )
}

/// Goal 6.
pub(crate) fn by_line(scene: &Scene) -> Result<Vec<Line>> {
    let rivals = Rivals {
        floor: &["rival", "floor", "whole"],
        nginx: Bar::Ratio(Goal { pass: 0.85, stretch: 0.70 }),
        floor_bar: Bar::None,
    };
    let what = "CPU us of a check-in in 11 lines";
    rivals.meet(
        scene,
        |side| side.kept_by_line(64),
        |columns, pairs| lines(6, what, columns, Cost::us_per_answer, pairs),
    )
}

/// Who is beside Otter, and what is asked.
struct Rivals<'a> {
    floor: &'a [&'a str],
    nginx: Bar,
    floor_bar: Bar,
}

impl Rivals<'_> {
    fn meet(
        &self,
        scene: &Scene,
        load: impl Fn(&Side) -> Result<Entry<'_>>,
        judge: impl Fn(&[Vec<Cost>], &[Pair]) -> Vec<Line>,
    ) -> Result<Vec<Line>> {
        let mut sides = vec![scene.start(scene.otter())?];
        let mut pairs = Vec::new();
        let mut add = |contestant, name, bar| -> Result<()> {
            pairs.push((sides.len(), name, bar));
            sides.push(scene.start(contestant)?);
            Ok(())
        };
        if scene.has_nginx {
            add(Contestant::Nginx, "nginx", self.nginx)?;
        }
        add(scene.rival(self.floor), "floor", self.floor_bar)?;
        add(scene.rival(&["rival", "hyper"]), "hyper + serde", Bar::None)?;
        let mut entries = sides.iter().map(load).collect::<Result<Vec<_>>>()?;
        let columns = scene.contest(&mut entries, ROUNDS, Cost::us_per_answer, &pairs)?;
        Ok(judge(&columns, &pairs))
    }
}

const ROUNDS: usize = 24;
