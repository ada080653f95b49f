//! `otter publish`, and what devices get of it.

use crate::admin;
use crate::device::{Device, image, sha256};
use crate::program::{Data, Server, keys, text};

struct Stage {
    data: Data,
    server: Server,
    device: Device,
}

impl Stage {
    fn new() -> Self {
        let data = Data::new();
        let server = data.serve();
        let (owner, key) = admin::owner_with_key(&server.admin);
        let device = Device::nth(server.http, &owner, &key, 1);
        device.check_in("1.0.0");
        Self { data, server, device }
    }

    fn args<'a>(&'a self, path: &'a str, version: &'a str, platform: &'a str) -> Vec<&'a str> {
        let head = ["publish", path, "--owner", &self.device.owner, "--all"];
        [&head[..], &["--version", version, "--platform", platform]].concat()
    }

    fn file(&self, name: &str, bytes: &[u8]) -> String {
        let path = self.data.beside(name);
        std::fs::write(&path, bytes).expect("written");
        path.display().to_string()
    }
}

#[test]
fn what_is_published_is_what_devices_get() {
    let stage = Stage::new();
    let bytes = image(100_000, 7);
    let path = stage.file("app.bin", &bytes);
    let published = stage.data.json(&stage.args(&path, "1.1.0", "arduino"));
    assert_eq!(
        keys(&published),
        ["devices", "md5", "platform", "release", "sha256", "size", "version", "waiting"]
    );
    assert_eq!(published["sha256"], sha256(&bytes));
    assert_eq!((&published["size"], &published["version"]), (&100_000.into(), &"1.1.0".into()));
    assert_eq!((&published["devices"], &published["waiting"]), (&1.into(), &1.into()));

    assert_eq!(stage.device.check_in("1.0.0")["status"], "OK", "auto-update is off");
    stage.data.json(&["device", "set", &stage.device.udid, "--auto-update", "on"]);
    let offer = stage.device.check_in("1.0.0");
    assert_eq!((&offer["status"], &offer["version"]), (&"FIRMWARE_UPDATE".into(), &"1.1.0".into()));
    let answer = stage.device.download(&text(&offer, "ott"), 0);
    assert_eq!(answer.status, 200);
    assert!(answer.body == bytes);
    let again = stage.data.json(&stage.args(&path, "1.2.0", "arduino"));
    assert_eq!((&again["devices"], &again["waiting"]), (&1.into(), &0.into()));
}

#[test]
fn people_are_told_how_to_go_on() {
    let stage = Stage::new();
    let path = stage.file("app.bin", &image(5000, 0));
    let ran = stage.data.run(&stage.args(&path, "1.1.0", "arduino"));
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert!(ran.stdout.contains("1 will be offered it"), "{}", ran.stdout);
    assert!(ran.stdout.contains("otter device set UDID --auto-update on"), "{}", ran.stdout);
    assert!(ran.stderr.contains("only 5000 bytes"), "{}", ran.stderr);
    let odd = stage.data.run(&stage.args(&path, "Build-12", "arduino"));
    assert!(odd.stderr.contains("cannot be compared"), "{}", odd.stderr);
}

#[test]
fn files_become_one_json_text() {
    let stage = Stage::new();
    let directory = stage.data.beside("lua");
    std::fs::create_dir(&directory).expect("made");
    for (name, text) in [("thinx.lua", "print(1)"), ("config.lua", "x=1"), ("notes.txt", "n")] {
        std::fs::write(directory.join(name), text).expect("written");
    }
    let path = directory.display().to_string();
    let ran = stage.data.run(&stage.args(&path, "2.0.0", "nodemcu"));
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert!(ran.stderr.contains("left out: notes.txt"), "{}", ran.stderr);
    let list = stage.data.json(&["release", "list"]);
    assert_eq!((&list[0]["kind"], &list[0]["platform"]), (&"bundle".into(), &"nodemcu".into()));
    std::fs::write(directory.join("bad.lua"), b"\xff").expect("written");
    let refused = stage.data.run(&stage.args(&path, "2.0.1", "nodemcu"));
    assert_eq!(refused.code, 1);
    assert!(refused.stderr.contains("bad.lua is not UTF-8"), "{}", refused.stderr);
}

#[test]
fn what_is_not_fit_is_refused_and_nothing_is_published() {
    let stage = Stage::new();
    let good = stage.file("good.bin", &image(20_000, 0));
    let elf = stage.file("app.elf", &[&b"\x7fELF"[..], &[0; 20_000]].concat());
    let short = stage.file("short.bin", &image(999, 0));
    let absent = stage.data.beside("absent.bin").display().to_string();
    let fifo = stage.data.beside("fifo");
    let made = std::process::Command::new("mkfifo").arg(&fifo).status().expect("mkfifo");
    assert!(made.success());
    let fifo = fifo.display().to_string();
    let long = "1".repeat(97);
    for (path, version, platform, code, words) in [
        (&elf, "1.1.0", "arduino", 1, "begins with 7F 45"),
        (&short, "1.1.0", "arduino", 1, "999 bytes"),
        (&absent, "1.1.0", "arduino", 3, "absent.bin"),
        (&fifo, "1.1.0", "arduino", 1, "FIFO"),
        (&good, "1.1.0", "nodemcu", 1, "not an image"),
        (&good, "1.1.0", "esp32", 2, "arduino"),
        (&good, "1.1.0", "nodejs", 2, "git"),
        (&good, "1.1.0", "sigfox", 2, "downlink"),
        (&good, "1.\"0", "arduino", 2, "quote"),
        (&good, &long, "arduino", 2, "97 bytes"),
        (&good, " 1.1.0", "arduino", 2, "blanks around it"),
    ] {
        let ran = stage.data.run(&stage.args(path, version, platform));
        assert_eq!(ran.code, code, "{path} {version} {platform}: {}", ran.stderr);
        assert!(ran.stderr.contains(words), "{words}: {}", ran.stderr);
    }
    let unknown = [
        "publish",
        &good,
        "--owner",
        &stage.device.owner,
        "--device",
        "5ccf7fee-1337-4000-8000-0000000000ff",
        "--version",
        "1.1.0",
        "--platform",
        "arduino",
    ];
    let ran = stage.data.run(&unknown);
    assert_eq!(ran.code, 3, "{}", ran.stderr);
    assert!(ran.stderr.contains("check in first"), "{}", ran.stderr);
    let other = text(&stage.data.json(&["owner", "create"]), "owner");
    let mut foreign = unknown;
    (foreign[3], foreign[5]) = (&other, &stage.device.udid);
    let ran = stage.data.run(&foreign);
    assert_eq!(ran.code, 4, "{}", ran.stderr);
    assert!(ran.stderr.contains("belongs to another owner"), "{}", ran.stderr);
    assert_eq!(stage.data.json(&["release", "list"]), serde_json::json!([]));
}

#[test]
fn what_is_not_meant_perhaps_is_warned_of() {
    let stage = Stage::new();
    let path = stage.file("app.bin", &image(20_000, 0));
    let once = stage.data.run(&stage.args(&path, "1.1.0", "arduino"));
    assert_eq!((once.code, once.stderr.as_str()), (0, ""));
    let first = text(&stage.data.json(&["release", "list"])[0], "release");
    let twice = stage.data.run(&stage.args(&path, "1.1.0", "arduino"));
    assert_eq!(twice.code, 0);
    assert!(twice.stderr.contains(&format!("{first}, is the same")), "{}", twice.stderr);
    let later = stage.data.run(&stage.args(&path, "1.1.1", "arduino"));
    assert_eq!((later.code, later.stderr.as_str()), (0, ""));

    let mut args = stage.args(&path, "1.2.0", "pine64");
    args.retain(|arg| *arg != "--all");
    args.extend(["--device", &stage.device.udid]);
    let odd = stage.data.run(&args);
    assert_eq!(odd.code, 0, "{}", odd.stderr);
    assert!(odd.stderr.contains("reports the platform arduino, not pine64"), "{}", odd.stderr);
}

#[test]
fn the_limit_is_the_servers() {
    let data = Data::new();
    data.json(&["owner", "create"]);
    std::fs::write(data.path().join("otter.toml"), "image_bytes_max = 2000").expect("written");
    let server = data.serve();
    let owner = text(&data.json(&["owner", "list"])[0], "owner");
    let path = data.beside("app.bin");
    std::fs::write(&path, image(2001, 0)).expect("written");
    let path = path.display().to_string();
    let args =
        ["publish", &path, "--owner", &owner, "--all", "--version", "1", "--platform", "arduino"];
    let ran = data.run(&args);
    assert_eq!(ran.code, 1);
    assert!(ran.stderr.contains("the most is 2000"), "{}", ran.stderr);
    let target = format!("/releases?owner={owner}&all=true&version=1&platform=arduino");
    let (status, body) = admin::raw(&server.admin, "POST", &target, &image(2001, 0));
    assert_eq!(status, 422, "{body}");
    let stopped = server.stop();
    assert!(stopped.status.success());
    assert_eq!(data.run(&args).code, 1, "the same with the server stopped");
    let elsewhere = data.beside("elsewhere.toml");
    std::fs::write(&elsewhere, "image_bytes_max = 1500").expect("written");
    let mut named = crate::program::command(&data.path());
    let named = named.args(args).env("OTTER_CONFIG", &elsewhere).output().expect("it runs");
    let stderr = String::from_utf8_lossy(&named.stderr);
    assert!(stderr.contains("the most is 1500"), "{stderr}");
}

#[test]
fn a_body_that_breaks_off_is_not_published() {
    use std::io::{Read, Write};
    let stage = Stage::new();
    let target =
        format!("/releases?owner={}&all=true&version=1&platform=arduino", stage.device.owner);
    for chunked in [false, true] {
        let mut socket =
            std::os::unix::net::UnixStream::connect(&stage.server.admin).expect("there");
        let framing = if chunked { "Transfer-Encoding: chunked" } else { "Content-Length: 20000" };
        let head = format!("POST {target} HTTP/1.1\r\nHost: otter\r\n{framing}\r\n\r\n");
        socket.write_all(head.as_bytes()).expect("sent");
        if chunked {
            socket.write_all(b"2EE0\r\n").expect("sent");
        }
        socket.write_all(&image(12_000, 0)).expect("sent");
        socket.shutdown(std::net::Shutdown::Write).expect("half closed");
        // Whatever is said to that, the end of it says that the server is done with it.
        let _ = socket.read_to_end(&mut Vec::new());
    }
    assert_eq!(stage.data.json(&["release", "list"]), serde_json::json!([]));
}

#[test]
fn the_admin_api_answers_mistakes_in_json() {
    let stage = Stage::new();
    for (method, target, body, status) in [
        ("GET", "/nothing", "", 404),
        ("PUT", "/owners", "", 405),
        ("GET", "/devices?color=red", "", 400),
        ("GET", "/devices?limit=many", "", 400),
        ("GET", "/devices/short", "", 400),
        ("GET", "/devices/5ccf7fee-1337-4000-8000-0000000000ff", "", 404),
        ("POST", "/keys", "{", 400),
        ("POST", "/keys", "{\"owner\":\"x\"}", 400),
        ("POST", "/tokens", "{\"udid\":7}", 400),
        ("POST", "/releases?owner=x", "", 400),
        ("DELETE", "/tokens/abc", "", 400),
    ] {
        let (found, text) = admin::raw(&stage.server.admin, method, target, body.as_bytes());
        assert_eq!(found, status, "{method} {target}: {text}");
        let failure: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        assert!(failure["error"].is_string(), "{failure}");
    }
    let health = admin::json(&stage.server.admin, "GET", "/health", b"");
    assert_eq!((&health["status"], &health["pid"]), (&"ok".into(), &stage.server.pid().into()));
}
