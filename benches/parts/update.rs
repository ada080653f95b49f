//! `update`: is this release an update for this device?

use std::hint::black_box;

use criterion::{Criterion, Throughput};
use otter_protocol::update::{judge, parse_version};

use crate::device::offer;

pub(crate) fn update(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("update");
    group.throughput(Throughput::Elements(1));
    let offered = offer("2.9.450", 1000);
    for (name, version) in [
        ("judge/the-same", "2.9.450"),
        ("judge/newer", "2.9.449"),
        ("judge/older", "3.0.0"),
        ("judge/with-a-name", "thinx-lib-esp8266-arduino:2.9.449"),
        ("judge/prerelease", "2.9.450-rc.1+build.7"),
        ("judge/five-parts", "2.9.1.2.3"),
        ("judge/no-version", "unknown"),
    ] {
        group.bench_function(name, |bencher| {
            bencher.iter(|| judge(black_box(&offered), Some(black_box(version)), None));
        });
    }
    group.bench_function("parse-version", |bencher| {
        bencher.iter(|| parse_version(black_box("v1.22.333-beta.4")));
    });
    group.finish();
}
