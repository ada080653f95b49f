//! What can go wrong when a store is opened, and when an operator asks something of it.
//!
//! Devices never see these: to them a store that cannot answer says
//! [`Answer::Unavailable`](otter_protocol::Answer::Unavailable).

use std::error::Error;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use crate::schema::is_damage;

/// Why a store could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// A directory or file of the store cannot be created, read or protected.
    #[error(
        "cannot use {}: {source}; the data directory must be on a local disk and belong to the \
         user that runs the server", path.display()
    )]
    Directory {
        /// What could not be used.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Another process has the store open.
    #[error(
        "{} is in use by {}; stop that server first, or talk to it instead of opening its data \
         directory", path.display(), holder(*pid)
    )]
    Locked {
        /// The data directory.
        path: PathBuf,
        /// The process that holds the lock, if it could be read.
        pid: Option<u32>,
    },
    /// The file is a database, but of another program.
    #[error(
        "{} belongs to another program (application id {application_id:#010x}); give the server \
         a data directory of its own", path.display()
    )]
    Foreign {
        /// The database file.
        path: PathBuf,
        /// The `application_id` that it carries.
        application_id: i32,
    },
    /// The database was written by a newer release of this program.
    #[error(
        "{} has schema version {found}, and this program knows versions up to {supported}; \
         install the newer release that wrote it, or restore a backup from before the upgrade",
        path.display()
    )]
    Newer {
        /// The database file.
        path: PathBuf,
        /// The version it has.
        found: u32,
        /// The newest version this program can read.
        supported: u32,
    },
    /// The database exists and cannot be read as one.
    #[error(
        "{} is damaged: {detail}; restore it from a backup, or move it away to start empty",
        path.display()
    )]
    Damaged {
        /// The database file.
        path: PathBuf,
        /// What is wrong with it.
        detail: String,
    },
    /// A copy into it was begun and not finished: not all facts are there.
    #[error(
        "a copy into {store} was not finished; make it again to its end, or start with an empty \
         store"
    )]
    Unfinished {
        /// The data directory, or `Redis`.
        store: String,
    },
    /// The database refused an operation for another reason.
    #[error(
        "cannot open {}: {source}; see that the disk has room, can be written to and does not fail",
        path.display()
    )]
    Database {
        /// The database file.
        path: PathBuf,
        /// What the database said.
        source: Box<dyn Error + Send + Sync>,
    },
    /// An origin of images cannot be one.
    #[error("cannot fetch images from {origin}: {reason}")]
    Origin {
        /// The origin, as it was given.
        origin: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The URL of Redis cannot be one.
    #[cfg(feature = "redis")]
    #[error("the URL of Redis makes no sense: {reason}")]
    RedisUrl {
        /// What is wrong with it, without the URL: that may hold a password.
        reason: String,
    },
    /// Redis cannot be reached, or will not do.
    #[cfg(feature = "redis")]
    #[error("cannot use Redis: {reason}")]
    Redis {
        /// What is wrong, without its URL: that may hold a password.
        reason: String,
    },
    /// The thread that owns the database or the line to it could not be started.
    #[error("cannot start the thread that talks to the database: {source}")]
    Thread {
        /// What the system said.
        source: io::Error,
    },
}

/// Why an operator's request was not carried out. Nothing was kept.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OperatorError {
    /// There is no such thing.
    #[error("no such {what}; list what exists and check the spelling")]
    NotFound {
        /// What was looked for.
        what: Subject,
    },
    /// It exists already, or its state does not allow what was asked.
    #[error("{what}: {reason}")]
    Conflict {
        /// What is in the way.
        what: Subject,
        /// Why, and what to do.
        reason: &'static str,
    },
    /// What was asked for makes no sense.
    #[error("{reason}")]
    Invalid {
        /// What is wrong with it, and what to do.
        reason: String,
    },
    /// The image could not be put where other servers fetch it.
    #[error("cannot put the image to {origin}: {reason}; nothing was published, try again")]
    Origin {
        /// The origin.
        origin: String,
        /// What it said, or what the network did.
        reason: String,
    },
    /// The store cannot keep anything now: the disk is full, read-only or failing, or Redis is
    /// away.
    #[error("the store cannot do this now: {source}; {advice}")]
    Unavailable {
        /// What the database or the system said.
        source: Arc<dyn Error + Send + Sync>,
        /// What to do.
        advice: &'static str,
    },
}

/// What an [`OperatorError`] speaks of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// An owner.
    Owner,
    /// An API key.
    Key,
    /// A device.
    Device,
    /// A one-time token.
    Token,
    /// A release.
    Release,
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Owner => "owner",
            Self::Key => "key",
            Self::Device => "device",
            Self::Token => "token",
            Self::Release => "release",
        })
    }
}

#[cfg(feature = "redis")]
impl OpenError {
    /// Redis will not do.
    pub(crate) fn redis(reason: impl fmt::Display) -> Self {
        Self::Redis { reason: reason.to_string() }
    }
}

impl OperatorError {
    /// The store cannot do anything now, because of `source`.
    pub(crate) fn unavailable(source: impl Error + Send + Sync + 'static) -> Self {
        let advice = "free or repair the disk and try again";
        Self::Unavailable { source: Arc::new(source), advice }
    }

    /// The database cannot do it now, or not any more.
    pub(crate) fn database(error: rusqlite::Error) -> Self {
        if is_damage(&error) { Self::damaged(error) } else { Self::unavailable(error) }
    }

    /// The database is damaged, as `source` says.
    pub(crate) fn damaged(source: impl Error + Send + Sync + 'static) -> Self {
        let advice = "the database is damaged: stop the server and restore it from a backup";
        Self::Unavailable { source: Arc::new(source), advice }
    }
}

fn holder(pid: Option<u32>) -> String {
    pid.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"))
}
