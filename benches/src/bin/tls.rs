//! What TLS costs: `otter serve` beside nginx, in the same run.
//!
//! ```text
//! cargo build --release && cargo run --release -p otter-benches --bin tls
//! ```
//!
//! Needs `nginx`, and `openssl` for the rows with an RSA key. Contestants take turns in slices of
//! 0.4 s; a ratio is that of two slices of the same round, and the median of all rounds is printed
//! with the quartiles. Servers run on one CPU, clients on another one. Clients offer one suite and
//! one group, check every status and length and what kind of handshake it was, and in each slice
//! the SHA-256 of one image. They are a thread each for all clients of a slice and for the flood.
//!
//! Images come from Otter by token, in ranges that end just before the tail of an image that is
//! 4096 bytes longer: those are not limited, and leave the connection open. nginx has the same
//! image as a file, and gets the same requests.

use std::io::Write;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use otter_benches::contest::Side;
use otter_benches::rounds::{Goal, row, turns};
use otter_benches::tls::{Certificate, Flood, Resume, Terms, Then};
use otter_benches::{Contestant, Server, cpu};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

const HELP: &str = "\
usage: tls [--lines LINES] [--rounds N] [--without WHO] [OTTER]

  OTTER          the program to measure [default: otter beside this one]
  --lines LINES  some of image,check-in,steady,idle,flood [default: all of them]
  --rounds N     how often each contestant has its turn [default: 24 for check-ins, 12 else]
  --without WHO  leave otter or nginx out";

fn main() -> Result<()> {
    let mut out = std::io::stdout();
    let mut bench = Bench::new()?;
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut value = || words.next().context(HELP);
        match word.as_str() {
            "--lines" => bench.lines = value()?.split(',').map(str::to_owned).collect(),
            "--rounds" => bench.rounds = Some(value()?.parse().context(HELP)?),
            "--without" => match value()?.as_str() {
                "otter" => bench.otter = None,
                "nginx" => bench.has_nginx = false,
                _ => bail!("{HELP}"),
            },
            "--help" => return Ok(writeln!(out, "{HELP}")?),
            _ if word.starts_with('-') => bail!("{HELP}"),
            _ => bench.otter = Some(PathBuf::from(word)),
        }
    }
    type Line = fn(&Bench, &mut std::io::Stdout) -> Result<()>;
    let lines: [(&str, Line); 5] = [
        ("image", Bench::images),
        ("check-in", Bench::check_ins),
        ("steady", Bench::steady),
        ("idle", Bench::idle),
        ("flood", Bench::flood),
    ];
    if bench.lines.iter().any(|name| lines.iter().all(|(known, _)| known != name)) {
        bail!("{HELP}");
    }
    bench.say_what_is_missing(&mut out)?;
    for (name, line) in lines {
        if bench.lines.is_empty() || bench.lines.iter().any(|chosen| chosen == name) {
            line(&bench, &mut out)?;
        }
    }
    Ok(())
}

/// What to measure, and with what.
struct Bench {
    /// Empty for all.
    lines: Vec<String>,
    rounds: Option<usize>,
    otter: Option<PathBuf>,
    has_nginx: bool,
    ecdsa: Certificate,
    rsa: Option<Certificate>,
    /// How many silent connections there may be.
    idle: u64,
    /// Those of servers and of the load.
    cpus: [usize; 2],
}

impl Bench {
    fn new() -> Result<Self> {
        // Each silent connection takes a descriptor here and one in the server.
        let most = getrlimit(Resource::Nofile).maximum;
        setrlimit(Resource::Nofile, Rlimit { current: most, maximum: most })?;
        Ok(Self {
            lines: Vec::new(),
            rounds: None,
            otter: Some(std::env::current_exe()?.with_file_name("otter")),
            has_nginx: Server::has_nginx(),
            ecdsa: Certificate::ecdsa()?,
            rsa: Certificate::rsa()?,
            cpus: cpu::pair()?,
            idle: most.map_or(IDLE, |most| IDLE.min(most.saturating_sub(500))),
        })
    }

    fn say_what_is_missing(&self, out: &mut impl Write) -> Result<()> {
        match &self.otter {
            Some(program) if !program.is_file() => {
                bail!(
                    "there is no {}: build it, name it, or say --without otter",
                    program.display()
                )
            }
            None if !self.has_nginx => bail!("there is nobody to measure"),
            None => writeln!(out, "without otter")?,
            Some(_) => {}
        }
        if !self.has_nginx {
            writeln!(out, "without nginx: there is nobody to compare with")?;
        }
        if self.rsa.is_none() {
            writeln!(out, "without rows for RSA keys: there is no openssl to make one")?;
        }
        if self.idle < IDLE {
            writeln!(
                out,
                "with {} silent connections: more descriptors are not allowed",
                self.idle
            )?;
        }
        Ok(())
    }

    /// Starts both, or who of them takes part.
    fn start(&self, certificate: &Certificate) -> Result<[Option<Side>; 2]> {
        let start = |contestant| Side::start_on(self.cpus[0], contestant);
        let otter = self.otter.as_deref();
        let otter = otter.map(|program| start(Contestant::OtterTls(program, certificate)));
        let nginx = self.has_nginx.then(|| start(Contestant::NginxTls(certificate)));
        Ok([otter.transpose()?, nginx.transpose()?])
    }

    fn rounds(&self, usual: usize) -> usize {
        self.rounds.unwrap_or(usual).max(1)
    }

    fn images(&self, out: &mut std::io::Stdout) -> Result<()> {
        let (large, aes) = (1 << 20, Terms::tls13());
        let kinds = [
            ("1 MiB, TLS 1.3, AES-128-GCM", large, aes, Some(IMAGE)),
            ("64 KiB, TLS 1.3, AES-128-GCM", 1 << 16, aes, None),
            ("4 MiB, TLS 1.3, AES-128-GCM", 1 << 22, aes, None),
            ("1 MiB, TLS 1.2, AES-128-GCM", large, Terms::tls12(), None),
            ("1 MiB, TLS 1.3, ChaCha20-Poly1305", large, Terms::tls13_chacha20(), None),
        ];
        let sides = self.start(&self.ecdsa)?;
        let mut entries = Vec::new();
        for (n, (_, size, terms, _)) in (0..).zip(&kinds) {
            for side in sides.iter().flatten() {
                let job = side.download(n, *size)?;
                entries.push(side.secure(terms, &self.ecdsa, job, 4)?);
            }
        }
        cpu::pin(std::process::id(), self.cpus[1])?;
        let rounds =
            turns(&mut entries, self.rounds(12), |entry| Ok(entry.slice()?.seconds_per_gib()))?;
        head(out, "CPU s per GiB: images, 4 kept connections", NAMES)?;
        for ((what, _, _, goal), pair) in kinds.into_iter().zip(self.pairs(&rounds)) {
            row(out, what, &pair, goal)?;
        }
        Ok(())
    }

    fn check_ins(&self, out: &mut std::io::Stdout) -> Result<()> {
        let (new, old) = (Terms::tls13(), Terms::tls12());
        let kinds = [
            ("TLS 1.3, full", new, Some(CHECK_IN)),
            ("TLS 1.3, resumed", new.resumed(Resume::Ticket), None),
            ("TLS 1.2, full", old, None),
            ("TLS 1.2, resumed by session id", old.resumed(Resume::SessionId), None),
            ("TLS 1.2, resumed by ticket", old.resumed(Resume::Ticket), None),
            ("TLS 1.2, full, RSA-2048", Terms::tls12_rsa(), None),
        ];
        // The last one, if there is such a key.
        let kinds = &kinds[..kinds.len() - usize::from(self.rsa.is_none())];
        let ecdsa = self.start(&self.ecdsa)?;
        let rsa = self.rsa.as_ref().map(|certificate| self.start(certificate)).transpose()?;
        let mut entries = Vec::new();
        for (place, (_, terms, _)) in kinds.iter().enumerate() {
            let (sides, certificate) = match (&rsa, &self.rsa) {
                (Some(sides), Some(certificate)) if place == 5 => (sides, certificate),
                _ => (&ecdsa, &self.ecdsa),
            };
            for side in sides.iter().flatten() {
                entries.push(side.secure(terms, certificate, side.check_in(Then::Reconnect), 8)?);
            }
        }
        for side in ecdsa.iter().flatten() {
            entries.push(side.plain(side.check_in(Then::Reconnect), 8)?);
        }
        cpu::pin(std::process::id(), self.cpus[1])?;
        let rounds =
            turns(&mut entries, self.rounds(24), |entry| Ok(entry.slice()?.us_per_answer()))?;
        let mut pairs = self.pairs(&rounds);
        let plain = pairs.pop().context("the last ones")?;
        head(out, "CPU us per check-in, from connect to close", NAMES)?;
        for ((what, _, goal), pair) in kinds.iter().zip(&pairs) {
            row(out, what, pair, *goal)?;
        }
        row(out, "the same over plain HTTP", &plain, None)?;
        let resumed = [
            ("TLS 1.3, by ticket", [1, 0], None),
            ("TLS 1.2, by session id", [3, 2], Some(RESUMED)),
            ("TLS 1.2, by ticket", [4, 2], Some(RESUMED)),
        ];
        for (who, name) in NAMES.into_iter().enumerate() {
            let Some(plain) = &plain[who] else { continue };
            head(out, &format!("CPU us of {name}, resumed beside full"), ["resumed", "full"])?;
            for (what, places, goal) in resumed {
                let whole = places.map(|place| pairs[place][who].clone());
                let goal = goal.filter(|_| who == 0);
                row(out, what, &whole, goal)?;
                // What TLS adds: the kernel's work for a connection is the same in both.
                let added = whole.map(|whole| whole.map(|whole| difference(&whole, plain)));
                row(out, "  what TLS adds to plain HTTP", &added, goal)?;
            }
        }
        Ok(())
    }

    fn steady(&self, out: &mut std::io::Stdout) -> Result<()> {
        let kinds = [("TLS 1.3", Terms::tls13()), ("TLS 1.2", Terms::tls12())];
        let sides = self.start(&self.ecdsa)?;
        let mut entries = Vec::new();
        for (_, terms) in &kinds {
            for side in sides.iter().flatten() {
                entries.push(side.secure(terms, &self.ecdsa, side.check_in(Then::AskAgain), 64)?);
            }
        }
        cpu::pin(std::process::id(), self.cpus[1])?;
        let rounds =
            turns(&mut entries, self.rounds(24), |entry| Ok(entry.slice()?.us_per_answer()))?;
        head(out, "CPU us per check-in, 64 kept connections", NAMES)?;
        for ((what, _), pair) in kinds.into_iter().zip(self.pairs(&rounds)) {
            row(out, what, &pair, None)?;
        }
        Ok(())
    }

    fn idle(&self, out: &mut std::io::Stdout) -> Result<()> {
        let what = format!("bytes per silent connection, of {}", self.idle);
        head(out, &what, NAMES)?;
        for (what, terms) in [("TLS 1.3", Terms::tls13()), ("TLS 1.2", Terms::tls12())] {
            // Servers that have not served yet: what others left would be used first.
            let sides = self.start(&self.ecdsa)?;
            cpu::pin(std::process::id(), self.cpus[1])?;
            let bytes = |side: &Side| side.idle_bytes(Some((&terms, &self.ecdsa)), self.idle);
            let [otter, nginx] = sides.each_ref().map(|side| side.as_ref().map(bytes).transpose());
            let sides = [otter?, nginx?].map(|bytes| bytes.map(|bytes| vec![bytes]));
            row(out, what, &sides, Some(IDLE_GOAL))?;
        }
        Ok(())
    }

    fn flood(&self, out: &mut std::io::Stdout) -> Result<()> {
        let terms = Terms::tls13();
        let sides = self.start(&self.ecdsa)?;
        let mut entries = Vec::new();
        for side in sides.iter().flatten() {
            let job = side.download(0, 1 << 20)?;
            entries.push(side.secure(&terms, &self.ecdsa, job, 8)?);
        }
        cpu::pin(std::process::id(), self.cpus[1])?;
        let hello = terms.client(&self.ecdsa)?;
        let rounds = turns(&mut entries, self.rounds(12), |entry| {
            let quiet = entry.slice()?;
            let flood = Flood::start(entry.side.server.tls_address()?, &hello, 64)?;
            let start = Instant::now();
            while flood.answered() < 64 {
                if start.elapsed() > Duration::from_secs(5) {
                    flood.end()?;
                    bail!("the server does not answer handshakes");
                }
                std::thread::yield_now();
            }
            let before = flood.answered();
            let flooded = entry.slice()?;
            let answered = flood.answered() - before;
            flood.end()?;
            Ok([
                quiet.mib_per_second(),
                flooded.mib_per_second(),
                flooded.mib_per_second() / quiet.mib_per_second(),
                answered as f64 / flooded.seconds,
                quiet.cpus(quiet.cpu_ns),
                flooded.cpus(flooded.cpu_ns),
                quiet.cpus(quiet.load_ns),
                flooded.cpus(flooded.load_ns),
            ])
        })?;
        head(out, "8 downloads, then also a flood of handshakes", NAMES)?;
        for (place, what) in [
            "MiB/s, quiet",
            "MiB/s, flooded",
            "part of the rate that is left",
            "handshakes/s answered meanwhile",
            "CPUs used by the server, quiet",
            "CPUs used by the server, flooded",
            "CPUs used by the clients, quiet",
            "CPUs used by the clients, flooded",
        ]
        .into_iter()
        .enumerate()
        {
            let values: Vec<Vec<_>> =
                rounds.iter().map(|round| round.iter().map(|all| all[place]).collect()).collect();
            for pair in self.pairs(&values) {
                row(out, what, &pair, None)?;
            }
        }
        Ok(())
    }

    /// By round and entry -> by pair of entries, contestant and round.
    fn pairs(&self, rounds: &[Vec<f64>]) -> Vec<[Option<Vec<f64>>; 2]> {
        let takes_part = [self.otter.is_some(), self.has_nginx];
        let entries = rounds.first().map_or(0, Vec::len);
        let mut columns = (0..entries).map(|entry| rounds.iter().map(|r| r[entry]).collect());
        let mut pairs = Vec::new();
        while columns.len() > 0 {
            pairs.push(takes_part.map(|is_there| is_there.then(|| columns.next()).flatten()));
        }
        pairs
    }
}

fn difference(these: &[f64], those: &[f64]) -> Vec<f64> {
    these.iter().zip(those).map(|(this, that)| this - that).collect()
}

fn head(out: &mut impl Write, what: &str, [ours, theirs]: [&str; 2]) -> Result<()> {
    Ok(writeln!(out, "\n{what:44} {ours:>9} {theirs:>10} {:>6}", "ratio")?)
}

const NAMES: [&str; 2] = ["otter", "nginx"];
const IDLE: u64 = 10_000;
const IMAGE: Goal = Goal { pass: 0.60, stretch: 0.50 };
const CHECK_IN: Goal = Goal { pass: 0.50, stretch: 0.40 };
const RESUMED: Goal = Goal { pass: 0.30, stretch: 0.20 };
const IDLE_GOAL: Goal = Goal { pass: 0.35, stretch: 0.25 };
