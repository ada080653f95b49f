//! What is to be written next. Peek with [`crate::Connection::transmit`], write as much as the
//! socket takes, report it with [`crate::Connection::handle_sent`].

/// Bytes to write next: from memory, or from an image.
#[derive(Debug)]
#[must_use]
pub enum Transmit<'a, I> {
    /// Memory.
    Bytes {
        /// The bytes, never empty.
        bytes: &'a [u8],
        /// More follows at once: bytes of an image, or the end of the connection. Sent with
        /// `MSG_MORE`, both share a segment.
        more: bool,
    },
    /// Part of an image.
    Image {
        /// The image, for drivers that can send it without touching it (`sendfile`).
        image: &'a I,
        /// Where the part begins, in bytes from the image's start.
        offset: u64,
        /// Length of the part in bytes, never 0. The tail of a token's image is not in it until
        /// the claim succeeded.
        len: u64,
    },
}

impl<I> Clone for Transmit<'_, I> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<I> Copy for Transmit<'_, I> {}

impl<'a, I: AsRef<[u8]>> Transmit<'a, I> {
    /// The bytes, wherever they are. Of an image that is shorter than it was when the transfer
    /// began, what is left; empty if nothing is.
    #[must_use]
    pub fn as_slice(&self) -> &'a [u8] {
        match *self {
            Self::Bytes { bytes, .. } => bytes,
            Self::Image { image, offset, len } => {
                let bytes = image.as_ref();
                let start = usize::try_from(offset).map_or(bytes.len(), |at| at.min(bytes.len()));
                let left = &bytes[start..];
                &left[..usize::try_from(len).map_or(left.len(), |len| len.min(left.len()))]
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An image may be cut short under a transfer: what is left is shown, and nothing else.
    #[test]
    fn shows_no_more_of_an_image_than_there_is() {
        let image = b"0123456789";
        for (offset, len, shown) in
            [(0, 10, "0123456789"), (8, 10, "89"), (10, 1, ""), (u64::MAX, u64::MAX, "")]
        {
            let transmit = Transmit::Image { image, offset, len };
            let copy = Clone::clone(&transmit);
            assert_eq!(transmit.as_slice(), shown.as_bytes(), "{offset}, {len}");
            assert_eq!(copy.as_slice(), shown.as_bytes());
        }
    }
}
