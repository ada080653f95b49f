//! HTTP as devices and others speak it (docs/wire.md 1.0, 2.2):
//! routes, framing, keeping and closing, and what is refused.

use otter_protocol::{CloseReason, Outcome, Refusal};
use otter_tests::scene::{KEY, registration, token_text};
use otter_tests::{Draft, Exchange, Heard, Reply, Request, Scene};

const HEALTH: &str = "{\"healthcheck\":true}";

fn send(bytes: &[u8]) -> (Exchange, Heard) {
    let mut exchange = Scene::new().exchange();
    let heard = exchange.request(bytes);
    (exchange, heard)
}

fn check_in_body() -> String {
    registration().wrapped("registration")
}

/// A check-in that keeps the connection, without stray bytes.
fn check_in() -> Request {
    Request::post("/device/register", &check_in_body()).key(KEY)
}

fn is_ok(reply: &Reply) -> bool {
    reply.status == 200 && reply.text().contains("\"status\":\"OK\"")
}

/// Refused with this status, closed, reported, and nothing asked of the store.
fn assert_refused(bytes: &[u8], status: u16, refusal: Refusal) {
    let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(200)]).into_owned();
    let (mut exchange, heard) = send(bytes);
    let reply = heard.reply();
    assert_eq!(reply.status, status, "{shown:?}");
    assert_eq!(reply.json()["success"], false, "{shown:?}");
    assert!(reply.says_close() && heard.ended, "{shown:?}");
    assert!(heard.queries.is_empty(), "{shown:?}");
    assert_eq!(exchange.outcome(), Some(Outcome::Refused(refusal)), "{shown:?}");
    assert_eq!(exchange.close(), CloseReason::Refused, "{shown:?}");
}

#[test]
fn health() {
    let (exchange, heard) = send(&Request::get("/").bytes());
    let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 20\r\n\r\n";
    assert_eq!(heard.text(), format!("{head}{HEALTH}"));
    assert_eq!(exchange.outcome(), Some(Outcome::Answered));
}

#[test]
fn options_of_everything_is_empty() {
    let (_, heard) = send(&Request::new("OPTIONS", "*").bytes());
    let reply = heard.reply();
    assert_eq!((reply.status, reply.content_length()), (200, Some(0)));
}

#[test]
fn unknown_paths_and_methods_are_not_found_in_json() {
    for request in [
        Request::get("/nowhere"),
        Request::get("/device/register"),
        Request::new("PUT", "/device/register"),
        Request::new("DELETE", "/device/firmware"),
        Request::post("/", "{}"),
        Request::post("/device/firmware/x", "{}"),
        Request::post("/device/registers", "{}"),
        Request::post("/device/register//", "{}"),
        Request::get("/api/v2/device"),
        Request::get("/../device/register"),
    ] {
        let (exchange, heard) = send(&request.bytes());
        let reply = heard.reply();
        assert_eq!(reply.status, 404, "{request:?}");
        assert_eq!(reply.text(), "{\"success\":false,\"response\":\"not_found\"}");
        assert_eq!(reply.header("Content-Type"), Some("application/json"));
        assert_eq!(exchange.outcome(), Some(Outcome::Refused(Refusal::NoRoute)));
    }
}

#[test]
fn routes_know_no_case_and_tolerate_one_slash() {
    for path in ["/device/register", "/device/register/", "/DEVICE/Register", "/Device/register/"] {
        let request = Request::post(path, &check_in_body()).key(KEY);
        assert!(is_ok(&send(&request.bytes()).1.reply()), "{path}");
    }
}

#[test]
fn a_whole_url_as_the_target_is_accepted() {
    for target in ["http://thinx.cloud:7442/", "http://thinx.local/"] {
        let (_, heard) = send(&Request::get(target).bytes());
        assert_eq!(heard.reply().text(), HEALTH, "{target}");
    }
}

#[test]
fn any_host_is_accepted() {
    for host in ["thinx.cloud", "thinx.local", "10.0.0.1:7442", "anything", ""] {
        let (_, heard) = send(&Request::get("/").host(host).bytes());
        assert_eq!(heard.reply().status, 200, "{host}");
    }
}

#[test]
fn http_1_0_needs_no_host() {
    let request = Request::get("/").version("HTTP/1.0").without("Host");
    assert_eq!(send(&request.bytes()).1.reply().status, 200);
}

#[test]
fn no_reply_carries_headers_that_devices_have_no_room_for() {
    let mut scene = Scene::new();
    let release = scene.publish(&Draft::binary("1.2.0", 2000));
    let token = token_text(scene.issue(Some(release)));
    for request in [
        Request::get("/"),
        Request::get("/nowhere"),
        check_in(),
        Request::post("/device/register", "{"),
        Request::esp8266_update(&token),
        Request::esp8266_update("x"),
        Request::new("OPTIONS", "*"),
    ] {
        let heard = scene.exchange().request(&request.clone().header("Origin", "http://a").bytes());
        let reply = heard.reply();
        for name in [
            "Date",
            "Server",
            "Set-Cookie",
            "Access-Control-Allow-Origin",
            "Transfer-Encoding",
            "Content-Encoding",
            "Location",
            "Strict-Transport-Security",
        ] {
            assert_eq!(reply.header(name), None, "{request:?}");
        }
        assert!(reply.content_length().is_some(), "always a length: {request:?}");
    }
}

#[test]
fn a_body_that_would_compress_is_sent_as_it_is() {
    let request = Request::get("/").header("Accept-Encoding", "gzip, deflate, br");
    assert_eq!(send(&request.bytes()).1.reply().text(), HEALTH);
}

#[test]
fn http_1_1_is_kept_unless_it_says_close() {
    let (mut exchange, heard) = send(&check_in().bytes());
    assert_eq!((heard.ended, heard.reply().header("Connection")), (false, None));
    assert!(is_ok(&exchange.request(&check_in().bytes()).reply()));
    for value in ["close", "Close", "CLOSE", "keep-alive, close"] {
        let heard = send(&check_in().header("Connection", value).bytes()).1;
        assert!(heard.ended && heard.reply().says_close(), "{value}");
    }
    let kept = send(&check_in().header("Connection", "keep-alive").bytes()).1;
    assert!(!kept.ended);
}

#[test]
fn http_1_0_is_closed_unless_it_says_keep_alive() {
    let request = Request::get("/").version("HTTP/1.0");
    let heard = send(&request.bytes()).1;
    assert!(heard.ended);
    assert_ne!(heard.reply().header("Connection"), Some("keep-alive"));
    for value in ["keep-alive", "Keep-Alive"] {
        let (mut exchange, heard) = send(&request.clone().header("Connection", value).bytes());
        assert_eq!(heard.reply().header("Connection"), Some("keep-alive"));
        assert!(!heard.ended);
        assert_eq!(exchange.request(&Request::get("/").bytes()).reply().status, 200);
    }
}

#[test]
fn after_an_answer_that_closes_nothing_more_is_answered() {
    let mut bytes = check_in().header("Connection", "close").bytes();
    bytes.extend(check_in().bytes());
    let (mut exchange, heard) = send(&bytes);
    assert_eq!(heard.replies().len(), 1);
    let later = exchange.request(&check_in().bytes());
    assert!(later.bytes.is_empty() && later.queries.is_empty());
    assert_eq!(exchange.close(), CloseReason::Peer);
}

#[test]
fn stray_line_ends_between_requests_are_skipped() {
    for stray in ["\r\n", "\r\n\r\n", "\n"] {
        let (mut exchange, heard) = send(&check_in().then(stray.as_bytes()).bytes());
        assert!(is_ok(&heard.reply()));
        assert_eq!(exchange.request(stray.as_bytes()).bytes, b"", "{stray:?}");
        assert!(is_ok(&exchange.request(&check_in().bytes()).reply()), "{stray:?}");
    }
}

#[test]
fn a_stray_line_end_begins_no_request() {
    let (mut exchange, _) = send(&check_in().then(b"\r\n").bytes());
    assert_eq!(exchange.expire(), Scene::new().config.idle_timeout);
    exchange.settle();
    assert_eq!(exchange.heard().bytes, b"", "closed without a word");
    assert_eq!(exchange.close(), CloseReason::Idle);
}

#[test]
fn header_names_know_no_case_and_values_need_no_blank() {
    for line in [
        format!("Authentication:{KEY}"),
        format!("AUTHENTICATION: {KEY}"),
        format!("authentication:\t {KEY} \t"),
    ] {
        let request = Request::post("/device/register", &check_in_body()).line(&line);
        assert!(is_ok(&send(&request.bytes()).1.reply()), "{line}");
    }
    let request = check_in().unframed().line(&format!("content-length:{}", check_in_body().len()));
    assert!(is_ok(&send(&request.bytes()).1.reply()));
}

#[test]
fn chunked_bodies_are_read() {
    for bytes_max in [1, 7, 100, 10_000] {
        let (mut exchange, heard) = send(&check_in().chunked(bytes_max).bytes());
        assert!(is_ok(&heard.reply()), "{bytes_max}");
        assert!(!heard.ended);
        assert!(is_ok(&exchange.request(&check_in().bytes()).reply()));
    }
}

/// A chunked check-in with these bytes as its body.
fn chunks(body: &[u8]) -> Vec<u8> {
    let head = check_in().unframed().line("Transfer-Encoding: chunked").bytes();
    let head_bytes = head.len() - check_in_body().len();
    [&head[..head_bytes], body].concat()
}

#[test]
fn chunks_may_have_extensions_and_trailers() {
    let body = check_in_body();
    let (first, second) = body.split_at(20);
    for (extension, trailer) in
        [("", "X-Trailer: 1\r\n"), (";a", ""), (";a=b;c=\"d e\"", "A: 1\r\nB: 2\r\n")]
    {
        let chunked = format!(
            "{:X}{extension}\r\n{first}\r\n{:02x}{extension}\r\n{second}\r\n0\r\n{trailer}\r\n",
            first.len(),
            second.len()
        );
        let (mut exchange, heard) = send(&chunks(chunked.as_bytes()));
        assert!(is_ok(&heard.reply()), "{chunked}");
        assert!(is_ok(&exchange.request(&check_in().bytes()).reply()), "{chunked}");
    }
}

#[test]
fn chunks_that_are_malformed_are_refused() {
    for body in [
        "g\r\n",
        "-1\r\n",
        "0x5\r\nhello\r\n0\r\n\r\n",
        "\r\n",
        " 5\r\nhello\r\n0\r\n\r\n",
        "5\r\nhelloX\r\n0\r\n\r\n",
        "5\nhello\n0\n\n",
        "fffffffffffffffff\r\n",
        "10000000000000000\r\n",
    ] {
        let (_, heard) = send(&chunks(body.as_bytes()));
        let reply = heard.reply();
        assert!(matches!(reply.status, 400 | 413), "{body:?}: {}", reply.status);
        assert!(heard.ended && heard.queries.is_empty(), "{body:?}");
    }
}

#[test]
fn chunk_lines_and_trailers_have_limits() {
    let extension = |bytes: usize| {
        let line = format!("2;{}", "x".repeat(bytes - 2));
        chunks(format!("{line}\r\n{{}}\r\n0\r\n\r\n").as_bytes())
    };
    assert!(send(&extension(1000)).1.reply().text().contains("request_invalid"));
    assert_refused(&extension(1100), 400, Refusal::Malformed);
    let trailer = |bytes: usize| {
        let lines = format!("a: {}\r\n", "x".repeat(95)).repeat(bytes / 100);
        chunks(format!("2\r\n{{}}\r\n0\r\n{lines}\r\n").as_bytes())
    };
    assert!(send(&trailer(4000)).1.reply().text().contains("request_invalid"));
    assert_refused(&trailer(4300), 431, Refusal::TooLarge);
}

#[test]
fn limits_of_heads_and_targets() {
    let target = |bytes: usize| Request::get(&format!("/{}", "x".repeat(bytes - 1)));
    assert_eq!(send(&target(2048).bytes()).1.reply().status, 404);
    assert_refused(&target(2049).bytes(), 414, Refusal::TooLarge);

    let base = Request::get("/").header("x", "").bytes().len();
    let head = |bytes: usize| Request::get("/").header("x", &"y".repeat(bytes - base));
    assert_eq!(send(&head(8192).bytes()).1.reply().status, 200);
    assert_refused(&head(8193).bytes(), 431, Refusal::TooLarge);

    let lines = |count: usize| {
        (1..count).fold(Request::get("/"), |request, i| request.header(&format!("h{i}"), "v"))
    };
    assert_eq!(send(&lines(64).bytes()).1.reply().status, 200);
    assert_refused(&lines(65).bytes(), 431, Refusal::TooLarge);
}

#[test]
fn a_head_without_end_is_refused_at_its_limit() {
    let mut exchange = Scene::new().exchange();
    let mut sent = 0;
    exchange.input(b"GET / HTTP/1.1\r\n");
    let heard = loop {
        let heard = exchange.request(b"x: yyyyyyyyyyyyyyyyyyyyyyyyyyyy\r\n");
        sent += 34;
        if !heard.bytes.is_empty() {
            break heard;
        }
        assert!(sent < 10_000, "kept {sent} bytes");
    };
    assert_eq!(heard.reply().status, 431);
}

#[test]
fn limits_of_bodies() {
    let padded = |bytes: usize| {
        let fields = registration().text("x", "");
        let pad = bytes - fields.wrapped("registration").len();
        fields.text("x", &"p".repeat(pad)).wrapped("registration")
    };
    let post = |bytes: usize| Request::post("/device/register", &padded(bytes)).key(KEY);
    assert!(is_ok(&send(&post(16_384).bytes()).1.reply()));
    assert!(is_ok(&send(&post(16_384).chunked(500).bytes()).1.reply()));
    assert_refused(&post(16_385).bytes(), 413, Refusal::TooLarge);
    assert_refused(&post(16_385).chunked(500).bytes(), 413, Refusal::TooLarge);
}

#[test]
fn a_body_that_is_too_long_is_refused_before_it_is_sent() {
    let head = Request::new("POST", "/device/register").header("Content-Length", "16385");
    assert_refused(&head.bytes(), 413, Refusal::TooLarge);
}

#[test]
fn lengths_that_are_no_numbers_are_refused() {
    for length in ["+5", "-5", "5,5", "5, 5", "0x5", "5 5", "", "five", "5;", "\u{b2}"] {
        let request = Request::new("POST", "/device/register").header("Content-Length", length);
        assert_refused(&request.then(b"hello").bytes(), 400, Refusal::Malformed);
    }
}

#[test]
fn lengths_that_overflow_are_never_read_as_something_else() {
    for length in ["18446744073709551618", "18446744073709551616", &"9".repeat(100)] {
        let mut bytes =
            Request::new("POST", "/device/register").header("Content-Length", length).bytes();
        bytes.extend(b"{}");
        bytes.extend(Request::get("/").bytes());
        let (_, heard) = send(&bytes);
        let reply = heard.reply();
        assert!(matches!(reply.status, 400 | 413), "{length}: {}", reply.status);
        assert!(heard.ended, "{length}");
    }
}

#[test]
fn ambiguous_framing_is_refused() {
    let post = Request::post("/device/register", "{}");
    for request in [
        post.clone().header("Content-Length", "2"),
        post.clone().header("Content-Length", "3"),
        post.clone().header("Transfer-Encoding", "chunked"),
        post.clone().chunked(2).header("Transfer-Encoding", "chunked"),
        post.clone().chunked(2).version("HTTP/1.0"),
        post.clone().unframed().line("Transfer-Encoding:\u{b}chunked"),
        post.unframed().line("Transfer-Encoding : chunked"),
    ] {
        let mut bytes = request.bytes();
        bytes.extend(Request::get("/").bytes());
        let (_, heard) = send(&bytes);
        assert_eq!(heard.reply().status, 400, "{request:?}");
        assert!(heard.ended, "never a second answer: {request:?}");
    }
}

/// RFC 9112, 6.3, rule 4: where chunked is not the last coding, 400 and close.
#[test]
fn chunked_must_be_the_last_coding() {
    for coding in ["chunked, identity", "chunked, gzip", "gzip", "identity", ""] {
        let request =
            Request::post("/device/register", "{}").unframed().header("Transfer-Encoding", coding);
        assert_refused(&request.bytes(), 400, Refusal::Malformed);
    }
}

#[test]
fn codings_that_are_not_known_are_refused() {
    for coding in [
        "gzip",
        "gzip, chunked",
        "identity",
        "xchunked",
        "chunked, chunked",
        ", chunked",
        "chunked,",
    ] {
        let request =
            Request::post("/device/register", "{}").unframed().header("Transfer-Encoding", coding);
        let (_, heard) = send(&request.bytes());
        let status = heard.reply().status;
        assert!(matches!(status, 400 | 501), "{coding}: {status}");
        assert!(heard.ended, "{coding}");
    }
}

#[test]
fn headers_that_may_stand_once_are_refused_twice() {
    let get = Request::get("/");
    let twice = check_in().key(KEY);
    for request in [get.header("Host", "otter"), twice, check_in().key("other")] {
        let (_, heard) = send(&request.bytes());
        assert_eq!(heard.reply().status, 400, "{request:?}");
        assert!(heard.ended && heard.queries.is_empty());
    }
}

#[test]
fn http_1_1_without_a_host_is_refused() {
    assert_refused(&Request::get("/").without("Host").bytes(), 400, Refusal::Malformed);
}

#[test]
fn malformed_requests_are_refused() {
    for bytes in [
        &b"\0\0\0\0\r\n\r\n"[..],
        b"GET\r\n\r\n",
        b"GET /\r\n\r\n",
        b"GET / HTTP/1.1 x\r\nHost: a\r\n\r\n",
        b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nno colon\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\n: no name\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nx : y\r\n\r\n",
        b"GET / HTTP/1.1\r\n Host: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nx: y\r\n folded\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nx: \0\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nx: a\rb\r\n\r\n",
        b"GET /\x7f HTTP/1.1\r\nHost: a\r\n\r\n",
        b"get\x01 / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET / http/1.1\r\nHost: a\r\n\r\n",
        b"GET / HTTP/x.y\r\nHost: a\r\n\r\n",
    ] {
        assert_refused(bytes, 400, Refusal::Malformed);
    }
}

#[test]
fn other_versions_of_http_are_refused() {
    for bytes in [
        &b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..],
        b"GET / HTTP/2.0\r\nHost: a\r\n\r\n",
        b"GET / HTTP/0.9\r\nHost: a\r\n\r\n",
    ] {
        let (_, heard) = send(bytes);
        let reply = heard.reply();
        assert!(matches!(reply.status, 400 | 505), "{}", reply.status);
        assert!(heard.ended);
    }
}

/// Every HTTPS check-in of old libraries begins with such a probe (docs/wire.md 2.2 and 2.5).
#[test]
fn a_tls_greeting_on_a_plain_port_is_refused_and_its_end_is_no_trouble() {
    let hello = b"\x16\x03\x01\x00\x2e\x01\x00\x00\x2a\x03\x03abcdefghijklmnopqrstuvwxyz\r\n\r\n";
    let (mut exchange, heard) = send(hello);
    assert!(heard.queries.is_empty());
    exchange.eof();
    exchange.settle();
    assert_eq!(exchange.close(), CloseReason::Refused);
}

#[test]
fn requests_in_a_row_are_answered_in_order() {
    let mut bytes = Request::get("/").bytes();
    bytes.extend(check_in().bytes());
    bytes.extend(Request::get("/nowhere").bytes());
    bytes.extend(check_in().chunked(9).bytes());
    let replies = send(&bytes).1.replies();
    let statuses: Vec<u16> = replies.iter().map(|reply| reply.status).collect();
    assert_eq!(statuses, [200, 200, 404, 200]);
    assert_eq!(replies[0].text(), HEALTH);
    assert!(is_ok(&replies[1]) && is_ok(&replies[3]));
}

#[test]
fn more_than_32_requests_in_a_row_end_the_connection_after_an_answer() {
    let get = Request::get("/").bytes();
    let replies = |count: usize| {
        let (_, heard) = send(&get.repeat(count));
        (heard.replies().len(), heard.ended)
    };
    assert_eq!(replies(20), (20, false));
    let (answered, ended) = replies(100);
    assert!((32..=34).contains(&answered) && ended, "{answered} answers");
    let (mut exchange, _) = send(&get);
    for _ in 0..100 {
        assert!(!exchange.request(&get).ended, "one after the other there may be any number");
    }
    for _ in 0..10 {
        let heard = exchange.request(&get.repeat(20));
        assert_eq!((heard.replies().len(), heard.ended), (20, false), "a row ends with a rest");
    }
}

/// Head and body of a check-in that waits for permission to send its body.
fn hesitant() -> (Vec<u8>, Vec<u8>) {
    let bytes = check_in().header("Expect", "100-continue").bytes();
    let (head, body) = bytes.split_at(bytes.len() - check_in_body().len());
    (head.to_vec(), body.to_vec())
}

#[test]
fn a_client_that_waits_for_permission_gets_it() {
    let (head, body) = hesitant();
    let (mut exchange, heard) = send(&head);
    assert_eq!(heard.text(), "HTTP/1.1 100 Continue\r\n\r\n");
    assert!(is_ok(&exchange.request(&body).reply()));
    assert!(is_ok(&exchange.request(&check_in().bytes()).reply()), "and the connection is kept");
}

#[test]
fn a_permission_that_was_not_taken_yet_comes_before_the_answer() {
    let (head, body) = hesitant();
    let mut exchange = Scene::new().exchange();
    exchange.input(&head);
    exchange.take(5);
    exchange.input(&body);
    exchange.settle();
    let replies = exchange.heard().replies();
    assert_eq!(replies.iter().map(|reply| reply.status).collect::<Vec<_>>(), [100, 200]);
}

#[test]
fn a_client_that_does_not_wait_gets_its_answer_only() {
    let (head, body) = hesitant();
    assert!(is_ok(&send(&[head, body].concat()).1.reply()));
    let old = check_in().version("HTTP/1.0").header("Expect", "100-continue").bytes();
    let (head, body) = old.split_at(old.len() - check_in_body().len());
    let (mut exchange, heard) = send(head);
    assert_eq!(heard.text(), "", "HTTP/1.0 knows no 100");
    assert!(is_ok(&exchange.request(body).reply()));
}

#[test]
fn a_body_that_is_refused_gets_no_permission() {
    let request = Request::new("POST", "/device/register")
        .header("Expect", "100-continue")
        .header("Content-Length", "16385");
    assert_refused(&request.bytes(), 413, Refusal::TooLarge);
}

#[test]
fn while_an_answer_is_due_the_peer_waits() {
    let mut exchange = Scene::new().exchange();
    exchange.input(&check_in().bytes());
    exchange.ask().expect("Identify");
    exchange.input(&check_in().bytes());
    assert!(!exchange.peer.connection().wants_read(), "a whole request is waiting already");
}

#[test]
fn an_end_before_the_request_is_whole_answers_nothing() {
    let bytes = check_in().bytes();
    for cut in [0, 1, 30, bytes.len() - 1] {
        let mut exchange = Scene::new().exchange();
        exchange.input(&bytes[..cut]);
        exchange.eof();
        exchange.settle();
        let heard = exchange.heard();
        assert!(heard.queries.is_empty(), "{cut}");
        assert_eq!(exchange.close(), CloseReason::Peer, "{cut}");
    }
}

#[test]
fn an_end_after_the_request_is_a_half_close_and_the_answer_still_comes() {
    let mut exchange = Scene::new().exchange();
    exchange.input(&check_in().bytes());
    exchange.eof();
    exchange.settle();
    assert!(is_ok(&exchange.heard().reply()));
    assert_eq!(exchange.close(), CloseReason::Peer);
}

#[test]
fn a_connection_at_rest_is_small() {
    let bytes = size_of::<otter_protocol::Connection<bytes::Bytes>>();
    assert!(bytes <= 512, "{bytes} bytes");
}
