//! What RFC 9110 and RFC 9112 ask of a server, as far as no other file of tests shows it.
//! docs/http.md lists all of it, with the names of its tests.

use otter_protocol::{CloseReason, Outcome, Refusal};
use otter_tests::image::{hex, image, sha256_of};
use otter_tests::scene::{KEY, Redeemable, firmware, registration};
use otter_tests::{Draft, Heard, Reply, Request, Scene};

const HEALTH: &str = "{\"healthcheck\":true}";
const SIZE: usize = 10_000;

fn send(bytes: &[u8]) -> Heard {
    Scene::new().exchange().request(bytes)
}

fn offered() -> Redeemable {
    Redeemable::of(&Draft::binary("1.2.0", SIZE))
}

/// The entity tag of what [`offered`] offers.
fn etag() -> String {
    format!("\"{}\"", hex(&sha256_of(&image("1.2.0", SIZE))))
}

fn check_in() -> Request {
    Request::post("/device/register", &registration().wrapped("registration")).key(KEY)
}

fn is_ok(reply: &Reply) -> bool {
    reply.status == 200 && reply.text().contains("\"status\":\"OK\"")
}

fn assert_bad_request(request: &Request) {
    let mut exchange = Scene::new().exchange();
    let heard = exchange.request(&request.bytes());
    assert_eq!(heard.reply().status, 400, "{request:?}");
    assert!(heard.ended && heard.queries.is_empty(), "{request:?}");
    assert_eq!(exchange.outcome(), Some(Outcome::Refused(Refusal::Malformed)), "{request:?}");
    assert_eq!(exchange.close(), CloseReason::Refused, "{request:?}");
}

// Targets and methods.

/// RFC 9112 3.2: the four forms, each where it may stand.
#[test]
fn targets_have_four_forms() {
    for (method, target, status) in [
        ("GET", "/", 200),
        ("GET", "/?query", 200),
        ("GET", "http://otter/", 200),
        ("GET", "HTTP://otter:7442", 200),
        ("GET", "https://[::1]:7443/", 200),
        ("CONNECT", "otter:443", 404),
        ("OPTIONS", "*", 200),
        ("OPTIONS", "/", 404),
        ("GET", "*", 400),
        ("GET", "otter:443", 400),
        ("GET", "otter", 400),
        ("OPTIONS", "*?", 400),
    ] {
        let reply = send(&Request::new(method, target).bytes()).reply();
        assert_eq!(reply.status, status, "{method} {target}");
    }
}

/// RFC 9110 4.2.1, 4.2.2 and 4.2.4: no host is no URI, and who puts a name before it misleads.
#[test]
fn an_absolute_target_has_a_host_and_no_user() {
    for target in ["http://", "http:///", "http://:80/", "http://:/", "http://?a"] {
        assert_bad_request(&Request::get(target));
    }
    for target in ["http://user@otter/", "https://user:password@otter", "http://@otter/"] {
        assert_bad_request(&Request::get(target));
    }
    let reply = send(&Request::get("http://otter/@:80").bytes()).reply();
    assert_eq!(reply.status, 404, "in the path both mean nothing");
}

/// RFC 9112 3.2.2: what `Host` says then does not matter, and it must be there all the same.
#[test]
fn an_absolute_target_wins_over_the_host() {
    let request = Request::get("http://otter/").host("elsewhere");
    assert_eq!(send(&request.bytes()).reply().text(), HEALTH);
    assert_bad_request(&request.without("Host"));
}

/// RFC 9110 9.1: case counts. What is not known is answered as what is not there, keeps the
/// connection, and is never done.
#[test]
fn methods_that_are_not_known_do_nothing() {
    for method in ["get", "Post", "BREW", "PATCH", "PUT", "DELETE", "CONNECTS", "M-SEARCH"] {
        let mut exchange = Scene::new().exchange();
        let heard = exchange.request(&check_in().method(method).bytes());
        assert_eq!(heard.reply().status, 404, "{method}");
        assert!(heard.queries.is_empty() && !heard.ended, "{method}");
        assert!(is_ok(&exchange.request(&check_in().bytes()).reply()), "{method}");
    }
}

/// RFC 9110 9.3.8: nothing of a request is sent back.
#[test]
fn trace_shows_nothing() {
    let reply = send(&Request::new("TRACE", "/").key(KEY).bytes()).reply();
    assert_eq!(reply.status, 404);
    assert!(!reply.text().contains(KEY));
}

// HEAD and bodies where none belongs.

/// RFC 9110 9.3.2: the same head, but for what is said of the connection, and nothing behind it.
#[test]
fn head_is_get_without_its_content() {
    let offered = offered();
    let dead = format!("/device/firmware?ott={}", "0".repeat(64));
    let unmodified = offered.get().header("If-None-Match", "*");
    for get in [
        Request::get("/"),
        Request::get("/nowhere"),
        Request::get("/device/firmware"),
        Request::get(&dead),
        offered.get(),
        offered.get().header("If-Match", "\"other\""),
        unmodified,
    ] {
        let full = offered.fetch(&get).1.reply();
        let (_, heard) = offered.fetch(&get.clone().method("HEAD"));
        let head = heard.reply();
        assert_eq!(head.status, full.status, "{get:?}");
        assert!(heard.bytes.ends_with(b"\r\n\r\n"), "{get:?}");
        let fields = |reply: &Reply| {
            let fields = reply.headers.clone().into_iter();
            fields.filter(|(name, _)| name != "Connection").collect::<Vec<_>>()
        };
        assert_eq!(fields(&head), fields(&full), "{get:?}");
    }
}

/// RFC 9112 6.3, rule 1: what follows the head of an answer to HEAD is the next answer.
#[test]
fn an_answer_to_head_is_followed_by_the_next() {
    let pair = [Request::new("HEAD", "/").bytes(), Request::get("/").bytes()].concat();
    let heard = send(&pair);
    let text = heard.text();
    assert_eq!(text.matches("HTTP/1.1 200 OK\r\n").count(), 2);
    assert_eq!(text.matches(HEALTH).count(), 1);
    assert!(text.ends_with(HEALTH) && !heard.ended);
}

/// RFC 9110 9.3.1: it has no meaning, and is no part of the next request.
#[test]
fn a_body_where_none_belongs_is_read_and_dropped() {
    let hidden = Request::new("GET", "/nowhere").bytes();
    let hidden = String::from_utf8(hidden).expect("text");
    for method in ["GET", "HEAD", "OPTIONS", "DELETE", "BREW"] {
        for request in [
            Request::post("/", &hidden).method(method),
            Request::post("/", &hidden).method(method).chunked(7),
        ] {
            let mut exchange = Scene::new().exchange();
            let first = exchange.request(&request.bytes());
            assert_eq!(first.replies().len(), 1, "{request:?}");
            let next = exchange.request(&Request::get("/").bytes()).reply();
            assert_eq!(next.text(), HEALTH, "{request:?}");
        }
    }
}

// Fields.

/// RFC 9110 5.1, 5.5: names that nobody knows, values beyond ASCII, empty values.
#[test]
fn fields_that_are_not_known_are_ignored() {
    let mut bytes = b"GET / HTTP/1.1\r\nHost: a\r\n!#$%&'*+-.^_`|~: x\r\nEmpty:\r\nB: ".to_vec();
    bytes.extend(b"caf\xe9 \xff\t\"quoted\\\"\"\r\nMax-Forwards: 0\r\nAccept: image/png\r\n\r\n");
    assert_eq!(send(&bytes).reply().text(), HEALTH);
}

/// RFC 9110 7.8: nothing is switched to, and nothing is said of it.
#[test]
fn upgrades_are_ignored() {
    for (protocol, more) in [("h2c", "HTTP2-Settings: AAMAAABkAAQAAP__"), ("websocket", "X: y")] {
        for version in ["HTTP/1.1", "HTTP/1.0"] {
            let request = Request::get("/")
                .version(version)
                .header("Connection", "Upgrade, HTTP2-Settings, keep-alive")
                .header("Upgrade", protocol)
                .line(more);
            let heard = send(&request.bytes());
            let reply = heard.reply();
            assert_eq!((reply.status, reply.text()), (200, HEALTH), "{protocol} {version}");
            assert_eq!(reply.header("Upgrade"), None);
            assert!(!heard.ended);
        }
    }
}

/// RFC 9110 7.6.1, 10.1.4: options of the connection that are not known, and codings that an
/// answer could have.
#[test]
fn options_of_the_connection_that_are_not_known_are_ignored() {
    let request = Request::get("/")
        .header("Connection", "TE, host, closed, authentication,, x-close")
        .header("TE", "trailers, deflate;q=0.5, chunked")
        .header("Keep-Alive", "timeout=1, max=1")
        .header("Proxy-Connection", "close");
    let heard = send(&request.bytes());
    assert_eq!(heard.reply().header_names(), ["Content-Type", "Content-Length"]);
    assert!(!heard.ended);
}

/// RFC 9110 8.4: a body is not decoded, so one that is coded is no JSON.
#[test]
fn content_codings_are_not_undone() {
    let plain = check_in().header("Content-Encoding", "identity");
    assert!(is_ok(&send(&plain.bytes()).reply()));
    let gzip = Request::post("/device/register", "\u{1f}\u{8}").key(KEY);
    let reply = send(&gzip.header("Content-Encoding", "gzip").bytes()).reply();
    assert_eq!(reply.status, 400);
    assert_eq!(reply.text(), "{\"success\":false,\"response\":\"request_invalid\"}");
}

/// RFC 9112 7.1.2, RFC 9110 6.5.1: no field of a trailer counts as one of the head.
#[test]
fn trailers_change_nothing() {
    let trailer = format!(
        "0\r\nConnection: close\r\nContent-Length: 3\r\nTransfer-Encoding: gzip\r\nHost: b\r\n\
         Authentication: {}\r\nExpect: 100-continue\r\n\r\n",
        "0".repeat(64)
    );
    let mut bytes = check_in().chunked(1000).bytes();
    bytes.truncate(bytes.len() - b"0\r\n\r\n".len());
    bytes.extend(trailer.bytes());
    let mut exchange = Scene::new().exchange();
    let heard = exchange.request(&bytes);
    assert!(is_ok(&heard.reply()) && !heard.ended);
    assert!(is_ok(&exchange.request(&check_in().bytes()).reply()));
}

/// RFC 9110 10.1.1.
#[test]
fn an_expectation_that_is_not_known_fails() {
    for value in ["200-ok", "100-continue, other", "100-continue=yes"] {
        let mut exchange = Scene::new().exchange();
        let heard = exchange.request(&check_in().header("Expect", value).bytes());
        let reply = heard.reply();
        assert_eq!(reply.status, 417, "{value}");
        assert_eq!(reply.text(), "{\"success\":false,\"response\":\"expectation_failed\"}");
        assert!(heard.ended && heard.queries.is_empty(), "{value}");
    }
    assert!(is_ok(&send(&check_in().header("Expect", "").bytes()).reply()));
}

/// RFC 9110 11.6.1: in the mode whose statuses are true.
#[test]
fn a_401_names_how_to_authenticate() {
    let scene = Scene::new().with_http_statuses();
    let issue = Request::post("/device/firmware", &firmware().text("use", "ott").json());
    let body = check_in().without("Authentication");
    for request in [
        body.clone(),
        body.key("0"),
        check_in().without("Authentication").key(&"0".repeat(64)),
        Request::post("/device/firmware", &firmware().json()),
        issue,
    ] {
        let reply = scene.exchange().request(&request.bytes()).reply();
        assert_eq!(reply.status, 401, "{request:?}");
        assert_eq!(reply.header("WWW-Authenticate"), Some("THiNX"), "{request:?}");
        let thinx = Scene::new().exchange().request(&request.bytes()).reply();
        assert_eq!((thinx.status, thinx.header("WWW-Authenticate")), (200, None), "{request:?}");
    }
}

// Conditions and ranges.

/// What comes of a `GET` with these fields: its status, and whether it was an attempt.
fn condition(fields: &[(&str, &str)]) -> (u16, bool) {
    let offered = offered();
    let add = |request: Request, (name, value): &(&str, &str)| request.header(name, value);
    let request = fields.iter().fold(offered.get(), add);
    let (_, heard) = offered.fetch(&request);
    let reply = heard.reply();
    let tag = etag();
    match reply.status {
        200 => assert_eq!(reply.body, image("1.2.0", SIZE)),
        304 => assert_eq!(reply.headers, [("ETag".to_owned(), tag)]),
        412 => assert_eq!((reply.content_length(), reply.body.len()), (Some(0), 0)),
        _ => {}
    }
    assert_eq!(heard.ended, reply.status == 200, "what is no image follows the client");
    (reply.status, heard.kinds().contains(&"Start"))
}

/// RFC 9110 13.1.2: whatever the list looks like, weak or strong, over several lines.
#[test]
fn if_none_match_is_answered_with_304() {
    let tag = etag();
    let weak = format!("W/{tag}");
    let list = format!("\"a, b\" ,, W/\"\",{tag},\"c\"");
    for same in [tag.as_str(), &weak, &list, "*", " * "] {
        assert_eq!(condition(&[("If-None-Match", same)]), (304, false), "{same}");
    }
    let lines = [("If-None-Match", "\"other\""), ("if-none-match", tag.as_str())];
    assert_eq!(condition(&lines), (304, false));
    let bare = tag.trim_matches('"').to_owned();
    let upper = tag.to_uppercase();
    let inside = format!("\"x{}\"", tag.trim_matches('"'));
    for other in ["", "\"other\"", &bare, &upper, &inside, "w/\"x\"", "\"unended", "*, \"a\""] {
        assert_eq!(condition(&[("If-None-Match", other)]), (200, true), "{other}");
    }
}

/// RFC 9110 13.1.1: only a strong tag is the same.
#[test]
fn if_match_is_answered_with_412() {
    let tag = etag();
    let (weak, list) = (format!("W/{tag}"), format!("\"a\", {tag}"));
    for same in [tag.as_str(), &list, "*"] {
        assert_eq!(condition(&[("If-Match", same)]), (200, true), "{same}");
    }
    for other in ["\"other\"", "", &weak, tag.trim_matches('"')] {
        assert_eq!(condition(&[("If-Match", other)]), (412, false), "{other}");
    }
}

/// RFC 9110 13.1.3, 13.1.4: an image has no date of its own, so dates are no conditions.
#[test]
fn conditions_on_dates_are_ignored() {
    for date in ["Sat, 29 Oct 1994 19:43:31 GMT", "Fri, 01 Jan 2100 00:00:00 GMT", "never"] {
        for name in ["If-Modified-Since", "If-Unmodified-Since"] {
            assert_eq!(condition(&[(name, date)]), (200, true), "{name}: {date}");
        }
    }
}

/// RFC 9110 13.2.2: `If-Match`, then `If-None-Match`, then what `Range` and `If-Range` say.
#[test]
fn conditions_are_judged_in_their_order() {
    let tag = etag();
    let tag = tag.as_str();
    for (fields, status) in [
        (vec![("If-None-Match", tag), ("If-Match", "\"other\"")], 412),
        (vec![("If-None-Match", tag), ("If-Match", tag)], 304),
        (vec![("If-Match", "\"other\""), ("Range", "bytes=0-99")], 412),
        (vec![("If-None-Match", tag), ("Range", "bytes=0-99")], 304),
        (vec![("If-None-Match", tag), ("Range", "bytes=10000-")], 304),
        (vec![("If-None-Match", "\"other\""), ("Range", "bytes=0-99")], 206),
        (vec![("If-Match", tag), ("Range", "bytes=0-99"), ("If-Range", tag)], 206),
        (vec![("If-Match", tag), ("Range", "bytes=10000-")], 416),
    ] {
        assert_eq!(condition(&fields).0, status, "{fields:?}");
    }
}

/// RFC 9110 13.2.1: conditions come after all else that a request is judged by.
#[test]
fn conditions_never_hide_a_refusal() {
    let dead = format!("/device/firmware?ott={}", "0".repeat(64));
    for (request, status) in [
        (Request::get(&dead), 404),
        (Request::get("/device/firmware"), 400),
        (Request::get("/nowhere"), 404),
        (Request::get("/"), 200),
        (check_in(), 200),
        (offered().get().header("x-ESP8266-mode", "version"), 200),
    ] {
        let request = request.header("If-None-Match", "*").header("If-Match", "\"other\"");
        assert_eq!(offered().fetch(&request).1.reply().status, status, "{request:?}");
    }
}

/// RFC 9110 14.2: a range has a meaning for GET only.
#[test]
fn a_range_on_another_method_is_ignored() {
    let scene = Scene::new().with_release("1.2.0", SIZE).with_auto_update();
    let post = Request::post("/device/firmware", &firmware().json()).key(KEY);
    let reply = scene.exchange().request(&post.header("Range", "bytes=0-9").bytes()).reply();
    assert_eq!((reply.status, reply.body.len()), (200, SIZE));
    let offered = offered();
    let head = offered.get().method("HEAD").header("Range", "bytes=0-9");
    let reply = offered.fetch(&head).1.reply();
    assert_eq!((reply.status, reply.content_length()), (200, Some(SIZE)));
}

/// RFC 9110 13.1.5: without `Range` it means nothing, and a date is no strong validator.
#[test]
fn if_range_counts_with_a_range_and_a_strong_tag_only() {
    let (tag, date) = (etag(), "Sat, 29 Oct 1994 19:43:31 GMT");
    assert_eq!(condition(&[("If-Range", &tag)]).0, 200);
    assert_eq!(condition(&[("If-Range", "\"other\"")]).0, 200);
    for (if_range, status) in [(tag.as_str(), 206), (date, 200), (&format!("W/{tag}"), 200)] {
        let fields = [("Range", "bytes=0-9"), ("If-Range", if_range)];
        assert_eq!(condition(&fields).0, status, "{if_range}");
    }
}

// Answers.

/// RFC 9110 8.6, 15.2, 15.4.5: no length where no content can be.
#[test]
fn what_cannot_have_content_has_no_length() {
    let head = check_in().header("Expect", "100-continue").bytes();
    let head = &head[..head.windows(4).position(|w| w == b"\r\n\r\n").expect("an end") + 4];
    assert_eq!(send(head).text(), "HTTP/1.1 100 Continue\r\n\r\n");
    let offered = offered();
    let (_, heard) = offered.fetch(&offered.get().header("If-None-Match", "*"));
    assert_eq!(heard.text(), format!("HTTP/1.1 304 Not Modified\r\nETag: {}\r\n\r\n", etag()));
}

/// RFC 9112 9.6: who says close is told so, and nothing that follows is done.
#[test]
fn a_close_is_confirmed_and_is_the_end() {
    for request in [
        Request::get("/").header("Connection", "close"),
        Request::get("/nowhere").header("Connection", "close"),
        Request::new("OPTIONS", "*").header("Connection", "close"),
        check_in().header("Connection", "close"),
        Request::get("/").version("HTTP/1.0"),
    ] {
        let mut bytes = request.bytes();
        bytes.extend(check_in().bytes());
        let heard = send(&bytes);
        assert!(heard.reply().says_close() && heard.ended, "{request:?}");
    }
}
