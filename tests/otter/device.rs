//! A device that speaks over a real socket.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use serde_json::Value;

/// A device.
#[derive(Clone)]
pub(crate) struct Device {
    pub(crate) server: SocketAddr,
    pub(crate) owner: String,
    pub(crate) key: String,
    pub(crate) udid: String,
}

/// An answer, read to the end of the connection.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// With its empty line.
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Device {
    /// The `n`th device of an owner.
    pub(crate) fn nth(server: SocketAddr, owner: &str, key: &str, n: u32) -> Self {
        Self {
            server,
            owner: owner.to_owned(),
            key: key.to_owned(),
            udid: format!("5ccf7fee-1337-4000-8000-{n:012x}"),
        }
    }

    fn mac(&self) -> String {
        format!("5CCF7F{}", self.udid[30..].to_uppercase())
    }

    /// Checks in and returns the object in the answer.
    pub(crate) fn check_in(&self, version: &str) -> Value {
        let answer = self.register(version).expect("an answer");
        let body: Value = serde_json::from_slice(&answer.body).expect("JSON");
        assert!(body["registration"].is_object(), "{body}");
        body["registration"].clone()
    }

    /// Checks in; `None` if the server went away.
    pub(crate) fn register(&self, version: &str) -> Option<Answer> {
        self.ask(&self.check_in_request(version))
    }

    /// What it sends to check in.
    pub(crate) fn check_in_request(&self, version: &str) -> String {
        self.post("/device/register", &self.registration(version))
    }

    /// The body of a check-in.
    pub(crate) fn registration(&self, version: &str) -> String {
        format!(
            "{{\"registration\":{{\"mac\":\"{}\",\"owner\":\"{}\",\"udid\":\"{}\",\
             \"version\":\"{version}\",\"platform\":\"arduino\"}}}}",
            self.mac(),
            self.owner,
            self.udid
        )
    }

    /// Asks for a token.
    pub(crate) fn token(&self) -> String {
        Self::token_in(&self.ask_for_token().expect("an answer"))
    }

    /// The token in an answer that has one.
    pub(crate) fn token_in(answer: &Answer) -> String {
        let body: Value = serde_json::from_slice(&answer.body).expect("JSON");
        crate::program::text(&body, "ott")
    }

    /// Asks for a token; `None` if the server went away.
    pub(crate) fn ask_for_token(&self) -> Option<Answer> {
        self.ask(&self.token_request())
    }

    /// What it sends to get a token.
    pub(crate) fn token_request(&self) -> String {
        let body = format!(
            "{{\"use\":\"ott\",\"mac\":\"{}\",\"owner\":\"{}\",\"udid\":\"{}\"}}",
            self.mac(),
            self.owner,
            self.udid
        );
        self.post("/device/firmware", &body)
    }

    /// Downloads from byte `start` on, to the end of the connection.
    pub(crate) fn download(&self, token: &str, start: usize) -> Answer {
        let mut stream = self.request_download(token, start).expect("connected");
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).expect("an answer");
        Answer::parse(bytes).expect("an answer")
    }

    /// Sends the request for a download and leaves the rest to the caller.
    pub(crate) fn request_download(&self, token: &str, start: usize) -> std::io::Result<TcpStream> {
        let mut stream = TcpStream::connect(self.server)?;
        stream.write_all(Self::download_request(token, start).as_bytes())?;
        Ok(stream)
    }

    /// What it sends to download.
    pub(crate) fn download_request(token: &str, start: usize) -> String {
        let range = if start > 0 { format!("Range: bytes={start}-\r\n") } else { String::new() };
        format!(
            "GET /device/firmware?ott={token} HTTP/1.0\r\nHost: otter\r\n{range}\
             User-Agent: ESP8266-http-Update\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
        )
    }

    fn post(&self, path: &str, body: &str) -> String {
        format!(
            "POST {path} HTTP/1.1\r\nHost: otter\r\nAuthentication: {}\r\nOrigin: device\r\n\
             Content-Type: application/json\r\nConnection: close\r\nContent-Length: {}\r\n\r\n\
             {body}\r\n",
            self.key,
            body.len()
        )
    }

    fn ask(&self, request: &str) -> Option<Answer> {
        let mut stream = TcpStream::connect(self.server).ok()?;
        stream.write_all(request.as_bytes()).ok()?;
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).ok()?;
        Answer::parse(bytes)
    }
}

impl Answer {
    /// `None` if there is not even a head.
    pub(crate) fn parse(mut bytes: Vec<u8>) -> Option<Self> {
        let at = bytes.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
        let body = bytes.split_off(at);
        let head = String::from_utf8(bytes).ok()?;
        let status = head.split(' ').nth(1)?.parse().ok()?;
        Some(Self { status, head, body })
    }

    /// The value of the first line of this name.
    pub(crate) fn header(&self, name: &str) -> Option<String> {
        let value = |line: &str| {
            let (found, value) = line.split_once(": ")?;
            found.eq_ignore_ascii_case(name).then(|| value.to_owned())
        };
        self.head.lines().find_map(value)
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// An image that begins like one for an ESP chip.
pub(crate) fn image(bytes: usize, seed: u8) -> Vec<u8> {
    let mut image: Vec<u8> = (0..bytes)
        .map(|i| (i as u8).wrapping_mul(31).wrapping_add((i >> 8) as u8) ^ seed)
        .collect();
    image[0] = 0xE9;
    image
}

/// SHA-256 in hexadecimal.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, bytes);
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}
