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

impl Selection {
    /// Decides what a `GET` of `len` bytes with these headers is answered with. `etag` is the
    /// strong entity tag with its quotes.
    ///
    /// A `Range` that this server does not understand counts as none (RFC 9110 14.2): other
    /// units, several ranges, bad syntax. So does one whose `If-Range` is not exactly `etag`: a
    /// weak tag or a date never is (RFC 9110 13.1.5). The end is clamped: ESP-IDF asks for one
    /// byte too many.
    pub(crate) fn of(range: Option<&[u8]>, if_range: Option<&[u8]>, etag: &str, len: u64) -> Self {
        if if_range.is_some_and(|tag| tag != etag.as_bytes()) {
            return Self::Whole;
        }
        let Some((first, last)) = range.and_then(parse) else {
            return Self::Whole;
        };
        match (first, last) {
            (Some(first), Some(last)) if last < first => Self::Whole,
            (Some(first), _) if first >= len => Self::Unsatisfiable,
            (Some(start), last) => {
                let end = last.map_or(len, |last| last.saturating_add(1).min(len));
                Self::Part { start, end }
            }
            (None, None) => Self::Whole,
            (None, Some(0)) => Self::Unsatisfiable,
            // Of nothing, the last bytes are all of it, which no `Content-Range` can say.
            (None, Some(_)) if len == 0 => Self::Whole,
            (None, Some(count)) => Self::Part { start: len.saturating_sub(count), end: len },
        }
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

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::sample;

    use super::*;

    const ETAG: &str = "\"abc\"";

    #[test]
    fn selects_one_range_or_the_whole() {
        use Selection::{Part, Unsatisfiable, Whole};
        for (range, len, expected, why) in [
            ("bytes=0-9", 100, Part { start: 0, end: 10 }, "both ends are in (14.1.2)"),
            ("bytes=0-0", 100, Part { start: 0, end: 1 }, "ESP-IDF asks for the length so"),
            ("bytes=90-", 100, Part { start: 90, end: 100 }, "to the end"),
            ("bytes=90-100", 100, Part { start: 90, end: 100 }, "one byte too many: clamped"),
            ("bytes=99-18446744073709551615", 100, Part { start: 99, end: 100 }, "64 bits"),
            ("bytes=0-99999999999999999999999", 100, Part { start: 0, end: 100 }, "beyond them"),
            ("bytes=-10", 100, Part { start: 90, end: 100 }, "the last ten"),
            ("bytes=-100", 100, Part { start: 0, end: 100 }, "all of them"),
            ("bytes=-101", 100, Part { start: 0, end: 100 }, "more than all of them"),
            ("BYTES=1-2", 100, Part { start: 1, end: 3 }, "units have no case (14.1)"),
            ("bytes=100-", 100, Unsatisfiable, "behind the end"),
            ("bytes=99999999999999999999999-", 100, Unsatisfiable, "far behind the end"),
            ("bytes=-0", 100, Unsatisfiable, "the last none"),
            ("bytes=0-", 0, Unsatisfiable, "of nothing"),
            ("bytes=-5", 0, Whole, "the last bytes of nothing"),
            ("bytes=5-4", 100, Whole, "backwards is invalid (14.1.1)"),
            ("bytes=200-100", 100, Whole, "backwards, behind the end"),
            ("bytes=0-1,3-4", 100, Whole, "several"),
            ("bytes=0-1,", 100, Whole, "a list"),
            ("bytes=-", 100, Whole, "neither end"),
            ("bytes=", 100, Whole, "empty"),
            ("bytes", 100, Whole, "no range"),
            ("", 100, Whole, "no unit"),
            ("bytes=5", 100, Whole, "no dash"),
            ("bytes=a-b", 100, Whole, "no digits"),
            ("bytes=--5", 100, Whole, "two dashes"),
            ("bytes=+1-5", 100, Whole, "sign"),
            ("bytes= 0-1", 100, Whole, "blank before the range"),
            ("bytes=0 -1", 100, Whole, "blank inside of the range"),
            ("bytes =0-1", 100, Whole, "blank after the unit"),
            ("items=0-1", 100, Whole, "another unit"),
        ] {
            assert_eq!(
                Selection::of(Some(range.as_bytes()), None, ETAG, len),
                expected,
                "{range}: {why}"
            );
        }
        assert_eq!(Selection::of(None, None, ETAG, 100), Whole);
        assert_eq!(Selection::of(None, Some(ETAG.as_bytes()), ETAG, 100), Whole);
    }

    /// RFC 9110 13.1.5.
    #[test]
    fn sends_a_part_only_of_what_the_peer_has() {
        let part = Selection::Part { start: 1, end: 3 };
        for (tag, expected) in [
            ("\"abc\"", part),
            ("W/\"abc\"", Selection::Whole),
            ("\"abd\"", Selection::Whole),
            ("\"ABC\"", Selection::Whole),
            ("abc", Selection::Whole),
            ("", Selection::Whole),
            ("\"abc\", \"abd\"", Selection::Whole),
            ("Tue, 15 Nov 1994 08:12:31 GMT", Selection::Whole),
        ] {
            let selection = Selection::of(Some(b"bytes=1-2"), Some(tag.as_bytes()), ETAG, 100);
            assert_eq!(selection, expected, "{tag}");
        }
        // A range that cannot be satisfied counts as little as one that can.
        assert_eq!(
            Selection::of(Some(b"bytes=100-"), Some(b"\"abd\""), ETAG, 100),
            Selection::Whole
        );
    }

    proptest! {
        /// Against the offsets that the specification names, one by one.
        #[test]
        fn agrees_with_a_model(
            first in prop_oneof![Just(None), (0_u64..40).prop_map(Some)],
            last in prop_oneof![Just(None), (0_u64..40).prop_map(Some)],
            len in 0_u64..30,
        ) {
            let text = |position: Option<u64>| position.map_or(String::new(), |n| n.to_string());
            let range = format!("bytes={}-{}", text(first), text(last));
            let chosen: Vec<u64> = (0..len)
                .filter(|offset| match (first, last) {
                    (Some(first), None) => first <= *offset,
                    (Some(first), Some(last)) => (first..=last).contains(offset),
                    (None, Some(count)) => offset + count >= len,
                    (None, None) => true,
                })
                .collect();
            let invalid = match (first, last) {
                (Some(first), Some(last)) => last < first,
                (None, None) => true,
                (None, Some(count)) => count > 0 && len == 0,
                (Some(_), None) => false,
            };
            let expected = match (invalid, chosen.as_slice()) {
                (true, _) => Selection::Whole,
                (false, []) => Selection::Unsatisfiable,
                (false, [first, .., last]) => Selection::Part { start: *first, end: last + 1 },
                (false, [only]) => Selection::Part { start: *only, end: only + 1 },
            };
            prop_assert_eq!(Selection::of(Some(range.as_bytes()), None, ETAG, len), expected);
        }

        /// Whatever is asked for: a part is never empty and never outside.
        #[test]
        fn never_leaves_the_image(
            pieces in vec(sample::select(PIECES), 0..8),
            len in 0_u64..100,
        ) {
            if let Selection::Part { start, end } =
                Selection::of(Some(pieces.concat().as_bytes()), None, ETAG, len)
            {
                prop_assert!(start < end && end <= len);
            }
        }
    }

    const PIECES: &[&str] = &["bytes=", "bytes", "=", "-", "0", "7", "99", " ", ",", "\0"];
}
