//! A flood of handshakes.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use otter_tests::redis::wait_for;
use rustls::version::{TLS12, TLS13};

use super::client::reset;
use super::{RUNTIMES, Setting, Stage};
use crate::device::{Answer, Device};
use crate::site::alone;

const FLOODERS: usize = 4;
const DOWNLOADS: u32 = 20;
/// Handshakes of the flood before anybody may end.
const FLOOD: u64 = 500;

#[test]
fn a_flood_of_handshakes_starves_nobody() {
    let _turn = alone();
    for runtime in RUNTIMES {
        let (image_bytes, more) = (1 << 20, &["--workers", "2"]);
        let stage = Setting { runtime, image_bytes, more, ..Setting::default() }.start();
        let lines: Vec<_> = (0..DOWNLOADS)
            .map(|n| {
                let version = [&TLS12, &TLS13][n as usize % 2];
                let mut line = stage.client().of(version).narrow().connect(stage.https());
                line.send(&Device::download_request(&stage.token(n), 0));
                (line.read(1000), line)
            })
            .collect();
        let (is_over, shaken) = (AtomicBool::new(false), AtomicU64::new(0));
        let (stage, is_over, shaken) = (&stage, &is_over, &shaken);
        thread::scope(|scope| {
            for _ in 0..FLOODERS {
                scope.spawn(|| flood(stage, is_over, shaken));
            }
            wait_for("a flood", || (shaken.load(Ordering::Relaxed) > FLOOD).then_some(()));
            let downloads: Vec<_> = lines
                .into_iter()
                .map(|(begun, mut line)| {
                    scope.spawn(move || {
                        let rest = line.rest().expect("the rest and its end");
                        Answer::parse([begun, rest].concat()).expect("an answer").body
                    })
                })
                .collect();
            for n in 0..100 {
                let answer = stage.device(n % DOWNLOADS).register("1.0.0").expect("an answer");
                assert_eq!(answer.status, 200, "{runtime}: {}", answer.head);
            }
            for download in downloads {
                let image = download.join().expect("a download");
                assert!(image == stage.image, "{runtime}: {} bytes", image.len());
            }
            is_over.store(true, Ordering::Relaxed);
        });
        eprintln!("{runtime}: {} handshakes of the flood", shaken.load(Ordering::Relaxed));
    }
}

/// Opens handshakes, and goes away once the server has done its part.
fn flood(stage: &Stage, is_over: &AtomicBool, shaken: &AtomicU64) {
    let hello = stage.client().hello();
    while !is_over.load(Ordering::Relaxed) {
        let Ok(mut tcp) = TcpStream::connect(stage.https()) else { continue };
        if tcp.write_all(&hello).is_ok() && tcp.read_exact(&mut [0; 100]).is_ok() {
            shaken.fetch_add(1, Ordering::Relaxed);
        }
        reset(tcp);
    }
}
