//! The two modes of statuses (docs/wire.md 1, 3.4; docs/design.md 10): other numbers, the same
//! bodies.

use otter_protocol::StatusMode;
use otter_tests::scene::{
    KEY, NO_DEVICE, NO_KEY, NO_OWNER, OTHER_DEVICE, firmware, registration, token_text,
};
use otter_tests::{Fields, Request, Scene};

/// Sends the request in both modes; the statuses, after the bodies were found equal.
fn statuses(scene: &Scene, request: &Request) -> (u16, u16) {
    let mut thinx = scene.clone();
    thinx.config.status_mode = StatusMode::Thinx;
    let thinx = thinx.exchange().request(&request.bytes()).reply();
    let http = scene.clone().with_http_statuses().exchange().request(&request.bytes()).reply();
    assert_eq!(thinx.body, http.body);
    assert_eq!(thinx.header("Content-Type"), http.header("Content-Type"));
    (thinx.status, http.status)
}

#[test]
fn check_ins() {
    let body = |fields: &Fields| fields.wrapped("registration");
    let plain = body(&registration());
    for (name, request, expected) in [
        ("row 1", Request::new("POST", "/device/register").key(KEY), (400, 400)),
        ("row 2", Request::check_in(KEY, "{}"), (400, 400)),
        ("row 3", Request::check_in(KEY, &plain).without("Authentication"), (200, 401)),
        (
            "row 4",
            Request::check_in(KEY, &body(&registration().text("owner", "nobody"))),
            (200, 400),
        ),
        (
            "row 5",
            Request::check_in(KEY, &body(&registration().text("owner", NO_OWNER))),
            (200, 401),
        ),
        ("row 6", Request::check_in(NO_KEY, &plain), (200, 401)),
        (
            "row 8",
            Request::check_in(KEY, &body(&registration().text("udid", OTHER_DEVICE))),
            (200, 401),
        ),
        ("row 10", Request::check_in(KEY, &plain), (200, 200)),
    ] {
        assert_eq!(statuses(&Scene::new(), &request), expected, "{name}");
    }
}

#[test]
fn firmware_posts() {
    let post = |fields: &Fields| Request::post("/device/firmware", &fields.json());
    let scene = Scene::new();
    for (name, request, expected) in [
        ("row 2", post(&firmware().without("mac")).key(KEY), (200, 400)),
        ("row 3", post(&firmware()), (200, 401)),
        ("row 4, unknown", post(&firmware().text("owner", NO_OWNER)).key(KEY), (200, 401)),
        ("row 4, invalid", post(&firmware().text("owner", "x")).key(KEY), (200, 400)),
        ("row 5", post(&firmware()).key(NO_KEY), (200, 401)),
        ("row 6", post(&firmware().text("udid", OTHER_DEVICE)).key(KEY), (200, 404)),
        ("row 7", post(&firmware()).key(KEY), (200, 404)),
    ] {
        assert_eq!(statuses(&scene, &request), expected, "{name}");
    }
}

#[test]
fn token_requests() {
    let post = |fields: &Fields| Request::post("/device/firmware", &fields.json());
    let issue = firmware().text("use", "ott");
    let scene = Scene::new();
    assert_eq!(statuses(&scene, &post(&issue)), (200, 401), "no key");
    assert_eq!(statuses(&scene, &post(&issue).key(NO_KEY)), (200, 401), "wrong key");
    assert_eq!(statuses(&scene, &post(&issue).key(KEY)), (200, 200), "issued");
}

#[test]
fn push_tokens() {
    let fields = Fields::none().text("push", "abc").text("udid", NO_DEVICE);
    let post = |fields: &Fields| Request::post("/device/addpush", &fields.json());
    let scene = Scene::new();
    assert_eq!(statuses(&scene, &post(&fields.clone().without("push")).key(KEY)), (200, 400));
    assert_eq!(statuses(&scene, &post(&fields.clone().raw("push", "5")).key(KEY)), (200, 400));
    assert_eq!(statuses(&scene, &post(&fields)), (403, 403), "no key");
    assert_eq!(statuses(&scene, &post(&fields).key(KEY)), (200, 404), "no device");
}

#[test]
fn a_route_that_is_none_is_not_found_in_both() {
    assert_eq!(statuses(&Scene::new(), &Request::get("/nowhere")), (404, 404));
}

/// The refusals of `GET /device/firmware`: target and true status.
fn refusals(scene: &mut Scene) -> Vec<(String, u16)> {
    let nothing = token_text(scene.issue(None));
    vec![
        ("/device/firmware".to_owned(), 400),
        ("/device/firmware?ott=".to_owned(), 404),
        (format!("/device/firmware?ott={}", "0".repeat(64)), 404),
        (format!("/device/firmware?ott={nothing}"), 404),
    ]
}

#[test]
fn redemptions_have_true_statuses_in_both() {
    let mut scene = Scene::new();
    for (target, status) in refusals(&mut scene) {
        assert_eq!(statuses(&scene, &Request::get(&target)), (status, status), "{target}");
    }
}

#[test]
fn thinx_get_200_makes_them_200_in_thinx_mode_only() {
    let mut scene = Scene::new();
    scene.config.thinx_get_200 = true;
    for (target, status) in refusals(&mut scene) {
        assert_eq!(statuses(&scene, &Request::get(&target)), (200, status), "{target}");
    }
}
