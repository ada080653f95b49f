//! Opening files beneath a directory that others write to: no symbolic link is followed, nothing
//! blocks, and only regular files are read.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use rustix::fs::{self, AtFlags, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use crate::failure::{Context, Failure};

/// An open directory.
#[derive(Debug)]
pub(crate) struct Directory {
    fd: OwnedFd,
    path: PathBuf,
}

/// An open regular file, and how it looked when it was opened.
#[derive(Debug)]
pub(crate) struct Regular {
    pub(crate) file: File,
    pub(crate) look: Look,
    pub(crate) path: PathBuf,
}

/// What changes when somebody writes to a file or puts another in its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Look {
    pub(crate) size: u64,
    device: u64,
    inode: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Directory {
    /// Opens the directory that the operator named; links on the way to it are the operator's.
    pub(crate) fn open(path: &Path) -> Result<Self, Failure> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        match fs::open(path, flags, Mode::empty()) {
            Ok(fd) => Ok(Self { fd, path: path.to_owned() }),
            Err(Errno::NOENT) => {
                Err(Failure::not_found(format!("there is no directory {}", path.display())))
            }
            Err(error) => Err(Failure::failed(format!("cannot open {}: {error}", path.display()))),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The names in it, sorted; those that begin with a dot are left out.
    pub(crate) fn names(&self) -> Result<Vec<OsString>, Failure> {
        let reading = || format!("cannot read {}", self.path.display());
        let mut names = Vec::new();
        for entry in fs::Dir::read_from(&self.fd).context(reading)? {
            let name = entry.context(reading)?.file_name().to_bytes().to_vec();
            if !name.starts_with(b".") {
                names.push(OsString::from_vec(name));
            }
        }
        names.sort();
        Ok(names)
    }

    /// Opens the directory `name` in it; `None` if there is none, or if it is a plain file.
    pub(crate) fn directory(&self, name: &OsStr) -> Result<Option<Self>, Failure> {
        let path = self.path.join(name);
        match self.file_type(name)? {
            Some(FileType::Directory) => {}
            Some(FileType::RegularFile) | None => return Ok(None),
            Some(other) => return Err(refused(&path, other, "a directory")),
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match fs::openat(&self.fd, name, flags, Mode::empty()) {
            Ok(fd) => Ok(Some(Self { fd, path })),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(Failure::failed(format!("cannot open {}: {error}", path.display()))),
        }
    }

    /// Opens the regular file `name` in it; `None` if there is none.
    pub(crate) fn file(&self, name: &OsStr) -> Result<Option<Regular>, Failure> {
        let path = self.path.join(name);
        // Looked at first, because opening a device may do something.
        match self.file_type(name)? {
            Some(FileType::RegularFile) => {}
            Some(other) => return Err(refused(&path, other, "a regular file")),
            None => return Ok(None),
        }
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let fd = match fs::openat(&self.fd, name, flags, Mode::empty()) {
            Ok(fd) => fd,
            Err(Errno::NOENT) => return Ok(None),
            Err(error) => {
                return Err(Failure::failed(format!("cannot open {}: {error}", path.display())));
            }
        };
        let stat = fs::fstat(&fd).context(|| format!("cannot look at {}", path.display()))?;
        let found = FileType::from_raw_mode(stat.st_mode);
        if found != FileType::RegularFile {
            return Err(refused(&path, found, "a regular file"));
        }
        Ok(Some(Regular { file: File::from(fd), look: Look::of(&stat), path }))
    }

    fn file_type(&self, name: &OsStr) -> Result<Option<FileType>, Failure> {
        match fs::statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(FileType::from_raw_mode(stat.st_mode))),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => {
                let path = self.path.join(name);
                Err(Failure::failed(format!("cannot look at {}: {error}", path.display())))
            }
        }
    }
}

impl Regular {
    /// Reads all of it, or refuses if that is more than `bytes_max`.
    pub(crate) fn read(&mut self, bytes_max: u64) -> Result<Vec<u8>, Failure> {
        let mut bytes = Vec::new();
        let path = self.path.display();
        (&mut self.file)
            .take(bytes_max + 1)
            .read_to_end(&mut bytes)
            .context(|| format!("cannot read {path}"))?;
        if bytes.len() as u64 > bytes_max {
            return Err(Failure::failed(format!("{path} is longer than {bytes_max} bytes")));
        }
        Ok(bytes)
    }

    /// Is the open file still as it was when it was opened?
    pub(crate) fn unchanged(&self) -> bool {
        fs::fstat(&self.file).is_ok_and(|stat| Look::of(&stat) == self.look)
    }
}

impl Look {
    fn of(stat: &Stat) -> Self {
        Self {
            size: stat.st_size.cast_unsigned(),
            device: stat.st_dev,
            inode: stat.st_ino,
            modified: (stat.st_mtime, stat.st_mtime_nsec as i64),
            changed: (stat.st_ctime, stat.st_ctime_nsec as i64),
        }
    }
}

fn refused(path: &Path, found: FileType, wanted: &str) -> Failure {
    let found = match found {
        FileType::Symlink => "a symbolic link, which is not followed",
        FileType::Directory => "a directory",
        FileType::RegularFile => "a regular file",
        FileType::Fifo => "a FIFO",
        FileType::Socket => "a socket",
        FileType::CharacterDevice | FileType::BlockDevice => "a device",
        FileType::Unknown => "something unknown",
    };
    Failure::failed(format!("{} is {found}, not {wanted}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_files_and_directories_are_opened() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path();
        std::fs::write(path.join("plain"), "x").expect("written");
        std::fs::create_dir(path.join("sub")).expect("made");
        std::os::unix::fs::symlink("plain", path.join("link")).expect("linked");
        std::os::unix::fs::symlink("sub", path.join("dirlink")).expect("linked");
        let made = std::process::Command::new("mkfifo").arg(path.join("fifo")).status();
        assert!(made.expect("mkfifo").success());
        let root = Directory::open(path).expect("opened");
        let file = |name: &str| root.file(OsStr::new(name)).map(|f| f.is_some());
        let directory = |name: &str| root.directory(OsStr::new(name)).map(|d| d.is_some());

        assert_eq!(file("plain"), Ok(true));
        assert_eq!(file("absent"), Ok(false));
        for (name, word) in [("link", "symbolic link"), ("fifo", "FIFO"), ("sub", "directory")] {
            assert!(file(name).expect_err(name).error.contains(word), "{name}");
        }
        assert_eq!(directory("sub"), Ok(true));
        assert_eq!(directory("plain"), Ok(false));
        assert!(directory("dirlink").expect_err("a link").error.contains("symbolic link"));
    }

    #[test]
    fn a_look_tells_a_change() {
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::write(dir.path().join("a"), "1234").expect("written");
        let root = Directory::open(dir.path()).expect("opened");
        let mut regular = root.file(OsStr::new("a")).expect("opened").expect("there");
        assert!(regular.unchanged());
        assert_eq!(regular.read(4).expect("read"), b"1234");
        std::fs::write(dir.path().join("a"), "12345").expect("written");
        assert!(!regular.unchanged());
        let mut longer = root.file(OsStr::new("a")).expect("opened").expect("there");
        assert!(longer.read(4).expect_err("long").error.contains("longer than 4 bytes"));
    }
}
