//! Heads of answers, written straight into the buffer that is sent.
//!
//! No `Date`, no `Server`: a check-in's answer has to fit into 511 bytes (docs/wire.md 2.2).

use super::Status;
use crate::digits::decimal;

/// A head that is being written.
#[must_use = "a head ends with `finish`"]
pub(crate) struct HeadWriter<'a> {
    out: &'a mut Vec<u8>,
}

impl<'a> HeadWriter<'a> {
    /// Writes the status line. Always HTTP/1.1, whatever the peer speaks (RFC 9110 2.5).
    pub(crate) fn begin(out: &'a mut Vec<u8>, status: Status) -> Self {
        out.extend_from_slice(status.line().as_bytes());
        Self { out }
    }

    /// Writes a field that is a constant, with its line end.
    #[inline]
    pub(crate) fn constant(&mut self, line: &'static str) {
        debug_assert!(line.ends_with("\r\n"), "{line}: a line");
        self.out.extend_from_slice(line.as_bytes());
    }

    /// Writes a field. Values are constants, or made of what cannot hold a line end; should one
    /// ever do, what does not belong into a value is dropped, so that nothing can split the
    /// answer.
    pub(crate) fn field(&mut self, name: &str, value: &[u8]) {
        debug_assert!(
            is_clean(name.as_bytes()) && is_clean(value),
            "{name}: no control characters"
        );
        self.name(name);
        if is_clean(value) {
            self.out.extend_from_slice(value);
        } else {
            self.out.extend(value.iter().filter(|byte| !byte.is_ascii_control()));
        }
        self.end();
    }

    /// Writes a field whose value is a decimal number.
    pub(crate) fn number(&mut self, name: &str, value: u64) {
        self.name(name);
        decimal(self.out, value);
        self.end();
    }

    /// Writes the `Content-Range` of a 206: the bytes from `start` up to, not including, `end`.
    pub(crate) fn content_range(&mut self, start: u64, end: u64, len: u64) {
        self.name(CONTENT_RANGE);
        self.out.extend_from_slice(b"bytes ");
        decimal(self.out, start);
        self.out.push(b'-');
        decimal(self.out, end.saturating_sub(1));
        self.out.push(b'/');
        decimal(self.out, len);
        self.end();
    }

    /// Writes the `Content-Range` of a 416: how long it would be (RFC 9110 15.5.17).
    pub(crate) fn unsatisfied_range(&mut self, len: u64) {
        self.name(CONTENT_RANGE);
        self.out.extend_from_slice(b"bytes */");
        decimal(self.out, len);
        self.end();
    }

    /// Says whether the connection ends with this answer, where it does not go without saying
    /// (RFC 9112 9.3).
    pub(crate) fn connection(&mut self, close: bool, http_1_1: bool) {
        if close {
            self.out.extend_from_slice(b"Connection: close\r\n");
        } else if !http_1_1 {
            self.out.extend_from_slice(b"Connection: keep-alive\r\n");
        }
    }

    /// Writes the empty line.
    pub(crate) fn finish(self) {
        self.out.extend_from_slice(b"\r\n");
    }

    fn name(&mut self, name: &str) {
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(b": ");
    }

    fn end(&mut self) {
        self.out.extend_from_slice(b"\r\n");
    }
}

fn is_clean(value: &[u8]) -> bool {
    !value.iter().fold(false, |found, byte| found | byte.is_ascii_control())
}

const CONTENT_RANGE: &str = "Content-Range";

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn writes_the_head_of_a_check_in_in_91_bytes() {
        let text = written(Status::OK, |head| {
            head.field("Content-Type", b"application/json");
            head.number("Content-Length", 299);
            head.connection(true, true);
        });
        assert_eq!(
            text,
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 299\r\n\
             Connection: close\r\n\r\n"
        );
        assert_eq!(text.len(), 91, "docs/wire.md 2.2, rule 2");
    }

    #[test]
    fn says_of_the_connection_only_what_is_not_understood() {
        for (close, http_1_1, expected) in [
            (true, true, "Connection: close\r\n"),
            (true, false, "Connection: close\r\n"),
            (false, true, ""),
            (false, false, "Connection: keep-alive\r\n"),
        ] {
            let text = written(Status::OK, |head| head.connection(close, http_1_1));
            assert_eq!(text, format!("HTTP/1.1 200 OK\r\n{expected}\r\n"));
        }
    }

    #[test]
    fn writes_ranges() {
        let text = written(Status::PARTIAL_CONTENT, |head| head.content_range(0, 1, u64::MAX));
        let expected = "Content-Range: bytes 0-0/18446744073709551615\r\n\r\n";
        assert_eq!(text, format!("HTTP/1.1 206 Partial Content\r\n{expected}"));
        let text = written(Status::RANGE_NOT_SATISFIABLE, |head| head.unsatisfied_range(10));
        let expected = "Content-Range: bytes */10\r\n\r\n";
        assert_eq!(text, format!("HTTP/1.1 416 Range Not Satisfiable\r\n{expected}"));
    }

    #[test]
    fn writes_a_bare_continue() {
        assert_eq!(written(Status::CONTINUE, |_| ()), "HTTP/1.1 100 Continue\r\n\r\n");
    }

    #[test]
    #[cfg_attr(debug_assertions, should_panic(expected = "A: no control characters"))]
    fn cannot_be_split() {
        let text = written(Status::OK, |head| head.field("A", b"b\r\nSet-Cookie: c\0\t\x7f"));
        assert_eq!(text, "HTTP/1.1 200 OK\r\nA: bSet-Cookie: c\r\n\r\n");
    }

    #[test]
    fn appends_to_what_is_there() {
        let mut out = b"earlier".to_vec();
        HeadWriter::begin(&mut out, Status::OK).finish();
        assert_eq!(out, b"earlierHTTP/1.1 200 OK\r\n\r\n");
    }

    proptest! {
        #[test]
        fn writes_every_number(number in any::<u64>(), shift in 0_u32..64) {
            let number = number >> shift;
            let mut out = Vec::new();
            decimal(&mut out, number);
            prop_assert_eq!(out, number.to_string().into_bytes());
        }
    }

    fn written(status: Status, fields: impl FnOnce(&mut HeadWriter<'_>)) -> String {
        let mut out = Vec::new();
        let mut head = HeadWriter::begin(&mut out, status);
        fields(&mut head);
        head.finish();
        String::from_utf8(out).expect("ASCII")
    }
}
