//! Counts what a steady check-in and an idle connection cost a real `otter serve`, and nginx beside
//! it in the same run ([`otter_benches::counts`]). `benches/compare` shows more of them.
//!
//! ```text
//! cargo build --release && cargo run --release -p otter-benches --bin measure
//! ```
//!
//! Needs `valgrind` and `strace`; without `nginx` there is nobody to compare with.

use std::io::Write;
use std::path::PathBuf;

use anyhow::Result;
use otter_benches::contest::Side;
use otter_benches::counts::{self, Work};
use otter_benches::{Contestant, Server};

const IDLE: u64 = 10_000;

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
        ("user instructions", counts::instructions as fn(Contestant<'_>, &Work<'_>) -> Result<f64>),
        ("heap calls", counts::heap_calls),
        ("system calls", |contestant, work| Ok(counts::system_calls(contestant, work)?.total())),
    ] {
        let what = format!("{what} per steady check-in");
        let of = |contestant| count(contestant, &Work::steady());
        row(&mut out, &what, of(otter)?, peer.map(of).transpose()?)?;
    }
    let what = format!("bytes per idle connection, of {IDLE}");
    let idle = |contestant| Side::start(contestant, &[])?.idle_bytes(None, IDLE);
    row(&mut out, &what, idle(otter)?, peer.map(idle).transpose()?)
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
