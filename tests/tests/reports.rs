//! What is reported of each request (`otter_protocol::report`): one report each, with the right
//! endpoint, status, outcome and device.

use std::time::Duration;

use otter_protocol::{Answer, Endpoint, Outcome, Refusal, Report};
use otter_tests::scene::{
    DEVICE, KEY, NO_KEY, OTHER_DEVICE, device, firmware, registration, token_text,
};
use otter_tests::tls::Difference;
use otter_tests::{Draft, Exchange, Fields, Request, Scene};

fn reported(scene: &Scene, request: &Request) -> Report {
    let mut exchange = scene.exchange();
    let heard = exchange.request(&request.bytes());
    let reports = exchange.peer.reports();
    assert_eq!(reports.len(), 1, "one request, one report: {reports:?}");
    let report = reports[0];
    assert_eq!(report.bytes_sent, heard.bytes.len() as u64, "head included");
    assert_eq!(
        report.status,
        otter_tests::Reply::parse_head(&heard.bytes).expect("a head").0.status
    );
    report
}

fn what(scene: &Scene, request: &Request) -> (Endpoint, Outcome) {
    let report = reported(scene, request);
    (report.endpoint, report.outcome)
}

fn check_in(fields: &Fields) -> Request {
    Request::check_in(KEY, &fields.wrapped("registration"))
}

#[test]
fn check_ins() {
    let offering = Scene::new().with_auto_update().with_release("1.2.0", 2000);
    let new = registration().text("udid", "0").without("mac");
    for (scene, request, outcome) in [
        (&Scene::new(), check_in(&registration()), Outcome::Current),
        (&Scene::new(), check_in(&new), Outcome::Registered),
        (&offering, check_in(&registration()), Outcome::Offered),
        (&Scene::new(), Request::check_in(KEY, "{}"), Outcome::Refused(Refusal::BadBody)),
    ] {
        assert_eq!(what(scene, &request), (Endpoint::CheckIn, outcome));
    }
}

#[test]
fn downloads() {
    let mut scene = Scene::new().with_auto_update();
    let release = scene.publish(&Draft::binary("1.2.0", 9000));
    let token = token_text(scene.issue(Some(release)));
    let get = Request::get(&format!("/device/firmware?ott={token}"));
    let post = Request::post("/device/firmware", &firmware().json()).key(KEY);
    let issue = Request::post("/device", &firmware().text("use", "ott").json()).key(KEY);
    for (request, endpoint, outcome) in [
        (get.clone(), Endpoint::Redeem, Outcome::Delivered),
        (get.clone().header("Range", "bytes=0-0"), Endpoint::Redeem, Outcome::Ranged),
        (get.method("HEAD"), Endpoint::Redeem, Outcome::Answered),
        (post, Endpoint::Firmware, Outcome::Delivered),
        (issue, Endpoint::Issue, Outcome::Issued),
    ] {
        assert_eq!(what(&scene, &request), (endpoint, outcome));
    }
}

#[test]
fn others() {
    let scene = Scene::new();
    let push = Fields::none().text("push", "abc").text("udid", DEVICE).json();
    let push = Request::post("/device/addpush", &push).key(KEY);
    assert_eq!(what(&scene, &push), (Endpoint::Push, Outcome::Answered));
    assert_eq!(what(&scene, &Request::get("/")), (Endpoint::Health, Outcome::Answered));
    let nowhere = (Endpoint::Other, Outcome::Refused(Refusal::NoRoute));
    assert_eq!(what(&scene, &Request::get("/nowhere")), nowhere);
    let malformed = (Endpoint::Other, Outcome::Refused(Refusal::Malformed));
    assert_eq!(what(&scene, &Request::get("/").without("Host")), malformed);
}

#[test]
fn a_device_is_named_where_it_is_known() {
    let report = reported(&Scene::new(), &check_in(&registration()));
    assert_eq!(report.device, Some(device(DEVICE)));
    let by_mac = reported(&Scene::new(), &check_in(&registration().without("udid")));
    assert_eq!(by_mac.device, Some(device(DEVICE)));
}

/// The device reads of a wrong key (docs/wire.md 1.1, row 8); the operator must not.
#[test]
fn a_device_of_another_owner_is_reported_as_an_unknown_device() {
    let request = check_in(&registration().text("udid", OTHER_DEVICE));
    let report = reported(&Scene::new(), &request);
    assert_eq!(report.outcome, Outcome::Refused(Refusal::UnknownDevice));
}

#[test]
fn a_wrong_key_names_nobody() {
    let request = Request::check_in(NO_KEY, &registration().wrapped("registration"));
    let report = reported(&Scene::new(), &request);
    assert_eq!((report.device, report.outcome), (None, Outcome::Refused(Refusal::WrongKey)));
}

#[test]
fn the_time_taken_is_from_the_whole_request_to_the_last_byte() {
    let mut exchange = Scene::new().exchange();
    let bytes = check_in(&registration()).without("Connection").then(b"").bytes();
    exchange.input(&bytes[..50]);
    exchange.advance(Duration::from_secs(3));
    exchange.input(&bytes[50..]);
    let query = exchange.ask().expect("Identify");
    exchange.advance(Duration::from_millis(400));
    let answer = exchange.store.answer(&query);
    exchange.answer(answer);
    exchange.settle();
    assert_eq!(exchange.peer.reports()[0].took, Duration::from_millis(400));
}

#[test]
fn an_answer_that_breaks_off_is_aborted_with_what_left() {
    if Difference::PartialTakes.is_here() {
        return;
    }
    let mut exchange = Scene::new().with_auto_update().with_release("1.2.0", 9000).exchange();
    exchange.input(&Request::post("/device/firmware", &firmware().json()).key(KEY).bytes());
    while let Some(query) = exchange.ask() {
        let answer = exchange.store.answer(&query);
        exchange.answer(answer);
    }
    let head = exchange.take(usize::MAX);
    let part = exchange.take(1000);
    exchange.peer.reset(exchange.clock.now());
    let report = exchange.peer.reports()[0];
    assert_eq!(report.outcome, Outcome::Aborted);
    assert_eq!((report.status, report.bytes_sent), (200, (head + part) as u64));
}

#[test]
fn a_request_that_is_broken_off_before_its_answer_has_no_status() {
    let mut exchange = Scene::new().exchange();
    exchange.input(&check_in(&registration()).bytes());
    exchange.ask().expect("Identify");
    exchange.peer.reset(exchange.clock.now());
    let report = exchange.peer.reports()[0];
    assert_eq!((report.status, report.outcome), (0, Outcome::Aborted));
    assert_eq!(report.bytes_sent, 0);
}

#[test]
fn what_the_store_could_not_say_is_reported_so() {
    let mut exchange = Scene::new().exchange();
    exchange.input(&check_in(&registration()).bytes());
    exchange.ask().expect("Identify");
    exchange.answer(Answer::Unavailable);
    exchange.settle();
    let report = exchange.peer.reports()[0];
    assert_eq!((report.status, report.outcome), (503, Outcome::Refused(Refusal::Unavailable)));
}

#[test]
fn requests_in_a_row_are_reported_in_order() {
    let mut exchange: Exchange = Scene::new().exchange();
    let mut bytes = Request::get("/").bytes();
    bytes.extend(Request::get("/nowhere").bytes());
    bytes.extend(check_in(&registration()).bytes());
    exchange.request(&bytes);
    let endpoints: Vec<Endpoint> = exchange.peer.reports().iter().map(|r| r.endpoint).collect();
    assert_eq!(endpoints, [Endpoint::Health, Endpoint::Other, Endpoint::CheckIn]);
}

#[test]
fn silence_is_not_reported() {
    let mut exchange = Scene::new().exchange();
    exchange.expire();
    assert!(exchange.peer.closed().is_some() && exchange.peer.reports().is_empty());
}
