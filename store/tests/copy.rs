//! Everything that operators and devices can see comes along when a store is copied into another.

mod common;

use common::{Bench, HOUR_MS, Redeemed, Which, alias, check_in, grant, recording};
use otter_protocol::{
    Answer, ApiKey, CheckIn, DeviceId, DeviceStanding, Identify, KeyStanding, Mac, Offered,
    OwnerId, Query, Record, ReleaseId, Standing, Token,
};
use otter_store::{
    DeviceChange, DeviceFilter, DeviceRow, Embedded, EmbeddedOptions, Fact, OpenError, Operator,
    OperatorError, Target,
};

const FIRMWARE: &[u8] = b"firmware";
const OTHER: &[u8] = b"other firmware";
const SHARED_MAC: &str = "5CCF7F0000AA";

/// What was told to devices, and to nobody else.
struct Told {
    owner: OwnerId,
    key: ApiKey,
    revoked: ApiKey,
    /// The one that was registered first of those that share a MAC.
    first: DeviceId,
    untouched: Token,
    started: Token,
    replaced: Token,
    unbound: Token,
    withdrawn: Token,
    claimed: Token,
}

/// Fills a store with one of everything.
fn fill(bench: &mut Bench) -> Told {
    let (owner, key) = bench.owner('b');
    let (other, _) = bench.owner('a');
    bench.operator.create_owner(OwnerId::parse(&"c".repeat(64))).expect("an owner without keys");
    let revoked = bench.operator.create_key(&owner, "lost \"one\"").expect("a key");
    bench.operator.revoke_key(&revoked.hash).expect("revoked");
    bench.operator.create_key(&owner, "another").expect("a key");

    bench.advance(1000);
    let shared: Vec<_> = [9, 3, 7, 1].map(|number| device(bench, owner, number, SHARED_MAC)).into();
    bench.advance(5000);
    let lone: Vec<_> = (20..26).map(|number| device(bench, owner, number, "")).collect();
    device(bench, other, 40, "5CCF7F000040");
    decorate(bench, owner, shared[1], lone[0]);

    let gone = bench.publish(owner, Target::All, OTHER).offer.release;
    bench.advance(1000);
    bench.publish(other, Target::All, FIRMWARE);
    let release = bench.publish(owner, Target::All, FIRMWARE).offer.release;
    bench.publish(owner, Target::Device(DeviceId([99; 16])), FIRMWARE);
    let issue = |bench: &mut Bench, number: usize, release| {
        bench.grant(owner, lone[number], grant(release))
    };
    let told = Told {
        owner,
        key,
        revoked: revoked.key,
        first: shared[0],
        untouched: issue(bench, 1, Some(release)),
        started: issue(bench, 2, Some(release)),
        replaced: issue(bench, 3, Some(release)),
        unbound: issue(bench, 4, None),
        withdrawn: issue(bench, 5, Some(gone)),
        claimed: issue(bench, 2, Some(gone)),
    };
    for token in [told.started, told.replaced, told.withdrawn, told.claimed] {
        bench.start(token);
    }
    issue(bench, 3, Some(release));
    assert!(bench.claim(told.claimed));
    bench.operator.withdraw(gone).expect("withdrawn");
    bench.advance(1000);
    told
}

fn device(bench: &mut Bench, owner: OwnerId, number: u8, mac: &str) -> DeviceId {
    let udid = DeviceId([number; 16]);
    let said = CheckIn {
        mac: Mac::parse(mac),
        digest: u64::MAX - u64::from(number),
        facts: format!("{{\"number\":{number}}}").into(),
        ..check_in()
    };
    bench.record(recording(owner, Some(udid), Some(said))).expect("registered").device
}

/// Sets what most devices have not.
fn decorate(bench: &mut Bench, owner: OwnerId, one: DeviceId, other: DeviceId) {
    let change = DeviceChange { auto_update: Some(true), alias: Some(alias("green house")) };
    bench.operator.set_device(one, change).expect("changed");
    let push = "a push token \u{e9}".into();
    bench.ask(Query::Push { device: one, push });
    let offered =
        Offered { release: ReleaseId([5; 16]), times: 3, failures: 2, quiet_until: u64::MAX };
    let said = CheckIn {
        env_hash: Some("beef".into()),
        platform: None,
        version: Some("v1 \u{e9}".into()),
        told_auto_update: true,
        ..check_in()
    };
    let record = recording(owner, Some(other), Some(said));
    let offered = Some(offered);
    bench.record(Record { offered, ..record }).expect("recorded");
}

/// Copies all facts and images, as `otter store copy` does.
fn copy(from: &Operator, to: &Operator) {
    to.begin_copy().expect("an empty store");
    let staged: Vec<_> = from
        .releases(None)
        .expect("releases")
        .iter()
        .filter_map(|row| from.image(&row.offer.sha256))
        .map(|image| to.stage(&mut image.as_ref(), 1 << 30).expect("staged"))
        .collect();
    from.export(&mut |facts| to.import(facts)).expect("copied");
    to.finish_copy().expect("finished");
    drop(staged);
}

fn copied(from: &Bench, which: Which) -> Bench {
    let to = Bench::new(which);
    set_clock_of(&to, from);
    copy(&from.operator, &to.operator);
    to
}

fn set_clock_of(to: &Bench, from: &Bench) {
    to.set_clock(from.now_ms.load(std::sync::atomic::Ordering::SeqCst));
}

/// All facts, in an order that does not depend on the kind of store.
fn facts(operator: &Operator) -> Vec<String> {
    let mut all = Vec::new();
    let mut add = |facts: Vec<Fact>| {
        all.extend(facts.iter().map(|fact| format!("{:032x} {fact:?}", fact.fingerprint())));
        Ok(())
    };
    operator.export(&mut add).expect("readable");
    all.iter_mut().for_each(|fact| *fact = fact.replace("Some(KeptKeys(..))", "None"));
    all.sort();
    all
}

fn devices(operator: &Operator) -> Vec<DeviceRow> {
    operator.devices(&DeviceFilter { limit: 1000, ..DeviceFilter::default() }).expect("devices")
}

/// What operators see is alike.
fn compare(one: &Operator, other: &Operator) {
    assert_eq!(facts(one), facts(other));
    assert_eq!(one.owners().expect("owners"), other.owners().expect("owners"));
    assert_eq!(one.keys(None).expect("keys"), other.keys(None).expect("keys"));
    assert_eq!(devices(one), devices(other));
    let releases = |operator: &Operator| {
        let mut rows = operator.releases(None).expect("releases");
        // The order of those of different owners within one second is open.
        rows.sort_by_key(|row| (row.published, row.owner));
        rows
    };
    assert_eq!(releases(one), releases(other));
}

/// Devices go on with what they were told.
fn go_on(bench: &mut Bench, told: &Told) {
    let identify = |key, device, mac| Identify { owner: Some(told.owner), key, device, mac };
    let standing = bench.identify(identify(told.key, None, Mac::parse(SHARED_MAC)));
    assert_eq!(standing.key, KeyStanding::Valid);
    let DeviceStanding::Known(found) = standing.device else { panic!("{:?}", standing.device) };
    assert_eq!(found.id, told.first, "the first registered is found");
    let standing = bench.identify(identify(told.revoked, Some(told.first), None));
    assert_eq!(standing.key, KeyStanding::Wrong);

    let ready = |bench: &mut Bench, token| match bench.redeem(token) {
        Redeemed::Ready { bytes, started, .. } => {
            assert_eq!(bytes, FIRMWARE);
            Some(started)
        }
        Redeemed::Unknown | Redeemed::Nothing => None,
    };
    assert_eq!(ready(bench, told.untouched), Some(false));
    assert_eq!(ready(bench, told.started), Some(true));
    assert_eq!(ready(bench, told.unbound), Some(false));
    assert_eq!(ready(bench, told.replaced), None);
    assert_eq!(ready(bench, told.claimed), None);
    assert!(!bench.claim(told.claimed), "what is used up does not come back");
    // A transfer that was under way before ends here, also of what was withdrawn meanwhile.
    for token in [told.started, told.replaced, told.withdrawn] {
        assert!(bench.claim(token));
        assert!(!bench.claim(token));
    }
    // Deadlines are the same moments.
    bench.start(told.untouched);
    bench.advance(HOUR_MS - 1);
    assert_eq!(ready(bench, told.untouched), Some(true));
    bench.advance(1);
    assert_eq!(ready(bench, told.untouched), None);
    assert!(bench.claim(told.untouched));
    // It was issued a second before, and lives for a day.
    bench.advance(23 * HOUR_MS - 1001);
    assert_eq!(ready(bench, told.unbound), Some(false));
    bench.advance(1);
    assert_eq!(ready(bench, told.unbound), None);
    // Who is first by a MAC leaves it to the next one.
    let next = [3, 7, 1].map(|number| DeviceId([number; 16]));
    let mut leaver = told.first;
    for heir in next {
        device(bench, told.owner, leaver.0[0], "5CCF7F00FFFF");
        let standing = bench.identify(identify(told.key, None, Mac::parse(SHARED_MAC)));
        let DeviceStanding::Known(found) = standing.device else { panic!("{:?}", standing.device) };
        assert_eq!(found.id, heir);
        leaver = heir;
    }
}

#[test]
fn everything_comes_along() {
    for from in Which::ALL {
        for to in Which::ALL.iter().filter(|to| *to != from || *from == Which::Embedded) {
            let mut source = Bench::new(*from);
            let told = fill(&mut source);
            let expected = facts(&source.operator);
            let mut target = copied(&source, *to);
            assert_eq!(facts(&target.operator), expected, "{from:?} to {to:?}");
            compare(&source.operator, &target.operator);
            target.reopen();
            assert_eq!(facts(&target.operator), expected, "{to:?}, opened again");
            go_on(&mut target, &told);
        }
    }
}

#[test]
fn a_copy_that_broke_off_is_made_again() {
    for which in [Which::Embedded, *Which::ALL.last().expect("some")] {
        let mut source = Bench::new(Which::Memory);
        let told = fill(&mut source);
        let mut target = Bench::new(which);
        set_clock_of(&target, &source);
        let mut left = 3;
        assert!(!target.operator.begin_copy().expect("empty"));
        let broken = source.operator.export(&mut |facts| {
            left -= 1;
            target.operator.import(facts)?;
            if left > 0 { Ok(()) } else { Err(OperatorError::Invalid { reason: String::new() }) }
        });
        assert!(matches!(broken, Err(OperatorError::Invalid { .. })));
        assert_ne!(facts(&target.operator), facts(&source.operator));
        assert!(target.operator.begin_copy().expect("marked"), "it is known to have broken off");
        copy(&source.operator, &target.operator);
        compare(&source.operator, &target.operator);
        copy_again_is_refused(&target.operator);
        target.reopen();
        go_on(&mut target, &told);
    }
}

/// Once it is finished it has facts like any other.
fn copy_again_is_refused(operator: &Operator) {
    let error = operator.begin_copy().expect_err("it has facts");
    assert!(matches!(error, OperatorError::Conflict { .. }), "{error}");
    assert!(error.to_string().contains("empty"), "{error}");
}

#[test]
fn half_a_copy_is_not_served() {
    let directory = tempfile::tempdir().expect("a directory");
    let open = |unfinished| {
        let mut options = EmbeddedOptions::default();
        options.unfinished = unfinished;
        Embedded::open(directory.path(), options)
    };
    open(false).expect("new").operator().begin_copy().expect("empty");
    let error = open(false).expect_err("unfinished");
    assert!(matches!(error, OpenError::Unfinished { .. }), "{error}");
    assert!(error.to_string().contains("again"), "{error}");
    open(true).expect("to go on").operator().finish_copy().expect("finished");
    open(false).expect("finished");
}

#[test]
fn many_facts_come_along_in_pages() {
    let mut source = Bench::new(Which::Embedded);
    let (owner, _) = source.owner('a');
    let records = (0..2500).map(|number| {
        let said = CheckIn { mac: Mac::from_bits(number % 700), ..check_in() };
        let grant = Some(grant(None));
        let record = recording(owner, None, Some(said));
        Query::Record(Box::new(Record { grant, ..record }))
    });
    source.desk.ask_all(records.collect());
    for number in 0..1100_u64 {
        let (high, low) = ((number >> 8) as u8, number as u8);
        let udid = DeviceId([high, low, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1]);
        let said = CheckIn { mac: Mac::from_bits(number), ..check_in() };
        source.desk.submit(vec![Query::Record(Box::new(recording(owner, Some(udid), Some(said))))]);
    }
    source.desk.answers(1100);
    let expected = found_by_macs(&mut source, owner);
    for to in Which::ALL {
        let mut target = copied(&source, *to);
        compare(&source.operator, &target.operator);
        let back = if *to == Which::Embedded { Which::Memory } else { Which::Embedded };
        let mut back = copied(&target, back);
        compare(&source.operator, &back.operator);
        // All of them were registered in one second.
        assert_eq!(found_by_macs(&mut target, owner), expected, "{to:?}");
        assert_eq!(found_by_macs(&mut back, owner), expected, "{to:?} and back");
    }
}

fn found_by_macs(bench: &mut Bench, owner: OwnerId) -> Vec<DeviceId> {
    let identify = |mac| {
        let (owner, key, device) = (Some(owner), ApiKey([0; 32]), None);
        Query::Identify(Identify { owner, key, device, mac: Mac::from_bits(mac) })
    };
    let answers = bench.desk.ask_all((0..700).map(identify).collect());
    let found = answers.into_iter().map(|answer| {
        let Answer::Standing(Standing { device: DeviceStanding::Known(device), .. }) = answer
        else {
            panic!("{answer:?}")
        };
        device.id
    });
    found.collect()
}

#[test]
fn a_token_that_has_ended_is_left_out() {
    for to in Which::ALL {
        let mut source = Bench::new(Which::Memory);
        let told = fill(&mut source);
        let mut target = Bench::new(*to);
        set_clock_of(&target, &source);
        target.advance(48 * HOUR_MS);
        copy(&source.operator, &target.operator);
        let tokens = facts(&target.operator).iter().filter(|fact| fact.contains("Token(")).count();
        assert_eq!(tokens, 0, "{to:?}");
        assert!(!target.claim(told.started));
    }
}

#[test]
fn a_device_of_somebody_else_is_not_overwritten() {
    let mut source = Bench::new(Which::Memory);
    let (owner, _) = source.owner('a');
    device(&mut source, owner, 1, "");
    let mut target = Bench::new(Which::Embedded);
    let (other, _) = target.owner('b');
    device(&mut target, other, 1, "");
    let error = source
        .operator
        .export(&mut |facts| target.operator.import(facts))
        .expect_err("another owner's");
    assert!(matches!(error, OperatorError::Conflict { .. }), "{error}");
    assert_eq!(devices(&target.operator)[0].owner, other);
}

#[cfg(feature = "redis")]
mod redis {
    use otter_store::{Redis, RedisOptions};
    use otter_tests::redis::{RedisCluster, RedisServer};

    use super::*;

    /// A store on another server than the one of the benches, at the same time.
    fn elsewhere(url: String, source: &Bench) -> Bench {
        let mut options = RedisOptions::new(url);
        options.clock = Some(common::clock(&source.now_ms));
        Bench { now_ms: std::sync::Arc::clone(&source.now_ms), ..Bench::on_redis(options) }
    }

    #[test]
    fn what_thinx_wrote_comes_along_as_it_is() {
        let mut source = Bench::new(Which::Redis);
        let told = fill(&mut source);
        let owner = OwnerId::parse(&"7".repeat(64)).expect("an owner id");
        let key = "88eb20839c1d8bf43819818b75a25cef3244c28e77817386b7b73b043193cef4";
        let entry = format!(r#"{{"name":"mqtt","key":"{key}","hash":"-","alias":"Default"}}"#);
        let text = format!("[{entry}, {entry}]");
        let name = format!("ak:{owner}");
        common::call(&["SET", &name, &text]);
        let identify = |bench: &mut Bench| {
            let key = ApiKey::parse(key.as_bytes()).expect("a key");
            let owner = Some(owner);
            bench.identify(Identify { owner, key, device: None, mac: None }).key
        };
        assert_eq!(identify(&mut source), KeyStanding::Valid, "it is taken in");

        let server = RedisServer::start();
        let mut target = elsewhere(server.url(), &source);
        copy(&source.operator, &target.operator);
        assert_eq!(facts(&source.operator), facts(&target.operator));
        assert_eq!(server.call(&["GET", &name]).text(), text, "byte for byte");
        assert_eq!(identify(&mut target), KeyStanding::Valid);

        // Into a store that keeps hashes only, once.
        let mut embedded = copied(&target, Which::Embedded);
        assert_eq!(facts(&embedded.operator), facts(&target.operator));
        assert_eq!(embedded.operator.keys(Some(&owner)).expect("keys").len(), 1);
        assert_eq!(identify(&mut embedded), KeyStanding::Valid);
        go_on(&mut target, &told);
    }

    #[test]
    fn a_cluster_is_filled_and_emptied_alike() {
        let mut source = Bench::new(Which::Embedded);
        let told = fill(&mut source);
        let cluster = RedisCluster::start(3, 0);
        let mut target = elsewhere(cluster.url(), &source);
        copy(&source.operator, &target.operator);
        compare(&source.operator, &target.operator);
        let mut back = copied(&target, Which::Memory);
        compare(&source.operator, &back.operator);
        go_on(&mut back, &told);
        // Its clock is the source's, which the other did not move.
        go_on(&mut target, &told);
    }

    #[test]
    fn half_a_copy_is_not_served_from_redis() {
        let server = RedisServer::start();
        let directory = tempfile::tempdir().expect("a directory");
        let open = |unfinished| {
            let mut options = RedisOptions::new(server.url());
            options.unfinished = unfinished;
            Redis::open(directory.path(), options)
        };
        open(false).expect("new").operator().begin_copy().expect("empty");
        let error = open(false).expect_err("unfinished");
        assert!(matches!(error, OpenError::Unfinished { .. }), "{error}");
        open(true).expect("to go on").operator().finish_copy().expect("finished");
        open(false).expect("finished");
    }
}
