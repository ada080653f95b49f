//! Fields of JSON bodies, as tolerant as the libraries need: a number or a boolean where a string
//! belongs counts as its JSON text, `null` as absent; anything nested is refused (WIRE.md 1.1).

use crate::api::Response;
use crate::id::{ApiKey, DeviceId, Mac, OwnerId};
use crate::json::{Invalid, Text, Value};

/// A field that is looked up in any of the objects that a body may wrap it in.
#[derive(Clone, Copy, Default)]
pub(crate) enum Field<'a> {
    #[default]
    Absent,
    Null,
    Text(Text<'a>),
    /// An array or an object.
    Nested,
}

impl<'a> Field<'a> {
    /// Keeps a member's value; a second one under the same key is refused.
    pub(crate) fn keep(&mut self, value: Value<'a>) -> Result<(), Invalid> {
        if !matches!(self, Field::Absent) {
            return Err(Invalid);
        }
        *self = match value {
            Value::Text(text) => Field::Text(text),
            Value::Number(text) | Value::Bool(text) => Field::Text(Text::unescaped(text)),
            Value::Null => Field::Null,
            Value::Object(_) | Value::Array(_) => Field::Nested,
        };
        Ok(())
    }

    /// The text, if there is one without escapes: enough for ids, keys and versions.
    pub(crate) fn plain(&self) -> Option<&'a str> {
        match self {
            Field::Text(text) => text.plain(),
            Field::Absent | Field::Null | Field::Nested => None,
        }
    }

    /// The text; absent and nested ones have none.
    pub(crate) fn text(&self) -> Option<Text<'a>> {
        match self {
            Field::Text(text) => Some(*text),
            Field::Absent | Field::Null | Field::Nested => None,
        }
    }

    pub(crate) fn owner(&self) -> Option<OwnerId> {
        self.plain().and_then(OwnerId::parse)
    }

    pub(crate) fn device(&self) -> Option<DeviceId> {
        self.plain().and_then(DeviceId::parse)
    }

    pub(crate) fn mac(&self) -> Option<Mac> {
        self.plain().and_then(Mac::parse)
    }
}

/// What an `Authentication` header presents.
pub(crate) enum Credential {
    /// No header, or an empty one.
    Missing,
    /// Not in the form of a key: refused without asking the store.
    Malformed,
    Key(ApiKey),
}

/// Reads the `Authentication` header (WIRE.md 4). `Authorization` is never looked at.
pub(crate) fn credential(request: &crate::http::Request<'_>) -> Credential {
    match request.header("authentication") {
        None => Credential::Missing,
        Some(value) if value.iter().all(|b| matches!(b, b' ' | b'\t' | b'"')) => {
            Credential::Missing
        }
        Some(value) => ApiKey::parse(value).map_or(Credential::Malformed, Credential::Key),
    }
}

/// Bad JSON and bad shapes are one refusal to the device.
impl<I> From<Invalid> for Response<I> {
    fn from(_: Invalid) -> Self {
        Self::bad_body()
    }
}
