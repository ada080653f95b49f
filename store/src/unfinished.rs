//! The mark on a data directory into which a copy is under way: `<data>/unfinished`.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

/// The mark on one data directory. It outlives the process.
#[derive(Clone, Debug)]
pub(crate) struct Unfinished {
    directory: PathBuf,
}

impl Unfinished {
    pub(crate) fn in_directory(directory: &Path) -> Self {
        Self { directory: directory.to_owned() }
    }

    /// Was a copy begun and not finished?
    pub(crate) fn is_marked(&self) -> bool {
        // What cannot be looked at counts as there.
        fs::symlink_metadata(self.path())
            .map_or_else(|error| error.kind() != io::ErrorKind::NotFound, |_| true)
    }

    /// Sets or removes the mark, durably.
    ///
    /// # Errors
    /// What the system said.
    pub(crate) fn mark(&self, is_unfinished: bool) -> io::Result<()> {
        let changed = if is_unfinished {
            File::create(self.path()).map(drop)
        } else {
            fs::remove_file(self.path())
        };
        match changed {
            Err(error) if error.kind() == io::ErrorKind::NotFound && !is_unfinished => {}
            changed => changed?,
        }
        File::open(&self.directory)?.sync_all()
    }

    fn path(&self) -> PathBuf {
        self.directory.join("unfinished")
    }
}
