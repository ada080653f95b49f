//! A strict reader of JSON (RFC 8259): one pass, no allocation, no recursion of its own.
//!
//! It pulls: the caller says what it expects, and gets borrowed pieces of the text. What it
//! accepts is JSON and nothing else, so two readers cannot disagree on a text; except on
//! duplicate keys, which RFC 8259 4 leaves open. [`Reader::members`] shows every member, and the
//! caller has to refuse what it meets twice (a bit mask does).
//!
//! Cost: about 4 instructions for each byte of a check-in's body, UTF-8 and keeping the fields
//! included. White space between tokens is the uncommon case.

#[cfg(test)]
mod agreement;
mod text;

pub(crate) use text::Text;
use text::{odd_string, plain_end};

use crate::words::chunk;

/// The text is not JSON, not what was expected, or nested too deeply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Invalid;

/// Reads one JSON text from its start to its end. Of no use after it returned [`Invalid`].
///
/// What is rarer (white space, escapes, numbers, nesting) lies in functions that take the reader by
/// value and are not inlined, so that what is common keeps it in registers.
#[derive(Clone)]
pub(crate) struct Reader<'a> {
    text: &'a [u8],
    /// What stands before this offset is read.
    at: usize,
    /// How many more levels may be opened.
    levels: usize,
}

/// A value, validated: a string without its quotes, all else as it stands in the text.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Value<'a> {
    pub(crate) kind: Kind,
    pub(crate) raw: &'a [u8],
}

/// What a value is. Of numbers the grammar is checked, not the size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)] // no padding, which would be copied, too
pub(crate) enum Kind {
    /// A string without escapes.
    Text,
    /// A string with escapes.
    Escaped,
    Number,
    Bool,
    Null,
    Object,
    Array,
}

impl<'a> Value<'a> {
    /// The string, if it is one.
    pub(crate) fn text(&self) -> Option<Text<'a>> {
        let is_text = matches!(self.kind, Kind::Text | Kind::Escaped);
        is_text.then(|| Text::new(self.raw, self.kind == Kind::Escaped))
    }
}

impl<'a> Reader<'a> {
    /// Most levels of nesting, whatever is asked for.
    pub(crate) const DEPTH_MAX: usize = 64;

    /// Begins to read `text`, which may be nested `depth_max` levels deep: `{}` is one level.
    ///
    /// # Errors
    ///
    /// The text has 4 GiB or more.
    #[inline]
    pub(crate) fn new(text: &'a [u8], depth_max: usize) -> Result<Self, Invalid> {
        if text.len() > MAX_BYTES {
            return Err(Invalid);
        }
        Ok(Self { text, at: 0, levels: depth_max.min(Self::DEPTH_MAX) })
    }

    /// Expects an object and calls `each` with the key of each member, duplicates included;
    /// `each` must consume exactly the value ([`Reader::members`] or
    /// [`Reader::value`]).
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
                let key = self.key()?;
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
        if self.take(b'"') {
            return self.string();
        }
        let (value, end) = self.clone().rare()?;
        self.at = end;
        Ok(value)
    }

    /// Is an object next?
    pub(crate) fn starts_object(&mut self) -> bool {
        self.blank();
        self.next() == Some(b'{')
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

    /// A value that is no string or comes after white space, and where it ends.
    #[inline(never)]
    fn rare(mut self) -> Result<(Value<'a>, usize), Invalid> {
        self.blank();
        let start = self.at;
        let kind = match self.byte()? {
            b'"' => return self.string().map(|value| (value, self.at)),
            b'{' => self.nested(b'{').map(|()| Kind::Object),
            b'[' => self.nested(b'[').map(|()| Kind::Array),
            first => self.scalar(first),
        };
        Ok((Value { kind: kind?, raw: &self.text[start..self.at] }, self.at))
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
            self.key()?;
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
            b't' => self.word(b"rue").map(|()| Kind::Bool),
            b'f' => self.word(b"alse").map(|()| Kind::Bool),
            b'n' => self.word(b"ull").map(|()| Kind::Null),
            _ => Err(Invalid),
        }
    }

    /// `*char '"'` (RFC 8259 7).
    // Most of a text is strings, and most of a string's cost would be the calls.
    #[inline(always)]
    fn string(&mut self) -> Result<Value<'a>, Invalid> {
        let start = self.at;
        let end = plain_end(self.text, start);
        if self.text.get(end) == Some(&b'"') {
            self.at = end + 1;
            return Ok(Value { kind: Kind::Text, raw: &self.text[start..end] });
        }
        let (text, at) = odd_string(self.text, start, end)?;
        self.at = at;
        let kind = if text.plain().is_some() { Kind::Text } else { Kind::Escaped };
        Ok(Value { kind, raw: text.raw() })
    }

    /// The rest of a key, and the colon behind it.
    #[inline(always)]
    fn key(&mut self) -> Result<Text<'a>, Invalid> {
        let start = self.at;
        let end = plain_end(self.text, start);
        if chunk(self.text, end) == Some(b"\":") {
            self.at = end + 2;
            return Ok(Text::new(&self.text[start..end], false));
        }
        let (key, at) = odd_string(self.text, start, end)?;
        self.at = at;
        self.expect(b':')?;
        Ok(key)
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
        while let Some(b'0'..=b'9') = self.next() {
            self.at += 1;
        }
    }

    fn word(&mut self, word: &[u8]) -> Result<(), Invalid> {
        let is_it = self.text[self.at..].starts_with(word);
        self.at += word.len();
        if is_it { Ok(()) } else { Err(Invalid) }
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
    #[inline]
    fn token(&mut self) -> Result<u8, Invalid> {
        self.blank();
        self.byte()
    }

    #[inline]
    fn blank(&mut self) {
        if let Some(..=b' ') = self.next() {
            self.at = blank_end(self.text, self.at);
        }
    }

    #[inline]
    fn byte(&mut self) -> Result<u8, Invalid> {
        let byte = self.next().ok_or(Invalid)?;
        self.at += 1;
        Ok(byte)
    }

    #[inline]
    fn take(&mut self, byte: u8) -> bool {
        if self.next() != Some(byte) {
            return false;
        }
        self.at += 1;
        true
    }

    #[inline]
    fn next(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }
}

/// Where the white space that begins at `at` ends.
#[inline(never)]
fn blank_end(text: &[u8], at: usize) -> usize {
    let is_blank = |byte: &&u8| matches!(byte, b' ' | b'\t' | b'\n' | b'\r');
    at + text[at..].iter().take_while(is_blank).count()
}

/// The longest text whose offsets have 32 bits.
const MAX_BYTES: usize = u32::MAX as usize;

/// What ends the innermost level.
fn end_of(objects: u64) -> u8 {
    if objects & 1 == 1 { b'}' } else { b']' }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Texts, and whether they are JSON (sections of RFC 8259).
    const CASES: &[(&str, bool, &str)] = &[
        ("{}", true, "empty object"),
        ("[]", true, "empty array"),
        (" \t\r\n{ \"a\" : [ 1 , { } , [ ] , \"b\" ] } \n", true, "white space (2)"),
        ("\"\"", true, "a string alone (2)"),
        ("0", true, "a number alone"),
        ("true", true, "a name alone"),
        ("{\"a\":1,\"a\":2}", true, "duplicate keys are for the caller (4)"),
        ("", false, "nothing"),
        (" ", false, "white space only"),
        ("\u{feff}{}", false, "byte order mark (8.1)"),
        ("\u{a0}{}", false, "no white space of JSON"),
        ("{} x", false, "more after the end"),
        ("{}{}", false, "two values"),
        ("{", false, "open object"),
        ("[", false, "open array"),
        ("}", false, "end without start"),
        ("{]", false, "wrong end of an object"),
        ("[}", false, "wrong end of an array"),
        ("{\"a\"}", false, "no value (4)"),
        ("{\"a\":}", false, "no value after the colon"),
        ("{\"a\" 1}", false, "no colon"),
        ("{\"a\"::1}", false, "two colons"),
        ("{a:1}", false, "bare key"),
        ("{1:1}", false, "key is a number"),
        ("{\"a\":1,}", false, "comma before the end of an object"),
        ("{,\"a\":1}", false, "comma after the start of an object"),
        ("{\"a\":1 \"b\":2}", false, "no comma in an object"),
        ("{\"a\":1,,\"b\":2}", false, "two commas in an object"),
        ("[1,]", false, "comma before the end of an array (5)"),
        ("[,1]", false, "comma after the start of an array"),
        ("[1 2]", false, "no comma in an array"),
        ("[1,,2]", false, "two commas in an array"),
        ("[1:2]", false, "colon in an array"),
        ("-0", true, "minus zero (6)"),
        ("-1.5e+10", true, "all parts of a number"),
        ("0.0E-0", true, "zeros"),
        ("1e999", true, "size is not checked"),
        ("00", false, "leading zero"),
        ("01", false, "leading zero before a digit"),
        ("-01", false, "leading zero after a sign"),
        ("+1", false, "plus"),
        (".5", false, "no integer"),
        ("1.", false, "no fraction"),
        ("1.e1", false, "no fraction before an exponent"),
        ("1e", false, "no exponent"),
        ("1e+", false, "no digits after a sign"),
        ("-", false, "sign only"),
        ("--1", false, "two signs"),
        ("0x1", false, "hexadecimal"),
        ("1_0", false, "underscore"),
        ("NaN", false, "not a number"),
        ("-Infinity", false, "infinity"),
        ("True", false, "names are lower case (3)"),
        ("nul", false, "cut name"),
        ("nulls", false, "longer name"),
        ("'a'", false, "single quotes"),
        ("\"a", false, "open string (7)"),
        ("\"a\\\"", false, "open string after an escape"),
        ("\"\\\"", false, "only an escape"),
        ("\"\\/\\b\\f\\n\\r\\t\\\"\\\\\"", true, "all short escapes"),
        ("\"\\a\"", false, "unknown escape"),
        ("\"\\u00e9\\uABcd\"", true, "long escapes"),
        ("\"\\u00e\"", false, "three digits"),
        ("\"\\u00eg\"", false, "no digit"),
        ("\"\\u+0e9\"", false, "sign in an escape"),
        ("\"\\U00e9\"", false, "upper case escape"),
        ("\"\\ud83d\\ude00\"", true, "surrogate pair"),
        ("\"\\ud83d\"", false, "high surrogate alone (8.2)"),
        ("\"\\ude00\"", false, "low surrogate alone"),
        ("\"\\ude00\\ud83d\"", false, "surrogates the wrong way round"),
        ("\"\\ud83d\\ud83d\"", false, "two high surrogates"),
        ("\"\\ud83d\\ue000\"", false, "high surrogate before what is behind the low ones"),
        ("\"\\ud83dxude00\"", false, "pair without second escape"),
        ("\"\\ud83d\\n\"", false, "high surrogate before a short escape"),
        ("\"a\nb\"", false, "line end in a string"),
        ("\"a\tb\"", false, "tab in a string"),
        ("\"\0\"", false, "NUL in a string"),
        ("\"01234567\x1f\"", false, "control character after a whole word"),
        ("\"\x7f\"", true, "DEL is no control character here"),
        ("\"\u{e9}\u{1f600}\"", true, "beyond ASCII"),
        ("// a\n1", false, "comment"),
    ];

    #[test]
    fn accepts_json_and_nothing_else() {
        for (text, valid, why) in CASES {
            assert_eq!(accepts(text.as_bytes(), 8), *valid, "{why}: {text:?}");
        }
        assert!(!accepts(b"\"\xff\"", 8), "no UTF-8 (8.1)");
        assert!(!accepts(b"{\"\xff\":1}", 8), "no UTF-8 in a key");
        assert!(!accepts(b"[\"a\\n\xff\"]", 8), "no UTF-8 behind an escape");
        assert!(!accepts(b"\"\xed\xa0\x80\"", 8), "surrogate in UTF-8");
        assert!(!accepts(b"\"\xc0\xaf\"", 8), "overlong");
    }

    #[test]
    fn utf_8_is_checked_wherever_it_stands() {
        for length in 2..40 {
            for at in 0..length - 1 {
                let mut text = vec![b'a'; length + 2];
                (text[0], text[length + 1]) = (b'"', b'"');
                (text[at + 1], text[at + 2]) = (0xc3, 0xa9);
                assert!(accepts(&text, 8), "{at} of {length}");
                text[at + 2] = b'a';
                assert!(!accepts(&text, 8), "{at} of {length}");
            }
        }
    }

    #[test]
    fn counts_levels_from_the_outermost() {
        for (text, depth) in
            [("1", 0), ("{}", 1), ("[[]]", 2), ("{\"a\":{\"b\":[{}]}}", 4), ("[{},{},[{}]]", 3)]
        {
            assert!(accepts(text.as_bytes(), depth), "{text} at {depth}");
            assert!(depth == 0 || !accepts(text.as_bytes(), depth - 1), "{text} below {depth}");
        }
        let nested = |levels: usize| "[".repeat(levels) + &"]".repeat(levels);
        assert!(accepts(nested(64).as_bytes(), usize::MAX));
        assert!(!accepts(nested(65).as_bytes(), usize::MAX), "whatever is asked for");
        assert!(!accepts("[".repeat(1_000_000).as_bytes(), usize::MAX), "without a stack");
    }

    #[test]
    fn levels_count_through_members_and_values() {
        let text = br#"{"a":{"b":[]},"c":[[]],"d":{"e":[]}}"#;
        let read = |depth| {
            let mut reader = Reader::new(text, depth)?;
            reader.members(|reader, key| {
                if key.is("c") {
                    return reader.value().map(drop);
                }
                assert!(reader.starts_object());
                reader.members(|reader, _| reader.value().map(drop))
            })?;
            reader.end()
        };
        assert_eq!(read(3), Ok(()));
        assert_eq!(read(2), Err(Invalid));
    }

    #[test]
    fn shows_values_as_they_are() {
        let text = br#" {"s": "a\"b", "n":-1.50, "t":true,"f":false ,
            "z":null, "o": { "x": 1 }, "a":[1, 2]} "#;
        let mut values = Vec::new();
        let mut reader = Reader::new(text, 8).expect("short");
        let read = reader.members(|reader, key| {
            let value = reader.value()?;
            values.push((key.raw()[0], value.kind, value.raw));
            Ok(())
        });
        assert_eq!((read, reader.end()), (Ok(()), Ok(())));
        let expected = [
            (b's', Kind::Escaped, &br#"a\"b"#[..]),
            (b'n', Kind::Number, b"-1.50"),
            (b't', Kind::Bool, b"true"),
            (b'f', Kind::Bool, b"false"),
            (b'z', Kind::Null, b"null"),
            (b'o', Kind::Object, br#"{ "x": 1 }"#),
            (b'a', Kind::Array, b"[1, 2]"),
        ];
        assert_eq!(values, expected);
    }

    #[test]
    fn objects_only_where_objects_are_expected() {
        for text in ["[]", "1", "\"a\"", "null", "", " "] {
            let mut reader = Reader::new(text.as_bytes(), 8).expect("short");
            assert!(!reader.starts_object(), "{text}");
            assert_eq!(
                reader.members(|reader, _| reader.value().map(drop)),
                Err(Invalid),
                "{text}"
            );
        }
        assert!(Reader::new(b" \n{", 8).expect("short").starts_object());
    }

    #[test]
    fn a_value_must_be_consumed_exactly_once() {
        for each in [
            |_: &mut Reader<'_>| Ok(()),
            |reader: &mut Reader<'_>| {
                reader.value()?;
                reader.value().map(drop)
            },
        ] {
            let mut reader = Reader::new(br#"{"a":1,"b":2}"#, 8).expect("short");
            assert_eq!(reader.members(|reader, _| each(reader)), Err(Invalid));
        }
    }

    #[test]
    fn an_error_of_the_caller_ends_the_reading() {
        let mut seen = 0;
        let mut reader = Reader::new(br#"{"a":1,"b":2}"#, 8).expect("short");
        let read = reader.members(|_, _| {
            seen += 1;
            Err(Invalid)
        });
        assert_eq!((read, seen), (Err(Invalid), 1));
    }

    pub(super) fn accepts(text: &[u8], depth: usize) -> bool {
        Reader::new(text, depth)
            .is_ok_and(|mut reader| reader.value().is_ok() && reader.end().is_ok())
    }
}
