//! `otter demo`.

use crate::program::Data;

#[test]
fn the_demo_tells_its_story_and_all_of_it_is_true() {
    let data = Data::new();
    let ran = data.run(&["demo"]);
    assert_eq!(ran.code, 0, "{}\n{}", ran.stdout, ran.stderr);
    let lines: Vec<_> = ran.stdout.lines().collect();
    assert!((10..=20).contains(&lines.len()), "{}", ran.stdout);
    assert_eq!(lines.last(), Some(&"All of it is true."));
    assert!(!data.path().exists(), "it works in a directory of its own");
}

#[test]
fn the_demo_speaks_json() {
    let ran = Data::new().run(&["demo", "--json"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    for (n, line) in ran.stdout.lines().enumerate() {
        let step: serde_json::Value = serde_json::from_str(line).expect("JSON");
        assert_eq!(step["step"], n + 1);
    }
}
