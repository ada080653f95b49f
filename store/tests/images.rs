//! Images on disk: what becomes of them, and what is done when somebody meddles with them.

mod common;

use std::fs::{self, File, Permissions};
use std::io::{self, Read};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use common::{Bench, Redeemed, Which, grant, on_each, on_each_with_tables};
use otter_protocol::{Kind, OwnerId, ReleaseId, Token};
use otter_store::{NewRelease, OperatorError, Staged, Target};

const FIRMWARE: &[u8] = b"firmware";

struct Fleet {
    owner: OwnerId,
    release: ReleaseId,
    token: Token,
    /// Where the image lies.
    path: PathBuf,
}

fn fleet(bench: &mut Bench) -> Fleet {
    let (owner, _) = bench.owner('a');
    let device = bench.register(owner, "5CCF7F000001");
    let offer = bench.publish(owner, Target::All, FIRMWARE).offer;
    let token = bench.grant(owner, device, grant(Some(offer.release)));
    let path = path_of(bench.directory.path(), &offer.sha256);
    Fleet { owner, release: offer.release, token, path }
}

fn path_of(data: &Path, sha256: &[u8; 32]) -> PathBuf {
    let digits: String = sha256.iter().map(|byte| format!("{byte:02x}")).collect();
    data.join("images").join(digits)
}

fn images_in(data: &Path) -> Vec<String> {
    let entries = fs::read_dir(data.join("images")).expect("readable");
    let names = entries.map(|entry| entry.expect("readable").file_name());
    let names = names.map(|name| name.to_string_lossy().into_owned());
    names.filter(|name| name != ".incoming").collect()
}

fn stage(bench: &Bench, bytes: &[u8]) -> Staged {
    bench.operator.stage(&mut &*bytes, 1 << 20).expect("staged")
}

#[test]
fn a_published_image_lies_under_its_hash_and_cannot_be_written() {
    on_each(|bench| {
        let fleet = fleet(bench);
        assert_eq!(fs::read(&fleet.path).expect("readable"), FIRMWARE);
        assert_eq!(fs::metadata(&fleet.path).expect("there").permissions().mode() & 0o777, 0o444);
        let incoming = bench.directory.path().join("images/.incoming");
        assert_eq!(fs::read_dir(&incoming).expect("readable").count(), 0);
        let offer = bench.fetch(fleet.release).expect("published").offer;
        assert_eq!(offer.size, 8);
        // printf firmware | md5sum
        assert_eq!(format!("{:02x?}", &offer.md5[..4]), "[74, b5, b5, e9]");
    });
}

#[test]
fn staged_images_that_are_not_published_are_removed() {
    on_each_with_tables(|bench| {
        let data = bench.directory.path().to_owned();
        let first = stage(bench, b"one");
        let same = stage(bench, b"one");
        assert_eq!(first.first_bytes(), b"one");
        assert_eq!(images_in(&data).len(), 1);
        drop(first);
        assert_eq!(images_in(&data).len(), 1, "the other still needs it");
        drop(same);
        assert_eq!(images_in(&data).len(), 0);
        let (owner, _) = bench.owner('a');
        bench.publish(owner, Target::All, b"one");
        drop(stage(bench, b"one"));
        assert_eq!(images_in(&data).len(), 1, "a release needs it");
    });
}

#[test]
fn what_cannot_be_an_image_is_refused() {
    struct Broken;
    impl Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::Error::other("the cable is out"))
        }
    }
    on_each_with_tables(|bench| {
        let stage = |source: &mut dyn Read| bench.operator.stage(source, 4);
        for (source, reason) in [
            (&mut &b""[..] as &mut dyn Read, "empty"),
            (&mut &b"12345"[..], "longer than 4 bytes"),
            (&mut Broken, "the cable is out"),
        ] {
            let Err(OperatorError::Invalid { reason: said }) = stage(source) else {
                panic!("{reason}");
            };
            assert!(said.contains(reason), "{said}");
        }
        assert!(stage(&mut &b"1234"[..]).is_ok());
        assert_eq!(images_in(bench.directory.path()).len(), 0);
        let incoming = bench.directory.path().join("images/.incoming");
        assert_eq!(fs::read_dir(incoming).expect("readable").count(), 0);
    });
}

#[test]
fn an_image_goes_with_the_last_that_needs_it() {
    on_each_with_tables(|bench| {
        let fleet = fleet(bench);
        let again = bench.publish(fleet.owner, Target::All, FIRMWARE).offer.release;
        bench.operator.withdraw(fleet.release).expect("withdrawn");
        bench.operator.withdraw(again).expect("withdrawn");
        assert!(fleet.path.exists(), "a token needs it");
        bench.reopen();
        assert!(fleet.path.exists(), "a token needs it");
        assert!(bench.claim(fleet.token));
        assert!(!fleet.path.exists());
    });
}

#[test]
fn an_image_that_nothing_needs_any_more_goes_at_the_next_start() {
    let mut bench = Bench::new(Which::Embedded);
    let fleet = fleet(&mut bench);
    bench.operator.withdraw(fleet.release).expect("withdrawn");
    bench.advance(48 * common::HOUR_MS);
    // What has ended is removed with the next write.
    bench.register(fleet.owner, "5CCF7F000002");
    assert!(!fleet.path.exists());
    fs::write(&fleet.path, FIRMWARE).expect("put back by hand");
    let stranger = path_of(bench.directory.path(), &[7; 32]);
    fs::write(&stranger, b"of no release").expect("put there by hand");
    fs::write(bench.directory.path().join("images/.incoming/stale"), b"x").expect("left over");
    bench.reopen();
    assert!(!fleet.path.exists());
    assert!(stranger.exists(), "what no release names is left alone");
    assert!(!bench.directory.path().join("images/.incoming/stale").exists());
}

#[test]
fn an_image_that_somebody_meddles_with_is_not_given() {
    let cut: fn(&Path) = |path| {
        writable(path).set_len(3).expect("cut");
    };
    let replace: fn(&Path) = |path| {
        fs::remove_file(path).expect("removed");
        fs::write(path, b"FIRMWARE").expect("another of the same length");
    };
    let overwrite: fn(&Path) = |path| {
        use std::os::unix::fs::FileExt;
        writable(path).write_all_at(b"X", 0).expect("written over");
    };
    let remove: fn(&Path) = |path| fs::remove_file(path).expect("removed");
    let link: fn(&Path) = |path| {
        let elsewhere = path.with_extension("elsewhere");
        fs::rename(path, &elsewhere).expect("moved");
        symlink(&elsewhere, path).expect("linked");
    };
    let pipe: fn(&Path) = |path| {
        fs::remove_file(path).expect("removed");
        let made = std::process::Command::new("mkfifo").arg(path).status().expect("mkfifo");
        assert!(made.success());
    };
    let directory: fn(&Path) = |path| {
        fs::remove_file(path).expect("removed");
        fs::create_dir(path).expect("a directory");
    };
    for meddle in [cut, replace, overwrite, remove, link, pipe, directory] {
        on_each(|bench| {
            let fleet = fleet(bench);
            assert!(matches!(bench.start(fleet.token), Redeemed::Ready { .. }));
            let held = bench.fetch(fleet.release).expect("whole").image;
            meddle(&fleet.path);
            assert!(!held.unchanged() || fleet.path.is_symlink());
            for _ in 0..2 {
                assert!(!bench.claim(fleet.token), "the tail must not leave");
                assert_eq!(bench.redeem(fleet.token), Redeemed::Nothing);
                assert_eq!(bench.start(fleet.token), Redeemed::Nothing);
                assert!(bench.fetch(fleet.release).is_none());
            }
            assert!(bench.operator.stats().images_refused_total > 0);
            assert_eq!(bench.operator.stats().tokens_claimed_total, 0);

            // Publishing the same bytes repairs it; the token was not burnt.
            if fleet.path.is_dir() {
                fs::remove_dir(&fleet.path).expect("removed");
            }
            bench.publish(fleet.owner, Target::All, FIRMWARE);
            drop(held);
            assert!(matches!(bench.redeem(fleet.token), Redeemed::Ready { .. }));
            assert!(bench.claim(fleet.token));
        });
    }
}

#[test]
fn a_transfer_that_holds_a_changed_image_cannot_be_completed() {
    on_each(|bench| {
        let fleet = fleet(bench);
        bench.start(fleet.token);
        let held = bench.fetch(fleet.release).expect("whole").image;
        // In place and back again: the bytes are what they were, and one may have seen others.
        fs::set_permissions(&fleet.path, Permissions::from_mode(0o644)).expect("changed");
        assert!(!held.unchanged());
        assert!(!bench.claim(fleet.token));
        assert!(matches!(bench.redeem(fleet.token), Redeemed::Ready { .. }), "hashed and good");
        assert!(!bench.claim(fleet.token), "it is held still");
        drop(held);
        assert!(bench.claim(fleet.token));
    });
}

#[test]
fn one_file_is_opened_once_however_many_ask() {
    let mut bench = Bench::new(Which::Embedded);
    let fleet = fleet(&mut bench);
    let open = || {
        let fds = fs::read_dir("/proc/self/fd").expect("readable");
        let files = fds.filter_map(|fd| fs::read_link(fd.ok()?.path()).ok());
        files.filter(|file| *file == fleet.path).count()
    };
    let images: Vec<_> =
        (0..10).map(|_| bench.fetch(fleet.release).expect("whole").image).collect();
    assert_eq!(open(), 1);
    drop(images);
    assert_eq!(open(), 1, "kept for the next");
}

#[test]
fn few_images_are_kept_open() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut options = otter_store::MemoryOptions::default();
    options.images.open_max = 2;
    let memory = otter_store::Memory::open(directory.path(), options).expect("a store");
    let operator = memory.operator();
    let staged: Vec<Staged> =
        (0..5_u8).map(|i| operator.stage(&mut &[i][..], 10).expect("staged")).collect();
    let images = directory.path().join("images");
    let open = || {
        let fds = fs::read_dir("/proc/self/fd").expect("readable");
        let files = fds.filter_map(|fd| fs::read_link(fd.ok()?.path()).ok());
        files
            .filter(|file| file.parent() == Some(&images) && *file != images.join(".incoming"))
            .count()
    };
    for staged in &staged {
        drop(staged.image().expect("there"));
    }
    assert_eq!(open(), 2);
    let held: Vec<_> = staged.iter().map(|staged| staged.image().expect("there")).collect();
    assert_eq!(open(), 5, "what is in use stays open");
    drop(held);
    assert_eq!(open(), 2);
}

#[test]
fn an_image_of_another_store_is_not_published() {
    let here = Bench::new(Which::Memory);
    let there = Bench::new(Which::Memory);
    let (owner, _) = here.owner('a');
    let release = NewRelease {
        owner,
        target: Target::All,
        version: "1".to_owned(),
        platform: "arduino".to_owned(),
        env_hash: None,
        kind: Kind::Image,
        source: None,
    };
    let published = here.operator.publish(release, stage(&there, b"x"), &|_, _, _| true);
    assert!(matches!(published, Err(OperatorError::Invalid { .. })));
}

fn writable(path: &Path) -> File {
    fs::set_permissions(path, Permissions::from_mode(0o644)).expect("changed");
    File::options().write(true).open(path).expect("writable")
}
