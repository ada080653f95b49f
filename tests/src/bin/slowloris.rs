//! Slow clients by the thousands against a real server, and how long honest devices wait meanwhile.
//! `tests/slowloris --help` says how to use it.

use std::env;
use std::fmt;
use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use otter_tests::bounds;
use otter_tests::slow::{Manner, Slow, Way};
use serde_json::Value;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn main() -> ExitCode {
    let args: Vec<String> = env::args().skip(1).collect();
    let ran = match args.first().map(String::as_str) {
        Some("attack") => attack(&args[1..]).map(|()| true),
        Some(_) | None => Plan::of(&args).and_then(|plan| plan.run()),
    };
    match ran {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("slowloris: {error}");
            ExitCode::FAILURE
        }
    }
}

/// What to try.
struct Plan {
    program: PathBuf,
    connections: usize,
    seconds: u64,
    runtime: String,
    /// Parts of names of kinds; none: all.
    kinds: Vec<String>,
}

/// Check-ins, how long each took.
struct Waits(Vec<Duration>);

/// What a server looked like meanwhile.
struct Seen {
    /// The most.
    resident_bytes: u64,
    /// Descriptors.
    open_least: usize,
}

impl Plan {
    fn of(args: &[String]) -> Result<Self> {
        let mut plan = Self {
            program: PathBuf::from("target/release/otter"),
            connections: 1000,
            seconds: 10,
            runtime: "mio".to_owned(),
            kinds: Vec::new(),
        };
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            let mut value = || args.next().ok_or_else(|| format!("{arg} needs a value"));
            match arg.as_str() {
                "--program" => plan.program = value()?.into(),
                "--connections" => plan.connections = value()?.parse()?,
                "--seconds" => plan.seconds = value()?.parse()?,
                "--runtime" => value()?.clone_into(&mut plan.runtime),
                kind => plan.kinds.push(kind.to_owned()),
            }
        }
        Ok(plan)
    }

    /// False if honest devices waited too long, or the server took too much.
    fn run(&self) -> Result<bool> {
        let mut all_good = true;
        say(&format!(
            "{} connections, runtime {}, {} s each; medians of an honest device's check-ins, each \
             over a connection of its own",
            self.connections, self.runtime, self.seconds
        ))?;
        for (way, manner) in KINDS {
            let name = format!("{way:?} {manner:?}").to_lowercase();
            if self.kinds.is_empty() || self.kinds.iter().any(|kind| name.contains(&**kind)) {
                all_good &= self.try_one(&name, way, manner)?;
            }
        }
        Ok(all_good)
    }

    fn try_one(&self, name: &str, way: Way, manner: Manner) -> Result<bool> {
        let site = Site::start(self, way, manner)?;
        let at = site.address(way);
        let time = Duration::from_secs(self.seconds);
        let (quiet, before) = site.watch(way, time)?;
        let attackers = self.attack(at, way, manner, &site.token)?;
        let (slow, held) = site.watch(way, time)?;
        let ended: u64 = attackers.into_iter().map(Attacker::stop).sum::<Result<u64>>()?;
        let (after, _) = site.watch(way, time)?;
        let taken = held.resident_bytes.saturating_sub(before.resident_bytes);
        let per_connection = taken / self.connections as u64;
        let open = held.open_least.saturating_sub(before.open_least);
        let bound = bound(&self.runtime, way, manner, self.seconds);
        let ratio = slow.median().as_secs_f64() / quiet.median().as_secs_f64();
        let count = quiet.0.len() + slow.0.len() + after.0.len();
        say(&format!(
            "{name:<12} quiet {quiet}, under attack {slow} = {ratio:.2} times, after {after}; \
             {count} check-ins, none failed; never less than {open} open, {ended} cut off and \
             made again; resident {:.1} MiB, with them {:.1} MiB: {per_connection} bytes each of \
             {bound}",
            before.resident_bytes as f64 / MIB,
            held.resident_bytes as f64 / MIB,
        ))?;
        let open_min = self.connections * OPEN_MIN_PERCENT / 100;
        let is_good = ratio <= RATIO_MAX && per_connection <= bound && open >= open_min;
        if !is_good {
            let max = format!("at most {RATIO_MAX} times, {bound} bytes each");
            say(&format!("{name:<12} NOT GOOD: {max}, and never less than {open_min} open"))?;
        }
        site.stop()?;
        Ok(is_good)
    }

    /// Starts as many processes as it takes and waits until all connections are held.
    fn attack(
        &self,
        at: SocketAddr,
        way: Way,
        manner: Manner,
        token: &str,
    ) -> Result<Vec<Attacker>> {
        let processes = self.connections.div_ceil(HELD_BY_ONE_MAX).max(2);
        let shares = (0..processes).map(|n| (self.connections + n) / processes);
        let started: Result<Vec<_>> =
            shares.map(|share| Attacker::start(at, way, manner, share, token)).collect();
        let mut started = started?;
        started.iter_mut().try_for_each(Attacker::wait_until_held)?;
        Ok(started)
    }
}

impl Waits {
    fn median(&self) -> Duration {
        self.at(50)
    }

    /// The percentile.
    fn at(&self, percent: usize) -> Duration {
        let at = self.0.len() * percent / 100;
        self.0.get(at.min(self.0.len().saturating_sub(1))).copied().unwrap_or_default()
    }
}

impl fmt::Display for Waits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [median, late] = [self.median(), self.at(99)].map(|wait| wait.as_micros());
        write!(f, "{median:>5} us (p99 {late:>6})")
    }
}

/// What a connection may take of a server's memory at most (docs/proof.md, "Bounds").
fn bound(runtime: &str, way: Way, manner: Manner, seconds: u64) -> u64 {
    let driver = if runtime == "tokio" { bounds::DRIVER_TOKIO } else { bounds::DRIVER_MIO };
    // What it began with, and a byte in each period; how long it took to connect is not known.
    let sent = Slow::BEGINNING_BYTES_MAX + 4 * (seconds / PERIOD.as_secs()) as usize + 64;
    let core = match (way, manner) {
        (_, Manner::Hello) => bounds::TLS_OVER + 2 * sent,
        (Way::Plain, Manner::Head | Manner::Body) => bounds::receiving(sent),
        (Way::Plain, Manner::Read) => bounds::responding(),
        (Way::Tls, Manner::Head | Manner::Body) => {
            bounds::TLS_IDLE + bounds::RECORD + bounds::receiving(sent)
        }
        (Way::Tls, Manner::Read) => bounds::TLS_IDLE + bounds::BATCH + bounds::responding(),
    };
    (driver + bounds::ALLOCATOR + core) as u64
}

/// A process that holds connections.
struct Attacker {
    child: Child,
    said: BufReader<std::process::ChildStdout>,
}

impl Attacker {
    fn start(at: SocketAddr, way: Way, manner: Manner, share: usize, token: &str) -> Result<Self> {
        let args = [format!("{at}"), format!("{way:?}"), format!("{manner:?}"), share.to_string()];
        let mut child = Command::new(env::current_exe()?)
            .arg("attack")
            .args(args)
            .arg(token)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let said = BufReader::new(child.stdout.take().ok_or("no pipe")?);
        Ok(Self { child, said })
    }

    fn wait_until_held(&mut self) -> Result<()> {
        match self.line()?.as_str() {
            "held" => Ok(()),
            said => Err(format!("an attacker said {said:?}").into()),
        }
    }

    /// Returns how many of its connections were cut off.
    fn stop(mut self) -> Result<u64> {
        drop(self.child.stdin.take());
        let ended = self.line()?.parse()?;
        self.child.wait()?;
        Ok(ended)
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        self.said.read_line(&mut line)?;
        Ok(line.trim().to_owned())
    }
}

impl Drop for Attacker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The attacking process: holds connections until its input ends.
fn attack(args: &[String]) -> Result<()> {
    let [at, way, manner, share, token] = args else { return Err("five arguments".into()) };
    let kind = KINDS.into_iter().find(|(w, m)| format!("{w:?} {m:?}") == format!("{way} {manner}"));
    let (way, manner) = kind.ok_or("no such kind")?;
    let mut slow = Slow::new(at.parse()?, way, manner, token);
    let share = share.parse()?;
    // As many at a time as fit between two bytes of those that are held already.
    let mut next = Instant::now() + PERIOD;
    while slow.held() < share {
        slow.hold(share.min(slow.held() + 50))?;
        if Instant::now() > next {
            slow.trickle();
            next = Instant::now() + PERIOD;
        }
    }
    say("held")?;
    // Disconnected once the input has ended.
    let (input, end) = mpsc::channel::<()>();
    thread::spawn(move || {
        let _ = io::stdin().read_to_end(&mut Vec::new());
        drop(input);
    });
    let mut next = Instant::now();
    loop {
        if Instant::now() >= next {
            slow.trickle();
            next = Instant::now() + PERIOD;
        }
        slow.renew()?;
        if end.recv_timeout(PERIOD / 50) == Err(RecvTimeoutError::Disconnected) {
            break;
        }
    }
    say(&slow.ended().to_string())
}

/// A server with an owner, a device and a token.
struct Site {
    child: Child,
    places: String,
    data: tempfile::TempDir,
    program: PathBuf,
    owner: String,
    key: String,
    token: String,
}

impl Site {
    fn start(plan: &Plan, way: Way, manner: Manner) -> Result<Self> {
        let data = tempfile::tempdir()?;
        let path = data.path().join("data");
        let run = |args: &[&str]| run(&plan.program, &path, args);
        let owner = text(&run(&["owner", "create"])?, "owner")?;
        let key = text(&run(&["key", "create", "--owner", &owner])?, "key")?;
        run(&["cert", "self-signed"])?;
        let image = data.path().join("image.bin");
        let mut bytes = vec![0x5a; 400_000];
        bytes[0] = 0xE9;
        fs::write(&image, bytes)?;
        let mut child = Command::new(&plan.program)
            .arg("--data")
            .arg(&path)
            .args(["serve", "--listen", "127.0.0.1:0", "--tls-listen", "127.0.0.1:0", "--cert"])
            .args([path.join("tls/cert.pem").as_os_str(), "--key".as_ref()])
            .arg(path.join("tls/key.pem"))
            .args(["--runtime", &plan.runtime])
            .env("OTTER_LOG", "error")
            .envs(patience(way, manner).iter().copied())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut places = String::new();
        BufReader::new(child.stdout.take().ok_or("no pipe")?).read_line(&mut places)?;
        let program = plan.program.clone();
        let mut site = Self { child, places, data, program, owner, key, token: String::new() };
        site.check_in(Way::Plain)?;
        let image = image.display().to_string();
        let publish = ["publish", &image, "--owner", &site.owner, "--all"];
        let release = ["--version", "1.1.0", "--platform", "arduino"];
        site.run(&[&publish[..], &release].concat())?;
        site.token = text(&site.run(&["token", "issue", "--device", UDID])?, "ott")?;
        Ok(site)
    }

    fn address(&self, way: Way) -> SocketAddr {
        let name = if way == Way::Plain { "http=" } else { "https=" };
        let place = self.places.split_whitespace().find_map(|place| place.strip_prefix(name));
        place.and_then(|place| place.parse().ok()).expect("an address in the line")
    }

    fn run(&self, args: &[&str]) -> Result<Value> {
        run(&self.program, &self.data.path().join("data"), args)
    }

    /// Checks in over and over, and looks at the server meanwhile.
    fn watch(&self, way: Way, time: Duration) -> Result<(Waits, Seen)> {
        let begun = Instant::now();
        let mut next = begun;
        let mut waits = Vec::new();
        let mut seen = Seen { resident_bytes: 0, open_least: usize::MAX };
        while begun.elapsed() < time {
            if Instant::now() >= next {
                seen.resident_bytes = seen.resident_bytes.max(self.resident_bytes()?);
                seen.open_least = seen.open_least.min(self.descriptors()?);
                next += Duration::from_millis(500);
            }
            let asked = Instant::now();
            self.check_in(way)?;
            waits.push(asked.elapsed());
            thread::sleep(Duration::from_millis(3));
        }
        waits.sort();
        Ok((Waits(waits), seen))
    }

    fn check_in(&self, way: Way) -> Result<()> {
        let body = format!(
            "{{\"registration\":{{\"mac\":\"5CCF7F000001\",\"owner\":\"{}\",\"udid\":\"{UDID}\",\
             \"version\":\"1.1.0\",\"platform\":\"arduino\"}}}}",
            self.owner
        );
        let request = format!(
            "POST /device/register HTTP/1.1\r\nHost: otter\r\nAuthentication: {}\r\n\
             Connection: close\r\nContent-Length: {}\r\n\r\n{body}",
            self.key,
            body.len()
        );
        let mut stream = way.connect(self.address(way))?;
        stream.write_all(request.as_bytes())?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        let answer = String::from_utf8_lossy(&answer);
        if answer.contains("\"status\":\"OK\"") {
            Ok(())
        } else {
            Err(format!("an honest device was answered {answer:?}").into())
        }
    }

    fn resident_bytes(&self) -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib: u64 = line.ok_or("no VmRSS")?.trim().trim_end_matches(" kB").parse()?;
        Ok(kib * 1024)
    }

    fn descriptors(&self) -> Result<usize> {
        Ok(fs::read_dir(format!("/proc/{}/fd", self.child.id()))?.count())
    }

    fn stop(mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What cuts off who is slow, or does not let him in, is switched off where as many as are wanted
/// could not be held otherwise: nobody on the same machine makes handshakes so fast that those who
/// are cut off were replaced, and of downloads only some thousands are admitted that are so slow.
fn patience(way: Way, manner: Manner) -> &'static [(&'static str, &'static str)] {
    match (way, manner) {
        (_, Manner::Read) => &[("OTTER_TRANSFER_BACKLOG_BYTES_MIN", "1000000000000000")],
        (Way::Plain, _) => &[],
        (Way::Tls, Manner::Hello) => &[("OTTER_TLS_HANDSHAKE_TIMEOUT_S", "600")],
        (Way::Tls, Manner::Head | Manner::Body) => {
            &[("OTTER_HEAD_TIMEOUT_S", "600"), ("OTTER_BODY_TIMEOUT_S", "600")]
        }
    }
}

fn run(program: &Path, data: &Path, args: &[&str]) -> Result<Value> {
    let ran = Command::new(program).arg("--data").arg(data).args(args).arg("--json").output()?;
    if !ran.status.success() {
        return Err(format!("{args:?}: {}", String::from_utf8_lossy(&ran.stderr)).into());
    }
    Ok(serde_json::from_slice(&ran.stdout)?)
}

fn text(value: &Value, member: &str) -> Result<String> {
    Ok(value[member].as_str().ok_or_else(|| format!("no {member} in {value}"))?.to_owned())
}

fn say(line: &str) -> Result<()> {
    let mut out = io::stdout();
    writeln!(out, "{line}")?;
    Ok(out.flush()?)
}

const KINDS: [(Way, Manner); 7] = [
    (Way::Plain, Manner::Head),
    (Way::Plain, Manner::Body),
    (Way::Plain, Manner::Read),
    (Way::Tls, Manner::Hello),
    (Way::Tls, Manner::Head),
    (Way::Tls, Manner::Body),
    (Way::Tls, Manner::Read),
];
const UDID: &str = "5ccf7fee-1337-4000-8000-000000000001";
/// Between two bytes on one connection.
const PERIOD: Duration = Duration::from_secs(5);
/// Open files of one process are limited.
const HELD_BY_ONE_MAX: usize = 7500;
/// How many times as long an honest device may wait.
const RATIO_MAX: f64 = 2.0;
/// Of the connections that are wanted: those that are cut off are made again, which takes a while.
const OPEN_MIN_PERCENT: usize = 90;
const MIB: f64 = (1 << 20) as f64;
