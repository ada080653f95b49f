//! `GET /metrics`.

use std::collections::BTreeSet;

use otter_tests::redis::RedisServer;

use crate::admin;
use crate::device::{Device, image};
use crate::program::Data;

#[test]
fn the_documentation_lists_what_a_scrape_shows() {
    let redis = RedisServer::start();
    let url = redis.url();
    let mut scraped = BTreeSet::new();
    for store in ["embedded", &url] {
        let data = Data::new();
        let server = data.serve_with(&["--store", store], &[]);
        let (owner, key) = admin::owner_with_key(&server.admin);
        Device::nth(server.http, &owner, &key, 1).check_in("1.0.0");
        scraped.extend(names(&scrape(&server.admin)));
    }
    let documented: BTreeSet<String> = include_str!("../../docs/operating.md")
        .lines()
        .filter_map(|line| line.strip_prefix("| `otter_")?.split('`').next())
        .map(|name| format!("otter_{}", name.split('{').next().unwrap_or_default()))
        .collect();
    assert_eq!(scraped, documented);
}

#[test]
fn what_happens_is_counted() {
    let data = Data::new();
    let server = data.serve();
    let (owner, key) = admin::owner_with_key(&server.admin);
    let device = Device::nth(server.http, &owner, &key, 1);
    device.check_in("1.0.0");
    let target = format!("/releases?owner={owner}&all=true&version=1.1.0&platform=arduino");
    admin::json(&server.admin, "POST", &target, &image(50_000, 0));
    let on = b"{\"auto_update\":true}";
    admin::json(&server.admin, "PATCH", &format!("/devices/{}", device.udid), on);
    let offer = device.check_in("1.0.0");
    let token = crate::program::text(&offer, "ott");
    assert_eq!(device.download(&token, 0).status, 200);
    assert_eq!(device.download(&token, 0).status, 404);
    let stranger = Device { key: "0".repeat(64), ..device };
    stranger.register("1.0.0").expect("an answer");

    let text = scrape(&server.admin);
    let value = |name: &str| -> f64 {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("{name} in {text}")).parse().expect("a number")
    };
    for (name, wanted) in [
        ("otter_check_ins_total{outcome=\"registered\"}", 1.0),
        ("otter_check_ins_total{outcome=\"offered\"}", 1.0),
        ("otter_check_ins_total{outcome=\"refused\"}", 1.0),
        ("otter_offers_total", 1.0),
        ("otter_tokens_issued_total", 1.0),
        ("otter_tokens_started_total", 1.0),
        ("otter_tokens_claimed_total", 1.0),
        ("otter_refusals_total{reason=\"wrong_key\"}", 1.0),
        ("otter_refusals_total{reason=\"dead_token\"}", 1.0),
        ("otter_devices", 1.0),
        ("otter_connections_panicked_total", 0.0),
    ] {
        assert!((value(name) - wanted).abs() < f64::EPSILON, "{name} {}", value(name));
    }
    assert!(value("otter_bytes_sent_total") > 50_000.0);
    assert!(value("otter_connections_accepted_total") >= 5.0);
    assert!(value("otter_store_commit_seconds_count") >= 3.0);
    assert!(text.ends_with("# EOF\n"));
}

/// The metrics in a scrape, as the documentation calls them.
fn names(text: &str) -> Vec<String> {
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    let name = |line: &str| {
        let (name, kind) = line.split_once(' ').expect("a type");
        if kind == "counter" { format!("{name}_total") } else { name.to_owned() }
    };
    types.map(name).collect()
}

pub(crate) fn scrape(socket: &std::path::Path) -> String {
    let (status, text) = admin::raw(socket, "GET", "/metrics", b"");
    assert_eq!(status, 200, "{text}");
    text
}
