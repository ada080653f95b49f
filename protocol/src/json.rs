//! A strict reader of JSON (RFC 8259): one pass, no allocation, no recursion of its own.
//!
//! It pulls: the caller says what it expects, and gets borrowed pieces of the text. What it
//! accepts is JSON and nothing else, so two readers cannot disagree on a text; except on
//! duplicate keys, which RFC 8259 4 leaves open. [`Reader::members`] shows every member, and the
//! caller has to refuse what it meets twice (a bit mask does).
//!
//! Cost: about 6 instructions for each byte of a check-in's body, UTF-8 included. White space
//! between tokens is the uncommon case.

use std::borrow::Cow;

/// The text is not JSON, not what was expected, or nested too deeply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Invalid;

/// Reads one JSON text from its start to its end. Of no use after it returned [`Invalid`].
#[derive(Clone)]
pub(crate) struct Reader<'a> {
    text: &'a str,
    /// How many bytes of it are read.
    at: usize,
    /// How many more levels may be opened.
    levels: usize,
}

/// A value. Nested ones are validated and come as they stand in the text.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Value<'a> {
    /// A string.
    Text(Text<'a>),
    /// A number as it is written. Its grammar is checked, not its size.
    Number(&'a str),
    /// `true` or `false`.
    Bool(bool),
    /// `null`.
    Null,
    /// An object, from its opening to its closing brace.
    Object(&'a str),
    /// An array, from its opening to its closing bracket.
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
    #[inline]
    pub(crate) fn members(
        &mut self,
        mut each: impl FnMut(&mut Self, Text<'a>) -> Result<(), Invalid>,
    ) -> Result<(), Invalid> {
        self.expect(b'{')?;
        self.enter()?;
        self.blank();
        if !self.take(b'}') {
            loop {
                self.expect(b'"')?;
                let key = self.string()?;
                self.expect(b':')?;
                each(self, key)?;
                if !self.another(b'}')? {
                    break;
                }
            }
        }
        self.levels += 1;
        Ok(())
    }

    /// Reads any value. Of an object or array the whole text is validated, skipped and returned.
    ///
    /// # Errors
    ///
    /// No valid value comes.
    #[inline(always)]
    pub(crate) fn value(&mut self) -> Result<Value<'a>, Invalid> {
        if !self.take(b'"') {
            let first = self.token()?;
            let start = self.at - 1;
            if first != b'"' {
                let kind = self.unquoted(first)?;
                return Ok(kind.value(self.text.get(start..self.at).ok_or(Invalid)?));
            }
        }
        self.string().map(Value::Text)
    }

    /// Validates any value and drops it.
    ///
    /// # Errors
    ///
    /// No valid value comes.
    pub(crate) fn skip(&mut self) -> Result<(), Invalid> {
        match self.token()? {
            b'"' => self.string().map(drop),
            first => self.unquoted(first).map(drop),
        }
    }

    /// Is an object next?
    pub(crate) fn starts_object(&mut self) -> bool {
        self.blank();
        self.rest().starts_with(b"{")
    }

    /// Expects that only white space is left.
    ///
    /// # Errors
    ///
    /// Something else is.
    pub(crate) fn end(mut self) -> Result<(), Invalid> {
        self.blank();
        if self.rest().is_empty() { Ok(()) } else { Err(Invalid) }
    }

    /// The rest of a value that is no string; its `first` byte is read.
    fn unquoted(&mut self, first: u8) -> Result<Kind, Invalid> {
        match first {
            b'{' => self.nested(first).map(|()| Kind::Object),
            b'[' => self.nested(first).map(|()| Kind::Array),
            _ => self.scalar(first),
        }
    }

    /// The rest of an object or array. Not recursive: one bit for each open level says which of
    /// the two it is.
    fn nested(&mut self, first: u8) -> Result<(), Invalid> {
        let outer = self.levels;
        // The innermost level in the lowest bit, 1 for an object. `DEPTH_MAX` levels fit.
        let mut objects = 0_u64;
        let mut value = first;
        loop {
            if matches!(value, b'{' | b'[') {
                self.enter()?;
                objects = objects << 1 | u64::from(value == b'{');
                self.blank();
                if !self.take(end_of(objects)) {
                    value = self.element(objects)?;
                    continue;
                }
                objects >>= 1;
                self.levels += 1;
            } else if value == b'"' {
                self.string()?;
            } else {
                self.scalar(value)?;
            }
            // A value is complete. Close what it was the last of.
            loop {
                if self.levels == outer {
                    return Ok(());
                }
                if self.another(end_of(objects))? {
                    break;
                }
                objects >>= 1;
                self.levels += 1;
            }
            value = self.element(objects)?;
        }
    }

    /// The first byte of an element's value. In an object, a key and a colon come before it.
    fn element(&mut self, objects: u64) -> Result<u8, Invalid> {
        if objects & 1 == 1 {
            self.expect(b'"')?;
            self.string()?;
            self.expect(b':')?;
        }
        self.token()
    }

    /// After an element: does another one follow, or `end`?
    #[inline]
    fn another(&mut self, end: u8) -> Result<bool, Invalid> {
        if self.take(b',') {
            return Ok(true);
        }
        match self.token()? {
            b',' => Ok(true),
            byte if byte == end => Ok(false),
            _ => Err(Invalid),
        }
    }

    /// The rest of a number or of one of the three names.
    fn scalar(&mut self, first: u8) -> Result<Kind, Invalid> {
        match first {
            b'-' | b'0'..=b'9' => self.number(first).map(|()| Kind::Number),
            b't' => self.word(b"rue").map(|()| Kind::True),
            b'f' => self.word(b"alse").map(|()| Kind::False),
            b'n' => self.word(b"ull").map(|()| Kind::Null),
            _ => Err(Invalid),
        }
    }

    /// `*char '"'` (RFC 8259 7).
    // Most of a text is strings, and most of a string's cost would be the calls.
    #[inline(always)]
    fn string(&mut self) -> Result<Text<'a>, Invalid> {
        let start = self.at;
        self.at = self.plain_end();
        let escaped = !self.take(b'"');
        if escaped {
            self.escaped_string()?;
        }
        let raw = self.text.get(start..self.at - 1).ok_or(Invalid)?;
        Ok(Text { raw, escaped })
    }

    /// The rest of a string whose plain beginning is read.
    #[cold]
    fn escaped_string(&mut self) -> Result<(), Invalid> {
        loop {
            match self.byte()? {
                b'"' => return Ok(()),
                b'\\' => self.escape()?,
                _ => return Err(Invalid),
            }
            self.at = self.plain_end();
        }
    }

    /// Where the plain part of a string ends: at `"`, `\`, a control character or the end of the
    /// text. Eight bytes at a time.
    #[inline(always)]
    fn plain_end(&self) -> usize {
        let bytes = self.text.as_bytes();
        let mut at = self.at;
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

    /// What follows a backslash; surrogates only in pairs.
    fn escape(&mut self) -> Result<(), Invalid> {
        match self.byte()? {
            b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => Ok(()),
            b'u' => match self.unit()? {
                HIGH_FIRST..=HIGH_LAST => {
                    self.word(b"\\u")?;
                    match self.unit()? {
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

    /// Four hex digits.
    fn unit(&mut self) -> Result<u32, Invalid> {
        let digits = self.rest().first_chunk().ok_or(Invalid)?;
        self.at += digits.len();
        hex(digits).ok_or(Invalid)
    }

    /// The rest of `[ "-" ] int [ frac ] [ exp ]` (RFC 8259 6).
    fn number(&mut self, first: u8) -> Result<(), Invalid> {
        let first = if first == b'-' { self.byte()? } else { first };
        match first {
            b'0' => {}
            b'1'..=b'9' => self.digits(),
            _ => return Err(Invalid),
        }
        if self.take(b'.') {
            self.some_digits()?;
        }
        if self.take(b'e') || self.take(b'E') {
            let _signed = self.take(b'+') || self.take(b'-');
            self.some_digits()?;
        }
        Ok(())
    }

    fn some_digits(&mut self) -> Result<(), Invalid> {
        if !self.byte()?.is_ascii_digit() {
            return Err(Invalid);
        }
        self.digits();
        Ok(())
    }

    fn digits(&mut self) {
        while let Some(b'0'..=b'9') = self.peek() {
            self.at += 1;
        }
    }

    fn word(&mut self, word: &[u8]) -> Result<(), Invalid> {
        if !self.rest().starts_with(word) {
            return Err(Invalid);
        }
        self.at += word.len();
        Ok(())
    }

    fn enter(&mut self) -> Result<(), Invalid> {
        self.levels = self.levels.checked_sub(1).ok_or(Invalid)?;
        Ok(())
    }

    /// Expects `byte`, after any white space.
    #[inline]
    fn expect(&mut self, byte: u8) -> Result<(), Invalid> {
        if self.take(byte) || self.token()? == byte { Ok(()) } else { Err(Invalid) }
    }

    /// Reads the next byte that is no white space.
    fn token(&mut self) -> Result<u8, Invalid> {
        self.blank();
        self.byte()
    }

    fn blank(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.peek() {
            self.at += 1;
        }
    }

    fn byte(&mut self) -> Result<u8, Invalid> {
        let byte = self.peek().ok_or(Invalid)?;
        self.at += 1;
        Ok(byte)
    }

    #[inline]
    fn take(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        if found {
            self.at += 1;
        }
        found
    }

    #[inline]
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn rest(&self) -> &'a [u8] {
        self.text.as_bytes().get(self.at..).unwrap_or_default()
    }
}

/// What a value turned out to be, if it is no string.
enum Kind {
    Number,
    True,
    False,
    Null,
    Object,
    Array,
}

impl Kind {
    #[inline]
    fn value(self, raw: &str) -> Value<'_> {
        match self {
            Self::Number => Value::Number(raw),
            Self::True => Value::Bool(true),
            Self::False => Value::Bool(false),
            Self::Null => Value::Null,
            Self::Object => Value::Object(raw),
            Self::Array => Value::Array(raw),
        }
    }
}

/// A string as it stands between its quotes: escapes are validated, not resolved.
#[derive(Clone, Copy, PartialEq, Eq)]
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

/// What ends the innermost level.
fn end_of(objects: u64) -> u8 {
    if objects & 1 == 1 { b'}' } else { b']' }
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

/// UTF-16 surrogates: pairs of one high and one low.
const HIGH_FIRST: u32 = 0xd800;
const HIGH_LAST: u32 = 0xdbff;
const LOW_FIRST: u32 = 0xdc00;
const LOW_LAST: u32 = 0xdfff;
