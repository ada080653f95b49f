//! Strings of JSON (RFC 8259 7): where they end, and what they say.

use std::borrow::Cow;

use super::Invalid;
use crate::words::{HIGHS, ONES, run_end};

/// A string as it stands between its quotes: escapes are validated, not resolved.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Text<'a> {
    /// UTF-8, as the whole text is.
    raw: &'a [u8],
    escaped: bool,
}

impl<'a> Text<'a> {
    #[inline]
    pub(super) fn new(raw: &'a [u8], escaped: bool) -> Self {
        Self { raw, escaped }
    }

    /// A text that has no escapes: a number's or a keyword's.
    pub(crate) fn unescaped(raw: &'a [u8]) -> Self {
        debug_assert!(!raw.contains(&b'\\'), "{raw:?} needs no decoding");
        Self { raw, escaped: false }
    }

    /// As it stands in the text.
    #[inline]
    pub(crate) fn raw(&self) -> &'a [u8] {
        self.raw
    }

    /// The string, if it has no escapes.
    #[inline]
    pub(crate) fn plain(&self) -> Option<&'a [u8]> {
        if self.escaped { None } else { Some(self.raw) }
    }

    /// The string; allocates only if it has escapes.
    pub(crate) fn decode(&self) -> Cow<'a, str> {
        if self.escaped {
            Cow::Owned(self.characters().collect())
        } else {
            String::from_utf8_lossy(self.raw)
        }
    }

    /// Is it this string, however it is written?
    #[inline]
    pub(crate) fn is(&self, string: &str) -> bool {
        if self.escaped { self.decodes_to(string) } else { self.raw == string.as_bytes() }
    }

    #[cold]
    fn decodes_to(&self, string: &str) -> bool {
        self.characters().eq(string.chars())
    }

    fn characters(&self) -> Characters<'a> {
        Characters { raw: std::str::from_utf8(self.raw).unwrap_or_default() }
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
fn unicode(text: &[u8]) -> Option<(char, usize)> {
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

/// Where the plain part of a string that begins at `start` ends: at `"`, `\`, a control character,
/// what is beyond ASCII, or with the text.
#[inline(always)]
pub(super) fn plain_end(text: &[u8], start: usize) -> usize {
    run_end(text, start, special)
}

/// The string that begins at `start` and is plain up to `at`, and where it ends.
#[inline(never)]
pub(super) fn odd_string(
    text: &[u8],
    start: usize,
    at: usize,
) -> Result<(Text<'_>, usize), Invalid> {
    let (mut at, mut escaped, mut is_wide) = (at, false, false);
    loop {
        let rest = text.get(at..).unwrap_or_default();
        escaped |= rest.first() == Some(&b'\\');
        at += match rest {
            [b'"', ..] => break,
            [b'\\', b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't', ..] => 2,
            [b'\\', b'u', rest @ ..] => 2 + unicode(rest).ok_or(Invalid)?.1,
            [0x80..=0xff, ..] => {
                is_wide = true;
                1
            }
            _ => return Err(Invalid),
        };
        at = plain_end(text, at);
    }
    // Strings end at ASCII; so a text is UTF-8 if its strings are (RFC 8259 8.1).
    let raw = &text[start..at];
    if is_wide {
        std::str::from_utf8(raw).map_err(|_| Invalid)?;
    }
    Ok((Text { raw, escaped }, at + 1))
}

/// Sets the highest bit of each byte of `word` that ends the plain part of a string. Exact up to
/// the lowest such byte; above it the borrow of a subtraction may travel, and does no harm.
#[inline]
fn special(word: u64) -> u64 {
    // Flipping bit 1 puts `"` (0x22) right behind the control characters (below 0x20), and leaves
    // those where they are as a whole: one comparison finds both.
    let quotes = (word ^ (ONES * 0x02)).wrapping_sub(ONES * 0x21);
    let backslashes = (word ^ (ONES * 0x5c)).wrapping_sub(ONES);
    (quotes | backslashes | word) & HIGHS
}

/// Surrogates of UTF-16: so many high ones, and then as many low ones.
const SURROGATES: u32 = 0x400;
const HIGH_FIRST: u32 = 0xd800;
const LOW_FIRST: u32 = HIGH_FIRST + SURROGATES;

#[cfg(test)]
mod tests {
    use super::super::Reader;
    use super::*;

    /// Every byte in every place of a word, beside bytes that a borrow could travel through.
    #[test]
    fn finds_the_end_of_the_plain_part() {
        for byte in 0..=255 {
            for place in 0..20 {
                for fill in [b'a', b' ', b'!', b'#', b'[', b']', 0x7f, 0x80, 0xa2, 0xdc, 0xff] {
                    let mut bytes = [fill; 20];
                    bytes[place] = byte;
                    let is_plain =
                        |byte: &&u8| matches!(byte, 0x20..=0x21 | 0x23..=0x5b | 0x5d..=0x7f);
                    for last in [fill, 0] {
                        bytes[19] = last;
                        let expected =
                            |from: usize| from + bytes[from..].iter().take_while(is_plain).count();
                        let why = format!("{byte} at {place} in {fill} before {last}");
                        assert_eq!(plain_end(&bytes, 0), expected(0), "{why}");
                        assert_eq!(plain_end(&bytes, place), expected(place), "{why}");
                    }
                }
            }
        }
        assert_eq!(plain_end(b"", 0), 0);
    }

    #[test]
    fn decodes_every_short_escape() {
        let text = Text::new(br#"\"\\\/\b\f\n\r\t"#, true);
        assert_eq!(text.decode(), "\"\\/\u{8}\u{c}\n\r\t");
        assert_eq!(Text::unescaped(b"a/b").decode(), "a/b");
    }

    #[test]
    fn compares_and_decodes_escapes() {
        let text = br#""a\u00e9\/\ud83d\ude00\n""#;
        let value = Reader::new(text, 8).and_then(|mut reader| reader.value());
        let Some(text) = value.ok().and_then(|value| value.text()) else {
            panic!("a string");
        };
        assert_eq!(text.plain(), None);
        assert_eq!(text.decode(), "a\u{e9}/\u{1f600}\n");
        assert!(text.is("a\u{e9}/\u{1f600}\n"));
        assert!(!text.is("a\u{e9}/\u{1f600}"));
        assert!(!text.is("a\u{e9}/\u{1f600}\nb"));
    }
}
