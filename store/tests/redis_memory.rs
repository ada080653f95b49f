//! The Redis store takes no more memory after 200,000 queries and an outage than before. A test
//! program of its own, because it looks at the memory of the whole process.
#![cfg(feature = "redis")]

mod common;

use common::{Bench, grant, recording};
use otter_protocol::{Answer, DeviceId, Identify, Query, Record, Token};
use otter_store::RedisOptions;
use otter_tests::redis::{RedisServer, wait_for};

#[test]
fn memory_is_flat() {
    let mut server = RedisServer::start();
    let mut options = RedisOptions::new(server.url());
    options.timeout = std::time::Duration::from_secs(1);
    let mut bench = Bench::on_redis(options);
    let (owner, key) = bench.owner('a');
    let query = |n: u32| {
        let device = DeviceId([(n % 200) as u8; 16]);
        let check_in = common::check_in();
        match n % 5 {
            0 | 1 => Query::Identify(Identify {
                owner: Some(owner),
                key,
                device: Some(device),
                mac: None,
            }),
            2 => Query::Record(Box::new(recording(owner, Some(device), Some(check_in)))),
            3 => Query::Record(Box::new(Record {
                grant: Some(grant(None)),
                ..recording(owner, Some(device), None)
            })),
            _ => Query::Redeem { token: Token([(n / 5 % 256) as u8; 32]) },
        }
    };
    let mut tokens = Vec::new();
    let mut turn = |bench: &mut Bench, first: u32| {
        let mut queries: Vec<_> = (first..first + TURN).map(query).collect();
        queries.extend(tokens.drain(..).map(|token| Query::Redeem { token }));
        let answers = bench.desk.ask_all(queries);
        let issued = answers.iter().filter_map(|answer| {
            let Answer::Recorded(Some(recorded)) = answer else { return None };
            recorded.token
        });
        tokens.extend(issued.step_by(10));
        answers.iter().filter(|answer| matches!(answer, Answer::Unavailable)).count()
    };
    for first in (0..WARM_UP).step_by(TURN as usize) {
        assert_eq!(turn(&mut bench, first), 0);
    }
    let before = resident_bytes();
    for first in (0..QUERIES / 2).step_by(TURN as usize) {
        assert_eq!(turn(&mut bench, first), 0);
    }
    server.kill();
    let mut refused = 0;
    for first in (0..QUERIES / 4).step_by(TURN as usize) {
        refused += turn(&mut bench, first);
    }
    assert!(refused > 0);
    server.restart();
    // It has forgotten everything, also the owner.
    wait_for("an answer", || (turn(&mut bench, 0) == 0).then_some(()));
    for first in (0..QUERIES / 4).step_by(TURN as usize) {
        assert_eq!(turn(&mut bench, first), 0);
    }
    let after = resident_bytes();
    assert!(after < before + GROWTH_BYTES_MAX, "{before} bytes before, {after} after");
}

fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a line");
    let kib = line.split_whitespace().next().and_then(|kib| kib.parse::<u64>().ok());
    kib.expect("a number") * 1024
}

const TURN: u32 = 500;
const WARM_UP: u32 = 20_000;
const QUERIES: u32 = 200_000;
/// What is remembered of 4,000 tokens, and what the allocator does not give back: 40 bytes a query.
const GROWTH_BYTES_MAX: u64 = 8 << 20;
