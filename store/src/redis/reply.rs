//! Replies of the function that runs inside of Redis: what is received.

use std::str::FromStr;

use bytes_utils::Str;
use fred::types::Value;

use super::trouble::Trouble;

/// What one operation answered: its fields, one after the other.
#[derive(Debug)]
pub(super) struct Reply {
    fields: std::vec::IntoIter<Value>,
}

impl Reply {
    /// Takes what came in the place of one operation's reply.
    ///
    /// # Errors
    /// [`Trouble::Refused`] if the operation failed.
    pub(super) fn of(value: Value) -> Result<Self, Trouble> {
        let Value::Array(fields) = value else {
            return Err(Trouble::odd("a reply is no array"));
        };
        let mut reply = Self { fields: fields.into_iter() };
        if reply.fields.as_slice().first().and_then(Value::as_bytes) == Some(b"!") {
            reply.fields.next();
            let reason = reply.optional()?.unwrap_or_default();
            return Err(Trouble::Refused(reason.to_string()));
        }
        Ok(reply)
    }

    /// Are there no more fields?
    pub(super) fn is_empty(&self) -> bool {
        self.fields.as_slice().is_empty()
    }

    /// The next field, which may be absent.
    ///
    /// # Errors
    /// [`Trouble::Odd`] if it is neither a text nor a number.
    pub(super) fn optional(&mut self) -> Result<Option<Str>, Trouble> {
        match self.fields.next() {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(Value::Integer(number)) => Ok(Some(number.to_string().into())),
            Some(_) => Err(Trouble::odd("a field is no text")),
        }
    }

    /// The next field.
    ///
    /// # Errors
    /// [`Trouble::Odd`] if it is absent.
    pub(super) fn text(&mut self) -> Result<Str, Trouble> {
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
        self.parsed(|text| match text {
            "0" => Some(false),
            "1" => Some(true),
            _ => None,
        })
    }

    /// The next field, read by a rule.
    ///
    /// # Errors
    /// [`Trouble::Odd`] if the rule cannot read it.
    pub(super) fn parsed<T>(&mut self, rule: impl Fn(&str) -> Option<T>) -> Result<T, Trouble> {
        let text = self.text()?;
        rule(&text).ok_or_else(|| Trouble::Odd(format!("`{text}` is not what belongs there")))
    }
}
