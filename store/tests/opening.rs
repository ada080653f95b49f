//! What is opened, what is refused, and what the refusal says.

mod common;

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::Path;

use common::{Bench, Which, check_in, grant, recording};
use otter_protocol::{CheckIn, DeviceId, Mac, Query, Record};
use otter_store::{DeviceFilter, Embedded, EmbeddedOptions, OpenError, Target};
use rusqlite::Connection;

fn open(directory: &Path) -> Result<Embedded, OpenError> {
    Embedded::open(directory, EmbeddedOptions::default())
}

/// A closed store with an owner, devices, a release and a token.
fn filled() -> tempfile::TempDir {
    let mut bench = Bench::new(Which::Embedded);
    let (owner, _) = bench.owner('a');
    let release = bench.publish(owner, Target::All, b"firmware").offer.release;
    let records = (0..200).map(|i| {
        let said = CheckIn { mac: Mac::from_bits(i), ..check_in() };
        let record = recording(owner, None, Some(said));
        Query::Record(Box::new(Record { grant: Some(grant(Some(release))), ..record }))
    });
    bench.desk.ask_all(records.collect());
    bench.close();
    bench.directory
}

#[test]
fn everything_is_private_to_the_user_who_runs_the_server() {
    let parent = tempfile::tempdir().expect("a directory");
    let data = parent.path().join("new/data");
    let store = open(&data).expect("a store");
    store.operator().create_owner(None).expect("a new owner");
    let mode = |name: &str| {
        let metadata = fs::metadata(data.join(name)).expect("there");
        metadata.permissions().mode() & 0o777
    };
    for directory in ["", "images", "images/.incoming"] {
        assert_eq!(mode(directory), 0o700, "{directory}");
    }
    for file in ["lock", "otter.db", "otter.db-wal", "otter.db-shm"] {
        assert_eq!(mode(file), 0o600, "{file}");
    }
}

#[test]
fn a_directory_may_be_named_from_where_one_is() {
    let here = std::env::current_dir().expect("somewhere");
    let data = tempfile::tempdir_in(&here).expect("a directory");
    let relative = data.path().strip_prefix(&here).expect("below").join("data");
    assert!(relative.is_relative());
    open(&relative).expect("a store");
}

#[test]
fn the_second_opener_is_told_who_the_first_is() {
    let data = filled();
    let first = open(data.path()).expect("free");
    let error = open(data.path()).expect_err("taken");
    assert!(matches!(error, OpenError::Locked { pid: Some(pid), .. } if pid == std::process::id()));
    let text = error.to_string();
    assert!(text.contains("stop that server first"), "{text}");
    first.close();
    open(data.path()).expect("free again");
}

#[test]
fn a_store_that_was_read_leaves_no_log_behind_either() {
    let data = filled();
    let store = open(data.path()).expect("a store");
    store.operator().create_owner(None).expect("a write");
    store.operator().devices(&DeviceFilter::default()).expect("a read");
    store.close();
    assert!(!data.path().join("otter.db-wal").exists(), "the log is written back");
}

#[test]
fn a_closed_store_leaves_nothing_behind_but_its_files() {
    let data = filled();
    let mut names: Vec<_> = fs::read_dir(data.path())
        .expect("readable")
        .map(|entry| entry.expect("readable").file_name().into_string().expect("text"))
        .collect();
    names.sort();
    assert_eq!(names, ["images", "lock", "otter.db"], "the log is written back");
}

#[test]
fn a_newer_schema_is_refused() {
    let data = filled();
    let database = Connection::open(data.path().join("otter.db")).expect("a database");
    database.pragma_update(None, "user_version", 7).expect("written");
    drop(database);
    let error = open(data.path()).expect_err("newer");
    assert!(matches!(error, OpenError::Newer { found: 7, supported: 1, .. }), "{error}");
    let text = error.to_string();
    assert!(text.contains("version 7") && text.contains("up to 1"), "{text}");
}

#[test]
fn the_database_of_another_program_is_refused_and_left_alone() {
    for application_id in [0, 0x4750_4b47] {
        let data = tempfile::tempdir().expect("a directory");
        let path = data.path().join("otter.db");
        let database = Connection::open(&path).expect("a database");
        database.pragma_update(None, "application_id", application_id).expect("written");
        database.execute_batch("CREATE TABLE theirs (x)").expect("written");
        drop(database);
        let before = fs::read(&path).expect("readable");
        let error = open(data.path()).expect_err("foreign");
        let OpenError::Foreign { application_id: found, .. } = error else { panic!("{error}") };
        assert_eq!(found, application_id);
        assert_eq!(fs::read(&path).expect("readable"), before);
    }
}

#[test]
fn a_file_that_is_no_database_is_called_damaged() {
    let data = tempfile::tempdir().expect("a directory");
    fs::write(data.path().join("otter.db"), "not a database ".repeat(1000)).expect("written");
    let error = open(data.path()).expect_err("no database");
    assert!(matches!(error, OpenError::Damaged { .. }), "{error:?}");
    let text = error.to_string();
    assert!(text.contains("is damaged") && text.contains("backup"), "{text}");
}

#[test]
fn a_damaged_database_is_refused_with_a_clear_error() {
    let mut refused = 0;
    let size = fs::metadata(filled().path().join("otter.db")).expect("there").len();
    for page in 1..size / 4096 {
        let data = filled();
        let file = File::options().write(true).open(data.path().join("otter.db"));
        file.expect("writable").write_all_at(&[0xa5; 4096], page * 4096).expect("written");
        match open(data.path()) {
            Ok(store) => drop(store),
            Err(error @ OpenError::Damaged { .. }) => {
                refused += 1;
                let text = error.to_string();
                assert!(text.contains("is damaged") && text.contains("backup"), "{text}");
            }
            Err(error) => panic!("page {page}: {error:?}"),
        }
    }
    assert!(refused >= 3, "pages of devices, tokens and releases are read: {refused}");
}

#[test]
fn rows_that_we_never_write_are_called_damage() {
    for (statement, word) in [
        ("UPDATE owners SET owner = 'short'", "owner"),
        ("UPDATE devices SET udid = x'00' WHERE id = 5", "16 byte"),
        ("UPDATE devices SET mac = -5 WHERE id = 5", "mac"),
        ("UPDATE devices SET owner = 99 WHERE id = 5", "owner"),
        ("UPDATE tokens SET device = x'000102030405060708090a0b0c0d0e0f'", "device"),
        ("DELETE FROM clock", "no rows"),
    ] {
        let data = filled();
        let database = Connection::open(data.path().join("otter.db")).expect("a database");
        database.pragma_update(None, "foreign_keys", false).expect("written");
        assert!(database.execute(statement, []).expect("written") > 0);
        drop(database);
        let error = open(data.path()).expect_err(statement);
        assert!(matches!(error, OpenError::Damaged { .. }), "{statement}: {error:?}");
        assert!(error.to_string().contains(word), "{statement}: {error}");
    }
}

#[test]
fn a_directory_that_cannot_be_used_is_named() {
    let parent = tempfile::tempdir().expect("a directory");
    let file = parent.path().join("file");
    fs::write(&file, b"").expect("written");
    let error = open(&file.join("data")).expect_err("no directory");
    assert!(matches!(error, OpenError::Directory { .. }), "{error:?}");
    assert!(error.to_string().contains("file/data"), "{error}");
}

#[test]
fn images_without_a_database_are_no_obstacle() {
    let data = filled();
    fs::remove_file(data.path().join("otter.db")).expect("removed");
    let store = open(data.path()).expect("a store");
    assert!(store.operator().owners().expect("owners").is_empty());
    assert_eq!(fs::read_dir(data.path().join("images")).expect("readable").count(), 2);
}

#[test]
fn everything_is_there_again_after_a_restart() {
    let data = filled();
    let store = open(data.path()).expect("a store");
    let stats = store.operator().stats();
    assert_eq!((stats.owners, stats.keys, stats.devices, stats.releases), (1, 1, 200, 1));
    assert_eq!((stats.tokens_open, stats.tokens_started), (200, 0));
    let rows = store.operator().devices(&DeviceFilter::default()).expect("readable");
    assert_eq!(rows.len(), 100);
    assert!(rows.iter().all(|row| row.newest.is_some()));
    assert!(rows.iter().all(|row| row.udid != DeviceId([0; 16])));
}
