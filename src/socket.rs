//! The admin socket: where it is, and taking the place of a dead server's.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use crate::failure::{Context, Failure};

/// A socket that is bound, and removed again at the end.
#[derive(Debug)]
pub(crate) struct Socket {
    path: PathBuf,
}

impl Socket {
    /// Listens on the socket of `data`, for nobody but this user. Call with the store's lock
    /// held: then whatever lies there belongs to a server that is dead.
    pub(crate) fn bind(data: &Path) -> Result<(Self, UnixListener), Failure> {
        let (path, aside) = (data.join(FILE_NAME), data.join(FILE_NAME_ASIDE));
        let doing = || format!("cannot listen on {}", path.display());
        // Made aside and renamed: it never has other rights, and answers once it is there.
        let _ = fs::remove_file(&aside);
        let listener = UnixListener::bind(&aside).context(doing)?;
        fs::set_permissions(&aside, Permissions::from_mode(0o600)).context(doing)?;
        fs::rename(&aside, &path).context(doing)?;
        listener.set_nonblocking(true).context(doing)?;
        Ok((Self { path }, listener))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// The data directory by a path that is good for its socket: the absolute one, which works from
/// everywhere, or the one that was given, where only that is short enough.
pub(crate) fn fitting(data: &Path) -> Result<PathBuf, Failure> {
    let absolute = std::path::absolute(data).context(|| "cannot find --data".to_owned())?;
    let excess =
        |data: &Path| data.join(FILE_NAME).as_os_str().len().saturating_sub(PATH_BYTES_MAX);
    if excess(&absolute) == 0 {
        return Ok(absolute);
    }
    if excess(data) == 0 {
        return Ok(data.to_owned());
    }
    let error = format!(
        "the path of the admin socket, {}, is too long by {} bytes for this system",
        data.join(FILE_NAME).display(),
        excess(data)
    );
    Err(Failure::failed(error)
        .hint("give --data a shorter path, such as a relative one or a symbolic link to it"))
}

/// Does a server answer on the socket of `data`?
pub(crate) fn answers(data: &Path) -> bool {
    UnixStream::connect(data.join(FILE_NAME)).is_ok()
}

/// The socket in the data directory.
pub(crate) const FILE_NAME: &str = "admin.sock";
/// Where it is made. Shorter than the real name, so that it fits where that does.
const FILE_NAME_ASIDE: &str = "admin.new";
/// What fits into a `sockaddr_un`, less the final zero.
const PATH_BYTES_MAX: usize = 107;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_socket_of_a_dead_server_is_replaced() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join(FILE_NAME);
        drop(UnixListener::bind(&path).expect("bound"));
        assert!(path.exists(), "a dead server leaves it");
        let (socket, _listener) = Socket::bind(dir.path()).expect("replaced");
        let mode = fs::metadata(&path).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        drop(socket);
        assert!(!path.exists());
    }

    #[test]
    fn a_path_that_does_not_fit_is_named() {
        let deep = Path::new("/").join("x".repeat(120));
        let failure = fitting(&deep).expect_err("too long");
        assert!(failure.error.contains("too long by 25 bytes"), "{failure}");
        assert_eq!(fitting(Path::new("/a")), Ok(PathBuf::from("/a")));
        let short = fitting(Path::new("b")).expect("short");
        assert!(short.is_absolute() && short.ends_with("b"));
    }
}
