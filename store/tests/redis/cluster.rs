//! Redis Cluster: slots that move, nodes that die or forget.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use otter_protocol::{DeviceId, Query};
use otter_store::Target;
use otter_tests::redis::{RedisCluster, RedisOptions, wait_for};

use crate::common::{Bench, check_in, grant, recording};
use crate::life::{Home, is_away, options, wait_until_served, whole_life};

#[test]
fn devices_live_on_a_cluster() {
    let cluster = RedisCluster::start(3, 1);
    let mut bench = Bench::on_redis(options(cluster.url()));
    for letter in ['a', 'b', 'c'] {
        whole_life(&mut bench, letter);
    }
    // A node that lost its functions is given them again.
    for node in cluster.nodes().iter().take(3) {
        node.call(&["FUNCTION", "FLUSH"]);
    }
    whole_life(&mut bench, 'd');
}

#[test]
fn slots_move_while_they_are_used() {
    let cluster = RedisCluster::start(3, 1);
    // Waiting for replicas goes with the slot.
    let mut waiting = options(cluster.url());
    waiting.replicas = 1;
    // A machine that compiles meanwhile may hold a Redis up for longer than it counts as there.
    (waiting.timeout, waiting.replicas_timeout) = (PATIENCE, PATIENCE);
    let mut bench = Bench::on_redis(waiting);
    let home = Home::new(&mut bench, 'a');
    // Redis wants all keys of a call on one side meanwhile, so a device that has no tokens may have
    // to wait until the slot is moved. This one always has a token.
    let release = bench.publish(home.owner, Target::All, b"image").offer.release;
    let kept = bench.grant(home.owner, home.device, grant(Some(release)));
    for round in 0..3 {
        let slot = cluster.slot(&format!("dev:{{{}}}", home.device));
        let to = (cluster.owner(slot) + 1) % 3;
        let mut serve = |moment: &str| {
            let version = format!("{round}.{moment}");
            let answer = bench.desk.ask(home.check_in(&version));
            assert!(!is_away(&answer), "{round}: {moment}");
            assert_eq!(home.version(&mut bench.desk), Some(version));
            let token = home.token(&mut bench);
            assert!(bench.claim(token) && !bench.claim(token));
        };
        serve("before");
        cluster.begin_migration(slot, to);
        serve("begun");
        cluster.migrate_keys(slot, to);
        serve("moved");
        cluster.end_migration(slot, to);
        serve("ended");
    }
    assert!(bench.claim(kept) && !bench.claim(kept));
}

#[test]
fn keys_of_one_device_that_are_on_two_nodes_are_waited_for() {
    let cluster = RedisCluster::start(3, 0);
    let mut bench = Bench::on_redis(options(cluster.url()));
    let home = Home::new(&mut bench, 'a');
    let token = home.token(&mut bench);
    let name = format!("dev:{{{}}}", home.device);
    let slot = cluster.slot(&name);
    let (from, to) = (cluster.owner(slot), (cluster.owner(slot) + 1) % 3);
    cluster.begin_migration(slot, to);
    // Only the device goes; its tokens stay behind: both nodes answer TRYAGAIN.
    cluster.migrate_key(from, to, &name);
    let mut desk = bench.another_desk();
    desk.submit(vec![home.check_in("9.9.9")]);
    assert!(desk.collect().is_empty(), "nobody can answer yet");
    cluster.migrate_keys(slot, to);
    cluster.end_migration(slot, to);
    assert!(!is_away(&desk.answers(1)[0]), "it was asked again");
    assert_eq!(home.version(&mut bench.desk).as_deref(), Some("9.9.9"));
    assert!(bench.claim(token) && !bench.claim(token));
}

/// A node, a device that is elsewhere with its owner, and one that is on that node.
fn on_two_nodes(cluster: &RedisCluster, bench: &mut Bench, home: Home) -> (usize, Home, Home) {
    let owner_of = |name: &str| cluster.owner(cluster.slot(name));
    let catalog = owner_of(&format!("ak:{}", home.owner));
    let other = (catalog + 1) % 3;
    let on = |node: usize| {
        let ids = (0..=255_u8).map(|n| DeviceId([n; 16]));
        let mut found = ids.filter(|id| owner_of(&format!("dev:{{{id}}}")) == node);
        Home { device: found.next().expect("a device of each node"), ..home }
    };
    let (here, there) = (on(catalog), on(other));
    for home in [here, there] {
        let record = recording(home.owner, Some(home.device), Some(check_in()));
        assert!(bench.record(record).is_some());
    }
    (other, here, there)
}

#[test]
fn a_dead_master_concerns_its_own_slots_only() {
    // By default a cluster refuses everybody while one master is dead.
    let redis = RedisOptions {
        more: vec!["cluster-require-full-coverage no".to_owned()],
        ..RedisOptions::default()
    };
    let mut cluster = RedisCluster::start_with(3, 1, &redis);
    let mut bench = Bench::on_redis(options(cluster.url()));
    let home = Home::new(&mut bench, 'a');
    let (dead, here, there) = on_two_nodes(&cluster, &mut bench, home);
    // So that the replica has it all, too.
    wait_for("the replica", || {
        let node = &cluster.nodes()[dead + 3];
        let key = format!("dev:{{{}}}", there.device);
        let mut client = node.client();
        client.call(&["READONLY"]);
        (client.call(&["EXISTS", &key]).integer() == 1).then_some(())
    });
    cluster.node_mut(dead).kill();
    let (mut served, mut rounds) = (0, 0);
    wait_for("the slots of the dead", || {
        rounds += 1;
        let is_served = !is_away(&bench.desk.ask(here.identify()));
        let is_kept = !is_away(&bench.desk.ask(here.check_in("2.0.0")));
        served += u32::from(is_served && is_kept);
        (!is_away(&bench.desk.ask(there.identify()))).then_some(())
    });
    assert_eq!(served, rounds, "others were served all the time");
    assert!(bench.operator.trouble().is_none());
    wait_until_served(&mut bench.desk, &there.check_in("3.0.0"));
    assert_eq!(there.version(&mut bench.desk).as_deref(), Some("3.0.0"));
    cluster.restart(dead);
    whole_life(&mut bench, 'b');
}

#[test]
fn a_paused_node_holds_nobody_else_up() {
    let mut cluster = RedisCluster::start(3, 0);
    let mut patient = options(cluster.url());
    patient.timeout = Duration::from_secs(4);
    let mut bench = Bench::on_redis(patient);
    let home = Home::new(&mut bench, 'a');
    let (node, here, there) = on_two_nodes(&cluster, &mut bench, home);
    cluster.nodes()[node].pause();
    let paused = Instant::now();
    let mut waiting = bench.another_desk();
    waiting.submit((0..1000).map(|_| there.identify()).collect());
    let mut answers = Vec::new();
    wait_for("those who ask it to be told", || {
        assert!(!is_away(&bench.desk.ask(here.identify())), "the others answer");
        assert!(!is_away(&bench.desk.ask(here.check_in("2.0.0"))));
        answers.extend(waiting.collect());
        (answers.len() == 1000).then_some(())
    });
    assert!(answers.iter().all(|(_, answer)| is_away(answer)));
    assert!(is_away(&bench.desk.ask(there.identify())));
    assert!(
        paused.elapsed() < Duration::from_secs(4),
        "after a quarter of the timeout, and at once"
    );
    cluster.nodes()[node].resume();
    wait_until_served(&mut bench.desk, &there.check_in("3.0.0"));
    cluster.wait_until_ok();

    // All of them at once, as after a loss of power.
    for number in 0..3 {
        cluster.node_mut(number).kill();
    }
    wait_for("the outage to be seen", || bench.operator.trouble());
    assert!(is_away(&bench.desk.ask(here.identify())));
    for number in 0..3 {
        cluster.node_mut(number).restart();
    }
    cluster.wait_until_ok();
    // They kept nothing on disk: nobody is known, and they say so.
    wait_until_served(&mut bench.desk, &here.identify());
    wait_until_served(&mut bench.desk, &there.identify());
    assert_eq!(here.version(&mut bench.desk), None);
    whole_life(&mut bench, 'b');
}

#[test]
fn a_node_that_hands_over_loses_nobody() {
    let mut cluster = RedisCluster::start(3, 1);
    let mut waiting = options(cluster.url());
    waiting.replicas = 1;
    // The old master lets writes wait until the new one has everything.
    waiting.timeout = Duration::from_secs(20);
    let mut bench = Bench::on_redis(waiting);
    let home = Home::new(&mut bench, 'a');
    let (node, _, there) = on_two_nodes(&cluster, &mut bench, home);
    let heir = node + 3;
    let mut beside = bench.another_desk();
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        // Whoever asks while others wait for the new master waits, too.
        scope.spawn(|| {
            let mut asked = 0;
            while !is_over.load(Ordering::Relaxed) {
                beside.submit(vec![there.identify()]);
                asked += 1;
                // A rate, not a wait: whatever becomes of those before.
                thread::sleep(Duration::from_millis(2));
            }
            let away = beside.answers(asked).iter().filter(|answer| is_away(answer)).count();
            assert_eq!(away, 0, "of {asked}");
        });
        let _over = OnDrop(|| is_over.store(true, Ordering::Relaxed));
        // Redis gives up on it after 5 s, which a busy machine may need.
        let (mut versions, mut asked) = (0.., None::<Instant>);
        wait_for("the other to be master", || {
            if asked.is_none_or(|asked| asked.elapsed() > Duration::from_secs(6)) {
                cluster.nodes()[heir].call(&["CLUSTER", "FAILOVER"]);
                asked = Some(Instant::now());
            }
            let version = format!("1.0.{}", versions.next()?);
            let answer = bench.desk.ask(there.check_in(&version));
            assert!(!is_away(&answer), "{version}: {:?}", bench.operator.trouble());
            assert_eq!(there.version(&mut bench.desk), Some(version));
            (cluster.nodes()[heir].info("role").as_deref() == Some("master")).then_some(())
        });
        // Also when all nodes have heard of it.
        cluster.wait_until_ok();
    });
    let token = there.token(&mut bench);
    wait_until_served(&mut bench.desk, &Query::Start { token });
    assert!(bench.claim(token) && !bench.claim(token));
    // One that is away when a server starts keeps it from nothing but its own slots.
    let dead = (node + 1) % 3;
    cluster.node_mut(dead).kill();
    let mut other = Bench::on_redis(options(cluster.url()));
    wait_until_served(&mut other.desk, &there.identify());
}

/// Does something at the end, also if that is a panic.
struct OnDrop<F: Fn()>(F);

impl<F: Fn()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        self.0();
    }
}

/// Longer than anything takes on a machine that is busy with something else.
const PATIENCE: Duration = Duration::from_secs(20);
