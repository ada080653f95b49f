//! `openssl s_client`, which can be told what to say and tells what it heard.

use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};

use super::relay::Relay;
use super::{ECDSA, RSA, Stage};
use crate::device::{Answer, Device};

/// What it wrote: of the connection and what came by it, and what went wrong.
pub(super) struct Said {
    pub(super) stdout: Vec<u8>,
    pub(super) stderr: String,
}

impl Said {
    pub(super) fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned() + &self.stderr
    }
}

/// Connects, trusting one certificate, sends the text, and goes on until the server closes.
pub(super) fn s_client(trusted: &Path, server: SocketAddr, args: &[&str], text: &str) -> Said {
    let name: &[&str] = if args.iter().any(|arg| arg.ends_with("servername")) {
        &[]
    } else {
        &["-servername", ECDSA]
    };
    let mut child = Command::new("openssl")
        .args(["s_client", "-connect", &server.to_string(), "-CAfile"])
        .arg(trusted)
        .args(name)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("openssl runs");
    let mut stdin = child.stdin.take().expect("a pipe");
    // It may be refused before it reads that.
    let _ = stdin.write_all(text.as_bytes());
    drop(stdin);
    let output = child.wait_with_output().expect("it ends");
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    Said { stdout: output.stdout, stderr }
}

const HEALTH: &str = "GET / HTTP/1.1\r\nHost: otter\r\nConnection: close\r\n\r\n";

#[test]
fn records_are_as_short_as_is_asked_for() {
    let stage = Stage::start();
    let relay = Relay::to(stage.https());
    for (version, n) in [("-tls1_2", 0), ("-tls1_3", 1)] {
        for (length, bytes) in [("512", 512), ("1024", 1024), ("2048", 2048), ("4096", 4096)] {
            let request = Device::download_request(&stage.token(n), 0);
            let args = ["-quiet", "-verify_return_error", version, "-maxfraglen", length];
            let said = s_client(&stage.ecdsa(), relay.address, &args, &request);
            let answer = Answer::parse(said.stdout).unwrap_or_else(|| panic!("{}", said.stderr));
            assert!(answer.status == 200 && answer.body == stage.image, "{version} {length}");
            let longest = relay.longest();
            assert!((bytes + 1..=bytes + 29).contains(&longest), "{version} {length}: {longest}");
        }
    }
    let said = s_client(&stage.ecdsa(), relay.address, &["-quiet"], HEALTH);
    assert!(said.text().contains("{\"healthcheck\":true}"), "{}", said.text());
    stage.end();
}

#[test]
fn sessions_are_resumed_by_ticket_and_by_id() {
    let stage = Stage::start();
    let file = stage.data.beside("session").display().to_string();
    let request = stage.device(1).check_in_request("1.0.0");
    for (way, resumed) in [
        (&["-tls1_2"][..], "Reused, TLSv1.2"),
        (&["-tls1_2", "-no_ticket"], "Reused, TLSv1.2"),
        (&["-tls1_3"], "Reused, TLSv1.3"),
    ] {
        let (before, full) = (stage.handshakes("resumed"), stage.handshakes("full"));
        let first = [&["-ign_eof", "-sess_out", &file], way].concat();
        let said = s_client(&stage.ecdsa(), stage.https(), &first, &request).text();
        assert!(said.contains("New, TLSv1.") && said.contains("\"status\":\"OK\""), "{said}");
        assert_eq!(said.contains("TLS session ticket:"), !way.contains(&"-no_ticket"), "{said}");
        let again = [&["-ign_eof", "-sess_in", &file], way].concat();
        let said = s_client(&stage.ecdsa(), stage.https(), &again, &request).text();
        assert!(said.contains(resumed) && said.contains("\"status\":\"OK\""), "{said}");
        let counted = (stage.handshakes("resumed"), stage.handshakes("full"));
        assert_eq!(counted, (before + 1, full + 1), "{way:?}");
    }
    for more in [&["-tls1_2"][..], &["-tls1_2", "-no_ticket"]] {
        let args = [&["-reconnect"], more].concat();
        let said = s_client(&stage.ecdsa(), stage.https(), &args, "").text();
        assert_eq!(said.matches("Reused, TLSv1.2").count(), 5, "{said}");
    }
    stage.end();
}

#[test]
fn what_is_broken_or_may_be_read_later_is_refused_by_an_alert() {
    let stage = Stage::start();
    for args in [
        ["-tls1_1", "-cipher", "ALL:@SECLEVEL=0"],
        ["-tls1_2", "-cipher", "AES128-SHA:@SECLEVEL=0"],
        ["-tls1_2", "-cipher", "AES128-GCM-SHA256"],
        ["-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-SHA"],
    ] {
        for name in [ECDSA, RSA] {
            let said = s_client(
                &stage.ecdsa(),
                stage.https(),
                &[&args, &["-servername", name][..]].concat(),
                "",
            );
            assert!(said.stderr.contains("SSL alert number"), "{args:?}: {}", said.text());
        }
    }
    stage.until("otter_tls_handshakes_total{result=\"nothing_in_common\"}", 8);
    let said = s_client(&stage.ecdsa(), stage.https(), &["-tls1_2", "-comp", "-status"], "").text();
    for words in ["Compression: NONE", "OCSP response: no response sent", "No ALPN negotiated"] {
        assert!(said.contains(words), "{words}: {said}");
    }
    stage.end();
}

#[test]
fn renegotiation_is_refused_and_is_nobodys_trouble() {
    let stage = Stage::start();
    for args in [&["-tls1_2"][..], &["-tls1_2", "-legacy_renegotiation"]] {
        // A line with an R alone asks for it.
        let said = s_client(&stage.ecdsa(), stage.https(), args, "R\n");
        assert!(said.stderr.contains("no renegotiation"), "{}", said.text());
    }
    let log = stage.end();
    assert!(!log.contains("rustls"), "a stranger fills the log: {log}");
}

#[test]
fn a_name_chooses_the_certificate_and_none_is_needed() {
    let stage = Stage::start();
    for version in ["-tls1_2", "-tls1_3"] {
        for (name, kind) in [
            (&["-servername", ECDSA][..], "ECDSA"),
            (&["-servername", RSA], "RSA-PSS"),
            (&["-servername", "nobody.example"], "ECDSA"),
            (&["-noservername"], "ECDSA"),
        ] {
            let args = [&["-ign_eof", version], name].concat();
            let said = s_client(&stage.ecdsa(), stage.https(), &args, HEALTH).text();
            let signed = format!("Peer signature type: {kind}");
            assert!(said.contains(&signed), "{version} {name:?}: {said}");
            assert!(said.contains("{\"healthcheck\":true}"), "{version} {name:?}: {said}");
        }
    }
    stage.end();
}
