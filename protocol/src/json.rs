//! A strict reader of JSON (RFC 8259): one pass, no allocation, no recursion of its own.
//!
//! It pulls: the caller says what it expects, and gets borrowed pieces of the text. What it
//! accepts is JSON and nothing else; so two readers cannot disagree on a text, except on
//! duplicate keys, which RFC 8259 4 leaves open: [`Reader::members`] shows every member, and the
//! caller has to refuse what it meets twice (a bit mask does).

use std::borrow::Cow;

/// The text is not JSON, not what was expected, or nested too deeply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Invalid;

/// Reads one JSON text from its start to its end. Of no use after it returned [`Invalid`].
#[derive(Clone, Debug)]
pub(crate) struct Reader<'a> {
    text: &'a str,
    at: usize,
    /// How many more levels may be opened.
    levels: usize,
}

/// A value. Nested ones are validated and come as they stand in the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Value<'a> {
    Text(Text<'a>),
    /// A number as it is written; its grammar is checked, not its size.
    Number(&'a str),
    Bool(bool),
    Null,
    Object(&'a str),
    Array(&'a str),
}

impl<'a> Reader<'a> {
    /// Most levels of nesting, whatever is asked for.
    pub(crate) const DEPTH_MAX: usize = 64;

    /// Begins to read `text`, which may be nested `depth_max` levels deep: `{}` is one level.
    ///
    /// # Errors
    ///
    /// The text is not UTF-8 (RFC 8259 8.1).
    pub(crate) fn new(text: &'a [u8], depth_max: usize) -> Result<Self, Invalid> {
        let text = std::str::from_utf8(text).map_err(|_| Invalid)?;
        Ok(Self { text, at: 0, levels: depth_max.min(Self::DEPTH_MAX) })
    }

    /// Expects an object and calls `each` with the key of each member, duplicates included;
    /// `each` must consume exactly the value ([`Reader::members`], [`Reader::value`] or
    /// [`Reader::skip`]).
    ///
    /// # Errors
    ///
    /// Something else comes, or `each` failed.
    pub(crate) fn members(
        &mut self,
        mut each: impl FnMut(&mut Self, Text<'a>) -> Result<(), Invalid>,
    ) -> Result<(), Invalid> {
        self.blank();
        self.expect(b'{')?;
        self.enter()?;
        self.blank();
        if !self.take(b'}') {
            loop {
                let key = self.key()?;
                each(self, key)?;
                self.blank();
                if !self.take(b',') {
                    break;
                }
            }
            self.expect(b'}')?;
        }
        self.levels += 1;
        Ok(())
    }

    /// Reads any value. Of an object or array the whole text is validated, skipped and returned.
    ///
    /// # Errors
    ///
    /// No valid value comes.
    pub(crate) fn value(&mut self) -> Result<Value<'a>, Invalid> {
        self.blank();
        let start = self.at;
        match self.peek() {
            Some(b'{') => {
                self.skip()?;
                Ok(Value::Object(self.since(start)))
            }
            Some(b'[') => {
                self.skip()?;
                Ok(Value::Array(self.since(start)))
            }
            _ => self.scalar(),
        }
    }

    /// Validates any value and drops it.
    ///
    /// # Errors
    ///
    /// No valid value comes.
    pub(crate) fn skip(&mut self) -> Result<(), Invalid> {
        let outer = self.levels;
        // The containers that are open, innermost in the lowest bit: 1 for an object. There are
        // at most `DEPTH_MAX` of them.
        let mut objects = 0_u64;
        loop {
            // A value is due, or the end of an empty container.
            self.blank();
            match self.peek() {
                Some(b'{') => {
                    self.at += 1;
                    self.enter()?;
                    objects = objects << 1 | 1;
                    self.blank();
                    if self.peek() != Some(b'}') {
                        self.key()?;
                        continue;
                    }
                }
                Some(b'[') => {
                    self.at += 1;
                    self.enter()?;
                    objects <<= 1;
                    self.blank();
                    if self.peek() != Some(b']') {
                        continue;
                    }
                }
                _ => {
                    self.scalar()?;
                }
            }
            // A value is complete: close what it was the last of.
            loop {
                if self.levels == outer {
                    return Ok(());
                }
                self.blank();
                let in_object = objects & 1 == 1;
                if self.take(if in_object { b'}' } else { b']' }) {
                    objects >>= 1;
                    self.levels += 1;
                    continue;
                }
                self.expect(b',')?;
                if in_object {
                    self.key()?;
                }
                break;
            }
        }
    }

    /// Is an object next?
    pub(crate) fn starts_object(&mut self) -> bool {
        self.blank();
        self.peek() == Some(b'{')
    }

    /// Expects that only white space is left.
    ///
    /// # Errors
    ///
    /// Something else is.
    pub(crate) fn end(mut self) -> Result<(), Invalid> {
        self.blank();
        if self.at == self.text.len() { Ok(()) } else { Err(Invalid) }
    }

    /// A key and the colon after it.
    fn key(&mut self) -> Result<Text<'a>, Invalid> {
        self.blank();
        let key = self.string()?;
        self.blank();
        self.expect(b':')?;
        Ok(key)
    }

    /// Any value that is no object and no array.
    fn scalar(&mut self) -> Result<Value<'a>, Invalid> {
        match self.peek() {
            Some(b'"') => self.string().map(Value::Text),
            Some(b'-' | b'0'..=b'9') => self.number().map(Value::Number),
            Some(b't') => self.word("true", Value::Bool(true)),
            Some(b'f') => self.word("false", Value::Bool(false)),
            Some(b'n') => self.word("null", Value::Null),
            _ => Err(Invalid),
        }
    }

    /// `'"' *char '"'` (RFC 8259 7).
    fn string(&mut self) -> Result<Text<'a>, Invalid> {
        self.expect(b'"')?;
        let start = self.at;
        let mut escaped = false;
        loop {
            self.at += plain_bytes(&self.text.as_bytes()[self.at..]);
            match self.peek() {
                Some(b'"') => {
                    let raw = self.since(start);
                    self.at += 1;
                    return Ok(Text { raw, escaped });
                }
                Some(b'\\') => {
                    self.at += 1;
                    self.escape()?;
                    escaped = true;
                }
                _ => return Err(Invalid),
            }
        }
    }

    /// What follows a backslash; surrogates only in pairs.
    fn escape(&mut self) -> Result<(), Invalid> {
        let kind = self.peek().ok_or(Invalid)?;
        self.at += 1;
        match kind {
            b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => Ok(()),
            b'u' => match self.hex()? {
                HIGH_FIRST..=HIGH_LAST => {
                    self.expect(b'\\')?;
                    self.expect(b'u')?;
                    match self.hex()? {
                        LOW_FIRST..=LOW_LAST => Ok(()),
                        _ => Err(Invalid),
                    }
                }
                LOW_FIRST..=LOW_LAST => Err(Invalid),
                _ => Ok(()),
            },
            _ => Err(Invalid),
        }
    }

    fn hex(&mut self) -> Result<u32, Invalid> {
        let digits = self.rest().first_chunk::<4>().ok_or(Invalid)?;
        let unit = hex(digits).ok_or(Invalid)?;
        self.at += digits.len();
        Ok(unit)
    }

    /// `[ "-" ] int [ frac ] [ exp ]` (RFC 8259 6).
    fn number(&mut self) -> Result<&'a str, Invalid> {
        let start = self.at;
        self.take(b'-');
        if !self.take(b'0') {
            self.digits()?;
        }
        if self.take(b'.') {
            self.digits()?;
        }
        if self.take(b'e') || self.take(b'E') {
            if !self.take(b'+') {
                self.take(b'-');
            }
            self.digits()?;
        }
        Ok(self.since(start))
    }

    /// One digit or more.
    fn digits(&mut self) -> Result<(), Invalid> {
        let count = self.rest().iter().take_while(|byte| byte.is_ascii_digit()).count();
        self.at += count;
        if count > 0 { Ok(()) } else { Err(Invalid) }
    }

    fn word(&mut self, word: &str, value: Value<'a>) -> Result<Value<'a>, Invalid> {
        if !self.rest().starts_with(word.as_bytes()) {
            return Err(Invalid);
        }
        self.at += word.len();
        Ok(value)
    }

    fn enter(&mut self) -> Result<(), Invalid> {
        self.levels = self.levels.checked_sub(1).ok_or(Invalid)?;
        Ok(())
    }

    fn blank(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.peek() {
            self.at += 1;
        }
    }

    fn expect(&mut self, byte: u8) -> Result<(), Invalid> {
        if self.take(byte) { Ok(()) } else { Err(Invalid) }
    }

    fn take(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn rest(&self) -> &'a [u8] {
        &self.text.as_bytes()[self.at..]
    }

    /// The text from `start`, where a character begins, up to here.
    fn since(&self, start: usize) -> &'a str {
        self.text.get(start..self.at).unwrap_or_default()
    }
}

/// A string as it stands between its quotes: escapes are validated, not resolved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Text<'a> {
    raw: &'a str,
    escaped: bool,
}

impl<'a> Text<'a> {
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

/// The character behind a `\u`, and how many bytes it takes from there.
fn unicode(digits: &[u8]) -> Option<(char, usize)> {
    let unit = hex(digits.first_chunk()?)?;
    match unit {
        HIGH_FIRST..=HIGH_LAST => {
            let low = hex(digits.get(6..)?.first_chunk()?)?;
            let code = 0x10000 + (unit - HIGH_FIRST) * 0x400 + low.checked_sub(LOW_FIRST)?;
            Some((char::from_u32(code)?, 10))
        }
        _ => Some((char::from_u32(unit)?, 4)),
    }
}

fn hex(digits: &[u8; 4]) -> Option<u32> {
    digits.iter().try_fold(0, |unit, digit| Some(unit << 4 | char::from(*digit).to_digit(16)?))
}

/// How many bytes stand before the first one that a string treats specially: `"`, `\` or a
/// control character.
fn plain_bytes(bytes: &[u8]) -> usize {
    let mut at = 0;
    while let Some(word) = bytes[at..].first_chunk::<8>() {
        let found = special(u64::from_le_bytes(*word));
        if found != 0 {
            return at + found.trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    at + bytes[at..].iter().take_while(|byte| !matches!(byte, 0..=0x1f | b'"' | b'\\')).count()
}

/// Sets the highest bit of each special byte of `word`; exact up to the lowest such byte, and
/// wrong only above it (the borrow of a subtraction travels upwards).
fn special(word: u64) -> u64 {
    const ONES: u64 = u64::from_le_bytes([0x01; 8]);
    const HIGHS: u64 = u64::from_le_bytes([0x80; 8]);
    let quotes = word ^ ONES * b'"' as u64;
    let slashes = word ^ ONES * b'\\' as u64;
    let found =
        quotes.wrapping_sub(ONES) | slashes.wrapping_sub(ONES) | word.wrapping_sub(ONES * 0x20);
    // Bytes beyond ASCII have their highest bit set and are never special.
    found & !word & HIGHS
}

/// UTF-16 surrogates: pairs of one high and one low.
const HIGH_FIRST: u32 = 0xd800;
const HIGH_LAST: u32 = 0xdbff;
const LOW_FIRST: u32 = 0xdc00;
const LOW_LAST: u32 = 0xdfff;
