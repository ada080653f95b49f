//! Law 12 of docs/design.md 8: the stores answer like the model store, whatever they are asked.
//!
//! Ids and tokens are random in a real store, so both sides of each are kept in pairs, and answers
//! are compared with the place of a pair in its list in place of the id.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use otter_protocol::{
    Alias, Answer, ApiKey, CheckIn, Device, DeviceId, DeviceStanding, Grant, Identify, Kind, Mac,
    Offered, OwnerId, Query, Record, Redemption, ReleaseId, Token,
};
use otter_store::{
    DeviceChange, Embedded, EmbeddedOptions, Image, Memory, MemoryOptions, NewRelease, Operator,
    Redis, RedisOptions, Store, Target, Ticket, Wake,
};
use otter_tests::redis::{self, Appends, RedisServer, wait_for};
use otter_tests::{Draft, ModelStore, Random};

const UNIX_START: u64 = 1_795_478_791;
/// Devices that name themselves come first, those that are found by their MAC after them.
const SLOTS: u64 = 6;
const SLOTS_WITH_ID: u64 = 3;

/// A real store and the model, and which ids belong together.
struct Pair {
    model: ModelStore,
    operator: Operator,
    store: Box<dyn Store<Image = Image>>,
    bell: Receiver<()>,
    now_ms: Arc<AtomicU64>,
    owners: Vec<(OwnerId, Vec<ApiKey>)>,
    devices: Vec<(DeviceId, DeviceId)>,
    releases: Vec<(ReleaseId, ReleaseId)>,
    /// Which owner published each.
    publishers: Vec<usize>,
    tokens: Vec<(Token, Token)>,
    random: Random,
    /// How often each kind of thing was done, so that none is forgotten.
    done: BTreeMap<&'static str, u32>,
}

impl Pair {
    fn new(
        operator: Operator,
        store: impl FnOnce(Wake) -> Box<dyn Store<Image = Image>>,
        now_ms: Arc<AtomicU64>,
        seed: u64,
    ) -> Self {
        let (ring, bell) = mpsc::channel();
        let wake: Wake = Arc::new(move || {
            // The test may be over before the last ring.
            let _ = ring.send(());
        });
        let mut pair = Self {
            model: ModelStore::new(seed),
            operator,
            store: store(wake),
            bell,
            now_ms,
            owners: Vec::new(),
            devices: Vec::new(),
            releases: Vec::new(),
            publishers: Vec::new(),
            tokens: Vec::new(),
            random: Random::new(seed),
            done: BTreeMap::new(),
        };
        pair.wait(0);
        for letter in ["a", "b"] {
            let owner = OwnerId::parse(&letter.repeat(64)).expect("an owner id");
            pair.operator.create_owner(Some(owner)).expect("a new owner");
            pair.owners.push((owner, Vec::new()));
        }
        pair
    }

    fn run(&mut self, steps: u32) {
        for _ in 0..steps {
            self.step();
        }
    }

    fn step(&mut self) {
        match self.random.below(30) {
            0..=1 => self.add_key(),
            2 => self.revoke_key(),
            3..=4 => self.set_auto_update(),
            5..=6 => self.publish(),
            7 => self.withdraw(),
            8 => self.issue(),
            9 => self.revoke(),
            10..=11 => {
                let ms = self.random.between(1, 30_000);
                self.wait(ms);
            }
            12..=15 => self.identify(),
            16..=20 => self.record(),
            21 => self.fetch(),
            22 => self.push(),
            23..=25 => self.token("Redeem", |token| Query::Redeem { token }),
            26..=27 => self.token("Start", |token| Query::Start { token }),
            _ => self.claim(),
        }
    }

    fn wait(&mut self, ms: u64) {
        let now_ms = self.now_ms.load(Ordering::SeqCst) + ms;
        self.now_ms.store(now_ms, Ordering::SeqCst);
        self.model.set_clock(Duration::from_millis(now_ms));
    }

    fn note(&mut self, what: &'static str) {
        *self.done.entry(what).or_default() += 1;
    }

    fn owner(&mut self) -> usize {
        self.random.below(2) as usize
    }

    fn add_key(&mut self) {
        let index = self.owner();
        let owner = self.owners[index].0;
        let key = self.operator.create_key(&owner, "a key").expect("a key").key;
        self.model.add_key(owner, key);
        self.owners[index].1.push(key);
        self.note("key");
    }

    fn revoke_key(&mut self) {
        let index = self.owner();
        let (owner, keys) = &mut self.owners[index];
        // One stays, or nothing else would happen.
        if keys.len() > 1 {
            let key = keys.remove(0);
            let hash = otter_tests::image::sha256_of(&key.text());
            self.operator.revoke_key(&hash).expect("revoked");
            self.model.remove_key(*owner, key);
            self.note("key revoked");
        }
    }

    fn pick<T: Copy>(random: &mut Random, pairs: &[(T, T)]) -> Option<(T, T)> {
        (!pairs.is_empty()).then(|| *random.pick(pairs))
    }

    /// What this does to the guard rails has a test of its own.
    fn set_auto_update(&mut self) {
        let Some((model, real)) = Self::pick(&mut self.random, &self.devices) else { return };
        if self.model.device(model).is_none_or(|kept| kept.device.offered.is_some()) {
            return;
        }
        let auto_update = self.random.chance(60);
        self.model.set_auto_update(model, auto_update);
        let change = DeviceChange { auto_update: Some(auto_update), alias: None };
        self.operator.set_device(real, change).expect("a known device");
        self.note("auto_update");
    }

    fn publish(&mut self) {
        let index = self.owner();
        let owner = self.owners[index].0;
        let device = Self::pick(&mut self.random, &self.devices)
            .filter(|(model, _)| self.model.device(*model).is_some_and(|kept| kept.owner == owner));
        let device = device.filter(|_| self.random.chance(50));
        let version = format!("1.{}.0", self.releases.len());
        let platform = self.random.pick(&["arduino", "arduino:esp8266", "nodemcu"]).to_string();
        let draft = Draft { platform: platform.clone(), ..Draft::binary(&version, 1000) };
        let (model_target, target) = match device {
            Some((model, real)) => (otter_tests::Target::Device(model), Target::Device(real)),
            None => (otter_tests::Target::Owner(owner), Target::All),
        };
        let staged = self.operator.stage(&mut &*draft.image, 1 << 20).expect("staged");
        let release = NewRelease {
            owner,
            target,
            version,
            platform,
            env_hash: None,
            kind: Kind::Image,
            source: None,
        };
        let published = self.operator.publish(release, staged, &|_, _, _| true).expect("published");
        let model = self.model.publish(model_target, &draft);
        self.releases.push((model, published.offer.release));
        self.publishers.push(index);
        self.note("publish");
    }

    fn withdraw(&mut self) {
        let Some((model, real)) = Self::pick(&mut self.random, &self.releases) else { return };
        if self.operator.withdraw(real).is_ok() {
            self.model.withdraw(model);
            self.note("withdraw");
        }
    }

    fn grant(&mut self, release: Option<ReleaseId>) -> Grant {
        Grant {
            release,
            forced: self.random.chance(30),
            unused: Duration::from_secs(100),
            used: Duration::from_secs(50),
            transfer: Duration::from_secs(30),
        }
    }

    /// Without a release: the operator's side puts the newest in its place, the model does not.
    fn issue(&mut self) {
        let Some((model, real)) = Self::pick(&mut self.random, &self.devices) else { return };
        let grant = self.grant(None);
        let issued = self.operator.issue_token(real, &grant).expect("issued");
        let release = issued.release.map(|real| self.model_release(real));
        let token = self.model.issue(model, Grant { release, ..grant });
        self.tokens.push((token, issued.token));
        self.note("issue");
    }

    fn revoke(&mut self) {
        let Some((model, real)) = Self::pick(&mut self.random, &self.tokens) else { return };
        // Whether a dead one is still there is nobody's business.
        let _ = self.operator.revoke_token(&real);
        self.model.revoke(model);
        self.note("revoke");
    }

    fn model_release(&self, real: ReleaseId) -> ReleaseId {
        let found = self.releases.iter().find(|(_, known)| *known == real);
        found.expect("a release that was published").0
    }

    fn identify(&mut self) {
        let index = self.owner();
        let key_index = if self.random.chance(80) { index } else { 1 - index };
        let keys = &self.owners[key_index].1;
        let key = if keys.is_empty() || self.random.chance(10) {
            ApiKey([9; 32])
        } else {
            *self.random.pick(keys)
        };
        let slot = self.random.below(SLOTS);
        let stranger = slot_id(index as u64, slot);
        let device = self
            .random
            .chance(70)
            .then(|| Self::pick(&mut self.random, &self.devices).unwrap_or((stranger, stranger)));
        // Without an owner only a device that is known says whose key to look at.
        let is_known = device.is_some_and(|device| self.devices.contains(&device));
        let owner = (!is_known || self.random.chance(85)).then_some(self.owners[index].0);
        let mac = self.random.chance(60).then(|| slot_mac(index as u64, slot));
        let identify = |device| Query::Identify(Identify { owner, key, device, mac });
        self.ask("Identify", identify(device.map(|d| d.0)), identify(device.map(|d| d.1)));
    }

    fn record(&mut self) {
        let index = self.owner();
        let slot = self.random.below(SLOTS);
        // Now and then a device of the other owner, which must be refused.
        let of = if self.random.chance(90) { index } else { 1 - index } as u64;
        let device = (slot < SLOTS_WITH_ID).then(|| slot_id(of, slot));
        // The core registers nothing without a check-in.
        let is_known = device.is_some_and(|device| self.model.device(device).is_some());
        let check_in = (!is_known || self.random.chance(80)).then(|| self.check_in(of, slot));
        let owner = self.owners[index].0;
        // The core offers what the device's own owner published.
        let published = self.releases.iter().zip(&self.publishers);
        let own: Vec<_> =
            published.filter(|(_, by)| **by == index).map(|(pair, _)| *pair).collect();
        let release = Self::pick(&mut self.random, &own);
        let grant = self.random.chance(60).then(|| self.grant(None));
        let grant_release = release.filter(|_| self.random.chance(70));
        let offered_times = self.random.chance(40).then(|| self.random.below(9) as u8);
        let record = |release: Option<ReleaseId>, granted: Option<ReleaseId>| {
            let guard = |release, times| Offered { release, times, failures: 1, quiet_until: 7 };
            Query::Record(Box::new(Record {
                owner,
                device,
                check_in: check_in.clone(),
                offered: release.zip(offered_times).map(|(release, times)| guard(release, times)),
                grant: grant.map(|grant| Grant { release: granted, ..grant }),
            }))
        };
        let model = record(release.map(|r| r.0), grant_release.map(|r| r.0));
        let real = record(release.map(|r| r.1), grant_release.map(|r| r.1));
        self.ask("Record", model, real);
    }

    /// No two devices of an owner have the same MAC: which one is found then is open.
    fn check_in(&mut self, owner: u64, slot: u64) -> CheckIn {
        let digest = self.random.draw();
        CheckIn {
            mac: (slot >= SLOTS_WITH_ID || self.random.chance(80)).then(|| slot_mac(owner, slot)),
            alias: Alias::clean(["unnamed", "kitchen", "hall"][self.random.below(3) as usize]),
            version: self.random.chance(80).then(|| format!("0.{}.0", digest % 9).into()),
            platform: self.random.chance(80).then(|| {
                (*self.random.pick(&["arduino", "arduino:esp8266", "nodemcu:x", "nodejs"])).into()
            }),
            env_hash: self.random.chance(50).then(|| "ee".into()),
            facts: "{}".into(),
            digest,
            told_auto_update: self.random.chance(50),
        }
    }

    fn fetch(&mut self) {
        let Some((model, real)) = Self::pick(&mut self.random, &self.releases) else { return };
        self.ask("Fetch", Query::Fetch { release: model }, Query::Fetch { release: real });
    }

    fn push(&mut self) {
        let Some((model, real)) = Self::pick(&mut self.random, &self.devices) else { return };
        let push = |device| Query::Push { device, push: "abc".into() };
        self.ask("Push", push(model), push(real));
    }

    fn token(&mut self, what: &'static str, query: impl Fn(Token) -> Query) {
        // The young ones live more often.
        let recent = self.tokens.len().saturating_sub(5);
        let Some((model, real)) = Self::pick(&mut self.random, &self.tokens[recent..]) else {
            return;
        };
        self.ask(what, query(model), query(real));
    }

    /// The core claims only what it started; what a store says to other claims is open.
    fn claim(&mut self) {
        let recent = self.tokens.len().saturating_sub(12);
        let tokens = self.tokens[recent..].iter();
        let is_started =
            |(model, _): &&(Token, Token)| self.model.token(*model).is_none_or(|kept| kept.started);
        let started: Vec<_> = tokens.filter(is_started).copied().collect();
        let Some((model, real)) = Self::pick(&mut self.random, &started) else { return };
        self.ask("Claim", Query::Claim { token: model }, Query::Claim { token: real });
    }

    /// Asks both, and compares.
    fn ask(&mut self, what: &'static str, model_query: Query, real_query: Query) {
        let shown = format!("{model_query:?}");
        let model = self.model.answer(&model_query);
        let real = self.answer(real_query);
        if let (Answer::Recorded(Some(model)), Answer::Recorded(Some(real))) = (&model, &real) {
            if !self.devices.contains(&(model.device, real.device)) {
                self.devices.push((model.device, real.device));
            }
            if let (Some(model), Some(real)) = (model.token, real.token) {
                self.tokens.push((model, real));
            }
        }
        let (model, real) = (self.plain(&model, Side::Model), self.plain(&real, Side::Real));
        let at = self.now_ms.load(Ordering::SeqCst) - UNIX_START * 1000;
        assert_eq!(real, model, "{shown} at {at} ms");
        self.note(what);
    }

    fn answer(&mut self, query: Query) -> Answer<Image> {
        let mut queries = vec![(Ticket(1), query)];
        self.store.submit(&mut queries);
        let mut answers = Vec::new();
        loop {
            self.store.collect(&mut answers);
            match answers.pop() {
                Some((_, answer)) => return answer,
                None => self.bell.recv().expect("a ring"),
            }
        }
    }

    /// An answer as text, without what is random in it.
    fn plain<I: AsRef<[u8]>>(&self, answer: &Answer<I>, side: Side) -> String {
        match answer {
            Answer::Standing(standing) => {
                let device = match &standing.device {
                    DeviceStanding::Known(device) => self.plain_device(device, side),
                    DeviceStanding::Unknown => "unknown".to_owned(),
                    DeviceStanding::Foreign => "foreign".to_owned(),
                };
                let newest = standing.newest.as_ref().map(|offer| offer.version.clone());
                format!("{:?} {device} {newest:?}", standing.key)
            }
            Answer::Release(release) => {
                let bytes = release.as_ref().map(|release| release.image.as_ref().to_vec());
                format!("{:?}", bytes.map(|bytes| otter_tests::image::sha256_of(&bytes)))
            }
            Answer::Redemption(Redemption::Ready { device, release, started, forced }) => {
                let (device, version) = (self.place(*device, side), &release.offer.version);
                let sha256 = otter_tests::image::sha256_of(release.image.as_ref());
                let sha256_told = release.offer.sha256;
                format!("{device} {version} {started} {forced} {}", sha256 == sha256_told)
            }
            Answer::Redemption(Redemption::Unknown) => "unknown".to_owned(),
            Answer::Redemption(Redemption::Nothing) => "nothing".to_owned(),
            Answer::Recorded(Some(recorded)) => {
                let alias = plain_alias(recorded.alias, recorded.device);
                let device = self.place(recorded.device, side);
                format!("{device} {alias} {} {}", recorded.auto_update, recorded.token.is_some())
            }
            Answer::Recorded(None) => "refused".to_owned(),
            Answer::Kept => "kept".to_owned(),
            Answer::Claimed(claimed) => format!("claimed {claimed}"),
            Answer::Unavailable => "unavailable".to_owned(),
        }
    }

    fn plain_device(&self, device: &Device, side: Side) -> String {
        let offered = device.offered.map(|offered| {
            let known = |(model, real): &(ReleaseId, ReleaseId)| match side {
                Side::Model => *model == offered.release,
                Side::Real => *real == offered.release,
            };
            (self.releases.iter().position(known), offered.times, offered.failures)
        });
        format!(
            "{} {} {:?} {} {:?} {:?} {} {} {} {offered:?}",
            self.place(device.id, side),
            plain_alias(device.alias, device.id),
            device.mac,
            device.auto_update,
            device.version,
            device.env_hash,
            device.digest,
            device.told_auto_update,
            device.seen,
        )
    }

    fn place(&self, device: DeviceId, side: Side) -> usize {
        let found = self.devices.iter().position(|(model, real)| match side {
            Side::Model => *model == device,
            Side::Real => *real == device,
        });
        found.expect("a device that was registered")
    }
}

/// Which of a pair's ids an answer holds.
#[derive(Clone, Copy)]
enum Side {
    Model,
    Real,
}

fn plain_alias(alias: Alias, device: DeviceId) -> String {
    if alias == Alias::invented(device) { "(invented)".to_owned() } else { alias.to_string() }
}

fn slot_id(owner: u64, slot: u64) -> DeviceId {
    DeviceId([owner as u8 * 16 + slot as u8 + 1; 16])
}

fn slot_mac(owner: u64, slot: u64) -> Mac {
    Mac::parse(&format!("5CCF7F00{owner:02X}{slot:02X}")).expect("a MAC")
}

fn assert_all_was_done(done: &BTreeMap<&'static str, u32>) {
    for what in [
        "key",
        "key revoked",
        "auto_update",
        "publish",
        "withdraw",
        "issue",
        "revoke",
        "Identify",
        "Record",
        "Fetch",
        "Push",
        "Redeem",
        "Start",
        "Claim",
    ] {
        assert!(done.contains_key(what), "{what} never happened: {done:?}");
    }
}

/// `Config::offers_max`: the operator setting `auto_update` starts over.
#[test]
fn setting_auto_update_starts_the_guard_rails_over() {
    let directory = tempfile::tempdir().expect("a directory");
    let now_ms = Arc::new(AtomicU64::new(UNIX_START * 1000));
    let mut options = MemoryOptions::default();
    options.clock = clock(&now_ms);
    let memory = Memory::open(directory.path(), options).expect("a store");
    let store = |wake| Box::new(memory.store(wake)) as Box<dyn Store<Image = Image>>;
    let mut pair = Pair::new(memory.operator(), store, now_ms, 1);
    let owner = pair.owners[0].0;
    let device = slot_id(0, 0);
    let release = ReleaseId([5; 16]);
    let offered = Some(Offered { release, times: 8, failures: 0, quiet_until: 0 });
    let check_in = Some(pair.check_in(0, 0));
    let record = Record { owner, device: Some(device), check_in, offered, grant: None };
    pair.answer(Query::Record(Box::new(record)));
    let change = DeviceChange { auto_update: Some(true), alias: None };
    pair.operator.set_device(device, change).expect("a known device");
    let row = pair.operator.device(device).expect("readable").expect("a known device");
    assert_eq!(row.offered, None);
}

fn clock(now_ms: &Arc<AtomicU64>) -> otter_store::Clock {
    let now_ms = Arc::clone(now_ms);
    Arc::new(move || now_ms.load(Ordering::SeqCst))
}

#[test]
fn the_memory_store_answers_like_the_model() {
    let mut done = BTreeMap::new();
    for seed in 0..40 {
        let directory = tempfile::tempdir().expect("a directory");
        let now_ms = Arc::new(AtomicU64::new(UNIX_START * 1000));
        let mut options = MemoryOptions::default();
        options.clock = clock(&now_ms);
        let memory = Memory::open(directory.path(), options).expect("a store");
        let store = |wake| Box::new(memory.store(wake)) as Box<dyn Store<Image = Image>>;
        let mut pair = Pair::new(memory.operator(), store, now_ms, seed);
        pair.run(400);
        done.append(&mut pair.done);
    }
    assert_all_was_done(&done);
}

#[test]
fn the_embedded_store_answers_like_the_model_and_after_each_reopening_too() {
    let mut done = BTreeMap::new();
    for seed in 100..106 {
        let directory = tempfile::tempdir().expect("a directory");
        let now_ms = Arc::new(AtomicU64::new(UNIX_START * 1000));
        let open = || {
            let mut options = EmbeddedOptions::default();
            options.clock = clock(&now_ms);
            Embedded::open(directory.path(), options).expect("a store")
        };
        let mut embedded = open();
        let store = |wake| Box::new(embedded.store(wake)) as Box<dyn Store<Image = Image>>;
        let mut pair = Pair::new(embedded.operator(), store, Arc::clone(&now_ms), seed);
        for _ in 0..4 {
            pair.run(60);
            embedded.close();
            embedded = open();
            let (ring, bell) = mpsc::channel();
            pair.operator = embedded.operator();
            pair.store = Box::new(embedded.store(Arc::new(move || {
                let _ = ring.send(());
            })));
            pair.bell = bell;
        }
        done.append(&mut pair.done);
    }
    assert_all_was_done(&done);
}

#[test]
fn the_redis_store_answers_like_the_model_and_after_each_crash_of_redis_too() {
    let mut done = BTreeMap::new();
    for seed in 200..204 {
        let appends = Appends::Always;
        let mut server =
            RedisServer::start_with(redis::RedisOptions { appends, ..Default::default() });
        let directory = tempfile::tempdir().expect("a directory");
        let now_ms = Arc::new(AtomicU64::new(UNIX_START * 1000));
        let mut options = RedisOptions::new(server.url());
        options.clock = Some(clock(&now_ms));
        let store = Redis::open(directory.path(), options).expect("a store");
        let made = |wake| Box::new(store.store(wake)) as Box<dyn Store<Image = Image>>;
        let mut pair = Pair::new(store.operator(), made, now_ms, seed);
        for _ in 0..4 {
            pair.run(100);
            server.kill();
            wait_for("the store to see it", || store.operator().trouble());
            server.restart();
            wait_for("the store to be back", || store.operator().trouble().is_none().then_some(()));
        }
        done.append(&mut pair.done);
    }
    assert_all_was_done(&done);
}
