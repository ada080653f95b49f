//! `kill -9` at random moments of 50 concurrent downloads: nothing acknowledged is lost.

use std::io::Read;
use std::net::TcpStream;
use std::path::Path;
use std::sync::mpsc::{Sender, channel};
use std::thread::{self, JoinHandle};

use crate::admin;
use crate::device::{Device, image};
use crate::program::{Data, Server, text};

const DOWNLOADS: u32 = 50;
const IMAGE_BYTES: usize = 2 << 20;
/// What stands behind the claim (docs/token.md).
const TAIL_BYTES: usize = 4096;

/// 10 kills, or as many as `OTTER_KILLS` says.
#[test]
fn kills_lose_nothing_that_was_acknowledged() {
    let kills = std::env::var("OTTER_KILLS").ok().and_then(|n| n.parse().ok()).unwrap_or(10);
    let data = Data::new();
    let image = image(IMAGE_BYTES, 3);
    let mut server = data.serve();
    let (owner, key) = admin::owner_with_key(&server.admin);
    for n in 0..DOWNLOADS {
        Device::nth(server.http, &owner, &key, n).check_in("1.0.0");
    }
    let target = format!("/releases?owner={owner}&all=true&version=1.1.0&platform=arduino");
    admin::json(&server.admin, "POST", &target, &image);

    let mut random = Random(seed());
    let mut registered = DOWNLOADS;
    let mut resumed = 0;
    for kill in 0..kills {
        let device = |n| Device::nth(server.http, &owner, &key, n);
        let tokens: Vec<_> = (0..DOWNLOADS).map(|n| device(n).token()).collect();
        let (reached, reaches) = channel();
        let downloads: Vec<_> = tokens
            .iter()
            .zip(0..)
            .map(|(token, n)| {
                // Some get all of it, some lose the connection on the way.
                let pause_at = random.below(IMAGE_BYTES as u64 + IMAGE_BYTES as u64 / 4) as usize;
                start(device(n), token.clone(), pause_at, reached.clone())
            })
            .collect();
        let registrar = register(device(0), registered);
        for _ in 0..random.below(u64::from(DOWNLOADS)) {
            reaches.recv().expect("downloads go on");
        }
        server.kill();
        let parts: Vec<Vec<u8>> =
            downloads.into_iter().map(|thread| thread.join().expect("read")).collect();
        registered = registrar.join().expect("counted");

        server = data.serve();
        let device = |n| Device::nth(server.http, &owner, &key, n);
        for ((part, token), n) in parts.iter().zip(&tokens).zip(0..) {
            resumed += u32::from(check(&device(n), token, part, &image));
        }
        assert_known(&server.admin, registered);
        assert_eq!(device(registered - 1).check_in("1.0.0")["status"], "OK", "kill {kill}");
    }
    assert!(resumed > 0, "no download was ever cut off: the test tests nothing");
    eprintln!("{kills} kills, {resumed} downloads resumed, {registered} devices");
    finish(&data, server, &owner);
}

/// What a connection that the server's end cut off had received.
fn start(
    device: Device,
    token: String,
    pause_at: usize,
    reached: Sender<()>,
) -> JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Ok(mut stream) = device.request_download(&token, 0) {
            read(&mut stream, &mut bytes, pause_at);
            // The main thread may have counted enough already.
            let _ = reached.send(());
            read(&mut stream, &mut bytes, usize::MAX);
        }
        crate::device::Answer::parse(bytes).map(|answer| answer.body).unwrap_or_default()
    })
}

/// Reads until there are `most` bytes, the end, or a reset.
fn read(stream: &mut TcpStream, bytes: &mut Vec<u8>, most: usize) {
    let mut buffer = [0; 8192];
    while bytes.len() < most {
        match stream.read(&mut buffer) {
            Ok(0) | Err(_) => return,
            Ok(n) => bytes.extend_from_slice(&buffer[..n]),
        }
    }
}

/// Registers one device after the other from number `from` on until the server is gone; returns
/// the number after the last one that was acknowledged.
fn register(like: Device, from: u32) -> JoinHandle<u32> {
    thread::spawn(move || {
        let mut next = from;
        loop {
            let device = Device::nth(like.server, &like.owner, &like.key, next);
            match device.register("1.0.0") {
                Some(answer) if answer.text().contains("\"success\":true") => next += 1,
                Some(_) | None => return next,
            }
        }
    })
}

/// Spent tokens stay spent, unspent ones complete the image; says whether this one did.
fn check(device: &Device, token: &str, part: &[u8], image: &[u8]) -> bool {
    assert!(image.starts_with(part), "what came is a beginning of the image");
    let rest = device.download(token, part.len().min(image.len() - 1));
    let before_tail = part.len() < image.len() - TAIL_BYTES;
    match rest.status {
        200 | 206 => {
            assert!(part.len() < image.len(), "a whole image spends its token");
            assert!(part.len() <= image.len() - TAIL_BYTES, "so does any byte of its tail");
            // An empty part is asked for from the start, which is no range.
            assert!([part, &rest.body].concat() == image, "the parts make up the image");
            assert_eq!(device.download(token, 0).status, 404, "now it is spent");
            true
        }
        404 => {
            assert!(!before_tail, "unspent, and refused after {} bytes", part.len());
            assert_eq!(rest.text(), "OTT_UPDATE_NOT_FOUND");
            false
        }
        status => panic!("{status}: {}", rest.text()),
    }
}

/// Are all devices there that were acknowledged?
fn assert_known(socket: &Path, registered: u32) {
    let mut after = String::new();
    let mut found = 0;
    loop {
        let page = admin::json(socket, "GET", &format!("/devices?limit=1000{after}"), b"");
        let page = page.as_array().expect("a list");
        found += page.len();
        let Some(last) = page.last() else { break };
        after = format!("&after={}", text(last, "udid"));
    }
    // One more may have been registered without an answer.
    let registered = registered as usize;
    assert!((registered..=registered + 1).contains(&found), "{found} of {registered}");
}

fn finish(data: &Data, server: Server, owner: &str) {
    assert_eq!(data.json(&["release", "list", "--owner", owner]).as_array().map(Vec::len), Some(1));
    assert!(server.stop().status.success());
}

fn seed() -> u64 {
    let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| u64::from(std::process::id()));
    eprintln!("SEED={seed} plays this again, as far as threads do");
    seed
}

struct Random(u64);

impl Random {
    /// Below `bound`, by xorshift.
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}
