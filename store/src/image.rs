//! One image: a file that is open, mapped once and shared.
//!
//! The only unsafe code of the workspace stands here: mapping a file. What makes it sound:
//!
//! 1. **The file is ours and immutable.** Every image is a copy in our own directory, named by its
//!    SHA-256, written aside, synced, made read-only and renamed into place; no code of ours
//!    writes to it again. Operators' files are never mapped.
//! 2. **The file cannot be exchanged under the mapping.** It is pinned by its descriptor; renaming
//!    or removing the path leaves the bytes where they are.
//! 3. **On the plain path nobody but the kernel touches the mapping**: `sendfile` and `send` read
//!    it. Should somebody break rule 1 by hand and cut the file short, they see a short count or
//!    `EFAULT` (one connection ends), where a read by user space would be `SIGBUS`.
//! 4. **Whoever breaks rule 1 is found out.** [`Image::unchanged`] compares inode, size and times
//!    with those at opening; it is asked before an image is given out and again before a token is
//!    claimed, so bytes that were changed under way never become a whole image.

#![allow(unsafe_code, reason = "mapping a file is unsafe; the rules above make it sound")]

use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Weak};

use memmap2::{Mmap, MmapOptions};
use otter_protocol::Legible;
use rustix::fs::FileType;

/// One open read-only file, mapped once, shared by reference count.
///
/// `AsRef<[u8]>` shows its bytes, [`AsFd`] its file for `sendfile`. On a plain connection hand
/// either to the kernel and touch no byte (see the module's rules); a driver that must read the
/// bytes itself reads them from the descriptor.
///
/// ```
/// use std::io::Write;
/// use otter_store::{Image, Memory, MemoryOptions};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let directory = tempfile::tempdir()?;
/// let store = Memory::open(directory.path(), MemoryOptions::default())?;
/// let staged = store.operator().stage(&mut &b"firmware"[..], 1 << 20)?;
/// let image: Image = staged.image().ok_or("the file vanished")?;
/// assert_eq!(image.len(), 8);
/// assert!(image.unchanged());
/// std::io::sink().write_all(image.as_ref())?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Image(Arc<Opened>);

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
    /// Last change of content or attributes (removal included), in nanoseconds since 1970.
    pub ctime_ns: i128,
}

impl Image {
    /// Maps an open file.
    ///
    /// # Errors
    /// If it is no regular file, is empty, or cannot be mapped.
    pub(crate) fn map(file: File) -> io::Result<Self> {
        let identity = identity_of(&file)?;
        let len = usize::try_from(identity.size)
            .map_err(|_| io::Error::other("the image is longer than the address space"))?;
        // SAFETY: `file` was opened read-only from the directory of images, whose files are never
        // written after their rename into place (rule 1); the descriptor kept beside the mapping
        // pins the inode (rule 2).
        let map = unsafe { MmapOptions::new().len(len).map(&file)? };
        Ok(Self(Arc::new(Opened { file, map, identity })))
    }

    /// Length in bytes, at least 1.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "an image is never empty")]
    pub fn len(&self) -> u64 {
        self.0.identity.size
    }

    /// What the file was when it was opened.
    #[must_use]
    pub fn identity(&self) -> Identity {
        self.0.identity
    }

    /// Is the file still what it was when it was opened? Asks the system (`fstat`); false also
    /// where the file was removed since.
    #[must_use]
    pub fn unchanged(&self) -> bool {
        identity_of(&self.0.file).is_ok_and(|now| now == self.0.identity)
    }

    /// A reference that does not keep the file open.
    pub(crate) fn downgrade(&self) -> WeakImage {
        WeakImage(Arc::downgrade(&self.0))
    }
}

impl AsRef<[u8]> for Image {
    fn as_ref(&self) -> &[u8] {
        &self.0.map
    }
}

impl Legible for Image {
    /// From the file, never from the mapping: `SIGBUS` is no error that one connection can have.
    fn read<'a>(&'a self, offset: u64, buffer: &'a mut [u8]) -> io::Result<&'a [u8]> {
        let n = rustix::io::pread(&self.0.file, &mut *buffer, offset)?;
        Ok(&buffer[..n])
    }
}

impl AsFd for Image {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.file.as_fd()
    }
}

impl fmt::Debug for Image {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Image").field(&self.0.identity).finish()
    }
}

/// Remembers an image without keeping it open.
#[derive(Debug)]
pub(crate) struct WeakImage(Weak<Opened>);

impl WeakImage {
    /// The image, if anybody still has it open.
    pub(crate) fn upgrade(&self) -> Option<Image> {
        self.0.upgrade().map(Image)
    }
}

/// What `fstat` says of an open file.
///
/// # Errors
/// If it is not a regular file of at least one byte.
pub(crate) fn identity_of(file: &File) -> io::Result<Identity> {
    let stat = rustix::fs::fstat(file)?;
    let regular = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
    match u64::try_from(stat.st_size) {
        Ok(size) if regular && size > 0 => Ok(Identity {
            dev: stat.st_dev,
            inode: stat.st_ino,
            size,
            mtime_ns: nanoseconds(stat.st_mtime, stat.st_mtime_nsec),
            ctime_ns: nanoseconds(stat.st_ctime, stat.st_ctime_nsec),
        }),
        _ => Err(io::Error::other("an image is a regular file of at least one byte")),
    }
}

#[derive(Debug)]
struct Opened {
    file: File,
    map: Mmap,
    identity: Identity,
}

fn nanoseconds(seconds: i64, nanoseconds: u64) -> i128 {
    i128::from(seconds) * 1_000_000_000 + i128::from(nanoseconds)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write as _;

    use super::*;

    fn image_of(bytes: &[u8]) -> (tempfile::TempDir, std::path::PathBuf, Image) {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("image");
        fs::write(&path, bytes).expect("a file");
        let image = Image::map(File::open(&path).expect("readable")).expect("mapped");
        (directory, path, image)
    }

    #[test]
    fn it_shows_its_bytes_and_knows_its_length() {
        let (_directory, _path, image) = image_of(b"firmware");
        assert_eq!(image.as_ref(), b"firmware");
        assert_eq!(image.len(), 8);
        assert!(image.unchanged());
    }

    #[test]
    fn empty_files_and_directories_are_no_images() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("empty");
        fs::write(&path, b"").expect("a file");
        assert!(Image::map(File::open(&path).expect("readable")).is_err());
        assert!(Image::map(File::open(directory.path()).expect("readable")).is_err());
    }

    #[test]
    fn a_file_that_is_cut_grown_rewritten_or_removed_has_changed() {
        let cut: fn(&std::path::Path) = |path| {
            File::options().write(true).open(path).expect("writable").set_len(3).expect("cut");
        };
        let grow: fn(&std::path::Path) = |path| {
            let mut file = File::options().append(true).open(path).expect("writable");
            file.write_all(b"more").expect("written");
        };
        let remove: fn(&std::path::Path) = |path| fs::remove_file(path).expect("removed");
        for change in [cut, grow, remove] {
            let (_directory, path, image) = image_of(b"firmware");
            change(&path);
            assert!(!image.unchanged());
            assert_eq!(image.len(), 8, "the length is that of the opening");
        }
    }

    #[test]
    fn a_file_that_another_took_the_place_of_is_kept_whole() {
        let (directory, path, image) = image_of(b"firmware");
        let other = directory.path().join("other");
        fs::write(&other, b"FIRMWARE").expect("a file");
        fs::rename(&other, &path).expect("renamed");
        assert!(!image.unchanged(), "the path lost it");
        assert_eq!(image.as_ref(), b"firmware", "the bytes stay");
    }

    #[test]
    fn a_weak_image_does_not_keep_the_file_open() {
        let (_directory, _path, image) = image_of(b"firmware");
        let weak = image.downgrade();
        assert!(weak.upgrade().is_some());
        drop(image);
        assert!(weak.upgrade().is_none());
    }
}
