//! Memory that connections borrow while they need it, of the size of one TLS record.

use std::sync::{Mutex, PoisonError};

/// Pieces of memory that wait to be used again. A clone starts empty, as that of
/// [`crate::exchange::Spare`].
#[derive(Default)]
pub(crate) struct Buffers(Mutex<Vec<Vec<u8>>>);

impl Buffers {
    /// At least [`BUFFER_BYTES`] bytes, of whatever was in them last.
    pub(crate) fn take(&self) -> Vec<u8> {
        let spare = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
        spare.unwrap_or_else(|| vec![0; BUFFER_BYTES])
    }

    /// What was taken, or nothing.
    pub(crate) fn put(&self, memory: Vec<u8>) {
        let mut spare = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if memory.len() == BUFFER_BYTES && spare.len() < SPARE_MAX {
            spare.push(memory);
        }
    }
}

impl Clone for Buffers {
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl std::fmt::Debug for Buffers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Buffers")
    }
}

/// The plaintext of one record and what sealing adds, also if it leaves in 512-byte pieces.
pub(crate) const BUFFER_BYTES: usize = 17 * 1024;
/// Those that one turn of a loop needs: what is received, what is read of an image, what is sealed,
/// and some that wait for their sockets.
const SPARE_MAX: usize = 16;
