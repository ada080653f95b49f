//! Copying an image in: written aside, hashed on the way, synced, made read-only, renamed into
//! place. From then on its bytes never change. Publications and fetches both go this way.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;

use md5::{Digest, Md5};
use otter_protocol::id::hex_text;
use ring::digest::{Context, SHA256};
use rustix::fs::{AtFlags, Mode, OFlags};

use crate::error::OperatorError;
use crate::images::{ImageName, Images, file_name};
use crate::token::Mint;

/// What was learnt of an image while it was copied.
pub(crate) struct Copied {
    pub(crate) sha256: ImageName,
    pub(crate) md5: [u8; 16],
    pub(crate) size: u64,
    pub(crate) first_bytes: Vec<u8>,
}

/// Why an image was not copied in. Nothing is left of it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CopyError {
    #[error("cannot read the image: {0}")]
    Source(io::Error),
    #[error("the image is longer than {bytes_max} bytes")]
    TooLong { bytes_max: u64 },
    #[error("the image is empty")]
    Empty,
    #[error("{bytes} bytes came, of which the SHA-256 is {sha256}")]
    #[cfg_attr(not(feature = "origins"), expect(dead_code, reason = "only fetches know a name"))]
    Other { bytes: u64, sha256: String },
    /// Our own disk is full or failing.
    #[error("cannot keep the image: {0}")]
    Disk(io::Error),
}

impl From<CopyError> for OperatorError {
    fn from(error: CopyError) -> Self {
        match error {
            CopyError::Disk(source) => Self::unavailable(source),
            CopyError::Source(_)
            | CopyError::TooLong { .. }
            | CopyError::Empty
            | CopyError::Other { .. } => Self::Invalid { reason: error.to_string() },
        }
    }
}

/// Copies an image in and holds it ([`Images::hold`]).
pub(crate) fn copy_in(
    images: &Images,
    mint: &Mint,
    source: &mut dyn Read,
    bytes_max: u64,
) -> Result<Copied, CopyError> {
    let aside = Aside::create(images, mint)?;
    let copied = aside.write(source, bytes_max)?;
    images.hold(&copied.sha256);
    aside.settle(&copied).inspect_err(|_| images.let_go(&copied.sha256, true))?;
    Ok(copied)
}

/// Copies the image of this name in, and nothing else.
#[cfg(feature = "origins")]
pub(crate) fn copy_named(
    images: &Images,
    mint: &Mint,
    source: &mut dyn Read,
    name: &ImageName,
    size: u64,
) -> Result<(), CopyError> {
    let aside = Aside::create(images, mint)?;
    let copied = aside.write(source, size)?;
    if copied.sha256 != *name || copied.size != size {
        return Err(CopyError::Other { bytes: copied.size, sha256: file_name(&copied.sha256) });
    }
    aside.settle(&copied)
}

/// A file in `.incoming`, removed when dropped unless it was renamed away. Its name is random, so
/// that it is no other server's.
struct Aside<'a> {
    images: &'a Images,
    name: String,
    file: File,
}

impl<'a> Aside<'a> {
    fn create(images: &'a Images, mint: &Mint) -> Result<Self, CopyError> {
        let random: [u8; 16] =
            mint.bytes().map_err(|error| CopyError::Disk(io::Error::other(error)))?;
        let digits: [u8; 32] = hex_text(&random);
        let name = String::from_utf8_lossy(&digits).into_owned();
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd: OwnedFd =
            rustix::fs::openat(&images.incoming, &name, flags, Mode::RUSR | Mode::WUSR)
                .map_err(|error| CopyError::Disk(error.into()))?;
        Ok(Self { images, name, file: File::from(fd) })
    }

    fn write(&self, source: &mut dyn Read, bytes_max: u64) -> Result<Copied, CopyError> {
        let mut sha256 = Context::new(&SHA256);
        let mut md5 = Md5::new();
        let mut copied = Copied { sha256: [0; 32], md5: [0; 16], size: 0, first_bytes: Vec::new() };
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let bytes = match source.read(&mut buffer) {
                Ok(0) => break,
                Ok(length) => &buffer[..length],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(CopyError::Source(error)),
            };
            copied.size += bytes.len() as u64;
            if copied.size > bytes_max {
                return Err(CopyError::TooLong { bytes_max });
            }
            let missing = FIRST_BYTES.saturating_sub(copied.first_bytes.len()).min(bytes.len());
            copied.first_bytes.extend_from_slice(&bytes[..missing]);
            sha256.update(bytes);
            md5.update(bytes);
            (&self.file).write_all(bytes).map_err(CopyError::Disk)?;
        }
        if copied.size == 0 {
            return Err(CopyError::Empty);
        }
        copied.sha256.copy_from_slice(sha256.finish().as_ref());
        copied.md5.copy_from_slice(&md5.finalize());
        Ok(copied)
    }

    /// Makes the copy durable and puts it in its place. A file that is there already and whole
    /// stays, because transfers may be under way from it; a damaged one is replaced.
    fn settle(&self, copied: &Copied) -> Result<(), CopyError> {
        if self.images.verified(&copied.sha256).is_some() {
            // Whoever put it there may have ended before its name was durable.
            return rustix::fs::fsync(&self.images.directory)
                .map_err(|error| CopyError::Disk(error.into()));
        }
        self.rename(&copied.sha256).map_err(CopyError::Disk)
    }

    fn rename(&self, name: &ImageName) -> io::Result<()> {
        rustix::fs::fchmod(&self.file, Mode::RUSR | Mode::RGRP | Mode::ROTH)?;
        self.file.sync_all()?;
        let (from, to) = (&self.images.incoming, &self.images.directory);
        rustix::fs::renameat(from, &self.name, to, file_name(name))?;
        // A name that could not be made durable goes again: the next sync would not speak of it.
        Ok(rustix::fs::fsync(to).inspect_err(|_| {
            let _ = rustix::fs::unlinkat(to, file_name(name), AtFlags::empty());
        })?)
    }
}

impl Drop for Aside<'_> {
    fn drop(&mut self) {
        // Not there any more if it was renamed; if it cannot be removed, a later start does it.
        let _ = rustix::fs::unlinkat(&self.images.incoming, &self.name, AtFlags::empty());
    }
}

/// How many of the first bytes are kept for the caller to look at.
const FIRST_BYTES: usize = 16;
