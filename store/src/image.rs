//! One image: a file that is open, mapped once and shared.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

/// One open read-only file, mapped once, shared by reference count.
///
/// `AsRef<[u8]>` shows its bytes, `AsFd` its file for `sendfile`.
#[derive(Clone, Debug)]
pub struct Image {
    file: Arc<File>,
}

/// What tells one state of a file from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Device number of the file system.
    pub dev: u64,
    /// Number of the file within it.
    pub inode: u64,
    /// Length in bytes.
    pub size: u64,
    /// Last change of the content, in nanoseconds since 1970.
    pub mtime_ns: i128,
    /// Last change of content or attributes, in nanoseconds since 1970.
    pub ctime_ns: i128,
}

impl Image {
    /// Length in bytes, at least 1.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "an image is never empty")]
    pub fn len(&self) -> u64 {
        todo!()
    }

    /// What the file was when it was opened.
    #[must_use]
    pub fn identity(&self) -> Identity {
        todo!()
    }

    /// Is the file still what it was when it was opened? Asks the system (`fstat`).
    #[must_use]
    pub fn unchanged(&self) -> bool {
        todo!()
    }
}

impl AsRef<[u8]> for Image {
    fn as_ref(&self) -> &[u8] {
        todo!()
    }
}

impl AsFd for Image {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}
