//! `otter import`.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::admin;
use crate::device::{Device, image, sha256};
use crate::program::{Data, text};

/// A deploy directory as THiNX leaves it.
pub(crate) struct Tree {
    pub(crate) root: PathBuf,
}

impl Tree {
    pub(crate) fn new(data: &Data) -> Self {
        let root = data.beside("deploy");
        fs::create_dir(&root).expect("made");
        Self { root }
    }

    pub(crate) fn place(&self, owner: &str, udid: &str) -> PathBuf {
        let place = self.root.join(owner).join(udid);
        fs::create_dir_all(&place).expect("made");
        place
    }

    /// A good build.
    pub(crate) fn build(&self, owner: &str, udid: &str, version: &str, image: &[u8]) -> PathBuf {
        let place = self.place(owner, udid);
        fs::write(place.join("firmware.bin"), image).expect("written");
        write_envelope(&place, &envelope(owner, udid, version));
        place
    }
}

/// The envelope of a good build.
pub(crate) fn envelope(owner: &str, udid: &str, version: &str) -> Value {
    json!({
        "platform": "platformio", "url": "git@github.com:x/y.git", "udid": udid,
        "commit": "0".repeat(40), "version": version, "firmware": version,
        "build_id": format!("build-{version}"), "owner": owner, "status": "OK",
        "timestamp": 1_795_478_790_123_u64, "env_hash": null, "md5": "0", "sha": "0"
    })
}

pub(crate) fn write_envelope(place: &Path, envelope: &Value) {
    let text = serde_json::to_string_pretty(envelope).expect("JSON") + "\n";
    fs::write(place.join("build.json"), text).expect("written");
}

#[test]
fn a_tree_is_published_once_and_devices_find_it() {
    for running in [true, false] {
        let data = Data::new();
        let server = running.then(|| data.serve());
        let tree = Tree::new(&data);
        let (one, other) = ("a1".repeat(32), "b2".repeat(32));
        let bytes = image(30_000, 1);
        tree.build(&one, &udid(1), "y:1.2.3", &bytes);
        tree.build(&other, &udid(2), "y:2.0.0", &image(30_000, 2));
        // What THiNX keeps beside it, and what is not built yet.
        fs::create_dir(tree.place(&one, &udid(1)).join("build-1")).expect("made");
        tree.place(&one, &udid(3));

        let (code, lines, stderr) = import(&data, &tree);
        assert_eq!((code, results(&lines)), (0, vec!["published", "published"]), "{stderr}");
        assert!(stderr.contains(&format!("made the owner {one}")), "{stderr}");
        assert_eq!(lines[0]["version"], "y:1.2.3");
        let (code, lines, _) = import(&data, &tree);
        assert_eq!((code, results(&lines)), (0, vec!["unchanged", "unchanged"]));

        let release = text(&lines[0], "release");
        data.json(&["release", "withdraw", &release]);
        let (_, lines, _) = import(&data, &tree);
        assert_eq!(lines[0]["result"], "unchanged", "what was withdrawn does not come back");
        tree.build(&one, &udid(1), "y:1.2.4", &bytes);
        let (_, lines, _) = import(&data, &tree);
        assert_eq!(results(&lines), ["published", "unchanged"]);

        // The device registers only now.
        let server = server.unwrap_or_else(|| data.serve());
        let key = text(&data.json(&["key", "create", "--owner", &one]), "key");
        let device = Device::nth(server.http, &one, &key, 1);
        device.check_in("1.0.0");
        data.json(&["device", "set", &device.udid, "--auto-update", "on"]);
        let offer = device.check_in("1.0.0");
        assert_eq!(offer["version"], "y:1.2.4");
        assert!(device.download(&text(&offer, "ott"), 0).body == bytes);
    }
}

#[test]
fn hostile_entries_are_reported_and_skipped() {
    let data = Data::new();
    let tree = Tree::new(&data);
    let owner = "a1".repeat(32);
    let good = image(20_000, 0);
    let secret = data.beside("secret.bin");
    fs::write(&secret, &good).expect("written");
    let outside = data.beside("outside");
    fs::create_dir(&outside).expect("made");
    fs::write(outside.join("firmware.bin"), &good).expect("written");

    tree.build(&owner, &udid(1), "1.0.0", &good);
    let linked_image = tree.build(&owner, &udid(2), "1.0.0", &good);
    fs::remove_file(linked_image.join("firmware.bin")).expect("removed");
    symlink(&secret, linked_image.join("firmware.bin")).expect("linked");
    let fifo = tree.build(&owner, &udid(3), "1.0.0", &good);
    fs::remove_file(fifo.join("build.json")).expect("removed");
    mkfifo(&fifo.join("build.json"));
    let fifo_image = tree.build(&owner, &udid(4), "1.0.0", &good);
    fs::remove_file(fifo_image.join("firmware.bin")).expect("removed");
    mkfifo(&fifo_image.join("firmware.bin"));
    let directory = tree.build(&owner, &udid(5), "1.0.0", &good);
    fs::remove_file(directory.join("firmware.bin")).expect("removed");
    fs::create_dir(directory.join("firmware.bin")).expect("made");
    symlink(&outside, tree.root.join(&owner).join(udid(6))).expect("linked");
    symlink(&outside, tree.root.join("c3".repeat(32))).expect("linked");
    tree.build(&owner, "not-a-udid", "1.0.0", &good);
    let escaping = tree.place(&owner, &udid(7));
    fs::write(escaping.join("firmware.bin"), &good).expect("written");
    write_envelope(&escaping, &envelope("../../x", "../x", "1.0.0"));
    let failed = tree.place(&owner, &udid(8));
    write_envelope(&failed, &json!({"platform": "arduino", "version": "1", "status": "FAILED"}));
    let short = tree.build(&owner, &udid(9), "1.0.0", &image(500, 0));

    let (code, lines, stderr) = import(&data, &tree);
    assert_eq!(code, 1, "{stderr}");
    let published: Vec<_> = lines.iter().filter(|line| line["result"] == "published").collect();
    assert_eq!(published.len(), 1, "{lines:?}");
    assert_eq!(published[0]["udid"], udid(1));
    for (place, words) in [
        (udid(2), "symbolic link"),
        (udid(3), "FIFO"),
        (udid(4), "FIFO"),
        (udid(5), "a directory"),
        (udid(6), "symbolic link"),
        ("not-a-udid".to_owned(), "udid"),
        (udid(7), "another owner"),
        (udid(8), "FAILED"),
        (udid(9), "500 bytes"),
    ] {
        let line = lines.iter().find(|line| line["udid"] == place).expect("a line");
        assert_eq!(line["result"], "failed");
        assert!(text(line, "error").contains(words), "{words} in {line}");
    }
    assert!(lines.iter().any(|line| line.to_string().contains(&"c3".repeat(32))), "{lines:?}");
    let releases = data.json(&["release", "list"]);
    assert_eq!(releases.as_array().map(Vec::len), Some(1));
    assert_eq!(releases[0]["sha256"], sha256(&good));
    assert!(short.exists());
}

#[test]
fn a_device_of_somebody_else_is_not_given_anything() {
    let data = Data::new();
    let server = data.serve();
    let (owner, key) = admin::owner_with_key(&server.admin);
    let device = Device::nth(server.http, &owner, &key, 1);
    device.check_in("1.0.0");
    let tree = Tree::new(&data);
    tree.build(&"d4".repeat(32), &device.udid, "9.0.0", &image(20_000, 0));
    let (code, lines, _) = import(&data, &tree);
    assert_eq!((code, results(&lines)), (1, vec!["failed"]), "{lines:?}");
    assert_eq!(data.json(&["device", "show", &device.udid])["newest"], Value::Null);
}

#[test]
fn a_directory_that_is_not_there_is_named() {
    let ran = Data::new().run(&["import", "/nowhere/at/all"]);
    assert_eq!(ran.code, 3, "{}", ran.stderr);
    assert!(ran.stderr.contains("/nowhere/at/all"), "{}", ran.stderr);
}

pub(crate) fn udid(n: u32) -> String {
    format!("5ccf7fee-1337-4000-8000-{n:012x}")
}

fn import(data: &Data, tree: &Tree) -> (i32, Vec<Value>, String) {
    let ran = data.run(&["import", &tree.root.display().to_string(), "--json"]);
    let lines = ran.stdout.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    (ran.code, lines, ran.stderr)
}

fn results(lines: &[Value]) -> Vec<&str> {
    lines.iter().filter_map(|line| line["result"].as_str()).collect()
}

fn mkfifo(path: &Path) {
    assert!(Command::new("mkfifo").arg(path).status().expect("mkfifo").success());
}

#[test]
fn a_tree_without_builds_is_said_to_be_one() {
    let data = Data::new();
    let tree = Tree::new(&data);
    let udid = "5ccf7fee-1337-4000-8000-000000000001";
    let place = tree.build(&"a1".repeat(32), udid, "1.0.0", &image(20_000, 0));
    let too_deep = place.parent().expect("the owner's").display().to_string();
    let ran = data.run(&["import", &too_deep]);
    assert_eq!((ran.code, ran.stdout.as_str()), (0, ""), "{}", ran.stderr);
    assert!(ran.stderr.contains("no OWNER/UDID/build.json in"), "{}", ran.stderr);
}
