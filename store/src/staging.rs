//! Copying an image in: written aside, hashed on the way, synced, made read-only, renamed into
//! place. From then on its bytes never change.

use std::fmt;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use md5::{Digest, Md5};
use otter_protocol::id::hex_text;
use ring::digest::{Context, SHA256};
use rustix::fs::{AtFlags, Mode, OFlags};

use crate::error::OperatorError;
use crate::image::Image;
use crate::images::{ImageName, Images, file_name};
use crate::shared::Shared;
use crate::token::Mint;

/// An image that was copied in and is not published yet.
///
/// Dropped without being published, its file is removed again unless a release or another
/// `Staged` needs the same bytes.
pub struct Staged {
    images: Arc<Images>,
    /// Whoever knows whether something needs the file; none where files are never removed.
    needs: Option<Arc<Shared>>,
    copied: Copied,
}

impl Staged {
    /// Copies an image in.
    ///
    /// # Errors
    /// See [`crate::Operator::stage`].
    pub(crate) fn copy(
        images: Arc<Images>,
        mint: &Mint,
        needs: Option<Arc<Shared>>,
        source: &mut dyn Read,
        bytes_max: u64,
    ) -> Result<Self, OperatorError> {
        let copied = copy_in(&images, mint, source, bytes_max)?;
        Ok(Self { images, needs, copied })
    }

    /// SHA-256 of all bytes: the name of the image.
    #[must_use]
    pub fn sha256(&self) -> [u8; 32] {
        self.copied.sha256
    }

    /// MD5 of all bytes, for `x-MD5`.
    #[must_use]
    pub fn md5(&self) -> [u8; 16] {
        self.copied.md5
    }

    /// Length in bytes, at least 1.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.copied.size
    }

    /// The first 16 bytes, or all if there are fewer: enough to tell an ESP image, gzip or zip.
    #[must_use]
    pub fn first_bytes(&self) -> &[u8] {
        &self.copied.first_bytes
    }

    /// The image itself; `None` if somebody removed the file meanwhile.
    #[must_use]
    pub fn image(&self) -> Option<Image> {
        self.images.image(&self.copied.sha256, self.copied.size)
    }

    /// Does it belong to this store?
    pub(crate) fn belongs_to(&self, images: &Arc<Images>) -> bool {
        Arc::ptr_eq(&self.images, images)
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        match &self.needs {
            Some(shared) => shared.let_go(&self.copied.sha256),
            None => self.images.let_go(&self.copied.sha256, true),
        }
    }
}

impl fmt::Debug for Staged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Staged").field(&file_name(&self.copied.sha256)).finish()
    }
}

/// What was learnt of an image while it was copied.
struct Copied {
    sha256: ImageName,
    md5: [u8; 16],
    size: u64,
    first_bytes: Vec<u8>,
}

/// Copies an image in and holds it ([`Images::hold`]).
fn copy_in(
    images: &Images,
    mint: &Mint,
    source: &mut dyn Read,
    bytes_max: u64,
) -> Result<Copied, OperatorError> {
    let aside = Aside::create(images, mint).map_err(OperatorError::unavailable)?;
    let copied = aside.write(source, bytes_max)?;
    images.hold(&copied.sha256);
    aside.settle(&copied).map_err(|error| {
        images.let_go(&copied.sha256, true);
        OperatorError::unavailable(error)
    })?;
    Ok(copied)
}

/// A file in `.incoming`, removed when dropped unless it was renamed away.
struct Aside<'a> {
    images: &'a Images,
    name: String,
    file: File,
}

impl<'a> Aside<'a> {
    fn create(images: &'a Images, mint: &Mint) -> io::Result<Self> {
        let random: [u8; 16] = mint.bytes().map_err(io::Error::other)?;
        let digits: [u8; 32] = hex_text(&random);
        let name = String::from_utf8_lossy(&digits).into_owned();
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd: OwnedFd =
            rustix::fs::openat(&images.incoming, &name, flags, Mode::RUSR | Mode::WUSR)?;
        Ok(Self { images, name, file: File::from(fd) })
    }

    fn write(&self, source: &mut dyn Read, bytes_max: u64) -> Result<Copied, OperatorError> {
        let mut sha256 = Context::new(&SHA256);
        let mut md5 = Md5::new();
        let mut copied = Copied { sha256: [0; 32], md5: [0; 16], size: 0, first_bytes: Vec::new() };
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let bytes = match source.read(&mut buffer) {
                Ok(0) => break,
                Ok(length) => &buffer[..length],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(invalid(format!("cannot read the image: {error}"))),
            };
            copied.size += bytes.len() as u64;
            if copied.size > bytes_max {
                return Err(invalid(format!("the image is longer than {bytes_max} bytes")));
            }
            let missing = FIRST_BYTES.saturating_sub(copied.first_bytes.len()).min(bytes.len());
            copied.first_bytes.extend_from_slice(&bytes[..missing]);
            sha256.update(bytes);
            md5.update(bytes);
            (&self.file).write_all(bytes).map_err(OperatorError::unavailable)?;
        }
        if copied.size == 0 {
            return Err(invalid("the image is empty".to_owned()));
        }
        copied.sha256.copy_from_slice(sha256.finish().as_ref());
        copied.md5.copy_from_slice(&md5.finalize());
        Ok(copied)
    }

    /// Makes the copy durable and puts it in its place. A file that is there already and whole
    /// stays, because transfers may be under way from it; a damaged one is replaced.
    fn settle(&self, copied: &Copied) -> io::Result<()> {
        if self.images.verify(&copied.sha256, copied.size) {
            return Ok(());
        }
        rustix::fs::fchmod(&self.file, Mode::RUSR | Mode::RGRP | Mode::ROTH)?;
        self.file.sync_all()?;
        let name = file_name(&copied.sha256);
        rustix::fs::renameat(&self.images.incoming, &self.name, &self.images.directory, name)?;
        rustix::fs::fsync(&self.images.directory)?;
        Ok(())
    }
}

impl Drop for Aside<'_> {
    fn drop(&mut self) {
        // Not there any more if it was renamed; if it cannot be removed, the next start does it.
        let _ = rustix::fs::unlinkat(&self.images.incoming, &self.name, AtFlags::empty());
    }
}

fn invalid(reason: String) -> OperatorError {
    OperatorError::Invalid { reason }
}

/// How many of the first bytes are kept for the caller to look at.
const FIRST_BYTES: usize = 16;
