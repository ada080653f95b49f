//! Records as they pass by: who cannot decrypt sees their kinds and sizes.

/// The header of a record, in bytes.
pub const HEADER_BYTES: usize = 5;
/// The kind of a record with part of a handshake.
pub const HANDSHAKE: u8 = 22;
/// The kind of a record with data; from the handshake of TLS 1.3 on, of all records.
pub const APPLICATION: u8 = 23;
const ALERT: u8 = 21;

/// One record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// What its header says it is.
    pub kind: u8,
    /// What follows the header.
    pub payload: Vec<u8>,
}

/// An alert that is not encrypted: level and description (RFC 5246 7.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Alert(pub u8, pub u8);

impl Alert {
    /// An end that is meant.
    pub const CLOSE_NOTIFY: u8 = 0;
    /// Not now, or not in this place.
    pub const UNEXPECTED_MESSAGE: u8 = 10;
    /// Longer than may be.
    pub const RECORD_OVERFLOW: u8 = 22;
    /// Nothing in common.
    pub const HANDSHAKE_FAILURE: u8 = 40;
    /// Not in the form of a message.
    pub const DECODE_ERROR: u8 = 50;
    /// A version that is too old.
    pub const PROTOCOL_VERSION: u8 = 70;
}

impl Record {
    /// The alert, if it is one that everybody can read.
    #[must_use]
    pub fn alert(&self) -> Option<Alert> {
        match (self.kind, self.payload.as_slice()) {
            (ALERT, [level, description]) => Some(Alert(*level, *description)),
            _ => None,
        }
    }

    /// As it is sent.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        let len = u16::try_from(self.payload.len()).expect("fits into a record").to_be_bytes();
        [&[self.kind, 3, 3], &len[..], &self.payload].concat()
    }
}

/// The records that these bytes are.
///
/// # Panics
/// If the last one is not whole.
#[must_use]
pub fn records(mut wire: &[u8]) -> Vec<Record> {
    let mut records = Vec::new();
    while let [kind, 3, _, high, low, rest @ ..] = wire {
        let len = usize::from(u16::from_be_bytes([*high, *low]));
        let (payload, rest) = rest.split_at_checked(len).expect("a whole record");
        records.push(Record { kind: *kind, payload: payload.to_vec() });
        wire = rest;
    }
    assert!(wire.is_empty(), "no record: {}", wire.escape_ascii());
    records
}
