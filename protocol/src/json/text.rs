//! Strings of JSON (RFC 8259 7): where they end, and what they say.

use std::borrow::Cow;

/// A string as it stands between its quotes: escapes are validated, not resolved.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Text<'a> {
    raw: &'a str,
    escaped: bool,
}

impl<'a> Text<'a> {
    #[inline]
    pub(super) fn new(raw: &'a str, escaped: bool) -> Self {
        Self { raw, escaped }
    }

    /// A text that has no escapes: a number's or a keyword's.
    pub(crate) fn unescaped(raw: &'a str) -> Self {
        debug_assert!(!raw.contains('\\'), "{raw} needs no decoding");
        Self { raw, escaped: false }
    }

    /// As it stands in the text.
    pub(crate) fn raw(&self) -> &'a str {
        self.raw
    }

    /// The string, if it has no escapes.
    #[inline]
    pub(crate) fn plain(&self) -> Option<&'a str> {
        if self.escaped { None } else { Some(self.raw) }
    }

    /// The string; allocates only if it has escapes.
    pub(crate) fn decode(&self) -> Cow<'a, str> {
        match self.plain() {
            Some(plain) => Cow::Borrowed(plain),
            None => Cow::Owned(Characters { raw: self.raw }.collect()),
        }
    }

    /// Is it this string, however it is written?
    pub(crate) fn is(&self, string: &str) -> bool {
        match self.plain() {
            Some(plain) => plain == string,
            None => Characters { raw: self.raw }.eq(string.chars()),
        }
    }
}

/// The characters of a string, escapes resolved.
struct Characters<'a> {
    raw: &'a str,
}

impl Iterator for Characters<'_> {
    type Item = char;

    fn next(&mut self) -> Option<char> {
        let mut rest = self.raw.chars();
        let mut next = rest.next()?;
        if next == '\\' {
            next = match rest.next()? {
                'b' => '\u{8}',
                'f' => '\u{c}',
                'n' => '\n',
                'r' => '\r',
                't' => '\t',
                'u' => {
                    let (character, length) = unicode(rest.as_str().as_bytes())?;
                    rest = rest.as_str().get(length..)?.chars();
                    character
                }
                itself => itself,
            };
        }
        self.raw = rest.as_str();
        Some(next)
    }
}

/// The character that `text` says behind a `\u`, and how many bytes it takes. A surrogate means
/// something only as the first of a pair (RFC 8259 8.2).
pub(super) fn unicode(text: &[u8]) -> Option<(char, usize)> {
    let unit = hex(text.first_chunk()?)?;
    let (code, length) = match unit {
        HIGH_FIRST..LOW_FIRST => {
            let low = hex(text.get(4..)?.strip_prefix(br"\u")?.first_chunk()?)?;
            let low = low.checked_sub(LOW_FIRST).filter(|low| *low < SURROGATES)?;
            (0x10000 + (unit - HIGH_FIRST) * SURROGATES + low, 10)
        }
        _ => (unit, 4),
    };
    Some((char::from_u32(code)?, length))
}

fn hex(digits: &[u8; 4]) -> Option<u32> {
    digits.iter().try_fold(0, |unit, digit| Some(unit << 4 | char::from(*digit).to_digit(16)?))
}

/// Where the plain part of a string that is read up to `at` ends: at `"`, `\`, a control character
/// or the end of `bytes`. Eight bytes at a time.
#[inline(always)]
pub(super) fn plain_end(bytes: &[u8], at: usize) -> usize {
    let mut at = at;
    while let Some(word) = word_at(bytes, at) {
        let found = special(word);
        if found != 0 {
            return at + found.trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    while let Some(0x20..=0x21 | 0x23..=0x5b | 0x5d..) = bytes.get(at) {
        at += 1;
    }
    at
}

/// The eight bytes at `at`, if there are as many.
#[inline]
fn word_at(bytes: &[u8], at: usize) -> Option<u64> {
    let word = bytes.get(at..at + 8)?.first_chunk()?;
    Some(u64::from_le_bytes(*word))
}

/// Sets the highest bit of each byte of `word` that ends the plain part of a string. Exact up to
/// the lowest such byte; above it the borrow of a subtraction may travel, and does no harm.
#[inline]
fn special(word: u64) -> u64 {
    const ONES: u64 = u64::from_le_bytes([0x01; 8]);
    // Flipping bit 1 puts `"` (0x22) right behind the control characters (below 0x20), and leaves
    // those where they are as a whole: one comparison finds both.
    let quotes = (word ^ (ONES * 0x02)).wrapping_sub(ONES * 0x21);
    let backslashes = (word ^ (ONES * 0x5c)).wrapping_sub(ONES);
    // Bytes beyond ASCII have their highest bit set, and are never special.
    (quotes | backslashes) & !word & (ONES * 0x80)
}

/// Surrogates of UTF-16: so many high ones, and then as many low ones.
const SURROGATES: u32 = 0x400;
const HIGH_FIRST: u32 = 0xd800;
const LOW_FIRST: u32 = HIGH_FIRST + SURROGATES;

#[cfg(test)]
mod tests {
    use super::super::{Reader, Value};
    use super::*;

    /// Every byte in every place of a word, beside bytes that a borrow could travel through.
    #[test]
    fn finds_the_end_of_the_plain_part() {
        for byte in 0..=255 {
            for place in 0..20 {
                for fill in [b'a', b' ', b'!', b'#', b'[', b']', 0x7f, 0x80, 0xa2, 0xdc, 0xff] {
                    let mut bytes = [fill; 20];
                    bytes[place] = byte;
                    let special = byte < 0x20 || byte == b'"' || byte == b'\\';
                    let expected = if special { place } else { bytes.len() };
                    assert_eq!(plain_end(&bytes, 0), expected, "{byte} at {place} in {fill}");
                    assert_eq!(plain_end(&bytes, place), expected, "{byte} from {place}");
                    bytes[19] = 0;
                    assert_eq!(plain_end(&bytes, 0), expected.min(19), "{byte} before another");
                }
            }
        }
        assert_eq!(plain_end(b"", 0), 0);
    }

    #[test]
    fn compares_and_decodes_escapes() {
        let text = br#""a\u00e9\/\ud83d\ude00\n""#;
        let Ok(Value::Text(text)) = Reader::new(text, 8).expect("UTF-8").value() else {
            panic!("a string");
        };
        assert_eq!(text.plain(), None);
        assert_eq!(text.decode(), "a\u{e9}/\u{1f600}\n");
        assert!(text.is("a\u{e9}/\u{1f600}\n"));
        assert!(!text.is("a\u{e9}/\u{1f600}"));
        assert!(!text.is("a\u{e9}/\u{1f600}\nb"));
    }
}
