//! Clients that are rude, slow, lost, or come only to look.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use otter_tests::Random;
use otter_tests::redis::wait_for;
use rustls::version::{TLS12, TLS13};

use super::client::{dial, reset, until_closed};
use super::small::probe;
use super::{RUNTIMES, Setting, Stage};
use crate::device::{Answer, Device};
use crate::site::wanted;

const HEALTH: &str = "GET / HTTP/1.1\r\nHost: otter\r\nConnection: close\r\n\r\n";
/// Beyond it each of the second and third thousand of probes would have kept a kilobyte.
const GROWTH_KIB_MAX: u64 = 2000;

/// It answers, by TLS.
fn assert_healthy(stage: &Stage) {
    let answer = stage.client().ask(stage.https(), HEALTH);
    assert_eq!(answer.text(), "{\"healthcheck\":true}");
}

/// With 60 ClientHellos in which bits are flipped, or as many as `OTTER_FLIPS` says.
#[test]
fn garbage_ends_its_connection_and_nothing_else() {
    for runtime in RUNTIMES {
        let stage = Setting { runtime, ..Setting::default() }.start();
        let hello = stage.client().hello();
        let mut random = Random::new(wanted("SEED", 4));
        let mut all = vec![
            vec![0; 300_000],
            vec![0xff; 20_000],
            b"\x80\x2e\x01\x00\x02\x00\x15\x00\x00\x00\x10".to_vec(),
            [&b"\x16\x03\x01\xff\xff\x01"[..], &[0; 70_000]].concat(),
            b"\x16\x03\x01\x00\x04\x01\xff\xff\xff".repeat(10_000),
            // The beginning of a message, and then something else.
            b"\x16\x03\x03\x00\x05\x01\x00\x10\x00\x03\x15\x03\x03\x00\x02\x01\0".to_vec(),
            b"\x16\x03\x03\x00\x00".repeat(100),
            b"\x15\x03\x03\x00\x02\x02\x28".to_vec(),
            b"SSH-2.0-OpenSSH_9.2\r\n".to_vec(),
            [&hello[..], &hello[..]].concat(),
        ];
        all.extend([1, 4, 5, 6, 11, 43, hello.len() - 1].map(|end| hello[..end].to_vec()));
        let flips = wanted("OTTER_FLIPS", 60);
        all.extend((0..flips).map(|_| flipped(&hello, &mut random)));
        for garbage in all {
            say_and_go(&dial(stage.https(), None), &garbage);
        }
        // The second part of a handshake, too.
        for n in 0..flips / 2 {
            let tcp = dial(stage.https(), None);
            let client = stage.client().of([&TLS12, &TLS13][n as usize % 2]);
            let second = client.second_flight(&tcp);
            say_and_go(&tcp, &flipped(&second, &mut random));
        }
        assert_healthy(&stage);
        assert!(stage.handshakes("malformed") > 5);
        stage.end();
    }
}

fn say_and_go(tcp: &TcpStream, bytes: &[u8]) {
    // It may be hung up on before it has said everything.
    let _ = { tcp }.write_all(bytes);
    let _ = tcp.shutdown(Shutdown::Write);
    until_closed(tcp);
}

/// The same but for some bits.
fn flipped(bytes: &[u8], random: &mut Random) -> Vec<u8> {
    let mut flipped = bytes.to_vec();
    for _ in 0..=random.below(3) {
        let at = random.below(flipped.len() as u64) as usize;
        flipped[at] ^= 1 << random.below(8);
    }
    flipped
}

#[test]
fn records_that_are_cut_or_forged_are_no_requests() {
    for runtime in RUNTIMES {
        let stage = Setting { runtime, ..Setting::default() }.start();
        let request = stage.device(1).check_in_request("1.0.0");
        for version in [&TLS12, &TLS13] {
            for kind in 0..4 {
                let mut line = stage.client().of(version).connect(stage.https());
                let mut sealed = line.sealed(&request);
                match kind {
                    0 => sealed.truncate(sealed.len() / 2),
                    1 => sealed.truncate(3),
                    2 => sealed[20] ^= 1,
                    _ => sealed = b"\x17\x03\x03\xff\xff".repeat(1000),
                }
                let _ = line.tcp().write_all(&sealed);
                let _ = line.tcp().shutdown(Shutdown::Write);
                // Tickets may come, an alert may, but nothing of an answer.
                let read = line.rest().unwrap_or_default();
                assert!(read.is_empty(), "{runtime} {kind}: {}", read.escape_ascii());
            }
        }
        let checked = |outcome| format!("otter_check_ins_total{{outcome=\"{outcome}\"}}");
        assert_eq!(stage.metric(&checked("registered")), 0);
        assert_healthy(&stage);
        stage.end();
    }
}

#[test]
fn bytes_one_by_one_new_keys_and_a_side_closed_early_are_no_mistakes() {
    for runtime in RUNTIMES {
        let stage = Setting { runtime, ..Setting::default() }.start();
        for (version, n) in [(&TLS12, 1), (&TLS13, 2)] {
            let request = stage.device(n).check_in_request("1.0.0");
            let slow = stage.client().of(version).biting(1);
            let answer = slow.ask(stage.https(), &request);
            assert!(answer.text().contains("\"success\":true"), "{runtime}: {}", answer.text());

            let mut line = stage.client().of(version).connect(stage.https());
            line.send(&Device::download_request(&stage.token(n), 0));
            line.finish();
            let answer = line.answer().expect("an answer and its end");
            assert!(answer.status == 200 && answer.body == stage.image, "{runtime}");
        }
        let mut line = stage.client().of(&TLS13).connect(stage.https());
        line.change_keys();
        line.send(&Device::download_request(&stage.token(1), 0));
        let begun = line.read(1000);
        line.change_keys();
        let answer = Answer::parse([begun, line.rest().expect("the rest")].concat());
        assert!(answer.is_some_and(|answer| answer.body == stage.image), "{runtime}");
        stage.end();
    }
}

#[test]
fn each_port_says_if_it_is_spoken_to_wrongly() {
    for runtime in RUNTIMES {
        let stage = Setting { runtime, ..Setting::default() }.start();
        let plain = dial(stage.https(), None);
        (&plain).write_all(HEALTH.as_bytes()).expect("sent");
        let answer = Answer::parse(until_closed(&plain)).expect("an answer");
        assert_eq!(answer.status, 400, "{}", answer.head);
        assert_eq!(answer.text(), "{\"success\":false,\"response\":\"https_required\"}");
        assert_eq!(stage.handshakes("plain_http"), 1);

        let secret = dial(stage.server.http, None);
        (&secret).write_all(&stage.client().hello()).expect("sent");
        assert!(until_closed(&secret).is_empty(), "no answer that a TLS client could not read");
        stage.end();
    }
}

#[test]
fn who_does_not_come_to_the_end_of_a_handshake_is_closed() {
    for runtime in RUNTIMES {
        let variables = &[("OTTER_TLS_HANDSHAKE_TIMEOUT_S", "1")];
        let stage = Setting { runtime, variables, ..Setting::default() }.start();
        let silent = dial(stage.https(), None);
        let mut trickling = dial(stage.https(), None);
        trickling.set_read_timeout(Some(Duration::from_millis(20))).expect("a timeout");
        let hello = stage.client().hello();
        let mut bytes = hello.iter();
        let end = loop {
            match trickling.read(&mut [0]) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    let byte = bytes.next().expect("closed before all was said");
                    let _ = trickling.write_all(&[*byte]);
                }
                end => break end,
            }
        };
        assert!(!matches!(end, Ok(1..)), "no answer: {end:?}");
        assert!(until_closed(&silent).is_empty());
        // The server's part, then the end; on a busy machine the end alone.
        wait_for("the server's part", || {
            let half_way = dial(stage.https(), None);
            (&half_way).write_all(&hello).expect("sent");
            (!until_closed(&half_way).is_empty()).then_some(())
        });
        let timed_out = || (stage.handshakes("timed_out") >= 3).then_some(());
        wait_for("three that timed out", timed_out);
        stage.until("otter_connections_open", 0);
        wait_for("a handshake in time", || stage.client().try_connect(stage.https()).ok());
        stage.end();
    }
}

#[test]
fn probes_leave_nothing_behind() {
    for runtime in RUNTIMES {
        let more = &["--workers", "2"];
        let stage = Setting { runtime, more, ..Setting::default() }.start();
        look_and_go(&stage);
        let (files, memory) = (descriptors(&stage), memory_kib(&stage));
        for _ in 0..2 {
            look_and_go(&stage);
        }
        let grown = memory_kib(&stage).saturating_sub(memory);
        eprintln!("{runtime}: {files} descriptors, {memory} KiB and {grown} more");
        assert!(descriptors(&stage) <= files, "{runtime}");
        assert!(grown <= GROWTH_KIB_MAX, "{runtime}: {grown} KiB more than {memory}");
        assert_healthy(&stage);
        assert_eq!(stage.handshakes("malformed"), 0, "{runtime}");
        let log = stage.end();
        let events = log.lines().filter(|line| line.contains(" INFO ")).count();
        assert_eq!(events, 3, "ready, draining, stopped: {log}");
    }
}

/// A thousand ClientHellos and resets: some wait for the answer, some do not; half of them ask as
/// an ESP8266 does.
fn look_and_go(stage: &Stage) {
    let hellos = [probe(), stage.client().hello()];
    for n in 0..1000 {
        let mut tcp = TcpStream::connect(stage.https()).expect("a connection");
        tcp.write_all(&hellos[n % 2]).expect("sent");
        if n % 4 < 2 {
            tcp.read_exact(&mut [0; 5]).expect("an answer");
        }
        reset(tcp);
    }
    stage.until("otter_connections_open", 0);
}

/// Once the connection of the scrape before is gone, too.
fn descriptors(stage: &Stage) -> usize {
    let count = || {
        let path = format!("/proc/{}/fd", stage.server.pid());
        let targets = fs::read_dir(path).expect("it runs").flatten();
        targets.filter_map(|entry| fs::read_link(entry.path()).ok()).count()
    };
    let mut last = usize::MAX;
    wait_for("as many descriptors as a moment ago", || {
        let now = count();
        (std::mem::replace(&mut last, now) == now).then_some(now)
    })
}

fn memory_kib(stage: &Stage) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", stage.server.pid()));
    let status = status.expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("memory");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}
