//! A device that is played: real bytes over a real socket, as the libraries in the field send
//! them (docs/wire.md 1.1 and 2.4).

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::failure::{Context, Failure};

/// A device with its identity and its credential.
#[derive(Clone, Debug)]
pub(crate) struct Played {
    pub(crate) server: SocketAddr,
    pub(crate) owner: String,
    pub(crate) key: String,
    pub(crate) udid: String,
    pub(crate) mac: String,
    pub(crate) alias: String,
    pub(crate) platform: String,
}

/// What came back, as far as it was read.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    /// The value of a header, whatever its case; empty if it is not there.
    pub(crate) fn header(&self, name: &str) -> &str {
        let mut values = self.head.lines().filter_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then(|| value.trim())
        });
        values.next().unwrap_or_default()
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Bytes of head and body.
    pub(crate) fn len(&self) -> usize {
        self.head.len() + self.body.len()
    }
}

impl Played {
    /// `POST /device/register`, to the letter of library 2.9.450.
    pub(crate) fn check_in(&self, version: &str) -> Result<Answer, Failure> {
        let Self { owner, udid, mac, alias, platform, .. } = self;
        let body = format!(
            "{{\"registration\":{{\"mac\":\"{mac}\",\"version\":\"{version}\",\
             \"owner\":\"{owner}\",\"alias\":\"{alias}\",\"udid\":\"{udid}\",\
             \"firmware\":\"thinx-lib-esp8266-arduino:{version}\",\"status\":\"Registered\",\
             \"platform\":\"{platform}\",\"fcid\":\"164020\"}}}}"
        );
        self.post("/device/register", &body)
    }

    /// `POST /device/firmware` without a token.
    pub(crate) fn firmware(&self, version: &str, forced: bool) -> Result<Answer, Failure> {
        let Self { owner, udid, mac, .. } = self;
        let forced = if forced { ",\"forced\":\"true\"" } else { "" };
        let body = format!(
            "{{\"mac\":\"{mac}\",\"udid\":\"{udid}\",\"owner\":\"{owner}\",\
             \"version\":\"{version}\"{forced}}}"
        );
        self.post("/device/firmware", &body)
    }

    /// `GET /device/firmware?ott=`, to the letter of the ESP8266's updater, from byte `start` on.
    /// The connection is lost once `body_bytes` of the body are there, if that is not all.
    pub(crate) fn download(
        &self,
        token: &str,
        start: usize,
        body_bytes: usize,
    ) -> Result<Answer, Failure> {
        let range = if start > 0 { format!("Range: bytes={start}-\r\n") } else { String::new() };
        let request = format!(
            "GET /device/firmware?ott={token} HTTP/1.0\r\nHost: {}\r\n\
             User-Agent: ESP8266-http-Update\r\nConnection: close\r\n\
             x-ESP8266-Chip-ID: 15602487\r\nx-ESP8266-STA-MAC: {}\r\n\
             x-ESP8266-AP-MAC: DE:BA:7A:B1:E0:42\r\nx-ESP8266-free-space: 4194304\r\n\
             x-ESP8266-sketch-size: 400000\r\n\
             x-ESP8266-sketch-md5: 00112233445566778899aabbccddeeff\r\n\
             x-ESP8266-chip-size: 4194304\r\nx-ESP8266-sdk-version: 2.5.0\r\n\
             x-ESP8266-mode: sketch\r\n{range}Content-Length: 0\r\n\r\n",
            self.server, self.mac
        );
        self.exchange(request.as_bytes(), body_bytes)
    }

    fn post(&self, path: &str, body: &str) -> Result<Answer, Failure> {
        // The CRLF after the body is not counted, as in all the C++ libraries.
        let request = format!(
            "POST {path} HTTP/1.1\r\nHost: thinx.cloud\r\nAuthentication: {}\r\n\
             Accept: application/json\r\nOrigin: device\r\nContent-Type: application/json\r\n\
             User-Agent: THiNX-Client\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}\r\n",
            self.key,
            body.len()
        );
        self.exchange(request.as_bytes(), usize::MAX)
    }

    fn exchange(&self, request: &[u8], body_bytes: usize) -> Result<Answer, Failure> {
        let talking = || "the device cannot talk to the server".to_owned();
        let mut socket = TcpStream::connect(self.server).context(talking)?;
        socket.set_read_timeout(Some(PATIENCE)).context(talking)?;
        socket.write_all(request).context(talking)?;
        read_answer(&mut socket, body_bytes).context(talking)
    }
}

/// Reads until the peer closes, or `body_bytes` of the body are there.
fn read_answer(socket: &mut impl Read, body_bytes: usize) -> io::Result<Answer> {
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    let mut head_bytes = None;
    loop {
        if head_bytes.is_none() {
            head_bytes = bytes.windows(4).position(|w| w == b"\r\n\r\n").map(|at| at + 4);
        }
        let wanted = head_bytes.map_or(usize::MAX, |head| body_bytes.saturating_add(head));
        if bytes.len() >= wanted {
            bytes.truncate(wanted);
            break;
        }
        let room = buffer.len().min(wanted - bytes.len());
        match socket.read(&mut buffer[..room])? {
            0 => break,
            n => bytes.extend_from_slice(&buffer[..n]),
        }
    }
    let no_answer = || io::Error::new(io::ErrorKind::InvalidData, "this is no HTTP answer");
    let body = bytes.split_off(head_bytes.ok_or_else(no_answer)?);
    let head = String::from_utf8_lossy(&bytes).into_owned();
    let status = head.split(' ').nth(1).and_then(|text| text.parse().ok()).ok_or_else(no_answer)?;
    Ok(Answer { status, head, body })
}

/// How long a device waits for an answer.
const PATIENCE: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read_as_far_as_wanted() {
        let whole = b"HTTP/1.1 200 OK\r\nX-md5: ab\r\n\r\n0123456789";
        let answer = read_answer(&mut whole.as_slice(), usize::MAX).expect("an answer");
        assert_eq!((answer.status, answer.body.len(), answer.len()), (200, 10, whole.len()));
        assert_eq!(answer.header("x-MD5"), "ab");
        let part = read_answer(&mut whole.as_slice(), 4).expect("an answer");
        assert_eq!(part.text(), "0123");
        assert!(read_answer(&mut b"nonsense".as_slice(), 4).is_err());
    }
}
