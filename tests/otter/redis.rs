//! `otter` with its facts in Redis: how it is named, what is said when it is not there.

use std::io::{Read, Write};
use std::net::TcpStream;

use otter_tests::redis::{RedisOptions, RedisServer, wait_for};
use serde_json::Value;

use crate::admin;
use crate::device::{Answer, Device, image};
use crate::metrics::scrape;
use crate::program::{Data, Ran, Server, command, text};

#[test]
fn health_metrics_and_devices_hear_of_an_outage_and_of_its_end() {
    let mut redis = RedisServer::start();
    let data = Data::new();
    let server = data.serve_with(&[], &[("OTTER_STORE", &redis.url())]);
    let (owner, key) = admin::owner_with_key(&server.admin);
    let device = Device::nth(server.http, &owner, &key, 1);
    device.check_in("1.0.0");
    assert_eq!(health(&server).0, 200);
    assert!(scrape(&server.admin).contains("\notter_redis_up 1\n"));

    redis.kill();
    let (_, said) = wait_for("the server to notice", || {
        let (status, said) = health(&server);
        (status == 503).then_some((status, said))
    });
    assert!(text(&said, "error").contains("Redis"), "{said}");
    assert!(text(&said, "hint").contains("come back later"), "{said}");
    assert!(scrape(&server.admin).contains("\notter_redis_up 0\n"));
    for answer in [device.register("1.0.0").expect("an answer"), device.download(&key, 0)] {
        assert_eq!(answer.status, 503, "{}", answer.head);
        assert!(answer.header("Retry-After").is_some(), "{}", answer.head);
        assert_eq!(answer.text(), "{\"success\":false,\"response\":\"unavailable\"}");
    }
    // What needs no store is answered as ever.
    let options = plain(&device, "OPTIONS /device/register HTTP/1.1\r\nHost: otter");
    assert!(options.status < 500, "{}", options.head);
    let ran = data.run(&["device", "list"]);
    assert_eq!(ran.code, 5, "{}", ran.stderr);

    redis.restart();
    wait_for("the server to be back", || (health(&server).0 == 200).then_some(()));
    let metrics = scrape(&server.admin);
    assert!(metrics.contains("\notter_redis_up 1\n"));
    assert!(metrics.contains("\notter_redis_outages_total 1\n"), "{metrics}");
    // It kept nothing on disk, and so forgot the owner.
    assert!(device.register("1.0.0").is_some_and(|answer| answer.status == 200));
    let ended = server.stop();
    assert!(ended.status.success(), "{}", ended.stderr);
}

#[test]
fn without_redis_nothing_starts_and_what_is_wrong_is_said() {
    let mut redis = RedisServer::start();
    redis.stop();
    let data = Data::new();
    let ran = data.run(&["serve", "--listen", "127.0.0.1:0", "--store", &redis.url()]);
    assert_eq!((ran.code, ran.stdout.as_str()), (5, ""), "{}", ran.stderr);
    assert!(ran.stderr.contains("Redis") && ran.stderr.contains("OTTER_STORE"), "{}", ran.stderr);
    let ran = with_store(&data, &redis.url(), &["owner", "create", "--json"]);
    assert_eq!(ran.code, 5, "{}", ran.stderr);
    let said = ran.stderr.lines().last().expect("an error");
    let said: Value = serde_json::from_str(said).expect("JSON");
    assert!(text(&said, "error").contains("Redis"), "{said}");

    // The data directory is whole, and good for another try.
    redis.restart();
    drop(data.serve_with(&["--store", &redis.url()], &[]));
}

#[test]
fn a_wrong_password_is_said_and_not_shown() {
    let right = "the-right-password";
    let password = Some(right.to_owned());
    let users = vec!["otter on >anothers-password ~* &* +@all".to_owned()];
    let redis = RedisServer::start_with(RedisOptions { password, users, ..Default::default() });
    let address = redis.address();
    for (credentials, secret) in
        [(":wrong-secret@", "wrong-secret"), ("otter:wrong-secret@", "wrong-secret"), ("", right)]
    {
        let url = format!("redis://{credentials}{address}");
        let data = Data::new();
        let by_flag = data.run(&["serve", "--listen", "127.0.0.1:0", "--store", &url]);
        let by_variable = with_store(&data, &url, &["owner", "list"]);
        std::fs::create_dir_all(data.path()).expect("made");
        let file = data.path().join("otter.toml");
        std::fs::write(&file, format!("store = \"{url}\"\n")).expect("written");
        let by_file = data.run(&["owner", "list"]);
        for ran in [by_flag, by_variable, by_file] {
            assert_eq!(ran.code, 5, "{url}: {}", ran.stderr);
            assert!(ran.stderr.contains("Redis"), "{url}: {}", ran.stderr);
            assert!(!ran.stderr.contains(secret), "{url}: {}", ran.stderr);
        }
    }
    let data = Data::new();
    for url in [redis.url(), redis.url_as("otter", "anothers-password")] {
        let server = data.serve_with(&["--store", &url], &[]);
        assert_eq!(health(&server).0, 200);
        let log = server.stop().stderr;
        assert!(!log.contains(right) && !log.contains("anothers-password"), "{log}");
    }
}

#[test]
fn commands_without_a_server_work_on_the_redis_that_is_named() {
    let redis = RedisServer::start();
    let url = redis.url();
    let data = Data::new();
    let json = |args: &[&str]| -> Value {
        let ran = with_store(&data, &url, &[args, &["--json"]].concat());
        assert_eq!(ran.code, 0, "{args:?}: {}", ran.stderr);
        serde_json::from_str(&ran.stdout).expect("JSON")
    };
    let owner = text(&json(&["owner", "create"]), "owner");
    let key = text(&json(&["key", "create", "--owner", &owner]), "key");
    let bytes = image(30_000, 3);
    let file = data.beside("app.bin");
    std::fs::write(&file, &bytes).expect("written");
    let file = file.display().to_string();
    let place = ["--owner", &owner, "--all", "--platform", "arduino", "--version", "1.1.0"];
    json(&[&["publish", &file][..], &place].concat());
    assert!(!data.path().join("otter.db").exists(), "no facts here");

    // A server on the same directory, named by its file, knows all of it.
    let config = data.path().join("otter.toml");
    std::fs::write(&config, format!("store = \"{url}\"\n")).expect("written");
    let server = data.serve();
    let device = Device::nth(server.http, &owner, &key, 1);
    device.check_in("1.0.0");
    let answer = device.download(&device.token(), 0);
    assert!(answer.status == 200 && answer.body == bytes, "{}", answer.head);

    // And what it learned is seen where nothing is but the variable, and by the file.
    assert!(server.stop().status.success());
    let listed = with_store(&Data::new(), &url, &["device", "list", "--json"]);
    assert_eq!(listed.code, 0, "{}", listed.stderr);
    let elsewhere = serde_json::from_str(&listed.stdout).expect("JSON");
    for devices in [json(&["device", "list"]), data.json(&["device", "list"]), elsewhere] {
        assert_eq!(devices.as_array().map(Vec::len), Some(1), "{devices}");
        assert_eq!(devices[0]["udid"], device.udid);
    }
    let issued = data.json(&["token", "issue", "--device", &device.udid]);
    assert_eq!(text(&issued, "ott").len(), 64);
}

#[test]
fn only_the_first_server_on_a_redis_makes_an_owner() {
    let redis = RedisServer::start();
    let data = [Data::new(), Data::new()];
    let servers = data.each_ref().map(|data| data.serve_with(&["--store", &redis.url()], &[]));
    let owners = data.each_ref().map(|data| data.json(&["owner", "list"]));
    assert_eq!(owners[0].as_array().map(Vec::len), Some(1));
    assert_eq!(owners[0], owners[1]);
    let [first, second] = servers.map(|server| server.stop().stderr);
    let says_key = |log: &str| log.contains("Authentication: ");
    assert!(says_key(&first) && !says_key(&second), "{first}\n{second}");
}

fn health(server: &Server) -> (u16, Value) {
    let (status, said) = admin::raw(&server.admin, "GET", "/health", b"");
    (status, serde_json::from_str(&said).expect("JSON"))
}

fn with_store(data: &Data, url: &str, args: &[&str]) -> Ran {
    let output = command(&data.path()).args(args).env("OTTER_STORE", url).output();
    Ran::of(output.expect("the program runs"))
}

fn plain(device: &Device, head: &str) -> Answer {
    let mut stream = TcpStream::connect(device.server).expect("connected");
    write!(stream, "{head}\r\nConnection: close\r\n\r\n").expect("sent");
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).expect("an answer");
    Answer::parse(bytes).expect("an answer")
}
