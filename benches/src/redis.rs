//! What servers ask of a Redis.

use anyhow::Result;
use otter_tests::redis::RedisServer;

use crate::loader::{Loader, Until};
use crate::{BOUND, Contestant, Fleet, Server};

/// Lets Redis know the keys of the owner whom rivals of Otter ask for.
pub fn keep_keys(redis: &RedisServer) {
    redis.call(&["SET", &format!("ak:{}", Fleet::of_anybody().owner()), KEYS]);
}

/// Calls that wrote to Redis' socket, for one more check-in over one of 64 kept connections;
/// whether each says another version than the last one. By `strace`, which slows the server down,
/// so that it finds more to send at once.
///
/// # Errors
/// If there is no `strace`, or the server does not do what it must.
pub fn writes(redis: &RedisServer, contestant: Contestant<'_>, changes: bool) -> Result<f64> {
    let mut writes = [0.0; 2];
    let mut sent = [0.0; 2];
    for (place, requests) in TRACED.into_iter().enumerate() {
        let file = tempfile::NamedTempFile::new()?;
        let path = file.path().display().to_string();
        let calls = "trace=write,writev,sendto,sendmsg,sendmmsg";
        redis.call(&["FLUSHALL"]);
        keep_keys(redis);
        let tracer = ["strace", "-f", "-yy", "-e", calls, "-o", &path];
        let wrapper = [&BOUND[..], &tracer, &BOUND].concat();
        let server = Server::start(contestant, &wrapper)?;
        let fleet = server.fleet()?;
        let mut loader = Loader::connect(&server, &fleet, CONNECTIONS)?;
        loader.changes = changes;
        sent[place] = loader.run(Until::Sent(requests))? as f64;
        server.stop()?;
        let text = std::fs::read_to_string(file.path())?;
        let to_redis = format!("->{}]", redis.address());
        writes[place] = text.lines().filter(|line| line.contains(&to_redis)).count() as f64;
    }
    Ok((writes[1] - writes[0]) / (sent[1] - sent[0]))
}

const CONNECTIONS: u32 = 64;
/// Requests of the two traced runs.
const TRACED: [u64; 2] = [2_000, 12_000];
/// What THiNX keeps for an owner with one key.
const KEYS: &str = concat!(
    r#"[{"key":"bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb","#,
    r#""hash":"cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc","alias":"x"}]"#
);
