//! What the program says of itself.

use crate::program::Data;

#[test]
fn every_command_has_help_with_examples() {
    let data = Data::new();
    let mut paths: Vec<Vec<String>> = vec![Vec::new()];
    let mut seen = 0;
    while let Some(path) = paths.pop() {
        let mut args: Vec<&str> = path.iter().map(String::as_str).collect();
        args.push("--help");
        let ran = data.run(&args);
        assert_eq!(ran.code, 0, "{args:?}");
        assert!(ran.stdout.contains("Examples:\n  otter "), "{args:?}: {}", ran.stdout);
        for option in ["--data <DIR>", "--json", "OTTER_DATA"] {
            assert!(ran.stdout.contains(option), "{option} in {args:?}: {}", ran.stdout);
        }
        seen += 1;
        let commands = ran.stdout.split("Commands:\n").nth(1).unwrap_or_default();
        for line in commands.lines().take_while(|line| line.starts_with("  ")) {
            let name = line.split_whitespace().next().unwrap_or_default();
            let is_name = line.as_bytes().get(2).is_some_and(|b| *b != b' ') && name != "help";
            if is_name {
                paths.push([path.clone(), vec![name.to_owned()]].concat());
            }
        }
    }
    assert!(seen >= 20, "only {seen} commands");
    assert!(!data.path().exists(), "help makes no data directory");
}

#[test]
fn the_exit_codes_are_in_the_help() {
    let ran = Data::new().run(&["--help"]);
    for line in ["  0  done", "  1  failed", "  2  wrong usage", "  3  ", "  4  ", "  5  "] {
        assert!(ran.stdout.contains(line), "{line}: {}", ran.stdout);
    }
}

#[test]
fn wrong_usage_is_code_2_and_says_what_is_wrong() {
    let data = Data::new();
    for (args, words) in [
        (&["nonsense"][..], "nonsense"),
        (&["key", "create", "--owner", "short"], "64 to 128 characters"),
        (&["device", "show", "short"], "36 characters"),
        (&["device", "set", "5ccf7fee-1337-4000-8000-000000000001"], "--auto-update"),
        (&["token", "revoke", "abc"], "64 lower-case"),
        (&["serve", "--listen", "7442"], "such as 0.0.0.0:7442"),
    ] {
        let ran = data.run(args);
        assert_eq!(ran.code, 2, "{args:?}: {}", ran.stderr);
        assert!(ran.stderr.contains(words), "{args:?}: {}", ran.stderr);
    }
}

#[test]
fn wrong_usage_is_json_for_machines() {
    let data = Data::new();
    for (args, words) in [
        (&["--json", "nonsense"][..], "nonsense"),
        (&["key", "revoke", "short", "--json"], "64 lower-case"),
        (&["--json", "publish"], "--owner <OWNER>"),
    ] {
        let ran = data.run(args);
        assert_eq!((ran.code, ran.stdout.as_str()), (2, ""), "{args:?}: {}", ran.stderr);
        let failure: serde_json::Value = serde_json::from_str(&ran.stderr).expect("JSON");
        let error = failure["error"].as_str().expect("a text");
        assert!(error.contains(words) && !error.starts_with("error"), "{args:?}: {failure}");
        assert!(failure["hint"].as_str().is_some_and(|hint| hint.contains("--help")), "{failure}");
    }
    let help = data.run(&["--json", "publish", "--help"]);
    assert_eq!(help.code, 0);
    assert!(help.stdout.contains("Usage: "), "help is for people: {}", help.stdout);
}

#[test]
fn long_help_explains() {
    let data = Data::new();
    for (command, words) in [
        ("serve", "ready http="),
        ("publish", "mongooseos, or a directory"),
        ("import", "may be run again"),
    ] {
        let ran = data.run(&[command, "--help"]);
        let text = ran.stdout.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(text.contains(words), "{command}: {}", ran.stdout);
    }
}
