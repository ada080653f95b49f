//! The load of [`otter_tests::load`], tried on a server that it must find right, and on others.

use std::collections::HashSet;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::thread;
use std::time::{Duration, Instant};

use otter_mio::{Handle, Options, Server};
use otter_protocol::DeviceId;
use otter_store::{Embedded, EmbeddedOptions};
use otter_tests::load::{Acknowledged, Class, Load, Plan};

fn serve(store: &Embedded) -> (SocketAddr, Handle) {
    let mut options = Options::new(([127, 0, 0, 1], 0).into());
    options.workers = 1;
    let server = Server::bind(options).expect("a port");
    let address = server.local_addr();
    (address, server.spawn(|_, wake| store.store(wake)).expect("a thread"))
}

fn assert_known(store: &Embedded, device: &Acknowledged) {
    let udid = DeviceId::parse(&device.udid).expect("a UUID");
    let row = store.operator().device(udid).expect("readable").expect("known");
    assert_eq!(row.mac.expect("a MAC").to_string().replace(':', ""), device.mac);
    let version = row.version.expect("a version");
    let may_be = *version == *device.version
        || device.versions_unknown.iter().any(|unknown| **unknown == *version);
    assert!(may_be, "{version} of {device:?}");
}

#[test]
fn a_server_that_stops_and_starts_again_is_right_throughout() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = Embedded::open(directory.path(), EmbeddedOptions::default()).expect("a store");
    let owner = store.operator().create_owner(None).expect("an owner");
    let key = store.operator().create_key(&owner, "load").expect("a key").key;
    let (address, handle) = serve(&store);
    let key = key.text();
    let key = std::str::from_utf8(&key).expect("digits");
    let plan = Plan::new(vec![address], owner.as_str(), key);
    let load = Load::start(plan);
    load.wait_for_right(200);

    handle.shutdown();
    handle.join().expect("drained");
    let stopped = Instant::now();
    let ended = load.ended();
    otter_tests::redis::wait_for("check-ins that fail", || {
        (load.ended() > ended + 50).then_some(())
    });
    let (address, handle) = serve(&store);
    load.redirect(0, address);
    let back = Instant::now();
    let _ = load.wait_until_recovered(back);
    let report = load.stop();
    handle.shutdown();
    handle.join().expect("drained");

    eprintln!("{report}");
    report.assert_right();
    assert!(report.count(|class| *class == Class::Closed) >= 50, "{report}");
    assert!(report.count(|class| *class == Class::Known) > 100, "{report}");
    let recovery = report.recovery_after(stopped).expect("it recovered");
    assert!(recovery >= back - stopped, "{recovery:?}");
    let udids: HashSet<_> = report.acknowledged.iter().map(|device| &device.udid).collect();
    assert_eq!(udids.len(), report.acknowledged.len(), "no udid twice");
    assert!(udids.len() > 50, "{report}");
    for device in &report.acknowledged {
        assert_known(&store, device);
    }
    store.close();
}

/// Answers every request with `answer`, or with silence if there is none.
fn answer_all(answer: Option<&'static str>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound");
    thread::spawn(move || {
        let mut silent = Vec::new();
        for mut stream in listener.incoming().flatten() {
            let Some(answer) = answer else {
                silent.push(stream);
                continue;
            };
            let mut request = [0; 2048];
            let _ = stream.read(&mut request);
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    address
}

#[test]
fn every_other_answer_is_told_apart() {
    let unavailable = concat!(
        "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\n",
        "Content-Length: 42\r\nRetry-After: 10\r\nConnection: close\r\n\r\n",
        r#"{"success":false,"response":"unavailable"}"#
    );
    let other = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}";
    for (answer, is_expected) in [
        (Some(unavailable), (|class| *class == Class::Unavailable) as fn(&Class) -> bool),
        (Some(other), |class| matches!(class, Class::Wrong(_))),
        (Some("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{"), |class| *class == Class::Closed),
        (None, |class| *class == Class::Silent),
    ] {
        let plan = Plan {
            patience: Duration::from_millis(200),
            threads: 1,
            ..Plan::new(vec![answer_all(answer)], "o", "k")
        };
        let load = Load::start(plan);
        otter_tests::redis::wait_for("some", || (load.ended() > 20).then_some(()));
        let report = load.stop();
        // Where the machine is busy, an answer may come too late.
        let expected = report.count(is_expected);
        let late = report.count(|class| *class == Class::Silent);
        assert!(expected > 0 && (expected + late >= report.sent.len()), "{answer:?}: {report}");
        assert!(report.acknowledged.is_empty());
        assert_eq!(report.recovery_after(report.sent[0].at), None);
    }
}
