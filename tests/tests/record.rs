//! What of a check-in is kept, and when (docs/wire.md 1.1, "registration" fields; docs/design.md
//! 3): fields and their types, the digest, and the steady check-in that costs one read.

use std::time::Duration;

use otter_protocol::{Alias, Mac};
use otter_tests::check_in::{again, check_in, ok_body, refusal};
use otter_tests::scene::{self, ALIAS, DEVICE, KEY, MAC, NO_OWNER, OWNER, registration};
use otter_tests::{Fields, Request, Scene};

#[test]
fn what_is_recorded_is_what_the_device_said() {
    let fields = registration()
        .text("alias", "kitchen")
        .text("platform", "Arduino:ESP8266")
        .text("env_hash", "cafe01");
    let (_, heard) = check_in(&Scene::new(), &fields);
    let record = heard.record(1);
    assert_eq!(record.owner, scene::owner(OWNER));
    assert_eq!(record.device, Some(scene::device(DEVICE)));
    assert_eq!((record.offered, record.grant), (None, None));
    let check_in = record.check_in.as_ref().expect("a check-in");
    assert_eq!(check_in.mac, Mac::parse(MAC));
    assert_eq!(check_in.alias, Alias::clean("kitchen"));
    assert_eq!(check_in.version.as_deref(), Some("1.0.0"));
    assert_eq!(check_in.platform.as_deref(), Some("arduino:esp8266"), "lower case");
    assert_eq!(check_in.env_hash.as_deref(), Some("cafe01"));
    assert!(!check_in.told_auto_update);
}

#[test]
fn the_stored_fields_are_facts_in_one_json_object() {
    let fields = registration()
        .text("rssi", "-61")
        .text("snr", "9")
        .text("station", "S1")
        .text("commit", "c0ffee")
        .text("checksum", "5eed")
        .raw("lat", "50.08")
        .text("lon", "14.42")
        .text("fcid", "00abcd")
        .text("unheard_of", "dropped");
    let (_, heard) = check_in(&Scene::new(), &fields);
    let facts = &heard.record(1).check_in.as_ref().expect("a check-in").facts;
    let facts: serde_json::Value = serde_json::from_str(facts).expect("JSON");
    for (name, value) in [
        ("status", "Registered"),
        ("firmware", "thinx-lib-esp32-arduino:2.9.450"),
        ("rssi", "-61"),
        ("snr", "9"),
        ("station", "S1"),
        ("commit", "c0ffee"),
        ("checksum", "5eed"),
        ("lat", "50.08"),
        ("lon", "14.42"),
        ("fcid", "00ABCD"),
    ] {
        assert_eq!(facts[name], value, "{name}");
    }
    assert!(facts.get("unheard_of").is_none(), "unknown keys are ignored");
}

#[test]
fn numbers_and_bools_in_text_fields_are_taken_as_their_json_text() {
    let fields = registration()
        .raw("version", "2")
        .raw("platform", "5")
        .raw("alias", "true")
        .raw("lat", "50.0755")
        .raw("lon", "-14.4");
    let (_, heard) = check_in(&Scene::new(), &fields);
    let check_in = heard.record(1).check_in.as_ref().expect("a check-in");
    assert_eq!(check_in.version.as_deref(), Some("2"));
    assert_eq!(check_in.platform.as_deref(), Some("5"));
    assert_eq!(check_in.alias, Alias::clean("true"));
    let facts: serde_json::Value = serde_json::from_str(&check_in.facts).expect("JSON");
    assert_eq!((&facts["lat"], &facts["lon"]), (&"50.0755".into(), &"-14.4".into()));
}

#[test]
fn structures_in_text_fields_are_invalid() {
    for (name, value) in [("version", "{}"), ("platform", "[1]"), ("status", "{\"a\":1}")] {
        let body = registration().raw(name, value).wrapped("registration");
        let (status, text, _, _) = refusal(&Scene::new(), &Request::check_in(KEY, &body));
        assert_eq!(status, 400, "{name}");
        assert_eq!(text, "{\"success\":false,\"response\":\"request_invalid\"}", "{name}");
    }
}

#[test]
fn unknown_keys_are_ignored_whatever_they_hold() {
    let fields = registration().raw("x", "{\"y\":[1,{\"z\":null}]}").raw("meshes", "[\"a\"]");
    let (_, heard) = check_in(&Scene::new(), &fields);
    assert_eq!(heard.reply().status, 200);
    let beside = format!("{{\"other\":[1],\"registration\":{}}}", registration().json());
    assert_eq!(refusal(&Scene::new(), &Request::check_in(KEY, &beside)).0, 200);
}

#[test]
fn a_version_that_is_not_sent_keeps_the_stored_one_and_an_env_hash_is_cleared() {
    let (mut exchange, _) = check_in(&Scene::new(), &registration().text("env_hash", "aa"));
    let heard = again(&mut exchange, &registration().without("version").without("platform"));
    let check_in = heard.record(1).check_in.as_ref().expect("a check-in");
    assert_eq!((check_in.version.as_deref(), check_in.platform.as_deref()), (None, None));
    assert_eq!(check_in.env_hash, None);
    let kept = exchange.store.device(scene::device(DEVICE)).expect("kept");
    assert_eq!(kept.device.version.as_deref(), Some("1.0.0"));
    assert_eq!(kept.device.env_hash, None);
}

#[test]
fn a_check_in_that_says_nothing_new_costs_one_read_and_no_write() {
    let (mut exchange, _) = check_in(&Scene::new(), &registration());
    for _ in 0..3 {
        exchange.advance(Duration::from_secs(60));
        let heard = again(&mut exchange, &registration());
        assert_eq!(heard.kinds(), ["Identify"]);
        let at = exchange.clock.now().unix;
        assert_eq!(heard.reply().text(), ok_body(ALIAS, false, DEVICE, at));
    }
}

#[test]
fn a_check_in_is_kept_once_last_seen_is_ten_minutes_old() {
    for (age_s, kinds) in [(599, vec!["Identify"]), (600, vec!["Identify", "Record"])] {
        let mut scene = Scene::new();
        scene.config.idle_timeout = Duration::from_secs(3600);
        let (mut exchange, _) = check_in(&scene, &registration());
        exchange.advance(Duration::from_secs(age_s));
        assert_eq!(again(&mut exchange, &registration()).kinds(), kinds, "{age_s} s");
    }
}

#[test]
fn a_check_in_that_says_anything_new_is_kept() {
    for fields in [
        registration().text("status", "Dashboard"),
        registration().text("version", "1.0.1"),
        registration().text("commit", "c0ffee"),
        registration().text("env_hash", "aa"),
        registration().text("platform", "esp32"),
        registration().text("mac", "AABBCCDDEEFF"),
        registration().without("fcid"),
    ] {
        let (mut exchange, _) = check_in(&Scene::new(), &registration());
        let heard = again(&mut exchange, &fields);
        assert_eq!(heard.kinds(), ["Identify", "Record"], "{}", fields.json());
    }
}

#[test]
fn a_check_in_that_differs_in_its_facts_alone_is_kept() {
    for field in ["station", "lat", "lon", "status", "checksum", "commit", "timezone_offset"] {
        let (mut exchange, _) = check_in(&Scene::new(), &registration().text(field, "1"));
        let heard = again(&mut exchange, &registration().text(field, "2"));
        assert_eq!(heard.kinds(), ["Identify", "Record"], "the digest covers {field}");
    }
}

/// They change with every check-in, and would make each of them a write.
#[test]
fn the_radios_moods_are_nothing_new_and_kept_with_what_is() {
    let (mut exchange, _) = check_in(&Scene::new(), &registration().text("rssi", "-61"));
    for (rssi, snr) in [("-70", "9"), ("-40", "12")] {
        let fields = registration().text("rssi", rssi).text("snr", snr);
        assert_eq!(again(&mut exchange, &fields).kinds(), ["Identify"], "{rssi} {snr}");
    }
    again(&mut exchange, &registration().text("rssi", "-55").text("commit", "c0ffee"));
    let kept = exchange.store.device(scene::device(DEVICE)).expect("kept");
    let facts: serde_json::Value = serde_json::from_str(&kept.facts).expect("JSON");
    assert_eq!(facts["rssi"], "-55");
}

#[test]
fn a_flag_that_the_operator_changed_is_told_and_kept() {
    let (mut exchange, _) = check_in(&Scene::new(), &registration());
    exchange.store.set_auto_update(scene::device(DEVICE), true);
    let heard = again(&mut exchange, &registration());
    assert_eq!(heard.kinds(), ["Identify", "Record"]);
    assert!(heard.record(1).check_in.as_ref().expect("a check-in").told_auto_update);
    assert_eq!(heard.reply().json()["registration"]["auto_update"], true);
    assert_eq!(again(&mut exchange, &registration()).kinds(), ["Identify"], "steady again");
}

#[test]
fn equal_check_ins_have_equal_digests_and_others_have_not() {
    let digest = |fields: &Fields| {
        let (_, heard) = check_in(&Scene::new(), fields);
        heard.record(1).check_in.as_ref().expect("a check-in").digest
    };
    assert_eq!(digest(&registration()), digest(&registration()));
    assert_ne!(digest(&registration()), digest(&registration().text("status", "x")));
    assert_ne!(digest(&registration()), digest(&registration().text("version", "1.0.1")));
}

/// Operators see the same text however the device orders its fields.
#[test]
fn facts_are_canonical() {
    let facts = |fields: &Fields| {
        let (_, heard) = check_in(&Scene::new(), fields);
        heard.record(1).check_in.as_ref().expect("a check-in").facts.clone()
    };
    let owned = Fields::none().text("owner", OWNER).text("udid", DEVICE);
    let ordered = owned.clone().text("status", "a").text("commit", "b").text("lat", "c");
    let reordered = owned.text("lat", "c").text("status", "a").text("commit", "b");
    assert_eq!(facts(&ordered), facts(&reordered));
}

#[test]
fn duplicate_keys_are_refused() {
    let body = format!("{{\"registration\":{{\"owner\":\"{OWNER}\",\"owner\":\"{NO_OWNER}\"}}}}");
    let (status, text, _, _) = refusal(&Scene::new(), &Request::check_in(KEY, &body));
    assert_eq!(status, 400);
    assert_eq!(text, "{\"success\":false,\"response\":\"request_invalid\"}");
}

#[test]
fn eight_levels_of_json_are_read_and_nine_are_refused() {
    let nested = |levels: usize| {
        let value = format!("{}{}", "[".repeat(levels), "]".repeat(levels));
        Request::check_in(KEY, &registration().raw("x", &value).wrapped("registration"))
    };
    assert_eq!(refusal(&Scene::new(), &nested(6)).0, 200, "two objects and six arrays");
    assert_eq!(refusal(&Scene::new(), &nested(7)).0, 400);
    assert_eq!(refusal(&Scene::new(), &nested(5000)).0, 400);
}
