//! A secret that servers share.

use std::fmt;

use ring::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};

/// A text that is shown to nobody.
#[derive(Clone, Deserialize, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub(crate) struct Secret(String);

impl Secret {
    /// The text itself, for whoever it is presented to.
    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }

    /// SHA-256 of the text, to compare.
    pub(crate) fn hash(&self) -> [u8; 32] {
        let mut hash = [0; 32];
        hash.copy_from_slice(digest(&SHA256, self.0.as_bytes()).as_ref());
        hash
    }

    /// Is it long enough not to be guessed, and can it stand in a header?
    pub(crate) fn is_good(&self) -> bool {
        self.0.len() >= BYTES_MIN && self.0.bytes().all(|b| b.is_ascii_graphic())
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// As many characters as 128 random bits have hexadecimal digits.
const BYTES_MIN: usize = 32;
