//! The sources themselves: the house rules and the import rule of docs/design.md 11.

use std::fs;
use std::path::{Path, PathBuf};

const COLUMNS_MAX: usize = 100;
const FUNCTION_LINES_MAX: usize = 70;
const FILE_LINES_MAX: usize = 500;
const FILE_LINES_MAX_WITH_TESTS: usize = 700;
/// Fewer lines of code than this: a driver is read in one sitting, or rewritten for another loop.
const DRIVER_LINES: usize = 800;

/// A source file: its path from the root of the workspace, and its text.
struct Source {
    path: String,
    text: String,
    /// The text with strings and comments blanked, line for line.
    code: String,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().expect("the workspace")
}

fn sources() -> Vec<Source> {
    let root = root();
    let mut paths = Vec::new();
    collect(&root, &mut paths);
    paths.sort();
    assert!(paths.len() > 20, "only {} sources found", paths.len());
    paths
        .into_iter()
        .map(|path| {
            let text = fs::read_to_string(&path).expect("UTF-8");
            let path = path.strip_prefix(&root).expect("inside").display().to_string();
            Source { path, code: blanked(&text), text }
        })
        .collect()
}

fn collect(folder: &Path, paths: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
        if name.starts_with('.') || name == "target" {
            continue;
        }
        if path.is_dir() {
            collect(&path, paths);
        } else if name.ends_with(".rs") {
            paths.push(path);
        }
    }
}

/// Fails with all findings at once.
fn report(findings: &[String]) {
    assert!(findings.is_empty(), "\n{}", findings.join("\n"));
}

fn lines<'a>(
    sources: &'a [Source],
    text: impl Fn(&'a Source) -> &'a str,
    is_bad: impl Fn(&str) -> bool,
) -> Vec<String> {
    let mut findings = Vec::new();
    for source in sources {
        for (number, line) in text(source).lines().enumerate() {
            if is_bad(line) {
                findings.push(format!("{}:{}: {}", source.path, number + 1, line.trim()));
            }
        }
    }
    findings
}

#[test]
fn lines_have_at_most_100_columns() {
    report(&lines(&sources(), |s| &s.text, |line| line.chars().count() > COLUMNS_MAX));
}

#[test]
fn sources_are_ascii() {
    report(&lines(&sources(), |s| &s.text, |line| !line.is_ascii()));
}

#[test]
fn nothing_is_left_to_do() {
    let macros = ["todo!", "unimplemented!", "dbg!"];
    let words = [["TO", "DO"].concat(), ["FIX", "ME"].concat(), ["X", "XX"].concat()];
    let sources = sources();
    let mut findings = lines(&sources, |s| &s.code, |line| macros.iter().any(|m| line.contains(m)));
    findings.extend(lines(
        &sources,
        |s| &s.text,
        |line| line.split(|c: char| !c.is_alphanumeric()).any(|w| words.iter().any(|x| x == w)),
    ));
    report(&findings);
}

#[test]
fn no_source_knows_the_machine_it_was_written_on() {
    let words = ["work", "home", "root", "Users"].map(|folder| format!("/{folder}/"));
    let temporary = ["/tmp", "/otter"].concat();
    let is_bad = |line: &str| {
        line.contains(&temporary)
            || words.iter().any(|word| {
                line.match_indices(word.as_str()).any(|(at, _)| {
                    !line[..at].ends_with(|c: char| c.is_alphanumeric() || "_.-".contains(c))
                })
            })
    };
    report(&lines(&sources(), |s| &s.text, is_bad));
}

#[test]
fn files_are_short() {
    let mut findings = Vec::new();
    for source in sources() {
        let has_tests = source.code.contains("#[cfg(test)]") || source.code.contains("#[test]");
        let most = if has_tests { FILE_LINES_MAX_WITH_TESTS } else { FILE_LINES_MAX };
        let lines = source.text.lines().count();
        if lines > most {
            findings.push(format!("{}: {lines} lines, at most {most}", source.path));
        }
    }
    report(&findings);
}

#[test]
fn drivers_are_short() {
    let mut findings = Vec::new();
    for driver in ["runtime-mio/src/", "runtime-tokio/src/"] {
        let files = sources().into_iter().filter(|source| source.path.starts_with(driver));
        let lines: usize = files.map(|source| code_lines(&source.code)).sum();
        assert!(lines > 100, "{driver}: only {lines} lines of code found");
        if lines >= DRIVER_LINES {
            findings.push(format!("{driver}: {lines} lines of code, fewer than {DRIVER_LINES}"));
        }
    }
    report(&findings);
}

/// Lines that are neither blank nor comments only, up to the tests.
fn code_lines(code: &str) -> usize {
    let before_tests = code.lines().take_while(|line| line.trim() != "#[cfg(test)]");
    before_tests.filter(|line| !line.trim().is_empty()).count()
}

#[test]
fn functions_are_short() {
    let mut findings = Vec::new();
    for source in sources() {
        for (line, length) in functions(&source.code) {
            if length > FUNCTION_LINES_MAX {
                findings.push(format!("{}:{line}: a function of {length} lines", source.path));
            }
        }
    }
    report(&findings);
}

/// The paths that begin with `crate::`, groups in braces taken apart.
fn imports(code: &str) -> Vec<String> {
    let starts = code.match_indices("crate::");
    starts.flat_map(|(at, prefix)| expanded("", &code[at + prefix.len()..])).collect()
}

/// `a::B` of `B<'_>, ..` after `a::`; `a::B` and `a::c::D` of `{B, c::{D}}` after it.
fn expanded(prefix: &str, text: &str) -> Vec<String> {
    let text = text.trim_start();
    let end = text.find(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':'));
    let (path, rest) = text.split_at(end.unwrap_or(text.len()));
    let prefix = format!("{prefix}{path}");
    match rest.strip_prefix('{') {
        Some(group) => items(group).iter().flat_map(|item| expanded(&prefix, item)).collect(),
        None if path.is_empty() => Vec::new(),
        None => vec![prefix.trim_end_matches(':').to_owned()],
    }
}

/// The items of a group up to its closing brace.
fn items(group: &str) -> Vec<&str> {
    let mut items = Vec::new();
    let (mut depth, mut start) = (0_usize, 0);
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth > 0 => depth -= 1,
            ',' | '}' if depth == 0 => {
                items.push(&group[start..at]);
                start = at + 1;
            }
            _ => {}
        }
        if c == '}' && start == at + 1 {
            break;
        }
    }
    items
}

/// The names that `lib.rs` of the core re-exports from its module `module`.
fn exports(module: &str) -> Vec<String> {
    let lib = fs::read_to_string(root().join("protocol/src/lib.rs")).expect("the core");
    let code = blanked(&lib);
    let marker = format!("pub use {module}::");
    let Some(start) = code.find(&marker) else { return Vec::new() };
    let end = code[start..].find(';').map_or(code.len(), |end| start + end);
    let names = code[start + marker.len()..end].replace(['{', '}'], "");
    names.split(',').map(|name| name.trim().to_owned()).filter(|name| !name.is_empty()).collect()
}

fn core(part: &str) -> Vec<Source> {
    let prefix = format!("protocol/src/{part}");
    let of_part = |source: &Source| {
        let rest = source.path.strip_prefix(&prefix);
        rest.is_some_and(|rest| part.is_empty() || rest.starts_with('/') || rest == ".rs")
    };
    sources().into_iter().filter(of_part).collect()
}

/// The imports of `sources` that begin with one of `modules`, or are re-exported from them.
fn forbidden(sources: &[Source], modules: &[&str]) -> Vec<String> {
    let mut findings = Vec::new();
    for source in sources {
        // `Now` stands beside the connection, and is a plain value that all of them take.
        for import in imports(&source.code).iter().filter(|i| *i != "connection::Now") {
            let first = import.split("::").next().unwrap_or_default();
            for module in modules {
                if first == *module || exports(module).iter().any(|name| name == first) {
                    findings.push(format!("{} imports {import} of {module}", source.path));
                }
            }
        }
    }
    findings
}

#[test]
fn http_knows_nothing_of_devices() {
    let http = core("http");
    assert!(!http.is_empty());
    report(&forbidden(&http, &["api", "query", "id", "connection"]));
}

#[test]
fn nothing_in_the_core_imports_the_connection() {
    let others: Vec<Source> = core("")
        .into_iter()
        .filter(|s| s.path != "protocol/src/lib.rs" && s.path != "protocol/src/connection.rs")
        .collect();
    report(&forbidden(&others, &["connection"]));
}

#[test]
fn the_api_sees_types_of_http_and_not_its_modules() {
    let api = core("api");
    assert!(!api.is_empty());
    let mut findings = Vec::new();
    for source in api {
        for import in imports(&source.code) {
            let inside = import.strip_prefix("http::").unwrap_or_default();
            if inside.starts_with(|c: char| c.is_lowercase()) {
                findings.push(format!("{} imports {import}", source.path));
            }
        }
    }
    report(&findings);
}

#[test]
fn the_store_and_the_drivers_point_inward_only() {
    for (part, unknown) in [
        ("protocol/src", &["otter_store", "otter_mio", "otter_tokio", "otter_tests"][..]),
        ("store/src", &["otter_mio", "otter_tokio", "otter_tests"]),
        ("runtime-mio/src", &["otter_tokio", "otter_tests"]),
        ("runtime-tokio/src", &["otter_mio", "otter_tests"]),
    ] {
        let sources: Vec<Source> =
            sources().into_iter().filter(|source| source.path.starts_with(part)).collect();
        let is_bad = |line: &str| unknown.iter().any(|name| line.contains(name));
        report(&lines(&sources, |s| &s.code, is_bad));
    }
}

/// The tests that a text names as `file::function`, in backticks.
fn named_tests(text: &str) -> Vec<(&str, &str)> {
    let is_name =
        |name: &str| name.chars().all(|c| c.is_ascii_lowercase() || "_0123456789".contains(c));
    let quoted = text.split('`').skip(1).step_by(2);
    let pairs = quoted.filter_map(|name| name.split_once("::"));
    pairs.filter(|(file, function)| is_name(file) && is_name(function)).collect()
}

#[test]
fn tests_that_the_documents_name_exist() {
    let sources = sources();
    let mut findings = Vec::new();
    for (document, section, least) in [("http.md", "", 100), ("proof.md", "## Laws", 30)] {
        let text = fs::read_to_string(root().join("docs").join(document)).expect("a document");
        let from = &text[text.find(section).expect("the section")..];
        let end = from[section.len()..].find("\n## ").filter(|_| !section.is_empty());
        let named = named_tests(end.map_or(from, |end| &from[..section.len() + end]));
        assert!(named.len() >= least, "{document} names only {} tests", named.len());
        for (file, function) in named {
            let (ending, head) = (format!("/{file}.rs"), format!("fn {function}("));
            let mut files = sources.iter().filter(|source| source.path.ends_with(&ending));
            if !files.any(|source| source.code.contains(&head)) {
                findings.push(format!("docs/{document} names {file}::{function}: there is none"));
            }
        }
    }
    report(&findings);
}

#[test]
fn named_tests_are_found_in_their_quotes() {
    let text = "| a::b | `c::d`, `e::f_2` | `G::h` | `i` |\n`j::K`";
    assert_eq!(named_tests(text), [("c", "d"), ("e", "f_2")]);
}

/// Where each function begins, and how many lines it has.
fn functions(code: &str) -> Vec<(usize, usize)> {
    let lines: Vec<&str> = code.lines().collect();
    let mut found = Vec::new();
    for (number, line) in lines.iter().enumerate() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let at = words.iter().position(|word| *word == "fn");
        let qualifiers = ["pub", "pub(crate)", "pub(super)", "const", "async", "unsafe", "extern"];
        if !at.is_some_and(|at| words[..at].iter().all(|word| qualifiers.contains(word))) {
            continue;
        }
        let mut depth = 0_i32;
        let mut has_body = false;
        for (length, line) in lines[number..].iter().enumerate() {
            for c in line.chars() {
                depth += i32::from(c == '{') - i32::from(c == '}');
                has_body |= c == '{';
            }
            let is_declaration = !has_body && line.trim_end().ends_with(';');
            if is_declaration || has_body && depth <= 0 {
                found.push((number + 1, length + 1));
                break;
            }
        }
    }
    found
}

/// The text with the insides of strings, characters and comments blanked, line for line.
fn blanked(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut code = String::with_capacity(text.len());
    let mut at = 0;
    while at < bytes.len() {
        let rest = &text[at..];
        let length = match bytes[at] {
            b'/' if rest.starts_with("//") => rest.find('\n').unwrap_or(rest.len()),
            b'/' if rest.starts_with("/*") => rest.find("*/").map_or(rest.len(), |end| end + 2),
            b'"' => string_bytes(rest),
            b'r' if !code.ends_with(is_word) => raw_string_bytes(rest).unwrap_or(0),
            b'\'' => character_bytes(rest),
            _ => 0,
        };
        if length == 0 {
            let c = rest.chars().next().unwrap_or_default();
            code.push(c);
            at += c.len_utf8();
        } else {
            let inside = &rest[..length];
            code.extend(inside.chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
            at += length;
        }
    }
    code
}

fn is_word(c: char) -> bool {
    // A `b` before an `r` belongs to the string.
    c.is_alphanumeric() && c != 'b' || c == '_'
}

fn string_bytes(text: &str) -> usize {
    let mut is_escaped = false;
    for (at, byte) in text.bytes().enumerate().skip(1) {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' => is_escaped = true,
            b'"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

fn raw_string_bytes(text: &str) -> Option<usize> {
    let hashes = text[1..].bytes().take_while(|b| *b == b'#').count();
    let start = 1 + hashes;
    if text.as_bytes().get(start) != Some(&b'"') {
        return None;
    }
    let end = format!("\"{}", "#".repeat(hashes));
    Some(text[start + 1..].find(&end).map_or(text.len(), |at| start + 1 + at + end.len()))
}

/// 0 for a lifetime.
fn character_bytes(text: &str) -> usize {
    let mut characters = text.char_indices().skip(1);
    match characters.next() {
        // The escaped character may itself be a quote.
        Some((_, '\\')) => text.get(3..).and_then(|rest| rest.find('\'')).map_or(0, |at| at + 4),
        Some((_, _)) if characters.next().is_some_and(|(_, c)| c == '\'') => {
            text.char_indices().nth(3).map_or(text.len(), |(at, _)| at)
        }
        Some(_) | None => 0,
    }
}

#[test]
fn strings_and_comments_are_blanked() {
    for (text, code) in [
        ("a // }\nb", "a     \nb"),
        ("x = \"}\\\"{\";", "x =       ;"),
        ("r#\"{\"#;", "      ;"),
        ("br\"{\";", "b    ;"),
        ("c == '{' && d == '\\''", "c ==     && d ==     "),
        ("fn f<'a>(x: &'a str) {}", "fn f<'a>(x: &'a str) {}"),
        ("/* { \n } */x", "     \n     x"),
        ("for r in 0..1 {}", "for r in 0..1 {}"),
    ] {
        assert_eq!(blanked(text), code);
    }
}

#[test]
fn functions_are_counted_by_their_braces() {
    let code =
        "fn a() {\n}\n\npub const fn b(\n  x: u8,\n) -> u8 {\n  { x }\n}\ntrait T { fn c(); }\n";
    assert_eq!(functions(code), [(1, 2), (4, 5)]);
}

#[test]
fn lines_of_code_are_counted_without_comments_and_tests() {
    let text = "//! A.\n\nfn a() { // b\n    /* c\n    d */\n}\n\n#[cfg(test)]\nmod tests {}\n";
    assert_eq!(code_lines(&blanked(text)), 2);
}

#[test]
fn imports_are_found_in_groups_too() {
    let code = "use crate::http::Request;\nuse crate::{Answer, query::{A, b::{B}}, id::Mac};\n\
                fn f(x: crate::http) {}";
    let expected = ["http::Request", "Answer", "query::A", "query::b::B", "id::Mac", "http"];
    assert_eq!(imports(code), expected);
}
