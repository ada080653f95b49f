//! One server that dies, stops, forgets, is full, or holds what is not ours.

use std::time::{Duration, Instant};

use otter_protocol::{Answer, DeviceId, DeviceStanding, Identify, Query};
use otter_store::{OperatorError, Target};
use otter_tests::redis::{Appends, RedisOptions, RedisServer, wait_for};

use crate::common::{Bench, Redeemed, check_in, grant, recording};
use crate::life::{Home, is_away, options, wait_until_served, whole_life};

fn kept() -> RedisOptions {
    RedisOptions { appends: Appends::Always, ..RedisOptions::default() }
}

#[test]
fn a_server_that_is_killed_is_missed_quickly_and_found_again() {
    let mut server = RedisServer::start_with(kept());
    let mut patient = options(server.url());
    patient.timeout = PATIENCE;
    let mut bench = Bench::on_redis(patient);
    assert!(bench.warnings().is_empty(), "{:?}", bench.warnings());
    let home = Home::new(&mut bench, 'a');
    let token = home.token(&mut bench);
    let mut registered = Vec::new();
    for round in 0..3_u8 {
        // Whatever was acknowledged before the kill is there after it, in full flight.
        let ids =
            (0..200_u8).map(|n| DeviceId([round, n, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7]));
        let ids: Vec<_> = ids.collect();
        let record = |id: &DeviceId| {
            Query::Record(Box::new(recording(home.owner, Some(*id), Some(check_in()))))
        };
        bench.desk.submit(ids.iter().map(record).collect());
        server.kill();
        let answers = bench.desk.answers(ids.len());
        let acknowledged =
            ids.iter().zip(&answers).filter(|(_, a)| matches!(a, Answer::Recorded(Some(_))));
        registered.extend(acknowledged.map(|(id, _)| *id));
        wait_for("the outage to be seen", || bench.operator.trouble());
        let trouble = bench.operator.trouble().expect("away");
        assert!(trouble.starts_with("Redis is away: "), "{trouble}");
        let asked = Instant::now();
        for _ in 0..100 {
            assert!(is_away(&bench.desk.ask(home.identify())));
            assert!(is_away(&bench.desk.ask(home.check_in("1.0.1"))));
        }
        let refusal = bench.operator.owners().expect_err("nobody to ask");
        assert!(matches!(refusal, OperatorError::Unavailable { .. }), "{refusal}");
        assert!(asked.elapsed() < PATIENCE, "at once, not each after its timeout");
        server.restart();
        wait_until_served(&mut bench.desk, &home.identify());
        assert!(bench.operator.trouble().is_none());
    }
    for id in registered {
        assert!(bench.operator.device(id).expect("asked").is_some(), "{id} was acknowledged");
    }
    assert!(bench.claim(token) && !bench.claim(token));
    whole_life(&mut bench, 'b');
}

#[test]
fn a_server_that_is_paused_holds_nobody_up() {
    let server = RedisServer::start();
    let mut patient = options(server.url());
    patient.timeout = PATIENCE;
    let mut bench = Bench::on_redis(patient);
    let home = Home::new(&mut bench, 'a');
    let homes: Vec<_> = (0..200_u8).map(|n| Home { device: DeviceId([n; 16]), ..home }).collect();
    for home in &homes {
        let record = recording(home.owner, Some(home.device), Some(check_in()));
        bench.record(record).expect("registered");
    }
    for round in 0..3 {
        server.pause();
        let paused = Instant::now();
        // Far more than are sent at once.
        let many = homes.iter().cycle().take(20_000).map(Home::identify).collect();
        bench.desk.submit(many);
        let answers = bench.desk.answers(20_000);
        assert!(answers.iter().all(is_away));
        assert!(paused.elapsed() < PATIENCE, "after a quarter of the timeout");
        assert!(bench.operator.trouble().is_some());
        assert!(homes.iter().all(|home| is_away(&bench.desk.ask(home.check_in("late")))));
        assert!(paused.elapsed() < PATIENCE, "and then at once");
        if round == 2 {
            // Longer than the connection is kept: there is a new one afterwards.
            wait_for("the connection to be given up", || {
                (paused.elapsed() > PATIENCE * 5 / 4).then_some(())
            });
        }
        server.resume();
        wait_until_served(&mut bench.desk, &home.identify());
        // What comes late now must not be taken for the answer to something else.
        let answers = bench.desk.ask_all(homes.iter().map(Home::identify).collect());
        for (home, answer) in homes.iter().zip(answers) {
            let Answer::Standing(standing) = answer else { panic!("{answer:?}") };
            let DeviceStanding::Known(device) = standing.device else { panic!("{standing:?}") };
            assert_eq!(device.id, home.device);
        }
    }
    assert_ne!(
        home.version(&mut bench.desk).as_deref(),
        Some("late"),
        "nobody was told it is kept"
    );
}

#[test]
fn disturbances_pass() {
    let server = RedisServer::start();
    let mut bench = Bench::on_redis(options(server.url()));
    let home = Home::new(&mut bench, 'a');
    let disturbances: [&[&str]; 5] = [
        &["FUNCTION", "FLUSH"],
        &["CLIENT", "KILL", "TYPE", "normal"],
        &["CLIENT", "PAUSE", "300", "ALL"],
        &["CLIENT", "PAUSE", "300", "WRITE"],
        &["SCRIPT", "FLUSH"],
    ];
    for (number, disturbance) in disturbances.iter().enumerate() {
        // The killed connection may be the one that asks for it.
        let _ = server.client().try_call(disturbance);
        let version = format!("1.0.{number}");
        let check_in = home.check_in(&version);
        wait_until_served(&mut bench.desk, &check_in);
        assert_eq!(home.version(&mut bench.desk), Some(version));
    }
    assert!(!is_away(&bench.desk.ask(home.check_in("2.0.0"))));
    server.call(&["FUNCTION", "FLUSH"]);
    assert!(!is_away(&bench.desk.ask(home.check_in("2.0.1"))), "a lost function costs nobody");
}

#[test]
fn a_full_server_still_answers_what_only_reads() {
    let server = RedisServer::start();
    let mut bench = Bench::on_redis(options(server.url()));
    let home = Home::new(&mut bench, 'a');
    let release = bench.publish(home.owner, Target::All, b"image").offer.release;
    let token = home.token(&mut bench);
    server.call(&["CONFIG", "SET", "maxmemory", "1"]);
    assert_eq!(home.version(&mut bench.desk).as_deref(), Some("1.0.0"));
    assert!(matches!(bench.redeem(token), Redeemed::Ready { .. }));
    assert!(bench.fetch(release).is_some());
    for query in [home.check_in("2.0.0"), Query::Start { token }, Query::Claim { token }] {
        assert!(is_away(&bench.ask(query)));
    }
    let refusal = bench.operator.create_owner(None).expect_err("it is full").to_string();
    assert!(refusal.contains("OOM"), "{refusal}");
    server.call(&["CONFIG", "SET", "maxmemory", "0"]);
    assert_eq!(home.version(&mut bench.desk).as_deref(), Some("1.0.0"), "nothing was kept");
    assert!(!is_away(&bench.ask(home.check_in("2.0.0"))));
    assert!(bench.claim(token), "a claim that was refused is none");
}

#[test]
fn a_server_that_became_a_replica_still_answers_what_only_reads() {
    let server = RedisServer::start();
    let mut bench = Bench::on_redis(options(server.url()));
    let home = Home::new(&mut bench, 'a');
    let token = home.token(&mut bench);
    server.call(&["REPLICAOF", "127.0.0.1", "1"]);
    assert!(is_away(&bench.ask(Query::Claim { token })));
    // It is asked on a new connection whether it still is one; then on that for a while.
    wait_until_served(&mut bench.desk, &home.identify());
    for _ in 0..20 {
        assert!(is_away(&bench.ask(home.check_in("2.0.0"))));
        wait_until_served(&mut bench.desk, &home.identify());
    }
    server.call(&["REPLICAOF", "NO", "ONE"]);
    wait_until_served(&mut bench.desk, &home.check_in("3.0.0"));
    assert!(bench.claim(token) && !bench.claim(token));
}

/// One batch with a bad and a good question: only the bad one fails.
fn assert_only(bench: &mut Bench, bad: &[Query], good: &Home, what: &str) {
    let mut queries = bad.to_vec();
    queries.push(good.identify());
    queries.push(good.check_in("5.0.0"));
    let answers = bench.desk.ask_all(queries);
    let (bad, good) = answers.split_at(bad.len());
    assert!(bad.iter().all(is_away), "{what}: {bad:?}");
    assert!(!good.iter().any(is_away), "{what}: {good:?}");
}

#[test]
fn what_is_not_ours_concerns_nobody_else() {
    let server = RedisServer::start();
    let mut bench = Bench::on_redis(options(server.url()));
    let (bad, good) = (Home::new(&mut bench, 'a'), Home::new(&mut bench, 'b'));
    bench.publish(bad.owner, Target::All, b"image");
    let token = bad.token(&mut bench);
    let (device, owner) = (bad.device, bad.owner);
    let pointers: Vec<_> = server.call(&["KEYS", "ott:*"]).items().to_vec();
    let [pointer] = pointers.as_slice() else { panic!("{pointers:?}") };
    let identify = || vec![bad.identify()];
    let granted = Query::Record(Box::new(otter_protocol::Record {
        grant: Some(grant(None)),
        ..recording(owner, Some(device), None)
    }));
    let cases: [(String, Vec<Query>); 6] = [
        (
            format!("dev:{{{device}}}"),
            vec![bad.identify(), bad.check_in("2"), Query::Claim { token }],
        ),
        (format!("ak:{owner}"), identify()),
        (format!("own:{{ak:{owner}}}"), identify()),
        (format!("rels:{{ak:{owner}}}"), identify()),
        (
            format!("tok:{{{device}}}"),
            vec![Query::Start { token }, Query::Claim { token }, granted],
        ),
        (pointer.text(), vec![Query::Start { token }, Query::Claim { token }]),
    ];
    for (key, queries) in cases {
        server.call(&["RENAME", &key, "aside"]);
        server.call(&["RPUSH", &key, "not", "ours"]);
        // Another server, which remembers nothing.
        bench.reopen_on(options(server.url()));
        assert_only(&mut bench, &queries, &good, &key);
        server.call(&["RENAME", "aside", &key]);
        let served = bench.desk.ask_all(identify());
        assert!(!served.iter().any(is_away), "{key} is ours again");
    }
    assert!(bench.claim(token) && !bench.claim(token));
}

#[test]
fn values_that_make_no_sense_concern_nobody_else() {
    let server = RedisServer::start();
    let mut bench = Bench::on_redis(options(server.url()));
    let (bad, good) = (Home::new(&mut bench, 'a'), Home::new(&mut bench, 'b'));
    let release = bench.publish(bad.owner, Target::All, b"image").offer.release.to_string();
    let token = bad.token(&mut bench);
    let (device, owner) = (format!("dev:{{{}}}", bad.device), bad.owner);
    let (tokens, releases) = (format!("tok:{{{}}}", bad.device), format!("rels:{{ak:{owner}}}"));
    let hash = server.call(&["HKEYS", &tokens]).items()[0].text();
    let redeem = || vec![Query::Redeem { token }, Query::Start { token }, Query::Claim { token }];
    let hashes = [
        (&device, "owner", vec![bad.identify()]),
        (&device, "seen", vec![bad.identify()]),
        (&device, "auto", vec![bad.identify()]),
        (&releases, release.as_str(), vec![bad.identify()]),
        (&tokens, hash.as_str(), redeem()),
    ];
    for (key, field, queries) in hashes {
        let value = server.call(&["HGET", key, field]).text();
        for odd in [&b""[..], b"nonsense", b"\xff\xfe 1 2", b"1 2 3 4 5 6"] {
            server.call(&[b"HSET", key.as_bytes(), field.as_bytes(), odd]);
            bench.reopen_on(options(server.url()));
            assert_only(&mut bench, &queries, &good, &format!("{key} {field} {odd:?}"));
        }
        server.call(&["HSET", key.as_str(), field, &value]);
    }
    // An answer may begin with what looks like the mark of a failure, or end early.
    let pointer = server.call(&["KEYS", "ott:*"]).items()[0].text();
    let value = server.call(&["GET", &pointer]).text();
    for odd in [&b"!"[..], b"", b"a b", b"\xff", format!("{} ", bad.device).as_bytes()] {
        server.call(&[b"SET", pointer.as_bytes(), odd]);
        bench.reopen_on(options(server.url()));
        assert_only(&mut bench, &redeem(), &good, &format!("{pointer} {odd:?}"));
    }
    server.call(&["SET", &pointer, &value]);
    // Keys that nobody can read are no keys; the owner is known all the same.
    let keys = format!("ak:{owner}");
    let value = server.call(&["GET", &keys]).text();
    server.call(&["SET", &keys, "nonsense"]);
    let standing = bench.identify(Identify {
        owner: Some(owner),
        key: bad.key,
        device: Some(bad.device),
        mac: None,
    });
    assert_eq!(standing.key, otter_protocol::KeyStanding::UnknownOwner);
    let refusal = bench.operator.create_key(&owner, "new").expect_err("it is not ours");
    assert!(refusal.to_string().contains("no JSON array"), "{refusal}");
    server.call(&["SET", &keys, &value]);
    // A list of owners that is not ours is refused as a whole, and says so.
    server.call(&["ZADD", "owners", "1", "nonsense"]);
    let refusal = bench.operator.owners().expect_err("it is not ours").to_string();
    assert!(refusal.contains("nonsense") && refusal.contains("of its own"), "{refusal}");
    assert!(!is_away(&bench.ask(bad.identify())), "devices do not need it");
    assert!(bench.claim(token) && !bench.claim(token));
}

/// How long a call may take. A quarter of it is what it takes to notice a server that stopped.
const PATIENCE: Duration = Duration::from_secs(4);

#[test]
fn a_password_that_is_changed_is_an_outage_until_it_is_changed_back() {
    let redis = RedisOptions { password: Some("secret".to_owned()), ..RedisOptions::default() };
    let server = RedisServer::start_with(redis);
    let mut bench = Bench::on_redis(options(server.url()));
    let home = Home::new(&mut bench, 'a');
    server.call(&["CONFIG", "SET", "requirepass", "other"]);
    // The killed connection may be the one that asks for it.
    let _ = server.client().try_call(&["CLIENT", "KILL", "TYPE", "normal"]);
    let trouble = wait_for("the reason", || {
        bench.operator.trouble().filter(|trouble| trouble.contains("WRONGPASS"))
    });
    assert!(!trouble.contains("secret"), "{trouble}");
    assert!(is_away(&bench.ask(home.identify())));
    server.call(&["CONFIG", "SET", "requirepass", "secret"]);
    wait_until_served(&mut bench.desk, &home.identify());
}
