//! One process per data directory: `<data>/lock`, held for life.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::{FlockOperation, flock};

use crate::error::OpenError;
use crate::images::at;

/// The lock on a data directory. The system takes it back when the process ends, however it ends.
#[derive(Debug)]
pub(crate) struct Lock(#[expect(dead_code, reason = "held for its descriptor")] File);

impl Lock {
    /// Takes the lock and leaves the id of this process in it.
    ///
    /// # Errors
    /// [`OpenError::Locked`] if another process, or another store in this one, has it.
    pub(crate) fn take(data: &Path) -> Result<Self, OpenError> {
        let path = data.join("lock");
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let mut file = options.open(&path).map_err(at(&path))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                return Err(OpenError::Locked { path: data.into(), pid: holder(&mut file) });
            }
            Err(error) => return Err(at(&path)(error.into())),
        }
        sign(&mut file).map_err(at(&path))?;
        Ok(Self(file))
    }
}

fn sign(file: &mut File) -> io::Result<()> {
    file.set_len(0)?;
    file.write_all(format!("{}\n", std::process::id()).as_bytes())
}

fn holder(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_is_told_who_the_first_is() {
        let data = tempfile::tempdir().expect("a directory");
        let first = Lock::take(data.path()).expect("free");
        let error = Lock::take(data.path()).expect_err("taken");
        let OpenError::Locked { pid, path } = &error else { panic!("{error}") };
        assert_eq!(*pid, Some(std::process::id()));
        assert_eq!(path, data.path());
        let text = error.to_string();
        assert!(text.contains(&format!("process {}", std::process::id())), "{text}");
        assert!(text.contains("stop that server first"), "{text}");
        drop(first);
        Lock::take(data.path()).expect("free again");
    }
}
