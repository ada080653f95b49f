//! The bodies of the fuzz targets on their committed corpora and on mutations of them, without a
//! fuzzer (docs/fuzzing.md). What a fuzzer finds is added to the corpus, so it stays found.

use std::collections::BTreeSet;
use std::fs;

use otter_tests::fuzz;

const MUTATIONS: u64 = 1500;

#[test]
fn head() {
    fuzz::replay("head", fuzz::head, 2 * MUTATIONS);
}

#[test]
fn chunked() {
    fuzz::replay("chunked", fuzz::chunked, 2 * MUTATIONS);
}

#[test]
fn range() {
    fuzz::replay("range", fuzz::range, 2 * MUTATIONS);
}

#[test]
fn json() {
    fuzz::replay("json", fuzz::json, 2 * MUTATIONS);
}

#[test]
fn hello() {
    fuzz::replay("hello", fuzz::hello, 2 * MUTATIONS);
}

#[test]
fn ids() {
    fuzz::replay("ids", fuzz::ids, 2 * MUTATIONS);
}

#[test]
fn version() {
    fuzz::replay("version", fuzz::version, 2 * MUTATIONS);
}

#[test]
fn differential() {
    fuzz::replay("differential", fuzz::differential, 2 * MUTATIONS);
}

#[test]
fn store() {
    fuzz::replay("store", fuzz::store, MUTATIONS);
}

#[test]
fn connection() {
    fuzz::replay("connection", fuzz::connection, MUTATIONS);
}

#[test]
fn tls() {
    fuzz::replay("tls", fuzz::tls, MUTATIONS / 10);
}

#[test]
fn redis_answers() {
    fuzz::replay("redis_answers", otter_store::fuzzing::redis_answers, 2 * MUTATIONS);
}

/// docs/fuzzing.md, "Where readers part": each row, by an example.
#[test]
fn where_readers_part_a_class_says_why() {
    use fuzz::Class::{
        Authority, Chunk, Coding, CodingAndLength, Connection, Credential, Expectation, Host,
        Length, Limit, LineEnd, Octet, Target,
    };
    let post = |rest: &str| format!("POST / HTTP/1.1\r\nHost: a\r\n{rest}");
    let get = |target: &str| format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n");
    let many = format!("Content-Length: 20000\r\n\r\n{}", "x".repeat(20_000));
    let chunked = "Transfer-Encoding: chunked\r\n";
    let odd_options =
        "GET / HTTP/1.0\r\nConnection: \u{ff}, keep-alive\r\n\r\nGET / HTTP/1.0\r\n\r\n";
    for (text, class) in [
        (post("\r\n"), None),
        (post("A: b\n\r\n"), Some(LineEnd)),
        ("GET / HTTP/1.1\nHost: a\n\n".to_owned(), Some(LineEnd)),
        ("GET / HTTP/2.0\r\nHost: a\r\n\r\n".to_owned(), None),
        ("GET  / HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), None),
        (get("/a#b"), Some(Target)),
        (get("ftp://a/"), Some(Target)),
        (get("*"), Some(Target)),
        ("GET / HTTP/1.1\r\n\r\n".to_owned(), Some(Host)),
        (post("Host: a\r\n\r\n"), Some(Host)),
        (post("A : b\r\n\r\n"), None),
        (post("A: b\r\n c\r\n\r\n"), None),
        (post("Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"), Some(Coding)),
        (post(&format!("{chunked}Content-Length: 3\r\n\r\n0\r\n\r\n")), Some(CodingAndLength)),
        (post("Content-Length: 2\r\nContent-Length: 2\r\n\r\n{}"), Some(Length)),
        (post("Content-Length: 00000000000000000002\r\n\r\n{}"), Some(Length)),
        (post(&format!("{chunked}\r\n2;=\r\n{{}}\r\n0\r\n\r\n")), Some(Chunk)),
        (post(&format!("{chunked}\r\n2 \r\n{{}}\r\n0\r\n\r\n")), Some(Chunk)),
        (post(&format!("{chunked}\r\n2\r\n{{")), None),
        (post("Expect: b\r\n\r\n"), Some(Expectation)),
        (post("Authentication: b\r\nAuthentication: b\r\n\r\n"), Some(Credential)),
        (post(&many), Some(Limit)),
        (post(&format!("{chunked}\r\n0\r\n{}\r\n", "A: b\r\n".repeat(101))), Some(Limit)),
        (get("/<"), Some(Octet)),
        (get("http://[/"), Some(Authority)),
        (odd_options.to_owned(), Some(Connection)),
    ] {
        assert_eq!(fuzz::compare(text.as_bytes()), class, "{text:?}");
    }
}

/// A corpus is small, and every target has one.
#[test]
fn corpora_are_small_and_belong_to_targets() {
    let names = |folder: &str| -> BTreeSet<String> {
        let entries = fs::read_dir(fuzz::root().join(folder)).expect("a folder");
        let names = entries.map(|entry| entry.expect("an entry").file_name());
        names.map(|name| name.to_string_lossy().trim_end_matches(".rs").to_owned()).collect()
    };
    assert_eq!(names("targets"), names("corpus"));
    let mut bytes = 0;
    for target in names("corpus") {
        for entry in fs::read_dir(fuzz::root().join("corpus").join(target)).expect("a corpus") {
            bytes += entry.expect("an entry").metadata().expect("a file").len();
        }
    }
    assert!(bytes <= 200 << 10, "{bytes} bytes of corpora");
}

/// Not a test: `cargo test -p otter-tests --test corpus -- --ignored` puts the seeds into the
/// corpora.
#[test]
#[ignore = "it writes to fuzz/corpus"]
fn seed() {
    let redis = otter_store::fuzzing::redis_seeds();
    let targets = fs::read_dir(fuzz::root().join("targets")).expect("targets");
    for target in targets {
        let name = target.expect("an entry").file_name();
        let name = name.to_string_lossy().trim_end_matches(".rs").to_owned();
        let seeds = if name == "redis_answers" { redis.clone() } else { fuzz::seeds(&name) };
        fuzz::plant(&name, &seeds);
    }
}
