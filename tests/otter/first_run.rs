//! The lines that a fresh server prints are run as they are printed.

use std::io::Read;
use std::process::{Command, Stdio};

use crate::program::{Data, command, text};

#[test]
fn the_printed_lines_play_a_device() {
    for shell in ["sh", "bash"] {
        play(shell, "plain", &["--listen", "0.0.0.0:0"]);
    }
}

#[test]
fn they_work_where_the_path_needs_quotes() {
    play("sh", "it's a $place", &["--listen", "0.0.0.0:0"]);
}

#[test]
fn they_work_where_there_is_only_tls() {
    let data = Data::new();
    let made = data.json(&["cert", "self-signed"]);
    let (certificate, key) = (text(&made, "certificate"), text(&made, "key"));
    let tls = ["--tls-listen", "0.0.0.0:0", "--cert", &certificate, "--key", &key];
    play("sh", "by TLS", &[&["--listen", "off"], &tls[..]].concat());
}

#[test]
fn the_second_start_prints_nothing_and_makes_nothing() {
    let data = Data::new();
    let first = data.serve().stop();
    assert!(first.stderr.contains("API key"), "{}", first.stderr);
    let second = data.serve().stop();
    assert!(!second.stderr.contains("API key"), "{}", second.stderr);
    assert_eq!(data.json(&["owner", "list"]).as_array().map(Vec::len), Some(1));
}

fn play(shell: &str, name: &str, args: &[&str]) {
    let data = Data::new();
    let directory = data.beside(name);
    let mut child = command(&directory)
        .arg("serve")
        .args(args)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    // The lines are there before the line that says that it is ready.
    let mut ready = [0; 6];
    child.stdout.as_mut().expect("a pipe").read_exact(&mut ready).expect("ready");
    let mut stderr = child.stderr.take().expect("a pipe");
    let mut text = String::new();
    let mut buffer = [0; 4096];
    while text.lines().filter(|line| line.starts_with("curl ")).count() < 5 || !text.ends_with('\n')
    {
        let n = stderr.read(&mut buffer).expect("readable");
        assert!(n > 0, "{text}");
        text.push_str(&String::from_utf8_lossy(&buffer[..n]));
    }
    let lines: Vec<_> = text.lines().filter(|line| line.starts_with("curl ")).collect();
    let answers: Vec<_> = lines.iter().map(|line| run(shell, line)).collect();
    child.kill().expect("killed");
    child.wait().expect("ended");

    for (answer, words) in answers.iter().zip([
        "\"status\":\"OK\"",
        "\"version\":\"1.0.1\"",
        "\"auto_update\":true",
        "\"status\":\"FIRMWARE_UPDATE\"",
        "200, 65536 bytes",
    ]) {
        assert!(answer.contains(words), "{words} in {answer}");
    }
    let sample = std::fs::read(directory.join("sample.bin")).expect("the sample");
    assert_eq!((sample.len(), sample[0]), (65536, 0xE9));
    let downloaded = std::fs::read(directory.join("downloaded.bin")).expect("downloaded");
    assert!(downloaded == sample, "the image is what was published");
}

fn run(shell: &str, line: &str) -> String {
    let output = Command::new(shell).args(["-c", line]).output().expect("a shell");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{line}\n{stderr}");
    String::from_utf8(output.stdout).expect("UTF-8")
}
