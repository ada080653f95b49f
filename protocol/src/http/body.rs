//! Chunked bodies (RFC 9112 7.1), decoded where they lie.
//!
//! Every byte is looked at once, in whatever pieces it arrives, and framing is dropped as soon as
//! it is read: the buffer never holds more than the decoded body and one read.

use super::line::is_token;
use super::{Refused, Status};
use crate::Config;

/// Decodes one chunked body inside the buffer that receives it.
#[derive(Clone, Debug)]
pub(crate) struct Chunked {
    state: State,
    /// Decoded bytes so far.
    body: usize,
    /// Size of the chunk while its line is read, then what is missing of its data.
    size: u64,
    /// Hex digits of that size.
    digits: u8,
    /// Bytes of the chunk's line so far.
    line: usize,
    /// Bytes of all lines beyond what chunks of their sizes need.
    excess: u64,
    /// Bytes of the trailer section so far.
    trailer: usize,
}

/// How far a chunked body is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// More bytes are needed. The buffer ends with what is decoded so far.
    More,
    /// The body is complete and ends at this offset of the buffer. What follows it there belongs
    /// to the next request.
    Done(usize),
}

impl Chunked {
    /// Nothing is decoded yet.
    pub(crate) fn new() -> Self {
        Self { state: State::Size, body: 0, size: 0, digits: 0, line: 0, excess: 0, trailer: 0 }
    }

    /// Decodes what was added to `buffer`, whose body begins at `start`: behind the decoded bytes
    /// stand the new ones and nothing else. The decoded body grows in place, its framing and the
    /// trailer fields are dropped.
    ///
    /// # Errors
    ///
    /// The request is to be refused: 400 for syntax and lines beyond
    /// [`Config::chunk_line_bytes_max`], 413 beyond [`Config::body_bytes_max`], 431 beyond
    /// [`Config::trailer_bytes_max`].
    pub(crate) fn decode(
        &mut self,
        buffer: &mut Vec<u8>,
        start: usize,
        config: &Config,
    ) -> Result<Progress, Refused> {
        let mut read = start + self.body;
        while let Some(byte) = buffer.get(read).copied() {
            if self.state == State::Data {
                let count =
                    (buffer.len() - read).min(usize::try_from(self.size).unwrap_or(usize::MAX));
                buffer.copy_within(read..read + count, start + self.body);
                self.body += count;
                self.size -= count as u64;
                read += count;
                if self.size == 0 {
                    self.state = State::DataCr;
                }
                continue;
            }
            read += 1;
            self.count(config)?;
            self.state = self.step(byte, config)?;
            if self.state == State::Done {
                let end = start + self.body;
                buffer.drain(end..read);
                return Ok(Progress::Done(end));
            }
        }
        buffer.truncate(start + self.body);
        Ok(Progress::More)
    }

    /// Charges one byte to the line or the section that it belongs to.
    fn count(&mut self, config: &Config) -> Result<(), Refused> {
        use State as S;
        match self.state {
            S::Size
            | S::Gap
            | S::NameStart
            | S::Name
            | S::NameEnd
            | S::ValueStart
            | S::Value
            | S::Quoted
            | S::Pair
            | S::QuotedEnd
            | S::LineLf => {
                self.line += 1;
                if self.line > config.chunk_line_bytes_max {
                    return Err(Refused::BAD_REQUEST);
                }
            }
            S::FieldStart | S::FieldName | S::FieldValue | S::FieldLf | S::LastLf => {
                self.trailer += 1;
                if self.trailer > config.trailer_bytes_max {
                    return Err(Refused::too_large(Status::HEADER_FIELDS_TOO_LARGE));
                }
            }
            S::Data | S::DataCr | S::DataLf | S::Done => {}
        }
        Ok(())
    }

    /// The grammar, byte by byte.
    fn step(&mut self, byte: u8, config: &Config) -> Result<State, Refused> {
        use State as S;
        Ok(match (self.state, byte) {
            // chunk-size
            (S::Size, _) if byte.is_ascii_hexdigit() => self.digit(byte)?,
            (S::Size, _) if self.digits == 0 => return Err(Refused::BAD_REQUEST),
            // *( BWS ";" BWS chunk-ext-name [ BWS "=" BWS chunk-ext-val ] ) CRLF
            (S::Size | S::Name | S::Value | S::QuotedEnd, b'\r') => S::LineLf,
            (S::Size | S::Gap | S::Value | S::QuotedEnd, b' ' | b'\t') => S::Gap,
            (S::Name | S::NameEnd, b' ' | b'\t') => S::NameEnd,
            (S::Size | S::Gap | S::Name | S::NameEnd | S::Value | S::QuotedEnd, b';') => {
                S::NameStart
            }
            (S::NameStart | S::ValueStart, b' ' | b'\t') => self.state,
            (S::NameStart | S::Name, _) if is_token(byte) => S::Name,
            (S::Name | S::NameEnd, b'=') => S::ValueStart,
            (S::ValueStart | S::Value, _) if is_token(byte) => S::Value,
            (S::ValueStart, b'"') => S::Quoted,
            (S::Quoted, b'"') => S::QuotedEnd,
            (S::Quoted, b'\\') => S::Pair,
            (S::Quoted | S::Pair, _) if is_text(byte) => S::Quoted,
            (S::LineLf, b'\n') => self.end_line(config)?,
            // chunk-data CRLF
            (S::DataCr, b'\r') => S::DataLf,
            (S::DataLf, b'\n') => S::Size,
            // trailer-section CRLF
            (S::FieldStart, b'\r') => S::LastLf,
            (S::FieldStart | S::FieldName, _) if is_token(byte) => S::FieldName,
            (S::FieldName, b':') => S::FieldValue,
            (S::FieldValue, b'\r') => S::FieldLf,
            (S::FieldValue, _) if is_text(byte) => S::FieldValue,
            (S::FieldLf, b'\n') => S::FieldStart,
            (S::LastLf, b'\n') => S::Done,
            _ => return Err(Refused::BAD_REQUEST),
        })
    }

    /// One more digit of a size: at most 16, so it cannot overflow.
    fn digit(&mut self, byte: u8) -> Result<State, Refused> {
        if self.digits == SIZE_DIGITS_MAX {
            return Err(Refused::BAD_REQUEST);
        }
        let value = match byte {
            b'0'..=b'9' => byte - b'0',
            b'a'..=b'f' => byte - b'a' + 10,
            _ => byte.wrapping_sub(b'A').wrapping_add(10),
        };
        self.digits += 1;
        self.size = self.size << 4 | u64::from(value & 0xf);
        Ok(State::Size)
    }

    /// A chunk's line is complete: may its data come?
    fn end_line(&mut self, config: &Config) -> Result<State, Refused> {
        let room = config.body_bytes_max.saturating_sub(self.body) as u64;
        if self.size > room {
            return Err(Refused::too_large(Status::CONTENT_TOO_LARGE));
        }
        // Extensions that cost more than the data they come with are an attack, even if no line
        // alone is too long (CVE-2023-39326).
        let needed = LINE_BYTES_FREE.saturating_add(self.size.saturating_mul(2));
        self.excess = (self.excess + self.line as u64).saturating_sub(needed);
        if self.excess > LINES_MAX * config.chunk_line_bytes_max as u64 {
            return Err(Refused::BAD_REQUEST);
        }
        let last = self.size == 0;
        (self.digits, self.line) = (0, 0);
        Ok(if last { State::FieldStart } else { State::Data })
    }
}

/// What the next byte may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// A digit of the chunk's size, or the end of it.
    Size,
    /// Blanks before the `;` of an extension.
    Gap,
    NameStart,
    Name,
    /// Blanks after the name of an extension: `=` or `;`.
    NameEnd,
    ValueStart,
    Value,
    Quoted,
    /// What a backslash quotes.
    Pair,
    QuotedEnd,
    LineLf,
    Data,
    DataCr,
    DataLf,
    /// A trailer field, or the CR of the last line.
    FieldStart,
    FieldName,
    FieldValue,
    FieldLf,
    LastLf,
    Done,
}

/// What may stand in a quoted string and in a field value (RFC 9110 5.5, 5.6.4).
fn is_text(byte: u8) -> bool {
    matches!(byte, b'\t' | b' '..=b'~' | 0x80..)
}

/// Digits of the largest size that fits into 64 bits.
const SIZE_DIGITS_MAX: u8 = 16;

/// Bytes of a chunk's line that cost nothing, beside two for each byte of data.
const LINE_BYTES_FREE: u64 = 16;

/// How many longest lines all lines of a body may waste together.
const LINES_MAX: u64 = 16;

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::sample::select;

    use super::*;

    /// What stands before the body in the buffer.
    const HEAD: &[u8] = b"head";

    #[test]
    fn decodes_and_leaves_what_follows() {
        for (text, body, rest, why) in [
            ("0\r\n\r\n", "", "", "empty"),
            ("5\r\nhello\r\n0\r\n\r\nGET /", "hello", "GET /", "next request (RFC 9112 9.3.2)"),
            ("1\r\na\r\n2\r\nbc\r\n0\r\n\r\n\r\n", "abc", "\r\n", "two chunks"),
            ("000a\r\n0123456789\r\n000\r\n\r\n", "0123456789", "", "leading zeros (7.1)"),
            ("A\r\n0123456789\r\n0\r\n\r\n", "0123456789", "", "upper case"),
            ("0000000000000001\r\na\r\n0\r\n\r\n", "a", "", "16 digits"),
            ("2\r\n\r\n\r\n0\r\n\r\n", "\r\n", "", "line ends are data"),
            ("1;a\r\na\r\n0;b=c;d=\"e\"\r\n\r\n", "a", "", "extensions (7.1.1)"),
            ("1 ; \ta\t=\tb ;c\r\na\r\n0\r\n\r\n", "a", "", "blanks that are bad but allowed"),
            ("1;a=\" ;\\\"\\\\\t\u{e9}\"\r\na\r\n0\r\n\r\n", "a", "", "quoted pairs"),
            ("1;a=\"\"\r\na\r\n0\r\n\r\n", "a", "", "empty quoted string"),
            ("0\r\nA: b\r\nC:\r\n\r\nrest", "", "rest", "trailer (7.1.2)"),
            ("0\r\nContent-Length: 5\r\n\r\nrest", "", "rest", "trailer that means nothing"),
        ] {
            let expected = Ok((body.as_bytes().to_vec(), rest.as_bytes().to_vec()));
            for size in 1..=text.len() {
                let config = Config::default();
                assert_eq!(in_pieces(text.as_bytes(), size, &config), expected, "{why}, by {size}");
            }
        }
    }

    #[test]
    fn refuses_what_could_hide_a_request() {
        for (text, why) in [
            ("\r\n", "no size"),
            (";a\r\n", "extension without size"),
            (" 5\r\n", "blank before the size"),
            ("+5\r\n", "sign"),
            ("-5\r\n", "negative"),
            ("0x5\r\n", "prefix"),
            ("5h\r\n", "no digit"),
            ("5_0\r\n", "underscore"),
            ("5\n", "bare LF after the size"),
            ("5\r5", "bare CR after the size"),
            ("5 \r\n", "blank after the size without extension"),
            ("5 5\r\n", "blank inside of the size"),
            ("00000000000000005\r\n", "17 digits"),
            ("10000000000000000\r\n", "beyond 64 bits"),
            ("1;\r\n", "extension without name"),
            ("1;=a\r\n", "extension with value only"),
            ("1;a=\r\n", "extension without value"),
            ("1;a=b c\r\n", "blank inside of a value"),
            ("1;a b\r\n", "blank inside of a name"),
            ("1;a \r\n", "blank after a name"),
            ("1;a=b \r\n", "blank after a value"),
            ("1;a\n", "bare LF after an extension"),
            ("1;a\0\r\n", "control character in an extension"),
            ("1;a=\"\r\n", "line end in a quoted string"),
            ("1;a=\"\\\r\n", "quoted line end"),
            ("1;a=\"\n", "bare LF in a quoted string"),
            ("1;a=\"b\"c\r\n", "text after a quoted string"),
            ("1\r\nab", "more data than announced"),
            ("1\r\na\n", "bare LF after data"),
            ("1\r\na\r\r", "CR CR after data"),
            ("1\r\na0\r\n", "no line end after data"),
            ("0\r\n\n", "bare LF as the last line"),
            ("0\r\n\r\r", "CR CR as the last line"),
            ("0\r\nA b: c\r\n", "blank in the name of a trailer"),
            ("0\r\nA : b\r\n", "blank before the colon of a trailer"),
            ("0\r\n: b\r\n", "trailer without name"),
            ("0\r\nA\r\n", "trailer without colon"),
            ("0\r\nA: b\n", "bare LF after a trailer"),
            ("0\r\nA: b\r\n c\r\n", "folded trailer"),
            ("0\r\nA: \0\r\n", "control character in a trailer"),
        ] {
            for size in 1..=text.len() {
                let config = Config::default();
                let refused = in_pieces(text.as_bytes(), size, &config).expect_err(why);
                assert_eq!(refused, Some(Refused::BAD_REQUEST), "{why}, by {size}");
            }
        }
    }

    /// docs/wire.md 1.0: each limit holds to the byte.
    #[test]
    fn holds_its_limits() {
        let mut config = Config::default();
        (config.body_bytes_max, config.chunk_line_bytes_max, config.trailer_bytes_max) = (9, 8, 8);
        let spread = "1;aaaa\r\na\r\n".repeat(9);
        for (text, code) in [
            ("9\r\n123456789\r\n0\r\n\r\n", 0),
            ("a\r\n", 413),
            ("ffffff\r\n", 413),
            ("5\r\n12345\r\n5\r\n", 413),
            ("1;aaaa\r\na\r\n0\r\n\r\n", 0),
            ("1;aaaaa\r\n", 400),
            ("1;aaaaaaaaaaaa", 400),
            ("0\r\nA: bc\r\n\r\n", 431),
            ("0\r\nA: b\r\n\r\n", 0),
            ("0\r\nA: bcdefghi", 431),
            (&*spread, 1),
        ] {
            for size in 1..=text.len() {
                let code_found = match in_pieces(text.as_bytes(), size, &config) {
                    Ok(_) => 0,
                    Err(None) => 1,
                    Err(Some(refused)) => refused.status.code(),
                };
                assert_eq!(code_found, code, "{text:?}, by {size}");
            }
        }
    }

    /// CVE-2023-39326: no line is too long, but together they are nothing else than extensions.
    #[test]
    fn refuses_bodies_of_extensions() {
        let config = Config::default();
        let line = |bytes: usize| format!("1;{}\r\na\r\n", "x".repeat(bytes));
        let wasteful = line(1000).repeat(30);
        assert_eq!(in_pieces(wasteful.as_bytes(), 4096, &config), Err(Some(Refused::BAD_REQUEST)));
        let fair = line(10).repeat(10_000) + "0\r\n\r\n";
        let (body, _) = in_pieces(fair.as_bytes(), 4096, &config).expect("fair");
        assert_eq!(body.len(), 10_000);
    }

    proptest! {
        #[test]
        fn decodes_what_was_encoded(
            chunks in vec((vec(any::<u8>(), 1..40), 0_usize..4), 0..8),
            extensions in vec(select(&["", ";a", ";a=b", " ;a=\"\\\"\""][..]), 9),
            trailer in select(&["", "A: b\r\n", "A:\r\nB: c d\r\n"][..]),
            rest in vec(any::<u8>(), 0..20),
            size in 1_usize..60,
        ) {
            let mut text = Vec::new();
            for ((data, zeros), extension) in chunks.iter().zip(&extensions) {
                let size = format!("{}{:x}", "0".repeat(*zeros), data.len());
                text.extend(format!("{size}{extension}\r\n").bytes());
                text.extend(data);
                text.extend(b"\r\n");
            }
            text.extend(format!("0{}\r\n{trailer}\r\n", extensions[8]).bytes());
            text.extend(&rest);
            let body: Vec<u8> = chunks.into_iter().flat_map(|(data, _)| data).collect();
            prop_assert_eq!(in_pieces(&text, size, &Config::default()), Ok((body, rest)));
        }

        #[test]
        fn does_not_depend_on_cuts(
            pieces in vec(select(PIECES), 0..30),
            size in 1_usize..40,
        ) {
            let text = pieces.concat().into_bytes();
            let mut config = Config::default();
            (config.body_bytes_max, config.chunk_line_bytes_max) = (20, 12);
            config.trailer_bytes_max = 12;
            let whole = in_pieces(&text, text.len().max(1), &config);
            prop_assert_eq!(&in_pieces(&text, 1, &config), &whole);
            prop_assert_eq!(in_pieces(&text, size, &config), whole);
        }

        #[test]
        fn never_panics(bytes in vec(any::<u8>(), 0..200)) {
            let _ = in_pieces(&bytes, 7, &Config::default());
        }
    }

    const PIECES: &[&str] = &[
        "0", "1", "5", "f", "\r\n", "\r\n", "\r", "\n", ";", "a", "=", "\"", "\\", ":", " ", "\0",
    ];

    /// Feeds `bytes` in pieces of `size`. The body and what is left after it; `Err(None)` if it
    /// never ends.
    fn in_pieces(
        bytes: &[u8],
        size: usize,
        config: &Config,
    ) -> Result<(Vec<u8>, Vec<u8>), Option<Refused>> {
        let mut chunked = Chunked::new();
        let mut buffer = HEAD.to_vec();
        let mut pieces = bytes.chunks(size);
        while let Some(piece) = pieces.next() {
            buffer.extend(piece);
            let progress = chunked.decode(&mut buffer, HEAD.len(), config)?;
            assert!(buffer.starts_with(HEAD), "the head is left alone");
            match progress {
                Progress::More => {
                    let body = buffer.len() - HEAD.len();
                    assert!(body <= config.body_bytes_max, "nothing but the body is kept");
                }
                Progress::Done(end) => {
                    let body = buffer[HEAD.len()..end].to_vec();
                    let rest = [&buffer[end..], &pieces.collect::<Vec<_>>().concat()].concat();
                    return Ok((body, rest));
                }
            }
        }
        Err(None)
    }
}
