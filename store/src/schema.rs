//! The database file: opening it, telling it from other files, bringing it to our version.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use rusqlite::{Connection, Error, ErrorCode, OpenFlags, Result, TransactionBehavior, ffi};

use crate::error::OpenError;
use crate::images::at;

/// Opens the database for the thread that writes; creates it if it is not there.
///
/// # Errors
/// [`OpenError::Foreign`], [`OpenError::Newer`], [`OpenError::Damaged`] or another that says what
/// the system or the database said.
pub(crate) fn open(path: &Path) -> std::result::Result<Connection, OpenError> {
    create_private(path)?;
    let log = path.with_extension("db-wal");
    renew(&log).map_err(at(&log))?;
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let opened = Connection::open_with_flags(path, flags);
    let mut database = opened.map_err(|error| failed(path, error))?;
    let stamp = stamp_of(&database).map_err(|error| failed(path, error))?;
    let version = check(path, stamp)?;
    configure(&database)
        .and_then(|()| migrate(&mut database, version))
        .map_err(|error| failed(path, error))?;
    Ok(database)
}

/// Opens the database once more, to read beside the thread that writes.
///
/// # Errors
/// [`OpenError::Database`]
pub(crate) fn open_reader(path: &Path) -> std::result::Result<Connection, OpenError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let reader = Connection::open_with_flags(path, flags).map_err(|error| failed(path, error))?;
    reader.set_prepared_statement_cache_capacity(STATEMENTS);
    reader.execute_batch(CHECKS).map_err(|error| failed(path, error))?;
    Ok(reader)
}

/// Does the error say that the file is damaged?
pub(crate) fn is_damage(error: &Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase))
}

/// What an error of the database means for opening it.
pub(crate) fn failed(path: &Path, error: Error) -> OpenError {
    let damaged = match error.sqlite_error_code() {
        Some(_) => is_damage(&error),
        None => matches!(
            error,
            Error::FromSqlConversionFailure(..)
                | Error::IntegralValueOutOfRange(..)
                | Error::InvalidColumnType(..)
                | Error::QueryReturnedNoRows
                | Error::Utf8Error(..)
        ),
    };
    if damaged {
        OpenError::Damaged { path: path.into(), detail: error.to_string() }
    } else {
        OpenError::Database { path: path.into(), source: Box::new(error) }
    }
}

/// What tells our databases from others.
struct Stamp {
    application_id: i32,
    version: u32,
    tables: u64,
}

/// SQLite would create the file readable by everybody; its journals take over the mode.
fn create_private(path: &Path) -> std::result::Result<(), OpenError> {
    let created = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    let synced = match created {
        Ok(_) => sync_above(path),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
    };
    synced.map_err(at(path))
}

/// Writes the log of a process that did not come to its end once more, as it is, and syncs it.
///
/// What is read there need not be on the disk: where a sync failed, the system has given up what
/// it had to write, shows it all the same, and never tries again. New commits behind such a hole
/// would be lost with it, however well they were synced.
fn renew(log: &Path) -> io::Result<()> {
    let file = match OpenOptions::new().read(true).write(true).open(log) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        opened => opened?,
    };
    let (mut buffer, mut offset) = (vec![0; RENEWED_BYTES], 0);
    loop {
        let length = file.read_at(&mut buffer, offset)?;
        if length == 0 {
            return file.sync_all();
        }
        file.write_all_at(&buffer[..length], offset)?;
        offset += length as u64;
    }
}

/// Makes a new file's name durable, and as far as possible that of its directory, which may be as
/// new.
fn sync_above(path: &Path) -> io::Result<()> {
    let directory = path.canonicalize()?;
    let mut above = directory.ancestors().skip(1);
    above.next().map_or(Ok(()), |directory| File::open(directory)?.sync_all())?;
    // A directory that we may not read is not ours to make durable.
    let _ = above.next().map(|parent| File::open(parent)?.sync_all());
    Ok(())
}

fn stamp_of(database: &Connection) -> Result<Stamp> {
    Ok(Stamp {
        application_id: database.query_row("PRAGMA application_id", [], |row| row.get(0))?,
        version: database.query_row("PRAGMA user_version", [], |row| row.get(0))?,
        tables: database
            .query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get::<_, i64>(0))?
            .unsigned_abs(),
    })
}

/// The version of a database that is ours; 0 for an empty file.
fn check(path: &Path, stamp: Stamp) -> std::result::Result<u32, OpenError> {
    let Stamp { application_id, version, tables } = stamp;
    let empty = application_id == 0 && version == 0 && tables == 0;
    if application_id != APPLICATION_ID && !empty {
        return Err(OpenError::Foreign { path: path.into(), application_id });
    }
    if version > VERSION {
        return Err(OpenError::Newer { path: path.into(), found: version, supported: VERSION });
    }
    Ok(version)
}

fn configure(database: &Connection) -> Result<()> {
    database.set_prepared_statement_cache_capacity(STATEMENTS);
    let mode: String = database.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))?;
    if mode != "wal" {
        let reason = "the file system cannot share memory between processes; use a local disk";
        let refused = ffi::Error::new(ffi::SQLITE_CANTOPEN);
        return Err(Error::SqliteFailure(refused, Some(reason.to_owned())));
    }
    database.execute_batch(CHECKS)?;
    database.execute_batch(SETTINGS)
}

fn migrate(database: &mut Connection, version: u32) -> Result<()> {
    for (reached, step) in (1..).zip(MIGRATIONS).skip(version as usize) {
        let transaction = database.transaction_with_behavior(TransactionBehavior::Immediate)?;
        transaction.execute_batch(step)?;
        transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
        transaction.pragma_update(None, "user_version", reached)?;
        transaction.commit()?;
    }
    Ok(())
}

/// What brings a database from each version to the next.
const MIGRATIONS: [&str; 1] = [include_str!("schema.sql")];

/// The newest version this program knows.
const VERSION: u32 = MIGRATIONS.len() as u32;

/// `OTTR`
const APPLICATION_ID: i32 = 0x4f54_5452;

/// How much of a log is written again at a time.
const RENEWED_BYTES: usize = 1 << 20;

/// More than there are different statements.
const STATEMENTS: usize = 64;

/// A page is looked through when it is read. Without that, one that is damaged can pass for one
/// that has no such row.
const CHECKS: &str = "PRAGMA cell_size_check = ON;";

/// `FULL` makes each commit durable before it returns. The log is written back to the database
/// every 16 MiB, and the page cache may take 8 MiB: all but the leaves of a million devices.
/// Somebody who looks at the database with other tools and locks it is waited for.
const SETTINGS: &str = "
    PRAGMA synchronous = FULL;
    PRAGMA wal_autocheckpoint = 4096;
    PRAGMA journal_size_limit = 67108864;
    PRAGMA cache_size = -8192;
    PRAGMA temp_store = MEMORY;
    PRAGMA busy_timeout = 5000;
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_commit_is_synced_before_it_returns() {
        // What a process that is killed leaves behind does not tell, because the system keeps what
        // was written; only a loss of power would.
        let directory = tempfile::tempdir().expect("a directory");
        let database = open(&directory.path().join("otter.db")).expect("a database");
        let setting = |pragma| -> rusqlite::types::Value {
            database.query_row(pragma, [], |row| row.get(0)).expect("a setting")
        };
        assert_eq!(setting("PRAGMA synchronous"), 2.into(), "FULL");
        assert_eq!(setting("PRAGMA journal_mode"), "wal".to_owned().into());
    }

    #[test]
    fn a_database_is_brought_to_our_version_once() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("otter.db");
        for _ in 0..2 {
            let database = open(&path).expect("a database");
            let stamp = stamp_of(&database).expect("readable");
            assert_eq!((stamp.application_id, stamp.version), (APPLICATION_ID, VERSION));
        }
    }
}
