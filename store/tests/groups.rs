//! One commit per group, and what that must not break.

mod common;

use std::sync::{Arc, Barrier, mpsc};
use std::thread;

use common::{
    Bench, Desk, Open, Redeemed, Which, check_in, grant, on_each, on_each_with_tables, recording,
};
use otter_protocol::{
    Answer, CheckIn, DeviceId, DeviceStanding, Identify, Mac, Query, Record, Recorded,
};
use otter_store::{Embedded, EmbeddedOptions, EmbeddedStore, Image, Store, Target, Ticket};

fn registration(owner: otter_protocol::OwnerId, bits: u64) -> Query {
    let check_in = CheckIn { mac: Mac::from_bits(bits), ..check_in() };
    Query::Record(Box::new(recording(owner, None, Some(check_in))))
}

fn recorded(answer: &Answer<Image>) -> Recorded {
    let Answer::Recorded(Some(recorded)) = answer else { panic!("{answer:?}") };
    recorded.clone()
}

#[test]
fn the_writes_of_one_turn_are_one_commit() {
    let mut bench = Bench::new(Which::Embedded);
    let (owner, _) = bench.owner('a');
    let before = bench.operator.stats();
    let answers = bench.desk.ask_all((0..100).map(|i| registration(owner, i)).collect());
    assert!(answers.iter().all(|answer| matches!(answer, Answer::Recorded(Some(_)))));
    let stats = bench.operator.stats();
    assert_eq!(stats.commits_total - before.commits_total, 1);
    assert_eq!(stats.writes_total - before.writes_total, 100);
    assert_eq!(stats.group_writes.sum - before.group_writes.sum, 100);
    assert_eq!(stats.devices, 100);
}

#[test]
fn a_group_has_a_limit() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut options = EmbeddedOptions::default();
    options.group_writes_max = 10;
    let embedded = Embedded::open(directory.path(), options).expect("a store");
    let owner = embedded.operator().create_owner(None).expect("a new owner");
    let before = embedded.operator().stats().commits_total;
    Desk::new(|wake| embedded.store(wake))
        .ask_all((0..100).map(|i| registration(owner, i)).collect());
    assert_eq!(embedded.operator().stats().commits_total - before, 10);
}

#[test]
fn writes_that_the_disk_cannot_keep_up_with_are_refused_at_once() {
    let directory = tempfile::tempdir().expect("a directory");
    let embedded = Embedded::open(directory.path(), EmbeddedOptions::default()).expect("a store");
    let owner = embedded.operator().create_owner(None).expect("a new owner");
    let other = rusqlite::Connection::open(directory.path().join("otter.db")).expect("opened");
    other.execute_batch("BEGIN IMMEDIATE").expect("nobody else writes");

    let (ring, bell) = mpsc::channel();
    let mut store = embedded.store(Arc::new(move || _ = ring.send(())));
    let mut answers = Vec::new();
    let mut queries = (0..33_000).map(|i| (Ticket(i), registration(owner, i))).collect();
    store.submit(&mut queries);
    store.collect(&mut answers);
    let refused = |answer: &(_, _)| matches!(answer, (Ticket(32_768..), Answer::Unavailable));
    assert!(answers.iter().all(refused), "the first 32,768 wait");
    assert_eq!(answers.len(), 33_000 - 32_768);

    other.execute_batch("ROLLBACK").expect("given free");
    let wait = |store: &mut EmbeddedStore, answers: &mut Vec<_>, count| {
        while answers.len() < count {
            bell.recv().expect("more answers");
            store.collect(answers);
        }
    };
    wait(&mut store, &mut answers, 33_000);
    assert_eq!(embedded.operator().stats().devices, 32_768);
    store.submit(&mut vec![(Ticket(33_000), registration(owner, 33_000))]);
    wait(&mut store, &mut answers, 33_001);
    assert!(matches!(answers.last(), Some((Ticket(33_000), Answer::Recorded(Some(_))))));
}

#[test]
fn reads_cost_no_commit_and_are_answered_in_the_same_turn() {
    on_each(|bench| {
        let (owner, key) = bench.owner('a');
        let device = bench.register(owner, "5CCF7F000001");
        let before = bench.operator.stats().commits_total;
        let identify = Identify { owner: Some(owner), key, device: Some(device), mac: None };
        let answers = bench.desk.ask_all(vec![Query::Identify(identify); 50]);
        assert!(answers.iter().all(|answer| matches!(
            answer,
            Answer::Standing(standing) if matches!(standing.device, DeviceStanding::Known(_))
        )));
        assert_eq!(bench.operator.stats().commits_total, before);
    });
}

#[test]
fn writes_to_the_same_thing_are_kept_one_after_the_other() {
    on_each(|bench| {
        let (owner, key) = bench.owner('a');
        let answers = bench.desk.ask_all(vec![registration(owner, 7); 20]);
        let first = recorded(&answers[0]).device;
        for answer in &answers {
            assert_eq!(recorded(answer).device, first, "adopted by its MAC");
        }
        assert_eq!(bench.operator.stats().devices, 1);

        let versions = (0..20).map(|i| {
            let version = Some(format!("1.0.{i}").into());
            let check_in = CheckIn { version, digest: i, ..check_in() };
            Query::Record(Box::new(recording(owner, Some(first), Some(check_in))))
        });
        bench.desk.ask_all(versions.collect());
        assert_eq!(bench.known(owner, key, first).version.as_deref(), Some("1.0.19"));
        bench.reopen();
        assert_eq!(bench.known(owner, key, first).version.as_deref(), Some("1.0.19"));
    });
}

#[test]
fn a_mac_that_moves_within_a_turn_leads_where_it_went() {
    on_each_with_tables(|bench| {
        let (owner, _) = bench.owner('a');
        let first = bench.register(owner, "5CCF7F000001");
        let mac = |text| CheckIn { mac: Mac::parse(text), ..check_in() };
        let record =
            |device, check_in| Query::Record(Box::new(recording(owner, device, Some(check_in))));
        let answers = bench.desk.ask_all(vec![
            record(Some(first), mac("5CCF7F000002")),
            record(None, mac("5CCF7F000002")),
            record(None, mac("5CCF7F000001")),
        ]);
        assert_eq!(recorded(&answers[1]).device, first);
        assert_ne!(recorded(&answers[2]).device, first, "it has left this MAC");
    });
}

#[test]
fn a_turn_that_starts_replaces_and_claims_one_token_does_so_in_order() {
    on_each_with_tables(|bench| {
        let (owner, _) = bench.owner('a');
        let device = bench.register(owner, "5CCF7F000001");
        let release = bench.publish(owner, Target::All, b"firmware").offer.release;
        let token = bench.grant(owner, device, grant(Some(release)));
        let newer =
            Record { grant: Some(grant(Some(release))), ..recording(owner, Some(device), None) };
        let answers = bench.desk.ask_all(vec![
            Query::Start { token },
            Query::Record(Box::new(newer.clone())),
            Query::Claim { token },
            Query::Claim { token },
            Query::Record(Box::new(newer)),
        ]);
        assert!(matches!(answers[2], Answer::Claimed(true)), "it was started before");
        assert!(matches!(answers[3], Answer::Claimed(false)));
        let (second, third) = (recorded(&answers[1]), recorded(&answers[4]));
        assert!(!bench.claim(second.token.expect("a token")), "replaced untouched");
        assert!(bench.claim(third.token.expect("a token")));
        if matches!(bench.open, Open::Embedded(_)) {
            assert!(bench.operator.stats().writes_deferred_total > 0);
        }
    });
}

#[test]
fn a_token_that_binds_in_a_turn_is_replaced_by_the_next_one() {
    on_each_with_tables(|bench| {
        let (owner, _) = bench.owner('a');
        let device = bench.register(owner, "5CCF7F000001");
        let token = bench.grant(owner, device, grant(None));
        let release = bench.publish(owner, Target::All, b"firmware").offer.release;
        let newer =
            Record { grant: Some(grant(Some(release))), ..recording(owner, Some(device), None) };
        bench.desk.ask_all(vec![Query::Start { token }, Query::Record(Box::new(newer))]);
        assert_eq!(bench.redeem(token), Redeemed::Unknown, "only its transfer may finish");
        assert!(bench.claim(token));
    });
}

#[test]
fn tokens_that_are_issued_at_once_replace_each_other() {
    on_each(|bench| {
        let (owner, _) = bench.owner('a');
        let device = bench.register(owner, "5CCF7F000001");
        let operators: Vec<_> = (0..8).map(|_| bench.operator.clone()).collect();
        let together = Barrier::new(operators.len());
        thread::scope(|scope| {
            for operator in &operators {
                scope.spawn(|| {
                    together.wait();
                    operator.issue_token(device, &grant(None)).expect("issued");
                });
            }
        });
        bench.assert_open(1);
        assert_eq!(bench.operator.stats().tokens_replaced_total, 7);
    });
}

#[test]
fn of_a_thousand_claims_one_succeeds() {
    on_each(|bench| {
        let (owner, _) = bench.owner('a');
        let device = bench.register(owner, "5CCF7F000001");
        let release = bench.publish(owner, Target::All, b"firmware").offer.release;
        for _ in 0..5 {
            let token = bench.grant(owner, device, grant(Some(release)));
            bench.start(token);
            let mut desks: Vec<Desk> = (0..10).map(|_| bench.another_desk()).collect();
            let together = Barrier::new(desks.len());
            let claimed = thread::scope(|scope| {
                let claims = desks.iter_mut().map(|desk| {
                    scope.spawn(|| {
                        together.wait();
                        let answers = desk.ask_all(vec![Query::Claim { token }; 100]);
                        answers.iter().filter(|a| matches!(a, Answer::Claimed(true))).count()
                    })
                });
                let claims: Vec<_> = claims.collect();
                claims.into_iter().map(|claim| claim.join().expect("answered")).sum::<usize>()
            });
            assert_eq!(claimed, 1);
        }
    });
}

#[test]
fn a_closed_store_answers_everything_as_unavailable() {
    let mut bench = Bench::new(Which::Embedded);
    let (owner, key) = bench.owner('a');
    let device = DeviceId([1; 16]);
    bench.close();
    let identify = Identify { owner: Some(owner), key, device: Some(device), mac: None };
    let answers = bench.desk.ask_all(vec![registration(owner, 1), Query::Identify(identify)]);
    assert!(answers.iter().all(|answer| matches!(answer, Answer::Unavailable)), "{answers:?}");
    let refused = bench.operator.create_owner(None).expect_err("closed");
    assert!(refused.to_string().contains("closed"), "{refused}");
    assert!(bench.operator.device(device).is_err());
}

#[test]
fn writes_are_carried_out_even_if_nobody_waits_for_the_answer() {
    on_each(|bench| {
        let (owner, key) = bench.owner('a');
        let mut desk = bench.another_desk();
        desk.submit(vec![registration(owner, 7)]);
        drop(desk);
        // A write about the same thing comes after it.
        let device = recorded(&bench.ask(registration(owner, 7))).device;
        assert_eq!(bench.operator.stats().devices, 1);
        assert_eq!(bench.known(owner, key, device).id, device);
    });
}

#[test]
fn handles_go_to_any_thread() {
    fn send<T: Send>() {}
    fn shared<T: Send + Sync + Clone>() {}
    send::<Embedded>();
    send::<EmbeddedStore>();
    send::<otter_store::MemoryStore>();
    send::<otter_store::Staged>();
    shared::<otter_store::Memory>();
    shared::<otter_store::Operator>();
    shared::<Image>();
}

#[test]
fn what_was_submitted_before_the_close_is_kept_and_answered() {
    let mut bench = Bench::new(Which::Embedded);
    let (owner, key) = bench.owner('a');
    let mut desk = bench.another_desk();
    let mut device = None;
    for round in 0..20 {
        desk.submit(vec![registration(owner, round)]);
        bench.reopen();
        device = Some(recorded(&desk.answers(1)[0]).device);
        desk = bench.another_desk();
    }
    let device = device.expect("20 rounds");
    assert_eq!(bench.operator.stats().devices, 20);
    assert_eq!(bench.known(owner, key, device).id, device);
}
