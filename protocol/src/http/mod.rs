//! HTTP/1.x as a server speaks it (RFC 9112): bytes to requests, answers to bytes.
//!
//! ```text
//! bytes --[head::skip_blank_lines]--[head::Search::parse]--> Head
//!                                                             |  framing
//!                                     [body::Chunked::decode] |  or `Length(n)` bytes, as they are
//!                                                             v
//!                                         Request { head, bytes, body }
//!
//! Status, fields --[write::HeadWriter]--> bytes
//! ```
//!
//! One reading of every request, and that the strict one: what two parsers could understand
//! differently is refused, and the connection with it (docs/wire.md 1.0). Nothing
//! here allocates but the caller's own buffers.

pub(crate) mod body;
mod condition;
mod fields;
pub(crate) mod head;
mod line;
pub(crate) mod range;
mod target;
pub(crate) mod write;

pub(crate) use condition::Condition;
pub(crate) use range::Selection;
pub(crate) use write::HeadWriter;

use crate::report::Refusal;

/// What a request asks to be done (RFC 9110 9.3), as far as this server tells methods apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Method {
    /// `GET`
    Get,
    /// `HEAD`
    Head,
    /// `POST`
    Post,
    /// `OPTIONS`
    Options,
    /// Any other method, and everything spelled differently: methods are case-sensitive.
    #[default]
    Other,
}

/// A half-open range of byte offsets in the buffer that a head was parsed from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Span {
    start: u16,
    end: u16,
}

impl Span {
    /// Heads are shorter than 64 KiB.
    fn new(start: usize, end: usize) -> Self {
        Self { start: start as u16, end: end as u16 }
    }

    /// The bytes of this span; empty if `bytes` is not the buffer it was made for.
    pub(crate) fn of(self, bytes: &[u8]) -> &[u8] {
        bytes.get(usize::from(self.start)..usize::from(self.end)).unwrap_or_default()
    }
}

/// The head of a request, parsed exactly once. It borrows nothing, so it can wait for the body;
/// its spans point into the buffer that starts with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    /// What is asked for.
    pub(crate) method: Method,
    /// HTTP/1.1; otherwise HTTP/1.0.
    pub(crate) http_1_1: bool,
    /// Bytes of the head, the empty line included: where the body begins.
    pub(crate) length: usize,
    /// How long the body is.
    pub(crate) framing: Framing,
    /// The peer wants the connection to live on after the answer (RFC 9112 9.3).
    pub(crate) keep_alive: bool,
    /// The peer waits for a `100 Continue` before it sends the body (RFC 9110 10.1.1). Never
    /// true where there is no body.
    pub(crate) expects_continue: bool,
    path: Span,
    query: Option<Span>,
    /// The header lines with their line ends.
    lines: Span,
    /// The value of the one `Authentication` field, which nearly every request is asked for.
    authentication: Option<Span>,
}

impl Head {
    /// Most header lines of a request, whatever [`crate::Config::headers_max`] says.
    pub(crate) const FIELDS_MAX: usize = 64;
}

/// How the end of a request's body is found (RFC 9112 6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    /// Neither `Content-Length` nor `Transfer-Encoding`: there is no body.
    None,
    /// `Content-Length`, at most [`crate::Config::body_bytes_max`].
    Length(u64),
    /// `Transfer-Encoding: chunked`; see [`body::Chunked`].
    Chunked,
}

/// A complete request. Without `Debug`: it holds keys and tokens.
#[derive(Clone, Copy)]
pub(crate) struct Request<'a> {
    /// The head.
    pub(crate) head: &'a Head,
    /// The buffer that starts with the head.
    pub(crate) bytes: &'a [u8],
    /// The body, decoded; empty if there is none.
    pub(crate) body: &'a [u8],
}

impl<'a> Request<'a> {
    /// What is asked for.
    pub(crate) fn method(&self) -> Method {
        self.head.method
    }

    /// The path as it was sent, without the query: `/` at least. An absolute target is reduced
    /// to its path (RFC 9112 3.2.2); `*` for the server as a whole.
    pub(crate) fn path(&self) -> &'a [u8] {
        match self.head.path.of(self.bytes) {
            b"" => b"/",
            path => path,
        }
    }

    /// What follows the first `?`, as it was sent.
    pub(crate) fn query(&self) -> Option<&'a str> {
        // Targets are ASCII, which is checked when the head is parsed.
        let text = |query: Span| std::str::from_utf8(query.of(self.bytes)).unwrap_or_default();
        self.head.query.map(text)
    }

    /// The value of the `Authentication` field, without blanks around it.
    pub(crate) fn authentication(&self) -> Option<&'a [u8]> {
        self.head.authentication.map(|value| value.of(self.bytes))
    }

    /// The first header of that name, without blanks around it. The name is given in lower case
    /// and consists of letters, digits and `-`.
    pub(crate) fn header(&self, name: &str) -> Option<&'a [u8]> {
        self.headers(name).next()
    }

    /// All headers of that name, as [`Request::header`] finds the first one.
    pub(crate) fn headers(&self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        let name = name.as_bytes();
        // No line of an accepted head ends otherwise, nor has an LF in it.
        let lines = self.head.lines.of(self.bytes).split(|byte| *byte == b'\n');
        lines.filter_map(|line| line.strip_suffix(b"\r")).filter_map(move |line| {
            let (start, value) = line.split_at_checked(name.len())?;
            let value = value.strip_prefix(b":")?;
            fields::same(start, name).then(|| value.trim_ascii())
        })
    }
}

/// Why a request is refused: the status to answer with before the connection is closed, and the
/// reason for the report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Refused {
    /// What to answer.
    pub(crate) status: Status,
    /// What to report.
    pub(crate) refusal: Refusal,
}

impl Refused {
    const BAD_REQUEST: Self = Self::malformed(Status::BAD_REQUEST);

    const fn malformed(status: Status) -> Self {
        Self { status, refusal: Refusal::Malformed }
    }

    const fn too_large(status: Status) -> Self {
        Self { status, refusal: Refusal::TooLarge }
    }
}

/// A status that this server sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Status {
    code: u16,
    line: &'static str,
}

impl Status {
    pub(crate) const CONTINUE: Self = Self::new(100, "HTTP/1.1 100 Continue\r\n");
    pub(crate) const OK: Self = Self::new(200, "HTTP/1.1 200 OK\r\n");
    pub(crate) const PARTIAL_CONTENT: Self = Self::new(206, "HTTP/1.1 206 Partial Content\r\n");
    pub(crate) const NOT_MODIFIED: Self = Self::new(304, "HTTP/1.1 304 Not Modified\r\n");
    pub(crate) const BAD_REQUEST: Self = Self::new(400, "HTTP/1.1 400 Bad Request\r\n");
    pub(crate) const UNAUTHORIZED: Self = Self::new(401, "HTTP/1.1 401 Unauthorized\r\n");
    pub(crate) const FORBIDDEN: Self = Self::new(403, "HTTP/1.1 403 Forbidden\r\n");
    pub(crate) const NOT_FOUND: Self = Self::new(404, "HTTP/1.1 404 Not Found\r\n");
    pub(crate) const REQUEST_TIMEOUT: Self = Self::new(408, "HTTP/1.1 408 Request Timeout\r\n");
    pub(crate) const PRECONDITION_FAILED: Self =
        Self::new(412, "HTTP/1.1 412 Precondition Failed\r\n");
    pub(crate) const CONTENT_TOO_LARGE: Self = Self::new(413, "HTTP/1.1 413 Content Too Large\r\n");
    pub(crate) const URI_TOO_LONG: Self = Self::new(414, "HTTP/1.1 414 URI Too Long\r\n");
    pub(crate) const RANGE_NOT_SATISFIABLE: Self =
        Self::new(416, "HTTP/1.1 416 Range Not Satisfiable\r\n");
    pub(crate) const EXPECTATION_FAILED: Self =
        Self::new(417, "HTTP/1.1 417 Expectation Failed\r\n");
    pub(crate) const HEADER_FIELDS_TOO_LARGE: Self =
        Self::new(431, "HTTP/1.1 431 Request Header Fields Too Large\r\n");
    pub(crate) const NOT_IMPLEMENTED: Self = Self::new(501, "HTTP/1.1 501 Not Implemented\r\n");
    pub(crate) const SERVICE_UNAVAILABLE: Self =
        Self::new(503, "HTTP/1.1 503 Service Unavailable\r\n");
    pub(crate) const VERSION_NOT_SUPPORTED: Self =
        Self::new(505, "HTTP/1.1 505 HTTP Version Not Supported\r\n");

    const fn new(code: u16, line: &'static str) -> Self {
        Self { code, line }
    }

    /// The three digits.
    pub(crate) const fn code(self) -> u16 {
        self.code
    }

    /// The whole status line with its CR LF.
    const fn line(self) -> &'static str {
        self.line
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Config;

    #[test]
    fn status_lines_name_their_code() {
        for (status, code, reason) in [
            (Status::CONTINUE, 100, "Continue"),
            (Status::OK, 200, "OK"),
            (Status::PARTIAL_CONTENT, 206, "Partial Content"),
            (Status::NOT_MODIFIED, 304, "Not Modified"),
            (Status::BAD_REQUEST, 400, "Bad Request"),
            (Status::UNAUTHORIZED, 401, "Unauthorized"),
            (Status::FORBIDDEN, 403, "Forbidden"),
            (Status::NOT_FOUND, 404, "Not Found"),
            (Status::REQUEST_TIMEOUT, 408, "Request Timeout"),
            (Status::PRECONDITION_FAILED, 412, "Precondition Failed"),
            (Status::CONTENT_TOO_LARGE, 413, "Content Too Large"),
            (Status::URI_TOO_LONG, 414, "URI Too Long"),
            (Status::RANGE_NOT_SATISFIABLE, 416, "Range Not Satisfiable"),
            (Status::EXPECTATION_FAILED, 417, "Expectation Failed"),
            (Status::HEADER_FIELDS_TOO_LARGE, 431, "Request Header Fields Too Large"),
            (Status::NOT_IMPLEMENTED, 501, "Not Implemented"),
            (Status::SERVICE_UNAVAILABLE, 503, "Service Unavailable"),
            (Status::VERSION_NOT_SUPPORTED, 505, "HTTP Version Not Supported"),
        ] {
            assert_eq!(status.code(), code);
            assert_eq!(status.line(), format!("HTTP/1.1 {code} {reason}\r\n"));
        }
    }

    #[test]
    fn a_head_in_the_wrong_buffer_finds_nothing() {
        let bytes = b"GET /a?b HTTP/1.1\r\nHost: a\r\n\r\n";
        let head = head::Search::default().parse(bytes, &Config::default());
        let head = head.expect("good").expect("complete");
        let request = Request { head: &head, bytes: b"GET", body: b"x" };
        assert_eq!((request.path(), request.query()), (&b"/"[..], Some("")));
        assert_eq!(request.header("host"), None);
        assert_eq!((request.method(), request.body), (Method::Get, &b"x"[..]));
    }
}
