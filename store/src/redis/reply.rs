//! Replies of the function that runs inside of Redis: what is received.
//!
//! A call is answered by one MessagePack text, an array with one array per operation. In RESP each
//! field would be a value of its own for Redis to write and fred to read, which costs more than
//! everything else.

use std::str::{self, FromStr};

use bytes::{Buf, Bytes};
use rmp::Marker;

use super::trouble::Trouble;

/// What one operation answered: its fields, one after the other.
#[derive(Debug)]
pub(super) struct Reply {
    /// The whole answer to the call.
    answer: Bytes,
    /// Where the next field begins.
    at: usize,
    left: u32,
}

/// The text of a field: a part of the call's answer, which it keeps alive.
pub(super) type Text = bytes_utils::Str;

impl Reply {
    /// Takes the answer to a call apart: one reply, or why there is none, for each operation.
    ///
    /// # Errors
    /// [`Trouble::Odd`] if it does not answer so many operations one by one.
    pub(super) fn each(
        answer: Bytes,
        operations: usize,
    ) -> Result<Vec<Result<Self, Trouble>>, Trouble> {
        let mut rest = &answer[..];
        let count = array(&mut rest)?;
        if count as usize != operations {
            return Err(Trouble::odd("a call is not answered one by one"));
        }
        let mut replies = Vec::with_capacity(operations);
        for _ in 0..count {
            let left = array(&mut rest)?;
            let at = answer.len() - rest.len();
            for _ in 0..left {
                field(&mut rest)?;
            }
            replies.push(Self { answer: answer.clone(), at, left }.said());
        }
        Ok(replies)
    }

    /// One whose first field is `!` says that the operation failed.
    fn said(mut self) -> Result<Self, Trouble> {
        if !self.answer[self.at..].starts_with(FAILED) {
            return Ok(self);
        }
        self.next()?;
        let reason = self.optional()?.unwrap_or_default();
        Err(Trouble::Refused(reason.to_string()))
    }

    /// Are there no more fields?
    pub(super) fn is_empty(&self) -> bool {
        self.left == 0
    }

    /// The next field, which may be absent.
    ///
    /// # Errors
    /// [`Trouble::Odd`] if it is neither a text nor a number.
    pub(super) fn optional(&mut self) -> Result<Option<Text>, Trouble> {
        let answer = self.answer.clone();
        match self.next()? {
            Field::Absent => Ok(None),
            Field::Text(bytes) => {
                Text::from_inner(answer.slice_ref(bytes)).map(Some).map_err(|_| no_text())
            }
            Field::Number(number) => Ok(Some(number.to_string().into())),
        }
    }

    /// The next field.
    ///
    /// # Errors
    /// [`Trouble::Odd`] if it is absent.
    pub(super) fn text(&mut self) -> Result<Text, Trouble> {
        self.optional()?.ok_or_else(|| Trouble::odd("a field is missing"))
    }

    /// The next field, which is a number.
    ///
    /// # Errors
    /// [`Trouble::Odd`] if it is none.
    pub(super) fn number<N: FromStr>(&mut self) -> Result<N, Trouble> {
        self.parsed(|text| text.parse().ok())
    }

    /// The next field, which says yes or no.
    ///
    /// # Errors
    /// [`Trouble::Odd`] if it says something else.
    pub(super) fn flag(&mut self) -> Result<bool, Trouble> {
        match self.next()? {
            Field::Text(b"0") | Field::Number(0) => Ok(false),
            Field::Text(b"1") | Field::Number(1) => Ok(true),
            Field::Absent | Field::Text(_) | Field::Number(_) => {
                Err(Trouble::odd("a field says neither yes nor no"))
            }
        }
    }

    /// The next field, which is a whole number of decimal digits. Quicker than
    /// [`Reply::number`].
    ///
    /// # Errors
    /// [`Trouble::Odd`] if it is none.
    pub(super) fn digits(&mut self) -> Result<u64, Trouble> {
        let append = |number: u64, digit: &u8| {
            let digit = digit.is_ascii_digit().then(|| u64::from(digit - b'0'))?;
            number.checked_mul(10)?.checked_add(digit)
        };
        let number = match self.next()? {
            Field::Text(digits) if !digits.is_empty() => digits.iter().try_fold(0, append),
            Field::Number(number) => number.try_into().ok(),
            Field::Text(_) | Field::Absent => None,
        };
        number.ok_or_else(|| Trouble::odd("a field is no number"))
    }

    /// The next field, read by a rule.
    ///
    /// # Errors
    /// [`Trouble::Odd`] if it is absent, or the rule cannot read it.
    pub(super) fn parsed<T>(&mut self, rule: impl Fn(&str) -> Option<T>) -> Result<T, Trouble> {
        self.parsed_if_any(rule)?.ok_or_else(|| Trouble::odd("a field is missing"))
    }

    /// The next field, read by a rule if it is there.
    ///
    /// # Errors
    /// [`Trouble::Odd`] if the rule cannot read it.
    pub(super) fn parsed_if_any<T>(
        &mut self,
        rule: impl Fn(&str) -> Option<T>,
    ) -> Result<Option<T>, Trouble> {
        let odd = |text: &str| Trouble::Odd(format!("`{text}` is not what belongs there"));
        match self.next()? {
            Field::Absent => Ok(None),
            Field::Text(bytes) => {
                let text = str::from_utf8(bytes).map_err(|_| no_text())?;
                rule(text).map(Some).ok_or_else(|| odd(text))
            }
            Field::Number(number) => {
                let text = number.to_string();
                rule(&text).map(Some).ok_or_else(|| odd(&text))
            }
        }
    }

    fn next(&mut self) -> Result<Field<'_>, Trouble> {
        let Some(left) = self.left.checked_sub(1) else { return Ok(Field::Absent) };
        self.left = left;
        let mut rest = &self.answer[self.at..];
        let field = field(&mut rest)?;
        self.at = self.answer.len() - rest.len();
        Ok(field)
    }
}

/// What Lua has.
enum Field<'a> {
    Absent,
    /// Should be UTF-8, but others can write to Redis, too.
    Text(&'a [u8]),
    Number(i64),
}

/// The length of the array that begins here.
#[expect(clippy::wildcard_enum_match_arm, reason = "Lua sends few of the many kinds")]
fn array(rest: &mut &[u8]) -> Result<u32, Trouble> {
    match marker(rest)? {
        Marker::FixArray(length) => Ok(length.into()),
        Marker::Array16 => Ok(take(rest, 2)?.get_u16().into()),
        Marker::Array32 => Ok(take(rest, 4)?.get_u32()),
        _ => Err(Trouble::odd("a reply is no array")),
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "Lua sends few of the many kinds")]
fn field<'a>(rest: &mut &'a [u8]) -> Result<Field<'a>, Trouble> {
    let length = match marker(rest)? {
        Marker::FixStr(length) => length.into(),
        Marker::Str8 => take(rest, 1)?.get_u8().into(),
        Marker::Str16 => take(rest, 2)?.get_u16().into(),
        Marker::Str32 => take(rest, 4)?.get_u32() as usize,
        Marker::Null | Marker::False => return Ok(Field::Absent),
        other => return number(other, rest).map(Field::Number),
    };
    take(rest, length).map(Field::Text)
}

#[expect(clippy::wildcard_enum_match_arm, reason = "Lua sends few of the many kinds")]
fn number(marker: Marker, rest: &mut &[u8]) -> Result<i64, Trouble> {
    Ok(match marker {
        Marker::FixPos(number) => number.into(),
        Marker::FixNeg(number) => number.into(),
        Marker::U8 => take(rest, 1)?.get_u8().into(),
        Marker::U16 => take(rest, 2)?.get_u16().into(),
        Marker::U32 => take(rest, 4)?.get_u32().into(),
        Marker::I8 => take(rest, 1)?.get_i8().into(),
        Marker::I16 => take(rest, 2)?.get_i16().into(),
        Marker::I32 => take(rest, 4)?.get_i32().into(),
        Marker::I64 => take(rest, 8)?.get_i64(),
        _ => return Err(no_text()),
    })
}

fn marker(rest: &mut &[u8]) -> Result<Marker, Trouble> {
    Ok(Marker::from_u8(take(rest, 1)?.get_u8()))
}

fn take<'a>(rest: &mut &'a [u8], length: usize) -> Result<&'a [u8], Trouble> {
    let breaks_off = || Trouble::odd("a reply breaks off");
    rest.split_off(..length).ok_or_else(breaks_off)
}

fn no_text() -> Trouble {
    Trouble::odd("a field is no text")
}

/// The first field of a reply that says why there is none.
const FAILED: &[u8] = &[0xa1, b'!'];

#[cfg(test)]
mod tests {
    use super::*;

    fn each(answer: &'static [u8], operations: usize) -> Result<Vec<Option<usize>>, Trouble> {
        let replies = Reply::each(Bytes::from_static(answer), operations)?;
        Ok(replies.into_iter().map(|reply| reply.ok().map(|reply| reply.left as usize)).collect())
    }

    #[test]
    fn replies_are_told_apart() {
        let answer = b"\x93\x90\x94\xa3abc\xc2\x07\xd1\xff\x00\x92\xa1!\xa3why";
        let mut replies = Reply::each(Bytes::from_static(answer), 3).expect("three");
        let refused = replies.pop().expect("the third").expect_err("it failed");
        assert_eq!(refused.to_string(), "Redis refuses: why");
        let mut second = replies.pop().expect("the second").expect("a reply");
        assert_eq!(&*second.text().expect("a text"), "abc");
        assert_eq!(second.optional().expect("readable"), None);
        assert_eq!(second.number::<u8>().expect("a number"), 7);
        assert_eq!(second.number::<i64>().expect("a number"), -256);
        assert!(second.is_empty() && second.text().is_err());
        assert!(replies.pop().expect("the first").expect("a reply").is_empty());
    }

    #[test]
    fn what_is_no_answer_is_refused() {
        assert_eq!(each(b"\x91\x90", 1).expect("one"), [Some(0)]);
        assert!(each(b"\x91\x90", 2).is_err(), "too few");
        for answer in [&b""[..], b"\x91", b"\x91\x91", b"\x91\x91\xa3ab", b"\x91\x05", b"\x80"] {
            assert!(each(answer, 1).is_err(), "{answer:?}");
        }
        let answer = Bytes::from_static(b"\x92\x91\xa1\xff\x91\xa1a");
        let mut replies = Reply::each(answer, 2).expect("two");
        assert!(replies.pop().expect("the second").expect("a reply").text().is_ok());
        assert!(replies.pop().expect("the first").expect("a reply").text().is_err(), "no UTF-8");
    }

    #[test]
    fn long_texts_and_arrays_are_read() {
        let mut answer = vec![0x91, 0xdc, 0x01, 0x00];
        for length in 0..256_u16 {
            if length < 255 {
                answer.extend([0xd9, 3, b'a', b'b', b'c']);
            } else {
                answer.extend([0xda, 1, 0]);
                answer.extend([b'x'; 256]);
            }
        }
        let mut reply = Reply::each(answer.into(), 1).expect("one").remove(0).expect("a reply");
        let mut last = Text::new();
        while !reply.is_empty() {
            last = reply.text().expect("a text");
        }
        assert_eq!(last.len(), 256);
    }
}
