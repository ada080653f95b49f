//! `http`: heads of the libraries in the field, and chunked bodies, by themselves.

use std::hint::black_box;

use criterion::{Criterion, Throughput};
use otter_protocol::fuzzing::{Reading, read};
use otter_tests::Request;

pub(crate) fn http(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("http");
    for (name, request) in heads().into_iter().chain(bodies()) {
        let bytes = request.bytes();
        assert!(matches!(read(&bytes), Reading::Taken(_)), "{name} is not taken");
        group.throughput(Throughput::Bytes(bytes.len() as u64));
        group.bench_function(name, |bencher| bencher.iter(|| read(black_box(&bytes))));
    }
    group.finish();
}

/// As docs/wire.md 1 has them, with the least of a body.
fn heads() -> Vec<(&'static str, Request)> {
    let token = "5".repeat(64);
    let nodemcu = Request::post("/device/register", "{}")
        .header("User-Agent", "THiNX-Client")
        .header("Accept", "application/json")
        .header("Origin", "device")
        .header("Content-Type", "application/json")
        .key(&token);
    let python = Request::post("/device/register", "{}")
        .header("User-Agent", "python-requests/2.31.0")
        .header("Accept-Encoding", "gzip, deflate")
        .header("Accept", "*/*")
        .header("Connection", "keep-alive")
        .header("Content-Type", "application/json")
        .key(&token);
    vec![
        ("head/arduino-check-in", Request::check_in(&token, "{}")),
        ("head/nodemcu-check-in", nodemcu),
        ("head/python-check-in", python),
        ("head/esp8266-updater", Request::esp8266_update(&token)),
        ("head/health", Request::get("/")),
        (
            "head/64-lines",
            (0..62).fold(Request::get("/"), |request, n| {
                request.header(&format!("X-Line-{n}"), "something that nobody asked for")
            }),
        ),
    ]
}

fn bodies() -> Vec<(&'static str, Request)> {
    let body = "x".repeat(16_000);
    let post = Request::post("/device/register", &body);
    vec![
        ("body/16000-bytes", post.clone()),
        ("body/16000-bytes-in-chunks-of-4096", post.clone().chunked(4096)),
        ("body/16000-bytes-in-chunks-of-64", post.clone().chunked(64)),
        ("body/16000-bytes-in-chunks-of-1", post.chunked(1)),
    ]
}
