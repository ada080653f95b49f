//! Targets of requests (RFC 9112 3.2).

use super::Refused;

/// Splits a target into its path and its query. The path of an absolute target may be empty.
pub(super) fn split<'a>(
    method: &str,
    target: &'a str,
) -> Result<(&'a [u8], Option<&'a [u8]>), Refused> {
    // httparse lets everything through that is no blank and no control character. A fragment is
    // not part of a target, and what is beyond ASCII has to be percent-encoded.
    let target = target.as_bytes();
    let found = target.iter().fold(0, |found, byte| found | MEANING[usize::from(*byte)]);
    if found & BAD != 0 {
        return Err(Refused::BAD_REQUEST);
    }
    let mark = if found == 0 { None } else { target.iter().position(|byte| *byte == b'?') };
    let (path, query) = match mark {
        Some(at) => (&target[..at], Some(&target[at + 1..])),
        None => (target, None),
    };
    let path = match path {
        [b'/', ..] => path,
        b"*" if method == "OPTIONS" && query.is_none() => path,
        // host:port, which leads nowhere here.
        _ if method == "CONNECT" => path,
        _ => without_authority(path).ok_or(Refused::BAD_REQUEST)?,
    };
    Ok((path, query))
}

/// What follows the authority of an absolute `http` or `https` URI without query. The authority
/// has a host (RFC 9110 4.2.1) and no user before it (4.2.4).
fn without_authority(target: &[u8]) -> Option<&[u8]> {
    let scheme = target.iter().position(|byte| *byte == b':')?;
    if ![&b"http"[..], b"https"].iter().any(|known| target[..scheme].eq_ignore_ascii_case(known)) {
        return None;
    }
    let rest = target[scheme..].strip_prefix(b"://")?;
    let end = rest.iter().position(|byte| *byte == b'/').unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let is_good = !matches!(authority, [] | [b':', ..]) && !authority.contains(&b'@');
    is_good.then_some(path)
}

/// What a byte means for the target that holds it: nothing, [`QUERY`] or [`BAD`].
const MEANING: [u8; 256] = {
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

#[cfg(test)]
mod tests {
    use super::super::head::Search;
    use super::super::{Refused, Request};
    use crate::Config;

    #[test]
    fn refuses_targets_that_are_no_target() {
        for (line, why) in [
            ("GET * HTTP/1.1", "* is for OPTIONS (3.2.4)"),
            ("OPTIONS *?a HTTP/1.1", "* has no query"),
            ("GET a HTTP/1.1", "no slash (3.2.1)"),
            ("GET ?ott=1 HTTP/1.1", "no path"),
            ("GET a:80 HTTP/1.1", "authority is for CONNECT (3.2.3)"),
            ("GET ftp://a/ HTTP/1.1", "another scheme (3.2.2)"),
            ("GET http:///b HTTP/1.1", "no authority"),
            ("GET http://?b HTTP/1.1", "no authority before a query"),
            ("GET http://:80/b HTTP/1.1", "a port without a host"),
            ("GET http://a@b/ HTTP/1.1", "a user"),
            ("GET http:/b HTTP/1.1", "one slash"),
            ("GET http HTTP/1.1", "no colon"),
            ("GET /\u{e9} HTTP/1.1", "beyond ASCII"),
            ("GET /?\u{e9} HTTP/1.1", "query beyond ASCII"),
            ("GET /a#b HTTP/1.1", "fragment"),
            ("GET /?a#b HTTP/1.1", "fragment after a query"),
            ("GET /#a?b HTTP/1.1", "fragment before a query"),
        ] {
            let text = format!("{line}\r\nHost: a\r\n\r\n");
            let refused =
                Search::default().parse(text.as_bytes(), &Config::default()).expect_err(why);
            assert_eq!(refused, Refused::BAD_REQUEST, "{why}");
        }
    }

    #[test]
    fn reduces_targets_to_path_and_query() {
        for (line, path, query) in [
            ("GET / HTTP/1.1", "/", None),
            ("GET /? HTTP/1.1", "/", Some("")),
            ("GET //a/../b?c HTTP/1.1", "//a/../b", Some("c")),
            ("GET /%2f HTTP/1.1", "/%2f", None),
            ("GET http://a HTTP/1.1", "/", None),
            ("GET HTTPS://a:1/b?c=/d HTTP/1.1", "/b", Some("c=/d")),
            ("GET http://a?b HTTP/1.1", "/", Some("b")),
            ("GET http://[::1]:80/:@b HTTP/1.1", "/:@b", None),
            ("OPTIONS * HTTP/1.1", "*", None),
            ("OPTIONS /a HTTP/1.1", "/a", None),
            ("CONNECT a:443 HTTP/1.1", "a:443", None),
        ] {
            let text = format!("{line}\r\nHost: a\r\n\r\n");
            let head = Search::default()
                .parse(text.as_bytes(), &Config::default())
                .expect(line)
                .expect(line);
            let request = Request { head: &head, bytes: text.as_bytes(), body: &[] };
            assert_eq!((request.path(), request.query()), (path.as_bytes(), query), "{line}");
        }
    }
}
