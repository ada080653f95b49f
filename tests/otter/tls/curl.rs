//! curl, as operators and larger devices use it.

use std::process::Command;

use super::{ECDSA, RSA, Stage};
use crate::device::{Device, sha256};
use crate::program::text;
use crate::site::allow_updates;

/// What curl is told, and what it then says that is spoken.
const WAYS: [(&str, [&str; 4], &str); 9] = [
    (ECDSA, ["--tls-max", "1.2", "--ciphers", "ECDHE-ECDSA-AES128-GCM-SHA256"], "TLSv1.2"),
    (ECDSA, ["--tls-max", "1.2", "--ciphers", "ECDHE-ECDSA-AES256-GCM-SHA384"], "TLSv1.2"),
    (ECDSA, ["--tls-max", "1.2", "--ciphers", "ECDHE-ECDSA-CHACHA20-POLY1305"], "TLSv1.2"),
    (RSA, ["--tls-max", "1.2", "--ciphers", "ECDHE-RSA-AES128-GCM-SHA256"], "TLSv1.2"),
    (RSA, ["--tls-max", "1.2", "--ciphers", "ECDHE-RSA-AES256-GCM-SHA384"], "TLSv1.2"),
    (RSA, ["--tls-max", "1.2", "--ciphers", "ECDHE-RSA-CHACHA20-POLY1305"], "TLSv1.2"),
    (ECDSA, ["--tlsv1.3", "", "--tls13-ciphers", "TLS_AES_128_GCM_SHA256"], "TLSv1.3"),
    (RSA, ["--tlsv1.3", "", "--tls13-ciphers", "TLS_AES_256_GCM_SHA384"], "TLSv1.3"),
    (ECDSA, ["--tlsv1.3", "", "--tls13-ciphers", "TLS_CHACHA20_POLY1305_SHA256"], "TLSv1.3"),
];

/// What came of a request.
struct Got {
    body: Vec<u8>,
    /// With the heads of the answer, and what is spoken.
    said: String,
}

fn curl(stage: &Stage, way: &(&str, [&str; 4], &str), path: &str, args: &[&str]) -> Got {
    let (name, options, version) = way;
    let https = stage.https();
    let output = Command::new("curl")
        .args(["-sSv", "--noproxy", "*", "--tlsv1.2", "--cacert"])
        .arg(stage.data.beside(name))
        .args(["--resolve", &format!("{name}:{}:{}", https.port(), https.ip())])
        .args(options.iter().filter(|option| !option.is_empty()))
        .args(args)
        .arg(format!("https://{name}:{}{path}", https.port()))
        .output()
        .expect("curl runs");
    let said = String::from_utf8(output.stderr).expect("text");
    assert!(output.status.success(), "{way:?} {path}: {said}");
    let spoken = format!("SSL connection using {version} / {}", options[3]);
    assert!(said.contains(&spoken), "{spoken}: {said}");
    Got { body: output.stdout, said }
}

fn post(stage: &Stage, way: &(&str, [&str; 4], &str), path: &str, body: &str) -> Got {
    let key = format!("Authentication: {}", stage.key);
    let json = "Content-Type: application/json";
    curl(stage, way, path, &["-H", &key, "-H", json, "--data-raw", body])
}

fn check_in(stage: &Stage, way: &(&str, [&str; 4], &str), device: &Device) -> serde_json::Value {
    let got = post(stage, way, "/device/register", &device.registration("1.0.0"));
    let body: serde_json::Value = serde_json::from_slice(&got.body).expect("JSON");
    body["registration"].clone()
}

#[test]
fn from_registration_to_the_image_in_each_version_and_suite() {
    let stage = Stage::start();
    let wanted = sha256(&stage.image);
    for (way, n) in WAYS.iter().zip(0..) {
        let device = stage.device(n);
        assert_eq!(check_in(&stage, way, &device)["status"], "OK", "{way:?}");
        allow_updates(&stage.server.admin, &device.udid);
        let offer = check_in(&stage, way, &device);
        assert_eq!(offer["status"], "FIRMWARE_UPDATE", "{way:?}: {offer}");
        let path = format!("/device/firmware?ott={}", text(&offer, "ott"));

        // In two parts: the second goes on where the first was cut off.
        let first = curl(&stage, way, &path, &["-r", "0-33332"]);
        assert_eq!(first.body, stage.image[..33_333], "{way:?}");
        let rest = curl(&stage, way, &path, &["-r", "33333-"]);
        assert!(rest.said.contains("HTTP/1.1 206"), "{}", rest.said);
        let whole = [first.body, rest.body].concat();
        assert_eq!(sha256(&whole), wanted, "{way:?}");
        let gone = curl(&stage, way, &path, &[]);
        assert!(gone.said.contains("HTTP/1.1 404"), "{}", gone.said);

        // And at once, by the key.
        let body = format!(
            "{{\"mac\":\"5CCF7F00000{n}\",\"owner\":\"{}\",\"udid\":\"{}\"}}",
            device.owner, device.udid
        );
        let got = post(&stage, way, "/device/firmware", &body);
        assert_eq!(sha256(&got.body), wanted, "{way:?}: {}", got.said);
    }
    assert!(stage.handshakes("full") >= 6 * WAYS.len() as u64);
    stage.end();
}
