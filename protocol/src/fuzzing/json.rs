//! JSON: agreement with serde_json.

use serde_json::Value as Model;

use crate::json::{Invalid, Kind, Reader, Value};

/// The reader of JSON: it takes what serde_json takes, but for depth and the size of numbers, and
/// reads the same out of it; members are seen in order, duplicates too.
///
/// # Panics
/// If that is not so.
pub fn json(bytes: &[u8]) {
    if bytes.windows(MAGIC.len()).any(|window| window == MAGIC) {
        return;
    }
    let model = match serde_json::from_slice::<Model>(bytes) {
        // It looks at the size of numbers, which is no matter of grammar.
        Err(error) if error.to_string().starts_with("number out of range") => return,
        model => model.ok(),
    };
    let levels = levels(bytes);
    let is_deep = levels > Reader::DEPTH_MAX;
    let is_good = model.is_some() && !is_deep;
    assert_eq!(accepts(bytes, Reader::DEPTH_MAX), is_good, "{levels} levels");
    for depth in 0..4 {
        assert_eq!(accepts(bytes, depth), is_good && levels <= depth, "depth {depth}");
    }
    if is_good {
        assert_eq!(read(bytes), model);
    }
}

fn accepts(text: &[u8], depth: usize) -> bool {
    Reader::new(text, depth).is_ok_and(|mut reader| reader.value().is_ok() && reader.end().is_ok())
}

/// How deeply a valid text is nested.
fn levels(text: &[u8]) -> usize {
    let (mut level, mut deepest, mut quoted, mut escaped) = (0_usize, 0, false, false);
    for byte in text {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = quoted,
            b'"' => quoted = !quoted,
            b'{' | b'[' if !quoted => level += 1,
            b'}' | b']' if !quoted => level = level.saturating_sub(1),
            _ => {}
        }
        deepest = deepest.max(level);
    }
    deepest
}

/// The whole value, built from what the reader shows.
pub(crate) fn read(text: &[u8]) -> Option<Model> {
    let mut reader = Reader::new(text, Reader::DEPTH_MAX).ok()?;
    let value = if reader.starts_object() {
        let mut map = serde_json::Map::new();
        reader
            .members(|reader, key| {
                let value = reader.value()?;
                let decoded = key.decode().into_owned();
                assert!(key.is(&decoded), "a key that is not itself");
                map.insert(decoded, build(value).ok_or(Invalid)?);
                Ok(())
            })
            .ok()?;
        Model::Object(map)
    } else {
        build(reader.value().ok()?)?
    };
    reader.end().ok()?;
    Some(value)
}

fn build(value: Value<'_>) -> Option<Model> {
    Some(match value.kind {
        Kind::Text | Kind::Escaped => Model::String(value.text()?.decode().into_owned()),
        Kind::Bool => Model::Bool(value.raw == b"true"),
        Kind::Null => Model::Null,
        Kind::Object => read(value.raw)?,
        Kind::Number | Kind::Array => serde_json::from_slice(value.raw).ok()?,
    })
}

/// What serde_json itself writes where it must not look inside; no JSON to it.
const MAGIC: &[u8] = b"$serde_json::private::";
