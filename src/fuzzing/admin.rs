//! The admin API, without a socket.

use std::sync::{Arc, LazyLock};

use axum::Router;
use axum::body::Body;
use axum::http::{Method, Request, StatusCode};
use http_body_util::BodyExt;
use otter_protocol::{CheckIn, Config, DeviceId, Mac, OwnerId, Query, Record};
use otter_store::{Answer, Memory, MemoryOptions, Store, Ticket};
use serde_json::Value;
use tokio::runtime::Runtime;
use tower::ServiceExt;

use super::directory;
use crate::admin::{Admin, router};

/// Whatever is asked of the admin API is answered, and never with a status of 500 and above: what
/// is refused says why, in JSON. Afterwards the API still is in order.
///
/// Requests are separated by 0x1e: the method, a blank, the target; perhaps lines of headers that
/// begin with `>`; the body. `$o`, `$d`, `$r`, `$k` and `$t` stand for an owner, a device, and the
/// release, hash of a key and token that were made last.
///
/// # Panics
/// If that is not so.
pub fn admin(bytes: &[u8]) {
    let directory = directory();
    let memory = Memory::open(directory.path(), MemoryOptions::default()).expect("a store");
    let owner = memory.operator().create_owner(OwnerId::parse(OWNER)).expect("an owner");
    let mut said = Said {
        device: register(&memory, owner).to_string(),
        release: UDID.to_owned(),
        key: "0".repeat(64),
        token: "0".repeat(64),
    };
    let admin = Admin::new(memory.operator(), Config::default(), IMAGE_BYTES_MAX, None, None);
    let router = router(admin);
    RUNTIME.block_on(async {
        for request in bytes.split(|byte| *byte == 0x1e).take(REQUESTS_MAX) {
            let Some(request) = said.request(request) else { continue };
            ask(&router, request, &mut said).await;
        }
        for target in ["/health", "/metrics", "/owners", "/keys", "/devices", "/releases"] {
            let request = Request::get(target).body(Body::empty()).expect("a request");
            let status = ask(&router, request, &mut said).await;
            assert_eq!(status, StatusCode::OK, "{target} afterwards");
        }
    });
}

/// What the placeholders stand for.
struct Said {
    device: String,
    release: String,
    key: String,
    token: String,
}

impl Said {
    /// `None` for what no client can send.
    fn request(&self, bytes: &[u8]) -> Option<Request<Body>> {
        let mut lines = bytes.splitn(2, |byte| *byte == b'\n');
        let first = self.fill(std::str::from_utf8(lines.next()?).ok()?);
        let (method, target) = first.split_once(' ')?;
        let method = Method::from_bytes(method.as_bytes()).ok()?;
        let mut request = Request::builder().method(method).uri(target);
        let mut body = lines.next().unwrap_or_default();
        while let Some(rest) = body.strip_prefix(b">") {
            let end = rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len());
            let colon = rest[..end].iter().position(|byte| *byte == b':')?;
            request = request.header(&rest[..colon], rest[colon + 1..end].trim_ascii());
            body = rest.get(end + 1..).unwrap_or_default();
        }
        let body = match std::str::from_utf8(body) {
            Ok(text) => self.fill(text).into_bytes(),
            Err(_) => body.to_vec(),
        };
        request.body(Body::from(body)).ok()
    }

    fn fill(&self, text: &str) -> String {
        let pairs = [
            ("$o", OWNER),
            ("$d", &self.device),
            ("$r", &self.release),
            ("$k", &self.key),
            ("$t", &self.token),
        ];
        pairs.iter().fold(text.to_owned(), |text, (short, long)| text.replace(short, long))
    }

    fn learn(&mut self, answer: &Value) {
        let slots =
            [("release", &mut self.release), ("hash", &mut self.key), ("ott", &mut self.token)];
        for (name, slot) in slots {
            if let Some(text) = answer[name].as_str() {
                *slot = text.to_owned();
            }
        }
    }
}

async fn ask(router: &Router, request: Request<Body>, said: &mut Said) -> StatusCode {
    let shown = format!("{} {}", request.method(), request.uri());
    let has_body = request.method() != Method::HEAD;
    let is_text = request.uri().path() == "/metrics";
    let response = router.clone().oneshot(request).await.expect("it cannot fail");
    let status = response.status();
    let body = response.into_body().collect().await.expect("it cannot fail").to_bytes();
    assert!(status.as_u16() < 500, "{shown}: {status}: {}", body.escape_ascii());
    if has_body && !(is_text && status.is_success()) {
        let answer: Value = serde_json::from_slice(&body)
            .unwrap_or_else(|_| panic!("{shown}: {status}, no JSON: {}", body.escape_ascii()));
        let is_refusal = answer["error"].as_str().is_some_and(|error| !error.is_empty());
        assert_eq!(is_refusal, !status.is_success(), "{shown}: {status}: {answer}");
        said.learn(&answer);
    }
    status
}

/// A device that has checked in.
fn register(memory: &Memory, owner: OwnerId) -> DeviceId {
    let check_in = CheckIn {
        mac: Mac::parse("5CCF7F3D8F2A"),
        alias: None,
        version: Some("1.0.0".into()),
        platform: Some("arduino:esp8266".into()),
        env_hash: None,
        facts: "{}".into(),
        digest: 1,
        told_auto_update: false,
    };
    let record =
        Record { owner, device: None, check_in: Some(check_in), offered: None, grant: None };
    let mut store = memory.store(Arc::new(|| {}));
    store.submit(&mut vec![(Ticket(1), Query::Record(Box::new(record)))]);
    let mut answers = Vec::new();
    store.collect(&mut answers);
    match answers.pop() {
        Some((_, Answer::Recorded(Some(recorded)))) => recorded.device,
        other => panic!("not recorded: {other:?}"),
    }
}

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
});

const OWNER: &str = "a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1";
const UDID: &str = "5ccf7fee-1337-4000-8000-00000000ab01";
const IMAGE_BYTES_MAX: u64 = 1 << 20;
const REQUESTS_MAX: usize = 16;

#[cfg(test)]
pub(super) const SEEDS: &[&str] = &[
    "GET /health\x1eGET /metrics\x1eGET /owners\x1eDELETE /health\x1eGET /nowhere",
    "POST /owners\n{}\x1ePOST /owners\n{\"owner\":\"$o\"}\x1ePOST /owners\n{\"owner\":7}",
    "POST /keys\n{\"owner\":\"$o\",\"alias\":\"a\"}\x1eGET /keys?owner=$o\x1eDELETE /keys/$k\
     \x1eDELETE /keys/$k",
    "GET /devices?owner=$o&limit=5&after=$d\x1eGET /devices/$d\x1ePATCH /devices/$d\n\
     {\"auto_update\":true,\"alias\":\"x\"}\x1eGET /devices/%ff",
    "POST /releases?owner=$o&device=$d&version=1.2.0&platform=pine64\nimage\x1eGET \
     /releases?owner=$o&device=$d\x1eDELETE /releases/$r",
    "POST /releases?owner=$o&all=true&version=1.2.0&platform=nodemcu&kind=bundle\n\
     {\"type\":\"file\",\"files\":[{\"name\":\"config.lua\",\"data\":\"x=1\"}]}\x1ePOST /tokens\n\
     {\"udid\":\"$d\"}\x1eDELETE /tokens/$t\x1eDELETE /devices/$d/tokens",
    "POST /releases?owner=$o&device=$d&version=1.2.0&platform=arduino\n>content-length: \
     99999999999\nx",
    "HEAD /devices?limit=18446744073709551616\x1ePUT /tokens\x1ePOST /keys\n[",
];
