//! A store with a clock that the test holds, and one thread's side of it.
#![allow(dead_code, reason = "each test binary uses a part of it")]

#[cfg(feature = "redis")]
mod redis;

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use otter_protocol::{
    Alias, Answer, ApiKey, CheckIn, Device, DeviceId, DeviceStanding, Grant, Identify, Kind, Mac,
    OwnerId, Query, Record, Recorded, Redemption, Release, ReleaseId, Standing, Token,
};
use otter_store::{
    Embedded, EmbeddedOptions, Image, Memory, MemoryOptions, NewRelease, Operator, Published,
    Store, Target, Ticket, Wake,
};
#[cfg(feature = "redis")]
use otter_store::{Redis, RedisOptions};
use tempfile::TempDir;

#[cfg(feature = "origins")]
pub(crate) mod peer;

/// Where the clock of a bench begins, in milliseconds.
pub(crate) const START_MS: u64 = 1_795_478_791_000;

pub(crate) const HOUR_MS: u64 = 3_600_000;

/// Which store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Which {
    Memory,
    Embedded,
    #[cfg(feature = "redis")]
    Redis,
    /// Redis Cluster; not one of [`Which::ALL`], because it is slow.
    #[cfg(feature = "redis")]
    Cluster,
}

impl Which {
    /// All kinds of store.
    pub(crate) const ALL: &[Self] = &[
        Self::Memory,
        Self::Embedded,
        #[cfg(feature = "redis")]
        Self::Redis,
    ];
}

/// A store, its clock, and one thread's side of it.
pub(crate) struct Bench {
    pub(crate) directory: TempDir,
    pub(crate) now_ms: Arc<AtomicU64>,
    pub(crate) operator: Operator,
    pub(crate) open: Open,
    pub(crate) desk: Desk,
    pub(crate) which: Which,
}

/// An open store.
pub(crate) enum Open {
    Memory(Memory),
    Embedded(Embedded),
    #[cfg(feature = "redis")]
    Redis(Redis),
    /// Between two openings.
    Closed,
}

/// One thread's side of a store.
pub(crate) struct Desk {
    store: Box<dyn Store<Image = Image>>,
    bell: Receiver<()>,
    next: u64,
}

/// Runs a test on an empty store of each kind.
pub(crate) fn on_each(test: impl Fn(&mut Bench)) {
    for which in Which::ALL {
        test(&mut Bench::new(*which));
    }
}

/// Runs a test on an empty store of each kind that answers from tables in memory: one that does a
/// turn's writes in their order, and removes images by itself. A store of many servers does
/// neither.
pub(crate) fn on_each_with_tables(test: impl Fn(&mut Bench)) {
    for which in [Which::Memory, Which::Embedded] {
        test(&mut Bench::new(which));
    }
}

impl Bench {
    pub(crate) fn new(which: Which) -> Self {
        Self::at(which, tempfile::tempdir().expect("a directory"))
    }

    pub(crate) fn at(which: Which, directory: TempDir) -> Self {
        let now_ms = Arc::new(AtomicU64::new(START_MS));
        #[cfg(feature = "redis")]
        match which {
            Which::Redis => redis::empty(),
            Which::Cluster => redis::empty_cluster(),
            Which::Memory | Which::Embedded => {}
        }
        let open = Open::new(which, directory.path(), &now_ms);
        let (operator, desk) = (open.operator(), open.desk());
        Self { directory, now_ms, operator, open, desk, which }
    }

    /// A store on the Redis of these options, which keeps its own time and what it has.
    #[cfg(feature = "redis")]
    pub(crate) fn on_redis(options: RedisOptions) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let redis = Redis::open(directory.path(), options).expect("a store");
        let open = Open::Redis(redis);
        let (operator, desk) = (open.operator(), open.desk());
        let now_ms = Arc::new(AtomicU64::new(START_MS));
        Self { directory, now_ms, operator, open, desk, which: Which::Redis }
    }

    /// Closes it and opens it again with these options.
    #[cfg(feature = "redis")]
    pub(crate) fn reopen_on(&mut self, options: RedisOptions) {
        self.close();
        self.open = Open::Redis(Redis::open(self.directory.path(), options).expect("a store"));
        self.operator = self.open.operator();
        self.desk = self.open.desk();
    }

    /// What an operator of Redis should know.
    #[cfg(feature = "redis")]
    pub(crate) fn warnings(&self) -> &[String] {
        match &self.open {
            Open::Redis(redis) => redis.warnings(),
            Open::Memory(_) | Open::Embedded(_) | Open::Closed => &[],
        }
    }

    /// Another thread's side of the same store.
    pub(crate) fn another_desk(&self) -> Desk {
        self.open.desk()
    }

    /// Closes a store that remembers and opens it again.
    pub(crate) fn reopen(&mut self) {
        let alone = alone();
        let which = match std::mem::replace(&mut self.open, Open::Closed) {
            Open::Embedded(embedded) => {
                embedded.close();
                Which::Embedded
            }
            #[cfg(feature = "redis")]
            Open::Redis(redis) => {
                redis.close();
                self.which
            }
            open @ (Open::Memory(_) | Open::Closed) => {
                self.open = open;
                return;
            }
        };
        self.open = Open::new(which, self.directory.path(), &self.now_ms);
        drop(alone);
        self.operator = self.open.operator();
        self.desk = self.open.desk();
    }

    /// Does it count from its opening, as a store that remembers and was opened again does?
    pub(crate) fn was_reopened(&self) -> bool {
        !matches!(self.open, Open::Memory(_))
    }

    /// Closes the store; what it gave out stays.
    pub(crate) fn close(&mut self) {
        match std::mem::replace(&mut self.open, Open::Closed) {
            Open::Embedded(embedded) => embedded.close(),
            #[cfg(feature = "redis")]
            Open::Redis(redis) => redis.close(),
            Open::Memory(_) | Open::Closed => {}
        }
    }

    /// So many tokens were not tried yet, where the store can count them.
    pub(crate) fn assert_open(&self, tokens: u64) {
        if self.has_tables() {
            assert_eq!(self.operator.stats().tokens_open, tokens);
        }
    }

    /// Does it answer from tables in memory, which it can count?
    pub(crate) fn has_tables(&self) -> bool {
        matches!(self.open, Open::Memory(_) | Open::Embedded(_))
    }

    pub(crate) fn advance(&self, ms: u64) {
        self.now_ms.fetch_add(ms, Ordering::SeqCst);
    }

    pub(crate) fn set_clock(&self, unix_ms: u64) {
        self.now_ms.store(unix_ms, Ordering::SeqCst);
    }

    /// An owner of 64 equal letters, with a key.
    pub(crate) fn owner(&self, letter: char) -> (OwnerId, ApiKey) {
        let owner = OwnerId::parse(&letter.to_string().repeat(64)).expect("an owner id");
        self.operator.create_owner(Some(owner)).expect("a new owner");
        let key = self.operator.create_key(&owner, "a key").expect("a key").key;
        (owner, key)
    }

    /// Publishes an image.
    pub(crate) fn publish(&self, owner: OwnerId, target: Target, bytes: &[u8]) -> Published {
        let release = NewRelease {
            owner,
            target,
            version: "2.0.0".to_owned(),
            platform: "arduino".to_owned(),
            env_hash: None,
            kind: Kind::Image,
            source: None,
        };
        let staged = self.operator.stage(&mut &*bytes, 1 << 30).expect("staged");
        self.operator.publish(release, staged, &|_, _, _| true).expect("published")
    }

    pub(crate) fn ask(&mut self, query: Query) -> Answer<Image> {
        self.desk.ask(query)
    }

    pub(crate) fn identify(&mut self, identify: Identify) -> Standing {
        let answer = self.ask(Query::Identify(identify));
        let Answer::Standing(standing) = answer else { panic!("{answer:?}") };
        standing
    }

    pub(crate) fn known(&mut self, owner: OwnerId, key: ApiKey, device: DeviceId) -> Device {
        let standing =
            self.identify(Identify { owner: Some(owner), key, device: Some(device), mac: None });
        let DeviceStanding::Known(device) = standing.device else { panic!("{standing:?}") };
        device
    }

    pub(crate) fn record(&mut self, record: Record) -> Option<Recorded> {
        let answer = self.ask(Query::Record(Box::new(record)));
        let Answer::Recorded(recorded) = answer else { panic!("{answer:?}") };
        recorded
    }

    /// Registers a device of platform `arduino:esp8266`.
    pub(crate) fn register(&mut self, owner: OwnerId, mac: &str) -> DeviceId {
        let check_in = CheckIn { mac: Mac::parse(mac), ..check_in() };
        self.record(recording(owner, None, Some(check_in))).expect("registered").device
    }

    /// Lets a device be offered a release.
    pub(crate) fn grant(&mut self, owner: OwnerId, device: DeviceId, grant: Grant) -> Token {
        let record = Record { grant: Some(grant), ..recording(owner, Some(device), None) };
        self.record(record).and_then(|recorded| recorded.token).expect("a token")
    }

    pub(crate) fn redeem(&mut self, token: Token) -> Redeemed {
        self.redemption(Query::Redeem { token })
    }

    pub(crate) fn start(&mut self, token: Token) -> Redeemed {
        self.redemption(Query::Start { token })
    }

    pub(crate) fn claim(&mut self, token: Token) -> bool {
        let answer = self.ask(Query::Claim { token });
        let Answer::Claimed(claimed) = answer else { panic!("{answer:?}") };
        claimed
    }

    pub(crate) fn fetch(&mut self, release: ReleaseId) -> Option<Release<Image>> {
        let answer = self.ask(Query::Fetch { release });
        let Answer::Release(release) = answer else { panic!("{answer:?}") };
        release
    }

    fn redemption(&mut self, query: Query) -> Redeemed {
        let answer = self.ask(query);
        let Answer::Redemption(redemption) = answer else { panic!("{answer:?}") };
        redeemed(&redemption)
    }
}

impl Open {
    fn new(which: Which, directory: &Path, now_ms: &Arc<AtomicU64>) -> Self {
        match which {
            Which::Memory => {
                let mut options = MemoryOptions::default();
                options.clock = clock(now_ms);
                Self::Memory(Memory::open(directory, options).expect("a store"))
            }
            Which::Embedded => Self::Embedded(open_embedded(directory, now_ms)),
            #[cfg(feature = "redis")]
            Which::Redis | Which::Cluster => {
                let mut options = RedisOptions::new(redis::url(which == Which::Cluster));
                options.clock = Some(redis::steady(now_ms));
                Self::Redis(Redis::open(directory, options).expect("a store"))
            }
        }
    }

    fn operator(&self) -> Operator {
        match self {
            Self::Memory(memory) => memory.operator(),
            Self::Embedded(embedded) => embedded.operator(),
            #[cfg(feature = "redis")]
            Self::Redis(redis) => redis.operator(),
            Self::Closed => unreachable!("it was opened"),
        }
    }

    fn desk(&self) -> Desk {
        match self {
            Self::Memory(memory) => Desk::new(|wake| memory.store(wake)),
            Self::Embedded(embedded) => Desk::new(|wake| embedded.store(wake)),
            #[cfg(feature = "redis")]
            Self::Redis(redis) => Desk::new(|wake| redis.store(wake)),
            Self::Closed => unreachable!("it was opened"),
        }
    }
}

/// A process that is being started holds, for a moment, what its parent has open: the lock of an
/// embedded store as well. So none is started while a store is opened again.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One command to the server of this thread.
#[cfg(feature = "redis")]
pub(crate) fn call(words: &[&str]) {
    redis::call(words);
}

impl Desk {
    pub(crate) fn new<S: Store<Image = Image>>(store: impl FnOnce(Wake) -> S) -> Self {
        let (wake, bell) = bell();
        Self { store: Box::new(store(wake)), bell, next: 0 }
    }

    /// Asks one question and waits for the answer.
    pub(crate) fn ask(&mut self, query: Query) -> Answer<Image> {
        self.ask_all(vec![query]).remove(0)
    }

    /// Asks all in one turn and waits for all answers, which come in the order of the questions.
    pub(crate) fn ask_all(&mut self, queries: Vec<Query>) -> Vec<Answer<Image>> {
        let asked = queries.len();
        self.submit(queries);
        self.answers(asked)
    }

    /// Asks all in one turn.
    pub(crate) fn submit(&mut self, queries: Vec<Query>) {
        let mut batch: Vec<_> = (self.next..).map(Ticket).zip(queries).collect();
        self.next += batch.len() as u64;
        self.store.submit(&mut batch);
        assert!(batch.is_empty(), "submit takes all");
    }

    /// What has come so far, with the numbers of the questions, which count from 0.
    pub(crate) fn collect(&mut self) -> Vec<(u64, Answer<Image>)> {
        let mut answers = Vec::new();
        self.store.collect(&mut answers);
        answers.into_iter().map(|(ticket, answer)| (ticket.0, answer)).collect()
    }

    /// Collects once, and finds nothing.
    pub(crate) fn collect_nothing(&mut self) {
        let mut answers = Vec::new();
        self.store.collect(&mut answers);
        assert!(answers.is_empty(), "{answers:?}");
    }

    /// Waits for the answers to the questions that were asked last.
    pub(crate) fn answers(&mut self, asked: usize) -> Vec<Answer<Image>> {
        let mut answers = Vec::new();
        loop {
            self.store.collect(&mut answers);
            if answers.len() >= asked {
                break;
            }
            self.bell.recv_timeout(Duration::from_secs(60)).expect("an answer");
        }
        answers.sort_by_key(|(ticket, _)| ticket.0);
        let tickets: Vec<u64> = answers.iter().map(|(ticket, _)| ticket.0).collect();
        let expected = self.next - asked as u64..self.next;
        assert_eq!(tickets, expected.collect::<Vec<_>>(), "each is answered once");
        answers.into_iter().map(|(_, answer)| answer).collect()
    }
}

/// What is behind a token, in a form that can be compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Redeemed {
    Unknown,
    Nothing,
    Ready { release: ReleaseId, bytes: Vec<u8>, started: bool, forced: bool },
}

pub(crate) fn redeemed(redemption: &Redemption<Image>) -> Redeemed {
    match redemption {
        Redemption::Unknown => Redeemed::Unknown,
        Redemption::Nothing => Redeemed::Nothing,
        Redemption::Ready { release, started, forced, .. } => Redeemed::Ready {
            release: release.offer.release,
            bytes: release.image.as_ref().to_vec(),
            started: *started,
            forced: *forced,
        },
    }
}

pub(crate) fn open_embedded(directory: &Path, now_ms: &Arc<AtomicU64>) -> Embedded {
    let mut options = EmbeddedOptions::default();
    options.clock = clock(now_ms);
    Embedded::open(directory, options).expect("a store")
}

pub(crate) fn clock(now_ms: &Arc<AtomicU64>) -> otter_store::Clock {
    let now_ms = Arc::clone(now_ms);
    Arc::new(move || now_ms.load(Ordering::SeqCst))
}

pub(crate) fn bell() -> (Wake, Receiver<()>) {
    let (ring, bell) = mpsc::channel();
    let wake = move || {
        // A bell that nobody hears any more is no failure.
        let _ = ring.send(());
    };
    (Arc::new(wake), bell)
}

pub(crate) fn check_in() -> CheckIn {
    CheckIn {
        mac: None,
        alias: None,
        version: Some("1.0.0".into()),
        platform: Some("arduino:esp8266".into()),
        env_hash: None,
        facts: "{\"version\":\"1.0.0\"}".into(),
        digest: 1,
        told_auto_update: false,
    }
}

pub(crate) fn recording(
    owner: OwnerId,
    device: Option<DeviceId>,
    check_in: Option<CheckIn>,
) -> Record {
    Record { owner, device, check_in, offered: None, grant: None }
}

pub(crate) fn grant(release: Option<ReleaseId>) -> Grant {
    Grant {
        release,
        forced: false,
        unused: Duration::from_secs(24 * 3600),
        used: Duration::from_secs(3600),
        transfer: Duration::from_secs(900),
    }
}

pub(crate) fn alias(text: &str) -> Alias {
    Alias::clean(text).expect("an alias")
}
