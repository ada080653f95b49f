//! Targets of requests (RFC 9112 3.2).

use super::{Refused, Span};

/// The path of a target that has the part `path` before its query. That of an absolute target may
/// be empty.
#[inline]
pub(super) fn path(
    method: &[u8],
    path: Span,
    has_query: bool,
    bytes: &[u8],
) -> Result<Span, Refused> {
    match path.of(bytes) {
        [b'/', ..] => Ok(path),
        b"*" if method == b"OPTIONS" && !has_query => Ok(path),
        // host:port, which leads nowhere here.
        _ if method == b"CONNECT" => Ok(path),
        target => {
            let rest = without_authority(target).ok_or(Refused::BAD_REQUEST)?;
            Ok(Span { start: path.end - rest.len() as u16, end: path.end })
        }
    }
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
