//! Chunked bodies (RFC 9112 7.1), decoded where they lie.
//!
//! Every byte is looked at once, in whatever pieces it arrives, and framing is dropped as soon as
//! it is read: the buffer never holds more than the decoded body and one read.

use super::head::is_token;
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
