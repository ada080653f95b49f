//! What keeps a fleet from hurting itself (docs/wire.md 2.3, 2.4, 2.6 and 5): flags told before
//! offers, boot loops, failed updates, and the libraries that must be treated apart.

use std::sync::Arc;
use std::time::Duration;

use otter_protocol::{Outcome, ReleaseId};
use otter_tests::model::offered;
use otter_tests::scene::{DEVICE, KEY, device, registration};
use otter_tests::{Draft, Exchange, Fields, Heard, Request, Scene, Target};

const FAILED: &str = "Update error: ERROR[7]: MD5 Failed";
const LIBRARY_2_3: &str = "thinx-lib-esp8266-arduino:2.3.184:2018-01-01";
const LIBRARY_3_0: &str = "thinx-lib-esp8266-arduinoc:3.0.270";

/// A device with `auto_update` and a release for it; check-ins on one long connection.
struct Fleet {
    exchange: Exchange,
    release: ReleaseId,
}

impl Fleet {
    fn new() -> Self {
        Self::with(|_| {})
    }

    fn with(change: impl FnOnce(&mut Scene)) -> Self {
        let mut scene = Scene::new().with_auto_update();
        scene.config.idle_timeout = Duration::from_secs(1 << 30);
        change(&mut scene);
        let release = scene.publish(&Draft::binary("1.2.0", 2000));
        Self { exchange: scene.exchange(), release }
    }

    fn check_in(&mut self, fields: &Fields) -> Heard {
        let body = fields.wrapped("registration");
        self.exchange.request(&Request::check_in(KEY, &body).without("Connection").bytes())
    }

    fn outcome(&mut self, fields: &Fields) -> Outcome {
        let heard = self.check_in(fields);
        let outcome = self.exchange.outcome().expect("a report");
        let is_offer = heard.reply().text().contains("FIRMWARE_UPDATE");
        assert_eq!(is_offer, outcome == Outcome::Offered, "{outcome:?}");
        assert!(is_offer || heard.reply().text().contains("\"status\":\"OK\""));
        outcome
    }

    fn after(&mut self, wait_s: u64, fields: &Fields) -> Outcome {
        self.exchange.advance(Duration::from_secs(wait_s));
        self.outcome(fields)
    }

    fn publish(&mut self, version: &str) -> ReleaseId {
        let draft = Draft::binary(version, 2000);
        self.exchange.store.publish(Target::Device(device(DEVICE)), &draft)
    }

    fn guard(&self) -> Option<otter_protocol::Offered> {
        self.exchange.store.device(device(DEVICE)).and_then(|kept| kept.device.offered)
    }
}

#[test]
fn the_same_is_offered_offers_max_times_in_a_row() {
    let mut fleet = Fleet::new();
    for times in 1..=8 {
        assert_eq!(fleet.outcome(&registration()), Outcome::Offered, "{times}");
        assert_eq!(fleet.guard(), Some(offered(fleet.release, times, 0, 0)));
    }
    for _ in 0..3 {
        assert_eq!(fleet.outcome(&registration()), Outcome::HeldBack);
        assert_eq!(fleet.after(3600, &registration()), Outcome::HeldBack);
    }
}

#[test]
fn offers_max_is_a_setting() {
    let mut fleet = Fleet::with(|scene| scene.config.offers_max = 2);
    assert_eq!(fleet.outcome(&registration()), Outcome::Offered);
    assert_eq!(fleet.outcome(&registration()), Outcome::Offered);
    assert_eq!(fleet.outcome(&registration()), Outcome::HeldBack);
}

#[test]
fn a_device_that_is_held_back_costs_a_read() {
    let mut fleet = Fleet::with(|scene| scene.config.offers_max = 1);
    fleet.check_in(&registration());
    fleet.check_in(&registration());
    assert_eq!(fleet.check_in(&registration()).kinds(), ["Identify"]);
}

#[test]
fn a_new_release_starts_over() {
    let mut fleet = Fleet::with(|scene| scene.config.offers_max = 1);
    assert_eq!(fleet.outcome(&registration()), Outcome::Offered);
    assert_eq!(fleet.outcome(&registration()), Outcome::HeldBack);
    let newer = fleet.publish("1.3.0");
    assert_eq!(fleet.outcome(&registration()), Outcome::Offered);
    assert_eq!(fleet.guard(), Some(offered(newer, 1, 0, 0)));
    assert_eq!(fleet.outcome(&registration()), Outcome::HeldBack);
}

#[test]
fn a_changed_version_starts_over() {
    let mut fleet = Fleet::with(|scene| scene.config.offers_max = 1);
    assert_eq!(fleet.outcome(&registration()), Outcome::Offered);
    assert_eq!(fleet.outcome(&registration()), Outcome::HeldBack);
    let changed = registration().text("version", "1.1.0");
    assert_eq!(fleet.outcome(&changed), Outcome::Offered);
    assert_eq!(fleet.outcome(&changed), Outcome::HeldBack);
}

#[test]
fn the_operator_setting_the_flag_starts_over() {
    let mut fleet = Fleet::with(|scene| scene.config.offers_max = 1);
    assert_eq!(fleet.outcome(&registration()), Outcome::Offered);
    assert_eq!(fleet.outcome(&registration()), Outcome::HeldBack);
    fleet.exchange.store.set_auto_update(device(DEVICE), true);
    assert_eq!(fleet.outcome(&registration()), Outcome::Offered);
}

#[test]
fn a_device_that_took_the_update_is_current() {
    let mut fleet = Fleet::new();
    assert_eq!(fleet.outcome(&registration()), Outcome::Offered);
    assert_eq!(fleet.outcome(&registration().text("version", "1.2.0")), Outcome::Current);
}

#[test]
fn a_failed_update_is_left_alone_for_the_back_off() {
    for status in [FAILED, "File Not Found (404)"] {
        let mut fleet = Fleet::new();
        assert_eq!(fleet.outcome(&registration()), Outcome::Offered);
        let failed = registration().text("status", status);
        assert_eq!(fleet.outcome(&failed), Outcome::HeldBack, "{status}");
        let quiet_until = fleet.exchange.clock.now().unix + 600;
        assert_eq!(fleet.guard(), Some(offered(fleet.release, 1, 1, quiet_until)), "{status}");
        assert_eq!(fleet.after(599, &registration()), Outcome::HeldBack, "{status}");
        assert_eq!(fleet.after(1, &registration()), Outcome::Offered, "{status}");
    }
}

#[test]
fn the_back_off_is_a_setting_and_doubles_up_to_a_day() {
    let mut fleet = Fleet::with(|scene| {
        scene.config.offers_max = 100;
        scene.config.failure_backoff = Duration::from_secs(1000);
    });
    let failed = registration().text("status", FAILED);
    for (failures, back_off_s) in (1..).zip([1000, 2000, 4000, 8000, 16_000, 32_000, 64_000]) {
        assert_eq!(fleet.outcome(&registration()), Outcome::Offered);
        assert_eq!(fleet.outcome(&failed), Outcome::HeldBack);
        assert_eq!(fleet.guard().map(|guard| guard.failures), Some(failures));
        assert_eq!(fleet.after(back_off_s - 1, &registration()), Outcome::HeldBack);
        fleet.exchange.advance(Duration::from_secs(1));
    }
    for _ in 0..20 {
        assert_eq!(fleet.outcome(&registration()), Outcome::Offered);
        assert_eq!(fleet.outcome(&failed), Outcome::HeldBack);
        assert_eq!(fleet.after(86_399, &registration()), Outcome::HeldBack, "at most a day");
        fleet.exchange.advance(Duration::from_secs(1));
    }
}

/// Libraries 2.9 and 3.x report the failure again and again, once per turn of their main loop.
#[test]
fn a_failure_that_is_repeated_writes_nothing_and_counts_once() {
    let mut fleet = Fleet::new();
    let failed = registration().text("status", FAILED);
    assert_eq!(fleet.outcome(&registration()), Outcome::Offered);
    assert_eq!(fleet.outcome(&failed), Outcome::HeldBack);
    let guard = fleet.guard();
    for _ in 0..20 {
        fleet.exchange.advance(Duration::from_secs(5));
        let heard = fleet.check_in(&failed);
        assert_eq!(heard.kinds(), ["Identify"], "no store write");
        assert!(heard.reply().text().contains("\"status\":\"OK\""));
    }
    assert_eq!(fleet.guard(), guard);
}

/// So it is when the store comes and goes meanwhile: the loop reports what it met by turns, a dead
/// token and a 503.
#[test]
fn failures_that_take_turns_write_nothing_either() {
    let turns = ["File Not Found (404)", "Wrong HTTP Code", "HTTP error: connection refused"];
    for volatile in [false, true] {
        let fields = |turn: usize| {
            let fields = registration().text("status", turns[turn % turns.len()]);
            if volatile { fields.text("rssi", &format!("-{}", 40 + turn)) } else { fields }
        };
        let mut fleet = Fleet::new();
        assert_eq!(fleet.outcome(&registration()), Outcome::Offered);
        assert_eq!(fleet.outcome(&fields(0)), Outcome::HeldBack);
        for turn in 1..60 {
            fleet.exchange.advance(Duration::from_secs(5));
            assert_eq!(fleet.check_in(&fields(turn)).kinds(), ["Identify"], "turn {turn}");
        }
        let kept = fleet.check_in(&registration().text("status", "rebooting"));
        assert_eq!(kept.kinds(), ["Identify", "Record"], "another status is something new");
        fleet.exchange.advance(Duration::from_secs(5));
        let kept = fleet.check_in(&fields(1));
        assert_eq!(kept.kinds(), ["Identify", "Record"], "and so is a failure after it");
    }
}

/// The libraries never clear the address of a failed download: with a dead token they report the
/// same failure until they are offered a fresh one, so the back-off must end for them as well.
#[test]
fn a_failure_that_is_still_reported_after_the_back_off_is_offered_again() {
    let mut fleet = Fleet::new();
    let failed = registration().text("status", "File Not Found (404)");
    assert_eq!(fleet.outcome(&registration()), Outcome::Offered);
    for _ in 0..10 {
        assert_eq!(fleet.outcome(&failed), Outcome::HeldBack);
        fleet.exchange.advance(Duration::from_secs(60));
    }
    assert_eq!(fleet.outcome(&failed), Outcome::Offered);
}

#[test]
fn a_failure_does_not_hold_back_another_release() {
    let mut fleet = Fleet::new();
    let failed = registration().text("status", FAILED);
    assert_eq!(fleet.outcome(&registration()), Outcome::Offered);
    assert_eq!(fleet.outcome(&failed), Outcome::HeldBack);
    let newer = fleet.publish("1.3.0");
    assert_eq!(fleet.outcome(&failed), Outcome::Offered);
    assert_eq!(fleet.guard(), Some(offered(newer, 1, 0, 0)));
}

#[test]
fn an_error_text_without_an_offer_holds_nothing_back() {
    let mut fleet = Fleet::new();
    let failed = registration().text("status", FAILED);
    assert_eq!(fleet.outcome(&failed), Outcome::Offered);
}

#[test]
fn other_statuses_hold_nothing_back() {
    for status in ["Registered", "OK", "", "rebooting", "update_started", "all is fine (100%)"] {
        let mut fleet = Fleet::new();
        assert_eq!(fleet.outcome(&registration()), Outcome::Offered);
        let fields = registration().text("status", status);
        assert_eq!(fleet.outcome(&fields), Outcome::Offered, "{status}");
    }
}

#[test]
fn libraries_that_obey_the_last_ok_are_told_the_flag_first() {
    for library in
        [LIBRARY_2_3, LIBRARY_3_0, "thinx-lib:2.8.1", "thinx-lib-esp8266-arduinoc:3.1.0:2022-01-01"]
    {
        let mut fleet = Fleet::new();
        let fields = registration().text("firmware", library);
        let told = fleet.check_in(&fields);
        assert!(told.reply().text().contains("\"auto_update\":true"), "{library}");
        assert!(told.reply().text().contains("\"status\":\"OK\""), "{library}");
        let record = told.record(1);
        assert!(record.check_in.as_ref().expect("a check-in").told_auto_update, "{library}");
        assert_eq!(record.grant, None, "{library}");
        assert_eq!(fleet.outcome(&fields), Outcome::Offered, "{library}");
    }
}

#[test]
fn other_libraries_are_offered_at_once() {
    for library in [
        "thinx-lib-esp32-arduino:2.9.450",
        "thinx-lib-esp32-arduino:2.10.0",
        "my-own-firmware:1.0.0",
        "thinx:4.0.0",
        "no version at all",
        "",
    ] {
        let fields = registration().text("firmware", library);
        assert_eq!(Fleet::new().outcome(&fields), Outcome::Offered, "{library}");
    }
    assert_eq!(Fleet::new().outcome(&registration().without("firmware")), Outcome::Offered);
}

#[test]
fn a_flag_that_was_taken_back_and_given_again_is_told_again() {
    let mut fleet = Fleet::new();
    let fields = registration().text("firmware", LIBRARY_3_0);
    fleet.check_in(&fields);
    assert_eq!(fleet.outcome(&fields), Outcome::Offered);
    fleet.exchange.store.set_auto_update(device(DEVICE), false);
    assert!(fleet.check_in(&fields).reply().text().contains("\"auto_update\":false"));
    fleet.exchange.store.set_auto_update(device(DEVICE), true);
    assert!(fleet.check_in(&fields).reply().text().contains("\"status\":\"OK\""));
    assert_eq!(fleet.outcome(&fields), Outcome::Offered);
}

/// The one OK reply that tells the flag may be lost with its connection. The library then ignores
/// every offer until an OK reply arrives, so one must come before the offers run out.
#[test]
fn a_flag_whose_reply_was_lost_is_told_again() {
    let mut fleet = Fleet::new();
    let fields = registration().text("firmware", LIBRARY_3_0);
    fleet.check_in(&fields);
    let mut is_allowed = false;
    for _ in 0..20 {
        let text = fleet.check_in(&fields).reply().text().to_owned();
        if text.contains("FIRMWARE_UPDATE") && is_allowed {
            return;
        }
        is_allowed |= text.contains("\"status\":\"OK\",\"auto_update\":true");
    }
    panic!("in 20 check-ins no offer came after an OK reply");
}

#[test]
fn library_2_3_is_given_a_url_where_there_is_one() {
    let public_url: Arc<str> = Arc::from("http://ota.example:7442");
    let mut fleet = Fleet::with(|scene| scene.config.public_url = Some(public_url));
    let fields = registration().text("firmware", LIBRARY_2_3);
    fleet.check_in(&fields);
    let json = fleet.check_in(&fields).reply().json();
    let registration = &json["registration"];
    assert_eq!(registration.get("ott"), None, "ott would win over url");
    let url = registration["url"].as_str().expect("a url");
    let token = url.strip_prefix("http://ota.example:7442/device/firmware?ott=").expect("a token");
    assert_eq!(token.len(), 64);
}

#[test]
fn other_libraries_are_never_given_a_url() {
    for library in [LIBRARY_3_0, "thinx-lib-esp32-arduino:2.9.450"] {
        let url: Arc<str> = Arc::from("http://ota.example:7442");
        let mut fleet = Fleet::with(|scene| scene.config.public_url = Some(url));
        let fields = registration().text("firmware", library);
        fleet.check_in(&fields);
        let json = fleet.check_in(&fields).reply().json();
        assert!(json["registration"]["ott"].is_string(), "{library}");
        assert_eq!(json["registration"].get("url"), None, "{library}");
    }
}

#[test]
fn a_public_url_that_is_too_long_counts_as_none() {
    let long: Arc<str> = Arc::from(format!("http://{}", "h".repeat(58)));
    let mut fleet = Fleet::with(|scene| scene.config.public_url = Some(long));
    let fields = registration().text("firmware", LIBRARY_2_3);
    fleet.check_in(&fields);
    assert!(fleet.check_in(&fields).reply().json()["registration"]["ott"].is_string());
}

#[test]
fn nodejs_devices_are_told_ok() {
    let mut fleet = Fleet::new();
    let fields = registration().text("platform", "nodejs");
    for _ in 0..2 {
        assert!(fleet.check_in(&fields).reply().text().contains("\"status\":\"OK\""));
    }
}

#[test]
fn a_withdrawn_release_is_not_offered_again() {
    let mut fleet = Fleet::new();
    assert_eq!(fleet.outcome(&registration()), Outcome::Offered);
    fleet.exchange.store.withdraw(fleet.release);
    assert_eq!(fleet.outcome(&registration()), Outcome::Current);
}

#[test]
fn every_offer_is_a_token_and_only_the_last_one_lives() {
    let mut fleet = Fleet::new();
    let mut tokens = Vec::new();
    for _ in 0..4 {
        let json = fleet.check_in(&registration()).reply().json();
        tokens.push(json["registration"]["ott"].as_str().expect("a token").to_owned());
    }
    for (i, token) in tokens.iter().enumerate() {
        let request = Request::esp8266_update(token).without("Connection");
        let config = Scene::new().config;
        let mut exchange = Exchange::new(fleet.exchange.store.clone(), config);
        let status = exchange.request(&request.bytes()).reply().status;
        assert_eq!(status, if i == 3 { 200 } else { 404 }, "token {i}");
    }
}
