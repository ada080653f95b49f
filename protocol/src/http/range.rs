//! `Range` and `If-Range` (RFC 9110 14): one range, or the whole.

/// Which part of a representation to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Selection {
    /// All of it, as if there were no `Range`: 200.
    Whole,
    /// The bytes from `start` up to, not including, `end`; never none: 206.
    Part {
        /// Offset of the first byte.
        start: u64,
        /// Offset behind the last byte.
        end: u64,
    },
    /// Nothing of it: 416.
    Unsatisfiable,
}

/// Decides what a `GET` of `len` bytes with these headers is answered with. `etag` is the strong
/// entity tag with its quotes.
///
/// A `Range` that this server does not understand counts as none (RFC 9110 14.2): other units,
/// several ranges, bad syntax. So does one whose `If-Range` is not exactly `etag`: a weak tag or
/// a date never is (RFC 9110 13.1.5). The end is clamped: ESP-IDF asks for one byte too many.
pub(crate) fn select(
    range: Option<&[u8]>,
    if_range: Option<&[u8]>,
    etag: &str,
    len: u64,
) -> Selection {
    if if_range.is_some_and(|tag| tag != etag.as_bytes()) {
        return Selection::Whole;
    }
    let Some((first, last)) = range.and_then(parse) else {
        return Selection::Whole;
    };
    match (first, last) {
        (Some(first), Some(last)) if last < first => Selection::Whole,
        (Some(first), _) if first >= len => Selection::Unsatisfiable,
        (Some(start), last) => {
            let end = last.map_or(len, |last| last.saturating_add(1).min(len));
            Selection::Part { start, end }
        }
        (None, None) => Selection::Whole,
        (None, Some(0)) => Selection::Unsatisfiable,
        // Of nothing, the last bytes are all of it, which no `Content-Range` can say.
        (None, Some(_)) if len == 0 => Selection::Whole,
        (None, Some(count)) => Selection::Part { start: len.saturating_sub(count), end: len },
    }
}

/// First and last position of `bytes=first-last`, either of which may be absent.
fn parse(range: &[u8]) -> Option<(Option<u64>, Option<u64>)> {
    let (unit, spec) = range.split_at_checked(UNIT.len())?;
    if !unit.eq_ignore_ascii_case(UNIT) {
        return None;
    }
    let dash = spec.iter().position(|byte| *byte == b'-')?;
    let (first, last) = (&spec[..dash], &spec[dash + 1..]);
    Some((position(first)?, position(last)?))
}

/// Digits, or nothing at all. What does not fit is beyond the end of anything.
fn position(digits: &[u8]) -> Option<Option<u64>> {
    if digits.is_empty() {
        return Some(None);
    }
    digits
        .iter()
        .try_fold(0_u64, |sum, byte| {
            let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
            Some(sum.saturating_mul(10).saturating_add(digit))
        })
        .map(Some)
}

const UNIT: &[u8] = b"bytes=";
