//! Claims that wait until replicas have them.

use std::time::Duration;

use otter_protocol::{Answer, Query};
use otter_store::{RedisOptions, Target};
use otter_tests::Random;
use otter_tests::redis::{self, Proxy, RedisServer, Rule};

use crate::common::{Bench, Redeemed, grant};
use crate::life::{Home, is_away, options, wait_until_served, whole_life};

fn pair() -> (RedisServer, RedisServer) {
    let primary = RedisServer::start();
    let replica = RedisServer::start_with(redis::RedisOptions {
        replica_of: Some(primary.port()),
        ..redis::RedisOptions::default()
    });
    (primary, replica)
}

fn waiting(url: String) -> RedisOptions {
    let mut options = options(url);
    options.replicas = 1;
    options
}

#[test]
fn without_its_replica_no_tail_is_given_and_check_ins_go_on() {
    let (primary, replica) = pair();
    let mut options = waiting(primary.url());
    options.timeout = Duration::from_secs(8);
    options.replicas_timeout = Duration::from_secs(3);
    let mut bench = Bench::on_redis(options);
    whole_life(&mut bench, 'a');
    let home = Home::new(&mut bench, 'b');
    bench.publish(home.owner, Target::All, b"image");
    let tokens: Vec<_> = (0..2)
        .map(|_| bench.operator.issue_token(home.device, &grant(None)))
        .map(|issued| issued.expect("a token").token)
        .collect();
    let [replaced, token] = tokens[..] else { panic!("two") };
    assert_eq!(bench.redeem(replaced), Redeemed::Unknown, "by the second");
    replica.pause();
    let mut claims = bench.another_desk();
    claims.submit(vec![Query::Start { token }, Query::Claim { token }]);
    for n in 0..50 {
        assert!(!is_away(&bench.ask(home.identify())));
        assert!(!is_away(&bench.ask(home.check_in(&format!("2.0.{n}")))));
    }
    assert!(claims.collect().is_empty(), "they still wait, and nobody waits for them");
    let answers = claims.answers(2);
    assert!(answers.iter().all(|a| matches!(a, Answer::Unavailable | Answer::Claimed(false))));
    assert!(bench.operator.trouble().is_none(), "Redis itself is well");
    replica.resume();
    let token = home.token(&mut bench);
    wait_until_served(&mut bench.desk, &Query::Start { token });
    assert!(bench.claim(token) && !bench.claim(token));
}

#[test]
fn many_claims_without_the_replica_are_refused_together() {
    let (primary, replica) = pair();
    let mut bench = Bench::on_redis(waiting(primary.url()));
    let home = Home::new(&mut bench, 'a');
    let homes: Vec<_> =
        (0..200_u8).map(|n| Home { device: otter_protocol::DeviceId([n; 16]), ..home }).collect();
    let mut tokens = Vec::new();
    for home in &homes {
        bench.ask(home.check_in("1.0.0"));
        tokens.push(home.token(&mut bench));
    }
    replica.pause();
    // One after the other they would take 200 times as long as one may.
    let mut desk = bench.another_desk();
    for token in &tokens {
        desk.submit(vec![Query::Claim { token: *token }]);
        assert!(!is_away(&bench.ask(home.identify())), "and meanwhile devices check in");
    }
    let mut answers = Vec::new();
    redis::wait_for("all answers", || {
        answers.extend(desk.collect());
        assert!(!is_away(&bench.ask(home.identify())));
        (answers.len() == tokens.len()).then_some(())
    });
    assert!(!answers.iter().any(|(_, answer)| matches!(answer, Answer::Claimed(true))));
    replica.resume();
    let token = home.token(&mut bench);
    wait_until_served(&mut bench.desk, &Query::Claim { token });
}

#[test]
fn a_replica_that_is_promoted_knows_of_every_claim_that_was_acknowledged() {
    for _ in 0..3 {
        let (mut primary, mut replica) = pair();
        let mut bench = Bench::on_redis(waiting(primary.url()));
        let home = Home::new(&mut bench, 'a');
        let homes: Vec<_> = (0..40_u8)
            .map(|n| Home { device: otter_protocol::DeviceId([n; 16]), ..home })
            .collect();
        let mut tokens = Vec::new();
        for home in &homes {
            bench.ask(home.check_in("1.0.0"));
            tokens.push(home.token(&mut bench));
        }
        let claim = |token: &otter_protocol::Token| Query::Claim { token: *token };
        bench.desk.submit(tokens.iter().map(claim).collect());
        // At some moment between them.
        redis::wait_for("a claim to be carried out", || {
            (primary.call(&["KEYS", "tok:*"]).items().len() < tokens.len()).then_some(())
        });
        primary.kill();
        let answers = bench.desk.answers(tokens.len());
        replica.promote();
        let mut heir = Bench::on_redis(options(replica.url()));
        for (token, answer) in tokens.iter().zip(answers) {
            let again = heir.claim(*token);
            assert!(!(again && matches!(answer, Answer::Claimed(true))), "given twice");
        }
    }
}

#[test]
fn without_waiting_a_failover_may_forget_a_claim() {
    let (primary, mut replica) = pair();
    let mut bench = Bench::on_redis(options(primary.url()));
    let home = Home::new(&mut bench, 'a');
    let token = home.token(&mut bench);
    primary.client().call(&["WAIT", "0", "0"]);
    redis::wait_for("the replica to have the token", || {
        (replica.call(&["KEYS", "tok:*"]).items().len() == 1).then_some(())
    });
    // It is promoted while the primary still serves somebody, as on a network that is torn.
    replica.promote();
    assert!(bench.claim(token));
    let mut heir = Bench::on_redis(options(replica.url()));
    assert!(heir.claim(token), "two tails: what `replicas` is for (docs/token.md)");

    // With it, the claim that the replica does not hear of is not given.
    let (primary, mut replica) = pair();
    let mut bench = Bench::on_redis(waiting(primary.url()));
    let home = Home::new(&mut bench, 'a');
    let token = home.token(&mut bench);
    redis::wait_for("the replica to have the token", || {
        (replica.call(&["KEYS", "tok:*"]).items().len() == 1).then_some(())
    });
    replica.promote();
    assert!(is_away(&bench.ask(Query::Claim { token })));
    let mut heir = Bench::on_redis(options(replica.url()));
    assert!(heir.claim(token) && !heir.claim(token));
}

#[test]
fn waiting_counts_on_the_connection_that_wrote() {
    let (primary, replica) = pair();
    let proxy = Proxy::to(primary.address());
    let mut issuer = Bench::on_redis(options(primary.url()));
    let home = Home::new(&mut issuer, 'a');
    let mut bench = Bench::on_redis(waiting(format!("redis://{}", proxy.address())));
    replica.pause();
    // A connection that is cut around the claim is replaced by one on which nothing was written:
    // there, WAIT would say that all replicas have everything.
    proxy.set(Rule::Answers { of: "WAIT", one_in: 2, random: Random::new(11) });
    for _ in 0..8 {
        let token = home.token(&mut issuer);
        wait_until_served(&mut bench.desk, &home.identify());
        let answer = bench.ask(Query::Claim { token });
        assert!(!matches!(answer, Answer::Claimed(true)), "the replica is paused");
    }
    assert!(proxy.cuts() > 0);
    proxy.set(Rule::Never);
    replica.resume();
    let token = home.token(&mut issuer);
    wait_until_served(&mut bench.desk, &home.identify());
    wait_until_served(&mut bench.desk, &Query::Redeem { token });
    let claimed = bench.ask(Query::Claim { token });
    assert!(matches!(claimed, Answer::Claimed(true) | Answer::Unavailable), "{claimed:?}");
}
