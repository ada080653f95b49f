//! What the header lines of a request say about the connection and the body.

use super::line::Field;
use super::{Framing, Refused, Span, Status};
use crate::Config;
use crate::words::{LOWER, chunk, is};

/// What the header lines say that matters before anybody asks for them.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Told {
    hosts: u8,
    authentications: u8,
    authentication: Span,
    lengths: u8,
    length: Option<u64>,
    codings: u8,
    coding: Coding,
    close: bool,
    keep_alive: bool,
    expects_continue: bool,
    unknown_expectation: bool,
}

/// What a `Transfer-Encoding` says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Coding {
    /// `chunked` and nothing else.
    Chunked,
    /// Others, and `chunked` at the end.
    LastChunked,
    /// Without `chunked` at the end nobody knows where the body ends.
    #[default]
    Endless,
}

impl Told {
    /// Looks at one field, which begins at `at`.
    #[inline(always)]
    pub(super) fn read(&mut self, bytes: &[u8], at: usize, field: &Field) {
        // By the first four letters, so that most names are not even taken apart.
        let Some(start) = chunk(bytes, at) else { return };
        match u32::from_le_bytes(*start) | LOWER as u32 {
            AUTH | CONN | CONT | EXPE | HOST | TRAN => {
                let name = &bytes[at..field.colon];
                self.keep(name, &bytes[field.colon + 1..field.value_end], field.colon + 1);
            }
            _ => {}
        }
    }

    /// Takes a value that begins at `at`, with the blanks around it. The counters cannot overflow:
    /// a head has at most 64 fields.
    #[inline(never)]
    fn keep(&mut self, name: &[u8], value: &[u8], at: usize) {
        match name.len() {
            4 if is(name, b"host") => self.hosts += 1,
            6 if is(name, b"expect") => {
                for element in elements(value) {
                    let known = is(element, b"100-continue");
                    self.expects_continue |= known;
                    self.unknown_expectation |= !known;
                }
            }
            10 if is(name, b"connection") => {
                for element in elements(value) {
                    self.close |= is(element, b"close");
                    self.keep_alive |= is(element, b"keep-alive");
                }
            }
            14 if is(name, b"authentication") => {
                let end = at + value.trim_ascii_end().len();
                let start = at + value.len() - value.trim_ascii_start().len();
                self.authentications += 1;
                self.authentication = Span::new(start, end);
            }
            14 if is(name, b"content-length") => {
                self.lengths += 1;
                self.length = content_length(value.trim_ascii());
            }
            17 if is(name, b"transfer-encoding") => {
                self.codings += 1;
                self.coding = coding(value.trim_ascii());
            }
            _ => {}
        }
    }

    /// Refuses what must not be said twice, or not at all: `Host` (RFC 9112 3.2), whose value
    /// means nothing here (docs/wire.md 2.6), and the credential.
    pub(super) fn check(&self, http_1_1: bool) -> Result<(), Refused> {
        if self.hosts > 1 || self.hosts == 0 && http_1_1 || self.authentications > 1 {
            return Err(Refused::BAD_REQUEST);
        }
        Ok(())
    }

    /// The credential, once it is checked that there is at most one.
    pub(super) fn authentication(&self) -> Option<Span> {
        (self.authentications > 0).then_some(self.authentication)
    }

    /// RFC 9112 6.3, without the cases in which two readers could disagree.
    pub(super) fn framing(&self, http_1_1: bool, config: &Config) -> Result<Framing, Refused> {
        match (self.codings, self.lengths, self.coding) {
            (0, 0, _) => Ok(Framing::None),
            (0, 1, _) => match self.length {
                None => Err(Refused::BAD_REQUEST),
                Some(length) if length > config.body_bytes_max as u64 => {
                    Err(Refused::too_large(Status::CONTENT_TOO_LARGE))
                }
                Some(length) => Ok(Framing::Length(length)),
            },
            (1, 0, Coding::Chunked) if http_1_1 => Ok(Framing::Chunked),
            (1, 0, Coding::LastChunked) if http_1_1 => {
                Err(Refused::malformed(Status::NOT_IMPLEMENTED))
            }
            _ => Err(Refused::BAD_REQUEST),
        }
    }

    /// Does the peer wait for `100 Continue`? Refuses what else it may expect (RFC 9110 10.1.1).
    pub(super) fn expects_continue(
        &self,
        http_1_1: bool,
        framing: Framing,
    ) -> Result<bool, Refused> {
        if self.unknown_expectation {
            return Err(Refused::malformed(Status::EXPECTATION_FAILED));
        }
        let has_body = !matches!(framing, Framing::None | Framing::Length(0));
        Ok(self.expects_continue && http_1_1 && has_body)
    }

    /// May the connection live on (RFC 9112 9.3)?
    pub(super) fn keep_alive(&self, http_1_1: bool) -> bool {
        !self.close && (http_1_1 || self.keep_alive)
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

fn coding(value: &[u8]) -> Coding {
    match elements(value).last() {
        _ if is(value, b"chunked") => Coding::Chunked,
        Some(last) if is(last, b"chunked") => Coding::LastChunked,
        Some(_) | None => Coding::Endless,
    }
}

/// The elements of a comma-separated list (RFC 9110 5.6.1).
fn elements(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii).filter(|element| !element.is_empty())
}

/// The same as [`is`] for two names of one length.
pub(super) fn same(name: &[u8], lower: &[u8]) -> bool {
    name.iter().zip(lower).all(|(a, b)| a | 0x20 == *b)
}

/// How the names of the fields begin that are kept.
const AUTH: u32 = u32::from_le_bytes(*b"auth");
const CONN: u32 = u32::from_le_bytes(*b"conn");
const CONT: u32 = u32::from_le_bytes(*b"cont");
const EXPE: u32 = u32::from_le_bytes(*b"expe");
const HOST: u32 = u32::from_le_bytes(*b"host");
const TRAN: u32 = u32::from_le_bytes(*b"tran");

#[cfg(test)]
mod tests {
    use super::super::{Head, head::Search};
    use super::*;

    /// RFC 9112 9.3 and RFC 9110 7.6.1.
    #[test]
    fn keeps_the_connection_as_told() {
        for (version, fields, keep_alive) in [
            ("1.1", "", true),
            ("1.1", "Connection: close\r\n", false),
            ("1.1", "Connection: CLOSE\r\n", false),
            ("1.1", "Connection: upgrade,, close ,\r\n", false),
            ("1.1", "Connection: keep-alive\r\nConnection: close\r\n", false),
            ("1.1", "Connection: closed\r\n", true),
            ("1.1", "Connection:\r\n", true),
            ("1.0", "", false),
            ("1.0", "Connection: Keep-Alive\r\n", true),
            ("1.0", "Connection: keep-alive, close\r\n", false),
            ("1.0", "Proxy-Connection: keep-alive\r\n", false),
        ] {
            let head = accepted(&format!("GET / HTTP/{version}\r\nHost: a\r\n{fields}\r\n"));
            assert_eq!(head.keep_alive, keep_alive, "{version} {fields}");
        }
    }

    /// RFC 9110 10.1.1.
    #[test]
    fn expects_continue_only_before_a_body_of_http_1_1() {
        for (version, fields, expects) in [
            ("1.1", "Content-Length: 1\r\nExpect: 100-continue\r\n", true),
            ("1.1", "Transfer-Encoding: Chunked\r\nexpect: 100-Continue\r\n", true),
            ("1.1", "Content-Length: 0\r\nExpect: 100-continue\r\n", false),
            ("1.1", "Expect: 100-continue\r\n", false),
            ("1.1", "Content-Length: 1\r\nExpect:\r\n", false),
            ("1.0", "Content-Length: 1\r\nExpect: 100-continue\r\n", false),
        ] {
            let head = accepted(&format!("POST / HTTP/{version}\r\nHost: a\r\n{fields}\r\n"));
            assert_eq!(head.expects_continue, expects, "{version} {fields}");
        }
    }

    #[test]
    fn decides_the_framing() {
        for (fields, framing) in [
            ("", Framing::None),
            ("Content-Length: 0\r\n", Framing::Length(0)),
            ("Content-Length: 16384\r\n", Framing::Length(16384)),
            ("Content-Length:\t0000000000000000005 \r\n", Framing::Length(5)),
            ("Transfer-Encoding: chunked\r\n", Framing::Chunked),
            ("TRANSFER-ENCODING: CHUNKED\r\n", Framing::Chunked),
        ] {
            let head = accepted(&format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n"));
            assert_eq!(head.framing, framing, "{fields}");
        }
    }

    fn accepted(text: &str) -> Head {
        Search::default().parse(text.as_bytes(), &Config::default()).expect(text).expect(text)
    }
}
