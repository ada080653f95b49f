//! `otter serve`: starting, refusing to start, and stopping.

use std::io::Read;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;

use rustix::process::Signal;

use crate::admin;
use crate::device::{Device, image};
use crate::program::{Data, text};

#[test]
fn a_second_server_on_the_same_directory_is_refused() {
    let data = Data::new();
    let server = data.serve();
    let second = data.run(&["serve", "--listen", "127.0.0.1:0"]);
    assert_eq!(second.code, 4, "{}", second.stderr);
    assert!(second.stderr.contains(&format!("process {}", server.pid())), "{}", second.stderr);
    assert_eq!(second.stdout, "");
    let memory = data.run(&["serve", "--listen", "127.0.0.1:0", "--store", "memory"]);
    assert_eq!(memory.code, 4, "{}", memory.stderr);
    assert_eq!(
        data.json(&["owner", "list"]).as_array().map(Vec::len),
        Some(1),
        "the first goes on"
    );
}

#[test]
fn a_port_that_is_taken_is_named() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address").to_string();
    let ran = Data::new().run(&["serve", "--listen", &address]);
    assert_eq!(ran.code, 4, "{}", ran.stderr);
    assert!(ran.stderr.contains(&address) && ran.stderr.contains("--listen"), "{}", ran.stderr);
}

#[test]
fn wrong_configuration_is_named() {
    let data = Data::new();
    let file = data.beside("o.toml");
    std::fs::write(&file, "idle_timeout = 5\n").expect("written");
    let file = file.display().to_string();
    let ran = data.run(&["serve", "--config", &file]);
    assert_eq!(ran.code, 2, "{}", ran.stderr);
    assert!(ran.stderr.contains("unknown key `idle_timeout`"), "{}", ran.stderr);
    assert!(ran.stderr.contains("idle_timeout_s"), "{}", ran.stderr);
    let wrong = crate::program::command(&data.path())
        .args(["serve"])
        .env("OTTER_IDLE_TIMEOUT_S", "75s")
        .output()
        .expect("the program runs");
    assert_eq!(wrong.status.code(), Some(2));
    let stderr = String::from_utf8_lossy(&wrong.stderr);
    assert!(stderr.contains("`OTTER_IDLE_TIMEOUT_S`: found string \"75s\""), "{stderr}");
    let ran = data.run(&["serve", "--config", "/nowhere.toml"]);
    assert_eq!(ran.code, 3, "{}", ran.stderr);
}

#[test]
fn variables_are_settings() {
    let data = Data::new();
    let server =
        data.serve_with(&[], &[("OTTER_IMAGE_BYTES_MAX", "12345"), ("OTTER_IDEL_TIMEOUT_S", "5")]);
    assert_eq!(admin::json(&server.admin, "GET", "/health", b"")["image_bytes_max"], 12345);
    let ended = server.stop();
    assert!(ended.stderr.contains("OTTER_IDEL_TIMEOUT_S is no setting"), "{}", ended.stderr);
}

#[test]
fn the_socket_is_private_and_a_dead_servers_is_replaced() {
    let data = Data::new();
    let server = data.serve();
    let mode = std::fs::metadata(&server.admin).expect("there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let path = server.admin.clone();
    server.kill();
    assert!(path.exists(), "a killed server leaves its socket");
    assert_eq!(data.json(&["owner", "list"]).as_array().map(Vec::len), Some(1), "and no lock");
    let server = data.serve();
    assert_eq!(admin::json(&server.admin, "GET", "/health", b"")["status"], "ok");
    assert!(server.stop().status.success());
    assert!(!path.exists());
}

#[test]
fn a_path_too_long_for_a_socket_is_named() {
    let data = Data::new();
    let deep = data.beside(&"x".repeat(110)).display().to_string();
    let ran = data.run(&["serve", "--listen", "127.0.0.1:0", "--data", &deep]);
    assert_eq!(ran.code, 1, "{}", ran.stderr);
    assert!(ran.stderr.contains("too long by"), "{}", ran.stderr);

    let link = data.beside("short");
    std::fs::create_dir(&deep).expect("made");
    std::os::unix::fs::symlink(&deep, &link).expect("linked");
    let link = link.display().to_string();
    let server = data.serve_with(&["--data", &link], &[]);
    assert_eq!(data.run(&["owner", "list", "--data", &link]).code, 0);
    let ran = data.run(&["owner", "list", "--data", &deep]);
    assert_eq!(ran.code, 4, "{}", ran.stderr);
    assert!(ran.stderr.contains("as the server was given it"), "{}", ran.stderr);
    assert!(server.stop().status.success());
}

#[test]
fn it_prints_one_line_and_its_log_is_json_if_asked() {
    let data = Data::new();
    data.json(&["owner", "create"]);
    let ended = data.serve_with(&["--log-format", "json"], &[]).stop();
    assert!(ended.status.success());
    assert_eq!(ended.stdout, "");
    let lines: Vec<_> = ended.stderr.lines().collect();
    assert!(lines.len() >= 2, "{}", ended.stderr);
    for line in lines {
        let event: serde_json::Value = serde_json::from_str(line).expect("JSON");
        assert!(event["level"].is_string() && event["message"].is_string(), "{event}");
    }
}

#[test]
fn secrets_do_not_reach_the_log() {
    let data = Data::new();
    data.json(&["owner", "create"]);
    let server = data.serve_with(&[], &[("OTTER_LOG", "trace")]);
    let (owner, key) = admin::owner_with_key(&server.admin);
    let device = Device::nth(server.http, &owner, &key, 1);
    device.check_in("1.0.0");
    let target = format!("/releases?owner={owner}&all=true&version=1.1.0&platform=arduino");
    admin::json(&server.admin, "POST", &target, &image(50_000, 0));
    let token = device.token();
    assert_eq!(device.download(&token, 0).status, 200);
    assert_eq!(device.download(&token, 0).status, 404);
    let udid = device.udid;
    let issued = data.json(&["token", "issue", "--device", &udid]);
    data.json(&["token", "revoke", &text(&issued, "ott")]);
    let log = server.stop().stderr;
    assert!(log.contains(&udid), "requests are logged: {log}");
    for secret in [&key, &token, &text(&issued, "ott")] {
        assert!(!log.contains(&secret[..7]), "{log}");
    }
}

#[test]
fn sigterm_lets_a_download_finish() {
    let data = Data::new();
    let server = data.serve();
    let (owner, key) = admin::owner_with_key(&server.admin);
    let device = Device::nth(server.http, &owner, &key, 1);
    device.check_in("1.0.0");
    let bytes = image(16 << 20, 0);
    let target = format!("/releases?owner={owner}&all=true&version=1.1.0&platform=arduino");
    admin::json(&server.admin, "POST", &target, &bytes);
    let idle = TcpStream::connect(server.http).expect("connected");
    let mut download = device.request_download(&device.token(), 0).expect("connected");
    let mut begun = vec![0; 65536];
    download.read_exact(&mut begun).expect("the beginning");

    server.signal(Signal::TERM);
    // The idle connection is closed first, which tells that the order has arrived.
    let mut idle = idle;
    assert_eq!(idle.read(&mut [0; 16]).expect("closed"), 0);
    // Each worker closes its own listening socket; then nothing new is accepted.
    while TcpStream::connect(server.http).is_ok() {}
    download.read_to_end(&mut begun).expect("the rest");
    let answer = crate::device::Answer::parse(begun).expect("an answer");
    assert!(answer.status == 200 && answer.body == bytes);
    let ended = server.ended();
    assert!(ended.status.success(), "{ended:?}");
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let data = Data::new();
    let server = data.serve();
    let (owner, key) = admin::owner_with_key(&server.admin);
    let device = Device::nth(server.http, &owner, &key, 1);
    device.check_in("1.0.0");
    let target = format!("/releases?owner={owner}&all=true&version=1.1.0&platform=arduino");
    admin::json(&server.admin, "POST", &target, &image(16 << 20, 0));
    let mut idle = TcpStream::connect(server.http).expect("connected");
    let mut download = device.request_download(&device.token(), 0).expect("connected");
    download.read_exact(&mut [0; 1000]).expect("the beginning");
    server.signal(Signal::TERM);
    assert_eq!(idle.read(&mut [0; 16]).expect("closed"), 0);
    server.signal(Signal::INT);
    assert_eq!(server.ended().status.code(), Some(1), "the download would have held it up");
}

#[test]
fn memory_forgets() {
    let data = Data::new();
    let server = data.serve_with(&["--store", "memory"], &[]);
    assert_eq!(data.json(&["owner", "list"]).as_array().map(Vec::len), Some(1));
    let first = text(&data.json(&["owner", "list"])[0], "owner");
    server.stop();
    let server = data.serve_with(&["--store", "memory"], &[]);
    let second = text(&data.json(&["owner", "list"])[0], "owner");
    assert_ne!(first, second);
    assert!(server.stop().status.success());
}
