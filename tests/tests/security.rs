//! docs/security.md names tests: they are there.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn page(name: &str) -> String {
    fs::read_to_string(root().join("docs").join(name)).expect("a page")
}

/// The tests that a page names, as file and function.
fn named(page: &str) -> Vec<(&str, &str)> {
    let quoted = page.split('`').skip(1).step_by(2);
    quoted.filter_map(|text| text.split_once(".rs::")).collect()
}

#[test]
fn each_test_that_is_named_exists() {
    let page = page("security.md");
    let named = named(&page);
    assert!(named.len() > 40, "only {} tests are named", named.len());
    let mut missing = Vec::new();
    for (file, function) in named {
        let text = fs::read_to_string(root().join(format!("{file}.rs"))).unwrap_or_default();
        if !is_test(&text, function) {
            missing.push(format!("{file}.rs::{function}"));
        }
    }
    assert!(missing.is_empty(), "\n{}", missing.join("\n"));
}

/// Is there such a function, with `#[test]` close before it?
fn is_test(text: &str, function: &str) -> bool {
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let is_it = |line: &&str| line.starts_with(&format!("fn {function}("));
    lines.iter().position(is_it).is_some_and(|at| {
        let before = &lines[at.saturating_sub(4)..at];
        before.iter().any(|line| line.starts_with("#[test]"))
    })
}

#[test]
fn each_weakness_of_tokens_has_a_row() {
    let wire = page("wire.md");
    let section = wire.split("### 3.3 ").nth(1).expect("a section").split("### ").next();
    let rows = section.expect("text").lines().filter(|line| line.starts_with("| ")).count() - 1;
    assert!(rows >= 6, "{rows}");
    let security = page("security.md");
    let kept: BTreeSet<&str> = security
        .lines()
        .filter(|line| line.contains(".rs::"))
        .filter_map(|line| line.strip_prefix("| ")?.split(' ').next())
        .collect();
    for row in (1..=rows).map(|row| format!("3.3/{row}")).chain(["4/1".into(), "4/2".into()]) {
        assert!(kept.contains(&*row), "{row} in {kept:?}");
    }
}

#[test]
fn names_are_found_and_missed() {
    assert_eq!(named("a `x/y.rs::z` b `c` `d.rs::e`"), [("x/y", "z"), ("d", "e")]);
    assert!(is_test("#[test]\nfn a() {", "a"));
    assert!(!is_test("fn a() {", "a") && !is_test("#[test]\nfn ab() {", "a"));
}
