//! Heads of requests: the request line and the header lines (RFC 9112 2 to 7).
//!
//! Lines are read as they arrive ([`super::line`]), each of them once, and what they say is kept
//! until the empty line. Always the strict reading: line ends are CR LF and nothing else, because
//! the next hop may not see a line end in a bare LF, which RFC 9112 2.2 would allow.
//!
//! What is decided, and when, depends on the bytes alone, never on how they were cut:
//!
//! 1. by the first byte: whether this is a request at all (a TLS hello is not);
//! 2. by the end of the first line: whether the request line is good;
//! 3. by the empty line: everything else;
//! 4. without an empty line within [`Config::head_bytes_max`]: refused.

use super::fields::Told;
use super::line::{self, Stop};
use super::{Head, Method, Refused, Span, Status, target};
use crate::Config;
use crate::words::has_byte;

/// Bytes of line ends at the start of `bytes`, which a peer may send before a request (RFC 9112
/// 2.2; the device libraries send CR LF after a body, docs/wire.md 1.0). A CR whose LF has not
/// arrived is not counted.
pub(crate) fn skip_blank_lines(bytes: &[u8]) -> usize {
    let mut at = 0;
    loop {
        match &bytes[at..] {
            [b'\n', ..] => at += 1,
            [b'\r', b'\n', ..] => at += 2,
            _ => return at,
        }
    }
}

/// How far the head at the start of a growing buffer has been read, and what it said so far. One
/// per request.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Search {
    /// How much of the buffer was looked at: only a line end behind it changes anything.
    seen: u16,
    /// Where the first line begins that is not read yet. 0: it is the request line.
    at: u16,
    method: Method,
    http_1_1: bool,
    path: Span,
    query: Option<Span>,
    /// Where the header lines begin, and how many more there may be.
    first: u16,
    fields_left: u8,
    told: Told,
    /// What the empty line will be answered with: a header line was bad.
    refused: Option<Refused>,
}

impl Search {
    /// Parses the head at the start of `bytes`, which hold all bytes of the calls before this one
    /// and any number of new ones; `None` while it is incomplete. Blank lines before it must have
    /// been skipped.
    ///
    /// # Errors
    ///
    /// The request is to be refused, whatever arrives after these bytes.
    #[inline]
    pub(crate) fn parse(&mut self, bytes: &[u8], config: &Config) -> Result<Option<Head>, Refused> {
        let limit = bytes_max(config);
        let window = bytes.get(..limit).unwrap_or(bytes);
        let lines = match bytes {
            // Only whole lines are worth to be read again. One piece is mostly the whole head.
            _ if self.seen > 0 => lines_end(window, self.seen.into()).map(|end| &window[..end]),
            // Half of a blank line.
            [] | [b'\r'] => return Ok(None),
            [first, ..] if !line::is_token(*first) => return Err(Refused::BAD_REQUEST),
            _ => Some(window),
        };
        if let Some(lines) = lines
            && (self.at > 0 || self.read_request_line(lines, config)?)
            && let Some(end) = self.read_fields(lines)
        {
            return self.conclude(end, config).map(Some);
        }
        self.seen = window.len() as u16;
        if window.len() < limit {
            return Ok(None);
        }
        let uri = self.at == 0 && target_bytes(window) > config.target_bytes_max;
        Err(Refused::too_large(if uri {
            Status::URI_TOO_LONG
        } else {
            Status::HEADER_FIELDS_TOO_LARGE
        }))
    }

    /// False while it is incomplete.
    #[inline]
    fn read_request_line(&mut self, window: &[u8], config: &Config) -> Result<bool, Refused> {
        let Some(line) = line::request_line(window) else {
            let end = window.iter().position(|byte| *byte == b'\n');
            return end.map_or(Ok(false), |end| Err(line::fault(&window[..=end])));
        };
        let method = Span::new(0, line.method_end).of(window);
        let target = Span::new(line.method_end + 1, line.target_end);
        if target.of(window).len() > config.target_bytes_max {
            return Err(Refused::too_large(Status::URI_TOO_LONG));
        }
        self.query = line.mark.map(|mark| Span::new(mark + 1, line.target_end));
        let path = Span::new(line.method_end + 1, line.mark.unwrap_or(line.target_end));
        self.path = target::path(method, path, self.query.is_some(), window)?;
        self.method = method_of(method);
        self.http_1_1 = line.http_1_1;
        self.at = line.end as u16;
        self.first = self.at;
        self.fields_left = config.headers_max.min(Head::FIELDS_MAX) as u8;
        Ok(true)
    }

    /// Reads on to the empty line; returns where the head ends.
    #[inline]
    fn read_fields(&mut self, window: &[u8]) -> Option<usize> {
        if self.refused.is_none() {
            match self.read_lines(window) {
                Ok(end) => return Some(end),
                Err(refused) => self.refused = refused,
            }
        }
        // Not refused before the empty line: how it was cut must not matter.
        self.refused?;
        let from = usize::from(self.seen.saturating_sub(2).max(self.at - 1));
        empty_line_end(&window[from..]).map(|end| from + end)
    }

    /// Fails at a line that is incomplete, or refused.
    #[inline]
    fn read_lines(&mut self, window: &[u8]) -> Result<usize, Option<Refused>> {
        let mut at = usize::from(self.at);
        while !line::is_line_end(window, at) {
            self.at = at as u16;
            let field = line::field(window, at).map_err(|stop| match stop {
                Stop::Partial => None,
                Stop::Fault => Some(Refused::BAD_REQUEST),
            })?;
            let too_many = Refused::too_large(Status::HEADER_FIELDS_TOO_LARGE);
            self.fields_left = self.fields_left.checked_sub(1).ok_or(Some(too_many))?;
            self.told.read(window, at, &field);
            at = field.value_end + 2;
        }
        Ok(at + 2)
    }

    /// The head is complete.
    #[inline]
    fn conclude(&self, end: usize, config: &Config) -> Result<Head, Refused> {
        if let Some(refused) = self.refused {
            return Err(refused);
        }
        let (http_1_1, told) = (self.http_1_1, &self.told);
        told.check(http_1_1)?;
        let framing = told.framing(http_1_1, config)?;
        let expects_continue = told.expects_continue(http_1_1, framing)?;
        Ok(Head {
            method: self.method,
            http_1_1,
            length: end,
            framing,
            keep_alive: told.keep_alive(http_1_1),
            expects_continue,
            path: self.path,
            query: self.query,
            lines: Span::new(self.first.into(), end - 2),
            authentication: told.authentication(),
        })
    }
}

/// Where the last line ends that ends behind `from`.
fn lines_end(bytes: &[u8], from: usize) -> Option<usize> {
    let is_end = |byte: &u8| *byte == b'\n';
    let mut end = bytes.len();
    // From behind, word by word.
    while let Some(word) = bytes[from..end].last_chunk()
        && !has_byte(u64::from_le_bytes(*word), b'\n')
    {
        end -= word.len();
    }
    bytes[from..end].iter().rposition(is_end).map(|at| from + at + 1)
}

/// Where the first empty line of `bytes`, which may begin with the line end before it, ends. Takes
/// a bare LF for the line end that it must not be.
#[cold]
fn empty_line_end(bytes: &[u8]) -> Option<usize> {
    let is_end =
        |end: &usize| bytes[..*end].ends_with(b"\n\n") || bytes[..*end].ends_with(b"\n\r\n");
    (2..=bytes.len()).find(is_end)
}

/// Bytes of the target in a request line that may have no end yet.
fn target_bytes(line: &[u8]) -> usize {
    line.split(|byte| *byte == b' ').nth(1).map_or(0, <[u8]>::len)
}

/// The limit of a head; spans cannot reach further.
fn bytes_max(config: &Config) -> usize {
    config.head_bytes_max.min(usize::from(u16::MAX))
}

fn method_of(name: &[u8]) -> Method {
    match name {
        b"GET" => Method::Get,
        b"HEAD" => Method::Head,
        b"POST" => Method::Post,
        b"OPTIONS" => Method::Options,
        _ => Method::Other,
    }
}

/// For tests: the first verdict on a buffer that grows to each of `ends` in turn.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn grown(
    bytes: &[u8],
    ends: impl IntoIterator<Item = usize>,
    config: &Config,
) -> Result<Option<Head>, Refused> {
    let mut search = Search::default();
    for end in ends {
        match search.parse(&bytes[..end], config) {
            Ok(None) => {}
            decided => return decided,
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::sample::select;

    use super::super::{Framing, Request};
    use super::*;
    use crate::report::Refusal;

    /// Heads that are refused, and with what. `H` stands for a good request line and host.
    const REFUSED: &[(&str, u16, &str)] = &[
        // RFC 9112 2.2: line ends
        ("GET / HTTP/1.1\nHost: a\r\n\r\n", 400, "bare LF after the request line"),
        ("H\nA: b\r\n\r\n", 400, "bare LF after a field"),
        ("HA: b\n\r\n", 400, "bare LF after the last field"),
        ("HA: b\r\n\n", 400, "bare LF as the empty line"),
        ("HA: b\n\n", 400, "bare LF twice"),
        ("GET / HTTP/1.0\n\n", 400, "bare LF without fields"),
        ("HA: b\rc\r\n\r\n", 400, "bare CR in a value"),
        ("GET / HTTP/1.1\rHost: a\r\n\r\n", 400, "bare CR after the request line"),
        // RFC 9112 2.3: version
        ("GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505, "2.0"),
        ("PRI * HTTP/2.0\r\n\r\n", 505, "preface of HTTP/2"),
        ("GET / HTTP/1.2\r\nHost: a\r\n\r\n", 505, "1.2"),
        ("GET / HTTP/0.9\r\n\r\n", 505, "0.9, said aloud"),
        ("GET /\r\n\r\n", 400, "HTTP/0.9"),
        ("GET / HTTP/1.10\r\nHost: a\r\n\r\n", 400, "two digits"),
        ("GET / http/1.1\r\nHost: a\r\n\r\n", 400, "lower case"),
        ("GET / HTTP/1,1\r\nHost: a\r\n\r\n", 400, "comma"),
        // RFC 9112 3: request line
        ("GET  / HTTP/1.1\r\nHost: a\r\n\r\n", 400, "two blanks before the target"),
        ("GET /  HTTP/1.1\r\nHost: a\r\n\r\n", 400, "two blanks after the target"),
        ("GET / HTTP/2.0 \r\nHost: a\r\n\r\n", 400, "blank after another version"),
        ("GET / HTTP/1.1 \r\nHost: a\r\n\r\n", 400, "blank at the end"),
        ("GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n", 400, "tab"),
        (" GET / HTTP/1.1\r\nHost: a\r\n\r\n", 400, "blank at the start"),
        ("G@T / HTTP/1.1\r\nHost: a\r\n\r\n", 400, "method is no token"),
        ("GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", 400, "blank in the target"),
        ("GET /\0 HTTP/1.1\r\nHost: a\r\n\r\n", 400, "control character in the target"),
        // RFC 9112 3.2, 7.2: Host
        ("GET / HTTP/1.1\r\n\r\n", 400, "HTTP/1.1 without Host"),
        ("HHost: a\r\n\r\n", 400, "two Hosts, equal"),
        ("GET / HTTP/1.0\r\nHost: a\r\nhost: b\r\n\r\n", 400, "two Hosts in HTTP/1.0"),
        // RFC 9112 5: fields
        ("HA : b\r\n\r\n", 400, "blank before the colon (5.1)"),
        ("H: b\r\n\r\n", 400, "no name"),
        ("H : b\r\n\r\n", 400, "blank name"),
        ("HA\r\n\r\n", 400, "no colon"),
        ("HA: b\r\n c\r\n\r\n", 400, "folded (5.2)"),
        ("HA: b\r\n\tc\r\n\r\n", 400, "folded with a tab (5.2)"),
        ("GET / HTTP/1.1\r\n A: b\r\nHost: a\r\n\r\n", 400, "blank before the first (2.2)"),
        ("HA: b\0c\r\n\r\n", 400, "NUL in a value"),
        ("HA: b\x0bc\r\n\r\n", 400, "control character in a value"),
        ("HA: b\x7fc\r\n\r\n", 400, "DEL in a value"),
        ("HA\u{e9}: b\r\n\r\n", 400, "name beyond ASCII"),
        // RFC 9112 6: framing
        ("HContent-Length: 5\r\nContent-Length: 5\r\n\r\n", 400, "equal lengths (6.3)"),
        ("HContent-Length: 5\r\ncontent-length: 6\r\n\r\n", 400, "lengths (6.3)"),
        ("HContent-Length: 5, 5\r\n\r\n", 400, "list of lengths (6.3)"),
        ("HContent-Length:\r\n\r\n", 400, "empty length"),
        ("HContent-Length: +5\r\n\r\n", 400, "sign"),
        ("HContent-Length: -5\r\n\r\n", 400, "negative"),
        ("HContent-Length: 5 5\r\n\r\n", 400, "blank inside"),
        ("HContent-Length: 0x5\r\n\r\n", 400, "hexadecimal"),
        ("HContent-Length: 5_0\r\n\r\n", 400, "underscore"),
        ("HContent-Length: 18446744073709551618\r\n\r\n", 400, "beyond 64 bits"),
        ("HContent-Length: 00000000000000000005\r\n\r\n", 400, "20 digits"),
        ("HContent-Length: 9999999999999999999\r\n\r\n", 413, "19 digits"),
        ("HContent-Length: 16385\r\n\r\n", 413, "one byte too many"),
        ("HContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", 400, "both (6.1)"),
        ("HTransfer-Encoding: gzip\r\nContent-Length: 5\r\n\r\n", 400, "both, unknown (6.1)"),
        ("HTransfer-Encoding: gzip, chunked\r\n\r\n", 501, "unknown coding (6.1)"),
        ("HTransfer-Encoding: chunked, Chunked\r\n\r\n", 501, "chunked twice (6.1)"),
        ("HTransfer-Encoding: gzip\r\n\r\n", 400, "not chunked at the end (6.3)"),
        ("HTransfer-Encoding: chunked, gzip\r\n\r\n", 400, "chunked, but not at the end (6.3)"),
        ("HTransfer-Encoding: chunked;a=b\r\n\r\n", 400, "parameter"),
        ("HTransfer-Encoding: xchunked\r\n\r\n", 400, "almost chunked"),
        ("HTransfer-Encoding: identity\r\n\r\n", 400, "identity"),
        ("HTransfer-Encoding:\r\n\r\n", 400, "empty coding"),
        ("HTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n", 400, "twice"),
        ("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", 400, "HTTP/1.0 (6.1)"),
        ("POST / HTTP/1.0\r\nTransfer-Encoding: gzip\r\n\r\n", 400, "HTTP/1.0, unknown (6.1)"),
        // RFC 9110 10.1.1: Expect
        ("HExpect: 200-ok\r\n\r\n", 417, "unknown expectation"),
        ("HExpect: 100-continue, b\r\n\r\n", 417, "one of them unknown"),
        // docs/wire.md 1.0: the credential
        ("HAuthentication: a\r\nauthentication: a\r\n\r\n", 400, "two credentials"),
        // What is no HTTP at all
        ("\u{16}\u{3}\u{1}", 400, "TLS hello, by its first byte"),
        ("\r\r\n", 400, "CR without LF"),
        ("{\"a\":1}", 400, "JSON, by its first byte"),
        ("hello\r\n", 400, "one word, by its line end"),
        ("GET / HTTP/1.1\n", 400, "bare LF, before the empty line"),
    ];

    #[test]
    fn refuses_what_could_be_read_in_two_ways() {
        for (text, code, why) in REFUSED {
            let bytes = expand(text);
            let refused = parse(&bytes, &Config::default()).expect_err(why);
            assert_eq!(refused.status.code(), *code, "{why}");
            let refusal = if *code == 413 { Refusal::TooLarge } else { Refusal::Malformed };
            assert_eq!(refused.refusal, refusal, "{why}");
            assert_eq!(byte_by_byte(&bytes, &Config::default()), Err(refused), "{why}");
        }
    }

    #[test]
    fn accepts_what_devices_send() {
        let library = "POST /device/register HTTP/1.1\r\nHost: thinx.cloud\r\n\
            Authentication:key\r\nAccept: application/json\r\nOrigin: device\r\n\
            Content-Type: application/json\r\nUser-Agent: THiNX-Client\r\n\
            Connection: close\r\nContent-Length: 302\r\n\r\n{\"registration\":";
        let head = accepted(library);
        assert_eq!(head.method, Method::Post);
        assert_eq!(head.framing, Framing::Length(302));
        assert_eq!((head.http_1_1, head.keep_alive, head.expects_continue), (true, false, false));
        assert_eq!(head.length, library.len() - "{\"registration\":".len());
        let check_in = request(&head, library);
        assert_eq!((check_in.path(), check_in.query()), (&b"/device/register"[..], None));
        assert_eq!(check_in.header("authentication"), Some(&b"key"[..]));
        assert_eq!(check_in.authentication(), Some(&b"key"[..]));
        assert_eq!(check_in.header("content-length"), Some(&b"302"[..]));
        assert_eq!(check_in.header("absent"), None);

        let updater = "GET /device/firmware?ott=1&b=?2 HTTP/1.0\r\nHost: a:7442\r\n\
            Connection: close\r\nContent-Length: 0\r\n\r\n";
        let head = accepted(updater);
        assert_eq!((head.method, head.http_1_1), (Method::Get, false));
        assert_eq!(head.framing, Framing::Length(0));
        let download = request(&head, updater);
        assert_eq!(
            (download.path(), download.query()),
            (&b"/device/firmware"[..], Some("ott=1&b=?2"))
        );
        assert_eq!(download.authentication(), None);
    }

    #[test]
    fn finds_fields_whatever_their_case_and_blanks() {
        let text = "GET / HTTP/1.1\r\nHOST:\r\nRange:\t bytes=0- \t\r\nx-a: 1\r\nX-A:2\r\n\r\n";
        let head = accepted(text);
        let request = request(&head, text);
        assert_eq!(request.header("host"), Some(&b""[..]));
        assert_eq!(request.header("range"), Some(&b"bytes=0-"[..]));
        assert_eq!(request.headers("x-a").collect::<Vec<_>>(), [b"1", b"2"]);
        assert_eq!(request.header("x-"), None);
        assert_eq!(request.header(""), None);
    }

    #[test]
    fn tells_methods_apart() {
        for (name, method) in [
            ("GET", Method::Get),
            ("HEAD", Method::Head),
            ("POST", Method::Post),
            ("OPTIONS", Method::Options),
            ("PUT", Method::Other),
            ("get", Method::Other),
            ("CONNECT", Method::Other),
        ] {
            assert_eq!(accepted(&format!("{name} / HTTP/1.0\r\n\r\n")).method, method, "{name}");
        }
    }

    /// docs/wire.md 1.0: each limit holds to the byte, with or without an empty line.
    #[test]
    fn holds_its_limits() {
        let mut config = Config::default();
        (config.head_bytes_max, config.headers_max, config.target_bytes_max) = (64, 3, 8);
        let fill = |bytes: usize| format!("GET / HTTP/1.0\r\nA: {}\r\n\r\n", "b".repeat(bytes));
        let status = |text: &str| byte_by_byte(text.as_bytes(), &config).err().map(|r| r.status);
        for (text, expected) in [
            (fill(64 - 23), None),
            (fill(64 - 22), Some(Status::HEADER_FIELDS_TOO_LARGE)),
            (fill(500), Some(Status::HEADER_FIELDS_TOO_LARGE)),
            (fill(500).trim_end().to_owned(), Some(Status::HEADER_FIELDS_TOO_LARGE)),
            ("G".repeat(64), Some(Status::HEADER_FIELDS_TOO_LARGE)),
            (format!("GET /{}", "a".repeat(70)), Some(Status::URI_TOO_LONG)),
            ("GET /2345678 HTTP/1.0\r\n\r\n".to_owned(), None),
            ("GET /23456789 HTTP/1.0\r\n\r\n".to_owned(), Some(Status::URI_TOO_LONG)),
            ("GET /23456789 HTTP/1.0\r\n".to_owned(), Some(Status::URI_TOO_LONG)),
            ("GET / HTTP/1.0\r\nA:\r\nB:\r\nC:\r\n\r\n".to_owned(), None),
            (
                "GET / HTTP/1.0\r\nA:\r\nB:\r\nC:\r\nD:\r\n\r\n".to_owned(),
                Some(Status::HEADER_FIELDS_TOO_LARGE),
            ),
        ] {
            assert_eq!(status(&text), expected, "{text}");
            assert_eq!(parse(text.as_bytes(), &config).err().map(|r| r.status), expected, "{text}");
        }
        // What the configuration cannot raise.
        (config.head_bytes_max, config.headers_max) = (usize::MAX, usize::MAX);
        let many = |lines| format!("GET / HTTP/1.0\r\n{}\r\n", "A: b\r\n".repeat(lines));
        assert!(parse(many(64).as_bytes(), &config).is_ok_and(|head| head.is_some()));
        assert!(parse(many(65).as_bytes(), &config).is_err());
        assert!(parse(fill(65_512).as_bytes(), &config).is_ok_and(|head| head.is_some()));
        assert!(parse(fill(65_513).as_bytes(), &config).is_err());
    }

    #[test]
    fn skips_blank_lines() {
        for (text, bytes) in
            [("", 0), ("G", 0), ("\r\nG", 2), ("\n\r\n\nG", 4), ("\r\n\r", 2), ("\r\rG", 0)]
        {
            assert_eq!(skip_blank_lines(text.as_bytes()), bytes, "{text:?}");
        }
        // Half of a blank line is no reason to refuse anything.
        assert_eq!(parse(b"\r", &Config::default()), Ok(None));
    }

    proptest! {
        #[test]
        fn never_panics(bytes in vec(any::<u8>(), 0..200)) {
            let _ = parse(&bytes, &small());
        }

        /// Whatever the pieces are: the first answer of a search is the answer for the whole.
        #[test]
        fn does_not_depend_on_cuts(
            pieces in vec(select(PIECES), 0..24),
            cuts in vec(0_usize..300, 0..4),
            strict in any::<bool>(),
        ) {
            let bytes = pieces.concat().into_bytes();
            let config = if strict { small() } else { Config::default() };
            let whole = parse(&bytes[skip_blank_lines(&bytes)..], &config);
            let bytes = &bytes[skip_blank_lines(&bytes)..];
            prop_assert_eq!(&byte_by_byte(bytes, &config), &whole);
            let mut ends: Vec<_> = cuts.iter().map(|cut| *cut.min(&bytes.len())).collect();
            ends.push(bytes.len());
            ends.sort_unstable();
            prop_assert_eq!(grown(bytes, ends, &config), whole);
        }

        /// httparse is more lenient, but must find the same head in what we take.
        #[test]
        fn agrees_with_httparse(pieces in vec(select(PIECES), 0..24)) {
            let bytes = pieces.concat().into_bytes();
            let bytes = &bytes[skip_blank_lines(&bytes)..];
            let mut headers = [httparse::EMPTY_HEADER; Head::FIELDS_MAX];
            let mut request = httparse::Request::new(&mut headers);
            let theirs = request.parse(bytes);
            match parse(bytes, &Config::default()) {
                Ok(Some(head)) => {
                    prop_assert_eq!(theirs, Ok(httparse::Status::Complete(head.length)));
                    let ours = Request { head: &head, bytes, body: &[] };
                    for header in request.headers.iter() {
                        let name = header.name.to_ascii_lowercase();
                        let found = ours.headers(&name).any(|value| value == header.value);
                        prop_assert!(found, "{name}");
                    }
                }
                Ok(None) => prop_assert!(!matches!(theirs, Ok(httparse::Status::Complete(_)))),
                Err(_) => {}
            }
        }

        /// A head that is accepted ends with its first empty line, and its fields come back.
        #[test]
        fn returns_every_field(
            fields in vec(("[a-zA-Z0-9-]{1,20}", "[!-~][ -~]{0,20}[!-~]"), 0..20),
            body in vec(any::<u8>(), 0..20),
        ) {
            let mut text = "GET / HTTP/1.1\r\nHost: a\r\n".to_owned();
            for (name, value) in &fields {
                text.extend(["x", name, ": ", value, "\r\n"]);
            }
            let mut bytes = (text + "\r\n").into_bytes();
            let length = bytes.len();
            bytes.extend(body);
            let head = parse(&bytes, &Config::default()).expect("good").expect("complete");
            prop_assert_eq!(head.length, length);
            let request = Request { head: &head, bytes: &bytes, body: &[] };
            for (name, value) in &fields {
                let same = |other: &&(String, String)| other.0.eq_ignore_ascii_case(name);
                let count = fields.iter().filter(same).count();
                let name = format!("x{}", name.to_ascii_lowercase());
                prop_assert!(request.headers(&name).any(|found| found == value.as_bytes()));
                prop_assert_eq!(request.headers(&name).count(), count);
            }
        }
    }

    const PIECES: &[&str] = &[
        "GET / HTTP/1.1\r\n",
        "POST /device/register HTTP/1.1\r\n",
        "GET ",
        "/?a",
        " HTTP/1.0\r\n",
        " HTTP/2.0",
        "Host: a\r\n",
        "Content-Length: 5\r\n",
        "Transfer-Encoding: chunked\r\n",
        "Connection: close\r\n",
        "Expect: 100-continue\r\n",
        "A: bbbbbbbbbbbbbbbbbbbbbbbbbb\r\n",
        "\r\n",
        "\r\n",
        "\r\n\r\n",
        "\n",
        "\r",
        ":",
        " ",
        "x",
        "\0",
        "\u{e9}",
        "#",
    ];

    fn small() -> Config {
        let mut config = Config::default();
        (config.head_bytes_max, config.headers_max, config.target_bytes_max) = (80, 2, 20);
        config
    }

    fn expand(text: &str) -> Vec<u8> {
        match text.strip_prefix('H') {
            Some(rest) if !rest.starts_with("TTP") => {
                format!("GET / HTTP/1.1\r\nHost: a\r\n{rest}").into_bytes()
            }
            _ => text.as_bytes().to_vec(),
        }
    }

    fn parse(bytes: &[u8], config: &Config) -> Result<Option<Head>, Refused> {
        Search::default().parse(bytes, config)
    }

    fn accepted(text: &str) -> Head {
        let head = parse(text.as_bytes(), &Config::default()).expect(text).expect(text);
        assert_eq!(byte_by_byte(text.as_bytes(), &Config::default()), Ok(Some(head.clone())));
        head
    }

    fn request<'a>(head: &'a Head, text: &'a str) -> Request<'a> {
        Request { head, bytes: text.as_bytes(), body: &[] }
    }

    fn byte_by_byte(bytes: &[u8], config: &Config) -> Result<Option<Head>, Refused> {
        grown(bytes, 0..=bytes.len(), config)
    }
}
