//! What is wrong with a setting, in the words of who wrote it.

use figment::error::{Error, Kind};

use super::{ENV_PREFIX, keys};
use crate::failure::Failure;

/// Why the settings could not be taken.
pub(super) fn explain(error: &Error) -> Failure {
    let source = error.metadata.as_ref().and_then(|metadata| metadata.source.as_ref());
    let place = source.map_or_else(String::new, |source| format!(" in {source}"));
    if let Kind::UnknownField(key, _) = &error.kind {
        let failure = Failure::usage(format!("unknown key `{key}`{place}"));
        return failure.hint(match nearest(key) {
            Some(known) => format!("did you mean `{known}`? docs/configuration.md lists all keys"),
            None => "docs/configuration.md lists all keys".to_owned(),
        });
    }
    // In a list, what follows is the place in it.
    let key = match error.path.first() {
        // Only the environment has no file to name.
        Some(key) if source.is_none() => {
            format!("`{ENV_PREFIX}{}`: ", key.to_ascii_uppercase())
        }
        Some(key) => format!("`{key}`: "),
        None => String::new(),
    };
    Failure::usage(format!("{key}{}{place}", reason(&error.kind)))
        .hint("docs/configuration.md lists all keys with their units")
}

/// What is wrong with a value, in the words of who wrote it.
fn reason(kind: &Kind) -> String {
    match kind {
        Kind::InvalidType(found, expected) | Kind::InvalidValue(found, expected) => {
            format!("found {found}, expected {}", expectation(expected))
        }
        Kind::UnknownVariant(found, known) => {
            format!("found `{found}`, expected one of {}", known.join(", "))
        }
        Kind::Message(_)
        | Kind::InvalidLength(..)
        | Kind::UnknownField(..)
        | Kind::MissingField(_)
        | Kind::DuplicateField(_)
        | Kind::ISizeOutOfRange(_)
        | Kind::USizeOutOfRange(_)
        | Kind::Unsupported(_)
        | Kind::UnsupportedKey(..) => kind.to_string(),
    }
}

/// The name of a type, for who knows TOML and not Rust.
fn expectation(type_name: &str) -> &str {
    match type_name {
        "a boolean" | "bool" => "true or false",
        "u8" | "u16" | "u32" | "u64" | "usize" | "i32" => {
            "a whole number in its range, without quotes or a unit"
        }
        other => other,
    }
}

/// A value that breaks the rule of its key.
pub(super) fn invalid(key: &str, rule: &str) -> Failure {
    Failure::usage(format!("`{key}` {rule}")).hint("see docs/configuration.md")
}

/// The known key that shares the longest beginning with a wrong one, if that is long enough to
/// mean anything.
fn nearest(wrong: &str) -> Option<String> {
    let shared = |key: &str| key.bytes().zip(wrong.bytes()).take_while(|(a, b)| a == b).count();
    let best = keys().into_iter().max_by_key(|key| shared(key))?;
    (shared(&best) >= 4).then_some(best)
}
