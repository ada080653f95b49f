//! Images whose bytes user space may read.

use std::io;

use bytes::Bytes;
use otter_store::Image;

/// An image whose bytes user space can read: what [`crate::drive`] needs, because it must hand
/// bytes, not a place that only the kernel may touch, to whatever is written to.
///
/// A type that shows a mapped file must not read the mapping here: a file that is cut short under
/// it ends the process (`SIGBUS`). [`Image`] reads from its descriptor.
pub trait Legible {
    /// The bytes from `offset` on: as many as fit into `buffer` or fewer, in `buffer` or wherever
    /// they lie. Empty if there are none any more. Must not wait for anything but the disk.
    ///
    /// # Errors
    /// They cannot be read: the connection ends.
    fn read<'a>(&'a self, offset: u64, buffer: &'a mut [u8]) -> io::Result<&'a [u8]>;
}

impl Legible for Image {
    fn read<'a>(&'a self, offset: u64, buffer: &'a mut [u8]) -> io::Result<&'a [u8]> {
        let n = rustix::io::pread(self, &mut *buffer, offset)?;
        Ok(&buffer[..n])
    }
}

impl Legible for Bytes {
    fn read<'a>(&'a self, offset: u64, buffer: &'a mut [u8]) -> io::Result<&'a [u8]> {
        let rest = usize::try_from(offset).ok().and_then(|offset| self.get(offset..));
        Ok(rest.map_or(&[], |rest| &rest[..rest.len().min(buffer.len())]))
    }
}
