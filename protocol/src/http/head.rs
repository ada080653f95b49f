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

use super::{Framing, Head, Method, Refused, Span, Status};
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
        if self.from > 0 {
            return self.parse_grown(bytes, false, config);
        }
        match bytes {
            // Half of a blank line.
            [] | [b'\r'] => return Ok(None),
            [first, ..] if !is_token(*first) => return Err(Refused::BAD_REQUEST),
            _ => {}
        }
        // A head that arrives in one piece is lexed without being searched first.
        let head = parse_whole(bytes, config);
        match head {
            Ok(Some(_)) => head,
            Ok(None) => self.parse_grown(bytes, true, config),
            // Not refused for this before it is complete: how it was cut must not matter.
            Err(_) => self.parse_grown(bytes, false, config),
        }
    }

    /// Looks through the new bytes. `lexed`: httparse finds nothing wrong in them.
    fn parse_grown(
        &mut self,
        bytes: &[u8],
        lexed: bool,
        config: &Config,
    ) -> Result<Option<Head>, Refused> {
        let limit = bytes_max(config);
        let window = bytes.get(..limit).unwrap_or(bytes);
        if !self.line {
            match line_feed(window, self.from) {
                Some(at) => {
                    check_request_line(&window[..=at], lexed, config)?;
                    *self = Self { from: at + 1, line: true };
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
        let uri = !self.line && target_bytes(window) > config.target_bytes_max;
        Err(Refused::too_large(if uri {
            Status::URI_TOO_LONG
        } else {
            Status::HEADER_FIELDS_TOO_LARGE
        }))
    }
}

/// Where the first empty line ends, or from where to search once there are more bytes. `from` is
/// not before the end of the request line. Takes a bare LF for the line end that it must not be,
/// so that it is seen and refused at once.
fn search_end(bytes: &[u8], from: usize) -> Result<usize, usize> {
    let mut from = from;
    loop {
        let (read, rest) = bytes.split_at_checked(from).ok_or(from)?;
        if read.ends_with(b"\n") {
            match rest {
                [b'\n', ..] => return Ok(from + 1),
                [b'\r', b'\n', ..] => return Ok(from + 2),
                [] | [b'\r'] => return Err(from),
                _ => {}
            }
        }
        match line_feed(bytes, from) {
            Some(at) => from = at + 1,
            None => return Err(bytes.len()),
        }
    }
}

/// The first LF at or after `from`.
fn line_feed(bytes: &[u8], from: usize) -> Option<usize> {
    let mut at = from;
    while let Some(chunk) = bytes.get(at..)?.first_chunk::<16>() {
        // Without an early end, so that it becomes a few vector instructions.
        if chunk.iter().fold(false, |found, byte| found | (*byte == b'\n')) {
            break;
        }
        at += chunk.len();
    }
    let found = bytes[at..].iter().position(|byte| *byte == b'\n')?;
    Some(at + found)
}

/// Refuses a bad request line as soon as it is complete; `line` ends with its LF. `lexed`:
/// httparse finds nothing wrong in it.
fn check_request_line(line: &[u8], lexed: bool, config: &Config) -> Result<(), Refused> {
    if !line.ends_with(b"\r\n") {
        return Err(Refused::BAD_REQUEST);
    }
    if !lexed && let Err(error) = httparse::Request::new(&mut []).parse(line) {
        return Err(match error {
            httparse::Error::Version if names_other_version(line) => {
                Refused::malformed(Status::VERSION_NOT_SUPPORTED)
            }
            _ => Refused::BAD_REQUEST,
        });
    }
    if target_bytes(line) > config.target_bytes_max {
        return Err(Refused::too_large(Status::URI_TOO_LONG));
    }
    Ok(())
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

/// Parses a head that is complete, whatever follows it; `None` if it is not.
fn parse_whole(bytes: &[u8], config: &Config) -> Result<Option<Head>, Refused> {
    let mut headers = [const { MaybeUninit::uninit() }; Head::FIELDS_MAX];
    let headers = &mut headers[..config.headers_max.min(Head::FIELDS_MAX)];
    let mut request = httparse::Request::new(&mut []);
    let length = match request.parse_with_uninit_headers(bytes, headers) {
        Ok(httparse::Status::Complete(length)) if length <= bytes_max(config) => length,
        Ok(httparse::Status::Complete(_)) | Err(httparse::Error::TooManyHeaders) => {
            return Err(Refused::too_large(Status::HEADER_FIELDS_TOO_LARGE));
        }
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(_) => return Err(Refused::BAD_REQUEST),
    };
    let (Some(method), Some(target)) = (request.method, request.path) else {
        return Err(Refused::BAD_REQUEST);
    };
    if target.len() > config.target_bytes_max {
        return Err(Refused::too_large(Status::URI_TOO_LONG));
    }
    let bytes = &bytes[..length];
    let http_1_1 = request.version == Some(1);
    let (path, query) = split_target(method, target, bytes)?;
    let mut told = Told::default();
    let lines = read_fields(bytes, request.headers, &mut told)?;
    if told.hosts > 1 || told.hosts == 0 && http_1_1 || told.authentications > 1 {
        return Err(Refused::BAD_REQUEST);
    }
    let framing = framing(&told, http_1_1, config)?;
    if told.unknown_expectation {
        return Err(Refused::malformed(Status::EXPECTATION_FAILED));
    }
    Ok(Some(Head {
        method: method_of(method),
        http_1_1,
        length,
        framing,
        keep_alive: !told.close && (http_1_1 || told.keep_alive),
        expects_continue: told.expects_continue
            && http_1_1
            && !matches!(framing, Framing::None | Framing::Length(0)),
        path,
        query,
        lines,
        fields: request.headers.len() as u8,
    }))
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

impl<'a> Told<'a> {
    /// Looks at one field. The counters cannot overflow: there are at most 64 fields.
    fn read(&mut self, name: &[u8], value: &'a [u8]) {
        // By the first letter, so that most names are compared with nothing.
        match name.first().map(|first| first | 0x20) {
            Some(b'a') if is(name, b"authentication") => self.authentications += 1,
            Some(b'c') if is(name, b"connection") => {
                for element in elements(value) {
                    self.close |= is(element, b"close");
                    self.keep_alive |= is(element, b"keep-alive");
                }
            }
            Some(b'c') if is(name, b"content-length") => {
                self.lengths += 1;
                self.length = value;
            }
            Some(b'e') if is(name, b"expect") => {
                for element in elements(value) {
                    let known = is(element, b"100-continue");
                    self.expects_continue |= known;
                    self.unknown_expectation |= !known;
                }
            }
            Some(b'h') if is(name, b"host") => self.hosts += 1,
            Some(b't') if is(name, b"transfer-encoding") => {
                self.codings += 1;
                self.coding = value;
            }
            _ => {}
        }
    }
}

/// Reads the header lines, and makes sure that every line of the head ends with CR LF.
fn read_fields<'a>(
    bytes: &[u8],
    headers: &[httparse::Header<'a>],
    told: &mut Told<'a>,
) -> Result<[u16; Head::FIELDS_MAX + 1], Refused> {
    let mut lines = [0; Head::FIELDS_MAX + 1];
    for (line, header) in lines.iter_mut().zip(headers) {
        let start = offset(bytes, header.name.as_bytes());
        if bytes.get(start.wrapping_sub(2)) != Some(&b'\r') {
            return Err(Refused::BAD_REQUEST);
        }
        *line = start as u16;
        told.read(header.name.as_bytes(), header.value);
    }
    if !bytes.ends_with(b"\r\n\r\n") {
        return Err(Refused::BAD_REQUEST);
    }
    lines[headers.len()] = (bytes.len() - 2) as u16;
    Ok(lines)
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
        (1, 0) if is(told.coding, b"chunked") => Ok(Framing::Chunked),
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
    // not part of a target, and what is beyond ASCII has to be percent-encoded.
    let target = target.as_bytes();
    let found = target.iter().fold(0, |found, byte| found | TARGET[usize::from(*byte)]);
    if found & BAD != 0 {
        return Err(Refused::BAD_REQUEST);
    }
    let mark = if found == 0 { None } else { target.iter().position(|byte| *byte == b'?') };
    let (path, query) = match mark {
        Some(at) => (&target[..at], Some(span(bytes, &target[at + 1..]))),
        None => (target, None),
    };
    let path = match path {
        [b'/', ..] => path,
        b"*" if method == "OPTIONS" && query.is_none() => path,
        _ if method == "CONNECT" => path,
        _ => without_authority(path).ok_or(Refused::BAD_REQUEST)?,
    };
    Ok((span(bytes, path), query))
}

/// What follows the authority of an absolute `http` or `https` URI without query.
fn without_authority(target: &[u8]) -> Option<&[u8]> {
    let scheme = target.iter().position(|byte| *byte == b':')?;
    if ![&b"http"[..], b"https"].iter().any(|known| target[..scheme].eq_ignore_ascii_case(known)) {
        return None;
    }
    let rest = target[scheme..].strip_prefix(b"://")?;
    let end = rest.iter().position(|byte| *byte == b'/').unwrap_or(rest.len());
    if end == 0 { None } else { Some(&rest[end..]) }
}

/// Where `part`, a slice of `bytes`, lies in it. Heads are shorter than 64 KiB.
fn span(bytes: &[u8], part: &[u8]) -> Span {
    let start = offset(bytes, part);
    Span { start: start as u16, end: (start + part.len()) as u16 }
}

/// Where `part`, a slice of `bytes`, begins in it.
fn offset(bytes: &[u8], part: &[u8]) -> usize {
    let offset = part.as_ptr().addr().wrapping_sub(bytes.as_ptr().addr());
    debug_assert!(offset + part.len() <= bytes.len(), "a part of these bytes");
    offset
}

/// The elements of a comma-separated list (RFC 9110 5.6.1).
fn elements(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii).filter(|element| !element.is_empty())
}

/// Compares a name with a `lower`-case one of letters, digits and `-`. Exact where there are no
/// control characters: but for those, only letters fall together when bit 5 is set.
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

/// What a byte means for the target that holds it: nothing, [`QUERY`] or [`BAD`].
const TARGET: [u8; 256] = {
    let mut table = [0; 256];
    let mut byte = 0x80;
    while byte < table.len() {
        table[byte] = BAD;
        byte += 1;
    }
    table[b'#' as usize] = BAD;
    table[b'?' as usize] = QUERY;
    table
};

/// It has a query.
const QUERY: u8 = 1;

/// It is refused.
const BAD: u8 = 2;
