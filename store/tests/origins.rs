//! Images that lie elsewhere: they come once, whole, and without holding anybody up.
#![cfg(feature = "origins")]

mod common;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, SystemTime};

use common::peer::{Gives, Peer};
use common::{Desk, Redeemed, grant, recording, redeemed};
use otter_protocol::{Answer, Kind, OwnerId, Query, Release, ReleaseId};
use otter_store::{
    Embedded, EmbeddedOptions, Image, Memory, MemoryOptions, NewRelease, Operator, OperatorError,
    StoreStats, Target,
};
use tempfile::TempDir;

const FIRMWARE: &[u8] = b"firmware, as it was published";
const SECRET: &str = "a secret of at least thirty-two characters";

/// A store that knows a release and has lost its image.
struct Loser {
    directory: TempDir,
    embedded: Embedded,
    desk: Desk,
    release: ReleaseId,
}

impl Loser {
    fn new(origins: &[String]) -> Self {
        Self::with(origins, |_| {})
    }

    fn with(origins: &[String], change: impl FnOnce(&mut EmbeddedOptions)) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let mut options = options(origins);
        change(&mut options);
        let embedded = Embedded::open(directory.path(), options).expect("a store");
        let release = publish(&embedded.operator(), FIRMWARE).expect("published");
        let desk = Desk::new(|wake| embedded.store(wake));
        let loser = Self { directory, embedded, desk, release };
        // A shared directory is the test's to empty.
        if loser.images().exists() {
            loser.lose();
        }
        loser
    }

    /// Removes all images.
    fn lose(&self) {
        for path in files_in(&self.images()) {
            fs::remove_file(path).expect("removed");
        }
    }

    fn images(&self) -> PathBuf {
        self.directory.path().join("images")
    }

    fn fetch(&mut self) -> Answer<Image> {
        self.desk.ask(Query::Fetch { release: self.release })
    }

    fn stats(&self) -> StoreStats {
        self.embedded.operator().stats()
    }
}

fn options(origins: &[String]) -> EmbeddedOptions {
    let mut options = EmbeddedOptions::default();
    options.images.origins.addresses = origins.to_vec();
    options.images.origins.progress_timeout = Duration::from_millis(300);
    options
}

/// Publishes an image for all devices of an owner, who is made if need be.
fn publish(operator: &Operator, bytes: &[u8]) -> Result<ReleaseId, OperatorError> {
    let owner = owner();
    if operator.owners()?.is_empty() {
        operator.create_owner(Some(owner))?;
    }
    let release = NewRelease {
        owner,
        target: Target::All,
        version: "2.0.0".to_owned(),
        platform: "arduino".to_owned(),
        env_hash: None,
        kind: Kind::Image,
        source: None,
    };
    let staged = operator.stage(&mut &*bytes, 1 << 30)?;
    Ok(operator.publish(release, staged, &|_, _, _| true)?.offer.release)
}

fn owner() -> OwnerId {
    OwnerId::parse(&"a".repeat(64)).expect("an owner id")
}

fn files_in(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).expect("readable");
    let paths = entries.map(|entry| entry.expect("readable").path());
    paths.filter(|path| path.is_file()).collect()
}

fn bytes_of(answer: &Answer<Image>) -> &[u8] {
    let Answer::Release(Some(Release { image, .. })) = answer else { panic!("{answer:?}") };
    image.as_ref()
}

fn url_of(directory: &Path) -> String {
    format!("file://{}", directory.display())
}

/// Another store with the same facts as one that was closed, and no image of its own.
fn heir(parent: &Path, options: EmbeddedOptions) -> (TempDir, Embedded) {
    let directory = tempfile::tempdir().expect("a directory");
    fs::copy(parent.join("otter.db"), directory.path().join("otter.db")).expect("copied");
    let embedded = Embedded::open(directory.path(), options).expect("a store");
    (directory, embedded)
}

#[test]
fn a_missing_image_is_fetched_once_and_kept() {
    let peer = Peer::start(Gives::Image(FIRMWARE.to_vec()));
    let mut loser = Loser::with(&[peer.origin()], |options| {
        options.images.origins.secret = Some(SECRET.to_owned());
    });
    assert_eq!(bytes_of(&loser.fetch()), FIRMWARE);
    let files = files_in(&loser.images());
    assert_eq!(files.len(), 1);
    assert_eq!(fs::read(&files[0]).expect("readable"), FIRMWARE);
    let name = files[0].file_name().expect("a name").to_string_lossy().into_owned();
    assert_eq!(bytes_of(&loser.fetch()), FIRMWARE, "from the file that now lies here");
    let heads = peer.heads();
    assert_eq!(heads.len(), 1, "{heads:?}");
    assert!(heads[0].starts_with(&format!("GET /images/{name} HTTP/1.1\r\n")), "{heads:?}");
    assert!(heads[0].contains(&format!("authorization: Bearer {SECRET}\r\n")), "{heads:?}");
    let stats = loser.stats();
    assert_eq!((stats.fetches_total, stats.fetched_bytes_total), (1, FIRMWARE.len() as u64));
    assert_eq!((stats.images_refused_total, stats.fetches_open), (0, 0));
    let origins = loser.embedded.operator().origins();
    assert_eq!((origins[0].fetched_total, origins[0].failed_total), (1, 0));
}

#[test]
fn a_token_waits_for_its_image_and_is_claimed_only_with_it() {
    let peer = Peer::start(Gives::Image(FIRMWARE.to_vec()));
    let mut loser = Loser::new(&[peer.origin()]);
    let check_in = common::check_in();
    let mut ask = |query| loser.desk.ask(query);
    let recorded = ask(Query::Record(Box::new(recording(owner(), None, Some(check_in)))));
    let Answer::Recorded(Some(recorded)) = recorded else { panic!("{recorded:?}") };
    let mut granting = recording(owner(), Some(recorded.device), None);
    granting.grant = Some(grant(Some(loser.release)));
    let recorded = ask(Query::Record(Box::new(granting)));
    let Answer::Recorded(Some(recorded)) = recorded else { panic!("{recorded:?}") };
    let token = recorded.token.expect("a token");

    let claimed = ask(Query::Claim { token });
    assert!(matches!(claimed, Answer::Claimed(false)), "a claim looks at what lies here");
    assert!(peer.heads().is_empty());
    let Answer::Redemption(redemption) = ask(Query::Redeem { token }) else { panic!("no such") };
    let Redeemed::Ready { bytes, .. } = redeemed(&redemption) else { panic!("{redemption:?}") };
    assert_eq!(bytes, FIRMWARE);
    assert!(matches!(ask(Query::Start { token }), Answer::Redemption(_)));
    assert!(matches!(ask(Query::Claim { token }), Answer::Claimed(true)));
}

#[test]
fn what_is_not_the_image_is_never_kept_and_the_next_origin_is_asked() {
    let size = FIRMWARE.len();
    let other = FIRMWARE.to_ascii_uppercase();
    let wrong = |stats: &StoreStats| stats.fetches_wrong_total;
    let unreachable = |stats: &StoreStats| stats.fetches_unreachable_total;
    let refused = |stats: &StoreStats| stats.fetches_refused_total;
    type Count<'a> = &'a dyn Fn(&StoreStats) -> u64;
    let cases: [(&str, Gives, Count<'_>); 10] = [
        ("other bytes", Gives::Image(other), &wrong),
        ("too short", Gives::Image(FIRMWARE[1..].to_vec()), &wrong),
        ("too long", Gives::Image([FIRMWARE, b"!"].concat()), &wrong),
        ("announced as immense", Gives::Cut(usize::MAX >> 1, FIRMWARE.to_vec()), &wrong),
        ("cut off", Gives::Cut(size, FIRMWARE[..9].to_vec()), &unreachable),
        ("endless", Gives::Endless, &unreachable),
        ("stuck in the middle", Gives::Stuck(size, FIRMWARE[..9].to_vec()), &unreachable),
        ("silent", Gives::Silence, &unreachable),
        ("wrong secret", Gives::Status(401), &refused),
        ("broken", Gives::Status(500), &unreachable),
    ];
    for (what, gives, count) in cases {
        let bad = Peer::start(gives);
        let mut loser = Loser::new(&[bad.origin()]);
        let answer = loser.fetch();
        assert!(matches!(answer, Answer::Unavailable), "{what}: {answer:?}");
        assert_eq!(files_in(&loser.images()), [] as [PathBuf; 0], "{what}");
        assert_eq!(files_in(&loser.images().join(".incoming")), [] as [PathBuf; 0], "{what}");
        let stats = loser.stats();
        assert_eq!((count(&stats), stats.fetches_total), (1, 0), "{what}: {stats:?}");
        let origins = loser.embedded.operator().origins();
        assert!(origins[0].last_failure.is_some(), "{what}: {origins:?}");

        let good = Peer::start(Gives::Image(FIRMWARE.to_vec()));
        let mut loser = Loser::new(&[bad.origin(), good.origin()]);
        assert_eq!(bytes_of(&loser.fetch()), FIRMWARE, "{what}");
    }
}

#[test]
fn an_origin_that_is_down_may_have_the_image() {
    let told = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&told);
    let away = format!("http://{}/images", Peer::nobody());
    let mut loser = Loser::with(std::slice::from_ref(&away), |options| {
        options.images.origins.on_failure = Some(Arc::new(move |origin, reason| {
            kept.lock().expect("kept").push((origin.to_owned(), reason.to_owned()));
        }));
    });
    assert!(matches!(loser.fetch(), Answer::Unavailable));
    let told = told.lock().expect("kept");
    assert_eq!(told.len(), 1);
    assert!(told[0].0 == away && told[0].1.contains("refused"), "{told:?}");
}

#[test]
fn an_image_that_no_origin_has_is_not_there_and_not_asked_for_again_at_once() {
    let peers = [Peer::start(Gives::Status(404)), Peer::start(Gives::Status(404))];
    let mut loser = Loser::new(&[peers[0].origin(), peers[1].origin()]);
    for _ in 0..10 {
        assert!(matches!(loser.fetch(), Answer::Release(None)));
    }
    assert_eq!(peers.map(|peer| peer.heads().len()), [1, 1]);
    let stats = loser.stats();
    assert_eq!((stats.fetches_missing_total, stats.images_refused_total), (2, 9));
    assert_eq!(loser.embedded.operator().origins()[0].failed_total, 0);
}

#[test]
fn it_is_asked_for_again_after_a_while() {
    let peer = Peer::start(Gives::Status(404));
    let mut loser = Loser::with(&[peer.origin()], |options| {
        options.images.origins.failure_kept = Duration::ZERO;
    });
    assert!(matches!(loser.fetch(), Answer::Release(None)));
    peer.set(Gives::Image(FIRMWARE.to_vec()));
    assert_eq!(bytes_of(&loser.fetch()), FIRMWARE);
}

#[test]
fn a_hundred_devices_are_one_fetch() {
    let (open, gate) = mpsc::channel();
    let peer = Peer::start(Gives::Gated(FIRMWARE.to_vec(), Arc::new(Mutex::new(gate))));
    let loser = Loser::with(&[peer.origin()], patient);
    let mut desks: Vec<Desk> =
        (0..4).map(|_| Desk::new(|wake| loser.embedded.store(wake))).collect();
    let queries = || vec![Query::Fetch { release: loser.release }; 25];
    for desk in &mut desks {
        desk.submit(queries());
        desk.collect_nothing();
    }
    peer.wait_for_request();
    assert_eq!(loser.stats().fetches_open, 1);
    open.send(()).expect("a gate");
    for desk in &mut desks {
        let answers = desk.answers(25);
        assert!(answers.iter().all(|answer| bytes_of(answer) == FIRMWARE));
    }
    assert_eq!(peer.heads().len(), 1);
    assert_eq!(loser.stats().fetches_total, 1);
}

#[test]
fn nobody_waits_for_another_images_fetch() {
    let (open, gate) = mpsc::channel();
    let peer = Peer::start(Gives::Gated(FIRMWARE.to_vec(), Arc::new(Mutex::new(gate))));
    let mut loser = Loser::with(&[peer.origin()], patient);
    let here = publish(&loser.embedded.operator(), b"another image").expect("published");
    loser.desk.submit(vec![Query::Fetch { release: loser.release }]);
    loser.desk.collect_nothing();
    peer.wait_for_request();
    let mut other = Desk::new(|wake| loser.embedded.store(wake));
    for _ in 0..10 {
        let answer = other.ask(Query::Fetch { release: here });
        assert_eq!(bytes_of(&answer), b"another image");
    }
    assert_eq!(loser.stats().fetches_open, 1, "still on its way");
    open.send(()).expect("a gate");
    assert_eq!(bytes_of(&loser.desk.answers(1)[0]), FIRMWARE);
}

#[test]
fn an_origin_that_is_away_is_asked_last() {
    let away = Peer::start(Gives::Silence);
    let second = Peer::start(Gives::Image(FIRMWARE.to_vec()));
    let mut loser = Loser::new(&[away.origin(), second.origin()]);
    assert_eq!(bytes_of(&loser.fetch()), FIRMWARE);
    loser.lose();
    assert_eq!(bytes_of(&loser.fetch()), FIRMWARE);
    assert_eq!((away.heads().len(), second.heads().len()), (1, 2));
}

#[test]
fn a_store_that_is_closed_does_not_wait_for_its_fetches() {
    let peer = Peer::start(Gives::Silence);
    let mut loser = Loser::with(&[peer.origin()], patient);
    loser.desk.submit(vec![Query::Fetch { release: loser.release }]);
    loser.desk.collect_nothing();
    peer.wait_for_request();
    loser.embedded.close();
    assert!(matches!(loser.desk.answers(1)[0], Answer::Unavailable));
}

#[test]
fn a_damaged_image_is_fetched_anew() {
    let peer = Peer::start(Gives::Image(FIRMWARE.to_vec()));
    let mut loser = Loser::new(&[peer.origin()]);
    assert_eq!(bytes_of(&loser.fetch()), FIRMWARE);
    let path = files_in(&loser.images()).remove(0);
    fs::remove_file(&path).expect("removed");
    fs::write(&path, FIRMWARE.to_ascii_uppercase()).expect("damaged");
    assert_eq!(bytes_of(&loser.fetch()), FIRMWARE);
    assert_eq!(fs::read(&path).expect("readable"), FIRMWARE);
    assert_eq!(peer.heads().len(), 2);
}

#[test]
fn a_memory_store_fetches_too() {
    let peer = Peer::start(Gives::Image(FIRMWARE.to_vec()));
    let directory = tempfile::tempdir().expect("a directory");
    let mut options = MemoryOptions::default();
    options.images.origins.addresses = vec![peer.origin()];
    let memory = Memory::open(directory.path(), options).expect("a store");
    let release = publish(&memory.operator(), FIRMWARE).expect("published");
    let path = files_in(&directory.path().join("images")).remove(0);
    fs::remove_file(path).expect("removed");
    let answer = Desk::new(|wake| memory.store(wake)).ask(Query::Fetch { release });
    assert_eq!(bytes_of(&answer), FIRMWARE);
}

#[test]
fn what_is_published_at_one_store_is_given_by_another() {
    // The second is put there in parts.
    let immense: Vec<u8> = (0..17 << 20).map(|i: u32| (i ^ i >> 8) as u8).collect();
    let bucket = tempfile::tempdir().expect("a directory");
    let origins = [url_of(bucket.path())];
    let directory = tempfile::tempdir().expect("a directory");
    let first = Embedded::open(directory.path(), options(&origins)).expect("a store");
    let images = [FIRMWARE, &immense];
    let releases = images.map(|bytes| publish(&first.operator(), bytes).expect("published"));
    assert_eq!(files_in(bucket.path()).len(), 2);
    assert_eq!(first.operator().stats().images_put_total, 2);
    first.close();
    let (_directory, heir) = heir(directory.path(), options(&origins));
    for (release, bytes) in releases.into_iter().zip(images) {
        let answer = Desk::new(|wake| heir.store(wake)).ask(Query::Fetch { release });
        assert!(bytes_of(&answer) == bytes);
    }
}

#[test]
fn what_cannot_be_put_is_not_published() {
    let parent = tempfile::tempdir().expect("a directory");
    let bucket = parent.path().join("bucket");
    fs::create_dir(&bucket).expect("made");
    let directory = tempfile::tempdir().expect("a directory");
    let origins = [url_of(&bucket)];
    let store = Embedded::open(directory.path(), options(&origins)).expect("a store");
    fs::remove_dir(&bucket).expect("removed");
    fs::write(&bucket, b"no directory any more").expect("written");
    let error = publish(&store.operator(), FIRMWARE).expect_err("it cannot be put");
    assert!(matches!(error, OperatorError::Origin { .. }), "{error:?}");
    assert!(error.to_string().contains(&origins[0]), "{error}");
    assert!(store.operator().releases(None).expect("listed").is_empty());
    assert_eq!(files_in(&directory.path().join("images")), [] as [PathBuf; 0]);
    assert_eq!(store.operator().stats().images_unput_total, 1);

    fs::remove_file(&bucket).expect("removed");
    fs::create_dir(&bucket).expect("made");
    publish(&store.operator(), FIRMWARE).expect("it can again");
}

#[test]
fn an_origin_that_cannot_be_one_is_said_at_once() {
    let directory = tempfile::tempdir().expect("a directory");
    let origins = ["gopher://a/images".to_owned()];
    let error = Embedded::open(directory.path(), options(&origins)).expect_err("no origin");
    assert!(error.to_string().contains("gopher://a/images"), "{error}");
}

#[test]
fn servers_share_a_directory() {
    let common = tempfile::tempdir().expect("a directory");
    let sharing = || {
        let mut options = EmbeddedOptions::default();
        options.images.shared = Some(common.path().to_path_buf());
        options
    };
    let directory = tempfile::tempdir().expect("a directory");
    let first = Embedded::open(directory.path(), sharing()).expect("a store");
    let release = publish(&first.operator(), FIRMWARE).expect("published");
    assert!(!directory.path().join("images").exists());
    first.close();
    let (_directory, second) = heir(directory.path(), sharing());
    let first = Embedded::open(directory.path(), sharing()).expect("opened again");
    let mut desk = Desk::new(|wake| second.store(wake));
    assert_eq!(bytes_of(&desk.ask(Query::Fetch { release })), FIRMWARE);

    let files = files_in(common.path());
    first.operator().withdraw(release).expect("withdrawn");
    drop(first.operator().stage(&mut &b"not published"[..], 100).expect("staged"));
    first.close();
    drop(Embedded::open(directory.path(), sharing()).expect("opened again"));
    assert!(files.iter().all(|file| file.exists()), "another server may need it");
    assert_eq!(bytes_of(&desk.ask(Query::Fetch { release })), FIRMWARE);
}

#[test]
fn an_image_that_another_server_puts_there_later_is_seen() {
    let common = tempfile::tempdir().expect("a directory");
    let mut loser = Loser::with(&[], |options| {
        options.images.shared = Some(common.path().to_path_buf());
    });
    for path in files_in(common.path()) {
        fs::remove_file(path).expect("removed");
    }
    assert!(matches!(loser.fetch(), Answer::Release(None)));
    let mut options = MemoryOptions::default();
    options.images.shared = Some(common.path().to_path_buf());
    let directory = tempfile::tempdir().expect("a directory");
    let other = Memory::open(directory.path(), options).expect("a store").operator();
    let staged = other.stage(&mut &*FIRMWARE, 1 << 20).expect("staged");
    assert_eq!(bytes_of(&loser.fetch()), FIRMWARE);
    drop(staged);
}

#[test]
fn a_start_leaves_what_another_server_is_writing() {
    let common = tempfile::tempdir().expect("a directory");
    let incoming = common.path().join(".incoming");
    fs::create_dir(&incoming).expect("made");
    let names = ["of today", "of last week"].map(|name| incoming.join(name));
    for name in &names {
        fs::write(name, b"half an image").expect("written");
    }
    let last_week = SystemTime::now() - Duration::from_secs(7 * 86_400);
    File::options()
        .write(true)
        .open(&names[1])
        .and_then(|file| file.set_modified(last_week))
        .expect("aged");
    let mut options = MemoryOptions::default();
    options.images.shared = Some(common.path().to_path_buf());
    let directory = tempfile::tempdir().expect("a directory");
    let _memory = Memory::open(directory.path(), options).expect("a store");
    assert_eq!(names.map(|name| name.exists()), [true, false]);
}

/// What another server is told is only what lies here and is whole.
#[test]
fn only_whole_images_are_for_others() {
    let directory = tempfile::tempdir().expect("a directory");
    let memory = Memory::open(directory.path(), MemoryOptions::default()).expect("a store");
    let staged = memory.operator().stage(&mut &*FIRMWARE, 1 << 20).expect("staged");
    let name = staged.sha256();
    assert_eq!(memory.operator().image(&name).expect("whole").as_ref(), FIRMWARE);
    assert!(memory.operator().image(&[7; 32]).is_none());
    let path = files_in(&directory.path().join("images")).remove(0);
    fs::remove_file(&path).expect("removed");
    fs::write(&path, FIRMWARE.to_ascii_uppercase()).expect("damaged");
    assert!(memory.operator().image(&name).is_none());
    fs::remove_file(&path).expect("removed");
    std::os::unix::fs::symlink("/etc/passwd", &path).expect("linked");
    assert!(memory.operator().image(&name).is_none());
}

/// For tests in which the origin waits for the test.
fn patient(options: &mut EmbeddedOptions) {
    options.images.origins.progress_timeout = Duration::from_secs(60);
}
