//! The line to Redis breaks after Redis has done what it was asked, before anybody is told.

use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use otter_protocol::{Answer, Query, Redemption, Token};
use otter_tests::Random;
use otter_tests::redis::{Proxy, RedisServer, Rule};

use crate::common::{Bench, Desk, grant, recording};
use crate::life::{Home, is_away, options, wait_until_served};

/// How often a lost answer is tried. `OTTER_CUTS=5000` tries harder.
fn cuts() -> u64 {
    std::env::var("OTTER_CUTS").ok().and_then(|cuts| cuts.parse().ok()).unwrap_or(250)
}

fn calls(server: &RedisServer) -> u64 {
    let stats = server.info("cmdstat_fcall").unwrap_or_default();
    let calls = stats.split(',').find_map(|part| part.strip_prefix("calls="));
    calls.and_then(|calls| calls.parse().ok()).unwrap_or_default()
}

fn sent(bench: &Bench) -> u64 {
    bench.operator.stats().redis.expect("of Redis").calls_total
}

#[test]
fn nothing_is_done_twice_and_no_token_is_given_twice() {
    let server = RedisServer::start();
    let proxy = Proxy::to(server.address());
    let mut issuer = Bench::on_redis(options(server.url()));
    let home = Home::new(&mut issuer, 'a');
    let others: Vec<_> =
        (0..4).map(|_| Bench::on_redis(options(format!("redis://{}", proxy.address())))).collect();
    proxy.set(Rule::Answers { of: "otter_write", one_in: 3, random: Random::new(7) });
    let (claims, lost) = (AtomicU64::new(0), AtomicU64::new(0));
    let (mut tokens, mut given) = (0, 0);
    while proxy.cuts() < cuts() {
        tokens += 1;
        let token = home.token(&mut issuer);
        let winners = AtomicU64::new(0);
        thread::scope(|scope| {
            for bench in &others {
                let mut desk = bench.another_desk();
                let (winners, claims, lost) = (&winners, &claims, &lost);
                scope.spawn(move || {
                    wait_until_served(&mut desk, &home.identify());
                    let version = token_version(token);
                    desk.submit(vec![home.check_in(&version), Query::Start { token }]);
                    let answers = desk.answers(2);
                    assert_plausible(&answers, token);
                    claims.fetch_add(1, Ordering::Relaxed);
                    let answer = desk.ask(Query::Claim { token });
                    if let Answer::Claimed(is_given) = answer {
                        winners.fetch_add(u64::from(is_given), Ordering::Relaxed);
                    } else {
                        assert!(is_away(&answer), "{answer:?}");
                        lost.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
        });
        // Whoever is asked afterwards, on a line that holds.
        let late = u64::from(issuer.claim(token));
        let winners = winners.into_inner() + late;
        assert!(winners <= 1, "{winners} were given the tail");
        assert!(!issuer.claim(token));
        given += winners;
    }
    proxy.set(Rule::Never);
    assert!(lost.into_inner() > 0 && given > 0 && given < tokens, "{given} of {tokens}");
    // Redis has carried out at most as many calls as were sent.
    let sent: u64 = others.iter().chain([&issuer]).map(sent).sum();
    let called = calls(&server);
    // Redis may have lost its functions never, so that each call is one attempt.
    assert!(called <= sent, "{called} calls were carried out, and {sent} sent");
    assert!(called + proxy.cuts() * 8 > sent, "and hardly fewer: {called} of {sent}");
}

fn token_version(token: Token) -> String {
    format!("1.0.{}", token.0[0])
}

fn assert_plausible(answers: &[Answer<otter_store::Image>], token: Token) {
    let [recorded, started] = answers else { panic!("{answers:?}") };
    assert!(matches!(recorded, Answer::Recorded(Some(_)) | Answer::Unavailable), "{recorded:?}");
    // Nothing is published, so that the token is good for nothing, or not good any more.
    let is_possible = matches!(
        started,
        Answer::Redemption(Redemption::Nothing | Redemption::Unknown) | Answer::Unavailable
    );
    assert!(is_possible, "{token:?}: {started:?}");
}

#[test]
fn a_claim_whose_answer_was_lost_is_never_given() {
    let server = RedisServer::start();
    let proxy = Proxy::to(server.address());
    let mut issuer = Bench::on_redis(options(server.url()));
    let home = Home::new(&mut issuer, 'a');
    let mut bench = Bench::on_redis(options(format!("redis://{}", proxy.address())));
    for round in 0..20 {
        let token = home.token(&mut issuer);
        wait_until_served(&mut bench.desk, &Query::Redeem { token });
        proxy.set(Rule::Answers { of: "otter_write", one_in: 1, random: Random::new(round) });
        let before = proxy.cuts();
        assert!(is_away(&bench.ask(Query::Claim { token })), "nobody knows");
        assert_eq!(proxy.cuts(), before + 1);
        proxy.set(Rule::Never);
        wait_until_served(&mut bench.desk, &home.identify());
        assert!(!bench.claim(token) && !issuer.claim(token), "it was done");
        assert!(server.call(&["KEYS", "tok:*"]).items().is_empty());
    }
}

#[test]
fn records_whose_answers_were_lost_leave_one_device() {
    let server = RedisServer::start();
    let proxy = Proxy::to(server.address());
    let issuer = Bench::on_redis(options(server.url()));
    let (owner, _) = issuer.owner('a');
    let mut bench = Bench::on_redis(options(format!("redis://{}", proxy.address())));
    proxy.set(Rule::Answers { of: "otter_write", one_in: 3, random: Random::new(3) });
    for n in 0..20 {
        let mac = format!("5CCF7F0000{n:02X}");
        let check_in = otter_protocol::CheckIn {
            mac: otter_protocol::Mac::parse(&mac),
            ..crate::common::check_in()
        };
        let record = Query::Record(Box::new(otter_protocol::Record {
            grant: Some(grant(None)),
            ..recording(owner, None, Some(check_in))
        }));
        wait_until_served(&mut bench.desk, &record);
    }
    proxy.set(Rule::Never);
    let filter = otter_store::DeviceFilter { limit: 1000, ..otter_store::DeviceFilter::default() };
    assert_eq!(issuer.operator.devices(&filter).expect("a page").len(), 20, "one for each MAC");
}

#[test]
fn everything_is_answered_once_when_the_store_goes_in_the_middle() {
    let server = RedisServer::start();
    let mut issuer = Bench::on_redis(options(server.url()));
    let home = Home::new(&mut issuer, 'a');
    let ask = |desk: &mut Desk| {
        let queries = (0..500).flat_map(|_| {
            let token = Token([9; 32]);
            [home.identify(), home.check_in("2"), Query::Claim { token }]
        });
        desk.submit(queries.collect());
    };
    for moment in 0..6 {
        let mut bench = Bench::on_redis(options(server.url()));
        ask(&mut bench.desk);
        match moment {
            0 | 1 => {}
            2 | 3 => server.pause(),
            _ => drop(server.client().try_call(&["CLIENT", "KILL", "TYPE", "normal"])),
        }
        bench.close();
        if moment == 2 || moment == 3 {
            server.resume();
        }
        let answers = bench.desk.answers(1500);
        if moment < 2 {
            assert!(!answers.iter().any(is_away), "it waits for what is under way");
        }
        ask(&mut bench.desk);
        assert!(bench.desk.answers(1500).iter().all(is_away), "it is closed");
        assert!(bench.operator.owners().is_err());
    }
}
