//! What does not depend on how busy the machine is: instructions, heap calls, system calls.
//!
//! Each count is the difference between two runs of the same server with different numbers of
//! requests, so that start-up and registration fall out.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::contest::Side;
use crate::loader::Until;
use crate::tls::SecureLoader;
use crate::{BOUND, Contestant, connect, cpu};

/// What devices do while is counted, in a shorter and in a longer run.
pub struct Work<'a> {
    requests: [u32; 2],
    ask: Box<Ask<'a>>,
}

type Ask<'a> = dyn Fn(&Side, u32) -> Result<()> + 'a;

impl<'a> Work<'a> {
    /// 64 kept connections ask at once, and no round starts before the last one is answered.
    #[must_use]
    pub fn steady() -> Self {
        Self { requests: [10 * CONNECTIONS, 60 * CONNECTIONS], ask: Box::new(steady) }
    }

    /// The same line by line: no piece leaves before the server sleeps, having seen the last one.
    #[must_use]
    pub fn by_line() -> Self {
        Self { requests: [5 * CONNECTIONS, 25 * CONNECTIONS], ask: Box::new(by_line) }
    }

    /// One connection after the other, each for one request, which leaves when the server sleeps,
    /// having seen the connection.
    #[must_use]
    pub fn closing() -> Self {
        Self { requests: [100, 600], ask: Box::new(closing) }
    }

    /// What this loader asks.
    #[must_use]
    pub fn of(requests: [u32; 2], loader: impl Fn(&Side) -> Result<SecureLoader> + 'a) -> Self {
        let ask = move |side: &Side, requests: u32| {
            loader(side)?.run(Until::Sent(requests.into())).map(drop)
        };
        Self { requests, ask: Box::new(ask) }
    }

    fn per_request(&self, count: impl Fn(u32) -> Result<u64>) -> Result<f64> {
        let [few, many] = self.requests;
        Ok(count(many)?.saturating_sub(count(few)?) as f64 / f64::from(many - few))
    }

    fn run(&self, contestant: Contestant<'_>, wrapper: &[&str], requests: u32) -> Result<()> {
        let side = Side::start(contestant, wrapper)?;
        (self.ask)(&side, requests)?;
        side.server.stop()
    }
}

/// User instructions of one more request, by callgrind.
///
/// # Errors
/// If there is no `valgrind`, or the server does not do what it must.
pub fn instructions(contestant: Contestant<'_>, work: &Work<'_>) -> Result<f64> {
    work.per_request(|requests| {
        let file = tempfile::NamedTempFile::new()?;
        let out = format!("--callgrind-out-file={}", file.path().display());
        let wrapper = [&BOUND[..], &["valgrind", "--tool=callgrind", &out]].concat();
        work.run(contestant, &wrapper, requests)?;
        number_after(&std::fs::read_to_string(file.path())?, "summary: ")
    })
}

/// Heap calls of one more request: `malloc` and what is like it, by valgrind.
///
/// # Errors
/// As [`instructions`].
pub fn heap_calls(contestant: Contestant<'_>, work: &Work<'_>) -> Result<f64> {
    work.per_request(|requests| {
        let file = tempfile::NamedTempFile::new()?;
        let out = format!("--log-file={}", file.path().display());
        let wrapper = [&BOUND[..], &["valgrind", "--run-libc-freeres=no", &out]].concat();
        work.run(contestant, &wrapper, requests)?;
        number_after(&std::fs::read_to_string(file.path())?, "total heap usage: ")
    })
}

/// System calls of one more request, by their names: the fewest of three runs.
///
/// # Errors
/// If there is no `strace`, or the server does not do what it must.
pub fn system_calls(contestant: Contestant<'_>, work: &Work<'_>) -> Result<Calls> {
    let count = |requests| {
        let file = tempfile::NamedTempFile::new()?;
        let out = file.path().display().to_string();
        // The tracer does not take the server with it when it is killed.
        let wrapper = [&BOUND[..], &["strace", "-f", "-c", "-o", &out], &BOUND].concat();
        work.run(contestant, &wrapper, requests)?;
        Calls::parse(&std::fs::read_to_string(file.path())?)
    };
    // What a busy machine does to a run adds calls: the server wakes before all have asked.
    let fewest = |requests| -> Result<Calls> {
        let mut calls = count(requests)?;
        for _ in 1..RUNS {
            let others = count(requests)?;
            if others.total() < calls.total() {
                calls = others;
            }
        }
        Ok(calls)
    };
    let [few, many] = work.requests;
    Ok(fewest(many)?.minus(&fewest(few)?, f64::from(many - few)))
}

/// How often which system call was made.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Calls(BTreeMap<String, f64>);

impl Calls {
    /// The table that `strace -c` prints.
    fn parse(table: &str) -> Result<Self> {
        let mut calls = BTreeMap::new();
        for line in table.lines() {
            let words: Vec<_> = line.split_whitespace().collect();
            // % time, seconds, usecs/call, calls, errors if there were some, name
            let [share, _, _, count, .., name] = words[..] else { continue };
            if share.parse::<f64>().is_ok() && name != "total" {
                calls.insert(name.to_owned(), count.parse().context("no count")?);
            }
        }
        ensure!(!calls.is_empty(), "no system calls in {table:?}");
        Ok(Self(calls))
    }

    fn minus(&self, less: &Self, requests: f64) -> Self {
        let names = self.0.keys().chain(less.0.keys());
        let of = |calls: &Self, name: &str| calls.0.get(name).copied().unwrap_or(0.0);
        let each = |name: &String| (name.clone(), (of(self, name) - of(less, name)) / requests);
        Self(names.map(each).collect())
    }

    /// All of them.
    #[must_use]
    pub fn total(&self) -> f64 {
        self.0.values().sum()
    }

    /// All but those that wait for events.
    #[must_use]
    pub fn without_waits(&self) -> f64 {
        let waits = ["epoll_wait", "epoll_pwait", "epoll_pwait2"];
        self.0.iter().filter(|(name, _)| !waits.contains(&name.as_str())).map(|(_, n)| n).sum()
    }

    /// Those of these names.
    #[must_use]
    pub fn named(&self, names: &[&str]) -> f64 {
        names.iter().filter_map(|name| self.0.get(*name)).sum()
    }

    /// Those that read from a socket, or from whatever else is open.
    #[must_use]
    pub fn reads(&self) -> f64 {
        self.named(&["recvfrom", "recvmsg", "recvmmsg", "read", "readv"])
    }

    /// Those that copy a file into the process.
    #[must_use]
    pub fn file_reads(&self) -> f64 {
        self.named(&["pread64", "preadv", "preadv2", "read", "readv"])
    }
}

fn steady(side: &Side, requests: u32) -> Result<()> {
    let mut connections = connect(&side.server, &side.fleet, CONNECTIONS)?;
    for _ in 0..requests / CONNECTIONS {
        for (connection, request) in &mut connections {
            connection.write_all(request)?;
        }
        for (connection, _) in &mut connections {
            read_answer(connection)?;
        }
    }
    Ok(())
}

fn by_line(side: &Side, requests: u32) -> Result<()> {
    let connections = connect(&side.server, &side.fleet, CONNECTIONS)?;
    let pieces = |(n, (connection, _))| (connection, side.fleet.check_in_by_line(n));
    let mut connections: Vec<_> = (0..).zip(connections).map(pieces).collect();
    let pid = side.server.inner_pid();
    for _ in 0..requests / CONNECTIONS {
        for place in 0..connections[0].1.len() {
            for (connection, pieces) in &mut connections {
                connection.write_all(&pieces[place])?;
            }
            wait_until_asleep(pid)?;
        }
        for (connection, _) in &mut connections {
            read_answer(connection)?;
        }
    }
    Ok(())
}

fn closing(side: &Side, requests: u32) -> Result<()> {
    let request = side.fleet.last_check_in(0);
    let pid = side.server.inner_pid();
    for _ in 0..requests {
        let mut connection = TcpStream::connect(side.server.address())?;
        wait_until_asleep(pid)?;
        connection.write_all(&request)?;
        let mut answer = Vec::new();
        connection.read_to_end(&mut answer)?;
        check(&answer)?;
    }
    Ok(())
}

fn read_answer(connection: &mut TcpStream) -> Result<()> {
    let mut answer = [0; 1024];
    let n = connection.read(&mut answer)?;
    check(&answer[..n])
}

fn check(answer: &[u8]) -> Result<()> {
    if !answer.starts_with(b"HTTP/1.1 200 ") || !answer.ends_with(b"}}") {
        bail!("cut or refused: {}", String::from_utf8_lossy(answer));
    }
    Ok(())
}

/// Until all threads of a process wait for something.
fn wait_until_asleep(pid: u32) -> Result<()> {
    let start = Instant::now();
    let mut seen = 0;
    while seen < 2 {
        ensure!(start.elapsed() < PATIENCE, "the server does not come to rest");
        seen = if cpu::is_asleep(pid)? { seen + 1 } else { 0 };
        std::thread::yield_now();
    }
    Ok(())
}

fn number_after(text: &str, mark: &str) -> Result<u64> {
    let (_, rest) = text.split_once(mark).with_context(|| format!("no {mark:?} in {text}"))?;
    let digits: String =
        rest.chars().filter(|c| *c != ',').take_while(char::is_ascii_digit).collect();
    digits.parse().context("no number")
}

const CONNECTIONS: u32 = 64;
const RUNS: usize = 3;
const PATIENCE: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "\
% time     seconds  usecs/call     calls    errors syscall
------ ----------- ----------- --------- --------- ----------------
 68.18    0.000015           1        12           sendto
 31.82    0.000007           0        14         2 recvfrom
  0.00    0.000000           0         3           epoll_wait
------ ----------- ----------- --------- --------- ----------------
100.00    0.000022           0        29         2 total
";

    #[test]
    fn a_table_of_strace_is_read_by_name() {
        let calls = Calls::parse(TABLE).expect("a table");
        assert_eq!((calls.total(), calls.without_waits(), calls.reads()), (29.0, 26.0, 14.0));
        assert!(Calls::parse("strace: no such process\n").is_err());
    }

    #[test]
    fn a_difference_is_that_of_each_name() {
        let (more, less) = (Calls::parse(TABLE), Calls(BTreeMap::from([("close".into(), 1.0)])));
        let each = more.expect("a table").minus(&less, 2.0);
        assert_eq!((each.named(&["close"]), each.named(&["sendto"])), (-0.5, 6.0));
    }

    #[test]
    fn a_number_may_have_commas() {
        let text = "total heap usage: 1,234,567 allocs, 3 frees";
        assert_eq!(number_after(text, "total heap usage: ").expect("a number"), 1_234_567);
    }
}
