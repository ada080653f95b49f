//! Twenty thousand devices come to a real `otter serve` at once: how long until all are answered,
//! and what becomes of their downloads on a line that is too thin for all of them together.
//!
//! ```text
//! cargo build --release -p otter && cargo run --release -p otter-benches --bin herd
//! cargo run --release -p otter-benches --bin herd -- PROGRAM DEVICES LINE_BYTES_PER_S
//! ```
//!
//! The line is in the clients: together they read so many bytes per second. The time limits of the
//! server are a tenth of the usual ones, so that nobody waits for hours; the second run of
//! downloads has no admission.

use std::collections::{BTreeMap, VecDeque};
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use rustix::net::sockopt::set_socket_recv_buffer_size;
use serde::{Deserialize, Serialize};

fn main() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if words.first().is_some_and(|word| word == "client") {
        return Share::of(&words[1..])?.run();
    }
    let program = match words.first() {
        Some(path) => PathBuf::from(path),
        None => std::env::current_exe()?.with_file_name("otter"),
    };
    let devices = words.get(1).map_or(Ok(20_000), |word| word.parse())?;
    let line = words.get(2).map_or(Ok(40_000_000), |word| word.parse())?;
    for (name, floor) in [("with admission", None), ("without", Some("1000000000000000"))] {
        let site = Site::start(&program, floor)?;
        let before = site.resident_bytes()?;
        say(&format!("{name}: {} MiB resident", before >> 20))?;
        say(&format!("  check-ins:    {}", site.herd(devices, "check-in", u64::MAX)?))?;
        site.publish()?;
        say(&format!("  downloads:    {}", site.herd(devices, "download", line)?))?;
    }
    Ok(())
}

/// What became of a herd, or of a share of it.
#[derive(Debug, Default, Deserialize, Serialize)]
struct Seen {
    served: usize,
    /// Answers of 503, and devices that were served at the second try.
    put_off: usize,
    at_the_second_try: usize,
    /// Answers that ended early.
    cut: usize,
    broken: usize,
    took_ms: u64,
    /// From the first attempt to the answer, by device.
    waits_ms: Vec<u64>,
    #[serde(default)]
    resident_mib: u64,
}

impl std::fmt::Display for Seen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let at = |percent: usize| {
            let at = (self.waits_ms.len() * percent / 100).min(self.waits_ms.len().max(1) - 1);
            self.waits_ms.get(at).copied().unwrap_or_default() as f64 / 1000.0
        };
        write!(
            f,
            "{} served in {:.1} s (median {:.2}, worst {:.2}), {} at the second try; {} times 503, \
             {} cut off, {} broken; at most {} MiB resident",
            self.served,
            self.took_ms as f64 / 1000.0,
            at(50),
            at(100),
            self.at_the_second_try,
            self.put_off,
            self.cut,
            self.broken,
            self.resident_mib,
        )
    }
}

/// A server, and whose devices come to it.
struct Site {
    child: Child,
    address: SocketAddr,
    data: tempfile::TempDir,
    program: PathBuf,
    owner: String,
    key: String,
}

impl Site {
    fn start(program: &Path, floor: Option<&str>) -> Result<Self> {
        let data = tempfile::tempdir()?;
        let owner = administer(program, data.path(), &["owner", "create"], "owner")?;
        let key = administer(program, data.path(), &["key", "create", "--owner", &owner], "key")?;
        let mut child = Command::new(program)
            .args(["serve", "--listen", "127.0.0.1:0", "--data"])
            .arg(data.path())
            .envs([("OTTER_TRANSFER_TIMEOUT_S", "90"), ("OTTER_TRANSFER_BACKLOG_S", "18")])
            .envs([("OTTER_CONNECTIONS_MAX", "19500"), ("OTTER_SEND_BUFFER_BYTES", "8192")])
            .envs(floor.map(|floor| ("OTTER_TRANSFER_BACKLOG_BYTES_MIN", floor)))
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().context("no stdout")?).read_line(&mut line)?;
        let address = line.split_whitespace().find_map(|word| word.strip_prefix("http="));
        let address = address.with_context(|| format!("not ready: {line:?}"))?.parse()?;
        Ok(Self { child, address, data, program: program.into(), owner, key })
    }

    fn publish(&self) -> Result<()> {
        let file = self.data.path().join("image.bin");
        let mut image = vec![0x5a; IMAGE_BYTES];
        image[0] = 0xE9;
        std::fs::write(&file, image)?;
        let file = file.display().to_string();
        let words = ["publish", &file, "--owner", &self.owner, "--all"];
        let release = ["--version", "2.0.0", "--platform", "arduino"];
        administer(&self.program, self.data.path(), &[&words[..], &release].concat(), "release")?;
        Ok(())
    }

    /// Lets all devices come, from as many processes as their descriptors need.
    fn herd(&self, devices: usize, what: &str, line: u64) -> Result<Seen> {
        let processes = devices.div_ceil(CONNECTIONS_PER_PROCESS_MAX).max(2);
        let mut clients = Vec::new();
        for process in 0..processes {
            let (first, last) =
                (devices * process / processes, devices * (process + 1) / processes);
            let rate = (line / processes as u64).to_string();
            let words = [self.address.to_string(), first.to_string(), last.to_string()];
            let mut client = Command::new(std::env::current_exe()?)
                .arg("client")
                .args(words)
                .args([what, &rate, &self.owner, &self.key])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()?;
            // It says more than a pipe holds.
            let mut said = client.stdout.take().context("no stdout")?;
            let said = std::thread::spawn(move || {
                let mut text = String::new();
                said.read_to_string(&mut text).map(|_| text)
            });
            clients.push((client, said));
        }
        for (client, _) in &mut clients {
            client.stdin.take().context("no stdin")?.write_all(b"go\n")?;
        }
        let mut sum = Seen::default();
        while clients.iter().any(|(_, said)| !said.is_finished()) {
            sum.resident_mib = sum.resident_mib.max(self.resident_bytes()? >> 20);
            std::thread::sleep(Duration::from_millis(100));
        }
        for (mut client, said) in clients {
            let text = said.join().map_err(|_| anyhow!("a reader panicked"))??;
            client.wait()?;
            let seen: Seen = serde_json::from_str(&text).with_context(|| text.clone())?;
            sum.served += seen.served;
            sum.put_off += seen.put_off;
            sum.at_the_second_try += seen.at_the_second_try;
            sum.cut += seen.cut;
            sum.broken += seen.broken;
            sum.took_ms = sum.took_ms.max(seen.took_ms);
            sum.waits_ms.extend(seen.waits_ms);
        }
        sum.waits_ms.sort_unstable();
        Ok(sum)
    }

    fn resident_bytes(&self) -> Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.split_whitespace().next()).context("no VmRSS")?;
        Ok(kib.parse::<u64>()? * 1024)
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The devices of one process.
struct Share {
    address: SocketAddr,
    numbers: std::ops::Range<usize>,
    is_download: bool,
    rate: u64,
    owner: String,
    key: String,
    poll: Poll,
    /// By number.
    open: BTreeMap<usize, Device>,
    /// When to try again: numbers with the time of their first attempt and how many there were.
    waiting: BTreeMap<(Instant, usize), (Instant, usize)>,
    /// Those that have something to read.
    ready: VecDeque<usize>,
    seen: Seen,
}

/// A device that has asked.
struct Device {
    stream: TcpStream,
    since: Instant,
    tries: usize,
    head: Vec<u8>,
    /// Bytes of the body that are to come, once the head is there.
    missing: Option<usize>,
}

impl Share {
    fn of(words: &[String]) -> Result<Self> {
        let [address, first, last, what, rate, owner, key] = words else { bail!("seven words") };
        Ok(Self {
            address: address.parse()?,
            numbers: first.parse()?..last.parse()?,
            is_download: what == "download",
            rate: rate.parse()?,
            owner: owner.clone(),
            key: key.clone(),
            poll: Poll::new()?,
            open: BTreeMap::new(),
            waiting: BTreeMap::new(),
            ready: VecDeque::new(),
            seen: Seen::default(),
        })
    }

    fn run(mut self) -> Result<()> {
        std::io::stdin().read_line(&mut String::new())?;
        let begun = Instant::now();
        self.waiting = self.numbers.clone().map(|n| ((begun, n), (begun, 0))).collect();
        let mut events = Events::with_capacity(4096);
        let mut last = begun;
        let mut budget = 0.0;
        while !(self.open.is_empty() && self.waiting.is_empty()) && begun.elapsed() < TIME_MAX {
            self.connect_some()?;
            self.poll.poll(&mut events, Some(Duration::from_millis(2)))?;
            self.ready.extend(events.iter().map(|event| event.token().0));
            let now = Instant::now();
            let share = self.rate as f64 * (now - last).as_secs_f64();
            budget = (budget + share).min(self.rate as f64 / 20.0).max(0.0);
            last = now;
            while budget > 0.0
                && let Some(number) = self.ready.pop_front()
            {
                budget -= self.read(number) as f64;
            }
        }
        self.seen.took_ms = begun.elapsed().as_millis() as u64;
        let mut out = std::io::stdout();
        Ok(writeln!(out, "{}", serde_json::to_string(&self.seen)?)?)
    }

    /// A few at a time, so that those that are open have their turns.
    fn connect_some(&mut self) -> Result<()> {
        for _ in 0..64 {
            let Some(entry) = self.waiting.first_entry().filter(|e| e.key().0 <= Instant::now())
            else {
                return Ok(());
            };
            let ((_, number), (since, tries)) = entry.remove_entry();
            let stream = std::net::TcpStream::connect(self.address);
            let Ok(mut stream) = stream else {
                self.seen.broken += 1;
                self.again(number, since, tries, 1);
                continue;
            };
            set_socket_recv_buffer_size(&stream, 4096)?;
            stream.write_all(&self.request(number))?;
            stream.set_nonblocking(true)?;
            let mut stream = TcpStream::from_std(stream);
            self.poll.registry().register(&mut stream, Token(number), Interest::READABLE)?;
            let (tries, head) = (tries + 1, Vec::new());
            self.open.insert(number, Device { stream, since, tries, head, missing: None });
        }
        Ok(())
    }

    fn again(&mut self, number: usize, since: Instant, tries: usize, wait_s: u64) {
        let at = Instant::now() + Duration::from_secs(wait_s);
        self.waiting.insert((at, number), (since, tries));
    }

    /// Reads a little of what a device has to read; how much that was.
    fn read(&mut self, number: usize) -> usize {
        let Some(device) = self.open.get_mut(&number) else { return 0 };
        let mut bytes = [0; 2048];
        match device.stream.read(&mut bytes) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => return 0,
            Ok(n) if n > 0 => {
                self.ready.push_back(number);
                if device.take(&bytes[..n]) == Some(0) {
                    self.answered(number);
                }
                return n;
            }
            Ok(_) => self.seen.cut += 1,
            Err(_) => self.seen.broken += 1,
        }
        if let Some(device) = self.open.remove(&number) {
            self.again(number, device.since, device.tries, 5);
        }
        0
    }

    fn answered(&mut self, number: usize) {
        let Some(device) = self.open.remove(&number) else { return };
        let head = String::from_utf8_lossy(&device.head);
        if head.starts_with("HTTP/1.1 200 ") {
            self.seen.served += 1;
            self.seen.at_the_second_try += usize::from(device.tries == 2);
            self.seen.waits_ms.push(device.since.elapsed().as_millis() as u64);
            return;
        }
        self.seen.put_off += 1;
        let wait_s = number_after(&head, "Retry-After: ").unwrap_or(10);
        self.again(number, device.since, device.tries, wait_s as u64);
    }

    fn request(&self, number: usize) -> Vec<u8> {
        let Self { owner, key, .. } = self;
        let (path, forced) = match self.is_download {
            true => ("firmware", r#""forced":"true","#),
            false => ("register", ""),
        };
        let body =
            format!(r#"{{"registration":{{"mac":"5CCF7F{number:06X}","owner":"{owner}",{forced}"#)
                + &format!(r#""udid":"5ccf7fee-1337-4000-8000-{number:012x}","version":"1.0.0","#)
                + r#""firmware":"thinx-lib-esp32-arduino:2.9.450","platform":"arduino:esp8266"}}"#;
        format!(
            "POST /device/{path} HTTP/1.1\r\nHost: otter\r\nConnection: close\r\n\
             Authentication: {key}\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
        .into_bytes()
    }
}

impl Device {
    /// Takes what came; what is missing then, once that is known.
    fn take(&mut self, bytes: &[u8]) -> Option<usize> {
        if let Some(missing) = &mut self.missing {
            *missing = missing.saturating_sub(bytes.len());
            return self.missing;
        }
        self.head.extend_from_slice(bytes);
        let end = self.head.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
        let length = number_after(&String::from_utf8_lossy(&self.head[..end]), "Content-Length: ");
        self.missing = Some(length.unwrap_or_default().saturating_sub(self.head.len() - end));
        self.head.truncate(end);
        self.missing
    }
}

fn number_after(text: &str, mark: &str) -> Option<usize> {
    text.split_once(mark)?.1.split_once("\r\n")?.0.parse().ok()
}

fn administer(program: &Path, data: &Path, words: &[&str], field: &str) -> Result<String> {
    let output =
        Command::new(program).args(words).arg("--json").arg("--data").arg(data).output()?;
    if !output.status.success() {
        bail!("{words:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
    let answer: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    Ok(answer[field].as_str().context("no such field")?.to_owned())
}

fn say(line: &str) -> Result<()> {
    let mut out = std::io::stdout();
    writeln!(out, "{line}")?;
    Ok(out.flush()?)
}

const IMAGE_BYTES: usize = 256 * 1024;
/// Open files of one process are limited.
const CONNECTIONS_PER_PROCESS_MAX: usize = 10_000;
/// Who has nothing then is not waited for.
const TIME_MAX: Duration = Duration::from_secs(240);
