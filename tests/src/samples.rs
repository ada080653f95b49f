//! Every kind of request in one table, for laws that must hold for each of them.

use crate::scene::{KEY, MAC, NO_DEVICE, NO_KEY, OTHER_OWNER, firmware, registration, token_text};
use crate::{Draft, Fields, Request, Scene};

/// A request, and the service that it goes to.
#[derive(Clone, Debug)]
pub struct Sample {
    /// What it is, for messages.
    pub name: &'static str,
    /// The service.
    pub scene: Scene,
    /// The bytes.
    pub bytes: Vec<u8>,
}

/// All samples: each endpoint, answered and refused, and each way to frame a request.
#[must_use]
pub fn samples() -> Vec<Sample> {
    let mut samples = check_ins();
    samples.extend(firmware_posts());
    samples.extend(redemptions());
    samples.extend(others());
    samples.extend(refused_by_http());
    samples
}

fn check_ins() -> Vec<Sample> {
    let plain = Scene::new();
    let offering = Scene::new().with_release("1.2.0", 9000).with_auto_update();
    let body = registration().wrapped("registration");
    let new = registration().text("udid", NO_DEVICE).without("mac").wrapped("registration");
    let unnamed = registration().without("udid").wrapped("registration");
    let keep_alive = Request::check_in(KEY, &body).without("Connection");
    let bad_owner = registration().text("owner", "nobody").wrapped("registration");
    vec![
        sample("check-in", &plain, Request::check_in(KEY, &body)),
        sample("check-in, new device", &plain, Request::check_in(KEY, &new)),
        sample("check-in, adopted by MAC", &plain, Request::check_in(KEY, &unnamed)),
        sample("check-in, kept alive", &plain, keep_alive.clone()),
        sample("check-in, chunked", &plain, keep_alive.clone().chunked(40)),
        sample("check-in, chunk by byte", &plain, keep_alive.chunked(1)),
        sample("check-in, offer", &offering, Request::check_in(KEY, &body)),
        sample("check-in, wrong key", &plain, Request::check_in(NO_KEY, &body)),
        sample("check-in, bad owner", &plain, Request::check_in(KEY, &bad_owner)),
        sample("check-in, no registration", &plain, Request::check_in(KEY, "{}")),
        sample("check-in, bad JSON", &plain, Request::check_in(KEY, "{\"registration\":")),
        sample("check-in, no key", &plain, Request::post("/device/register", &body)),
    ]
}

fn firmware_posts() -> Vec<Sample> {
    let plain = Scene::new();
    let offering = Scene::new().with_release("1.2.0", 9000).with_auto_update();
    let mut bundled = Scene::new().with_auto_update();
    bundled.publish(&Draft::bundle("1.2.0", "{\"type\":\"file\",\"files\":[]}"));
    let flat = firmware().json();
    let issue = firmware().text("use", "ott").json();
    let post = |body: &str| Request::post("/device/firmware", body).key(KEY);
    vec![
        sample("firmware", &offering, post(&flat)),
        sample("firmware, wrapped", &offering, post(&firmware().wrapped("update"))),
        sample("firmware, bundle", &bundled, post(&flat)),
        sample("firmware, nothing", &plain, post(&flat)),
        sample("firmware, no MAC", &plain, post(&firmware().without("mac").json())),
        sample("firmware, foreign", &plain, post(&firmware().text("owner", OTHER_OWNER).json())),
        sample("issue", &offering, post(&issue)),
        sample("issue, alias route", &offering, Request::post("/device", &issue).key(KEY)),
        sample("issue, no key", &offering, Request::post("/device/firmware", &issue)),
    ]
}

fn redemptions() -> Vec<Sample> {
    let mut scene = Scene::new();
    let release = scene.publish(&Draft::binary("1.2.0", 9000));
    let small = scene.publish(&Draft::binary("1.2.1", 1500));
    let token = token_text(scene.issue(Some(release)));
    let small_token = token_text(scene.issue(Some(small)));
    let get = Request::get(&format!("/device/firmware?ott={token}"));
    let dead = format!("/device/firmware?ott={}", "0".repeat(64));
    let version = Request::esp8266_update(&token).without("x-ESP8266-mode");
    vec![
        sample("redeem", &scene, Request::esp8266_update(&token)),
        sample("redeem, all of it tail", &scene, Request::esp8266_update(&small_token)),
        sample("redeem, HEAD", &scene, get.clone().method("HEAD")),
        sample("redeem, probe", &scene, get.clone().header("Range", "bytes=0-0")),
        sample("redeem, prefix", &scene, get.clone().header("Range", "bytes=100-999")),
        sample("redeem, rest", &scene, get.clone().header("Range", "bytes=4000-")),
        sample("redeem, tail", &scene, get.clone().header("Range", "bytes=-100")),
        sample("redeem, bad range", &scene, get.header("Range", "bytes=9000-")),
        sample("redeem, version", &scene, version.header("x-ESP8266-mode", "version")),
        sample("redeem, dead token", &scene, Request::get(&dead)),
        sample("redeem, no token", &scene, Request::get("/device/firmware")),
    ]
}

fn others() -> Vec<Sample> {
    let scene = Scene::new();
    let push = Fields::none().text("push", "abc:DEF-1_2").text("udid", crate::scene::DEVICE);
    let add_push = |key| Request::post("/device/addpush", &push.json()).key(key);
    let health = Request::get("/");
    vec![
        sample("push", &scene, add_push(KEY)),
        sample("push, wrong key", &scene, add_push(NO_KEY)),
        sample("health", &scene, health.clone()),
        sample("health, HTTP/1.0", &scene, health.version("HTTP/1.0")),
        sample("options", &scene, Request::new("OPTIONS", "*")),
        sample("unknown route", &scene, Request::post("/nowhere", MAC)),
    ]
}

fn refused_by_http() -> Vec<Sample> {
    let scene = Scene::new();
    let post = Request::post("/device/register", "{}");
    let long = format!("/{}", "x".repeat(3000));
    vec![
        sample("no HTTP", &scene, Request::new("", "").version("")),
        sample("two lengths", &scene, post.clone().header("Content-Length", "2")),
        sample("length and chunks", &scene, post.chunked(2).header("Content-Length", "2")),
        sample("long target", &scene, Request::get(&long)),
        sample("long head", &scene, Request::get("/").header("x", &"y".repeat(9000))),
    ]
}

fn sample(name: &'static str, scene: &Scene, request: Request) -> Sample {
    Sample { name, scene: scene.clone(), bytes: request.bytes() }
}
