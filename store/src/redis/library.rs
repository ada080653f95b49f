//! The functions that run inside of Redis.

use bytes_utils::Str;
use ring::digest::{SHA256, digest};

use super::keys::hex;

/// Their text and their names, which carry its digest: servers of two releases may work on one
/// Redis, each with its own.
pub(super) struct Library {
    pub(super) code: Str,
    /// Carries operations that only read.
    pub(super) read: String,
    /// Carries operations that write.
    pub(super) write: String,
}

impl Library {
    pub(super) fn new() -> Self {
        let mut hash = [0; 32];
        hash.copy_from_slice(digest(&SHA256, SOURCE.as_bytes()).as_ref());
        let version = &hex(&hash)[..VERSION_DIGITS];
        Self {
            code: SOURCE.replace("VERSION", version).into(),
            read: format!("otter_read_{version}"),
            write: format!("otter_write_{version}"),
        }
    }
}

const SOURCE: &str = include_str!("otter.lua");
const VERSION_DIGITS: usize = 12;
