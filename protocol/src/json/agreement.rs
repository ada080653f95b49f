//! Agreement with serde_json: on what is JSON, and on what it says.

use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use proptest::sample::{Index, select};
use serde_json::Value as Model;

use super::tests::accepts;
use super::*;

proptest! {
    #[test]
    fn reads_what_serde_json_writes(model in model(), pretty in any::<bool>()) {
        let text = if pretty {
            serde_json::to_vec_pretty(&model)
        } else {
            serde_json::to_vec(&model)
        }
        .expect("writable");
        // Not `model`: serde_json does not read every float back to the bit.
        prop_assert_eq!(read(&text), serde_json::from_slice(&text).ok());
    }

    #[test]
    fn agrees_with_serde_json_on_damaged_texts(
        model in model(),
        at in any::<Index>(),
        damage in select(TOKENS),
        cut in 0_usize..3,
    ) {
        let mut text = serde_json::to_vec(&model).expect("writable");
        let at = at.index(text.len());
        let end = text.len().min(at + cut);
        text.splice(at..end, damage.bytes());
        agree(&text)?;
    }

    #[test]
    fn agrees_with_serde_json_on_tokens(tokens in vec(select(TOKENS), 0..16)) {
        agree(tokens.concat().as_bytes())?;
    }

    #[test]
    fn agrees_with_serde_json_on_strings(pieces in vec(select(CHARACTERS), 0..12)) {
        agree(format!("\"{}\"", pieces.concat()).as_bytes())?;
    }

    #[test]
    fn agrees_with_serde_json_on_bytes(bytes in vec(any::<u8>(), 0..40), quoted in any::<bool>()) {
        agree(&if quoted { [b"\"", &bytes[..], b"\""].concat() } else { bytes })?;
    }

    #[test]
    fn decodes_what_was_escaped(string in any::<String>(), other in any::<String>()) {
        let short = serde_json::to_string(&string).expect("writable");
        let units: String = string.encode_utf16().map(|unit| format!("\\u{unit:04X}")).collect();
        for text in [short, format!("\"{units}\"")] {
            let mut reader = Reader::new(text.as_bytes(), 0).expect("UTF-8");
            let Ok(Value::Text(found)) = reader.value() else {
                panic!("a string");
            };
            prop_assert_eq!(found.decode(), &string[..]);
            prop_assert_eq!(found.raw().len() + 2, text.len());
            prop_assert!(found.is(&string));
            prop_assert_eq!(found.is(&other), string == other);
        }
    }
}

const TOKENS: &[&str] = &[
    "{", "}", "[", "]", ",", ":", "\"", "\"a\"", "\"b\":", "1", "0", "-", ".", "e", "E", "+",
    "true", "false", "null", "t", " ", "\n", "\\", "\\u", "\\n", "\u{e9}", "\u{1}", "1.5e3",
    "{\"a\":", "[1,", "\u{feff}",
];

const CHARACTERS: &[&str] = &[
    "a",
    "bcdefghi",
    "\\n",
    "\\\"",
    "\\\\",
    "\\/",
    "\\u0041",
    "\\u0000",
    "\\ud83d",
    "\\ude00",
    "\\uD83D\\uDE00",
    "\\ud8",
    "\\x",
    "\\",
    "\"",
    "\u{e9}",
    "\u{1f600}",
    "\u{1f}",
    " ",
    "}}",
];

fn model() -> impl Strategy<Value = Model> {
    let leaf = prop_oneof![
        Just(Model::Null),
        any::<bool>().prop_map(Model::from),
        any::<i64>().prop_map(Model::from),
        (-1.0e9..1.0e9).prop_map(Model::from),
        any::<String>().prop_map(Model::from),
    ];
    leaf.prop_recursive(5, 40, 6, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..6).prop_map(Model::from),
            btree_map(any::<String>(), inner, 0..6)
                .prop_map(|map| map.into_iter().collect::<serde_json::Map<_, _>>().into()),
        ]
    })
}

/// The same verdict as serde_json's, but for the depth, and the same value.
fn agree(text: &[u8]) -> Result<(), TestCaseError> {
    let model = match serde_json::from_slice::<Model>(text) {
        // It looks at the size of numbers, which is no matter of grammar.
        Err(error) if error.to_string().starts_with("number out of range") => return Ok(()),
        model => model.ok(),
    };
    for depth in 0..4 {
        let fits = model.is_some() && levels(text) <= depth;
        prop_assert_eq!(accepts(text, depth), fits, "depth {}", depth);
    }
    prop_assert_eq!(accepts(text, Reader::DEPTH_MAX), model.is_some());
    prop_assert_eq!(read(text), model);
    Ok(())
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
fn read(text: &[u8]) -> Option<Model> {
    let mut reader = Reader::new(text, Reader::DEPTH_MAX).ok()?;
    let value = if reader.starts_object() {
        let mut map = serde_json::Map::new();
        reader
            .members(|reader, key| {
                let value = reader.value()?;
                map.insert(key.decode().into_owned(), build(value).ok_or(Invalid)?);
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
    Some(match value {
        Value::Text(text) => Model::String(text.decode().into_owned()),
        Value::Bool(text) => Model::Bool(text == b"true"),
        Value::Null => Model::Null,
        Value::Object(raw) => read(raw)?,
        Value::Number(raw) | Value::Array(raw) => serde_json::from_slice(raw).ok()?,
    })
}
