//! `otter store copy`: a living installation moves to Redis and back, as docs/operating.md says.

use std::io::Read;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use otter_tests::redis::RedisServer;
use serde_json::Value;

use crate::admin;
use crate::device::{Device, image};
use crate::program::{Data, Ran, command, text};

/// More than the buffers on the way can hold, so that a download does not end by itself.
const IMAGE_BYTES: usize = 16 << 20;
const READ_BYTES: usize = 300_000;

/// An installation with devices, one of them in the middle of a download.
struct Living {
    data: Data,
    image: Vec<u8>,
    devices: Vec<Device>,
    /// The token of a download that was cut off, and what came of it.
    begun: String,
    part: Vec<u8>,
    /// A token that nobody tried.
    untouched: String,
}

impl Living {
    fn new() -> Self {
        let data = Data::new();
        let image = image(IMAGE_BYTES, 9);
        let server = data.serve();
        let (owner, key) = admin::owner_with_key(&server.admin);
        let devices: Vec<_> = (0..5).map(|n| Device::nth(server.http, &owner, &key, n)).collect();
        for device in &devices {
            assert_eq!(device.check_in("1.0.0")["status"], "OK");
            data.json(&["device", "set", &device.udid, "--auto-update", "on"]);
        }
        let target = format!("/releases?owner={owner}&all=true&version=1.1.0&platform=arduino");
        admin::json(&server.admin, "POST", &target, &image);
        let begun = text(&devices[1].check_in("1.0.0"), "ott");
        let untouched = devices[2].token();
        let part = devices[1].download_part(&begun);
        assert!(server.stop().status.success());
        Self { data, image, devices, begun, part, untouched }
    }

    /// Starts a server elsewhere, and lets the devices go on there.
    fn go_on(&self, data: &Path, store: Option<&str>) {
        let store: Vec<_> = store.iter().map(|url| ("OTTER_STORE", *url)).collect();
        let server = crate::program::Server::start(data, &[], &store);
        let at = |device: &Device| Device { server: server.http, ..device.clone() };
        let rest = at(&self.devices[1]).download(&self.begun, self.part.len());
        assert_eq!(rest.status, 206, "{}", rest.text());
        assert!([&self.part[..], &rest.body].concat() == self.image, "one whole image");
        assert_eq!(at(&self.devices[1]).download(&self.begun, 0).status, 404, "once");
        assert!(at(&self.devices[2]).download(&self.untouched, 0).body == self.image);
        let offer = at(&self.devices[3]).check_in("1.0.0");
        assert_eq!(offer["status"], "FIRMWARE_UPDATE", "{offer}");
        assert_eq!(at(&self.devices[4]).check_in("1.1.0")["status"], "OK");
        assert!(server.stop().status.success());
    }
}

impl Device {
    /// The first bytes of an image; then the connection ends.
    fn download_part(&self, token: &str) -> Vec<u8> {
        let mut stream = self.request_download(token, 0).expect("connected");
        let mut bytes = vec![0; READ_BYTES];
        stream.read_exact(&mut bytes).expect("readable");
        let answer = crate::device::Answer::parse(bytes).expect("an answer");
        assert_eq!(answer.status, 200);
        answer.body
    }
}

#[test]
fn an_installation_moves_to_redis_and_back_as_the_documentation_says() {
    let living = Living::new();
    let redis = RedisServer::start();
    let (data, back) = (living.data.path(), living.data.beside("back"));
    let shell = Shell::new(&living.data, &redis)
        .replacing("/var/lib/otter-back", &back)
        .replacing("/var/lib/otter", &data);
    let blocks = shell.blocks("Moving to Redis, and back");
    let printed = shell.run(&blocks[0]);
    for line in ["owners    2     2   yes", "devices   5     5   yes", "tokens    2     2   yes"] {
        assert!(printed.contains(line), "{line}: {printed}");
    }
    assert!(!data.join("otter.db").exists() && data.join("otter.db.before").exists());
    assert!(!data.join("otter.db-wal").exists(), "nothing of it is left beside");
    living.go_on(&data, Some(&redis.url()));

    let printed = shell.run(&blocks[1]);
    assert!(printed.contains("images    1     1   yes"), "{printed}");
    let server = crate::program::Server::start(&back, &[], &[]);
    let at = |device: &Device| Device { server: server.http, ..device.clone() };
    assert_eq!(at(&living.devices[2]).download(&living.untouched, 0).status, 404);
    let offer = at(&living.devices[0]).check_in("1.0.0");
    assert!(at(&living.devices[0]).download(&text(&offer, "ott"), 0).body == living.image);
    let shown = admin::json(&server.admin, "GET", "/devices", b"");
    assert_eq!(shown.as_array().map(Vec::len), Some(5));
}

#[test]
fn a_redis_is_backed_up_and_restored_as_the_documentation_says() {
    let living = Living::new();
    let (redis, mut other) = (RedisServer::start(), RedisServer::start());
    let data = living.data.path().display().to_string();
    assert_eq!(living.data.run(&["store", "copy", &data, &redis.url()]).code, 0);

    let backup = living.data.beside("backup");
    std::fs::create_dir(&backup).expect("made");
    let shell = |redis: &RedisServer| {
        Shell::new(&living.data, redis)
            .replacing("/var/lib/otter2", &living.data.beside("restored"))
            .replacing("/var/lib/otter", &living.data.path())
            .replacing("/var/lib/redis", redis.directory())
            .replacing("/backup", &backup)
    };
    let blocks = shell(&redis).blocks("Back-up and restore with Redis");
    shell(&redis).run(&blocks[0]);
    other.stop();
    shell(&other).run(&blocks[1]);
    other.restart();
    shell(&other).run(&blocks[2]);
    assert_eq!(other.info("aof_enabled").as_deref(), Some("1"));

    let url = other.url();
    let restored = living.data.beside("restored");
    let server = crate::program::Server::start(&restored, &[], &[("OTTER_STORE", &url)]);
    let at = |device: &Device| Device { server: server.http, ..device.clone() };
    assert_eq!(at(&living.devices[2]).download(&living.untouched, 0).status, 404, "dropped");
    let offer = at(&living.devices[1]).check_in("1.0.0");
    assert!(at(&living.devices[1]).download(&text(&offer, "ott"), 0).body == living.image);
}

#[test]
fn images_come_along_into_another_directory() {
    let living = Living::new();
    let redis = RedisServer::start();
    let (data, other) = (living.data.path(), living.data.beside("other"));
    let ran = living.copy(&[&data.display().to_string(), &redis.url()], &other, &[]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    living.go_on(&other, Some(&redis.url()));
}

#[test]
fn a_copy_without_its_images_is_no_copy() {
    let living = Living::new();
    let redis = RedisServer::start();
    let (data, nothing) = (living.data.path(), living.data.beside("nothing"));
    let ran = living.copy(&[&data.display().to_string(), &redis.url()], &nothing, &[]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    std::fs::remove_dir_all(nothing.join("images")).expect("removed");
    let other = RedisServer::start();
    let ran = living.copy(&[&redis.url(), &other.url()], &nothing, &[]);
    assert_eq!(ran.code, 1, "{}", ran.stderr);
    assert!(ran.stderr.contains("not the same: images"), "{}", ran.stderr);
}

#[test]
fn the_store_that_is_configured_is_meant_by_that_word() {
    let living = Living::new();
    let redis = RedisServer::start();
    let data = living.data.path();
    let store = [("OTTER_STORE", redis.url())];
    let ran = living.copy(&[&data.display().to_string(), "configured", "--json"], &data, &store);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let rows: Value = serde_json::from_str(&ran.stdout).expect("JSON");
    assert_eq!(rows[2], serde_json::json!({"what":"devices","from":5,"to":5,"same":true}));
    assert!(!ran.stderr.contains("redis://"), "{}", ran.stderr);
}

#[test]
fn what_cannot_be_copied_is_refused_and_says_why() {
    let living = Living::new();
    let redis = RedisServer::start();
    let (data, url) = (living.data.path(), redis.url());
    let name = data.display().to_string();
    let nowhere = living.data.beside("nowhere").display().to_string();
    let refused = |args: &[&str], code: i32, words: &str| {
        let ran = living.copy(args, &data, &[]);
        assert_eq!(ran.code, code, "{args:?}: {}", ran.stderr);
        assert!(ran.stderr.contains(words), "{args:?}: {}", ran.stderr);
    };
    refused(&[&nowhere, &url], 3, "no store in");
    refused(&[&name, &name], 2, "the same store");
    refused(&[&name, "http://127.0.0.1"], 2, "redis://");
    assert!(!Path::new(&nowhere).exists());

    let server = living.data.serve();
    refused(&[&name, &url], 4, "stop");
    refused(&[&url, &nowhere], 4, "a server runs on");
    drop(server);
    assert_eq!(living.copy(&[&name, &url], &data, &[]).code, 0);
    refused(&[&name, &url], 4, "empty");

    // A copy that did not come to its end is not served, and is made again.
    redis.call(&["FLUSHALL"]);
    redis.call(&["SET", "unfinished", "1"]);
    let serve = ["serve", "--listen", "127.0.0.1:0", "--store", &url];
    let ran = living.data.run(&serve);
    assert_eq!(ran.code, 4, "{}", ran.stderr);
    assert!(ran.stderr.contains("was not finished"), "{}", ran.stderr);
    let ran = living.copy(&[&name, &url], &data, &[]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert!(ran.stderr.contains("going on"), "{}", ran.stderr);
    living.go_on(&data, Some(&url));
}

#[test]
fn what_is_not_the_same_afterwards_is_named() {
    let living = Living::new();
    let redis = RedisServer::start();
    let (data, url) = (living.data.path(), redis.url());
    // A half copy of something else.
    redis.call(&["SET", "unfinished", "1"]);
    redis.call(&["SET", &format!("ak:{}", "7".repeat(64)), "[]"]);
    let ran = living.copy(&[&data.display().to_string(), &url], &data, &[]);
    assert_eq!(ran.code, 1, "{}", ran.stderr);
    assert!(ran.stderr.contains("not the same: owners"), "{}", ran.stderr);
    assert!(ran.stdout.contains("owners    2     3   no"), "{}", ran.stdout);
    assert!(ran.stdout.contains("devices   5     5   yes"), "{}", ran.stdout);
    let ran = living.data.run(&["serve", "--listen", "127.0.0.1:0", "--store", &url]);
    assert_eq!(ran.code, 4, "it is not served: {}", ran.stderr);
}

impl Living {
    fn copy(&self, args: &[&str], data: &Path, variables: &[(&str, String)]) -> Ran {
        let mut command = command(data);
        command.args(["store", "copy"]).args(args);
        command.envs(variables.iter().map(|(name, value)| (*name, value)));
        Ran::of(command.output().expect("the program runs"))
    }
}

/// Runs what docs/operating.md says, with the places of a test.
struct Shell {
    /// Has `otter` in it.
    programs: PathBuf,
    replaced: Vec<(String, String)>,
}

impl Shell {
    fn new(data: &Data, redis: &RedisServer) -> Self {
        let programs = data.beside("programs");
        std::fs::create_dir_all(&programs).expect("made");
        // Another of the same directory may have made it.
        let _ = symlink(env!("CARGO_BIN_EXE_otter"), programs.join("otter"));
        Self { programs, replaced: vec![("redis://127.0.0.1:6379".to_owned(), redis.url())] }
    }

    fn replacing(mut self, text: &str, path: &Path) -> Self {
        self.replaced.push((text.to_owned(), path.display().to_string()));
        self
    }

    /// The blocks of shell lines in a section.
    fn blocks(&self, section: &str) -> Vec<String> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/operating.md");
        let page = std::fs::read_to_string(path).expect("the page");
        let section = page.split(&format!("## {section}\n")).nth(1).expect("the section");
        let section = section.split("\n## ").next().unwrap_or_default();
        let blocks = section.split("```sh\n").skip(1);
        blocks.map(|block| block.split("```").next().unwrap_or_default().to_owned()).collect()
    }

    fn run(&self, block: &str) -> String {
        let text = self.replaced.iter().fold(block.to_owned(), |text, (from, to)| {
            // What was put in is not looked at again.
            text.replace(from, &format!("\u{1}{}\u{2}", to.replace('/', "\u{3}")))
        });
        let text = text.replace(['\u{1}', '\u{2}'], "").replace('\u{3}', "/");
        let path = std::env::var("PATH").expect("a path");
        let mut command = Command::new("sh");
        command.args(["-ec", &text]).env("PATH", format!("{}:{path}", self.programs.display()));
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("OTTER_") {
                command.env_remove(name);
            }
        }
        let output = command.output().expect("a shell");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{text}\n{stderr}");
        String::from_utf8(output.stdout).expect("UTF-8")
    }
}
