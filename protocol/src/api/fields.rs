//! Fields of JSON bodies, as tolerant as the libraries need: a number or a boolean where a string
//! belongs counts as its JSON text, `null` as absent; anything nested is refused (docs/wire.md
//! 1.1).

use crate::id::{ApiKey, DeviceId, Mac, OwnerId};
use crate::json::{Invalid, Kind, Text, Value};

/// A field that is looked up in any of the objects that a body may wrap it in: the value as it was
/// read, and what it means only when asked.
#[derive(Clone, Copy, Default)]
pub(crate) struct Field<'a>(Option<Value<'a>>);

impl<'a> Field<'a> {
    /// Keeps a member's value; a second one under the same key is refused.
    #[inline]
    pub(crate) fn keep(&mut self, value: Value<'a>) -> Result<(), Invalid> {
        if self.0.is_some() {
            return Err(Invalid);
        }
        self.0 = Some(value);
        Ok(())
    }

    /// Is there no member of this key?
    pub(crate) fn is_absent(&self) -> bool {
        self.0.is_none()
    }

    /// Is there a value, whatever it is, but `null`?
    pub(crate) fn is_given(&self) -> bool {
        self.0.is_some_and(|value| value.kind != Kind::Null)
    }

    /// Is it an array or an object?
    pub(crate) fn is_nested(&self) -> bool {
        self.0.is_some_and(|value| matches!(value.kind, Kind::Object | Kind::Array))
    }

    /// The text, if there is one without escapes: enough for ids, keys and versions.
    pub(crate) fn plain(&self) -> Option<&'a [u8]> {
        self.text().and_then(|text| text.plain())
    }

    /// The text; absent and nested ones have none.
    pub(crate) fn text(&self) -> Option<Text<'a>> {
        let value = self.0?;
        match value.kind {
            Kind::Text | Kind::Escaped => value.text(),
            Kind::Number | Kind::Bool => Some(Text::unescaped(value.raw)),
            Kind::Null | Kind::Object | Kind::Array => None,
        }
    }

    pub(crate) fn owner(&self) -> Option<OwnerId> {
        self.plain().and_then(OwnerId::read)
    }

    pub(crate) fn device(&self) -> Option<DeviceId> {
        self.plain().and_then(DeviceId::read)
    }

    pub(crate) fn mac(&self) -> Option<Mac> {
        self.plain().and_then(Mac::read)
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

/// Reads the `Authentication` header (docs/wire.md 4). `Authorization` is never looked at.
pub(crate) fn credential(request: &crate::http::Request<'_>) -> Credential {
    match request.authentication() {
        None => Credential::Missing,
        Some(value) if value.iter().all(|b| matches!(b, b' ' | b'\t' | b'"')) => {
            Credential::Missing
        }
        Some(value) => ApiKey::parse(value).map_or(Credential::Malformed, Credential::Key),
    }
}
