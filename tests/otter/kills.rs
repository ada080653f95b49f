//! `kill -9` of servers and of Redis at random moments, while devices download by token and resume
//! at any server: no token gives its image twice, and everybody ends with a whole one.

use std::collections::HashSet;

use otter_tests::Random;
use otter_tests::redis::{Appends, RedisOptions, RedisServer, Sentinels, wait_for};

use crate::downloads::Downloads;
use crate::site::{Site, all_devices, wanted};

const DEVICES: u32 = 50;

/// 10 kills, every third of Redis, which also stands still now and then; or as many as
/// `OTTER_KILLS` says.
#[test]
fn kills_of_servers_and_of_redis_give_no_image_twice_and_lose_no_registration() {
    let mut redis = RedisServer::start_with(lasting());
    let images = tempfile::tempdir().expect("a directory");
    let mut site = site(&[("OTTER_STORE", &redis.url())], &images);
    let mut random = random();
    let downloads = Downloads::start(&site, DEVICES, &mut random);
    let registrations = [(); 3].map(|()| downloads.register());
    let kills = wanted("OTTER_KILLS", 10);
    for kill in 1..=kills {
        downloads.wait_for_attempts(random.below(100));
        if kill % 4 == 0 {
            redis.pause();
            downloads.wait_for_attempts(random.below(20));
            redis.resume();
        }
        if kill % 3 == 0 {
            redis.kill();
            downloads.wait_for_attempts(random.below(20));
            redis.restart();
        } else {
            let number = random.below(site.places.len() as u64) as usize;
            site.places[number].take().kill();
            downloads.wait_for_attempts(random.below(20));
            site.places[number].restart();
            downloads.redirect(number, site.server(number).http);
        }
    }
    let outcome = downloads.finish();
    let registered = registrations.map(|thread| thread.join().expect("registered")).concat();
    eprintln!("{kills} kills: {outcome}; {} registered", registered.len());

    assert!(outcome.resumed > 0, "no download was ever cut off: {outcome}");
    outcome.assert_once_each(DEVICES);
    assert_known(&site, &registered);
    for place in &mut site.places {
        assert!(place.take().stop().status.success());
    }
}

/// The primary dies and its replica, which sentinels promote, takes over: claims wait for it.
#[test]
fn a_promoted_replica_gives_no_image_twice() {
    let mut redis = Sentinels::start_with(1, &lasting());
    let images = tempfile::tempdir().expect("a directory");
    let variables = [("OTTER_STORE", &*redis.url()), ("OTTER_TOKEN_REPLICAS", "1")];
    let site = site(&variables, &images);
    let mut random = random();
    let downloads = Downloads::start(&site, DEVICES, &mut random);
    for _ in 0..wanted("OTTER_FAILOVERS", 1) {
        downloads.wait_for_attempts(100 + random.below(100));
        let (old, new) = redis.kill_primary();
        // Alone it confirms no claim: that is the price.
        redis.server_mut(old).restart();
        let port = redis.servers()[new].port().to_string();
        redis.servers()[old].call(&["REPLICAOF", "127.0.0.1", &port]);
        redis.servers()[old].wait_until_synced();
        let finished = downloads.finished();
        wait_for("downloads that finish again", || {
            (downloads.finished() > finished + 20).then_some(())
        });
    }
    let outcome = downloads.finish();
    eprintln!("promoted: {outcome}");
    outcome.assert_once_each(DEVICES);
}

fn lasting() -> RedisOptions {
    RedisOptions { appends: Appends::Always, ..RedisOptions::default() }
}

fn site(variables: &[(&str, &str)], images: &tempfile::TempDir) -> Site {
    let images = images.path().display().to_string();
    let more = [
        ("OTTER_IMAGES", images.as_str()),
        // Answers that are lost with a server count as offers without effect.
        ("OTTER_OFFERS_MAX", "250"),
    ];
    Site::alike(3, &[variables, &more].concat())
}

fn random() -> Random {
    let seed = wanted("SEED", u64::from(std::process::id()));
    eprintln!("SEED={seed} plays this again, as far as processes do");
    Random::new(seed)
}

/// Are all devices there whose registration was acknowledged?
fn assert_known(site: &Site, registered: &[String]) {
    let all = all_devices(&site.server(0).admin).into_iter();
    let known: HashSet<_> = all.map(|device| crate::program::text(&device, "udid")).collect();
    let lost: Vec<_> = registered.iter().filter(|udid| !known.contains(*udid)).collect();
    assert!(lost.is_empty(), "{} of {}: {lost:?}", lost.len(), registered.len());
}
