//! A strict reader of JSON (RFC 8259): one pass, no allocation, no recursion of its own.
//!
//! It pulls: the caller says what it expects, and gets borrowed pieces of the text. What it
//! accepts is JSON and nothing else, so two readers cannot disagree on a text; except on
//! duplicate keys, which RFC 8259 4 leaves open. [`Reader::members`] shows every member, and the
//! caller has to refuse what it meets twice (a bit mask does).
//!
//! Cost: about 6 instructions for each byte of a check-in's body, UTF-8 and keeping the fields
//! included. White space between tokens is the uncommon case.

#[cfg(test)]
mod agreement;
mod text;

pub(crate) use text::Text;
use text::{after_escaped, after_plain};

/// The text is not JSON, not what was expected, or nested too deeply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Invalid;

/// Reads one JSON text from its start to its end. Of no use after it returned [`Invalid`].
///
/// What is rarer (white space, escapes, numbers, nesting) lies in functions that take what is left
/// by value and are not inlined, so that what is common keeps it in registers.
#[derive(Clone)]
pub(crate) struct Reader<'a> {
    /// What is not read yet. The text is UTF-8, and so are its pieces: they end at ASCII.
    rest: &'a [u8],
    /// How many more levels may be opened.
    levels: usize,
}

/// A value. Nested ones are validated and come as they stand in the text.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Value<'a> {
    /// A string.
    Text(Text<'a>),
    /// A number as it is written. Its grammar is checked, not its size.
    Number(&'a [u8]),
    /// `true` or `false`.
    Bool(&'a [u8]),
    /// `null`.
    Null,
    /// An object, from its opening to its closing brace.
    Object(&'a [u8]),
    /// An array, from its opening to its closing bracket.
    Array(&'a [u8]),
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
        // Nearly always it is ASCII, which costs less to see.
        if !is_ascii(text) && std::str::from_utf8(text).is_err() {
            return Err(Invalid);
        }
        Ok(Self { rest: text, levels: depth_max.min(Self::DEPTH_MAX) })
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
        self.blank();
        let start = self.rest;
        let first = self.byte()?;
        if first == b'"' {
            return self.string().map(Value::Text);
        }
        let (kind, rest) = self.clone().unquoted(first)?;
        self.rest = rest;
        Ok(kind.value(between(start, rest)))
    }

    /// Is an object next?
    pub(crate) fn starts_object(&mut self) -> bool {
        self.blank();
        self.rest.starts_with(b"{")
    }

    /// Expects that only white space is left.
    ///
    /// # Errors
    ///
    /// Something else is.
    pub(crate) fn end(mut self) -> Result<(), Invalid> {
        self.blank();
        if self.rest.is_empty() { Ok(()) } else { Err(Invalid) }
    }

    /// The rest of a value that is no string; its `first` byte is read. Returns what follows it.
    #[inline(never)]
    fn unquoted(mut self, first: u8) -> Result<(Kind, &'a [u8]), Invalid> {
        let kind = match first {
            b'{' => self.nested(first).map(|()| Kind::Object),
            b'[' => self.nested(first).map(|()| Kind::Array),
            _ => self.scalar(first),
        };
        Ok((kind?, self.rest))
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
        let start = self.rest;
        let special = after_plain(start);
        let escaped = match special {
            [b'"', rest @ ..] => {
                self.rest = rest;
                return Ok(Text::new(between(start, special), false));
            }
            _ => after_escaped(special)?,
        };
        self.rest = escaped.get(1..).ok_or(Invalid)?;
        Ok(Text::new(between(start, escaped), true))
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
        while let [b'0'..=b'9', rest @ ..] = self.rest {
            self.rest = rest;
        }
    }

    fn word(&mut self, word: &[u8]) -> Result<(), Invalid> {
        self.rest = self.rest.strip_prefix(word).ok_or(Invalid)?;
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
    #[inline]
    fn token(&mut self) -> Result<u8, Invalid> {
        self.blank();
        self.byte()
    }

    #[inline]
    fn blank(&mut self) {
        if let [..=b' ', ..] = self.rest {
            self.rest = after_blank(self.rest);
        }
    }

    #[inline]
    fn byte(&mut self) -> Result<u8, Invalid> {
        let (byte, rest) = self.rest.split_first().ok_or(Invalid)?;
        self.rest = rest;
        Ok(*byte)
    }

    #[inline]
    fn take(&mut self, byte: u8) -> bool {
        match self.rest {
            [first, rest @ ..] if *first == byte => {
                self.rest = rest;
                true
            }
            _ => false,
        }
    }
}

/// What follows white space.
#[inline(never)]
fn after_blank(mut text: &[u8]) -> &[u8] {
    while let [b' ' | b'\t' | b'\n' | b'\r', rest @ ..] = text {
        text = rest;
    }
    text
}

/// What was read between `start` and `end`, a later rest of the same text.
#[inline]
fn between<'a>(start: &'a [u8], end: &[u8]) -> &'a [u8] {
    &start[..start.len() - end.len()]
}

/// Without an end in the middle and without single bytes after it: so a body of some hundred bytes
/// costs a fifth of what the standard library takes.
fn is_ascii(text: &[u8]) -> bool {
    let (words, rest) = text.as_chunks();
    let (last, rest) = match text.last_chunk() {
        // What is left, once more with what is before it.
        Some(last) => (*last, &[][..]),
        None => ([0; 8], rest),
    };
    let words =
        words.iter().fold(u64::from_ne_bytes(last), |all, word| all | u64::from_ne_bytes(*word));
    u64::to_ne_bytes(words).is_ascii() && rest.is_ascii()
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
    fn value(self, raw: &[u8]) -> Value<'_> {
        match self {
            Self::Number => Value::Number(raw),
            Self::True | Self::False => Value::Bool(raw),
            Self::Null => Value::Null,
            Self::Object => Value::Object(raw),
            Self::Array => Value::Array(raw),
        }
    }
}

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
        assert!(Reader::new(b"\"\xff\"", 8).is_err(), "no UTF-8 (8.1)");
        assert!(Reader::new(b"\"\xed\xa0\x80\"", 8).is_err(), "surrogate in UTF-8");
        assert!(Reader::new(b"\"\xc0\xaf\"", 8).is_err(), "overlong");
    }

    #[test]
    fn ascii_is_told_wherever_the_other_byte_stands() {
        for length in 0..40 {
            let mut text = vec![b'a'; length];
            assert!(is_ascii(&text), "{length}");
            for at in 0..length {
                text[at] = 0x80;
                assert!(!is_ascii(&text), "{at} of {length}");
                text[at] = 0x7f;
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
        let mut reader = Reader::new(text, 8).expect("UTF-8");
        let read = reader.members(|reader, key| {
            let value = reader.value()?;
            values.push((key.raw()[0], value));
            Ok(())
        });
        assert_eq!((read, reader.end()), (Ok(()), Ok(())));
        let expected = [
            (b's', Value::Text(Text::new(br#"a\"b"#, true))),
            (b'n', Value::Number(b"-1.50")),
            (b't', Value::Bool(b"true")),
            (b'f', Value::Bool(b"false")),
            (b'z', Value::Null),
            (b'o', Value::Object(br#"{ "x": 1 }"#)),
            (b'a', Value::Array(b"[1, 2]")),
        ];
        assert!(values == expected);
    }

    #[test]
    fn objects_only_where_objects_are_expected() {
        for text in ["[]", "1", "\"a\"", "null", "", " "] {
            let mut reader = Reader::new(text.as_bytes(), 8).expect("UTF-8");
            assert!(!reader.starts_object(), "{text}");
            assert_eq!(
                reader.members(|reader, _| reader.value().map(drop)),
                Err(Invalid),
                "{text}"
            );
        }
        assert!(Reader::new(b" \n{", 8).expect("UTF-8").starts_object());
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
            let mut reader = Reader::new(br#"{"a":1,"b":2}"#, 8).expect("UTF-8");
            assert_eq!(reader.members(|reader, _| each(reader)), Err(Invalid));
        }
    }

    #[test]
    fn an_error_of_the_caller_ends_the_reading() {
        let mut seen = 0;
        let mut reader = Reader::new(br#"{"a":1,"b":2}"#, 8).expect("UTF-8");
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
