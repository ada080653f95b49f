//! `If-Match` and `If-None-Match` (RFC 9110 13): conditions on the entity tag.
//!
//! Conditions on dates are ignored (13.1.3, 13.1.4): no image has a date of its own.

/// What the conditions of a `GET` or `HEAD` make of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Condition {
    /// There are none, or they hold.
    Holds,
    /// The peer has this already: 304.
    NotModified,
    /// The peer wants something else: 412.
    Failed,
}

impl Condition {
    /// Judges the two headers, each with the values of all its lines, in the order of RFC 9110
    /// 13.2.2. `etag` is the strong entity tag with its quotes, which holds no comma.
    pub(crate) fn of(if_match: Option<&[u8]>, if_none_match: Option<&[u8]>, etag: &str) -> Self {
        let etag = etag.as_bytes();
        if if_match.is_some_and(|list| !is_listed(list, etag, false)) {
            return Self::Failed;
        }
        match if_none_match {
            Some(list) if is_listed(list, etag, true) => Self::NotModified,
            Some(_) | None => Self::Holds,
        }
    }
}

/// Is the tag in the list, or is the list `*`? What does not have the form of a list ends it.
fn is_listed(list: &[u8], etag: &[u8], is_weak_enough: bool) -> bool {
    if list.trim_ascii() == b"*" {
        return true;
    }
    let mut rest = list;
    while let Some((is_weak, tag, after)) = next(rest) {
        if tag == etag && (is_weak_enough || !is_weak) {
            return true;
        }
        rest = after;
    }
    false
}

/// The first tag of a list with its quotes, whether it is weak, and what follows it.
fn next(list: &[u8]) -> Option<(bool, &[u8], &[u8])> {
    let begin = list.iter().position(|byte| !matches!(byte, b' ' | b'\t' | b','))?;
    let list = &list[begin..];
    let (is_weak, list) = match list.strip_prefix(b"W/") {
        Some(list) => (true, list),
        None => (false, list),
    };
    let inside = list.strip_prefix(b"\"")?;
    let end = inside.iter().position(|byte| *byte == b'"')? + 2;
    let (tag, after) = list.split_at(end);
    Some((is_weak, tag, after))
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::sample::select;

    use super::*;

    const ETAG: &str = "\"abc\"";

    fn of(if_match: Option<&str>, if_none_match: Option<&str>) -> Condition {
        Condition::of(if_match.map(str::as_bytes), if_none_match.map(str::as_bytes), ETAG)
    }

    #[test]
    fn compares_tags_weakly_or_strongly() {
        for (list, is_there, is_there_strongly) in [
            ("\"abc\"", true, true),
            ("W/\"abc\"", true, false),
            ("W/\"abc\", \"abc\"", true, true),
            ("\"x\", \"abc\"", true, true),
            (",, \"\" ,\t\"abc\",", true, true),
            ("\"a,b\",\"abc\"", true, true),
            ("*", true, true),
            (" * ", true, true),
            ("", false, false),
            ("\"ABC\"", false, false),
            ("\"ab\"", false, false),
            ("\"abcd\"", false, false),
            ("abc", false, false),
            ("w/\"abc\"", false, false),
            ("\"abc", false, false),
            ("*, \"abc\"", false, false),
            ("\"x, \"abc\"", false, false),
        ] {
            let none_match = if is_there { Condition::NotModified } else { Condition::Holds };
            assert_eq!(of(None, Some(list)), none_match, "If-None-Match: {list}");
            let matches = if is_there_strongly { Condition::Holds } else { Condition::Failed };
            assert_eq!(of(Some(list), None), matches, "If-Match: {list}");
        }
        assert_eq!(of(None, None), Condition::Holds);
        assert_eq!(of(Some("\"x\""), Some(ETAG)), Condition::Failed);
        assert_eq!(of(Some(ETAG), Some(ETAG)), Condition::NotModified);
    }

    proptest! {
        /// Against a list that is built of its tags.
        #[test]
        fn agrees_with_a_model(
            tags in vec((any::<bool>(), select(&["", "abc", "a,b", "x", "ABC"][..])), 0..6),
            comma in select(&[",", ", ", " ,, ", "\t,"][..]),
        ) {
            let texts: Vec<String> = tags
                .iter()
                .map(|(is_weak, tag)| format!("{}\"{tag}\"", if *is_weak { "W/" } else { "" }))
                .collect();
            let list = texts.join(comma);
            let any = tags.iter().any(|(_, tag)| *tag == "abc");
            let strong = tags.iter().any(|(is_weak, tag)| !is_weak && *tag == "abc");
            prop_assert_eq!(of(None, Some(&list)) == Condition::NotModified, any);
            prop_assert_eq!(of(Some(&list), None) == Condition::Holds, strong);
        }

        #[test]
        fn never_panics(bytes in vec(select(&b"W/\"*, abc\t\xff"[..]), 0..20)) {
            Condition::of(Some(&bytes), Some(&bytes), ETAG);
        }
    }
}
