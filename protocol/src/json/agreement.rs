//! Agreement with serde_json: on what is JSON, and on what it says.

use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use proptest::sample::{Index, select};
use serde_json::Value as Model;

use super::Reader;
use model::{json, read};

/// What a fuzz target tries with any bytes is tried here with texts that are nearly JSON.
#[path = "../fuzzing/json.rs"]
#[allow(clippy::duplicate_mod, reason = "with the feature `fuzzing` it stands there as well")]
#[expect(unreachable_pub, reason = "it is public where the feature `fuzzing` is on")]
mod model;

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
        json(&text);
    }

    #[test]
    fn agrees_with_serde_json_on_tokens(tokens in vec(select(TOKENS), 0..16)) {
        json(tokens.concat().as_bytes());
    }

    #[test]
    fn agrees_with_serde_json_on_strings(pieces in vec(select(CHARACTERS), 0..12)) {
        json(format!("\"{}\"", pieces.concat()).as_bytes());
    }

    #[test]
    fn agrees_with_serde_json_on_bytes(bytes in vec(any::<u8>(), 0..40), quoted in any::<bool>()) {
        json(&if quoted { [b"\"", &bytes[..], b"\""].concat() } else { bytes });
    }

    #[test]
    fn decodes_what_was_escaped(string in any::<String>(), other in any::<String>()) {
        let short = serde_json::to_string(&string).expect("writable");
        let units: String = string.encode_utf16().map(|unit| format!("\\u{unit:04X}")).collect();
        for text in [short, format!("\"{units}\"")] {
            let value = Reader::new(text.as_bytes(), 0).and_then(|mut reader| reader.value());
            let found = value.expect("valid").text().expect("a string");
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
