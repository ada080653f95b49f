//! The keys of TLS session tickets: which there are when, and that all servers have the same.

mod common;

use std::collections::BTreeSet;
use std::thread;

use common::{Bench, HOUR_MS, START_MS, Which};
use otter_store::{Operator, OperatorError, TicketKey};

/// How long a period is.
const PERIOD_MS: u64 = 6 * HOUR_MS;

/// Runs a test on an empty store of each kind, the cluster too.
fn on_each(test: impl Fn(&mut Bench)) {
    common::on_each(&test);
    #[cfg(feature = "redis")]
    test(&mut Bench::new(Which::Cluster));
}

/// What can be compared of keys.
type Keys = Vec<(u64, [u8; 32])>;

fn keys_at(operator: &Operator, unix_ms: u64) -> Keys {
    let keys = operator.ticket_keys(unix_ms / 1000).expect("keys");
    keys.iter().map(|key| (key.period, key.secret)).collect()
}

fn periods(keys: &Keys) -> Vec<u64> {
    keys.iter().map(|(period, _)| *period).collect()
}

/// The keys of each of several periods in turn, on a clock that goes with them.
fn in_turn<const N: usize>(bench: &Bench) -> [Keys; N] {
    let mut next_ms = START_MS;
    [(); N].map(|()| {
        bench.set_clock(next_ms);
        let keys = keys_at(&bench.operator, next_ms);
        next_ms += PERIOD_MS;
        keys
    })
}

#[test]
fn the_next_period_has_a_new_key_and_drops_the_oldest() {
    on_each(|bench| {
        let [first, second, third, fourth] = in_turn(bench);
        let p = TicketKey::period_at(START_MS / 1000);
        assert_eq!(periods(&first), [p, p + 1]);
        assert_eq!(periods(&second), [p, p + 1, p + 2]);
        assert_eq!(periods(&third), [p, p + 1, p + 2, p + 3]);
        assert_eq!(periods(&fourth), [p + 1, p + 2, p + 3, p + 4]);
        assert!(second.starts_with(&first) && third.starts_with(&second));
        assert!(fourth.starts_with(&third[1..]));
        assert_eq!(keys_at(&bench.operator, START_MS + 3 * PERIOD_MS), fourth, "they stay");
    });
}

#[test]
fn keys_are_random() {
    let secrets = std::sync::Mutex::new(Vec::new());
    on_each(|bench| {
        let [keys, _, _] = in_turn(bench);
        let mut all = secrets.lock().expect("no panic");
        all.extend(keys.iter().map(|(_, secret)| *secret));
    });
    let all = secrets.into_inner().expect("no panic");
    let different: BTreeSet<_> = all.iter().collect();
    assert_eq!(different.len(), all.len(), "none is there twice, in whichever store");
    let bytes: BTreeSet<u8> = all.iter().flatten().copied().collect();
    assert!(bytes.len() > 50, "{} different bytes", bytes.len());
}

#[test]
fn all_who_ask_at_once_get_the_same() {
    on_each(|bench| {
        let answers: BTreeSet<Keys> = thread::scope(|scope| {
            let ask = || keys_at(&bench.operator, START_MS);
            let threads: Vec<_> = (0..16).map(|_| scope.spawn(ask)).collect();
            threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
        });
        assert_eq!(answers.len(), 1);
    });
}

#[test]
fn a_clock_that_is_one_period_behind_or_ahead_still_shares_keys() {
    on_each(|bench| {
        let [_, _, here] = in_turn(bench);
        let now_ms = START_MS + 2 * PERIOD_MS;
        let behind = keys_at(&bench.operator, now_ms - PERIOD_MS);
        let ahead = keys_at(&bench.operator, now_ms + PERIOD_MS);
        assert_eq!(behind, here[..3]);
        assert_eq!(ahead[..3], here[1..]);
        let again = keys_at(&bench.operator, now_ms);
        assert!(again.ends_with(&here[1..]));
        assert_eq!(keys_at(&bench.operator, now_ms + PERIOD_MS), ahead);
        if !bench.has_tables() {
            assert_eq!(again, here, "and takes nothing from others");
        }
    });
}

#[test]
fn a_store_that_is_closed_has_none() {
    common::on_each(|bench| {
        if bench.which == Which::Memory {
            return;
        }
        keys_at(&bench.operator, START_MS);
        bench.close();
        let refused = bench.operator.ticket_keys(START_MS / 1000).expect_err("it was closed");
        assert!(matches!(refused, OperatorError::Unavailable { .. }), "{refused:?}");
    });
}

#[test]
fn the_embedded_store_writes_no_key_to_its_disk() {
    let mut bench = Bench::new(Which::Embedded);
    let before = keys_at(&bench.operator, START_MS);
    bench.owner('a');
    bench.reopen();
    let after = keys_at(&bench.operator, START_MS);
    assert_eq!(periods(&before), periods(&after));
    assert!(before.iter().all(|key| !after.contains(key)), "they went with the process");
}

#[test]
fn a_copy_of_a_store_has_keys_of_its_own() {
    let bench = Bench::new(Which::Embedded);
    bench.owner('a');
    let here = keys_at(&bench.operator, START_MS);
    let copy = Bench::new(Which::Memory);
    copy.operator.begin_copy().expect("empty");
    bench.operator.export(&mut |facts| copy.operator.import(facts)).expect("copied");
    copy.operator.finish_copy().expect("finished");
    let there = keys_at(&copy.operator, START_MS);
    assert!(here.iter().all(|key| !there.contains(key)));
}

#[cfg(feature = "redis")]
mod on_redis {
    use otter_tests::redis::RedisServer;

    use super::*;

    /// A server on this Redis, on Redis' own clock.
    fn on(server: &RedisServer) -> Bench {
        Bench::on_redis(otter_store::RedisOptions::new(server.url()))
    }

    fn redis_ms(server: &RedisServer) -> u64 {
        let time = server.client().call(&["TIME"]);
        time.items()[0].text().parse::<u64>().expect("seconds") * 1000
    }

    #[test]
    fn servers_share_them_and_they_outlive_each() {
        let server = RedisServer::start();
        let (first, second) = (on(&server), on(&server));
        let now_ms = redis_ms(&server);
        let keys = keys_at(&first.operator, now_ms);
        assert_eq!(keys_at(&second.operator, now_ms), keys);
        drop((first, second));
        let third = on(&server);
        assert_eq!(keys_at(&third.operator, now_ms), keys);
        // They go when nobody asks for them any more.
        let left_ms = server.client().call(&["PTTL", "ticketkeys"]).integer();
        assert!((1..=4 * PERIOD_MS as i64).contains(&left_ms), "{left_ms}");
        assert_eq!(server.client().call(&["HLEN", "ticketkeys"]).integer(), 2);
    }

    #[test]
    fn a_server_whose_clock_is_far_off_is_told_and_harms_nobody() {
        let server = RedisServer::start();
        let (here, off) = (on(&server), on(&server));
        let now_ms = redis_ms(&server);
        let keys = keys_at(&here.operator, now_ms);
        for wrong_ms in [0, now_ms - 3 * PERIOD_MS, now_ms + 3 * PERIOD_MS, 1 << 60] {
            let refused = off.operator.ticket_keys(wrong_ms / 1000).expect_err("far off");
            assert!(matches!(refused, OperatorError::Invalid { .. }), "{refused:?}");
            assert!(refused.to_string().contains("clock of this server"), "{refused}");
        }
        assert_eq!(keys_at(&here.operator, now_ms), keys);
    }

    #[test]
    fn what_is_not_ours_is_put_out_of_the_way() {
        let server = RedisServer::start();
        let bench = on(&server);
        let now_ms = redis_ms(&server);
        let period = TicketKey::period_at(now_ms / 1000);
        server.call(&["HSET", "ticketkeys", "nonsense", "x", "1", "y"]);
        assert_eq!(periods(&keys_at(&bench.operator, now_ms)), [period, period + 1]);
        assert_eq!(server.client().call(&["HLEN", "ticketkeys"]).integer(), 2);
        server.call(&["HSET", "ticketkeys", &period.to_string(), "no key"]);
        let refused = bench.operator.ticket_keys(now_ms / 1000).expect_err("no key");
        assert!(matches!(refused, OperatorError::Unavailable { .. }), "{refused:?}");
    }
}
