//! What a check-in costs with Redis: `otter serve --store redis://...` beside hyper and fred
//! ([`otter_benches::rivals`]) on the same Redis, in the same run.
//!
//! ```text
//! cargo build --release && cargo run --release -p otter-benches --bin redis
//! ```
//!
//! Needs `redis-server`, and `strace` for the last row. Contestants take turns in slices of 0.4 s;
//! a ratio is that of two slices of the same round, and the median of all rounds is printed, with
//! the quartiles. They run on one CPU, Redis and the load on another one. The last row comes from
//! runs of their own, in which `strace` slows the server down, so that it finds more to send at
//! once.

use std::io::Write;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use otter_benches::loader::{Loader, Until};
use otter_benches::rounds::{self, row};
use otter_benches::{APART, Contestant, Server, cpu, redis, rivals};
use otter_tests::redis::{RedisOptions, RedisServer};

const HELP: &str = "\
usage: redis [--store STORE] [--rounds N] [OTTER]

  OTTER          the program to measure [default: otter beside this one]
  --store STORE  another store than the Redis that is started, such as memory
  --rounds N     how often each contestant has its turn, for each row [default: 32]";

const CONNECTIONS: u32 = 64;
const ROUNDS: usize = 32;
const SLICE: Duration = Duration::from_millis(400);

fn main() -> Result<()> {
    let mut out = std::io::stdout();
    let mut words = std::env::args().skip(1);
    let here = std::env::current_exe()?;
    let mut otter = here.with_file_name("otter");
    let mut store = None;
    let mut rounds = ROUNDS;
    while let Some(word) = words.next() {
        match word.as_str() {
            "rival" => return rivals::serve(&words.collect::<Vec<_>>()),
            "--store" => store = Some(words.next().context(HELP)?),
            "--rounds" => rounds = words.next().context(HELP)?.parse().context(HELP)?,
            "--help" => return Ok(writeln!(out, "{HELP}")?),
            _ if word.starts_with('-') => bail!("{HELP}"),
            _ => otter = PathBuf::from(word),
        }
    }
    let [_, load] = cpu::pair()?;
    let redis = RedisServer::start_with(RedisOptions::default());
    cpu::pin(redis.pid(), load)?;
    let store = store.unwrap_or_else(|| redis.url());
    let url = redis.url();
    let fred = ["rival", "fred", &url];
    let contestants = [Contestant::OtterOn(&otter, &store), Contestant::Rival(&here, &fred)];
    writeln!(out, "otter on {store}, hyper and fred on {url}, {rounds} rounds")?;
    for (changes, what) in [
        (false, "steady check-ins: nothing changes"),
        (true, "each check-in says another version, which is kept"),
    ] {
        let rounds = measure(&redis, contestants, changes, rounds.max(1))?;
        writeln!(out, "\n{what:44} {:>9} {:>10} {:>6}", "otter", "hyper+fred", "ratio")?;
        rows(&mut out, &rounds)?;
        if std::process::Command::new("strace").arg("-V").output().is_ok() {
            let of = |contestant| redis::writes(&redis, contestant, changes);
            let [otter, peer] = contestants.map(of);
            let sides = [vec![otter?], vec![peer?]].map(Some);
            row(&mut out, "writes to Redis' socket, by strace", &sides, None)?;
        }
    }
    Ok(())
}

/// What one request cost in one slice.
#[derive(Clone, Copy)]
struct Cost {
    server_us: f64,
    redis_us: f64,
    commands: f64,
    reads: f64,
    per_second: f64,
}

/// The rounds of both contestants.
fn measure(
    redis: &RedisServer,
    contestants: [Contestant<'_>; 2],
    changes: bool,
    rounds: usize,
) -> Result<Vec<[Cost; 2]>> {
    // Devices of the last run are another owner's.
    redis.call(&["FLUSHALL"]);
    redis::keep_keys(redis);
    let [servers, load] = cpu::pair()?;
    let mut sides = Vec::new();
    for contestant in contestants {
        let server = Server::start(contestant, &APART)?;
        cpu::pin(server.pid(), servers)?;
        cpu::prefer(server.pid());
        let fleet = server.fleet()?;
        let mut loader = Loader::connect(&server, &fleet, CONNECTIONS)?;
        loader.changes = changes;
        sides.push((server, loader));
    }
    // Only now, or the servers would have inherited it.
    cpu::pin(std::process::id(), load)?;
    let of = |(server, loader): &mut (Server, Loader)| slice(redis, server, loader);
    let all = rounds::turns(&mut sides, rounds, of)?;
    Ok(all.into_iter().filter_map(|costs| costs.try_into().ok()).collect())
}

fn slice(redis: &RedisServer, server: &Server, loader: &mut Loader) -> Result<Cost> {
    let start = Instant::now();
    let before = sample(redis, server)?;
    let requests = loader.run(Until::Elapsed(SLICE))? as f64;
    let after = sample(redis, server)?;
    let seconds = start.elapsed().as_secs_f64();
    let per_request = |place: usize| (after[place] - before[place]) / requests;
    Ok(Cost {
        server_us: per_request(0) / 1000.0,
        redis_us: per_request(1) / 1000.0,
        commands: per_request(2),
        reads: per_request(3),
        per_second: requests / seconds,
    })
}

/// CPU time of server and Redis in ns, commands and reads of Redis without those of this.
fn sample(redis: &RedisServer, server: &Server) -> Result<[f64; 4]> {
    let count = |name: &str| -> Result<f64> {
        Ok(redis.info(name).with_context(|| format!("no {name}"))?.parse()?)
    };
    Ok([
        cpu::used_ns(server.pid())? as f64,
        cpu::used_ns(redis.pid())? as f64,
        count("total_commands_processed")?,
        count("total_reads_processed")?,
    ])
}

fn rows(out: &mut impl Write, rounds: &[[Cost; 2]]) -> Result<()> {
    for (what, of) in [
        ("CPU us of the server", (|cost| cost.server_us) as fn(&Cost) -> f64),
        ("CPU us of Redis", |cost| cost.redis_us),
        ("commands that Redis did", |cost| cost.commands),
        ("reads by Redis, of what it was sent", |cost| cost.reads),
        ("requests per second", |cost| cost.per_second),
    ] {
        let (otter, peer) = rounds.iter().map(|[a, b]| (of(a), of(b))).unzip();
        row(out, what, &[otter, peer].map(Some), None)?;
    }
    Ok(())
}
