//! What THiNX left, in Redis and on disk, works as it is and stays as it is.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use otter_tests::redis::RedisServer;
use serde_json::Value;

use crate::admin;
use crate::device::{Device, image, sha256};
use crate::import::{Tree, envelope, udid, write_envelope};
use crate::program::{Data, command, text};
use crate::site::allow_updates;

/// THiNX' owner, SHA-256 of a user's name.
const OWNER: &str = "886d515f173e4698f15140366113b7c98c678401b815a592d88c866d13bf5445";
const KEYS: [(&str, &str); 3] = [
    ("88eb20839c1d8bf43819818b75a25cef3244c28e77817386b7b73b043193cef4", "Default MQTT API Key"),
    ("7663ca65a23d759485fa158641727597256fd7eac960941fbb861ab433ab056f", "workshop \\\"A\\\""),
    ("5480ca5f2d5f5b0a1c6e1d1a6cf2f3bb7d4b3d8c3d04f2f4be8a2a1f4c7f9b11", "roof"),
];

#[test]
fn keys_and_builds_of_thinx_work_and_are_left_alone() {
    let redis = RedisServer::start();
    let stored = stored_keys();
    let name = format!("ak:{OWNER}");
    redis.call(&["SET", &name, &stored]);
    let kept = || redis.call(&["GET", &name]).text();

    let data = Data::new();
    let server = data.serve_with(&[], &[("OTTER_STORE", &redis.url())]);
    // The first start of a server makes an owner only where there is none.
    let owners = data.json(&["owner", "list"]);
    assert_eq!(owners.as_array().map(Vec::len), Some(1), "{owners}");
    assert_eq!(owners[0]["owner"], OWNER);
    for ((key, _), n) in KEYS.iter().zip(1..) {
        let registered = Device::nth(server.http, OWNER, key, n).check_in("1.0.0");
        assert_eq!((&registered["status"], &registered["success"]), (&"OK".into(), &true.into()));
    }
    let part = &KEYS[0].0[..63];
    for stranger in [&"0".repeat(64), part] {
        let refused = Device::nth(server.http, OWNER, stranger, 1).register("1.0.0");
        let refused = refused.expect("an answer").text();
        assert!(refused.contains("\"success\":false"), "{refused}");
    }
    let listed = data.json(&["key", "list", "--owner", OWNER]);
    let listed: Vec<String> = entries(&listed).iter().map(|entry| text(entry, "alias")).collect();
    assert_eq!(listed, ["Default MQTT API Key", "workshop \"A\"", "roof"]);

    let tree = Tree::new(&data);
    let (mine, hers) = (image(40_000, 1), image(50_000, 2));
    deploy(&tree, 1, &mine);
    deploy(&tree, 2, &hers);
    let before = looks(&tree.root);
    let ran = data.run(&["import", &tree.root.display().to_string()]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert_eq!(ran.stdout.matches("published").count(), 2, "{}", ran.stdout);
    for (n, bytes) in [(1, &mine), (2, &hers)] {
        let device = Device::nth(server.http, OWNER, KEYS[0].0, n);
        allow_updates(&server.admin, &device.udid);
        let offer = device.check_in("1.0.0");
        assert_eq!(offer["version"], "vav:1.2.3", "{offer}");
        let answer = device.download(&text(&offer, "ott"), 0);
        assert!(answer.status == 200 && answer.body == *bytes, "{}", answer.head);
        let current = device.check_in("vav:1.2.3");
        assert_eq!(current["status"], "OK", "{current}");
    }

    // Without a server, from another machine.
    assert!(server.stop().status.success());
    let other = Data::new();
    let mut import = command(&other.path());
    import.args(["import", &tree.root.display().to_string()]).env("OTTER_STORE", redis.url());
    let ran = import.output().expect("the program runs");
    let shown = String::from_utf8_lossy(&ran.stdout).into_owned();
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    assert_eq!(shown.matches("unchanged").count(), 2, "{shown}");

    assert_eq!(kept(), stored, "byte for byte");
    assert_eq!(looks(&tree.root), before, "names, bytes, times");
}

#[test]
fn new_and_revoked_keys_leave_those_of_thinx_as_they_were() {
    let redis = RedisServer::start();
    let stored = stored_keys();
    let name = format!("ak:{OWNER}");
    redis.call(&["SET", &name, &stored]);
    let kept = || redis.call(&["GET", &name]).text();
    let data = Data::new();
    let server = data.serve_with(&[], &[("OTTER_STORE", &redis.url())]);

    let key = text(&data.json(&["key", "create", "--owner", OWNER, "--alias", "new"]), "key");
    let head = stored.strip_suffix(']').expect("an array");
    let more = kept();
    assert!(more.starts_with(&format!("{head},{{")), "the newest is last: {more}");
    assert!(!more.contains(&key), "only its hash is kept: {more}");
    let registers = |key: &str| {
        let answer = Device::nth(server.http, OWNER, key, 9).register("1.0.0");
        answer.expect("an answer").text().contains("\"success\":true")
    };
    assert!(registers(&key) && registers(KEYS[1].0));

    revoke(&data, &key);
    assert_eq!(kept(), stored, "byte for byte");
    assert!(!registers(&key));

    // One of THiNX' own goes when it is told to, and no other.
    revoke(&data, KEYS[1].0);
    let [first, second, third] = KEYS.map(|(key, alias)| entry(key, alias));
    assert_eq!(kept(), format!("[{first},{third}]"), "without {second}");
    assert!(!registers(KEYS[1].0));
    assert!(registers(KEYS[0].0) && registers(KEYS[2].0));
}

#[test]
fn an_owner_whom_thinx_makes_later_is_served() {
    let redis = RedisServer::start();
    let data = Data::new();
    let server = data.serve_with(&[], &[("OTTER_STORE", &redis.url())]);
    let device = Device::nth(server.http, OWNER, KEYS[2].0, 1);
    let refused = device.register("1.0.0").expect("an answer").text();
    assert!(refused.contains("apikey_not_found"), "{refused}");

    redis.call(&["SET", &format!("ak:{OWNER}"), &stored_keys()]);
    assert_eq!(device.check_in("1.0.0")["status"], "OK");
    let owners = data.json(&["owner", "list"]);
    assert!(entries(&owners).iter().any(|owner| owner["owner"] == OWNER), "{owners}");
    let devices = admin::json(&server.admin, "GET", &format!("/devices?owner={OWNER}"), b"");
    assert_eq!(entries(&devices).len(), 1);
}

/// What THiNX keeps under `ak:<owner>`: `JSON.stringify` of all keys, the newest last.
fn stored_keys() -> String {
    let entries: Vec<String> = KEYS.iter().map(|(key, alias)| entry(key, alias)).collect();
    format!("[{}]", entries.join(","))
}

fn entry(key: &str, alias: &str) -> String {
    let hash = sha256(key.as_bytes());
    format!("{{\"key\":\"{key}\",\"hash\":\"{hash}\",\"alias\":\"{alias}\"}}")
}

fn revoke(data: &Data, key: &str) {
    let ran = data.run(&["key", "revoke", &sha256(key.as_bytes())]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
}

/// A build as THiNX' builder leaves it, with what else lies there.
fn deploy(tree: &Tree, n: u32, bytes: &[u8]) {
    let place = tree.place(OWNER, &udid(n));
    fs::write(place.join("firmware.bin"), bytes).expect("written");
    let mut envelope = envelope(OWNER, &udid(n), "vav:1.2.3");
    envelope["sha"] = sha256(bytes).into();
    envelope["artifact"] = place.join("firmware.bin").display().to_string().into();
    write_envelope(&place, &envelope);
    fs::write(place.join("build.log"), b"[2026-06-29] done\n").expect("written");
    fs::create_dir(place.join("5f8e6c1a-1111-4000-8000-000000000000")).expect("made");
}

/// Every name under a directory with its bytes and the time of its last change.
fn looks(root: &Path) -> BTreeMap<PathBuf, (Option<Vec<u8>>, SystemTime)> {
    let mut found = BTreeMap::new();
    let mut left = vec![root.to_owned()];
    while let Some(path) = left.pop() {
        let metadata = fs::symlink_metadata(&path).expect("readable");
        let bytes = metadata.is_file().then(|| fs::read(&path).expect("readable"));
        if metadata.is_dir() {
            let entries = fs::read_dir(&path).expect("readable");
            left.extend(entries.map(|entry| entry.expect("readable").path()));
        }
        found.insert(path, (bytes, metadata.modified().expect("a time")));
    }
    found
}

fn entries(value: &Value) -> &Vec<Value> {
    value.as_array().expect("a list")
}
