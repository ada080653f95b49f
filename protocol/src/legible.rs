//! Images whose bytes user space may read.

use std::io;
use std::sync::Arc;

use bytes::Bytes;

/// An image whose bytes user space may read: what TLS needs, and whatever else is written to that
/// wants bytes and not a place that only the kernel may touch.
///
/// A type that shows a mapped file must not read the mapping here: a file that is cut short under
/// it ends the process (`SIGBUS`). It reads from its descriptor.
///
/// ```
/// use otter_protocol::Legible;
/// let image = bytes::Bytes::from_static(b"firmware");
/// assert_eq!(image.read(4, &mut [0; 3])?, b"war");
/// assert_eq!(image.read(8, &mut [0; 3])?, b"");
/// # Ok::<(), std::io::Error>(())
/// ```
pub trait Legible {
    /// The bytes from `offset` on: as many as fit into `buffer` or fewer, in `buffer` or wherever
    /// they lie. Empty if there are none any more. Must not wait for anything but the disk.
    ///
    /// # Errors
    /// They cannot be read: the connection ends.
    fn read<'a>(&'a self, offset: u64, buffer: &'a mut [u8]) -> io::Result<&'a [u8]>;
}

impl Legible for [u8] {
    fn read<'a>(&'a self, offset: u64, buffer: &'a mut [u8]) -> io::Result<&'a [u8]> {
        let rest = usize::try_from(offset).ok().and_then(|offset| self.get(offset..));
        Ok(rest.map_or(&[], |rest| &rest[..rest.len().min(buffer.len())]))
    }
}

impl Legible for Bytes {
    fn read<'a>(&'a self, offset: u64, buffer: &'a mut [u8]) -> io::Result<&'a [u8]> {
        self[..].read(offset, buffer)
    }
}

impl Legible for Vec<u8> {
    fn read<'a>(&'a self, offset: u64, buffer: &'a mut [u8]) -> io::Result<&'a [u8]> {
        self[..].read(offset, buffer)
    }
}

impl<I: Legible + ?Sized> Legible for &I {
    fn read<'a>(&'a self, offset: u64, buffer: &'a mut [u8]) -> io::Result<&'a [u8]> {
        (**self).read(offset, buffer)
    }
}

impl<I: Legible + ?Sized> Legible for Arc<I> {
    fn read<'a>(&'a self, offset: u64, buffer: &'a mut [u8]) -> io::Result<&'a [u8]> {
        (**self).read(offset, buffer)
    }
}

/// How an image is read.
pub(crate) type Read<I> = for<'a> fn(&'a I, u64, &'a mut [u8]) -> io::Result<&'a [u8]>;

#[cfg(test)]
mod tests {
    use super::*;

    /// The same bytes, whoever holds them.
    #[test]
    fn is_read_from_anywhere() {
        let bytes: Vec<u8> = (0..100).collect();
        let shared = Bytes::from(bytes.clone());
        for (offset, room, expected) in [
            (0, 10, &bytes[..10]),
            (95, 10, &bytes[95..]),
            (100, 10, &[][..]),
            (101, 10, &[]),
            (u64::MAX, 10, &[]),
            (50, 0, &[]),
        ] {
            let read = |image: &dyn Fn(&mut [u8]) -> Vec<u8>| image(&mut vec![0; room]);
            let found = [
                read(&|room| bytes[..].read(offset, room).expect("memory").to_vec()),
                read(&|room| bytes.read(offset, room).expect("memory").to_vec()),
                read(&|room| shared.read(offset, room).expect("memory").to_vec()),
                read(&|room| Legible::read(&&shared, offset, room).expect("memory").to_vec()),
                read(&|room| Arc::new(shared.clone()).read(offset, room).expect("memory").to_vec()),
            ];
            assert!(found.iter().all(|found| found == expected), "{offset}, {room}: {found:?}");
        }
    }
}
