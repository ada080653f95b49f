//! Where corpora begin: the requests of docs/wire.md, and what each target adds to them.

use super::connection::{OPS, all};
use super::tls::hello;
use crate::Random;
use crate::scene::{DEVICE, KEY, MAC, OWNER};
use crate::tls::Hello;

/// The seeds of a target; none for a target that has its own.
#[must_use]
pub fn seeds(target: &str) -> Vec<Vec<u8>> {
    match target {
        "head" | "differential" => requests(),
        "chunked" => texts(CHUNKED),
        "json" => jsons(),
        "range" => RANGES.iter().map(|range| [&[3, 232], range.as_bytes()].concat()).collect(),
        "hello" => hellos(),
        "version" => texts(VERSIONS),
        "ids" => texts(&[OWNER, KEY, DEVICE, MAC, "SIGFOX1A2B3C", "5C:CF:7F:3D:8F:2A", "unnamed"]),
        "connection" => connections(),
        "tls" => tunnels(),
        "store" => (0..4).map(|seed| choices(seed, 400)).collect(),
        _ => Vec::new(),
    }
}

/// So many choices by chance.
fn choices(seed: u64, count: usize) -> Vec<u8> {
    let mut random = Random::new(seed);
    (0..count).map(|_| random.draw() as u8).collect()
}

fn texts(texts: &[&str]) -> Vec<Vec<u8>> {
    texts.iter().map(|text| text.as_bytes().to_vec()).collect()
}

/// Every sample, and some that two readers could read differently.
fn requests() -> Vec<Vec<u8>> {
    let mut requests: Vec<_> = all().iter().map(|sample| sample.bytes.clone()).collect();
    requests.extend(
        ODD.iter()
            .map(|odd| format!("POST /device/register HTTP/1.1\r\nHost: a\r\n{odd}").into_bytes()),
    );
    requests.extend(texts(LINES));
    requests
}

/// What the bodies of the samples are, and what stands in them.
fn jsons() -> Vec<Vec<u8>> {
    let bodies = all().iter().filter_map(|sample| {
        let start = sample.bytes.iter().position(|byte| *byte == b'{')?;
        let end = sample.bytes.iter().rposition(|byte| *byte == b'}')?;
        Some(sample.bytes[start..=end].to_vec())
    });
    bodies.chain(texts(JSON)).collect()
}

/// A sample each: sent, asked, answered, taken; also in pieces and with deadlines between.
fn connections() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for which in 0..all().len() as u8 {
        seeds.push(vec![1, which, 17]);
        seeds.push(vec![1, which, 4, 5, 9, 1, 0, 4, 5, 9, 16, 0, 4, 5, 17, 13]);
        seeds.push(vec![2, which, 0, 90, 11, 20, 0, 13, 17]);
    }
    for sample in all().iter().filter(|sample| sample.bytes.len() < 600) {
        let [high, low] = (sample.bytes.len() as u16).to_be_bytes();
        seeds.push([&[0, high, low][..], &sample.bytes, &[4, 5, 17, 14]].concat());
    }
    seeds.push((0..OPS).collect());
    seeds
}

fn hellos() -> Vec<Vec<u8>> {
    let mut seeds = vec![hello(), b"GET / HTTP/1.1\r\n".to_vec()];
    for code in 1..=5 {
        seeds.push(Hello::esp8266_probe(code).bytes());
        seeds.push(Hello::new().with_fragments(code).bytes());
    }
    seeds
}

fn tunnels() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for (number, hello) in hellos().iter().enumerate() {
        let [high, low] = (hello.len() as u16).to_be_bytes();
        seeds.push([&[number as u8 & 1, high, low], &hello[..]].concat());
    }
    for version in 0..2 {
        for which in (0..all().len() as u8).step_by(5) {
            seeds.push(vec![2 | version, which, 0, 0, 0, 0, 1, 0, 9, 1, 0, 0, 0, 0]);
            seeds.push(vec![4 | version, 3, which, 7, 6, 16, 0, 7, 15]);
        }
        seeds
            .push([&[4 | version, 4, 0, 8][..], b"GET / HTTP", &[2, 21 << 3, 0, 2, 1, 0]].concat());
        seeds.push(vec![4 | version, 2 | 21 << 3, 0, 2, 1, 0, 7]);
        seeds.push(vec![4 | version, 2 | 22 << 3, 0, 5, 24, 0, 0, 1, 1, 7]);
    }
    seeds
}

const ODD: &[&str] = &[
    "Content-Length: 2\r\nContent-Length: 2\r\n\r\n{}GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    "Content-Length: 2, 2\r\n\r\n{}",
    "Content-Length: +2\r\n\r\n{}",
    "Content-Length: 0000000000000000000002\r\n\r\n{}",
    "Content-Length : 2\r\n\r\n{}",
    "Transfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n0\r\n\r\n",
    "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "Transfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n",
    "Transfer-Encoding: chunked\r\n\r\n2;a=\"b\\\"c\" ;d\r\n{}\r\n0\r\nA: b\r\n\r\n\
     GET / HTTP/1.1\r\n\r\n",
    "Transfer-Encoding: chunked\r\n\r\n2\n{}\n0\n\n",
    "Transfer-Encoding: chunked\r\n\r\n0x2\r\n{}\r\n0\r\n\r\n",
    "Transfer-Encoding: chunked\r\n\r\n2 \r\n{}\r\n0\r\n\r\n",
    "Expect: 100-continue\r\nContent-Length: 2\r\n\r\n{}",
    "Expect: 200-ok\r\n\r\n",
    "Connection: close\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
    "A: b\r\n c\r\n\r\n",
    "A: b\n\n",
    "Host: b\r\n\r\n",
];

const LINES: &[&str] = &[
    "\r\n\nGET http://a/b?c HTTP/1.1\r\nHost: a\r\n\r\nGET http://a HTTP/1.0\r\n\r\n",
    "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
    "CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\nGET /2 HTTP/1.0\r\n\r\n",
    "GET / HTTP/2.0\r\n\r\n",
    "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET /<a>`{b}|\\^\" HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET /\r\n\r\n",
];

const CHUNKED: &[&str] = &[
    "0\r\n\r\n",
    "2\r\n{}\r\n0\r\n\r\nrest",
    "1;a;b=c;d=\"e\\\"\"\r\n{\r\n01 ; x\r\n}\r\n0\r\nA: b\r\nC:\r\n\r\n",
    "ffffffffffffffff\r\n",
    "00000000000000000\r\n",
    "9;aaaaaaaaaaaaa\r\n",
];

const JSON: &[&str] = &[
    "[]",
    " {\"a\" : [1,-0.5e+7,true,false,null,{\"b\":\"\\u00e9\\ud83d\\ude00\"}] }\r\n",
    "\"\u{e9}\\n\\\"\\\\\\/\\b\\f\\r\\t\"",
    "{\"a\":1,\"a\":2}",
    "{\"yes\":true,\"no\":false,\"none\":null}",
    "{\"$serde_json::private::Number\":\"1\"}",
    "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]",
    "1e999",
    "[0,-0,10,0.10]",
    "01",
    "-01",
    "1.",
    ".5",
    "+1",
    "1e",
    "[1,]",
    "{\"a\":1,}",
    "tru",
    "\"\u{1}\"",
    "\u{feff}1",
    "\"\\ud800\"",
];

const RANGES: &[&str] = &[
    "bytes=0-0",
    "bytes=100-999\n\"abc\"",
    "bytes=1000-",
    "bytes=-100\nW/\"abc\"",
    "bytes=-0",
    "BYTES=9-8",
    "bytes=0-18446744073709551615",
    "bytes=99999999999999999999-",
    "bytes=0-1,3-4",
    "items=0-1",
];

const VERSIONS: &[&str] = &[
    "1.2.0\n1.0.0\n\n\narduino",
    "repo:v1.2.3\n1.2.3-rc.1+build\ncafebabe\ne\nplatformio:esp8266",
    "1.2.3.4.5\n1.2.12\na\nb\nnodemcu",
    "18446744073709551615.0.1.1\n\n\n\nsigfox",
    "V1\n01.0\nx\nx",
    "1.0.0\n1.0.0\na\ncafebabecafebabe",
    "1.0.0\nv1\na\nb",
    "1.0.0\n1.0.0\n\nb",
    "1.0.0\n1.0.0\na\n",
];
