//! ClientHellos by hand, for what rustls' client does not send.

use super::records::{HANDSHAKE, Record};

/// A ClientHello (RFC 5246 7.4.1.2). Default: what a device of TLS 1.2 sends.
#[derive(Clone, Debug)]
pub struct Hello {
    /// The version that it names. With TLS 1.3 still 3, 3.
    pub version: [u8; 2],
    /// The random number.
    pub random: [u8; 32],
    /// The session that it would take up again.
    pub session: Vec<u8>,
    /// The suites, best first.
    pub suites: Vec<u16>,
    /// The extensions: number and content.
    pub extensions: Vec<(u16, Vec<u8>)>,
}

impl Hello {
    /// ECDHE with ECDSA and RSA, AES-GCM, groups P-256 and X25519.
    #[must_use]
    pub fn new() -> Self {
        Self {
            version: [3, 3],
            random: [7; 32],
            session: Vec::new(),
            suites: vec![0xc02b, 0xc02f],
            extensions: vec![
                (GROUPS, vec![0, 4, 0, 23, 0, 29]),
                (POINT_FORMATS, vec![1, 0]),
                (SIGNATURES, vec![0, 8, 4, 3, 8, 4, 4, 1, 8, 7]),
            ],
        }
    }

    /// What the ESP8266 core sends to learn whether records may be small (docs/wire.md 2.5), as
    /// `WiFiClientSecure::probeMaxFragmentLength` makes it. `code` 1 to 4: 512 to 4096 bytes.
    #[must_use]
    pub fn esp8266_probe(code: u8) -> Self {
        let half = [1, 2, 3, 4, 5, 6, 7, 8, 17, 18, 19, 20, 21, 22, 23, 24];
        let mut random = [0; 32];
        random[..16].copy_from_slice(&half);
        random[16..].copy_from_slice(&half);
        Self { random, ..Self::new() }.with_fragments(code)
    }

    /// With the wish for records of `512 << (code - 1)` bytes (RFC 6066 4).
    #[must_use]
    pub fn with_fragments(mut self, code: u8) -> Self {
        self.extensions.push((MAX_FRAGMENT_LENGTH, vec![code]));
        self
    }

    /// With these suites alone.
    #[must_use]
    pub fn with_suites(mut self, suites: &[u16]) -> Self {
        self.suites = suites.to_vec();
        self
    }

    /// As a handshake message.
    #[must_use]
    pub fn message(&self) -> Vec<u8> {
        let mut body = [&self.version[..], &self.random].concat();
        body.push(self.session.len() as u8);
        body.extend_from_slice(&self.session);
        let suites: Vec<u8> = self.suites.iter().flat_map(|suite| suite.to_be_bytes()).collect();
        body.extend(sized(&suites));
        body.extend_from_slice(&[1, 0]);
        let extensions: Vec<u8> = self
            .extensions
            .iter()
            .flat_map(|(kind, content)| [&kind.to_be_bytes()[..], &sized(content)].concat())
            .collect();
        body.extend(sized(&extensions));
        let [_, high, middle, low] = (body.len() as u32).to_be_bytes();
        [&[CLIENT_HELLO, high, middle, low], &body[..]].concat()
    }

    /// As one record.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        Record { kind: HANDSHAKE, payload: self.message() }.bytes()
    }

    /// In records that have `bytes` of it each.
    #[must_use]
    pub fn in_records_of(&self, bytes: usize) -> Vec<u8> {
        let message = self.message();
        let pieces = message.chunks(bytes).map(<[u8]>::to_vec);
        pieces.flat_map(|payload| Record { kind: HANDSHAKE, payload }.bytes()).collect()
    }
}

impl Default for Hello {
    fn default() -> Self {
        Self::new()
    }
}

/// Behind its length in two bytes.
fn sized(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u16).to_be_bytes()[..], bytes].concat()
}

const CLIENT_HELLO: u8 = 1;
const MAX_FRAGMENT_LENGTH: u16 = 1;
const GROUPS: u16 = 10;
const POINT_FORMATS: u16 = 11;
const SIGNATURES: u16 = 13;
