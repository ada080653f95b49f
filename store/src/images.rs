//! The directory of images.

/// An image that was copied in and is not published yet.
///
/// Dropped without being published, its file is removed again unless a release uses it.
#[derive(Debug)]
pub struct Staged {
    sha256: [u8; 32],
    md5: [u8; 16],
    size: u64,
    first_bytes: Vec<u8>,
}

impl Staged {
    /// SHA-256 of all bytes: the name of the image.
    #[must_use]
    pub fn sha256(&self) -> [u8; 32] {
        self.sha256
    }

    /// MD5 of all bytes, for `x-MD5`.
    #[must_use]
    pub fn md5(&self) -> [u8; 16] {
        self.md5
    }

    /// Length in bytes, at least 1.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The first 16 bytes, or all if there are fewer: enough to tell an ESP image, gzip or zip.
    #[must_use]
    pub fn first_bytes(&self) -> &[u8] {
        &self.first_bytes
    }
}
