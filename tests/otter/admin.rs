//! The admin socket, spoken to byte by byte.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use serde_json::Value;

/// Sends one request and returns status and body.
pub(crate) fn raw(socket: &Path, method: &str, target: &str, body: &[u8]) -> (u16, String) {
    let mut stream = UnixStream::connect(socket).expect("connected");
    let head = format!(
        "{method} {target} HTTP/1.1\r\nHost: otter\r\nConnection: close\r\n\
         Content-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).expect("sent");
    stream.write_all(body).expect("sent");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("an answer");
    let status = text.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    let body = text.split_once("\r\n\r\n").expect("a body").1.to_owned();
    (status, body)
}

/// Sends one request that must succeed, and takes its JSON.
pub(crate) fn json(socket: &Path, method: &str, target: &str, body: &[u8]) -> Value {
    let (status, text) = raw(socket, method, target, body);
    assert_eq!(status, 200, "{method} {target}: {text}");
    serde_json::from_str(&text).expect("JSON")
}

/// An owner and a key.
pub(crate) fn owner_with_key(socket: &Path) -> (String, String) {
    let owner = crate::program::text(&json(socket, "POST", "/owners", b""), "owner");
    let body = format!("{{\"owner\":\"{owner}\"}}");
    let key = crate::program::text(&json(socket, "POST", "/keys", body.as_bytes()), "key");
    (owner, key)
}
