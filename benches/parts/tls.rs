//! `tls`: the server's side of handshakes, and sealing.

use std::time::{Duration, Instant};

use bytes::Bytes;
use criterion::{Criterion, Throughput};
use otter_paths::{Suite, Tunnel};
use otter_protocol::{Answer, Query};
use rustls::crypto::ring::cipher_suite::{
    TLS13_AES_128_GCM_SHA256, TLS13_CHACHA20_POLY1305_SHA256,
};

use crate::device::offering;

pub(crate) fn tls(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("tls");
    let aes = Suite::new(TLS13_AES_128_GCM_SHA256).expect("a suite of ring");
    let chacha = Suite::new(TLS13_CHACHA20_POLY1305_SHA256).expect("a suite of ring");
    group.throughput(Throughput::Elements(1));
    for (name, suite) in [("handshake/full", aes.forgetful()), ("handshake/resumed", aes)] {
        // The first one has nothing to come back with.
        shake(&suite);
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|count| (0..count).map(|_| shake(&suite)).sum());
        });
    }
    let aes = Suite::new(TLS13_AES_128_GCM_SHA256).expect("a suite of ring");
    let image = Bytes::from(vec![0xe9; IMAGE_BYTES + 4096]);
    for (name, suite, bytes) in [
        ("seal/1-MiB-AES-128-GCM", &aes, IMAGE_BYTES),
        ("seal/1-KiB-AES-128-GCM", &aes, 1024),
        ("seal/1-MiB-ChaCha20-Poly1305", &chacha, IMAGE_BYTES),
    ] {
        let mut tunnel = Tunnel::open(suite, offering(&image), |work| work()).expect("TLS");
        let request = format!(
            "GET /device/firmware?ott={} HTTP/1.1\r\nHost: a\r\nRange: bytes=0-{}\r\n\r\n",
            "5".repeat(64),
            bytes - 1
        );
        let mut say = || tunnel.say(request.as_bytes()).expect("TLS");
        assert!(say() > bytes, "a part is missing");
        group.throughput(Throughput::Bytes(bytes as u64));
        group.bench_function(name, |bencher| bencher.iter(&mut say));
    }
    group.finish();
}

/// How long the server worked for one handshake.
fn shake(suite: &Suite) -> Duration {
    let mut took = Duration::ZERO;
    let nobody = |_: Query| Answer::<Bytes>::Unavailable;
    Tunnel::open(suite, nobody, |work| {
        let begun = Instant::now();
        work();
        took += begun.elapsed();
    })
    .expect("TLS");
    took
}

const IMAGE_BYTES: usize = 1 << 20;
