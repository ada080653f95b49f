//! The paths that are counted.

use anyhow::{Result, ensure};
use rustls::crypto::ring::cipher_suite::TLS13_AES_128_GCM_SHA256;

use crate::{Shop, Suite, Tunnel, answers, request};

/// Does the same each time; panics if the answer is not what it should be.
pub type Round = Box<dyn FnMut()>;

/// A path that is worth watching.
pub struct Path {
    /// What it is called in `benches/instructions.txt`.
    pub name: &'static str,
    /// So many rounds make a count in which nothing else is seen.
    pub rounds: u32,
    /// Prepares it.
    pub make: fn() -> Result<Round>,
}

/// All of them.
pub const PATHS: [Path; 7] = [
    Path { name: "check-in", rounds: 2000, make: check_in },
    Path { name: "check-in-in-ten-pieces", rounds: 2000, make: check_in_in_pieces },
    Path { name: "check-in-that-is-kept", rounds: 2000, make: kept_check_in },
    Path { name: "check-in-of-16-KiB", rounds: 200, make: largest_check_in },
    Path { name: "redemption-of-4-KiB", rounds: 2000, make: redemption },
    Path { name: "dead-token", rounds: 2000, make: dead_token },
    Path { name: "TLS-1.3-image-of-1-MiB", rounds: 40, make: sealing },
];

/// Nothing is new, and the newest release is what the device runs.
fn check_in() -> Result<Round> {
    let shop = Shop::open(IMAGE_BYTES)?;
    let mut peer = shop.peer();
    let request = request::check_in(&shop, request::VERSION);
    let expected = expected(&peer.hear(&request), b"HTTP/1.1 200 ")?;
    Ok(Box::new(move || {
        assert_eq!(peer.say(&request), expected);
        let _ = &shop;
    }))
}

fn check_in_in_pieces() -> Result<Round> {
    let shop = Shop::open(IMAGE_BYTES)?;
    let mut peer = shop.peer();
    let request = request::check_in(&shop, request::VERSION);
    let expected = expected(&peer.hear(&request), b"HTTP/1.1 200 ")?;
    Ok(Box::new(move || {
        let pieces = request.chunks(request.len().div_ceil(10));
        assert_eq!(pieces.map(|piece| peer.say(piece)).sum::<usize>(), expected);
        let _ = &shop;
    }))
}

/// Each says another version, for which nothing newer is published.
fn kept_check_in() -> Result<Round> {
    let shop = Shop::open(IMAGE_BYTES)?;
    let mut peer = shop.peer();
    let requests = ["2.9.451", "2.9.452"].map(|version| request::check_in(&shop, version));
    let expected = expected(&peer.hear(&requests[1]), b"HTTP/1.1 200 ")?;
    let mut turn = 0;
    Ok(Box::new(move || {
        assert_eq!(peer.say(&requests[turn]), expected);
        turn ^= 1;
        let _ = &shop;
    }))
}

fn largest_check_in() -> Result<Round> {
    let shop = Shop::open(IMAGE_BYTES)?;
    let mut peer = shop.peer();
    let request = request::largest_check_in(&shop);
    // The first one is kept.
    peer.say(&request);
    let expected = expected(&peer.hear(&request), b"HTTP/1.1 200 ")?;
    Ok(Box::new(move || {
        assert_eq!(peer.say(&request), expected);
        let _ = &shop;
    }))
}

/// Up to the first bytes of the image.
fn redemption() -> Result<Round> {
    let shop = Shop::open(IMAGE_BYTES)?;
    let mut peer = shop.peer();
    let request = request::redeem(&shop.token()?, 4096);
    let expected = expected(&peer.hear(&request), b"HTTP/1.1 206 ")?;
    ensure!(expected > 4096, "{expected} bytes are not all");
    Ok(Box::new(move || {
        assert_eq!(peer.say(&request), expected);
        let _ = &shop;
    }))
}

fn dead_token() -> Result<Round> {
    let shop = Shop::open(IMAGE_BYTES)?;
    let mut peer = shop.peer();
    let token = shop.token()?;
    shop.memory.operator().revoke_token(&token)?;
    let request = request::redeem(&token, 4096);
    let expected = expected(&peer.hear(&request), b"HTTP/1.1 404 ")?;
    Ok(Box::new(move || {
        assert_eq!(peer.say(&request), expected);
        let _ = &shop;
    }))
}

fn sealing() -> Result<Round> {
    let shop = Shop::open(SEALED_BYTES + TAIL_BYTES)?;
    let request = request::redeem(&shop.token()?, SEALED_BYTES);
    let suite = Suite::new(TLS13_AES_128_GCM_SHA256)?;
    let store = answers(shop.memory.store(std::sync::Arc::new(|| {})));
    let mut tunnel = Tunnel::open(&suite, store, |work| work())?;
    let expected = tunnel.say(&request)?;
    ensure!(expected > SEALED_BYTES, "{expected} bytes are not all");
    Ok(Box::new(move || {
        let told = tunnel.say(&request).expect("TLS");
        assert_eq!(told, expected);
        let _ = &shop;
    }))
}

/// The length of an answer, which must begin so.
fn expected(answer: &[u8], start: &[u8]) -> Result<usize> {
    ensure!(answer.starts_with(start), "{}", answer.escape_ascii());
    Ok(answer.len())
}

const IMAGE_BYTES: usize = 64 * 1024;
const SEALED_BYTES: usize = 1 << 20;
const TAIL_BYTES: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    /// What is counted must be what its name says, in the first round and in later ones.
    #[test]
    fn each_path_can_be_repeated() {
        for Path { name, rounds, make } in PATHS {
            let mut round = make().unwrap_or_else(|error| panic!("{name}: {error}"));
            (0..rounds.min(20)).for_each(|_| round());
        }
    }
}
