//! Heads of requests: the request line and the header lines (RFC 9112 2 to 7).
//!
//! httparse does the lexing; this file decides what httparse leaves open, and always for the
//! strict reading. Line ends are CR LF and nothing else: a bare LF, which httparse and RFC 9112
//! 2.2 would allow, is refused, because the next hop may not see a line end in it.
//!
//! What is decided, and when, depends on the bytes alone, never on how they were cut:
//!
//! 1. by the first byte: whether this is a request at all (a TLS hello is not);
//! 2. by the end of the first line: whether the request line is good;
//! 3. by the empty line: everything else;
//! 4. without an empty line within [`Config::head_bytes_max`]: refused.
//!
//! A buffer that grows is never lexed twice: [`Search`] remembers how far it was looked through
//! and calls httparse once the empty line is there.

use std::mem::MaybeUninit;

use super::{Field, Framing, Head, Method, Refused, Span, Status};
use crate::Config;

/// Bytes of line ends at the start of `bytes`, which a peer may send before a request
/// (RFC 9112 2.2; the device libraries send CR LF after a body, WIRE.md 1.0). A CR whose LF has
/// not arrived is not counted.
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

/// Parses the head at the start of `bytes`; `None` while it is incomplete. For a buffer that is
/// seen once; one that grows wants a [`Search`].
///
/// # Errors
///
/// The request is to be refused, whatever arrives after these bytes.
pub(crate) fn parse(bytes: &[u8], config: &Config) -> Result<Option<Head>, Refused> {
    Search::default().parse(bytes, config)
}

/// How far a growing buffer has been looked through for the end of the head at its start. One
/// per request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Search {
    /// No empty line ends before this offset.
    from: usize,
    /// The request line is complete and good.
    line: bool,
}

impl Search {
    /// Parses the head at the start of `bytes`, which hold all bytes of the calls before this one
    /// and any number of new ones; `None` while it is incomplete. Blank lines before it must have
    /// been skipped.
    ///
    /// # Errors
    ///
    /// The request is to be refused, whatever arrives after these bytes.
    pub(crate) fn parse(&mut self, bytes: &[u8], config: &Config) -> Result<Option<Head>, Refused> {
        match bytes {
            // Half of a blank line.
            [] | [b'\r'] => return Ok(None),
            [first, ..] if !is_token(*first) => return Err(Refused::BAD_REQUEST),
            // A head that arrives in one piece is lexed without being searched first.
            _ if self.from == 0 => {
                if let Ok(Some(head)) = parse_whole(bytes, config) {
                    return Ok(Some(head));
                }
            }
            _ => {}
        }
        self.parse_grown(bytes, config)
    }

    fn parse_grown(&mut self, bytes: &[u8], config: &Config) -> Result<Option<Head>, Refused> {
        let limit = bytes_max(config);
        let window = &bytes[..bytes.len().min(limit)];
        if !self.line {
            match line_feed(window, self.from) {
                Some(at) => {
                    check_request_line(&window[..=at], config)?;
                    *self = Self { from: at, line: true };
                }
                None => self.from = window.len(),
            }
        }
        if self.line {
            match search_end(window, self.from) {
                Ok(end) => {
                    let head = parse_whole(&window[..end], config)?;
                    return head.map(Some).ok_or(Refused::BAD_REQUEST);
                }
                Err(from) => self.from = from,
            }
        }
        if window.len() < limit {
            return Ok(None);
        }
        Err(Refused::too_large(if !self.line && target_bytes(window) > config.target_bytes_max {
            Status::URI_TOO_LONG
        } else {
            Status::HEADER_FIELDS_TOO_LARGE
        }))
    }
}

/// Where the first empty line ends, or from where to search once there are more bytes. Takes a
/// bare LF for the line end that it must not be, so that it is seen and refused at once.
fn search_end(bytes: &[u8], from: usize) -> Result<usize, usize> {
    let mut from = from;
    while let Some(at) = line_feed(bytes, from) {
        match &bytes[at + 1..] {
            [b'\n', ..] => return Ok(at + 2),
            [b'\r', b'\n', ..] => return Ok(at + 3),
            [] | [b'\r'] => return Err(at),
            _ => from = at + 1,
        }
    }
    Err(bytes.len())
}

/// The first LF at or after `from`.
fn line_feed(bytes: &[u8], from: usize) -> Option<usize> {
    bytes.iter().skip(from).position(|byte| *byte == b'\n').map(|at| from + at)
}

/// Refuses a bad request line as soon as it is complete; `line` ends with its LF.
fn check_request_line(line: &[u8], config: &Config) -> Result<(), Refused> {
    if !line.ends_with(b"\r\n") {
        return Err(Refused::BAD_REQUEST);
    }
    let mut request = httparse::Request::new(&mut []);
    match request.parse(line) {
        Ok(_) if request.path.map_or(0, str::len) > config.target_bytes_max => {
            Err(Refused::too_large(Status::URI_TOO_LONG))
        }
        Ok(_) => Ok(()),
        Err(httparse::Error::Version) if names_other_version(line) => {
            Err(Refused::malformed(Status::VERSION_NOT_SUPPORTED))
        }
        Err(_) => Err(Refused::BAD_REQUEST),
    }
}

/// Does the line end like `HTTP/2.0`, in the form of RFC 9112 2.3?
fn names_other_version(line: &[u8]) -> bool {
    let version = line.trim_ascii_end().rsplit(|byte| *byte == b' ').next();
    matches!(version, Some([b'H', b'T', b'T', b'P', b'/', major, b'.', minor])
        if major.is_ascii_digit() && minor.is_ascii_digit())
}

/// Bytes of the target in a request line that may have no end yet.
fn target_bytes(line: &[u8]) -> usize {
    line.split(|byte| *byte == b' ').nth(1).map_or(0, <[u8]>::len)
}

/// The limit of a head; spans cannot reach further.
fn bytes_max(config: &Config) -> usize {
    config.head_bytes_max.min(usize::from(u16::MAX))
}

fn parse_whole(bytes: &[u8], config: &Config) -> Result<Option<Head>, Refused> {
    let mut headers = [const { MaybeUninit::uninit() }; Head::FIELDS_MAX];
    let headers = &mut headers[..config.headers_max.min(Head::FIELDS_MAX)];
    let mut request = httparse::Request::new(&mut []);
    match request.parse_with_uninit_headers(bytes, headers) {
        Ok(httparse::Status::Complete(length)) if length <= bytes_max(config) => {
            build(&bytes[..length], &request, config).map(Some)
        }
        Ok(httparse::Status::Complete(_)) | Err(httparse::Error::TooManyHeaders) => {
            Err(Refused::too_large(Status::HEADER_FIELDS_TOO_LARGE))
        }
        Ok(httparse::Status::Partial) => Ok(None),
        Err(_) => Err(Refused::BAD_REQUEST),
    }
}

/// Makes the head of what httparse found; `bytes` are the head and nothing else.
fn build(
    bytes: &[u8],
    request: &httparse::Request<'_, '_>,
    config: &Config,
) -> Result<Head, Refused> {
    let (Some(method), Some(target)) = (request.method, request.path) else {
        return Err(Refused::BAD_REQUEST);
    };
    if target.len() > config.target_bytes_max {
        return Err(Refused::too_large(Status::URI_TOO_LONG));
    }
    let mut head = Head {
        method: method_of(method),
        http_1_1: request.version == Some(1),
        length: bytes.len(),
        framing: Framing::None,
        keep_alive: false,
        expects_continue: false,
        path: Span::default(),
        query: None,
        fields: [Field::default(); Head::FIELDS_MAX],
        fields_used: 0,
    };
    let told = read_fields(&mut head, bytes, request.headers)?;
    (head.path, head.query) = split_target(method, target, bytes)?;
    if told.hosts > 1 || told.hosts == 0 && head.http_1_1 || told.authentications > 1 {
        return Err(Refused::BAD_REQUEST);
    }
    head.framing = framing(&told, head.http_1_1, config)?;
    if told.unknown_expectation {
        return Err(Refused::malformed(Status::EXPECTATION_FAILED));
    }
    head.keep_alive = !told.close && (head.http_1_1 || told.keep_alive);
    head.expects_continue = told.expects_continue
        && head.http_1_1
        && !matches!(head.framing, Framing::None | Framing::Length(0));
    Ok(head)
}

/// What the header lines say that matters to the connection.
#[derive(Default)]
struct Told<'a> {
    hosts: u8,
    authentications: u8,
    lengths: u8,
    length: &'a [u8],
    codings: u8,
    coding: &'a [u8],
    close: bool,
    keep_alive: bool,
    expects_continue: bool,
    unknown_expectation: bool,
}

/// Fills the table of `head` and looks at the fields that matter here.
fn read_fields<'a>(
    head: &mut Head,
    bytes: &[u8],
    headers: &[httparse::Header<'a>],
) -> Result<Told<'a>, Refused> {
    let mut told = Told::default();
    for (field, header) in head.fields.iter_mut().zip(headers) {
        let name = header.name.as_bytes();
        *field = Field { name: span(bytes, name), value: span(bytes, header.value) };
        let start = usize::from(field.name.start);
        if bytes.get(start.wrapping_sub(2)) != Some(&b'\r') {
            return Err(Refused::BAD_REQUEST);
        }
        head.fields_used += 1;
        // Counters cannot overflow: there are at most 64 lines.
        match name.len() {
            4 if is(name, b"host") => told.hosts += 1,
            6 if is(name, b"expect") => {
                for element in elements(header.value) {
                    if element.eq_ignore_ascii_case(b"100-continue") {
                        told.expects_continue = true;
                    } else {
                        told.unknown_expectation = true;
                    }
                }
            }
            10 if is(name, b"connection") => {
                for element in elements(header.value) {
                    told.close |= element.eq_ignore_ascii_case(b"close");
                    told.keep_alive |= element.eq_ignore_ascii_case(b"keep-alive");
                }
            }
            14 if is(name, b"authentication") => told.authentications += 1,
            14 if is(name, b"content-length") => {
                told.lengths += 1;
                told.length = header.value;
            }
            17 if is(name, b"transfer-encoding") => {
                told.codings += 1;
                told.coding = header.value;
            }
            _ => {}
        }
    }
    if bytes.ends_with(b"\r\n\r\n") { Ok(told) } else { Err(Refused::BAD_REQUEST) }
}

/// RFC 9112 6.3, without the cases in which two readers could disagree.
fn framing(told: &Told<'_>, http_1_1: bool, config: &Config) -> Result<Framing, Refused> {
    match (told.codings, told.lengths) {
        (0, 0) => Ok(Framing::None),
        (0, 1) => match content_length(told.length) {
            None => Err(Refused::BAD_REQUEST),
            Some(length) if length > config.body_bytes_max as u64 => {
                Err(Refused::too_large(Status::CONTENT_TOO_LARGE))
            }
            Some(length) => Ok(Framing::Length(length)),
        },
        (1, 0) if !http_1_1 => Err(Refused::BAD_REQUEST),
        (1, 0) if told.coding.eq_ignore_ascii_case(b"chunked") => Ok(Framing::Chunked),
        (1, 0) => Err(Refused::malformed(Status::NOT_IMPLEMENTED)),
        _ => Err(Refused::BAD_REQUEST),
    }
}

/// 1 to 19 digits, so it cannot overflow.
fn content_length(value: &[u8]) -> Option<u64> {
    if !(1..=19).contains(&value.len()) {
        return None;
    }
    value.iter().try_fold(0, |sum: u64, byte| {
        byte.is_ascii_digit().then(|| sum * 10 + u64::from(byte - b'0'))
    })
}

fn method_of(name: &str) -> Method {
    match name {
        "GET" => Method::Get,
        "HEAD" => Method::Head,
        "POST" => Method::Post,
        "OPTIONS" => Method::Options,
        _ => Method::Other,
    }
}

/// Splits the target into path and query (RFC 9112 3.2).
fn split_target(method: &str, target: &str, bytes: &[u8]) -> Result<(Span, Option<Span>), Refused> {
    // httparse lets everything through that is no blank and no control character. A fragment is
    // not part of a target, and anything beyond ASCII has to be percent-encoded.
    if !target.is_ascii() || target.contains('#') {
        return Err(Refused::BAD_REQUEST);
    }
    let local = if target.starts_with('/') || method == "CONNECT" {
        target
    } else if target == "*" && method == "OPTIONS" {
        return Ok((span(bytes, target.as_bytes()), None));
    } else {
        without_authority(target).ok_or(Refused::BAD_REQUEST)?
    };
    let (path, query) = match local.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (local, None),
    };
    Ok((span(bytes, path.as_bytes()), query.map(|query| span(bytes, query.as_bytes()))))
}

/// What follows the authority of an absolute `http` or `https` URI.
fn without_authority(target: &str) -> Option<&str> {
    let (scheme, rest) = target.split_once("://")?;
    if !scheme.eq_ignore_ascii_case("http") && !scheme.eq_ignore_ascii_case("https") {
        return None;
    }
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    if end == 0 { None } else { rest.get(end..) }
}

/// Where `part`, a slice of `bytes`, lies in it. Heads are shorter than 64 KiB.
fn span(bytes: &[u8], part: &[u8]) -> Span {
    let start = part.as_ptr().addr().wrapping_sub(bytes.as_ptr().addr());
    debug_assert!(start + part.len() <= bytes.len(), "a part of these bytes");
    Span { start: start as u16, end: (start + part.len()) as u16 }
}

/// The elements of a comma-separated list (RFC 9110 5.6.1).
fn elements(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii).filter(|element| !element.is_empty())
}

/// Compares a field name with one in lower case. Exact, because a name is a token: of the
/// characters of a token only letters fall together when bit 5 is set.
fn is<const N: usize>(name: &[u8], lower: &[u8; N]) -> bool {
    let Ok(name) = <&[u8; N]>::try_from(name) else {
        return false;
    };
    name.iter().zip(lower).fold(0, |difference, (a, b)| difference | ((a | 0x20) ^ b)) == 0
}

/// `tchar` of RFC 9110 5.6.2.
pub(super) fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}
