//! `json`: check-ins in which the body is nearly all there is. The reader is private, so it is
//! timed through a connection; `body/none` is what the rest takes.

use std::hint::black_box;

use bytes::Bytes;
use criterion::{Criterion, Throughput};
use otter_paths::Peer;
use otter_tests::Request;

use crate::device::offering;

pub(crate) fn json(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("json");
    let of_16_kib = |unit: &str| {
        let many = vec![unit; 15_900 / (unit.len() + 1)].join(",");
        format!(r#"{{"registration":{{"more":[{many}]}}}}"#)
    };
    let plain = r#""mac":"5CCF7F3D8F2A","version":"2.9.450","platform":"arduino:esp8266""#;
    let typical = format!(r#"{{"registration":{{{plain},"status":"Registered"}}}}"#);
    let cut = of_16_kib("12345");
    for (name, body) in [
        ("body/none", String::new()),
        ("body/typical", typical),
        ("body/numbers", of_16_kib("-12.5e3")),
        ("body/short-texts", of_16_kib(r#""Registered""#)),
        ("body/one-text", format!(r#"{{"registration":{{"a":"{}"}}}}"#, "x".repeat(16_000))),
        ("body/escapes", of_16_kib(r#""\u00e9\n\"""#)),
        ("body/nested", of_16_kib("[[[[]]]]")),
        ("body/objects", of_16_kib(r#"{"a":true,"b":null}"#)),
        ("body/cut-at-the-end", cut[..cut.len() - 1].to_owned()),
    ] {
        // Names no owner: refused once all of it is read, and nobody is asked.
        let request = Request::post("/device/register", &body).key(&"5".repeat(64)).bytes();
        let mut peer = Peer::new(offering(&Bytes::new()));
        group.throughput(Throughput::Bytes(body.len().max(1) as u64));
        group.bench_function(name, |bencher| bencher.iter(|| peer.say(black_box(&request))));
    }
    group.finish();
}
