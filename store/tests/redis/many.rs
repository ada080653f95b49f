//! Many servers on one Redis are one service.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use otter_protocol::{Answer, ApiKey, DeviceId, Identify, KeyStanding, Mac, Query, Standing};
use otter_store::{DeviceChange, DeviceFilter, Target};
use otter_tests::redis::RedisServer;

use crate::common::{Bench, Desk, Redeemed, START_MS, alias, check_in, recording};
use crate::life::{Home, options};

fn three(server: &RedisServer) -> [Bench; 3] {
    [(); 3].map(|()| Bench::on_redis(options(server.url())))
}

/// Runs this on four threads of each server at once.
fn at_once(servers: &[Bench; 3], run: impl Fn(&mut Desk) + Sync) {
    thread::scope(|scope| {
        for bench in servers.iter().cycle().take(12) {
            let (mut desk, run) = (bench.another_desk(), &run);
            scope.spawn(move || run(&mut desk));
        }
    });
}

fn standing(desk: &mut Desk, query: Query) -> Standing {
    let answer = desk.ask(query);
    let Answer::Standing(standing) = answer else { panic!("{answer:?}") };
    standing
}

#[test]
fn one_of_ten_thousand_claims_is_given() {
    let server = RedisServer::start();
    let mut servers = three(&server);
    let home = Home::new(&mut servers[0], 'a');
    for _ in 0..2 {
        let token = home.token(&mut servers[0]);
        let (given, asked) = (AtomicU64::new(0), AtomicU64::new(0));
        at_once(&servers, |desk| {
            let answers = desk.ask_all(vec![Query::Claim { token }; 834]);
            asked.fetch_add(answers.len() as u64, Ordering::Relaxed);
            for answer in answers {
                let Answer::Claimed(is_given) = answer else { panic!("{answer:?}") };
                given.fetch_add(u64::from(is_given), Ordering::Relaxed);
            }
        });
        assert_eq!(given.into_inner(), 1);
        assert!(asked.into_inner() > 10_000);
    }
}

#[test]
fn a_mac_is_registered_once_by_however_many() {
    let server = RedisServer::start();
    let servers = three(&server);
    let (owner, _) = servers[0].owner('a');
    for n in 0..20 {
        let mac = Mac::parse(&format!("5CCF7F0000{n:02X}"));
        let ids = std::sync::Mutex::new(Vec::<DeviceId>::new());
        at_once(&servers, |desk| {
            let said = otter_protocol::CheckIn { mac, ..check_in() };
            let record = Query::Record(Box::new(recording(owner, None, Some(said))));
            for answer in desk.ask_all(vec![record; 3]) {
                let Answer::Recorded(Some(recorded)) = answer else { panic!("{answer:?}") };
                ids.lock().expect("no panic").push(recorded.device);
            }
        });
        let mut ids = ids.into_inner().expect("no panic");
        assert_eq!(ids.len(), 36);
        ids.dedup();
        assert_eq!(ids.len(), 1, "{n}: {ids:?}");
    }
    let filter = DeviceFilter { limit: 1000, ..DeviceFilter::default() };
    assert_eq!(servers[1].operator.devices(&filter).expect("a page").len(), 20);
    assert_eq!(servers[2].operator.stats().devices, 20);
}

#[test]
fn what_one_server_did_holds_on_all_at_once() {
    let server = RedisServer::start();
    let mut servers = three(&server);
    let home = Home::new(&mut servers[0], 'a');
    for round in 0..30_u8 {
        let [a, b, c] = &mut servers;
        let key = a.operator.create_key(&home.owner, "new").expect("a key");
        let asking = Home { key: key.key, ..home }.identify();
        assert_eq!(standing(&mut b.desk, asking.clone()).key, KeyStanding::Valid);
        a.operator.revoke_key(&key.hash).expect("revoked");
        assert_eq!(standing(&mut b.desk, asking.clone()).key, KeyStanding::Wrong);
        assert_eq!(standing(&mut c.desk, asking).key, KeyStanding::Wrong);

        let release = c.publish(home.owner, Target::All, &[round]).offer.release;
        let newest = standing(&mut b.desk, home.identify()).newest.map(|offer| offer.release);
        assert_eq!(newest, Some(release));
        let token = home.token(b);
        assert!(matches!(b.redeem(token), Redeemed::Nothing), "its image is elsewhere");
        a.operator.withdraw(release).expect("withdrawn");
        let newest = standing(&mut b.desk, home.identify()).newest.map(|offer| offer.release);
        assert_ne!(newest, Some(release));
        a.operator.revoke_token(&token).expect("revoked");
        assert_eq!(c.redeem(token), Redeemed::Unknown);
    }
}

#[test]
fn keys_are_made_and_revoked_by_all_without_losing_any() {
    let server = RedisServer::start();
    let servers = three(&server);
    let (owner, _) = servers[0].owner('a');
    thread::scope(|scope| {
        for (number, bench) in servers.iter().cycle().take(6).enumerate() {
            let operator = bench.operator.clone();
            scope.spawn(move || {
                for n in 0..10 {
                    let alias = format!("{number}.{n}");
                    let key = operator.create_key(&owner, &alias).expect("a key");
                    if n % 2 == 1 {
                        operator.revoke_key(&key.hash).expect("revoked");
                    }
                }
            });
        }
    });
    let mut left: Vec<_> = servers[2]
        .operator
        .keys(Some(&owner))
        .expect("keys")
        .into_iter()
        .map(|k| k.alias)
        .collect();
    left.sort();
    let mut expected = vec!["a key".to_owned()];
    expected.extend((0..6).flat_map(|t| (0..10).step_by(2).map(move |n| format!("{t}.{n}"))));
    expected.sort();
    assert_eq!(left, expected);
}

#[test]
fn what_thinx_writes_holds_at_once_and_stays_as_it_is() {
    let server = RedisServer::start();
    let mut servers = three(&server);
    let home = Home::new(&mut servers[0], 'a');
    let name = format!("ak:{}", home.owner);
    let text = "88eb20839c1d8bf43819818b75a25cef3244c28e77817386b7b73b043193cef4";
    let key = ApiKey::parse(text.as_bytes()).expect("a key");
    let asking = Home { key, ..home }.identify();
    let [a, b, _] = &mut servers;
    assert_eq!(standing(&mut b.desk, asking.clone()).key, KeyStanding::Wrong);
    // As `APIKey.js` does: with fields of its own, and numbers that JSON does not bound.
    let entry = format!(
        r#"{{"key":"{text}","hash":"irrelevant","alias":"Default \u017elu\u0165",
            "x":{{"big":12345678901234567890,"half":0.1,"none":null}}}}"#
    );
    server.call(&["SET", &name, &format!("[{entry}]")]);
    assert_eq!(standing(&mut b.desk, asking.clone()).key, KeyStanding::Valid);
    assert_eq!(standing(&mut b.desk, home.identify()).key, KeyStanding::Wrong, "it is gone");
    let ours = a.operator.create_key(&home.owner, "ours").expect("a key");
    let kept: serde_json::Value = read(&server, &name);
    let expected: serde_json::Value = serde_json::from_str(&entry).expect("JSON");
    assert_eq!(kept[0], expected);
    assert_eq!(kept[1]["alias"], "ours");
    assert_eq!(standing(&mut b.desk, asking.clone()).key, KeyStanding::Valid);
    b.operator.revoke_key(&ours.hash).expect("revoked");
    assert_eq!(read(&server, &name), serde_json::json!([expected]));
    // Ours takes back THiNX' key as well.
    let theirs = b.operator.keys(Some(&home.owner)).expect("keys")[0].hash;
    a.operator.revoke_key(&theirs).expect("revoked");
    assert_eq!(standing(&mut b.desk, asking).key, KeyStanding::UnknownOwner);
    // An owner whom only THiNX knows.
    let other = "d".repeat(64);
    server.call(&["SET", &format!("ak:{other}"), &format!("[{entry}]")]);
    let owner = otter_protocol::OwnerId::parse(&other);
    let asking = Query::Identify(Identify { owner, key, device: None, mac: None });
    assert_eq!(standing(&mut servers[2].desk, asking).key, KeyStanding::Valid);
    assert_eq!(servers[0].operator.owners().expect("owners").len(), 2);
}

fn read(server: &RedisServer, key: &str) -> serde_json::Value {
    serde_json::from_str(&server.call(&["GET", key]).text()).expect("JSON")
}

#[test]
fn what_a_failover_forgot_is_forgotten_by_all() {
    let server = RedisServer::start();
    let mut servers = three(&server);
    let home = Home::new(&mut servers[0], 'a');
    let [a, b, _] = &mut servers;
    let first = a.publish(home.owner, Target::All, b"first").offer.release;
    let names = ["own", "rels"].map(|name| format!("{name}:{{ak:{}}}", home.owner));
    let [own, rels] = &names;
    server.call(&["COPY", own, "own:aside"]);
    server.call(&["COPY", rels, "rels:aside"]);
    let lost = a.publish(home.owner, Target::All, b"lost").offer.release;
    let newest = |b: &mut Bench| standing(&mut b.desk, home.identify()).newest.map(|o| o.release);
    assert_eq!(newest(b), Some(lost));
    // What comes of it where a replica takes over that had not heard of it.
    server.call(&["COPY", "own:aside", own, "REPLACE"]);
    server.call(&["COPY", "rels:aside", rels, "REPLACE"]);
    let next = a.publish(home.owner, Target::All, b"next").offer.release;
    assert_eq!(newest(b), Some(next));
    a.operator.withdraw(next).expect("withdrawn");
    assert_eq!(newest(b), Some(first));
}

#[test]
fn what_a_failover_forgot_of_a_device_is_forgotten_even_where_the_clock_stands_still() {
    let server = RedisServer::start();
    let mut servers = [(); 2].map(|()| {
        let mut options = options(server.url());
        options.clock = Some(Arc::new(|| START_MS));
        Bench::on_redis(options)
    });
    let home = Home::new(&mut servers[0], 'a');
    let [a, b] = &mut servers;
    let key = format!("dev:{{{}}}", home.device);
    server.call(&["COPY", &key, "aside"]);
    let name = |bench: &Bench, text: &str| {
        let change = DeviceChange { alias: Some(alias(text)), ..DeviceChange::default() };
        bench.operator.set_device(home.device, change).expect("a known device");
    };
    name(a, "lost");
    assert_eq!(b.known(home.owner, home.key, home.device).alias, alias("lost"));
    // What comes of it where a replica takes over that had not heard of it.
    server.call(&["COPY", "aside", &key, "REPLACE"]);
    name(a, "next");
    assert_eq!(b.known(home.owner, home.key, home.device).alias, alias("next"));
}
