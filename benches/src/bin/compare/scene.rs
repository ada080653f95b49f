//! Who and what takes part.

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use otter_benches::contest::{Cost, Entry, Side};
use otter_benches::report::{Bar, Line, is_settled};
use otter_benches::rounds::{Plan, turns_until};
use otter_benches::tls::Certificate;
use otter_benches::{Contestant, Server, cpu};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Otter, its rivals, and the tools that count.
pub(crate) struct Scene {
    pub(crate) otter: PathBuf,
    /// This program, which plays our own rivals.
    pub(crate) here: PathBuf,
    pub(crate) has_nginx: bool,
    pub(crate) has_redis: bool,
    pub(crate) has_strace: bool,
    pub(crate) has_valgrind: bool,
    /// Whether `node` is here, with express and ioredis.
    pub(crate) has_express: bool,
    pub(crate) certificate: Certificate,
    /// That of servers, and that of the load.
    pub(crate) cpus: [usize; 2],
    /// How many silent connections there may be.
    pub(crate) idle: u64,
    is_quick: bool,
    /// How many processes wanted a CPU in the minute before the start.
    load: String,
    started: Instant,
    /// When to begin no more rounds than must be.
    deadline: Cell<Instant>,
}

/// A rival, its place among the contestants, and what is asked of Otter beside it.
pub(crate) type Pair = (usize, &'static str, Bar);

impl Scene {
    pub(crate) fn new(otter: &Path, is_quick: bool) -> Result<Self> {
        if !otter.is_file() {
            bail!("there is no {}: cargo build --release", otter.display());
        }
        // Each silent connection takes a descriptor here and one in the server.
        let most = getrlimit(Resource::Nofile).maximum;
        setrlimit(Resource::Nofile, Rlimit { current: most, maximum: most })?;
        let wanted = if is_quick { IDLE / 4 } else { IDLE };
        let started = Instant::now();
        let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
        Ok(Self {
            otter: otter.canonicalize()?,
            here: std::env::current_exe()?,
            has_nginx: Server::has_nginx(),
            has_redis: runs("redis-server", &["--version"]),
            has_strace: runs("strace", &["-o", "/dev/null", "true"]),
            has_valgrind: runs("valgrind", &["--version"]),
            has_express: runs("node", &["-e", FINDS_EXPRESS]),
            certificate: Certificate::ecdsa()?,
            cpus: cpu::pair()?,
            idle: most.map_or(wanted, |most| wanted.min(most.saturating_sub(500))),
            is_quick,
            load: load.split(' ').next().unwrap_or_default().to_owned(),
            started,
            deadline: Cell::new(started),
        })
    }

    /// Otter with one worker, as its rivals have one, and else with its defaults.
    pub(crate) fn otter(&self) -> Contestant<'_> {
        Contestant::Otter(&self.otter)
    }

    /// A rival of our own.
    pub(crate) fn rival<'a>(&'a self, words: &'a [&'a str]) -> Contestant<'a> {
        Contestant::Rival(&self.here, words)
    }

    /// Starts a contestant where servers are measured.
    pub(crate) fn start(&self, contestant: Contestant<'_>) -> Result<Side> {
        Side::start_on(self.cpus[0], contestant)
    }

    /// The part that begins may add rounds until so long after the start.
    pub(crate) fn begin_part(&self, until: Duration) {
        self.deadline.set(self.started + until);
    }

    /// So many rounds, more of them while that is not enough; fewer where a look is enough.
    pub(crate) fn plan(&self, rounds: usize) -> Plan {
        let rounds = if self.is_quick { rounds.div_ceil(3) } else { rounds };
        let most = if self.is_quick { rounds } else { rounds * 3 };
        Plan { rounds, most, deadline: self.deadline.get() }
    }

    /// Loads all entries in turns, the first of which is Otter's, until all `pairs` are settled;
    /// returns what `of` says of each slice, by entry and round.
    pub(crate) fn contest(
        &self,
        entries: &mut [Entry<'_>],
        rounds: usize,
        of: fn(&Cost) -> f64,
        pairs: &[Pair],
    ) -> Result<Vec<Vec<Cost>>> {
        cpu::pin(std::process::id(), self.cpus[1])?;
        let rounds = turns_until(entries, self.plan(rounds), Entry::slice, |all| {
            let columns = columns(all);
            let of = |place: usize| columns[place].iter().map(of).collect::<Vec<_>>();
            let ours = of(0);
            pairs.iter().all(|(place, _, bar)| is_settled([&ours, &of(*place)], *bar))
        });
        cpu::unpin(std::process::id())?;
        Ok(columns(&rounds?))
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// The hardware and the programs that the figures are of.
    pub(crate) fn machine(&self) -> String {
        let cpus = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = cpus.lines().find_map(|line| line.strip_prefix("model name"));
        let model =
            model.and_then(|line| line.split_once(": ")).map_or("unknown", |(_, name)| name);
        let linux = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let load = &self.load;
        format!(
            "{} CPUs ({model}), load {load} at the start, Linux {}; {}; one worker of each server.",
            cpus.lines().filter(|line| line.starts_with("processor")).count(),
            linux.trim(),
            self.versions()
        )
    }

    fn versions(&self) -> String {
        let mut versions = Vec::new();
        if self.has_nginx {
            versions.push(first_line("nginx", &["-v"]).replace("nginx version: ", ""));
        }
        if self.has_redis {
            let line = first_line("redis-server", &["--version"]);
            let version = line.split(' ').find_map(|word| word.strip_prefix("v="));
            versions.push(format!("redis {}", version.unwrap_or_default()));
        }
        versions.join(", ")
    }

    /// What does not take part, and why.
    pub(crate) fn left_out(&self) -> Vec<String> {
        let mut reasons = Vec::new();
        for (is_here, reason) in [
            (self.has_nginx, "nginx and every line beside it: there is no nginx"),
            (self.has_redis, "every line with Redis: there is no redis-server"),
            (self.has_strace, "system calls: there is no strace that may trace"),
            (self.has_valgrind, "instructions and heap calls: there is no valgrind"),
            (
                self.has_express,
                "express with ioredis: there is no node that finds both (npm install express \
                 ioredis, and NODE_PATH)",
            ),
        ] {
            if !is_here {
                reasons.push(reason.to_owned());
            }
        }
        let wanted = if self.is_quick { IDLE / 4 } else { IDLE };
        if self.idle < wanted {
            let most = self.idle;
            reasons.push(format!("more than {most} silent connections: no more files may be open"));
        }
        if self.is_quick {
            reasons.push("two thirds of the rounds: this is a quick look".to_owned());
        }
        reasons
    }
}

/// By round and entry -> by entry and round.
pub(crate) fn columns<R: Copy>(rounds: &[Vec<R>]) -> Vec<Vec<R>> {
    let entries = rounds.first().map_or(0, Vec::len);
    (0..entries).map(|entry| rounds.iter().map(|round| round[entry]).collect()).collect()
}

/// What `of` says of each.
pub(crate) fn values(costs: &[Cost], of: fn(&Cost) -> f64) -> Vec<f64> {
    costs.iter().map(of).collect()
}

/// A line for each rival of the first column.
pub(crate) fn lines(
    goal: u8,
    what: &str,
    columns: &[Vec<Cost>],
    of: fn(&Cost) -> f64,
    pairs: &[Pair],
) -> Vec<Line> {
    let ours = values(&columns[0], of);
    let line = |(place, rival, bar): &Pair| {
        Line::measured(goal, what, rival, [&ours, &values(&columns[*place], of)], *bar)
    };
    pairs.iter().map(line).collect()
}

fn runs(program: &str, words: &[&str]) -> bool {
    let mut command = Command::new(program);
    command.args(words).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

fn first_line(program: &str, words: &[&str]) -> String {
    let path = std::env::var("PATH").unwrap_or_default();
    let output = Command::new(program).args(words).env("PATH", path + ":/usr/sbin:/sbin").output();
    let Ok(output) = output else { return String::new() };
    let said = [output.stdout, output.stderr].concat();
    String::from_utf8_lossy(&said).lines().next().unwrap_or_default().to_owned()
}

/// Whether the program in rivals/ finds what it asks for.
const FINDS_EXPRESS: &str = concat!(
    "const { createRequire } = require('module');",
    "const find = createRequire('",
    env!("CARGO_MANIFEST_DIR"),
    "/rivals/express.js').resolve;",
    "find('express'); find('ioredis');"
);
const IDLE: u64 = 10_000;
