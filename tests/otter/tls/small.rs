//! Devices with little memory: short records, the probe of ESP8266 devices, and their way of coming
//! back.

use std::io::{ErrorKind, Read, Write};

use rustls::version::{TLS12, TLS13};

use super::client::{dial, until_closed};
use super::openssl::s_client;
use super::{RUNTIMES, Setting, Stage};
use crate::device::{Answer, Device};

#[test]
fn who_has_little_memory_gets_the_whole_image() {
    for runtime in RUNTIMES {
        let listen = &["", ",max_fragment_size=512", ",max_fragment_size=4096"];
        let stage = Setting { runtime, listen, ..Setting::default() }.start();
        for (place, bytes) in [(1, 512), (2, 4096)] {
            for (version, n) in [(&TLS12, 1), (&TLS13, 2)] {
                let small = stage.client().of(version).narrow().with_buffer(bytes);
                let https = stage.server.https[place];
                let answer = small.ask(https, &stage.device(n).check_in_request("1.0.0"));
                assert!(answer.text().contains("\"success\":true"), "{}", answer.text());
                let mut line = small.connect(https);
                line.send(&Device::download_request(&stage.token(n), 0));
                let answer = line.answer().expect("short records and an end");
                assert!(answer.status == 200 && answer.body == stage.image, "{runtime} {bytes}");
                let longest = line.longest();
                assert!((bytes + 1..=bytes + 29).contains(&longest), "{runtime}: {longest}");

                // The same device at a port for those with memory.
                let mut line = small.with_buffer(4096).connect(stage.https());
                line.send(&Device::download_request(&stage.token(n), 0));
                let error = line.answer().expect_err("a record is too long");
                assert_eq!(error.kind(), ErrorKind::OutOfMemory, "{error}");
            }
        }
        stage.end();
    }
}

/// What the ESP8266 core sends before it chooses its buffers (docs/wire.md 2.5).
pub(super) fn probe() -> Vec<u8> {
    let constant: Vec<u8> = (0x01..=0x08).chain(0x11..=0x18).collect();
    let suites = [0xcc_a9, 0xcc_a8, 0xc0_2b, 0xc0_2f, 0xc0_2c, 0xc0_30_u16];
    let mut body = vec![3, 3];
    body.extend(constant.iter().chain(&constant));
    // No session; the suites; no compression.
    body.extend([0, 0, 2 * suites.len() as u8]);
    body.extend(suites.iter().flat_map(|suite| suite.to_be_bytes()));
    body.extend([1, 0]);
    let extensions = [
        &[0, 13, 0, 6, 0, 4, 4, 3, 4, 1][..],
        &[0, 10, 0, 4, 0, 2, 0, 23],
        &[0, 11, 0, 2, 1, 0],
        &[0, 1, 0, 1, FRAGMENTS_OF_512],
    ]
    .concat();
    body.extend([0, extensions.len() as u8]);
    body.extend(extensions);
    let message = [&[1, 0, 0, body.len() as u8], &body[..]].concat();
    [&[22, 3, 3, 0, message.len() as u8], &message[..]].concat()
}

#[test]
fn an_esp8266_asks_for_short_records_and_comes_back_by_its_session_id() {
    for runtime in RUNTIMES {
        let stage = Setting { runtime, ..Setting::default() }.start();
        let device = stage.device(1);
        let session = stage.data.beside("session").display().to_string();
        let like_bearssl = [
            &["-ign_eof", "-noservername", "-tls1_2", "-no_ticket", "-maxfraglen", "512"][..],
            &["-cipher", "ECDHE-ECDSA-CHACHA20-POLY1305"],
        ]
        .concat();
        for (round, way) in [["-sess_out", &session], ["-sess_in", &session]].iter().enumerate() {
            ask_for_short_records(&stage);
            let args = [&like_bearssl[..], way].concat();
            let request = device.check_in_request("1.0.0");
            let said = s_client(&stage.ecdsa(), stage.https(), &args, &request).text();
            assert!(said.contains("\"success\":true"), "{said}");
            let kind = ["New, TLSv1.2", "Reused, TLSv1.2"][round];
            assert!(said.contains(kind), "{runtime}: {said}");
            assert!(said.contains("Cipher is ECDHE-ECDSA-CHACHA20-POLY1305"), "{said}");
        }
        let args = [&["-quiet"], &like_bearssl[1..], &["-sess_in", &session]].concat();
        let request = Device::download_request(&device.token(), 0);
        let said = s_client(&stage.ecdsa(), stage.https(), &args, &request);
        let answer = Answer::parse(said.stdout).expect("an answer");
        assert!(answer.status == 200 && answer.body == stage.image, "{}", said.stderr);

        let probed = "otter_tls_handshakes_total{result=\"probed\"}";
        stage.until(probed, 2);
        assert_eq!((stage.handshakes("full"), stage.handshakes("resumed")), (1, 2), "{runtime}");
        let not_counted = ["nothing_in_common", "peer_refused", "malformed", "abandoned"];
        assert!(not_counted.iter().all(|result| stage.handshakes(result) == 0), "{runtime}");
        stage.end();
    }
}

/// Plays the connection before the connection.
fn ask_for_short_records(stage: &Stage) {
    let mut tcp = dial(stage.https(), Some(1));
    tcp.write_all(&probe()).expect("sent");
    let mut header = [0; 5];
    tcp.read_exact(&mut header).expect("a record");
    assert_eq!(header[..3], [22, 3, 3], "a handshake message");
    let mut message = vec![0; usize::from(header[4])];
    tcp.read_exact(&mut message).expect("all of it");
    assert_eq!(message[0], 2, "ServerHello");
    assert!(message.ends_with(&[0, 5, 0, 1, 0, 1, FRAGMENTS_OF_512]), "{message:?}");
    tcp.write_all(&[21, 3, 3, 0, 2, 1, 90, 21, 3, 3, 0, 2, 1, 0]).expect("sent");
    assert!(until_closed(&tcp).is_empty(), "the server has no more to say");
}

const FRAGMENTS_OF_512: u8 = 1;
