//! Corpora, replayed and mutated without a fuzzer.

use std::fs;
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};

use crate::Random;

/// Runs a body on each committed input of its target, and on so many mutations of them.
///
/// # Panics
/// If the body does, with the input; or if there is no corpus.
pub fn replay(target: &str, body: fn(&[u8]), mutations: u64) {
    let inputs = inputs(target);
    assert!(!inputs.is_empty(), "there is no corpus of {target}");
    for (path, bytes) in &inputs {
        run(target, body, bytes, &path.display().to_string());
    }
    let mut random = Random::new(SEED);
    for number in 0..mutations {
        let bytes = mutated(&inputs, &mut random);
        run(target, body, &bytes, &format!("mutation {number} of seed {SEED}"));
    }
}

/// Puts seeds into a target's corpus, under names that follow from what is in them.
///
/// # Panics
/// If they cannot be written.
pub fn plant(target: &str, seeds: &[Vec<u8>]) {
    let folder = root().join("corpus").join(target);
    fs::create_dir_all(&folder).expect("a corpus");
    for seed in seeds {
        let digest = ring::digest::digest(&ring::digest::SHA256, seed);
        fs::write(folder.join(crate::image::hex(&digest.as_ref()[..8])), seed).expect("written");
    }
}

/// Where the targets and their corpora are.
#[must_use]
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz")
}

fn inputs(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let Ok(entries) = fs::read_dir(root().join("corpus").join(target)) else { return Vec::new() };
    let paths = entries.map(|entry| entry.expect("an entry").path());
    let mut paths: Vec<PathBuf> = paths.filter(|path| path.is_file()).collect();
    // However the directory is sorted, the mutations are the same.
    paths.sort();
    paths.into_iter().map(|path| (path.clone(), fs::read(path).expect("readable"))).collect()
}

fn run(target: &str, body: fn(&[u8]), bytes: &[u8], what: &str) {
    if panic::catch_unwind(AssertUnwindSafe(|| body(bytes))).is_err() {
        panic!("{target}, {what}: b\"{}\"", bytes.escape_ascii());
    }
}

/// One input with some damage, perhaps the front of it with the back of another.
fn mutated(inputs: &[(PathBuf, Vec<u8>)], random: &mut Random) -> Vec<u8> {
    let mut bytes = random.pick(inputs).1.clone();
    if random.chance(30) {
        let other = &random.pick(inputs).1;
        bytes.truncate(random.below(bytes.len() as u64 + 1) as usize);
        bytes.extend_from_slice(&other[random.below(other.len() as u64 + 1) as usize..]);
    }
    for _ in 0..random.between(1, 6) {
        let at = random.below(bytes.len() as u64 + 1) as usize;
        let end = bytes.len().min(at + random.between(0, 4) as usize);
        match random.below(5) {
            0 => {
                bytes.drain(at..end);
            }
            1 => bytes.splice(at..end, random.pick(TOKENS).bytes()).for_each(drop),
            2 => bytes.insert(at, random.draw() as u8),
            3 => {
                let copy = bytes[at..end].to_vec();
                bytes.splice(at..at, copy).for_each(drop);
            }
            _ if at < bytes.len() => bytes[at] ^= 1 << random.below(8),
            _ => {}
        }
    }
    bytes.truncate(INPUT_BYTES_MAX);
    bytes
}

const SEED: u64 = 0x0773;
const INPUT_BYTES_MAX: usize = 1 << 16;

/// What means something to one reader or another.
const TOKENS: &[&str] = &[
    "\r\n",
    "\n",
    "\r",
    "\r\n\r\n",
    " ",
    "\t",
    ":",
    ",",
    ";",
    "=",
    "\"",
    "\\",
    "\0",
    "{",
    "}",
    "[",
    "]",
    "0",
    "-1",
    "1",
    "5",
    "ffffffffffffffff",
    "18446744073709551616",
    "Content-Length: 5\r\n",
    "Content-Length",
    "Transfer-Encoding: chunked\r\n",
    "chunked",
    "gzip, ",
    "Host: a\r\n",
    "Connection: close\r\n",
    "Connection: keep-alive\r\n",
    "Expect: 100-continue\r\n",
    "HTTP/1.0",
    "HTTP/1.1",
    "HTTP/2.0",
    "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    "http://a",
    "?",
    "#",
    "%",
    "*",
    "bytes=",
    "null",
    "true",
    "\u{e9}",
    "\u{feff}",
    "../",
    "\\u0000",
    "\\ud800",
    "1e999",
];
