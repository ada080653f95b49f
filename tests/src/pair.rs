//! A real store beside the model store: both are asked the same, and must answer the same (law 12
//! of docs/design.md 8).
//!
//! Ids and tokens are random in a real store, so both sides of each are kept in pairs, and answers
//! are compared with the place of a pair in its list in place of the id.

mod plain;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use otter_protocol::{
    Alias, Answer, ApiKey, CheckIn, DeviceId, Grant, Identify, Kind, Mac, Offered, OwnerId, Query,
    Record, ReleaseId, Token,
};
use otter_store::{
    Clock, DeviceChange, Embedded, Image, Memory, NewRelease, Operator, Redis, Store, Target,
    Ticket, Wake,
};

use self::plain::Side;
use crate::{Draft, ModelStore, Random};

/// When a pair begins, in seconds since 1970.
pub const UNIX_START: u64 = 1_795_478_791;
/// Devices that name themselves come first, those that are found by their MAC after them.
const SLOTS: u64 = 6;
const SLOTS_WITH_ID: u64 = 3;

/// A store of any kind that is open.
pub trait Real {
    /// Its operator.
    fn operator(&self) -> Operator;
    /// A desk at it.
    fn desk(&self, wake: Wake) -> Box<dyn Store<Image = Image>>;
}

macro_rules! real {
    ($($store:ty)*) => {$(
        impl Real for &$store {
            fn operator(&self) -> Operator {
                <$store>::operator(self)
            }

            fn desk(&self, wake: Wake) -> Box<dyn Store<Image = Image>> {
                Box::new(self.store(wake))
            }
        }
    )*};
}

real!(Memory Embedded Redis);

/// What a pair needs of a real store.
type Opened = (Operator, Box<dyn Store<Image = Image>>, Receiver<()>);

fn opened(real: impl Real) -> Opened {
    let (ring, bell) = mpsc::channel();
    let wake: Wake = Arc::new(move || {
        // The pair may be gone before the last ring.
        let _ = ring.send(());
    });
    (real.operator(), real.desk(wake), bell)
}

/// A clock for a store, that tells `now_ms` milliseconds since 1970.
pub fn clock(now_ms: &Arc<AtomicU64>) -> Clock {
    let now_ms = Arc::clone(now_ms);
    Arc::new(move || now_ms.load(Ordering::SeqCst))
}

/// Milliseconds for [`clock`], at the beginning.
#[must_use]
pub fn start() -> Arc<AtomicU64> {
    Arc::new(AtomicU64::new(UNIX_START * 1000))
}

/// A real store and the model, and which ids belong together.
pub struct Pair {
    model: ModelStore,
    /// The real store's operator.
    pub operator: Operator,
    store: Box<dyn Store<Image = Image>>,
    bell: Receiver<()>,
    now_ms: Arc<AtomicU64>,
    /// Owners and their keys.
    pub owners: Vec<(OwnerId, Vec<ApiKey>)>,
    devices: Vec<(DeviceId, DeviceId)>,
    releases: Vec<(ReleaseId, ReleaseId)>,
    /// Which owner published each.
    publishers: Vec<usize>,
    tokens: Vec<(Token, Token)>,
    /// What chooses what is done.
    pub random: Random,
    /// How often each kind of thing was done, so that none is forgotten.
    pub done: BTreeMap<&'static str, u32>,
}

impl Pair {
    /// Both stores, empty but for two owners. `random` chooses what is done.
    ///
    /// # Panics
    /// If the real store fails; and so do all that follow, and if it answers otherwise than the
    /// model.
    pub fn new(real: impl Real, now_ms: &Arc<AtomicU64>, random: Random) -> Self {
        let (operator, store, bell) = opened(real);
        let mut pair = Self {
            model: ModelStore::new(1),
            operator,
            store,
            bell,
            now_ms: Arc::clone(now_ms),
            owners: Vec::new(),
            devices: Vec::new(),
            releases: Vec::new(),
            publishers: Vec::new(),
            tokens: Vec::new(),
            random,
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

    /// The real store was closed, and is another one on the same facts now.
    pub fn reopened(&mut self, real: impl Real) {
        (self.operator, self.store, self.bell) = opened(real);
    }

    /// Does so many things, of any kind.
    pub fn run(&mut self, steps: u32) {
        for _ in 0..steps {
            self.step();
        }
    }

    /// Does things until its chance is spent ([`Random::given`]).
    pub fn run_all(&mut self) {
        while !self.random.is_spent() {
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
            let hash = crate::image::sha256_of(&key.text());
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
            Some((model, real)) => (crate::Target::Device(model), Target::Device(real)),
            None => (crate::Target::Owner(owner), Target::All),
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
    pub fn check_in(&mut self, owner: u64, slot: u64) -> CheckIn {
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

    /// What the real store answers.
    pub fn answer(&mut self, query: Query) -> Answer<Image> {
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
}

/// The device that names itself, of an owner by number.
#[must_use]
pub fn slot_id(owner: u64, slot: u64) -> DeviceId {
    DeviceId([owner as u8 * 16 + slot as u8 + 1; 16])
}

fn slot_mac(owner: u64, slot: u64) -> Mac {
    Mac::parse(&format!("5CCF7F00{owner:02X}{slot:02X}")).expect("a MAC")
}
