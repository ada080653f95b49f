//! Otter beside the best that there is, goal by goal: see `benches/compare`, which builds and calls
//! this.
//!
//! Counts come first (instructions, heap calls, system calls, bytes, writes to Redis), as they do
//! not depend on how busy the machine is; then CPU time, of contestants that take turns in slices
//! of 0.4 s. Servers run on one CPU, the load and Redis on another one. A ratio is that of two
//! slices of one round, and the median of all rounds counts. Rounds go on while halves of them
//! disagree or the bar is within what is not sure.

mod check_in;
mod commit;
mod handshake;
mod idle;
mod image;
mod redis;
mod scene;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail};
use otter_benches::report::{self, Line, Verdict};
use otter_benches::{cpu, plot, rivals};

use scene::Scene;

const HELP: &str = "\
usage: compare [--only NAME].. [--quick] [--minutes N] [--out FOLDER] [--list] [OTTER]

  OTTER         the program to measure [default: otter beside this one]
  --only NAME   a part of it: see --list; may be given again
  --quick       a third of the rounds and connections: to see that it works
  --minutes N   how long all of it may take, if what must be done is done [default: 17]
  --out FOLDER  where to write compare.md and compare.svg [default: nowhere]
  --list        says which parts there are";

/// A part of the comparison.
type Part = fn(&Scene) -> Result<Vec<Line>>;

/// The seconds are those that a part may take where there is enough time; what it must do takes
/// half of that.
const PARTS: [(&str, &str, u32, Part); 14] = [
    ("instructions", "user instructions of a check-in, by callgrind", 60, check_in::instructions),
    ("calls", "heap calls and system calls of a check-in", 60, check_in::calls),
    ("idle", "memory of connections that are silent", 10, idle::plain),
    ("idle-tls", "the same over TLS", 40, idle::secure),
    ("copies", "copies of an image into the process; heap calls per record", 40, image::counts),
    ("redis-writes", "writes to Redis", 25, redis::writes),
    ("keep-alive", "CPU time of a check-in on a kept connection", 120, check_in::kept),
    ("redis", "the same with Redis", 100, redis::cpu),
    ("close", "a check-in on a connection of its own", 120, check_in::closing),
    ("lines", "a check-in line by line", 120, check_in::by_line),
    ("image", "CPU time of images", 160, image::plain),
    ("image-tls", "the same over TLS, and sealing alone", 60, image::secure),
    ("handshake", "a check-in over TLS on a connection of its own", 100, handshake::check_ins),
    ("commit", "durable writes", 40, commit::groups),
];

fn main() -> Result<()> {
    let words: Vec<_> = std::env::args().skip(1).collect();
    if let Some(("rival", rest)) = words.split_first().map(|(first, rest)| (first.as_str(), rest)) {
        return rivals::serve(rest);
    }
    let mut out = std::io::stdout();
    let Some(wish) = Wish::parse(words, &mut out)? else { return Ok(()) };
    cpu::prefer_own_session();
    let scene = Scene::new(&wish.otter, wish.is_quick)?;
    writeln!(out, "{}\n", scene.machine())?;
    for reason in scene.left_out() {
        writeln!(out, "left out: {reason}")?;
    }
    write!(out, "\n{}", report::text_head())?;
    let mut lines = Vec::new();
    let is_wished = |name: &str| wish.only.is_empty() || wish.only.iter().any(|only| only == name);
    let parts: Vec<_> = PARTS.into_iter().filter(|(name, ..)| is_wished(name)).collect();
    let whole: u32 = parts.iter().map(|(_, _, seconds, _)| seconds).sum();
    let mut due = 0;
    for (name, _, seconds, part) in parts {
        // What one part needs beyond its share is not taken from the next one.
        due += seconds;
        scene.begin_part(wish.time.mul_f64(f64::from(due) / f64::from(whole)));
        let some = part(&scene).with_context(|| format!("{name} could not be measured"))?;
        write!(out, "{}", report::text(&some))?;
        out.flush()?;
        lines.extend(some);
    }
    lines.sort_by_key(|line| line.goal);
    writeln!(out, "\n{}", summary(&lines))?;
    writeln!(out, "{:.1} minutes", scene.elapsed().as_secs_f64() / 60.0)?;
    if let Some(folder) = wish.out {
        publish(&folder, &scene, &lines)?;
        writeln!(out, "written: compare.md and compare.svg in {}", folder.display())?;
    }
    Ok(())
}

/// What the command line says.
struct Wish {
    only: Vec<String>,
    is_quick: bool,
    time: Duration,
    out: Option<PathBuf>,
    otter: PathBuf,
}

impl Wish {
    /// `None` if a question is answered already.
    fn parse(words: Vec<String>, out: &mut impl Write) -> Result<Option<Self>> {
        let otter = std::env::current_exe()?.with_file_name("otter");
        let time = Duration::from_secs(17 * 60);
        let mut wish = Self { only: Vec::new(), is_quick: false, time, out: None, otter };
        let mut words = words.into_iter();
        while let Some(word) = words.next() {
            match word.as_str() {
                "--only" => wish.only.push(words.next().context(HELP)?),
                "--quick" => wish.is_quick = true,
                "--minutes" => {
                    let minutes: f64 = words.next().context(HELP)?.parse().context(HELP)?;
                    wish.time = Duration::try_from_secs_f64(minutes * 60.0).context(HELP)?;
                }
                "--out" => wish.out = Some(words.next().context(HELP)?.into()),
                "--list" => {
                    for (name, what, ..) in PARTS {
                        writeln!(out, "{name:13} {what}")?;
                    }
                    return Ok(None);
                }
                "--help" => {
                    writeln!(out, "{HELP}")?;
                    return Ok(None);
                }
                _ if word.starts_with('-') => bail!("{HELP}"),
                _ => wish.otter = word.into(),
            }
        }
        for name in &wish.only {
            if PARTS.iter().all(|(known, ..)| known != name) {
                bail!("there is no part {name}: see --list");
            }
        }
        Ok(Some(wish))
    }
}

fn summary(lines: &[Line]) -> String {
    let of = |verdict| lines.iter().filter(|line| line.verdict() == verdict).count();
    let close = lines.iter().filter(|line| line.is_close()).count();
    format!(
        "{} bars: {} pass, {} FAIL; {close} are close to the bar",
        of(Verdict::Pass) + of(Verdict::Fail),
        of(Verdict::Pass),
        of(Verdict::Fail)
    )
}

fn publish(folder: &Path, scene: &Scene, lines: &[Line]) -> Result<()> {
    let title = "Otter beside others: cost as a ratio; left of the bar is good";
    std::fs::write(folder.join("compare.svg"), plot::svg(title, lines))?;
    let left_out: String =
        scene.left_out().iter().map(|reason| format!("Left out: {reason}.\n")).collect();
    let text = format!(
        "# Otter beside others\n\n\
         Written by `benches/compare` on {}; [performance.md](performance.md) says what the lines \
         mean and how they were measured. {}\n\n{}\n\n![{title}](compare.svg)\n\n{}{}{left_out}",
        date()?,
        scene.machine(),
        summary(lines),
        report::markdown(lines),
        if left_out.is_empty() { "" } else { "\n" },
    );
    Ok(std::fs::write(folder.join("compare.md"), text)?)
}

/// The day of today in UTC.
fn date() -> Result<String> {
    let seconds = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_secs();
    // Days since 1 March of year 0, of 400 years at a time (Howard Hinnant's algorithm).
    let days = seconds / 86_400 + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year + era * 400 + u64::from(month <= 2);
    Ok(format!("{year}-{month:02}-{day:02}"))
}
