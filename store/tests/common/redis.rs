//! One server for each thread of tests, emptied for each bench.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use otter_tests::redis::{RedisCluster, RedisServer};

thread_local! {
    static SERVER: RedisServer = RedisServer::start();
    static CLUSTER: RedisCluster = RedisCluster::start(3, 0);
    static HIGHEST_MS: Arc<AtomicU64> = Arc::default();
}

pub(crate) fn empty() {
    let _alone = super::alone();
    SERVER.with(|server| server.call(&["FLUSHALL"]));
    HIGHEST_MS.with(|highest_ms| highest_ms.store(0, Ordering::SeqCst));
}

pub(crate) fn empty_cluster() {
    let _alone = super::alone();
    CLUSTER.with(|cluster| {
        cluster.nodes().iter().for_each(|node| drop(node.call(&["FLUSHALL"])));
    });
    HIGHEST_MS.with(|highest_ms| highest_ms.store(0, Ordering::SeqCst));
}

/// The clock that Redis itself would have: it does not go back, and outlives those who ask.
pub(crate) fn steady(now_ms: &Arc<AtomicU64>) -> otter_store::Clock {
    let (now_ms, highest_ms) = (Arc::clone(now_ms), HIGHEST_MS.with(Arc::clone));
    Arc::new(move || {
        let now_ms = now_ms.load(Ordering::SeqCst);
        highest_ms.fetch_max(now_ms, Ordering::SeqCst).max(now_ms)
    })
}

pub(crate) fn url(of_cluster: bool) -> String {
    if of_cluster { CLUSTER.with(RedisCluster::url) } else { SERVER.with(RedisServer::url) }
}

pub(crate) fn call(words: &[&str]) {
    SERVER.with(|server| server.call(words));
}
