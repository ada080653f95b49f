//! Redis goes away and comes back under a load of 500 check-ins a second over three servers.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use otter_tests::load::{Acknowledged, Class, Load, Plan, Report};
use otter_tests::redis::{Appends, RedisCluster, RedisOptions, RedisServer, wait_for};
use serde_json::Value;

use crate::admin;
use crate::metrics::scrape;
use crate::site::{Site, all_devices, alone, wanted};

/// What is promised: from the first answer of Redis on.
const RECOVERY_MAX: Duration = Duration::from_secs(3);
/// What the memory of a server may grow by during an outage: buffers, not a backlog.
const GROWTH_KIB_MAX: u64 = 8 * 1024;

/// Killed and restarted, then stopped and continued: once each, or as often as
/// `OTTER_OUTAGES` says.
#[test]
fn an_outage_under_load_loses_nothing_and_ends_with_the_outage() {
    let _turn = alone();
    let options = RedisOptions { appends: Appends::Always, ..RedisOptions::default() };
    let mut redis = RedisServer::start_with(options);
    let site = Site::alike(3, &[("OTTER_STORE", &redis.url())]);
    let load = Load::start(plan(&site));
    load.wait_for_right(1000);
    let before = memory_kib(&site);
    for outage in 0..wanted("OTTER_OUTAGES", 1) {
        let killed = Instant::now();
        redis.kill();
        wait_until_away(&site, &load);
        redis.restart();
        let back = Instant::now();
        let recovery = load.wait_until_recovered(back);
        eprintln!("{outage}: killed for {:?}, service {recovery:?} later", back - killed);
        assert!(recovery < RECOVERY_MAX, "{recovery:?} after a kill");

        let stopped = Instant::now();
        redis.pause();
        wait_until_away(&site, &load);
        redis.resume();
        let back = Instant::now();
        let recovery = load.wait_until_recovered(back);
        eprintln!("{outage}: stopped for {:?}, service {recovery:?} later", back - stopped);
        assert!(recovery < RECOVERY_MAX, "{recovery:?} after a stop");
    }
    load.wait_for_right(500);
    let after = memory_kib(&site);
    let report = load.stop();
    eprintln!("{report}; memory before and after, in KiB: {before:?} {after:?}");
    let unavailable = |class: &Class| *class == Class::Unavailable;
    if report.count(unavailable) > 0 {
        let (most, all) = (report.latency(99, unavailable), report.latency(100, unavailable));
        eprintln!("a 503 took {most:?} (99 of 100), {all:?} (all)");
    }

    report.assert_right();
    assert!(report.count(unavailable) > 0, "{report}");
    assert_eq!(report.count(|class| *class == Class::Closed), 0, "servers never end: {report}");
    for (before, after) in before.iter().zip(&after) {
        assert!(after.saturating_sub(*before) <= GROWTH_KIB_MAX, "{before} to {after} KiB");
    }
    let known = known(&site, 2);
    assert!(report.acknowledged.len() > 300, "{report}");
    for device in &report.acknowledged {
        assert_kept(&known, device);
    }
}

/// A replica takes over from a master. Redis promises only what the replica had: so what was
/// acknowledged before replicas were seen to have caught up must be there, and of what came
/// between that and the death as much as was replicated.
#[test]
fn a_failover_of_a_cluster_under_load_gives_no_wrong_answer() {
    let _turn = alone();
    let mut redis = RedisCluster::start_with(3, 1, &RedisOptions::default());
    let site = Site::alike(3, &[("OTTER_STORE", &redis.url())]);
    let load = Load::start(plan(&site));
    load.wait_for_right(500);
    let safe = Instant::now();
    wait_until_replicated(&redis);
    let (dead, _) = redis.kill_master(0);
    let back = Instant::now();
    let recovery = load.wait_until_recovered(back);
    redis.restart(dead);
    load.wait_for_right(500);
    let report = load.stop();
    eprintln!("{report}; service {recovery:?} after the cluster was whole");

    report.assert_right();
    assert!(recovery < RECOVERY_MAX, "{recovery:?} after a failover");
    assert_eq!(report.count(|class| *class == Class::Closed), 0, "servers never end: {report}");
    let known = known(&site, 1);
    let (mut lost, mut between) = (0, 0);
    let macs = macs_answered(&report);
    for device in &report.acknowledged {
        let times = &macs[device.mac.as_str()];
        let is_safe = times.iter().any(|at| *at < safe || *at > back + RECOVERY_MAX);
        if is_safe {
            assert!(known.contains_key(&device.udid), "{device:?} is forgotten");
        } else {
            between += 1;
            lost += usize::from(!known.contains_key(&device.udid));
        }
    }
    eprintln!("{lost} of {between} registrations around the failover were not replicated");
}

fn plan(site: &Site) -> Plan {
    let servers = site.places.iter().map(|place| place.server().http).collect();
    let seed = wanted("SEED", 1);
    Plan { seed, ..Plan::new(servers, &site.owner, &site.key) }
}

/// All servers say that they cannot, on each way on which they can say it; and devices hear it.
fn wait_until_away(site: &Site, load: &Load) {
    for place in &site.places {
        let socket = &place.server().admin;
        let trouble = wait_for("a server to notice", || {
            let (status, body) = admin::raw(socket, "GET", "/health", b"");
            (status == 503).then_some(body)
        });
        let trouble: Value = serde_json::from_str(&trouble).expect("JSON");
        assert!(trouble["error"].as_str().is_some_and(|text| text.contains("Redis")), "{trouble}");
        assert!(scrape(socket).contains("\notter_redis_up 0\n"));
    }
    // A second's worth that finds nobody there.
    let ended = load.ended();
    wait_for("check-ins in vain", || (load.ended() >= ended + 500).then_some(()));
}

/// Resident memory of each server.
fn memory_kib(site: &Site) -> Vec<u64> {
    let resident = |pid: u32| {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("memory");
        line.trim().trim_end_matches(" kB").parse().expect("a number")
    };
    site.places.iter().map(|place| resident(place.server().pid())).collect()
}

/// All devices by their ids, as a server shows them.
fn known(site: &Site, server: usize) -> HashMap<String, Value> {
    let all = all_devices(&site.server(server).admin).into_iter();
    all.map(|device| (crate::program::text(&device, "udid"), device)).collect()
}

/// It is known, with its MAC and the version that was acknowledged last, or one that was sent after
/// it without an answer.
fn assert_kept(known: &HashMap<String, Value>, device: &Acknowledged) {
    let row = known.get(&device.udid).unwrap_or_else(|| panic!("{device:?} is forgotten"));
    let mac = row["mac"].as_str().expect("a MAC").replace(':', "");
    assert_eq!(mac, device.mac);
    let version = row["version"].as_str().expect("a version");
    let sent = device.versions_unknown.iter().any(|unknown| unknown == version);
    assert!(version == device.version || sent, "{version} of {device:?}");
}

fn wait_until_replicated(redis: &RedisCluster) {
    for node in redis.nodes() {
        if node.info("role").as_deref() != Some("master") {
            continue;
        }
        let number = |field| node.info(field).and_then(|n| n.parse::<u64>().ok()).unwrap_or(0);
        let written = number("master_repl_offset");
        wait_for("the replica to have it", || {
            let replica = node.info("slave0")?;
            let offset = replica.split(',').find_map(|part| part.strip_prefix("offset="))?;
            (offset.parse::<u64>().ok()? >= written).then_some(())
        });
    }
}

/// When each device was answered rightly.
fn macs_answered(report: &Report) -> HashMap<&str, Vec<Instant>> {
    let mut answered: HashMap<&str, Vec<Instant>> = HashMap::new();
    for sent in report.sent.iter().filter(|sent| sent.class.is_right()) {
        answered.entry(&sent.mac).or_default().push(sent.at + sent.latency);
    }
    answered
}
