//! A Redis store that is closed leaves nothing behind. A test program of its own, because it looks
//! at the memory of the whole process.
#![cfg(feature = "redis")]

use otter_store::{Redis, RedisOptions};
use otter_tests::redis::RedisServer;

#[test]
fn stores_that_are_closed_leave_nothing() {
    let server = RedisServer::start();
    let directory = tempfile::tempdir().expect("a directory");
    let open_and_close = |times| {
        for _ in 0..times {
            let options = RedisOptions::new(server.url());
            Redis::open(directory.path(), options).expect("a store").close();
        }
    };
    open_and_close(20);
    let before = resident_bytes();
    open_and_close(STORES);
    let after = resident_bytes();
    assert!(after < before + GROWTH_BYTES_MAX, "{before} bytes before, {after} after");
}

fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a line");
    let kib = line.split_whitespace().next().and_then(|kib| kib.parse::<u64>().ok());
    kib.expect("a number") * 1024
}

const STORES: u64 = 200;
/// What the allocator does not give back. A store takes some 100 KB.
const GROWTH_BYTES_MAX: u64 = STORES * 10_000;
