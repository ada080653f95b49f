//! Counts what a steady check-in and an idle connection cost a real `otter serve`.
//!
//! ```text
//! cargo build --release && cargo run --release -p otter-benches --bin measure
//! ```
//!
//! Needs `valgrind` and `strace`. Each count is the difference between two runs of the same server
//! with different numbers of check-ins, so that start-up and registration fall out.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use otter_benches::{Server, connect, exchange};

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
    let mut out = std::io::stdout();
    writeln!(out, "steady check-in, {CONNECTIONS} keep-alive connections in lock-step:")?;
    writeln!(out, "  user instructions  {:8.0}", per_request(&program, instructions)?)?;
    writeln!(out, "  heap calls         {:8.2}", per_request(&program, heap_calls)?)?;
    writeln!(out, "  system calls       {:8.2}", per_request(&program, system_calls)?)?;
    writeln!(out, "{IDLE} idle keep-alive connections after one check-in each:")?;
    writeln!(out, "  resident bytes per connection {:8.1}", idle(&program)?)?;
    Ok(())
}

/// The cost of one more request.
fn per_request(program: &Path, count: fn(&Path, u32) -> Result<u64>) -> Result<f64> {
    let [few, many] = ROUNDS;
    let more = count(program, many)?.saturating_sub(count(program, few)?);
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

fn run(program: &Path, wrapper: &[&str], rounds: u32) -> Result<()> {
    let server = Server::start(program, wrapper)?;
    load(&server, rounds)?;
    server.stop()
}

fn instructions(program: &Path, rounds: u32) -> Result<u64> {
    let file = tempfile::NamedTempFile::new()?;
    let out = format!("--callgrind-out-file={}", file.path().display());
    run(program, &["valgrind", "--tool=callgrind", &out], rounds)?;
    number_after(&std::fs::read_to_string(file.path())?, "summary: ")
}

fn heap_calls(program: &Path, rounds: u32) -> Result<u64> {
    let file = tempfile::NamedTempFile::new()?;
    let out = format!("--log-file={}", file.path().display());
    run(program, &["valgrind", "--run-libc-freeres=no", &out], rounds)?;
    number_after(&std::fs::read_to_string(file.path())?, "total heap usage: ")
}

fn system_calls(program: &Path, rounds: u32) -> Result<u64> {
    let file = tempfile::NamedTempFile::new()?;
    let out = file.path().display().to_string();
    run(program, &["strace", "-f", "-c", "-o", &out], rounds)?;
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

fn idle(program: &Path) -> Result<f64> {
    let server = Server::start(program, &[])?;
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
