//! How long each part of Otter takes, by itself and in memory.
//!
//! ```text
//! cargo bench                 # all
//! cargo bench -- tls          # those whose name has this in it
//! ```
//!
//! For the eye while a part is made faster: nothing fails because it took long. What a whole server
//! costs beside others is measured by the programs of otter-benches, and counts of instructions are
//! watched by `benches/instructions` (docs/performance.md).

mod device;
mod http;
mod json;
mod store;
mod tls;
mod transmit;
mod update;

use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};

criterion_group! {
    name = parts;
    config = Criterion::default()
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_millis(1200))
        .sample_size(20);
    targets = device::core, http::http, json::json, update::update, store::store, tls::tls,
        transmit::transmit
}
criterion_main!(parts);
