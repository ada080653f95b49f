//! Counts what a steady check-in and an idle connection cost a real `otter serve`, and nginx beside
//! it in the same run.
//!
//! ```text
//! cargo build --release && cargo run --release -p otter-benches --bin measure
//! ```
//!
//! Needs `valgrind` and `strace`; without `nginx` there is nobody to compare with. Each count is
//! the difference between two runs of the same server with different numbers of check-ins, so that
//! start-up and registration fall out.

use std::io::{Read, Write};
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use otter_benches::{Contestant, Server, connect, exchange};

const CONNECTIONS: u32 = 64;
const ROUNDS: [u32; 2] = [10, 60];
const IDLE: u32 = 10_000;

fn main() -> Result<()> {
    let program = std::env::args_os().nth(1).map_or_else(
        || {
            let here = std::env::current_exe()?;
            Ok::<_, std::io::Error>(here.with_file_name("otter"))
        },
        |path| Ok(PathBuf::from(path)),
    )?;
    let otter = Contestant::Otter(&program);
    let peer = Server::has_nginx().then_some(Contestant::Nginx);
    let mut out = std::io::stdout();
    writeln!(out, "{:44} {:>9} {:>9} {:>6}", "", "otter", "nginx", "ratio")?;
    for (what, count) in [
        ("user instructions", instructions as fn(Contestant<'_>, u32) -> Result<u64>),
        ("heap calls", heap_calls),
        ("system calls", system_calls),
    ] {
        let what = format!("{what} per steady check-in");
        let of = |contestant| per_request(contestant, count);
        row(&mut out, &what, of(otter)?, peer.map(of).transpose()?)?;
    }
    let what = format!("bytes per idle connection, of {IDLE}");
    row(&mut out, &what, idle(otter)?, peer.map(idle).transpose()?)?;
    Ok(())
}

fn row(out: &mut impl Write, what: &str, otter: f64, peer: Option<f64>) -> Result<()> {
    match peer {
        Some(peer) => {
            writeln!(out, "{what:44} {otter:9.2} {peer:9.2} {:6.2}", otter / peer)?;
        }
        None => writeln!(out, "{what:44} {otter:9.2} {:>9}", "not here")?,
    }
    Ok(())
}

/// The cost of one more request.
fn per_request(
    contestant: Contestant<'_>,
    count: fn(Contestant<'_>, u32) -> Result<u64>,
) -> Result<f64> {
    let [few, many] = ROUNDS;
    let more = count(contestant, many)?.saturating_sub(count(contestant, few)?);
    Ok(more as f64 / f64::from((many - few) * CONNECTIONS))
}

/// All connections ask once a round, and no round starts before the last one is answered.
fn load(server: &Server, rounds: u32) -> Result<()> {
    let fleet = server.fleet()?;
    let mut connections = connect(server, &fleet, CONNECTIONS)?;
    for _ in 0..rounds {
        for (connection, request) in &mut connections {
            connection.write_all(request)?;
        }
        for (connection, _) in &mut connections {
            let mut answer = [0; 1024];
            let n = connection.read(&mut answer)?;
            if !answer[..n].ends_with(b"}}") {
                bail!("cut or refused: {}", String::from_utf8_lossy(&answer[..n]));
            }
        }
    }
    Ok(())
}

fn run(contestant: Contestant<'_>, wrapper: &[&str], rounds: u32) -> Result<()> {
    let server = Server::start(contestant, wrapper)?;
    load(&server, rounds)?;
    server.stop()
}

fn instructions(contestant: Contestant<'_>, rounds: u32) -> Result<u64> {
    let file = tempfile::NamedTempFile::new()?;
    let out = format!("--callgrind-out-file={}", file.path().display());
    run(contestant, &["valgrind", "--tool=callgrind", &out], rounds)?;
    number_after(&std::fs::read_to_string(file.path())?, "summary: ")
}

fn heap_calls(contestant: Contestant<'_>, rounds: u32) -> Result<u64> {
    let file = tempfile::NamedTempFile::new()?;
    let out = format!("--log-file={}", file.path().display());
    run(contestant, &["valgrind", "--run-libc-freeres=no", &out], rounds)?;
    number_after(&std::fs::read_to_string(file.path())?, "total heap usage: ")
}

fn system_calls(contestant: Contestant<'_>, rounds: u32) -> Result<u64> {
    let file = tempfile::NamedTempFile::new()?;
    let out = file.path().display().to_string();
    run(contestant, &["strace", "-f", "-c", "-o", &out], rounds)?;
    let table = std::fs::read_to_string(file.path())?;
    let total = table.lines().find(|line| line.ends_with("total")).context("no total")?;
    total.split_whitespace().nth(3).context("no count")?.parse().context("no number")
}

fn number_after(text: &str, mark: &str) -> Result<u64> {
    let (_, rest) = text.split_once(mark).with_context(|| format!("no {mark:?} in {text}"))?;
    let digits: String =
        rest.chars().filter(|c| *c != ',').take_while(char::is_ascii_digit).collect();
    digits.parse().context("no number")
}

fn idle(contestant: Contestant<'_>) -> Result<f64> {
    let server = Server::start(contestant, &[])?;
    let fleet = server.fleet()?;
    // The first connections warm the allocator, the recycled exchanges and the tables.
    let warm = connect(&server, &fleet, CONNECTIONS)?;
    let request = fleet.check_in(0);
    let before = server.resident_bytes()?;
    let mut idle = Vec::new();
    for _ in 0..IDLE {
        let mut connection = std::net::TcpStream::connect(server.address())?;
        exchange(&mut connection, &request)?;
        idle.push(connection);
    }
    let after = server.resident_bytes()?;
    drop((warm, idle));
    Ok((after as f64 - before as f64) / f64::from(IDLE))
}
