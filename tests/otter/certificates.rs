//! `otter cert`, and what `otter serve` says of certificates that it cannot use.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use rustix::process::Signal;

use crate::program::{Data, keys, text};

#[test]
fn a_certificate_is_made_and_shown() {
    let data = Data::new();
    let made = data.json(&["cert", "self-signed", "--name", "ota.example", "--name", "192.0.2.7"]);
    assert_eq!(keys(&made), ["certificate", "key", "names", "not_after", "sha1", "sha256"]);
    assert_eq!(made["names"], serde_json::json!(["ota.example", "192.0.2.7"]));
    let (certificate, key) = (text(&made, "certificate"), text(&made, "key"));
    assert_eq!(certificate, data.path().join("tls/cert.pem").display().to_string());
    let mode = |path: &str| fs::metadata(path).expect("a file").permissions().mode() & 0o777;
    assert_eq!((mode(&certificate), mode(&key)), (0o644, 0o600));

    let shown = data.json(&["cert", "show", &certificate, "--key", &key]);
    assert_eq!(shown["names"], made["names"]);
    assert_eq!(shown["key"], "ECDSA P-256");
    assert_eq!(shown["key_matches"], true);
    // A second may have passed since.
    assert!(shown["days_left"] == 825 || shown["days_left"] == 824, "{shown}");
    assert_eq!((&shown["sha1"], &shown["sha256"]), (&made["sha1"], &made["sha256"]));
    let alone = data.json(&["cert", "show", &certificate]);
    assert!(alone["key_matches"].is_null(), "there is no key in it: {alone}");
    let for_people = data.run(&["cert", "show", &certificate]);
    assert!(for_people.stdout.contains(" days left)"), "{}", for_people.stdout);
}

#[test]
fn fingerprints_are_those_of_openssl() {
    let data = Data::new();
    let made = data.json(&["cert", "self-signed"]);
    for (option, member) in [("-sha1", "sha1"), ("-sha256", "sha256")] {
        let args = ["x509", "-noout", "-fingerprint", option, "-in", &text(&made, "certificate")];
        let ran = Command::new("openssl").args(args).output().expect("it runs");
        let said = String::from_utf8(ran.stdout).expect("UTF-8");
        let fingerprint = said.trim().rsplit_once('=').expect("a fingerprint").1;
        assert_eq!(fingerprint, text(&made, member));
    }
    let names = made["names"].as_array().expect("a list");
    assert!(["localhost", "127.0.0.1", "::1"].iter().all(|name| names.contains(&(*name).into())));
}

#[test]
fn nothing_is_replaced_unless_asked_for() {
    let data = Data::new();
    let out = data.beside("certificates").display().to_string();
    let make = ["cert", "self-signed", "--days", "10", "--out", &out];
    let first = data.run(&make);
    assert_eq!(first.code, 0, "{}", first.stderr);
    let serve = format!("otter serve --tls-listen 0.0.0.0:7443 --cert {out}/cert.pem --key");
    assert!(first.stdout.contains(&serve), "what to run next: {}", first.stdout);
    assert!(first.stdout.contains("setFingerprint(\""), "{}", first.stdout);
    let read = || fs::read(format!("{out}/cert.pem")).expect("a certificate");
    let before = read();
    let again = data.run(&make);
    assert_eq!(again.code, 4, "{}", again.stderr);
    assert!(again.stderr.contains("--force"), "{}", again.stderr);
    assert_eq!(read(), before);
    let forced = data.run(&[&make[..], &["--force"]].concat());
    assert_eq!(forced.code, 0, "{}", forced.stderr);
    assert_ne!(read(), before);
    assert!(!data.path().exists(), "the data directory has nothing to do with it");
}

#[test]
fn a_key_of_another_certificate_is_told() {
    let data = Data::new();
    let out = data.beside("other").display().to_string();
    let one = data.json(&["cert", "self-signed"]);
    let other = data.json(&["cert", "self-signed", "--out", &out]);
    let (certificate, key) = (text(&one, "certificate"), text(&other, "key"));
    let ran = data.run(&["cert", "show", &certificate, "--key", &key]);
    assert_eq!(ran.code, 1);
    assert!(ran.stdout.contains("NO: the key belongs to another"), "{}", ran.stdout);
    let serve = ["serve", "--tls-listen", "127.0.0.1:0", "--cert", &certificate, "--key", &key];
    let ran = data.run(&serve);
    assert_eq!(ran.code, 1, "{}", ran.stderr);
    assert!(ran.stderr.contains("does not belong to the first certificate"), "{}", ran.stderr);
}

/// What curl gets from the health endpoint, trusting only one certificate.
fn curl(https: SocketAddr, certificate: &str, args: &[&str]) -> String {
    let url = format!("https://localhost:{}/", https.port());
    let resolve = format!("localhost:{}:{}", https.port(), https.ip());
    let output = Command::new("curl")
        .args(["-sS", "--noproxy", "*", "--resolve", &resolve, "--cacert", certificate])
        .args(args)
        .arg(url)
        .output()
        .expect("curl runs");
    let [stdout, stderr] = [output.stdout, output.stderr].map(String::from_utf8);
    stdout.expect("UTF-8") + &stderr.expect("UTF-8")
}

#[test]
fn devices_are_served_by_tls_alone_or_beside_http() {
    let data = Data::new();
    let made = data.json(&["cert", "self-signed"]);
    let (certificate, key) = (text(&made, "certificate"), text(&made, "key"));
    let small = "127.0.0.1:0,max_fragment_size=512";
    let tls = ["--tls-listen", "127.0.0.1:0", "--tls-listen", small];
    let shown = ["--cert", &certificate, "--key", &key];
    for (args, runtime) in [(&[][..], "mio"), (&["--listen", "off"], "tokio")] {
        let args = [&tls, &shown[..], args, &["--runtime", runtime]].concat();
        let server = data.serve_with(&args, &[]);
        assert_eq!(server.https.len(), 2);
        assert_eq!(server.http.port() == 0, runtime == "tokio", "off is off");
        for https in &server.https {
            for version in [&["--tls-max", "1.2"][..], &["--tlsv1.3"]] {
                assert_eq!(curl(*https, &certificate, version), HEALTHY);
            }
        }
        assert!(server.stop().status.success());
    }
}

#[test]
fn a_new_certificate_is_shown_and_a_broken_one_is_not() {
    let data = Data::new();
    let made = data.json(&["cert", "self-signed"]);
    let (certificate, key) = (text(&made, "certificate"), text(&made, "key"));
    let args = ["--tls-listen", "127.0.0.1:0", "--cert", &certificate, "--key", &key];
    let server = data.serve_with(&args, &[]);
    let https = server.https[0];
    let until = |line: &str| {
        while !crate::metrics::scrape(&server.admin).lines().any(|found| found == line) {}
    };
    let old = data.beside("old.pem").display().to_string();
    fs::copy(&certificate, &old).expect("copied");
    assert_eq!(curl(https, &old, &[]), HEALTHY);

    let renewed = data.json(&["cert", "self-signed", "--force", "--days", "10"]);
    server.signal(Signal::HUP);
    let expiry = "otter_tls_certificate_expiry_seconds{name=\"localhost\",key=\"ecdsa\"}";
    until(&format!("{expiry} {}", renewed["not_after"]));
    assert_eq!(curl(https, &certificate, &[]), HEALTHY);
    assert!(curl(https, &old, &[]).contains("certificate"), "the old one is gone");

    let failed = "otter_tls_reloads_total{result=\"failed\"}";
    let scraped = crate::metrics::scrape(&server.admin);
    let before = scraped.lines().find_map(|line| line.strip_prefix(failed)?.trim().parse().ok());
    let before: u64 = before.expect("a count");
    fs::write(&key, "broken").expect("written");
    // The first failure is not told, because the other file may be on its way.
    until(&format!("{failed} {}", before + 2));
    assert_eq!(curl(https, &certificate, &[]), HEALTHY);
    let ended = server.stop();
    assert!(ended.status.success());
    for words in ["certificates were read again", "expires in ", "the old ones stay in use"] {
        assert!(ended.stderr.contains(words), "{words} in {}", ended.stderr);
    }
    assert!(ended.stderr.contains("no private key in"), "{}", ended.stderr);
}

#[test]
fn mistakes_with_listeners_and_certificates_are_explained() {
    let data = Data::new();
    let tls = ["serve", "--tls-listen", "127.0.0.1:0"];
    for (args, code, words) in [
        (&tls[..], 2, "otter cert self-signed"),
        (&["serve", "--listen", "off"], 2, "name a place where devices connect"),
        (&[&tls[..], &["--cert", "absent.pem"]].concat(), 3, "absent.pem: No such file"),
        (&[&tls[..], &["--cert", "a", "--key", "b", "--key", "c"]].concat(), 2, "2 files"),
        (&["serve", "--tls-listen", "127.0.0.1:0,fast=1"], 2, "`fast` is no option"),
        (&["cert", "self-signed", "--name", "a name"], 2, "a name is one of DNS"),
        (&["cert", "self-signed", "--days", "0"], 2, "--days"),
        (&["cert", "show", "absent.pem"], 3, "absent.pem"),
    ] {
        let ran = data.run(args);
        assert_eq!(ran.code, code, "{args:?}: {}", ran.stderr);
        assert!(ran.stderr.contains(words), "{args:?}: {}", ran.stderr);
    }
    assert!(!data.path().exists(), "nothing is made before the settings are right");
}

#[test]
fn variables_name_one_listener_or_a_list() {
    let data = Data::new();
    let run = |listen: &str| {
        let mut command = crate::program::command(&data.path());
        let output = command.arg("serve").env("OTTER_TLS_LISTEN", listen).output();
        crate::program::Ran::of(output.expect("the program runs")).stderr
    };
    let (one, other) = ("127.0.0.1:1,max_fragment_size=512", "127.0.0.1:2");
    let said = run(one);
    assert!(said.contains(&format!("`tls_listen` {one} needs a certificate")), "{said}");
    let said = run(&format!("[\"{other}\", \"{one}\"]"));
    assert!(said.contains(&format!("`tls_listen` {other} needs a certificate")), "{said}");
}

#[test]
fn a_hangup_does_not_end_a_server_without_certificates() {
    let data = Data::new();
    let server = data.serve_with(&["--cert", "unused.pem"], &[]);
    server.signal(Signal::HUP);
    // It still answers, and ends as it should.
    assert!(crate::metrics::scrape(&server.admin).contains("otter_tls_reloads_total"));
    let ended = server.stop();
    assert!(ended.status.success(), "{}", ended.stderr);
    assert!(ended.stderr.contains("no certificates to read again"), "{}", ended.stderr);
    assert!(ended.stderr.contains("nobody is shown it"), "{}", ended.stderr);
}

const HEALTHY: &str = "{\"healthcheck\":true}";
