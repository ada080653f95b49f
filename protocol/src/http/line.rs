//! The lines of a head, read from left to right: eight bytes at a time where they are plain.

use super::{Refused, Status};
use crate::words::{HIGHS, ONES, chunk, run_end};

/// A request line (RFC 9112 3), as offsets in the bytes that begin with it.
pub(super) struct RequestLine {
    /// The method begins with the line, the target one blank after it.
    pub(super) method_end: usize,
    /// Visible ASCII without `#`.
    pub(super) target_end: usize,
    /// The first `?` of the target.
    pub(super) mark: Option<usize>,
    /// HTTP/1.1; otherwise HTTP/1.0.
    pub(super) http_1_1: bool,
    /// Where the next line begins.
    pub(super) end: usize,
}

/// A header line (RFC 9112 5), as offsets.
pub(super) struct Field {
    /// The name ends there, and the value begins behind it.
    pub(super) colon: usize,
    /// The value has the blanks around it, and no control characters but tabs.
    pub(super) value_end: usize,
}

/// Why there is no line.
pub(super) enum Stop {
    /// Its end has not arrived.
    Partial,
    /// It is not one, whatever follows.
    Fault,
}

/// The request line at the start of `bytes`; `None` if it is bad or its end has not arrived.
#[inline]
pub(super) fn request_line(bytes: &[u8]) -> Option<RequestLine> {
    let method_end = token_end(bytes, 0, b' ').ok().filter(|end| *end > 0)?;
    let mut mark = None;
    let mut target_end = run_end(bytes, method_end + 1, ends_target);
    while byte(bytes, target_end) == Some(b'?') {
        mark = mark.or(Some(target_end));
        target_end = run_end(bytes, target_end + 1, ends_target);
    }
    let version = chunk(bytes, target_end)?;
    // Compared as wholes, not byte by byte.
    let http_1_1 = *version == HTTP_1_1;
    if !http_1_1 && *version != HTTP_1_0 {
        return None;
    }
    let end = target_end + HTTP_1_1.len();
    (target_end > method_end + 1).then_some(RequestLine {
        method_end,
        target_end,
        mark,
        http_1_1,
        end,
    })
}

/// Why [`request_line`] does not take this line, which ends with its LF: it is answered with 505
/// if it is good but for the version, and names that in the form of RFC 9112 2.3.
#[cold]
pub(super) fn fault(line: &[u8]) -> Refused {
    let line = line.strip_suffix(b"\r\n").unwrap_or_default();
    let mut parts = line.split(|byte| *byte == b' ');
    let is_method = |part: &[u8]| !part.is_empty() && part.iter().all(|byte| is_token(*byte));
    let is_target =
        |part: &[u8]| !part.is_empty() && part.iter().all(|b| b.is_ascii_graphic() && *b != b'#');
    let is_version = |part: &[u8]| {
        matches!(part, [b'H', b'T', b'T', b'P', b'/', major, b'.', minor]
            if major.is_ascii_digit() && minor.is_ascii_digit())
    };
    let names_other = parts.next().is_some_and(is_method)
        && parts.next().is_some_and(is_target)
        && parts.next().is_some_and(is_version)
        && parts.next().is_none();
    if names_other {
        Refused::malformed(Status::VERSION_NOT_SUPPORTED)
    } else {
        Refused::BAD_REQUEST
    }
}

/// The header line that begins at `at`: `name ":" value CR LF`.
#[inline(always)]
pub(super) fn field(bytes: &[u8], at: usize) -> Result<Field, Stop> {
    let colon = token_end(bytes, at, b':').map_err(|end| stop(bytes, end))?;
    if colon == at {
        return Err(Stop::Fault);
    }
    let mut value_end = run_end(bytes, colon + 1, ends_value);
    while !is_line_end(bytes, value_end) {
        if byte(bytes, value_end) != Some(b'\t') {
            return Err(stop(bytes, value_end));
        }
        value_end = run_end(bytes, value_end + 1, ends_value);
    }
    Ok(Field { colon, value_end })
}

/// Does a line end there?
#[inline(always)]
pub(super) fn is_line_end(bytes: &[u8], at: usize) -> bool {
    chunk(bytes, at) == Some(b"\r\n")
}

/// Why a line does not go on there: with the bytes, it is not whole.
#[cold]
fn stop(bytes: &[u8], at: usize) -> Stop {
    match bytes.get(at..) {
        None | Some([] | [b'\r']) => Stop::Partial,
        Some(_) => Stop::Fault,
    }
}

/// `tchar` of RFC 9110 5.6.2.
#[inline]
pub(super) fn is_token(byte: u8) -> bool {
    TOKEN[usize::from(byte)]
}

/// Where the token that begins at `at` ends: `end` must follow. Fails with where it does not.
#[inline(always)]
fn token_end(bytes: &[u8], at: usize, end: u8) -> Result<usize, usize> {
    let mut at = run_end(bytes, at, ends_plain_token);
    loop {
        match byte(bytes, at) {
            Some(byte) if byte == end => return Ok(at),
            Some(byte) if is_token(byte) => at = run_end(bytes, at + 1, ends_plain_token),
            _ => return Err(at),
        }
    }
}

#[inline(always)]
fn byte(bytes: &[u8], at: usize) -> Option<u8> {
    bytes.get(at).copied()
}

/// All but letters and `-`, of which nearly all names are.
#[inline]
fn ends_plain_token(word: u64) -> u64 {
    let lower = word | (ONES * 0x20);
    // No byte below 0x80 carries into the next one.
    let not_letters = !lower.wrapping_add(ONES * (0x80 - b'a' as u64))
        | lower.wrapping_add(ONES * (0x7f - b'z' as u64));
    let not_dashes = (word ^ (ONES * b'-' as u64)).wrapping_add(ONES * 0x7f);
    (not_letters & not_dashes | word) & HIGHS
}

/// All but visible ASCII, `#` and `?`.
#[inline]
fn ends_target(word: u64) -> u64 {
    let blanks = word.wrapping_sub(ONES * 0x21);
    let hashes = (word ^ (ONES * b'#' as u64)).wrapping_sub(ONES);
    let marks = (word ^ (ONES * b'?' as u64)).wrapping_sub(ONES);
    // 0x7f and what is above it.
    let others = word | word.wrapping_add(ONES);
    ((blanks | hashes | marks) & !word | others) & HIGHS
}

/// Control characters.
#[inline]
fn ends_value(word: u64) -> u64 {
    let low = word.wrapping_sub(ONES * 0x20);
    let deletes = (word ^ (ONES * 0x7f)).wrapping_sub(ONES);
    (low | deletes) & !word & HIGHS
}

/// How a request line ends.
const HTTP_1_1: [u8; 11] = *b" HTTP/1.1\r\n";
const HTTP_1_0: [u8; 11] = *b" HTTP/1.0\r\n";

/// By byte: may it stand in a token?
const TOKEN: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < table.len() {
        table[byte] = (byte as u8).is_ascii_alphanumeric();
        byte += 1;
    }
    let marks = b"!#$%&'*+-.^_`|~";
    let mut at = 0;
    while at < marks.len() {
        table[marks[at] as usize] = true;
        at += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;

    /// Every byte in every place of a word, beside bytes that a borrow or a carry could travel
    /// through.
    #[test]
    fn runs_end_where_they_would_byte_by_byte() {
        let is_target = |byte: u8| byte.is_ascii_graphic() && byte != b'#' && byte != b'?';
        let is_value = |byte: u8| byte >= b' ' && byte != 0x7f;
        for byte in 0..=255 {
            for place in 0..20 {
                for fill in [b'-', b'A', b'Z', b'a', b'z', b'!', b'~', 0x80, 0xc1, 0xff] {
                    let mut bytes = [fill; 20];
                    bytes[place] = byte;
                    let why = format!("{byte:#x} at {place} in {fill:#x}");
                    let run =
                        |is_in: fn(u8) -> bool| bytes.iter().take_while(|b| is_in(**b)).count();
                    let token = token_end(&bytes, 0, b':').unwrap_or_else(|end| end);
                    assert_eq!(token, run(is_token), "{why}");
                    assert_eq!(run_end(&bytes, 0, ends_target), run(is_target), "{why}");
                    assert_eq!(run_end(&bytes, 0, ends_value), run(is_value), "{why}");
                }
            }
        }
    }

    #[test]
    fn tokens_are_those_of_rfc_9110() {
        for byte in 0..=255 {
            let is_mark = b"!#$%&'*+-.^_`|~".contains(&byte);
            assert_eq!(is_token(byte), byte.is_ascii_alphanumeric() || is_mark, "{byte:#x}");
        }
    }
}
