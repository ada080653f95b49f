//! The planted bugs of `tests/planted/`: that each patch still applies, says what it breaks and
//! what finds it, and is in docs/planted.md. `tests/planted/run` plants them and runs the tests.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().expect("the workspace")
}

/// Name and text of each patch, in order.
fn patches() -> Vec<(String, String)> {
    let directory = root().join("tests/planted");
    let mut patches: Vec<(String, String)> = fs::read_dir(directory)
        .expect("the directory of planted bugs")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "patch"))
        .map(|path| {
            let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
            (name, fs::read_to_string(&path).expect("UTF-8"))
        })
        .collect();
    patches.sort();
    patches
}

/// Where the tree moves, patches rot: mend them with the change that moves it.
#[test]
fn every_patch_applies() {
    let root = root();
    let mut stale = Vec::new();
    for (name, _) in patches() {
        let patch = format!("tests/planted/{name}.patch");
        let check =
            Command::new("git").args(["apply", "--check", &patch]).current_dir(&root).output();
        let check = check.expect("git, which the patches are applied with");
        if !check.status.success() {
            stale.push(format!("{patch}: {}", String::from_utf8_lossy(&check.stderr)));
        }
    }
    assert!(stale.is_empty(), "these patches do not apply any more:\n{}", stale.join("\n"));
}

#[test]
fn every_patch_says_what_it_breaks_and_what_finds_it() {
    let patches = patches();
    assert!(patches.len() >= 25, "only {} planted bugs", patches.len());
    let table = fs::read_to_string(root().join("docs/planted.md")).expect("docs/planted.md");
    // Numbers may be missing, where others are about to plant theirs.
    let mut before = 0;
    for (name, text) in &patches {
        let number = name.split_once('-').and_then(|(number, _)| number.parse::<u32>().ok());
        let number = number.unwrap_or_else(|| panic!("{name} has no number"));
        assert!(number > before, "{name}: there is a number {before} already");
        before = number;
        let (head, diff) = text.split_once("\ndiff --git ").expect("a patch by git");
        let mut lines = head.lines();
        let breaks = lines.next().and_then(|line| line.strip_prefix("Breaks: "));
        let breaks = breaks.unwrap_or_else(|| panic!("{name} does not say what it breaks"));
        let tests: Vec<&str> = lines.filter_map(|line| line.strip_prefix("Test: ")).collect();
        assert!(!tests.is_empty(), "{name} names no test");
        for test in tests {
            assert!(test.starts_with("-p otter-"), "{name}: {test} names no package");
        }
        assert!(!diff.contains("+++ b/tests/"), "{name} breaks a test and not the product");
        let row = format!("| {number} | {breaks} |");
        assert!(table.contains(&row), "docs/planted.md lacks the row {row}");
    }
}
