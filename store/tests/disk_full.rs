//! A disk that is full: everything is answered, nothing is half kept, and the store goes on when
//! there is room again.

mod common;

use std::env;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::{Desk, check_in, grant, recording};
use otter_protocol::{
    Answer, CheckIn, DeviceStanding, Identify, Kind, Mac, OwnerId, Query, Record, Redemption, Token,
};
use otter_store::{Embedded, EmbeddedOptions, NewRelease, OperatorError, Target};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Runs [`full_by_limit`] in a process that may not write files beyond a size. The shell sees to
/// it that the signal which goes with that is ignored.
#[test]
fn a_file_that_cannot_grow() {
    let directory = tempfile::tempdir().expect("a directory");
    let child = Command::new("sh")
        .arg("-c")
        .arg("trap '' XFSZ; exec \"$0\" --exact full_by_limit --nocapture")
        .arg(env::current_exe().expect("this test"))
        .env(DIRECTORY, directory.path())
        .output()
        .expect("started");
    let said = [child.stdout, child.stderr].concat();
    assert!(child.status.success(), "{}", String::from_utf8_lossy(&said));
    assert!(directory.path().join(DONE).exists(), "it was tried");
}

#[test]
fn full_by_limit() {
    let Some(directory) = env::var_os(DIRECTORY).map(PathBuf::from) else { return };
    let before = getrlimit(Resource::Fsize);
    let limit = |current| {
        setrlimit(Resource::Fsize, Rlimit { current, maximum: before.maximum }).expect("set");
    };
    scenario(&directory, || limit(Some(4096)), || limit(before.current));
}

/// A file system of 4 MiB in memory, where this process may mount one.
#[test]
fn a_file_system_without_room() {
    let mount = Mount(tempfile::tempdir().expect("a directory"));
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=4m,mode=0700", "tmpfs"])
        .arg(mount.0.path())
        .status();
    if !mounted.is_ok_and(|status| status.success()) {
        println!("not tried: this process may not mount a file system");
        return;
    }
    let filler = mount.0.path().join("filler");
    let fill = || {
        let mut file = File::create(&filler).expect("created");
        while file.write_all(&[0; 4096]).is_ok() {}
    };
    scenario(&mount.0.path().join("data"), fill, || fs::remove_file(&filler).expect("removed"));
}

struct Mount(tempfile::TempDir);

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

fn scenario(data: &Path, fill: impl FnOnce(), free: impl FnOnce()) {
    let store = Embedded::open(data, EmbeddedOptions::default()).expect("a store");
    let operator = store.operator();
    let owner = operator.create_owner(None).expect("a new owner");
    let key = operator.create_key(&owner, "key").expect("a key").key;
    let mut desk = Desk::new(|wake| store.store(wake));
    let staged = operator.stage(&mut &[7; 50_000][..], 1 << 20).expect("staged");
    let release = operator.publish(new_release(owner), staged, &|_, _, _| true);
    let release = release.expect("published").offer.release;
    let (device, token) = registered(&desk.ask(registration(owner, 1, release)));
    assert!(ready(&desk.ask(Query::Start { token })));
    let commits = operator.stats().commits_total;

    fill();
    let writes = (2..100).map(|bits| registration(owner, bits, release));
    let mut asked: Vec<Query> = writes.collect();
    asked.push(Query::Claim { token });
    asked.push(Query::Push { device, push: "push".into() });
    for answer in desk.ask_all(asked) {
        assert!(matches!(answer, Answer::Unavailable), "{answer:?}");
    }
    let error = operator.create_key(&owner, "another").expect_err("no room");
    assert!(matches!(error, OperatorError::Unavailable { .. }), "{error:?}");
    let said = error.to_string();
    assert!(said.contains("full") || said.contains("I/O"), "what the database said: {said}");
    assert!(said.contains("free or repair the disk"), "what to do: {said}");
    let error = operator.stage(&mut &[8; 50_000][..], 1 << 20).expect_err("no room");
    assert!(matches!(error, OperatorError::Unavailable { .. }), "{error:?}");
    // What is known is answered all the same.
    assert!(ready(&desk.ask(Query::Redeem { token })));
    let identify = Identify { owner: Some(owner), key, device: Some(device), mac: None };
    let answer = desk.ask(Query::Identify(identify));
    let Answer::Standing(standing) = answer else { panic!("{answer:?}") };
    assert!(matches!(standing.device, DeviceStanding::Known(_)));
    let stats = operator.stats();
    assert_eq!((stats.devices, stats.keys, stats.commits_total), (1, 1, commits));
    assert!(stats.commits_failed_total > 0);

    free();
    assert!(matches!(desk.ask(Query::Claim { token }), Answer::Claimed(true)));
    assert!(matches!(desk.ask(Query::Claim { token }), Answer::Claimed(false)));
    let (second, _) = registered(&desk.ask(registration(owner, 2, release)));
    operator.create_key(&owner, "another").expect("a key");
    store.close();

    let store = Embedded::open(data, EmbeddedOptions::default()).expect("a store");
    let stats = store.operator().stats();
    assert_eq!((stats.devices, stats.keys, stats.tokens_open), (2, 2, 1));
    assert!(store.operator().device(second).expect("readable").is_some());
    fs::write(data.join(DONE), b"").expect("written");
}

fn registration(owner: OwnerId, bits: u64, release: otter_protocol::ReleaseId) -> Query {
    let facts = format!("{{\"long\":\"{}\"}}", "x".repeat(500)).into();
    let said = CheckIn { mac: Mac::from_bits(bits), facts, ..check_in() };
    let record = recording(owner, None, Some(said));
    Query::Record(Box::new(Record { grant: Some(grant(Some(release))), ..record }))
}

fn registered(answer: &Answer<otter_store::Image>) -> (otter_protocol::DeviceId, Token) {
    let Answer::Recorded(Some(recorded)) = answer else { panic!("{answer:?}") };
    (recorded.device, recorded.token.expect("granted"))
}

fn ready(answer: &Answer<otter_store::Image>) -> bool {
    matches!(answer, Answer::Redemption(Redemption::Ready { .. }))
}

fn new_release(owner: OwnerId) -> NewRelease {
    NewRelease {
        owner,
        target: Target::All,
        version: "2.0.0".to_owned(),
        platform: "arduino".to_owned(),
        env_hash: None,
        kind: Kind::Image,
        source: None,
    }
}

const DIRECTORY: &str = "OTTER_FULL_DISK";
/// Says that the whole scenario was gone through.
const DONE: &str = "done";
