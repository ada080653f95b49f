//! Secrets: minted from the system's randomness, kept only as SHA-256 of their text, compared in
//! constant time.
//!
//! Of a token or key the store keeps the SHA-256 of its 64 digits (THiNX hashes texts, so an
//! existing `hash` keeps its meaning). Tokens are looked up by hash, so the time of a look-up says
//! nothing of a token's text.

use otter_protocol::id::hex_text;
use otter_protocol::{ApiKey, DeviceId, OwnerId, ReleaseId, Token};
use ring::digest;
use ring::rand::{SecureRandom, SystemRandom};
use subtle::ConstantTimeEq;

/// SHA-256 of a token's 64 digits: its name in the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct TokenHash(pub(crate) [u8; 32]);

impl TokenHash {
    /// The name of a token.
    pub(crate) fn of(token: &Token) -> Self {
        Self(sha256(&token.text()))
    }
}

/// SHA-256 of a key's 64 digits: its name in the store.
pub(crate) fn key_hash(key: &ApiKey) -> [u8; 32] {
    sha256(&key.text())
}

/// Are they equal? Takes the same time wherever they differ. By words: a fifth of the instructions
/// that the bytes one by one take.
pub(crate) fn equal(left: &[u8; 32], right: &[u8; 32]) -> bool {
    let (left, _) = left.as_chunks::<8>();
    let (right, _) = right.as_chunks::<8>();
    let pairs = left.iter().zip(right);
    let words = pairs.map(|(left, right)| u64::from_ne_bytes(*left) ^ u64::from_ne_bytes(*right));
    words.fold(0, |all, word| all | word).ct_eq(&0).into()
}

/// Mints what nobody can guess.
#[derive(Debug)]
pub(crate) struct Mint(SystemRandom);

impl Mint {
    pub(crate) fn new() -> Self {
        Self(SystemRandom::new())
    }

    /// An API key.
    ///
    /// # Errors
    /// [`NoRandomness`]
    pub(crate) fn key(&self) -> Result<ApiKey, NoRandomness> {
        self.bytes().map(ApiKey)
    }

    /// An owner's id.
    ///
    /// # Errors
    /// [`NoRandomness`]
    pub(crate) fn owner(&self) -> Result<OwnerId, NoRandomness> {
        let digits: [u8; 64] = hex_text(&self.bytes::<32>()?);
        let owner = std::str::from_utf8(&digits).ok().and_then(OwnerId::parse);
        Ok(owner.expect("64 hexadecimal digits are an owner id"))
    }

    /// A release id.
    ///
    /// # Errors
    /// [`NoRandomness`]
    pub(crate) fn release(&self) -> Result<ReleaseId, NoRandomness> {
        self.bytes().map(|bytes| ReleaseId(uuid_v4(bytes)))
    }

    /// All that one write may need, from one call to the system.
    ///
    /// # Errors
    /// [`NoRandomness`]
    pub(crate) fn minted(&self) -> Result<Minted, NoRandomness> {
        let bytes: [u8; 48] = self.bytes()?;
        let mut minted = Minted::NONE;
        minted.device.0.copy_from_slice(&bytes[..16]);
        minted.device.0 = uuid_v4(minted.device.0);
        minted.token.0.copy_from_slice(&bytes[16..]);
        Ok(minted)
    }

    /// Random bytes.
    ///
    /// # Errors
    /// [`NoRandomness`]
    pub(crate) fn bytes<const BYTES: usize>(&self) -> Result<[u8; BYTES], NoRandomness> {
        let mut bytes = [0; BYTES];
        self.0.fill(&mut bytes).map_err(|_| NoRandomness)?;
        Ok(bytes)
    }
}

/// The system has no randomness to give.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the system gives no randomness")]
pub(crate) struct NoRandomness;

/// What one write may use: the rules themselves have no randomness of their own.
#[derive(Debug)]
pub(crate) struct Minted {
    /// A random UUID (version 4).
    pub(crate) device: DeviceId,
    /// 32 random bytes.
    pub(crate) token: Token,
}

impl Minted {
    /// For writes that mint nothing.
    pub(crate) const NONE: Self = Self { device: DeviceId([0; 16]), token: Token([0; 32]) };
}

fn sha256(text: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest::digest(&digest::SHA256, text).as_ref());
    hash
}

/// Marks random bytes as a UUID of version 4 (RFC 9562, 5.4).
fn uuid_v4(mut bytes: [u8; 16]) -> [u8; 16] {
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    bytes
}

#[cfg(test)]
mod tests {
    use otter_protocol::id::bytes_from_hex;

    use super::*;

    #[test]
    fn the_hash_is_that_of_the_digits() {
        // printf %064d 0 | sha256sum
        let digits = b"60e05bd1b195af2f94112fa7197a5c88289058840ce7c6df9693756bc6250f55";
        let hash = bytes_from_hex(digits).expect("64 digits");
        assert_eq!(TokenHash::of(&Token([0; 32])), TokenHash(hash));
        assert_eq!(key_hash(&ApiKey([0; 32])), hash);
    }

    #[test]
    fn comparing_sees_every_byte() {
        let left = [7; 32];
        assert!(equal(&left, &left));
        for at in 0..32 {
            let mut right = left;
            right[at] ^= 1;
            assert!(!equal(&left, &right), "byte {at}");
        }
    }

    #[test]
    fn what_is_minted_differs_and_ids_are_uuids_of_version_4() {
        let mint = Mint::new();
        let (one, other) = (mint.minted().expect("random"), mint.minted().expect("random"));
        assert_ne!(one.device, other.device);
        assert_ne!(one.token.0, other.token.0);
        let text = one.device.to_string();
        assert_eq!(text.as_bytes()[14], b'4');
        assert!(matches!(text.as_bytes()[19], b'8' | b'9' | b'a' | b'b'), "{text}");
    }
}
