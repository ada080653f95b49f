//! Each command with the server running and with the server stopped: the same answers.

use serde_json::Value;

use crate::device::{Device, image};
use crate::program::{Data, Server, keys, text};

/// Plays `commands` on a data directory with one device, twice.
fn running_and_stopped(commands: impl Fn(&Data, &Device)) {
    for running in [true, false] {
        let data = Data::new();
        let server = data.serve();
        let owner = text(&data.json(&["owner", "list"])[0], "owner");
        let key = text(&data.json(&["key", "create", "--owner", &owner]), "key");
        let device = Device::nth(server.http, &owner, &key, 1);
        assert_eq!(device.check_in("1.0.0")["status"], "OK");
        let server = if running { Some(server) } else { stop(server) };
        commands(&data, &device);
        drop(server);
    }
}

fn stop(server: Server) -> Option<Server> {
    assert!(server.stop().status.success());
    None
}

#[test]
fn owners() {
    running_and_stopped(|data, device| {
        let made = data.json(&["owner", "create"]);
        assert_eq!(keys(&made), ["owner"]);
        assert_eq!(text(&made, "owner").len(), 64);
        let given = "a1".repeat(40);
        assert_eq!(data.json(&["owner", "create", &given])["owner"], given.as_str());
        let again = data.run(&["owner", "create", &given]);
        assert_eq!(again.code, 4, "{}", again.stderr);
        let listed = data.json(&["owner", "list"]);
        let owners: Vec<_> = members(&listed, "owner");
        assert!(owners.contains(&device.owner) && owners.contains(&given), "{owners:?}");
        let shown = data.run(&["owner", "list"]);
        assert!(shown.stdout.starts_with("OWNER") && shown.stdout.contains(&given));
    });
}

#[test]
fn keys_are_made_listed_and_revoked() {
    running_and_stopped(|data, device| {
        let made = data.json(&["key", "create", "--owner", &device.owner, "--alias", "workshop"]);
        assert_eq!(keys(&made), ["alias", "hash", "key", "owner"]);
        assert_eq!(made["alias"], "workshop");
        assert_eq!(crate::device::sha256(text(&made, "key").as_bytes()), text(&made, "hash"));
        let hash = text(&made, "hash");
        let listed = data.json(&["key", "list", "--owner", &device.owner]);
        assert!(members(&listed, "hash").contains(&hash));
        assert!(!listed.to_string().contains(&text(&made, "key")), "keys are not listed");
        assert_eq!(data.json(&["key", "revoke", &hash])["hash"], hash.as_str());
        assert!(!members(&data.json(&["key", "list"]), "hash").contains(&hash));
        let swapped = data.run(&["key", "revoke", &text(&made, "key")]);
        assert_eq!(swapped.code, 3, "{}", swapped.stderr);
        assert!(swapped.stderr.contains("not by the key itself"), "{}", swapped.stderr);
        assert_eq!(data.run(&["key", "revoke", &hash]).code, 3);
        let nobody = data.run(&["key", "create", "--owner", &"0".repeat(64)]);
        assert_eq!(nobody.code, 3, "{}", nobody.stderr);
        assert!(nobody.stderr.contains("owner"), "{}", nobody.stderr);
    });
}

#[test]
fn devices() {
    running_and_stopped(|data, device| {
        let shown = data.json(&["device", "show", &device.udid]);
        for member in
            ["udid", "owner", "alias", "mac", "platform", "version", "auto_update", "last_seen"]
        {
            assert!(keys(&shown).contains(&member), "{member} in {shown}");
        }
        assert_eq!(shown["udid"], device.udid.as_str());
        assert_eq!(shown["owner"], device.owner.as_str());
        assert_eq!(shown["mac"], "5C:CF:7F:00:00:01");
        assert_eq!(shown["platform"], "arduino");
        assert_eq!(shown["version"], "1.0.0");
        assert_eq!(shown["auto_update"], false);
        assert!(shown["last_seen"].as_u64().is_some_and(|seen| seen > 1_700_000_000), "{shown}");
        assert_eq!(data.json(&["device", "list"])[0], shown);
        let nobody = "0".repeat(64);
        assert_eq!(data.json(&["device", "list", "--owner", &nobody]), Value::Array(vec![]));
        for kind in ["device", "key", "release"] {
            let ran = data.run(&[kind, "list", "--owner", &nobody]);
            assert_eq!(ran.code, 0, "{}", ran.stderr);
            assert!(ran.stderr.contains(&format!("no owner {nobody}")), "{}", ran.stderr);
            let ran = data.run(&[kind, "list", "--owner", &device.owner]);
            assert_eq!((ran.code, ran.stderr.as_str()), (0, ""));
        }

        let set = ["device", "set", &device.udid, "--auto-update", "on", "--alias", "green{house"];
        let set = data.json(&set);
        assert_eq!((&set["auto_update"], &set["alias"]), (&true.into(), &"greenhouse".into()));
        assert_eq!(data.json(&["device", "show", &device.udid]), set);

        let absent = "5ccf7fee-1337-4000-8000-0000000000ff";
        for args in [
            &["device", "show", absent][..],
            &["device", "set", absent, "--auto-update", "on"],
            &["token", "issue", "--device", absent],
        ] {
            let ran = data.run(args);
            assert_eq!(ran.code, 3, "{args:?}: {}", ran.stderr);
        }
        let list = data.run(&["device", "list"]).stdout;
        assert!(list.starts_with("UDID") && list.contains(" UTC"), "{list}");
    });
}

#[test]
fn tokens() {
    running_and_stopped(|data, device| {
        let early = data.run(&["token", "issue", "--device", &device.udid]);
        assert_eq!(early.code, 0, "{}", early.stderr);
        assert!(early.stderr.contains("nothing is published"), "{}", early.stderr);
        let issued = data.json(&["token", "issue", "--device", &device.udid]);
        assert_eq!(keys(&issued), ["expires", "ott", "path"]);
        let ott = text(&issued, "ott");
        assert_eq!(ott.len(), 64);
        assert_eq!(issued["path"], format!("/device/firmware?ott={ott}"));
        assert!(issued["expires"].as_u64().is_some_and(|at| at > 1_700_000_000), "{issued}");
        assert_eq!(data.json(&["token", "revoke", &ott])["revoked"], 1);
        assert_eq!(data.run(&["token", "revoke", &ott]).code, 3);
        data.json(&["token", "issue", "--device", &device.udid]);
        assert_eq!(data.json(&["token", "revoke", "--device", &device.udid])["revoked"], 1);
        assert_eq!(data.json(&["token", "revoke", "--device", &device.udid])["revoked"], 0);
    });
}

#[test]
fn releases() {
    running_and_stopped(|data, device| {
        let path = data.beside("app.bin");
        std::fs::write(&path, image(20_000, 0)).expect("written");
        let path = path.display().to_string();
        let published = data.json(&[
            "publish",
            &path,
            "--owner",
            &device.owner,
            "--device",
            &device.udid,
            "--version",
            "1.1.0",
            "--platform",
            "arduino",
        ]);
        let release = text(&published, "release");
        let listed = data.json(&["release", "list"]);
        assert_eq!(members(&listed, "release"), std::slice::from_ref(&release));
        assert_eq!(listed[0]["device"], device.udid.as_str());
        assert_eq!(listed[0]["withdrawn"], Value::Null);
        assert_eq!(data.json(&["release", "list", "--device", &device.udid]), listed);
        let shown = data.run(&["release", "list"]).stdout;
        assert!(shown.trim_end().ends_with(&device.owner), "whose it is: {shown}");
        assert_eq!(data.json(&["device", "show", &device.udid])["newest"]["version"], "1.1.0");

        assert!(data.json(&["release", "withdraw", &release])["withdrawn"].is_u64());
        assert_eq!(data.json(&["device", "show", &device.udid])["newest"], Value::Null);
        assert_eq!(data.run(&["release", "withdraw", &release]).code, 4);
        let absent = data.run(&["release", "withdraw", "5ccf7fee-1337-4000-8000-0000000000ff"]);
        assert_eq!(absent.code, 3, "{}", absent.stderr);
    });
}

#[test]
fn a_directory_that_is_not_there_is_not_made() {
    let data = Data::new();
    let ran = data.run(&["device", "list"]);
    assert_eq!(ran.code, 3, "{}", ran.stderr);
    assert!(ran.stderr.contains("no data directory") && ran.stderr.contains("hint: "));
    assert!(!data.path().exists());
    // Nor is a store, in the directory of a server that has its facts elsewhere.
    std::fs::create_dir(data.path()).expect("a directory");
    let ran = data.run(&["device", "list"]);
    assert_eq!(ran.code, 3, "{}", ran.stderr);
    assert!(ran.stderr.contains("no store in") && ran.stderr.contains("OTTER_STORE"));
    assert!(!data.path().join("otter.db").exists());
    data.json(&["owner", "create"]);
    assert!(data.path().exists(), "an owner may come first");
    assert_eq!(data.json(&["device", "list"]), Value::Array(vec![]));
}

#[test]
fn failures_are_json_for_machines() {
    let data = Data::new();
    data.json(&["owner", "create"]);
    let ran = data.run(&["device", "show", "5ccf7fee-1337-4000-8000-0000000000ff", "--json"]);
    assert_eq!(ran.code, 3);
    let failure: Value = serde_json::from_str(&ran.stderr).expect("JSON");
    assert_eq!(keys(&failure), ["error", "hint"]);
}

fn members(list: &Value, member: &str) -> Vec<String> {
    list.as_array().expect("a list").iter().map(|entry| text(entry, member)).collect()
}
