//! Devices without end, each of them a function of its number: who it is, whose, and what it says.

use anyhow::{Context, Result};
use otter_protocol::OwnerId;
use otter_tests::Random;
use ring::digest::{SHA256, digest};

/// Numbered devices of many owners.
pub(crate) struct Fleet {
    pub(crate) devices: u64,
    owners: Vec<Owner>,
    request: Vec<u8>,
    places: Places,
}

/// An owner, and its one key.
pub(crate) struct Owner {
    pub(crate) id: OwnerId,
    pub(crate) key: [u8; 64],
}

/// Where a request differs from one device to the next.
struct Places {
    key: usize,
    mac: usize,
    version: usize,
    owner: usize,
    udid: usize,
}

impl Fleet {
    /// So many devices, a hundred of each owner.
    pub(crate) fn new(devices: u64) -> Result<Self> {
        Self::of_owners(devices, (devices / 100).max(1))
    }

    /// So many devices of so many owners.
    pub(crate) fn of_owners(devices: u64, owners: u64) -> Result<Self> {
        let owners: Result<_> = (0..owners).map(Owner::numbered).collect();
        let request = request();
        let place = |mark: &[u8]| {
            let found = request.windows(mark.len()).position(|text| text == mark);
            found.context("the request has no such place")
        };
        let places = Places {
            key: place(&[b'k'; 64])?,
            mac: place(b"mmmmmmmmmmmm")?,
            version: place(b"vvv")?,
            owner: place(&[b'o'; 64])?,
            udid: place(&[b'u'; 36])?,
        };
        Ok(Self { devices, owners: owners?, request, places })
    }

    pub(crate) fn owners(&self) -> &[Owner] {
        &self.owners
    }

    /// Neighbours in the order of registration have different owners.
    pub(crate) fn owner_of(&self, number: u64) -> &Owner {
        &self.owners[(number % self.owners.len() as u64) as usize]
    }

    /// Writes the check-in of library 2.9.450 (docs/wire.md 1.1) as this device over what `request`
    /// holds: it says version 2.9.`build`.
    pub(crate) fn write_check_in(&self, number: u64, build: u64, request: &mut Vec<u8>) {
        if request.len() != self.request.len() {
            request.clone_from(&self.request);
        }
        let owner = self.owner_of(number);
        let mut put = |at: usize, text: &[u8]| request[at..at + text.len()].copy_from_slice(text);
        put(self.places.key, &owner.key);
        put(self.places.owner, owner.id.as_bytes());
        put(self.places.udid, &udid(number));
        put(self.places.mac, &mac(number));
        put(self.places.version, &decimal(build));
    }

    /// A request for a token by this device (docs/wire.md 1.3).
    pub(crate) fn token_request(&self, number: u64) -> Vec<u8> {
        let owner = self.owner_of(number);
        let (udid, mac) = (udid(number), mac(number));
        let body = format!(
            r#"{{"use":"ott","mac":"{}","udid":"{}","owner":"{}","version":"2.9.450"}}"#,
            String::from_utf8_lossy(&mac),
            String::from_utf8_lossy(&udid),
            owner.id.as_str()
        );
        let head = format!(
            "POST /device/firmware HTTP/1.0\r\nAuthentication: {}\r\nContent-Length: {}\r\n\r\n",
            String::from_utf8_lossy(&owner.key),
            body.len()
        );
        [head.as_bytes(), body.as_bytes()].concat()
    }
}

impl Owner {
    fn numbered(number: u64) -> Result<Self> {
        let mut random = Random::new(number);
        let id: [u8; 64] = hex(&random.bytes::<32>());
        let id = OwnerId::parse(std::str::from_utf8(&id)?).context("no owner id")?;
        Ok(Self { id, key: hex(&random.bytes::<32>()) })
    }

    /// All that a store keeps of the key.
    pub(crate) fn key_hash(&self) -> [u8; 32] {
        let mut hash = [0; 32];
        hash.copy_from_slice(digest(&SHA256, &self.key).as_ref());
        hash
    }
}

/// Ascending, so that a database need not be sorted while it grows, and otherwise random.
fn udid(number: u64) -> [u8; 36] {
    let mut digits = [0; 32];
    digits[..8].copy_from_slice(&hex::<4, 8>(&(number as u32).to_be_bytes()));
    digits[8..].copy_from_slice(&hex::<12, 24>(&Random::new(number).bytes()));
    let mut text = [b'-'; 36];
    let mut at = 0;
    for group in [8, 4, 4, 4, 12] {
        let end = at + group;
        let dashes = [8, 12, 16, 20].iter().filter(|after| **after <= at).count();
        text[at + dashes..end + dashes].copy_from_slice(&digits[at..end]);
        at = end;
    }
    text
}

/// Of a maker whose devices have more than 24 bits of their own.
fn mac(number: u64) -> [u8; 12] {
    let bytes = (0x5ccf_0000_0000 | number).to_be_bytes();
    let mut text = hex::<6, 12>(&[bytes[2], bytes[3], bytes[4], bytes[5], bytes[6], bytes[7]]);
    text.make_ascii_uppercase();
    text
}

fn decimal(build: u64) -> [u8; 3] {
    [build / 100 % 10, build / 10 % 10, build % 10].map(|digit| b'0' + digit as u8)
}

fn hex<const BYTES: usize, const DIGITS: usize>(bytes: &[u8; BYTES]) -> [u8; DIGITS] {
    std::array::from_fn(|at| {
        let nibble = bytes[at / 2] >> (4 * (1 - at % 2)) & 15;
        b"0123456789abcdef"[usize::from(nibble)]
    })
}

/// With marks where devices differ.
fn request() -> Vec<u8> {
    let body = format!(
        concat!(
            r#"{{"registration":{{"mac":"mmmmmmmmmmmm","version":"2.9.vvv","owner":"{}","#,
            r#""alias":"unnamed","udid":"{}","firmware":"thinx-lib-esp32-arduino:2.9.450","#,
            r#""status":"Registered","platform":"arduino:esp8266","fcid":"164020"}}}}"#
        ),
        "o".repeat(64),
        "u".repeat(36)
    );
    let head = format!(
        concat!(
            "POST /device/register HTTP/1.1\r\nHost: thinx.cloud\r\nAuthentication: {}\r\n",
            "Accept: application/json\r\nOrigin: device\r\nContent-Type: application/json\r\n",
            "User-Agent: THiNX-Client\r\nContent-Length: {}\r\n\r\n"
        ),
        "k".repeat(64),
        body.len()
    );
    [head.as_bytes(), body.as_bytes()].concat()
}

/// What all devices run at first: 2.9.450.
pub(crate) const BUILD: u64 = 450;

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use otter_protocol::{DeviceId, Mac};

    use super::*;

    /// Or a store of a million would have fewer.
    #[test]
    fn no_two_devices_are_one() {
        let numbers = [0, 1, 9, 10, 255, 256, 65_536, 9_999_999];
        let ids: HashSet<_> = numbers
            .iter()
            .map(|number| {
                let (udid, mac) = (udid(*number), mac(*number));
                let udid = DeviceId::parse(std::str::from_utf8(&udid).expect("ASCII"));
                let mac = Mac::parse(std::str::from_utf8(&mac).expect("ASCII"));
                (udid.expect("an id"), mac.expect("a MAC").to_bits())
            })
            .collect();
        assert_eq!(ids.len(), numbers.len());
    }

    /// What is written over another device's request is what a new one would hold.
    #[test]
    fn a_request_keeps_nothing_of_the_device_before() {
        let fleet = Fleet::new(100_000).expect("a fleet");
        let (mut again, mut new) = (Vec::new(), Vec::new());
        fleet.write_check_in(99_999, 123, &mut again);
        fleet.write_check_in(7, BUILD, &mut again);
        fleet.write_check_in(7, BUILD, &mut new);
        assert_eq!(again, new);
        let text = String::from_utf8(new).expect("ASCII");
        assert!(text.contains(fleet.owner_of(7).id.as_str()) && text.contains("\"2.9.450\""));
        assert!(!text.contains("mmm") && !text.contains("ooo") && !text.contains("uuu"));
    }
}
