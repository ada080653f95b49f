//! Tries fleets until time is up, or one; makes what fails small. `tests/simulate` builds and runs
//! this; docs/simulation.md explains what it prints.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use std::{env, io, panic, thread};

use otter_tests::fleet::{Failure, Fleet, Keep, Kind, Story, shrunk};
use otter_tests::world::Journal;

const USAGE: &str = "\
tests/simulate [--hours H | --minutes M] [--seed S]
    Tries one seed after another, from S or 0 on, for a minute unless told otherwise.
tests/simulate --seed S --kind K [--members N,N --faults N,N --course N,N --until-ms T]
    Tries one seed, or a part of its fleet, and prints what happens. A failure prints such a line.

K is plain, tls, failovers or planted; planted has a bug, so that there is something to be found.
";

fn main() -> ExitCode {
    let words: Vec<String> = env::args().skip(1).collect();
    let Some(wish) = Wish::of(&words) else {
        say(USAGE);
        return ExitCode::from(2);
    };
    // Failures are told once they are small.
    panic::set_hook(Box::new(|_| {}));
    match wish.kind {
        Some(kind) => one(kind, &wish),
        None => many(&wish),
    }
}

/// What was asked for.
struct Wish {
    length: Duration,
    seed: u64,
    kind: Option<Kind>,
    members: Option<BTreeSet<usize>>,
    faults: Option<BTreeSet<usize>>,
    course: Option<BTreeSet<usize>>,
    until: Option<Duration>,
}

impl Wish {
    fn of(words: &[String]) -> Option<Self> {
        let length = Duration::from_secs(60);
        let (kind, until) = (None, None);
        let (members, faults, course) = (None, None, None);
        let mut wish = Self { length, seed: 0, kind, members, faults, course, until };
        let (pairs, []) = words.as_chunks::<2>() else { return None };
        for [name, text] in pairs {
            let hours = |unit_s: f64| {
                let number = text.parse::<f64>().ok().filter(|number| *number >= 0.0)?;
                Duration::try_from_secs_f64(number * unit_s).ok()
            };
            match name.as_str() {
                "--hours" => wish.length = hours(3600.0)?,
                "--minutes" => wish.length = hours(60.0)?,
                "--seed" => wish.seed = text.parse().ok()?,
                "--kind" => wish.kind = Kind::ALL.into_iter().find(|kind| kind.name() == text),
                "--members" => wish.members = Some(numbers(text)?),
                "--faults" => wish.faults = Some(numbers(text)?),
                "--course" => wish.course = Some(numbers(text)?),
                "--until-ms" => wish.until = Some(Duration::from_millis(text.parse().ok()?)),
                _ => return None,
            }
            if name == "--kind" && wish.kind.is_none() {
                return None;
            }
        }
        Some(wish)
    }
}

fn numbers(text: &str) -> Option<BTreeSet<usize>> {
    let texts = text.split(',').filter(|text| !text.is_empty());
    texts.map(|text| text.parse().ok()).collect()
}

/// Tries one fleet, or a part of it. What fails is made small, unless it is a part already.
fn one(kind: Kind, wish: &Wish) -> ExitCode {
    let whole = Fleet::of(kind, wish.seed);
    let all = whole.keep().clone();
    let keep = Keep {
        members: wish.members.clone().unwrap_or_else(|| all.members.clone()),
        faults: wish.faults.clone().unwrap_or_else(|| all.faults.clone()),
        course: wish.course.clone().unwrap_or_else(|| all.course.clone()),
        until: wish.until.unwrap_or(all.until),
    };
    let is_whole = keep == all;
    let fleet = whole.only(keep);
    match fleet.run() {
        Ok(story) => {
            say(&format!("{} holds: trace {:016x}\n", fleet.command(), story.trace));
            let mut sum = Sum::default();
            sum.add(&story);
            say(&sum.report());
            ExitCode::SUCCESS
        }
        Err(failure) if is_whole => {
            explain(&fleet, &failure);
            ExitCode::FAILURE
        }
        Err(failure) => {
            show(&fleet, &failure);
            ExitCode::FAILURE
        }
    }
}

/// Tries seeds on every processor until time is up or one fails.
fn many(wish: &Wish) -> ExitCode {
    let (next, stop) = (AtomicU64::new(wish.seed), AtomicBool::new(false));
    let (sum, failed) = (Mutex::new(Sum::default()), Mutex::new(None));
    let (begun, cpu_before) = (Instant::now(), cpu_time());
    let threads = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while begun.elapsed() < wish.length && !stop.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    let fleet = Fleet::of(Kind::of(seed), seed);
                    match fleet.run() {
                        Ok(story) => {
                            sum.lock().unwrap_or_else(PoisonError::into_inner).add(&story);
                        }
                        Err(failure) => {
                            stop.store(true, Ordering::Relaxed);
                            let mut failed = failed.lock().unwrap_or_else(PoisonError::into_inner);
                            failed.get_or_insert((fleet, failure));
                        }
                    }
                }
            });
        }
    });
    let mut sum = sum.into_inner().unwrap_or_else(PoisonError::into_inner);
    (sum.cpu, sum.wall) = (cpu_time().saturating_sub(cpu_before), begun.elapsed());
    say(&sum.report());
    let next_seed = next.load(Ordering::Relaxed);
    match failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
        Some((fleet, failure)) => {
            explain(&fleet, &failure);
            ExitCode::FAILURE
        }
        None => {
            say(&format!("no law broke; seeds go on with --seed {next_seed}\n"));
            ExitCode::SUCCESS
        }
    }
}

/// Makes a failure small, and shows it.
fn explain(fleet: &Fleet, failure: &Failure) {
    say(&format!("\nFAILED {failure}\nreplay all of it: {}\n", fleet.command()));
    let (fleet, failure) = shrunk(fleet, failure);
    show(&fleet, &failure);
}

fn show(fleet: &Fleet, failure: &Failure) {
    let journal = Journal::default();
    // It fails again in the same way; this time what happens is written down.
    let _ = fleet.run_with(Some(Arc::clone(&journal)));
    let journal = journal.lock().unwrap_or_else(PoisonError::into_inner);
    let Keep { members, faults, course, .. } = fleet.keep();
    say(&format!(
        "\nsmallest that fails: {} members, {} faults, {} other deeds\n{failure}\n\n{}\n\n\
         replay: {}\n",
        members.len(),
        faults.len(),
        course.len(),
        journal.join("\n"),
        fleet.command(),
    ));
}

/// What all fleets together did.
#[derive(Default)]
struct Sum {
    fleets: u64,
    steps: u64,
    links: u64,
    tails: usize,
    device_time: Duration,
    cpu: Duration,
    wall: Duration,
    befallen: BTreeMap<&'static str, u64>,
    outcomes: BTreeMap<String, u64>,
    dearest_hour: (u64, u64),
}

impl Sum {
    fn add(&mut self, story: &Story) {
        self.fleets += 1;
        self.steps += story.steps;
        self.links += story.links;
        self.tails += story.tails.0;
        self.device_time += story.device_time;
        for (what, times) in &story.befallen {
            *self.befallen.entry(what).or_default() += times;
        }
        for (outcome, times) in &story.outcomes {
            *self.outcomes.entry(format!("{outcome:?}")).or_default() += times;
        }
        let (requests, writes) = story.dearest_hour;
        self.dearest_hour.0 = self.dearest_hour.0.max(requests);
        self.dearest_hour.1 = self.dearest_hour.1.max(writes);
    }

    fn report(&self) -> String {
        let days = self.device_time.as_secs_f64() / 86_400.0;
        let table = |counts: Vec<(&str, u64)>| {
            let lines = counts.iter().map(|(what, times)| format!("  {times:>10}  {what}\n"));
            lines.collect::<String>()
        };
        let mut report = format!(
            "{} fleets, {days:.1} device-days, {} connections, {} tails, {} steps\n",
            self.fleets, self.links, self.tails, self.steps
        );
        if !self.cpu.is_zero() {
            let (cpu, wall) = (self.cpu.as_secs_f64(), self.wall.as_secs_f64());
            report += &format!(
                "{:.1} device-days per CPU-minute, {:.1} fleets per CPU-second; {cpu:.1} s of CPU \
                 in {wall:.1} s\n",
                days / cpu * 60.0,
                self.fleets as f64 / cpu,
            );
        }
        let (requests, writes) = self.dearest_hour;
        report += &format!("dearest device-hour: {requests} requests, {writes} writes\n");
        report += "what befell them:\n";
        report += &table(self.befallen.iter().map(|(what, times)| (*what, *times)).collect());
        report += "what became of requests:\n";
        report += &table(self.outcomes.iter().map(|(what, times)| (&**what, *times)).collect());
        report
    }
}

fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs() as u32)
}

fn say(text: &str) {
    // Nobody is left to be told that nobody listens.
    let _ = io::stdout().write_all(text.as_bytes());
}
