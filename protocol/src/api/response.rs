//! What an endpoint answers, and how it is written: one head, then at most one body.

use bytes::Bytes;

use crate::config::Config;
use crate::digits::hex_text;
use crate::http::{HeadWriter, Status};
use crate::id::{DeviceId, Token};
use crate::outflow::{Share, spread};
use crate::query::{Kind, Offer, Release};
use crate::report::{Outcome, Refusal};

/// What a driver tells a peer for whom it has no room, before it reads any request: the bytes of a
/// 503 that closes (docs/wire.md 1.0), as if the store could not answer.
///
/// `refused` is how many were told so before. With it `Retry-After` goes round from
/// [`Config::retry_after_s`] to nearly twice that, so that a crowd that was refused together does
/// not come back together.
///
/// ```
/// let config = otter_protocol::Config::default();
/// let answer = otter_protocol::no_room(&config, 3);
/// assert!(answer.starts_with(b"HTTP/1.1 503 Service Unavailable\r\n"));
/// assert!(String::from_utf8(answer)?.contains("\r\nRetry-After: 13\r\n"));
/// # Ok::<(), std::string::FromUtf8Error>(())
/// ```
#[must_use]
pub fn no_room(config: &Config, refused: u64) -> Vec<u8> {
    let base = config.retry_after_s;
    let config = Config { retry_after_s: spread(base, base, refused), ..config.clone() };
    let mut out = Vec::new();
    let response = Response::<Bytes>::unavailable();
    response.write(&mut out, &[], false, true, response.close, &config);
    out
}

/// An answer, decided but not written.
pub(crate) struct Response<I> {
    pub(crate) status: Status,
    pub(crate) outcome: Outcome,
    pub(crate) device: Option<DeviceId>,
    /// Close afterwards, whatever the client would like.
    pub(crate) close: bool,
    pub(crate) content: Content<I>,
}

/// What stands behind the head.
pub(crate) enum Content<I> {
    Empty,
    /// A fixed JSON text.
    Json(&'static str),
    /// A fixed text, as THiNX words it.
    Text(&'static str),
    /// JSON in [`super::Scratch::body`].
    Written,
    /// An image or a part of it; boxed, because all other answers are small and are moved.
    Image(Box<Part<I>>),
    /// The device has this image already.
    NotModified([u8; 32]),
    /// No byte of the range is in the image of this length.
    OutOfRange(u64),
    /// Not now, but after so many seconds.
    Later(u32),
    /// A probe for the version of a release (docs/wire.md 2.4).
    Version(Box<str>),
}

/// An image or a part of it, on its way.
pub(crate) struct Part<I> {
    pub(crate) release: Release<I>,
    /// First byte.
    pub(crate) start: u64,
    /// The byte after the last one.
    pub(crate) end: u64,
    /// The token whose claim lets the tail out; `None` for downloads by API key.
    pub(crate) token: Option<Token>,
    /// What it has of the line, once it is let in.
    pub(crate) share: Option<Share>,
}

impl<I> Response<I> {
    pub(crate) fn new(status: Status, outcome: Outcome, content: Content<I>) -> Self {
        Self { status, outcome, device: None, close: false, content }
    }

    /// 200 or another status that is no refusal, with a fixed JSON text.
    pub(crate) fn json(status: Status, text: &'static str) -> Self {
        Self::new(status, Outcome::Answered, Content::Json(text))
    }

    /// A refusal with a fixed JSON text.
    pub(crate) fn refusal(status: Status, refusal: Refusal, text: &'static str) -> Self {
        Self::new(status, Outcome::Refused(refusal), Content::Json(text))
    }

    /// The body is not the JSON it should be (docs/wire.md 1.0, 9.22).
    pub(crate) fn bad_body() -> Self {
        Self::refusal(
            Status::BAD_REQUEST,
            Refusal::BadBody,
            r#"{"success":false,"response":"request_invalid"}"#,
        )
    }

    /// The peer has this image already.
    pub(crate) fn not_modified(offer: &Offer) -> Self {
        let content = Content::NotModified(offer.sha256);
        Self::new(Status::NOT_MODIFIED, Outcome::NotModified, content)
    }

    pub(crate) fn no_route() -> Self {
        Self::refusal(
            Status::NOT_FOUND,
            Refusal::NoRoute,
            r#"{"success":false,"response":"not_found"}"#,
        )
    }

    /// The store cannot answer: nothing was kept, come back later.
    pub(crate) fn unavailable() -> Self {
        Self {
            close: true,
            ..Self::refusal(Status::SERVICE_UNAVAILABLE, Refusal::Unavailable, UNAVAILABLE)
        }
    }

    /// The line has enough to carry: come back after so many seconds.
    pub(crate) fn put_off(retry_after_s: u32) -> Self {
        let outcome = Outcome::Refused(Refusal::PutOff);
        let content = Content::Later(retry_after_s);
        Self { close: true, ..Self::new(Status::SERVICE_UNAVAILABLE, outcome, content) }
    }

    /// HTTP itself was violated: the connection cannot be trusted any further.
    pub(crate) fn violation(refused: crate::http::Refused) -> Self {
        let text = match refused.status.code() {
            400 if refused.refusal == Refusal::NotTls => {
                r#"{"success":false,"response":"https_required"}"#
            }
            408 => r#"{"success":false,"response":"timeout"}"#,
            413 => r#"{"success":false,"response":"too_large"}"#,
            414 => r#"{"success":false,"response":"uri_too_long"}"#,
            417 => r#"{"success":false,"response":"expectation_failed"}"#,
            431 => r#"{"success":false,"response":"headers_too_large"}"#,
            501 => r#"{"success":false,"response":"not_implemented"}"#,
            505 => r#"{"success":false,"response":"version_not_supported"}"#,
            _ => r#"{"success":false,"response":"bad_request"}"#,
        };
        Self { close: true, ..Self::refusal(refused.status, refused.refusal, text) }
    }

    pub(crate) fn of(self, device: DeviceId) -> Self {
        Self { device: Some(device), ..self }
    }

    /// Appends the head, and the body unless it is an image or `head_only`.
    ///
    /// No `Date` and no `Server`: a whole reply must fit into 511 bytes (docs/wire.md 2.2).
    pub(crate) fn write(
        &self,
        out: &mut Vec<u8>,
        written: &[u8],
        head_only: bool,
        http_1_1: bool,
        close: bool,
        config: &Config,
    ) {
        let mut head = HeadWriter::begin(out, self.status);
        let mut body: &[u8] = b"";
        match &self.content {
            Content::Empty => head.number("Content-Length", 0),
            Content::Json(text) => body = json(&mut head, text.as_bytes()),
            Content::Later(_) => body = json(&mut head, UNAVAILABLE.as_bytes()),
            Content::Written => body = json(&mut head, written),
            Content::Text(text) => {
                body = text.as_bytes();
                head.constant("Content-Type: text/plain\r\n");
                head.number("Content-Length", body.len() as u64);
            }
            Content::Image(part) => part.write_fields(self.status, &mut head),
            Content::NotModified(sha256) => head.field("ETag", &etag(sha256)),
            Content::OutOfRange(size) => {
                head.number("Content-Length", 0);
                head.unsatisfied_range(*size);
            }
            Content::Version(version) => {
                head.field("x-version", version.as_bytes());
                head.number("Content-Length", 0);
            }
        }
        if self.status == Status::UNAUTHORIZED {
            // The header `Authentication` is no scheme of RFC 9110 11; this names the nearest.
            head.constant("WWW-Authenticate: THiNX\r\n");
        }
        if let Content::Later(seconds) = self.content {
            head.number("Retry-After", u64::from(seconds));
        } else if matches!(self.outcome, Outcome::Refused(Refusal::Unavailable)) {
            head.number("Retry-After", u64::from(config.retry_after_s));
        }
        head.connection(close, http_1_1);
        head.finish();
        if !head_only {
            out.extend_from_slice(body);
        }
    }
}

impl<I> Content<I> {
    /// The image, if there is one to send.
    pub(crate) fn into_part(self) -> Option<Box<Part<I>>> {
        match self {
            Self::Image(part) => Some(part),
            Self::Empty
            | Self::Json(_)
            | Self::Text(_)
            | Self::Written
            | Self::Later(_)
            | Self::NotModified(_)
            | Self::OutOfRange(_)
            | Self::Version(_) => None,
        }
    }
}

impl<I> Part<I> {
    fn write_fields(&self, status: Status, head: &mut HeadWriter<'_>) {
        let offer: &Offer = &self.release.offer;
        match offer.kind {
            Kind::Image => {
                head.constant("Content-Type: application/octet-stream\r\n");
                head.constant("Content-Disposition: attachment; filename=firmware.bin\r\n");
            }
            Kind::Bundle => head.constant("Content-Type: application/json\r\n"),
        }
        head.number("Content-Length", self.end - self.start);
        if status == Status::PARTIAL_CONTENT {
            head.content_range(self.start, self.end, offer.size);
        } else {
            head.field("x-MD5", &hex_text::<16, 32>(&offer.md5));
        }
        head.field("ETag", &etag(&offer.sha256));
        head.constant("Accept-Ranges: bytes\r\n");
    }
}

/// The strong entity tag of an image: its SHA-256 in quotes (RFC 9110 8.8.3).
pub(crate) fn etag(sha256: &[u8; 32]) -> [u8; 66] {
    let mut tag = [b'"'; 66];
    tag[1..65].copy_from_slice(&hex_text::<32, 64>(sha256));
    tag
}

fn json<'a>(head: &mut HeadWriter<'_>, body: &'a [u8]) -> &'a [u8] {
    head.constant("Content-Type: application/json\r\n");
    head.number("Content-Length", body.len() as u64);
    body
}

const UNAVAILABLE: &str = r#"{"success":false,"response":"unavailable"}"#;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_finds_no_room_is_told_when_to_come_back() {
        let config = Config { retry_after_s: 2, ..Config::default() };
        let told = [2, 3, 2, 3].map(|retry_after_s| {
            format!(
                "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\n\
                 Content-Length: 42\r\nRetry-After: {retry_after_s}\r\nConnection: close\r\n\r\n\
                 {{\"success\":false,\"response\":\"unavailable\"}}"
            )
        });
        let said = [0, 1, 2, 3].map(|refused| no_room(&config, refused));
        assert_eq!(said.map(|bytes| String::from_utf8(bytes).expect("text")), told);
    }

    #[test]
    fn a_wait_of_no_time_is_no_division_by_zero() {
        let config = Config { retry_after_s: 0, ..Config::default() };
        let said = String::from_utf8(no_room(&config, u64::MAX)).expect("text");
        assert!(said.contains("\r\nRetry-After: 0\r\n"), "{said}");
    }
}
