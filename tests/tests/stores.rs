//! Law 12 of docs/design.md 8: the stores answer like the model store, whatever they are asked.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use otter_protocol::{Offered, Query, Record, ReleaseId};
use otter_store::{
    DeviceChange, Embedded, EmbeddedOptions, Memory, MemoryOptions, Redis, RedisOptions,
};
use otter_tests::pair::{Pair, clock, slot_id, start};
use otter_tests::redis::{self, Appends, RedisServer, wait_for};
use otter_tests::{Random, fuzz};
use proptest::prelude::*;

proptest! {
    #![proptest_config(config())]

    #[test]
    fn the_memory_store_answers_like_the_model(chosen in any_choices()) {
        fuzz::store(&chosen);
    }

    #[test]
    fn the_embedded_store_answers_like_the_model(
        chosen in any_choices(),
        later in any_choices(),
    ) {
        let (directory, now_ms) = (tempfile::tempdir().expect("a directory"), start());
        let embedded = embedded(directory.path(), &now_ms);
        let mut pair = Pair::new(&embedded, &now_ms, Random::given(&chosen));
        pair.run_all();
        embedded.close();
        let embedded = self::embedded(directory.path(), &now_ms);
        pair.reopened(&embedded);
        pair.random = Random::given(&later);
        pair.run_all();
    }
}

fn config() -> ProptestConfig {
    ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(48) }
}

/// What is done, byte by byte.
fn any_choices() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), 0..600)
}

fn memory(directory: &Path, now_ms: &Arc<AtomicU64>) -> Memory {
    let mut options = MemoryOptions::default();
    options.clock = clock(now_ms);
    Memory::open(directory, options).expect("a store")
}

fn embedded(directory: &Path, now_ms: &Arc<AtomicU64>) -> Embedded {
    let mut options = EmbeddedOptions::default();
    options.clock = clock(now_ms);
    Embedded::open(directory, options).expect("a store")
}

fn assert_all_was_done(done: &BTreeMap<&'static str, u32>) {
    for what in [
        "key",
        "key revoked",
        "auto_update",
        "publish",
        "withdraw",
        "issue",
        "revoke",
        "Identify",
        "Record",
        "Fetch",
        "Push",
        "Redeem",
        "Start",
        "Claim",
    ] {
        assert!(done.contains_key(what), "{what} never happened: {done:?}");
    }
}

/// `Config::offers_max`: the operator setting `auto_update` starts over.
#[test]
fn setting_auto_update_starts_the_guard_rails_over() {
    let (directory, now_ms) = (tempfile::tempdir().expect("a directory"), start());
    let memory = memory(directory.path(), &now_ms);
    let mut pair = Pair::new(&memory, &now_ms, Random::new(1));
    let owner = pair.owners[0].0;
    let device = slot_id(0, 0);
    let release = ReleaseId([5; 16]);
    let offered = Some(Offered { release, times: 8, failures: 0, quiet_until: 0 });
    let check_in = Some(pair.check_in(0, 0));
    let record = Record { owner, device: Some(device), check_in, offered, grant: None };
    pair.answer(Query::Record(Box::new(record)));
    let change = DeviceChange { auto_update: Some(true), alias: None };
    pair.operator.set_device(device, change).expect("a known device");
    let row = pair.operator.device(device).expect("readable").expect("a known device");
    assert_eq!(row.offered, None);
}

#[test]
fn the_memory_store_does_over_long_times() {
    let mut done = BTreeMap::new();
    for seed in 0..40 {
        let (directory, now_ms) = (tempfile::tempdir().expect("a directory"), start());
        let memory = memory(directory.path(), &now_ms);
        let mut pair = Pair::new(&memory, &now_ms, Random::new(seed));
        pair.run(400);
        done.append(&mut pair.done);
    }
    assert_all_was_done(&done);
}

#[test]
fn the_embedded_store_does_over_long_times_and_after_each_reopening() {
    let mut done = BTreeMap::new();
    for seed in 100..106 {
        let (directory, now_ms) = (tempfile::tempdir().expect("a directory"), start());
        let mut embedded = embedded(directory.path(), &now_ms);
        let mut pair = Pair::new(&embedded, &now_ms, Random::new(seed));
        for _ in 0..4 {
            pair.run(60);
            embedded.close();
            embedded = self::embedded(directory.path(), &now_ms);
            pair.reopened(&embedded);
        }
        done.append(&mut pair.done);
    }
    assert_all_was_done(&done);
}

#[test]
fn the_redis_store_does_and_after_each_crash_of_redis() {
    let mut done = BTreeMap::new();
    for seed in 200..204 {
        let appends = Appends::Always;
        let mut server =
            RedisServer::start_with(redis::RedisOptions { appends, ..Default::default() });
        let (directory, now_ms) = (tempfile::tempdir().expect("a directory"), start());
        let mut options = RedisOptions::new(server.url());
        options.clock = Some(clock(&now_ms));
        let store = Redis::open(directory.path(), options).expect("a store");
        let mut pair = Pair::new(&store, &now_ms, Random::new(seed));
        for _ in 0..4 {
            pair.run(100);
            server.kill();
            wait_for("the store to see it", || store.operator().trouble());
            server.restart();
            wait_for("the store to be back", || store.operator().trouble().is_none().then_some(()));
        }
        done.append(&mut pair.done);
    }
    assert_all_was_done(&done);
}
