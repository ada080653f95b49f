//! The real Redis servers that other tests stand on ([`otter_tests::redis`]).

use otter_tests::redis::{
    Appends, Client, RedisCluster, RedisOptions, RedisServer, Sentinels, Tls, Value, wait_for,
};

fn kept() -> RedisOptions {
    RedisOptions { appends: Appends::Always, ..RedisOptions::default() }
}

#[test]
fn what_was_appended_survives_a_kill_and_nothing_else_does() {
    let mut kept = RedisServer::start_with(kept());
    let mut forgetful = RedisServer::start();
    for server in [&mut kept, &mut forgetful] {
        let (port, pid) = (server.port(), server.pid());
        assert_eq!(server.call(&["SET", "key", "value"]).text(), "OK");
        server.kill();
        assert!(Client::connect(server.address()).is_err(), "nobody listens");
        server.restart();
        assert_eq!(server.port(), port);
        assert_ne!(server.pid(), pid);
    }
    assert_eq!(kept.call(&["GET", "key"]).text(), "value");
    assert_eq!(forgetful.call(&["GET", "key"]), Value::Nil);
    kept.restart();
    assert_eq!(kept.call(&["GET", "key"]).text(), "value", "neither is it lost by a stop");
}

#[test]
fn many_servers_at_once_have_ports_of_their_own() {
    let threads: Vec<_> = (0..4)
        .map(|n: u32| {
            std::thread::spawn(move || {
                let mut server = RedisServer::start_with(kept());
                for _ in 0..3 {
                    server.call(&["SET", "who", &n.to_string()]);
                    server.kill();
                    server.restart();
                    assert_eq!(server.call(&["GET", "who"]).text(), n.to_string());
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().expect("its own server");
    }
}

#[test]
fn a_paused_server_answers_later() {
    let server = RedisServer::start();
    let mut client = server.client();
    server.pause();
    let answer = std::thread::spawn(move || client.call(&["INCR", "n"]).integer());
    assert!(!answer.is_finished());
    server.resume();
    assert_eq!(answer.join().expect("an answer"), 1);
}

#[test]
fn passwords_users_and_memory_are_limited() {
    let server = RedisServer::start_with(RedisOptions {
        password: Some("secret".to_owned()),
        users: vec!["otter on >fish ~ott:* +@all -@dangerous".to_owned()],
        memory_bytes_max: Some(3 << 20),
        unix_socket: true,
        ..RedisOptions::default()
    });
    assert_eq!(server.url(), format!("redis://:secret@127.0.0.1:{}", server.port()));
    assert_eq!(
        server.url_as("otter", "fish"),
        format!("redis://otter:fish@127.0.0.1:{}", server.port())
    );
    let mut client = Client::connect_unix(&server.unix_path()).expect("a socket");
    let refusal = |client: &mut Client, words: &[&str]| match client.try_call(words) {
        Ok(Value::Error(error)) => error.split(' ').next().unwrap_or_default().to_owned(),
        other => panic!("{words:?}: {other:?}"),
    };
    assert_eq!(refusal(&mut client, &["GET", "ott:a"]), "NOAUTH");
    assert_eq!(client.call(&["AUTH", "otter", "fish"]).text(), "OK");
    assert_eq!(client.call(&["SET", "ott:a", "b"]).text(), "OK");
    assert_eq!(refusal(&mut client, &["GET", "other"]), "NOPERM");
    assert_eq!(refusal(&mut client, &["FLUSHALL"]), "NOPERM");
    assert_eq!(client.call(&["AUTH", "secret"]).text(), "OK");
    let large = "x".repeat(1 << 20);
    let mut writes = (0..4).map(|n| client.try_call(&["SET", &n.to_string(), &large]));
    assert!(writes.any(|write| matches!(write, Ok(Value::Error(e)) if e.starts_with("OOM"))));
}

#[test]
fn tls_is_spoken_with_certificates_of_its_own_authority() {
    for tls in [Tls::Server, Tls::Mutual] {
        let mut server = RedisServer::start_with(RedisOptions { tls, ..kept() });
        assert!(server.url().starts_with("rediss://127.0.0.1:"));
        assert_eq!(server.call(&["SET", "key", "value"]).text(), "OK");
        server.kill();
        server.restart();
        assert_eq!(server.call(&["GET", "key"]).text(), "value");
        let plain = Client::connect(server.address()).expect("a connection");
        assert!({ plain }.try_call(&["PING"]).is_err(), "it speaks nothing else");
        let (certificate, key) = server.client_files();
        for file in [server.authority_file(), certificate, key] {
            assert!(std::fs::read_to_string(file).expect("a file").contains("-----BEGIN "));
        }
    }
}

#[test]
fn a_replica_takes_over_by_hand() {
    let mut primary = RedisServer::start_with(kept());
    primary.call(&["SET", "key", "1"]);
    let mut replica =
        RedisServer::start_with(RedisOptions { replica_of: Some(primary.port()), ..kept() });
    assert_eq!(replica.call(&["GET", "key"]).text(), "1");
    // On one connection: WAIT is about the writes of its own.
    let mut client = primary.client();
    client.call(&["SET", "key", "2"]);
    assert_eq!(client.call(&["WAIT", "1", "10000"]).integer(), 1);

    replica.pause();
    client.call(&["SET", "key", "3"]);
    assert_eq!(client.call(&["WAIT", "1", "20"]).integer(), 0, "a paused replica confirms nothing");
    primary.kill();
    replica.resume();
    replica.promote();
    // It may have been sent, and not yet been read.
    assert!(["2", "3"].contains(&replica.call(&["GET", "key"]).text().as_str()));
    replica.call(&["SET", "key", "4"]);
    replica.restart();
    assert_eq!(replica.info("role").as_deref(), Some("master"), "for good");

    primary.restart();
    primary.follow(&replica);
    assert_eq!(primary.call(&["GET", "key"]).text(), "4");
}

#[test]
fn a_cluster_answers_on_all_slots_and_survives_the_loss_of_a_master() {
    let mut cluster = RedisCluster::start(3, 1);
    assert_eq!(cluster.nodes().len(), 6);
    assert!(cluster.url().starts_with("redis-cluster://127.0.0.1:"));
    assert_eq!(cluster.url().matches("node=127.0.0.1:").count(), 5);
    assert_eq!(cluster.url().matches('?').count(), 1);
    let owners: Vec<_> = (0..16_384).step_by(1024).map(|slot| cluster.owner(slot)).collect();
    assert!((0..3).all(|master| owners.contains(&master)), "{owners:?}");
    for key in ["a", "b", "c", "{tag}1", "{tag}2"] {
        assert_eq!(cluster.call(key, &["SET", key, key]).text(), "OK");
    }
    assert_eq!(cluster.slot("{tag}1"), cluster.slot("{tag}2"));

    let slot = cluster.slot("a");
    let owner = cluster.owner(slot);
    // As many as were there before: what was not sent to the replica yet would be lost.
    let mut client = cluster.nodes()[owner].client();
    client.call(&["SET", "a", "a"]);
    assert_eq!(client.call(&["WAIT", "1", "10000"]).integer(), 1);
    let (dead, heir) = cluster.kill_master(slot);
    assert_eq!((dead, heir), (owner, owner + 3), "its replica");
    assert_eq!(cluster.call("a", &["GET", "a"]).text(), "a");
    cluster.restart(dead);
    wait_for("the old master to follow", || {
        (cluster.nodes()[dead].info("role").as_deref() == Some("slave")).then_some(())
    });
}

#[test]
fn a_slot_moves_while_it_is_used() {
    let cluster = RedisCluster::start(3, 0);
    let slot = cluster.slot("{tag}");
    let from = cluster.owner(slot);
    let to = (from + 1) % 3;
    for n in 0..250 {
        cluster.nodes()[from].call(&["SET", &format!("{{tag}}{n}"), "value"]);
    }
    let error = |node: usize, key: &str| {
        let answer = cluster.nodes()[node].client().try_call(&["GET", key]);
        match answer.expect("an answer") {
            Value::Error(error) => error.split(' ').next().unwrap_or_default().to_owned(),
            found @ (Value::Nil | Value::Integer(_) | Value::Bytes(_) | Value::List(_)) => {
                found.into_text().map(|_| "there".to_owned()).expect("a value")
            }
        }
    };
    assert_eq!(error(to, "{tag}1"), "MOVED");
    cluster.begin_migration(slot, to);
    assert_eq!(error(from, "{tag}new"), "ASK");
    assert_eq!(error(from, "{tag}1"), "there");
    cluster.migrate_keys(slot, to);
    assert_eq!(error(from, "{tag}1"), "ASK");
    assert_eq!(error(to, "{tag}1"), "MOVED", "without ASKING");
    cluster.end_migration(slot, to);
    assert_eq!((error(from, "{tag}1"), error(to, "{tag}1")), ("MOVED".into(), "there".into()));
    assert_eq!(cluster.owner(slot), to);
    cluster.migrate_slot(slot, from);
    assert_eq!(cluster.call("{tag}249", &["GET", "{tag}249"]).text(), "value");
}

#[test]
fn sentinels_find_another_primary() {
    let mut all = Sentinels::start(2);
    assert_eq!(all.url().matches("127.0.0.1:").count(), 3);
    assert!(all.url().ends_with("&sentinelServiceName=otter"));
    let (old, new) = all.failover();
    assert_eq!((old, all.primary()), (0, new));
    all.servers()[new].call(&["SET", "key", "value"]);
    let (dead, heir) = all.kill_primary();
    assert_eq!(dead, new);
    assert_eq!(all.servers()[heir].call(&["SET", "key", "again"]).text(), "OK");
    all.server_mut(dead).restart();
    wait_for("the dead one to follow", || {
        (all.servers()[dead].info("role").as_deref() == Some("slave")).then_some(())
    });
}
