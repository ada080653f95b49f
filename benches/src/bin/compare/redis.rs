//! Goal 4: the check-in with Redis.

use std::path::{Path, PathBuf};

use anyhow::Result;
use otter_benches::contest::Entry;
use otter_benches::report::{Bar, Line, is_settled};
use otter_benches::rounds::{Goal, turns_until};
use otter_benches::{Contestant, cpu, redis};
use otter_tests::redis::{RedisOptions, RedisServer};

use crate::scene::{Pair, Scene, columns};

/// Calls that write to Redis' socket.
pub(crate) fn writes(scene: &Scene) -> Result<Vec<Line>> {
    if !scene.has_redis || !scene.has_strace {
        return Ok(Vec::new());
    }
    let redis = RedisServer::start_with(RedisOptions::default());
    let url = redis.url();
    let fred = ["rival", "fred", &url];
    let count = |contestant| redis::writes(&redis, contestant, false);
    let ours = count(Contestant::OtterOn(&scene.otter, &url))?;
    let theirs = count(scene.rival(&fred))?;
    let counted = ("hyper + fred", ours, theirs);
    Ok(vec![Line::counted(4, "writes to Redis of a check-in", counted, Bar::Own(0.1))])
}

/// CPU time of the server, and of Redis.
pub(crate) fn cpu(scene: &Scene) -> Result<Vec<Line>> {
    if !scene.has_redis {
        return Ok(Vec::new());
    }
    let redis = RedisServer::start_with(RedisOptions::default());
    redis::keep_keys(&redis);
    let url = redis.url();
    let express = express();
    let (fred, floor) = (["rival", "fred", &url], ["rival", "floor", "redis", &url]);
    let script = express.display().to_string();
    let node = [script.as_str(), &url];
    let mut sides = vec![scene.start(Contestant::OtterOn(&scene.otter, &url))?];
    let mut pairs: Vec<Pair> = Vec::new();
    let mut add = |contestant, name, pass, stretch| -> Result<()> {
        pairs.push((sides.len(), name, Bar::Ratio(Goal { pass, stretch })));
        sides.push(scene.start(contestant)?);
        Ok(())
    };
    add(scene.rival(&fred), "hyper + fred", 0.65, 0.50)?;
    add(scene.rival(&floor), "floor", 1.35, 1.15)?;
    if scene.has_express {
        add(Contestant::Rival(Path::new("node"), &node), "express", 1.0 / 20.0, 1.0 / 28.0)?;
    }
    let mut entries = sides.iter().map(|side| side.kept(64)).collect::<Result<Vec<_>>>()?;
    cpu::pin(redis.pid(), scene.cpus[1])?;
    cpu::pin(std::process::id(), scene.cpus[1])?;
    let slice = |entry: &mut Entry<'_>| -> Result<[f64; 2]> {
        let before = cpu::used_ns(redis.pid())?;
        let cost = entry.slice()?;
        let redis_ns = (cpu::used_ns(redis.pid())? - before) as f64;
        Ok([cost.us_per_answer(), redis_ns / 1e3 / cost.done.answers as f64])
    };
    let pair = |rounds: &[Vec<[f64; 2]>], place: usize, what: usize| -> [Vec<f64>; 2] {
        let columns = columns(rounds);
        [0, place].map(|place| columns[place].iter().map(|cost| cost[what]).collect())
    };
    let settled = |rounds: &[Vec<[f64; 2]>]| {
        pairs.iter().all(|(place, _, bar)| {
            let [ours, theirs] = pair(rounds, *place, 0);
            is_settled([&ours, &theirs], *bar)
        })
    };
    let rounds = turns_until(&mut entries, scene.plan(ROUNDS), slice, settled)?;
    cpu::unpin(std::process::id())?;
    let line = |place, rival, what: usize, bar| {
        let [ours, theirs] = pair(&rounds, place, what);
        let name = ["CPU us of a check-in with Redis", "CPU us of Redis for a check-in"][what];
        Line::measured(4, name, rival, [&ours, &theirs], bar)
    };
    let mut lines: Vec<_> =
        pairs.iter().map(|(place, rival, bar)| line(*place, rival, 0, *bar)).collect();
    lines.push(line(2, "floor", 1, Bar::Ratio(Goal { pass: 1.1, stretch: 1.0 })));
    Ok(lines)
}

/// The program for `node`.
fn express() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("rivals/express.js")
}

const ROUNDS: usize = 24;
