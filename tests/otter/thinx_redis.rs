//! An installation of THiNX is taken over as it is: owners and keys in its Redis, builds in its
//! deploy directory.

use otter_tests::redis::RedisServer;

use crate::device::{Device, image, sha256};
use crate::import::{Tree, udid};
use crate::program::{Data, text};

#[test]
fn owners_keys_and_builds_of_thinx_work_untouched() {
    let redis = RedisServer::start();
    let (owner, key) = ("4f".repeat(32), "88eb20839c1d8bf4".repeat(4));
    // What THiNX has beside it: sessions, counters, and keys of owners in its own words.
    let entry = serde_json::json!({
        "name": "Default MQTT API Key", "key": key, "hash": sha256(key.as_bytes()),
        "alias": "Default MQTT API Key"
    });
    let api_keys = format!("[{entry}]");
    let name = format!("ak:{owner}");
    let others = [("sess:abc", "{\"cookie\":{}}"), ("limit:1.2.3.4", "3"), ("ak:short", "[]")];
    redis.call(&["SET", &name, &api_keys]);
    for (name, value) in others {
        redis.call(&["SET", name, value]);
    }

    let data = Data::new();
    std::fs::create_dir(data.path()).expect("made");
    let settings = format!("store = \"{}\"\n", redis.url());
    std::fs::write(data.path().join("otter.toml"), settings).expect("written");
    let tree = Tree::new(&data);
    let bytes = image(30_000, 4);
    tree.build(&owner, &udid(1), "y:1.2.3", &bytes);
    let imported = data.json(&["import", &tree.root.display().to_string()]);
    assert_eq!(imported["result"], "published", "{imported}");
    let owners = data.json(&["owner", "list"]);
    assert_eq!(owners.as_array().map(Vec::len), Some(1), "{owners}");
    assert_eq!((&owners[0]["owner"], &owners[0]["keys"]), (&owner.as_str().into(), &1.into()));

    let server = data.serve();
    let device = Device::nth(server.http, &owner, &key, 1);
    assert_eq!(device.check_in("y:1.0.0")["status"], "OK");
    data.json(&["device", "set", &device.udid, "--auto-update", "on"]);
    let offer = device.check_in("y:1.0.0");
    assert_eq!(offer["version"], "y:1.2.3", "{offer}");
    assert!(device.download(&text(&offer, "ott"), 0).body == bytes);
    assert!(server.stop().stderr.lines().all(|line| !line.contains(&key)), "no key in the log");

    assert_eq!(redis.call(&["GET", &name]).text(), api_keys, "as THiNX wrote it");
    for (name, value) in others {
        assert_eq!(redis.call(&["GET", name]).text(), value);
    }
    let again = data.json(&["import", &tree.root.display().to_string()]);
    assert_eq!(again["result"], "unchanged");
}
