//! What is private here, for fuzz targets (`fuzz/`, docs/fuzzing.md) and the tests that replay
//! their corpora (`tests/tests/corpus.rs`). Only with the feature `fuzzing`; not part of the API.
//!
//! Each body takes any bytes and panics if what it holds of all of them does not hold. It depends
//! on nothing else: how an input is cut follows from a hash of it.

mod json;

pub use json::json;

use rapidhash::v3::rapidhash_v3;

use crate::Config;
use crate::http::body::{Chunked, Progress};
use crate::http::head::{self, grown};
use crate::http::{Framing, Head, Method, Refused, Request, Selection};
use crate::report::Refusal;
use crate::tls::hello::{Hello, look};

/// Of the line that the connections of a configuration share: bytes that are admitted and have not
/// left, and downloads.
#[must_use]
pub fn admitted(config: &Config) -> (u64, u64) {
    config.outflow.admitted()
}

/// The head of a request: every cut gives the same verdict (law 1), and what is accepted ends with
/// an empty line within the limit, has one meaning, and does not depend on what follows.
///
/// # Panics
/// If that is not so.
pub fn head(bytes: &[u8]) {
    let bytes = &bytes[head::skip_blank_lines(bytes)..];
    for config in [Config::default(), small()] {
        let whole = grown(bytes, [bytes.len()], &config);
        assert_eq!(grown(bytes, 0..=bytes.len(), &config), whole, "law 1: by byte");
        assert_eq!(grown(bytes, ends(bytes), &config), whole, "law 1: in pieces");
        match whole {
            Ok(Some(head)) => check_head(&head, bytes, &config),
            Ok(None) => assert!(bytes.len() < config.head_bytes_max, "law 5: kept for ever"),
            Err(refused) => {
                assert!((400..=505).contains(&refused.status.code()));
                let longer = [bytes, b"\r\nA: b\r\n\r\n"].concat();
                assert_eq!(grown(&longer, [longer.len()], &config), Err(refused), "it stays so");
            }
        }
    }
}

/// A chunked body: every cut gives the same verdict and body (law 1); what is kept never exceeds
/// the limit (law 5); the head before it and the request behind it are left alone.
///
/// # Panics
/// If that is not so.
pub fn chunked(bytes: &[u8]) {
    for config in [Config::default(), small()] {
        let whole = decoded(bytes, [bytes.len()], &config);
        assert_eq!(decoded(bytes, 1..=bytes.len(), &config), whole, "law 1: by byte");
        assert_eq!(decoded(bytes, ends(bytes), &config), whole, "law 1: in pieces");
        let Ok(Some((body, rest))) = whole else { continue };
        assert!(bytes.ends_with(&rest), "what follows is not what follows");
        // What was read can be written, and reads the same.
        let mut again = Vec::new();
        for piece in body.chunks(8) {
            again.extend(format!("{:X}\r\n", piece.len()).bytes());
            again.extend(piece);
            again.extend(b"\r\n");
        }
        again.extend(b"0\r\n\r\n");
        again.extend(&rest);
        let config = Config { chunk_line_bytes_max: 64, ..config };
        assert_eq!(decoded(&again, [again.len()], &config), Ok(Some((body, rest))));
    }
}

/// `Range` and `If-Range`: a part is never empty and never outside; a range in any other form than
/// `bytes=first-last` counts as none. The length is the first two bytes, lines are the headers.
///
/// # Panics
/// If that is not so.
pub fn range(bytes: &[u8]) {
    let Some((len, headers)) = bytes.split_first_chunk::<2>() else { return };
    let len = u64::from(u16::from_be_bytes(*len));
    let mut lines = headers.splitn(2, |byte| *byte == b'\n');
    let (range, if_range) = (lines.next(), lines.next());
    let selection = Selection::of(range, if_range, ETAG, len);
    match selection {
        Selection::Part { start, end } => assert!(start < end && end <= len, "outside"),
        Selection::Whole | Selection::Unsatisfiable => {}
    }
    let is_other = if_range.is_some_and(|tag| tag != ETAG.as_bytes());
    assert!(!is_other || selection == Selection::Whole, "RFC 9110 13.1.5");
    let expected = if is_other { None } else { range.and_then(bounds) };
    let model = match expected {
        None => Selection::Whole,
        Some((Some(first), _)) if first >= len.into() => Selection::Unsatisfiable,
        Some((Some(first), last)) => {
            let end = last.map_or(len, |last| (last + 1).min(len.into()) as u64);
            Selection::Part { start: first as u64, end }
        }
        Some((None, Some(0))) => Selection::Unsatisfiable,
        Some((None, _)) if len == 0 => Selection::Whole,
        Some((None, last)) => {
            let count = last.unwrap_or_default().min(len.into()) as u64;
            Selection::Part { start: len - count, end: len }
        }
    };
    assert_eq!(selection, model, "RFC 9110 14.1.2");
}

/// The look at a client's first bytes: more of them never change a verdict, and it depends on how
/// they are cut into records no more than a ClientHello does.
///
/// # Panics
/// If that is not so.
pub fn hello(bytes: &[u8]) {
    let whole = look(bytes);
    for end in ends(bytes).into_iter().chain(0..bytes.len().min(128)) {
        let part = look(&bytes[..end]);
        let is_decided = !matches!(part, Hello::Partial);
        // Beyond what anybody sends, TLS itself decides.
        assert!(!is_decided || part == whole || whole == Hello::Strange, "{part:?}, {whole:?}");
    }
    if let Hello::Whole(Some(bytes_max)) = whole {
        assert!([512, 1024, 2048, 4096].contains(&bytes_max), "RFC 6066 4: {bytes_max}");
    }
    if matches!(whole, Hello::Http) {
        assert!(bytes[0].is_ascii_uppercase());
    }
}

/// How one request is read, with nothing but what RFC 9112 gives it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reading {
    /// Not all of it is there.
    Partial,
    /// It is refused with this status, and the connection with it; for what it is, or because it
    /// is larger than a limit.
    Refused {
        /// The status.
        code: u16,
        /// It is only too large.
        is_too_large: bool,
    },
    /// It is taken.
    Taken(Taken),
}

/// A request that is taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taken {
    /// `GET`, `HEAD`, `POST`, `OPTIONS`; `None` for any other.
    pub method: Option<&'static str>,
    /// The path as it is routed.
    pub path: Vec<u8>,
    /// What follows the first `?`.
    pub query: Option<String>,
    /// HTTP/1.1; else HTTP/1.0.
    pub http_1_1: bool,
    /// Is the body's length told by `Transfer-Encoding: chunked`?
    pub is_chunked: bool,
    /// The body, decoded.
    pub body: Vec<u8>,
    /// May the connection live on?
    pub keep_alive: bool,
    /// Where the next request begins.
    pub end: usize,
}

/// Reads the request at the front of `bytes`.
#[must_use]
pub fn read(bytes: &[u8]) -> Reading {
    let config = Config::default();
    let skipped = head::skip_blank_lines(bytes);
    let rest = &bytes[skipped..];
    let head = match grown(rest, [rest.len()], &config) {
        Ok(Some(head)) => head,
        Ok(None) => return Reading::Partial,
        Err(refused) => return refused.into(),
    };
    let start = head.length;
    let (body, end) = match head.framing {
        Framing::None => (Vec::new(), start),
        Framing::Length(length) => match rest.get(start..start + length as usize) {
            Some(body) => (body.to_vec(), start + length as usize),
            None => return Reading::Partial,
        },
        Framing::Chunked => match decoded(&rest[start..], [rest.len() - start], &config) {
            Ok(Some((body, after))) => (body, rest.len() - after.len()),
            Ok(None) => return Reading::Partial,
            Err(refused) => return refused.into(),
        },
    };
    let request = Request { head: &head, bytes: rest, body: &body };
    Reading::Taken(Taken {
        method: match head.method {
            Method::Get => Some("GET"),
            Method::Head => Some("HEAD"),
            Method::Post => Some("POST"),
            Method::Options => Some("OPTIONS"),
            Method::Other => None,
        },
        path: request.path().to_vec(),
        query: request.query().map(str::to_owned),
        http_1_1: head.http_1_1,
        is_chunked: head.framing == Framing::Chunked,
        keep_alive: head.keep_alive,
        end: skipped + end,
        body,
    })
}

impl From<Refused> for Reading {
    fn from(refused: Refused) -> Self {
        let is_too_large = refused.refusal == Refusal::TooLarge;
        Self::Refused { code: refused.status.code(), is_too_large }
    }
}

fn check_head(head: &Head, bytes: &[u8], config: &Config) {
    let own = &bytes[..head.length];
    assert!(head.length <= config.head_bytes_max, "law 5: {} bytes", head.length);
    assert!(own.ends_with(b"\r\n\r\n"), "no empty line at its end");
    assert!(!own.windows(2).any(|pair| pair[1] == b'\n' && pair[0] != b'\r'), "a bare LF");
    assert_eq!(own.windows(4).filter(|end| end == b"\r\n\r\n").count(), 1, "two ends");
    assert_eq!(&grown(own, [own.len()], config), &Ok(Some(head.clone())), "what follows counts");
    let request = Request { head, bytes, body: &[] };
    let is_path = request.path().starts_with(b"/");
    let is_other = request.path() == b"*" || head.method == Method::Other;
    assert!(is_path || is_other, "no path: {}", request.path().escape_ascii());
    let target = [request.path(), request.query().unwrap_or_default().as_bytes()].concat();
    assert!(target.iter().all(|byte| (b'!'..=b'~').contains(byte) && *byte != b'#'));
    for name in ["host", "authentication", "content-length", "transfer-encoding"] {
        assert!(request.headers(name).count() <= 1, "{name} twice");
    }
    let length = request.header("content-length");
    let coding = request.header("transfer-encoding");
    match head.framing {
        Framing::None => assert_eq!((length, coding), (None, None)),
        Framing::Length(length_read) => {
            assert!(length_read <= config.body_bytes_max as u64 && coding.is_none());
            let text = length.and_then(|length| std::str::from_utf8(length).ok());
            assert_eq!(text.and_then(|text| text.parse().ok()), Some(length_read));
        }
        Framing::Chunked => {
            assert!(head.http_1_1 && length.is_none(), "RFC 9112 6.1");
            assert!(coding.is_some_and(|coding| coding.eq_ignore_ascii_case(b"chunked")));
        }
    }
    assert_eq!(request.authentication(), request.header("authentication"));
}

/// A body, and what follows it.
type Decoded = (Vec<u8>, Vec<u8>);

/// `None` while there is more of it.
fn decoded(
    bytes: &[u8],
    ends: impl IntoIterator<Item = usize>,
    config: &Config,
) -> Result<Option<Decoded>, Refused> {
    let mut chunked = Chunked::new();
    let mut buffer = HEAD.to_vec();
    let mut at = 0;
    for end in ends {
        buffer.extend_from_slice(&bytes[at..end]);
        at = end;
        let progress = chunked.decode(&mut buffer, HEAD.len(), config)?;
        assert!(buffer.starts_with(HEAD), "the head is changed");
        match progress {
            Progress::More => {
                let kept = buffer.len() - HEAD.len();
                assert!(kept <= config.body_bytes_max, "law 5: {kept} bytes kept");
            }
            Progress::Done(end) => {
                let rest = [&buffer[end..], &bytes[at..]].concat();
                return Ok(Some((buffer[HEAD.len()..end].to_vec(), rest)));
            }
        }
    }
    Ok(None)
}

/// Where to cut: differently for each input, and the same each time.
fn ends(bytes: &[u8]) -> Vec<usize> {
    let mut random = rapidhash_v3(bytes);
    let (mut ends, mut at) = (Vec::new(), 0);
    while at < bytes.len() {
        random = random.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        let piece = 1 + (random >> 33) as usize % if random >> 63 == 0 { 8 } else { 200 };
        at = bytes.len().min(at + piece);
        ends.push(at);
    }
    ends
}

/// `bytes=first-last` (RFC 9110 14.1.1), read another way.
fn bounds(range: &[u8]) -> Option<(Option<u128>, Option<u128>)> {
    let text = std::str::from_utf8(range).ok()?;
    let (unit, spec) = text.split_once('=')?;
    let (first, last) = spec.split_once('-')?;
    let number = |text: &str| match text {
        "" => Some(None),
        text if text.bytes().all(|byte| byte.is_ascii_digit()) => {
            let digits = text.trim_start_matches('0');
            let digits = if digits.len() > 30 { "9".repeat(30) } else { format!("0{digits}") };
            // Beyond 64 bits no two positions are told apart.
            Some(digits.parse().ok().map(|position: u128| position.min(u64::MAX.into())))
        }
        _ => None,
    };
    let (first, last) = (number(first)?, number(last)?);
    let is_backwards = first.zip(last).is_some_and(|(first, last)| last < first);
    let is_empty = first.is_none() && last.is_none();
    let is_bytes = unit.eq_ignore_ascii_case("bytes");
    (is_bytes && !is_backwards && !is_empty).then_some((first, last))
}

/// Limits that a short input reaches.
fn small() -> Config {
    let mut config = Config::default();
    (config.head_bytes_max, config.headers_max, config.target_bytes_max) = (80, 2, 20);
    (config.body_bytes_max, config.chunk_line_bytes_max, config.trailer_bytes_max) = (20, 12, 12);
    config
}

const ETAG: &str = "\"abc\"";
/// Any bytes: what stands before a body is not looked at.
const HEAD: &[u8] = b"POST / HTTP/1.1\r\n\r\n";
