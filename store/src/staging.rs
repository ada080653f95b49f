//! An image between its being copied in and its publication.

use std::fmt;
use std::io::Read;
use std::sync::Arc;

use crate::aside::{Copied, copy_in};
use crate::error::OperatorError;
use crate::image::Image;
use crate::images::{Images, file_name};
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
