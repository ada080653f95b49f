//! Ways to reach Redis, and what is said when there is none that will do.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use otter_protocol::Query;
use otter_store::{Redis, RedisOptions};
use otter_tests::redis::{self, RedisCluster, RedisServer, Sentinels, Tls};

use crate::common::Bench;
use crate::life::{Home, options, wait_until_served, whole_life};

/// Awkward in a URL: it is written there as `p%40s%2Fs%3Aw%23%25`.
const PASSWORD: &str = "p@s/s:w#%";
const PASSWORD_IN_URL: &str = "p%40s%2Fs%3Aw%23%25";

/// What a user needs for Otter, as docs/redis.md says.
const RULES: &str = "resetchannels -@all \
    ~ak:* ~own:* ~rels:* ~owners ~unfinished ~rel:* ~dev:* ~facts:* ~push:* ~tok:* ~ott:* \
    ~mac:* ~devs:* ~ticketkeys \
    +fcall +function|load +info +ping +scan +wait +client|id +cluster|slots +asking +role \
    +time +exists +del +get +set +pexpire +pttl +hget +hmget +hgetall +hset +hsetnx +hdel \
    +hincrby +zadd +zcard +zrange +zrangebylex +zrem +zscore";

fn server(options: redis::RedisOptions) -> RedisServer {
    RedisServer::start_with(options)
}

#[test]
fn passwords_and_users_are_presented() {
    let redis = redis::RedisOptions {
        password: Some(PASSWORD.to_owned()),
        users: vec![format!("otter on >{PASSWORD} {RULES}")],
        ..redis::RedisOptions::default()
    };
    let server = server(redis);
    let port = server.port();
    for credentials in ["", "default", "otter"] {
        let url = format!("redis://{credentials}:{PASSWORD_IN_URL}@127.0.0.1:{port}");
        whole_life(
            &mut Bench::on_redis(options(url)),
            if credentials == "otter" { 'b' } else { 'a' },
        );
        server.call(&["FLUSHALL"]);
        server.call(&["FUNCTION", "FLUSH"]);
    }
    assert_refused(&format!("redis://127.0.0.1:{port}"), "NOAUTH");
    assert_refused(&format!("redis://:wrong-{PASSWORD_IN_URL}@127.0.0.1:{port}"), "WRONGPASS");
    assert_refused(&format!("redis://nobody:{PASSWORD_IN_URL}@127.0.0.1:{port}"), "WRONGPASS");
}

#[test]
fn the_least_user_is_enough_for_owners_that_thinx_made_and_for_replicas() {
    let user = format!("otter on >secret {RULES}");
    let redis = redis::RedisOptions { users: vec![user], ..redis::RedisOptions::default() };
    let primary = server(redis.clone());
    let replica_of = Some(primary.port());
    let _replica = server(redis::RedisOptions { replica_of, ..redis });
    let owner = "c".repeat(64);
    primary.call(&["SET", &format!("ak:{owner}"), "[]"]);
    let mut options = options(primary.url_as("otter", "secret"));
    options.replicas = 1;
    // Not how long it takes is tried here, but what the user may.
    options.replicas_timeout = Duration::from_secs(30);
    let mut bench = Bench::on_redis(options);
    assert_eq!(bench.operator.owners().expect("owners")[0].owner.as_str(), owner);
    whole_life(&mut bench, 'a');
    let time = primary.client().call(&["TIME"]);
    let unix_s = time.items()[0].text().parse().expect("seconds");
    assert_eq!(bench.operator.ticket_keys(unix_s).expect("keys").len(), 2);
    let denied = primary.client().call(&["ACL", "LOG"]);
    assert!(denied.items().is_empty(), "{denied:?}");
}

#[test]
fn a_user_that_may_too_little_is_told_what() {
    let rules = RULES.replace("+function|load", "");
    let redis = redis::RedisOptions {
        users: vec![format!("otter on >secret {rules}")],
        ..redis::RedisOptions::default()
    };
    let server = server(redis);
    let said = assert_refused(&server.url_as("otter", "secret"), "function|load");
    assert!(said.contains("its functions cannot be loaded"), "{said}");
}

#[test]
fn databases_are_kept_apart() {
    let server = RedisServer::start();
    for (database, letter) in [(0, 'a'), (7, 'b')] {
        let mut bench = Bench::on_redis(options(format!("{}/{database}", server.url())));
        let home = Home::new(&mut bench, letter);
        assert_eq!(bench.operator.owners().expect("owners").len(), 1);
        // Also after the connection was lost.
        let _ = server.client().try_call(&["CLIENT", "KILL", "TYPE", "normal"]);
        wait_until_served(&mut bench.desk, &home.identify());
        assert_eq!(bench.operator.owners().expect("owners").len(), 1);
    }
    let mut client = server.client();
    assert_eq!(client.call(&["ZCARD", "owners"]).integer(), 1);
    client.call(&["SELECT", "7"]);
    assert_eq!(client.call(&["ZCARD", "owners"]).integer(), 1);
}

#[test]
fn tls_is_spoken_with_an_authority_of_ones_own() {
    let redis = redis::RedisOptions {
        tls: Tls::Server,
        password: Some("secret".to_owned()),
        ..redis::RedisOptions::default()
    };
    let (server, other) = (server(redis.clone()), server(redis));
    let mut trusting = options(server.url());
    trusting.ca = Some(server.authority_file());
    whole_life(&mut Bench::on_redis(trusting.clone()), 'a');
    // Signed by somebody else.
    trusting.ca = Some(other.authority_file());
    let said = refusal(trusting.clone());
    assert!(said.to_lowercase().contains("certificate"), "{said}");
    // The system does not know it either.
    trusting.ca = None;
    let said = refusal(trusting.clone());
    assert!(said.to_lowercase().contains("certificate"), "{said}");
    // Without TLS, where it is spoken.
    trusting.url = trusting.url.replacen("rediss", "redis", 1);
    assert!(!refusal(trusting).contains("secret"));
}

#[test]
fn a_unix_socket_is_as_good() {
    let redis = redis::RedisOptions { unix_socket: true, ..redis::RedisOptions::default() };
    let mut server = server(redis);
    let mut bench = Bench::on_redis(options(server.unix_url()));
    whole_life(&mut bench, 'a');
    let home = Home::new(&mut bench, 'b');
    server.restart();
    wait_until_served(&mut bench.desk, &home.identify());
}

#[test]
fn sentinels_lead_to_the_primary_also_to_the_next() {
    let redis = redis::RedisOptions {
        password: Some("secret".to_owned()),
        ..redis::RedisOptions::default()
    };
    let mut sentinels = Sentinels::start_with(1, &redis);
    let mut waiting = options(sentinels.url());
    waiting.replicas = 1;
    let mut bench = Bench::on_redis(waiting);
    let home = Home::new(&mut bench, 'a');
    let token = home.token(&mut bench);
    assert!(bench.claim(token));
    for kills in [false, true] {
        let old = if kills { sentinels.kill_primary().0 } else { sentinels.failover().0 };
        wait_until_served(&mut bench.desk, &home.check_in("2.0.0"));
        assert_eq!(home.version(&mut bench.desk).as_deref(), Some("2.0.0"));
        wait_until_served(&mut bench.desk, &Query::Claim { token });
        assert!(!bench.claim(token), "the replica knew of the claim");
        if !kills {
            sentinels.servers()[old].wait_until_synced();
        }
    }
}

#[test]
fn tls_and_passwords_are_used_on_each_node_of_a_cluster() {
    let redis = redis::RedisOptions {
        password: Some("secret".to_owned()),
        users: vec![format!("otter on >fish {RULES}")],
        ..redis::RedisOptions::default()
    };
    let cluster = RedisCluster::start_with(3, 0, &redis);
    whole_life(&mut Bench::on_redis(options(cluster.url())), 'a');
    let as_user = cluster.url().replace(":secret@", "otter:fish@");
    whole_life(&mut Bench::on_redis(options(as_user)), 'b');
    assert_refused(&cluster.url().replace("secret", "wrong-secret"), "WRONGPASS");
    // One of the nodes that the URL names is enough.
    let one = format!("redis-cluster://:secret@127.0.0.1:1?node={}", cluster.nodes()[1].address());
    whole_life(&mut Bench::on_redis(options(one)), 'c');
    // And a single server is no cluster.
    let single = RedisServer::start();
    assert_refused(&single.url().replacen("redis", "redis-cluster", 1), "cluster");
}

#[test]
fn what_will_not_do_is_refused_with_a_reason() {
    let nobody = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("known");
    let said = assert_refused(&format!("redis://:secret@{nobody}"), "refused");
    assert!(said.contains(&format!("{nobody}: Connection refused")), "{said}");
    let web = fake(|_| b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec());
    assert_refused(&format!("redis://:secret@{web}"), "cannot use Redis");
    let old = fake(|words| match words {
        [info, ..] if info == "INFO" => bulk("redis_version:6.2.14\r\n"),
        [client, ..] if client == "CLIENT" => b":1\r\n".to_vec(),
        _ => b"+OK\r\n".to_vec(),
    });
    let said = assert_refused(&format!("redis://:secret@{old}"), "6.2.14");
    assert!(said.contains("Redis 7"), "{said}");
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let mut hasty = options(format!("redis://:secret@{}", silent.local_addr().expect("known")));
    hasty.timeout = Duration::from_millis(300);
    let said = refusal(hasty);
    assert!(!said.contains("secret"), "{said}");
    for url in ["redis://:secret@:x", "http://:secret@h", "redis+unix://", "redis://:secret@h/x"] {
        let said = refusal(options(url));
        assert!(said.starts_with("the URL of Redis makes no sense: "), "{url}: {said}");
        assert!(!said.contains("secret"), "{said}");
    }
}

/// It is refused for this reason, and no secret is told.
fn assert_refused(url: &str, reason: &str) -> String {
    let said = refusal(options(url));
    assert!(said.starts_with("cannot use Redis: ") && said.contains(reason), "{url}: {said}");
    assert!(!said.contains("secret") && !said.contains(PASSWORD), "{said}");
    said
}

fn refusal(options: RedisOptions) -> String {
    let directory = tempfile::tempdir().expect("a directory");
    Redis::open(directory.path(), options).expect_err("it will not do").to_string()
}

/// Somebody who answers to each command, whoever they are.
fn fake(answer: impl Fn(&[String]) -> Vec<u8> + Send + Clone + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("known");
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (Ok(stream), answer) = (stream, answer.clone()) else { return };
            std::thread::spawn(move || talk(&stream, answer));
        }
    });
    address
}

fn talk(stream: &TcpStream, answer: impl Fn(&[String]) -> Vec<u8>) -> Option<()> {
    let mut lines = BufReader::new(stream).lines();
    loop {
        let count: usize = lines.next()?.ok()?.strip_prefix('*')?.parse().ok()?;
        let mut words = Vec::new();
        for _ in 0..count {
            let _length = lines.next()?.ok()?;
            words.push(lines.next()?.ok()?.to_uppercase());
        }
        { stream }.write_all(&answer(&words)).ok()?;
    }
}

fn bulk(text: &str) -> Vec<u8> {
    format!("${}\r\n{text}\r\n", text.len()).into_bytes()
}
