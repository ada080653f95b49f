//! Is this release an update for this device? (docs/wire.md 5), asked through check-ins.

use otter_protocol::Kind;
use otter_tests::image::image;
use otter_tests::scene::{KEY, registration};
use otter_tests::{Draft, Fields, Request, Scene};

/// Is a device that says `fields` offered `draft`?
fn is_offered(fields: &Fields, draft: &Draft) -> bool {
    let mut scene = Scene::new().with_auto_update();
    scene.publish(draft);
    let request = Request::check_in(KEY, &fields.wrapped("registration"));
    let reply = scene.exchange().request(&request.bytes()).reply();
    assert_eq!(reply.status, 200);
    let offered = reply.text().contains("FIRMWARE_UPDATE");
    assert!(offered || reply.text().contains("\"status\":\"OK\""), "{}", reply.text());
    offered
}

fn versions(device: &str, release: &str) -> bool {
    is_offered(&registration().text("version", device), &Draft::binary(release, 2000))
}

#[test]
fn newer_is_an_update_and_older_or_equal_is_none() {
    for (device, release, expected) in [
        ("1.0.0", "1.0.1", true),
        ("1.0.0", "1.1.0", true),
        ("1.9.0", "1.10.0", true),
        ("1.0.0", "2.0.0", true),
        ("1.0.0", "1.0.0", false),
        ("1.0.1", "1.0.0", false),
        ("2.0.0", "1.9.9", false),
        ("1.10.0", "1.9.0", false),
    ] {
        assert_eq!(versions(device, release), expected, "{device} -> {release}");
    }
}

#[test]
fn a_missing_version_is_0_0_1() {
    let missing = registration().without("version");
    assert!(is_offered(&missing, &Draft::binary("0.0.2", 2000)));
    assert!(!is_offered(&missing, &Draft::binary("0.0.1", 2000)));
}

#[test]
fn short_versions_are_padded_on_both_sides() {
    for (device, release, expected) in [
        ("2", "2.0.1", true),
        ("2", "2.0.0", false),
        ("1.2", "1.2.1", true),
        ("1.2", "1.2.0", false),
        ("1.1.9", "1.2", true),
        ("1.2.0", "1.2", false),
        ("6.9.9", "7", true),
        ("7", "7", false),
    ] {
        assert_eq!(versions(device, release), expected, "{device} -> {release}");
    }
}

#[test]
fn a_leading_v_is_accepted_on_both_sides() {
    assert!(versions("v1.0.0", "1.0.1"));
    assert!(versions("1.0.0", "v1.0.1"));
    assert!(!versions("v1.0.1", "v1.0.1"));
}

#[test]
fn what_stands_after_the_last_colon_counts() {
    for (device, release, expected) in [
        ("1.0.0", "repo:1.2.3", true),
        ("1.2.3", "repo:1.2.3", false),
        ("1.1.9", "repo:1.2", true),
        ("1.2.0", "repo:1.2", false),
        ("6.0.0", "repo:7", true),
        ("1.0.0", "host:repo:v1.0.1", true),
        ("repo:1.0.0", "repo:1.0.1", true),
        ("repo:1.0.1", "1.0.1", false),
    ] {
        assert_eq!(versions(device, release), expected, "{device} -> {release}");
    }
}

#[test]
fn four_and_five_parts_are_folded_on_both_sides() {
    for (device, release, expected) in [
        ("1.0.0", "1.0.0.1", true),
        ("1.0.1", "1.0.0.1", false),
        ("1.0.0.0", "1.0.1", true),
        ("1.0.0.1", "1.0.1", false),
        ("1.2.5", "1.2.1.2.3", true),
        ("1.2.6", "1.2.1.2.3", false),
        ("1.2.1.2.3", "1.2.6", false),
        ("1.2.1.2.3", "1.2.7", true),
    ] {
        assert_eq!(versions(device, release), expected, "{device} -> {release}");
    }
}

#[test]
fn prereleases_compare_as_in_semver() {
    for (device, release, expected) in [
        ("1.0.0-beta", "1.0.0", true),
        ("1.0.0", "1.0.0-rc.1", false),
        ("1.0.0-alpha", "1.0.0-beta", true),
        ("1.0.0-beta.2", "1.0.0-beta.11", true),
    ] {
        assert_eq!(versions(device, release), expected, "{device} -> {release}");
    }
}

#[test]
fn what_cannot_be_parsed_is_no_automatic_update() {
    for (device, release) in [
        ("Build-12", "1.2.0"),
        ("1.0.0", "Build-12"),
        ("1.0.0", "repo-1.2.0"),
        ("1.0.0", "1.2.x"),
        ("1.0.0", "1.2.3.4.5.6"),
        ("1..0", "1.2.0"),
        ("-1.0.0", "1.2.0"),
        ("1.0.0", "99999999999999999999.0.0"),
        ("1.0.0", "repo:"),
    ] {
        assert!(!versions(device, release), "{device} -> {release}");
    }
}

#[test]
fn an_empty_version_says_no_more_than_a_missing_one() {
    assert!(!versions("", "0.0.1"));
}

fn env(device: Option<&str>, release: Option<&str>) -> bool {
    let fields = match device {
        Some(hash) => registration().text("env_hash", hash),
        None => registration(),
    };
    let env_hash = release.map(str::to_owned);
    is_offered(&fields, &Draft { env_hash, ..Draft::binary("1.0.0", 2000) })
}

#[test]
fn of_equal_versions_the_environment_decides_if_both_have_one() {
    let (one, two) = ("aa".repeat(32), "bb".repeat(32));
    assert!(env(Some(&one), Some(&two)), "both present and different");
    assert!(!env(Some(&one), Some(&one)));
    assert!(!env(None, Some(&one)));
    assert!(!env(Some(&one), None));
    assert!(!env(None, None));
}

#[test]
fn the_librarys_default_environment_is_none() {
    assert!(!env(Some("cafebabe"), Some(&"bb".repeat(32))));
    assert!(!env(Some(&format!("cafebabe{}", "0".repeat(56))), Some(&"bb".repeat(32))));
}

#[test]
fn an_environment_never_brings_an_older_version() {
    let env_hash = Some("bb".repeat(32));
    let older = Draft { env_hash, ..Draft::binary("0.9.0", 2000) };
    assert!(!is_offered(&registration().text("env_hash", "aa"), &older));
}

fn platform(platform: &str) -> bool {
    let draft = Draft { platform: platform.to_owned(), ..Draft::binary("1.2.0", 2000) };
    is_offered(&registration(), &draft)
}

#[test]
fn supported_platforms_are_offered() {
    for name in [
        "mongooseos",
        "mongoose",
        "python",
        "micropython",
        "nodemcu",
        "pine64",
        "platformio",
        "arduino",
        "platformio:esp8266",
        "arduino:esp32",
    ] {
        assert!(platform(name), "{name}");
    }
}

#[test]
fn other_platforms_are_never_offered() {
    for name in ["nodejs", "sigfox", "", "esp8266", "arduinos", "nodejs:arduino"] {
        assert!(!platform(name), "{name}");
    }
}

#[test]
fn a_bundle_is_offered_like_an_image() {
    let draft =
        Draft { kind: Kind::Bundle, image: image("1.2.0", 2000), ..Draft::binary("1.2.0", 2000) };
    assert!(is_offered(&registration(), &draft));
}

#[test]
fn a_stored_version_counts_where_the_check_in_has_none() {
    let scene = Scene::new().with_auto_update().with_release("1.2.0", 2000);
    let mut exchange = scene.exchange();
    let mut say = |fields: &Fields| {
        let body = fields.wrapped("registration");
        let request = Request::check_in(KEY, &body).without("Connection");
        exchange.request(&request.bytes()).reply().text().contains("FIRMWARE_UPDATE")
    };
    assert!(!say(&registration().text("version", "1.2.0")));
    assert!(!say(&registration().without("version")), "it is at 1.2.0, not at 0.0.1");
}
