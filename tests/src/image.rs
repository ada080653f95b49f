//! Images as the tests publish them: the size and the version decide every byte.

use bytes::Bytes;
use md5::{Digest, Md5};

use crate::Random;

/// Makes an image of `size` bytes that names its `version`: 0xE9, as the updaters demand, then the
/// version as a line of text, then bytes that no other version or size shares.
///
/// # Panics
/// If `size` has no room for the version.
#[must_use]
pub fn image(version: &str, size: usize) -> Bytes {
    let mut bytes = vec![FIRST_BYTE];
    bytes.extend_from_slice(version.as_bytes());
    bytes.push(b'\n');
    assert!(bytes.len() <= size, "{size} bytes have no room for version {version}");
    let seed = bytes.iter().fold(size as u64, |seed, byte| seed.rotate_left(9) ^ u64::from(*byte));
    let mut random = Random::new(seed);
    while bytes.len() < size {
        let word: [u8; 8] = random.draw().to_le_bytes();
        bytes.extend_from_slice(&word[..word.len().min(size - bytes.len())]);
    }
    Bytes::from(bytes)
}

/// The version that an image names; `None` for what [`image`] did not make.
#[must_use]
pub fn version_of(image: &[u8]) -> Option<&str> {
    let text = image.strip_prefix(&[FIRST_BYTE])?;
    let end = text.iter().position(|b| *b == b'\n')?;
    std::str::from_utf8(&text[..end]).ok()
}

/// SHA-256 of an image: what [`otter_protocol::Offer::sha256`] holds.
#[must_use]
pub fn sha256_of(image: &[u8]) -> [u8; 32] {
    let digest = ring::digest::digest(&ring::digest::SHA256, image);
    std::array::from_fn(|i| digest.as_ref()[i])
}

/// MD5 of an image: what the device updaters check.
#[must_use]
pub fn md5_of(image: &[u8]) -> [u8; 16] {
    Md5::digest(image).into()
}

/// Lower-case hexadecimal, two digits a byte.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// What every image of the ESP families begins with (docs/wire.md 2.4).
pub const FIRST_BYTE: u8 = 0xE9;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_a_function_of_version_and_size() {
        let one = image("1.2.0", 2000);
        assert_eq!((one.len(), one[0], version_of(&one)), (2000, 0xE9, Some("1.2.0")));
        assert_eq!(one, image("1.2.0", 2000));
        assert_ne!(one[10..], image("1.2.1", 2000)[10..]);
        assert_eq!(hex(&md5_of(b"")), "d41d8cd98f00b204e9800998ecf8427e");
        assert!(hex(&sha256_of(b"")).starts_with("e3b0c442"));
    }
}
