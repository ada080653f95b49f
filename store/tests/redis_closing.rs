//! A Redis store that is closed leaves nothing behind, whatever it was asked. A test program of its
//! own, because it counts the memory of the whole process.
#![cfg(feature = "redis")]

use std::alloc::System;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use otter_protocol::{ApiKey, Identify, Mac, OwnerId, Query};
use otter_store::{Redis, RedisOptions, Store, Ticket};
use otter_tests::redis::RedisServer;
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

#[test]
fn stores_that_are_closed_leave_nothing() {
    let server = RedisServer::start();
    let owner = OwnerId::parse(&"a".repeat(64)).expect("an id");
    for what in ["nothing", "nonsense"] {
        if what == "nonsense" {
            server.call(&["SET", &format!("mac:{owner}:{}", MAC.to_lowercase()), what]);
        }
        open_and_close(&server, owner);
        let before = held_bytes();
        (0..STORES).for_each(|_| open_and_close(&server, owner));
        let left = held_bytes().saturating_sub(before);
        assert!(left < LEFT_BYTES_MAX, "{what} is known of a device: {left} bytes");
    }
}

/// A store that was asked for the device of a MAC, and has answered.
fn open_and_close(server: &RedisServer, owner: OwnerId) {
    let directory = tempfile::tempdir().expect("a directory");
    let redis = Redis::open(directory.path(), RedisOptions::new(server.url())).expect("a store");
    let (ring, bell) = mpsc::channel();
    let mut desk = redis.store(Arc::new(move || ring.send(()).expect("somebody waits")));
    let (owner, key) = (Some(owner), ApiKey([1; 32]));
    let identify = Identify { owner, key, device: None, mac: Mac::parse(MAC) };
    desk.submit(&mut vec![(Ticket(1), Query::Identify(identify))]);
    let mut answers = Vec::new();
    while answers.is_empty() {
        bell.recv_timeout(Duration::from_secs(20)).expect("an answer");
        desk.collect(&mut answers);
    }
    drop(desk);
    redis.close();
}

/// What was asked of the allocator and not given back.
fn held_bytes() -> usize {
    let stats = ALLOCATOR.stats();
    stats.bytes_allocated.saturating_sub(stats.bytes_deallocated)
}

const MAC: &str = "5CCF7F3D8F2A";
const STORES: usize = 5;
/// A store takes some 70 KB. Tests keep a little of their output.
const LEFT_BYTES_MAX: usize = 16 << 10;
