//! Three readings of the same bytes: the core's, hyper's server's, and the grammar's.

use otter_protocol::fuzzing::{Reading, Taken, read};

use super::grammar::{self, Good, Verdict};
use super::second::{Heard, heard};

pub use super::grammar::Class;

/// Whatever bytes arrive, the core, hyper's server and the grammar of RFC 9112 find the same
/// requests in them: the same method, path, query, version and body, and the next request at the
/// same place. Where one of them refuses and another does not, a [`Class`] says why; httparse takes
/// every head that the core takes, and ends it where the core does.
///
/// # Panics
/// If that is not so.
pub fn differential(bytes: &[u8]) {
    compare(bytes);
}

/// The same; returns what explains where they parted, if they did.
///
/// # Panics
/// If nothing does.
pub fn compare(bytes: &[u8]) -> Option<Class> {
    let mut theirs = heard(bytes).into_iter();
    let (mut rest, mut before) = (bytes, &b""[..]);
    loop {
        let ours = read(rest);
        let grammar = grammar::read(rest);
        agree(&ours, &grammar, rest);
        let theirs = theirs.next();
        let theirs_whole = theirs.as_ref().and_then(|heard| Some((heard, heard.body.as_ref()?)));
        match (&ours, theirs_whole) {
            (Reading::Taken(ours), Some((theirs, body))) => {
                check_httparse(rest, ours);
                same(ours, theirs, body, rest);
                if !ours.keep_alive {
                    return None;
                }
                (before, rest) = rest.split_at(ours.end);
            }
            (Reading::Taken(ours), None) => {
                check_httparse(rest, ours);
                let why = stricter(rest, ours).or_else(|| closing(before));
                return Some(why.unwrap_or_else(|| {
                    panic!("hyper refuses what we take: {ours:?}, {theirs:?}")
                }));
            }
            (Reading::Refused { is_too_large: true, .. }, Some(_)) => return Some(Class::Limit),
            (Reading::Refused { .. }, Some((theirs, _))) => match grammar {
                Verdict::Faulty(class) => return Some(class),
                Verdict::Partial | Verdict::Good(_) => {
                    panic!("nothing explains that we refuse what hyper takes: {theirs:?}")
                }
            },
            (Reading::Partial, Some((theirs, _))) => match grammar {
                // Not decided yet: a head is judged when it is complete.
                Verdict::Faulty(class) => return Some(class),
                Verdict::Partial | Verdict::Good(_) => panic!("we wait for more than {theirs:?}"),
            },
            (Reading::Refused { .. } | Reading::Partial, None) => return None,
        }
    }
}

/// The core and the grammar: no class is needed but that of limits.
fn agree(ours: &Reading, grammar: &Verdict, bytes: &[u8]) {
    let text = bytes.escape_ascii();
    match (ours, grammar) {
        (Reading::Taken(ours), Verdict::Good(good)) => {
            let Good { method, path, query, http_1_1, body, keep_alive, end } = good;
            let known = ["GET", "HEAD", "POST", "OPTIONS"].into_iter().find(|m| m == method);
            assert_eq!(ours.method, known, "{text}");
            assert_eq!(ours.path, path.as_bytes(), "{text}");
            assert_eq!(&ours.query, query, "{text}");
            assert_eq!((ours.http_1_1, ours.keep_alive), (*http_1_1, *keep_alive), "{text}");
            assert_eq!(&ours.body, body, "{text}");
            assert_eq!(ours.end, *end, "{text}: the next request begins elsewhere");
        }
        (Reading::Refused { is_too_large, .. }, Verdict::Good(_)) => {
            assert!(is_too_large, "refused without a reason: {ours:?}, {text}");
        }
        (Reading::Taken(_), Verdict::Partial | Verdict::Faulty(_)) => {
            panic!("taken against RFC 9112: {grammar:?}, {text}")
        }
        (Reading::Partial, Verdict::Good(_)) => panic!("waits for more than a request: {text}"),
        // Each may see a fault before the other, but not overlook one.
        (Reading::Refused { .. } | Reading::Partial, Verdict::Partial | Verdict::Faulty(_)) => {}
    }
}

fn same(ours: &Taken, theirs: &Heard, body: &[u8], bytes: &[u8]) {
    let text = bytes.escape_ascii();
    if let Some(method) = ours.method {
        assert_eq!(method, theirs.method, "{text}");
    }
    if theirs.method != "CONNECT" {
        assert_eq!(ours.path, theirs.path.as_bytes(), "{text}");
        assert_eq!(ours.query, theirs.query, "{text}");
    }
    assert_eq!(ours.http_1_1, theirs.http_1_1, "{text}");
    assert_eq!(ours.body, body, "{text}: another body");
}

/// What explains that hyper refuses a request that we take.
fn stricter(bytes: &[u8], ours: &Taken) -> Option<Class> {
    let line = bytes.trim_ascii_start().split(|byte| *byte == b'\r').next()?;
    let target = line.split(|byte| *byte == b' ').nth(1)?;
    let query = ours.query.as_ref().map_or(&b""[..], |query| query.as_bytes());
    // RFC 3986 2 has none of these; http::Uri refuses the first ones.
    if ours.path.iter().chain(query).any(|byte| b"<>`^|\\{}\"".contains(byte)) {
        return Some(Class::Octet);
    }
    let lines = bytes[..ours.end].iter().filter(|byte| **byte == b'\n').count();
    if ours.is_chunked && lines > TRAILERS_MAX {
        return Some(Class::Limit);
    }
    (!target.starts_with(b"/")).then_some(Class::Authority)
}

/// What explains that hyper closes behind a request after which we do not.
fn closing(request: &[u8]) -> Option<Class> {
    let mut lines = request.split(|byte| *byte == b'\n');
    let is_unread = |line: &[u8]| {
        let name = line.split(|byte| *byte == b':').next().unwrap_or_default();
        name.eq_ignore_ascii_case(b"connection") && !line.is_ascii()
    };
    lines.any(is_unread).then_some(Class::Connection)
}

/// httparse, which is more lenient and has to find the same head.
fn check_httparse(bytes: &[u8], ours: &Taken) {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut request = httparse::Request::new(&mut headers);
    match request.parse(bytes) {
        Ok(httparse::Status::Complete(length)) => {
            assert!(length <= ours.end, "the head is longer than the request");
            let is_exact = ours.is_chunked || length + ours.body.len() == ours.end;
            assert!(is_exact, "the body does not begin where the head ends");
            assert_eq!(request.version == Some(1), ours.http_1_1);
        }
        other => panic!("httparse does not take what we take: {other:?}"),
    }
}

/// hyper takes so many fields behind a chunked body; the core counts their bytes.
const TRAILERS_MAX: usize = 100;
