//! Whatever is asked in whatever order, all stores answer alike, and those that remember answer the
//! same after they were closed and opened again.

mod common;

use std::time::Duration;

use common::{Bench, Redeemed, Which, alias, grant, recording, redeemed};
use otter_protocol::{
    Alias, Answer, ApiKey, CheckIn, Device, DeviceId, DeviceStanding, Grant, Identify, Kind, Mac,
    Offer, Offered, OwnerId, Query, Record, ReleaseId, Token,
};
use otter_store::{DeviceChange, DeviceFilter, Image, NewRelease, OperatorError, Target};
use proptest::prelude::*;
use proptest::sample::Index;

proptest! {
    #![proptest_config(config())]

    /// In one turn, reads are of the moment before the writes, and these are kept in their order.
    #[test]
    fn stores_with_tables_answer_turns_alike(steps in prop::collection::vec(step(), 1..80)) {
        compare(&[Which::Embedded], &steps, false)?;
    }

    /// One after the other, all are answered alike.
    #[test]
    fn all_stores_answer_alike(steps in prop::collection::vec(step(), 1..80)) {
        compare(&Which::ALL[1..], &one_by_one(steps), true)?;
    }
}

#[cfg(feature = "redis")]
proptest! {
    #![proptest_config(ProptestConfig::with_cases(config().cases / 12 + 1))]

    /// A cluster, where no two keys need be on one node, answers as all do.
    #[test]
    fn a_cluster_answers_alike(steps in prop::collection::vec(step(), 1..60)) {
        compare(&[Which::Cluster], &one_by_one(steps), true)?;
    }
}

/// With turns of one question each.
fn one_by_one(steps: Vec<Step>) -> Vec<Step> {
    let alone = |step| {
        let Step::Turn(asked) = step else { return vec![step] };
        asked.into_iter().map(|asked| Step::Turn(vec![asked])).collect()
    };
    steps.into_iter().flat_map(alone).collect()
}

/// Takes the steps in a memory store and in others, and compares what comes of them.
fn compare(others: &[Which], steps: &[Step], own_macs: bool) -> Result<(), TestCaseError> {
    let side = |which| Side { own_macs, ..Side::new(which) };
    let mut memory = side(Which::Memory);
    let mut others: Vec<_> = others.iter().map(|which| (*which, side(*which))).collect();
    for (number, step) in steps.iter().enumerate() {
        let expected = memory.take(step);
        for (which, other) in &mut others {
            prop_assert_eq!(&other.take(step), &expected, "{:?}, {}: {:?}", which, number, step);
        }
    }
    for _ in 0..2 {
        let expected = memory.everything();
        for (which, other) in &mut others {
            prop_assert_eq!(&other.everything(), &expected, "{:?}", which);
            other.bench.reopen();
        }
    }
    Ok(())
}

/// `PROPTEST_CASES=5000` tries harder.
fn config() -> ProptestConfig {
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok());
    ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(cases.unwrap_or(64)) }
}

/// One step. Ids of what the store mints are kept by number, because the stores mint differently.
#[derive(Clone, Debug)]
enum Step {
    /// All in one turn. Among several, none leads to a device by its MAC alone: which device that
    /// is may hang on a write before it, and then what comes later may be kept earlier.
    Turn(Vec<Asked>),
    Publish {
        owner: usize,
        target: Option<Named>,
        platform: usize,
        bytes: u8,
    },
    Withdraw(Index),
    SetDevice {
        device: Named,
        auto_update: Option<bool>,
        name: Option<usize>,
    },
    IssueToken {
        device: Named,
        release: Option<Index>,
        unused_s: u64,
    },
    RevokeToken(Index),
    RevokeTokens(Named),
    CreateKey(usize),
    RevokeKey(Index),
    Advance {
        seconds: u64,
    },
    SetBack {
        seconds: u64,
    },
    Reopen,
}

#[derive(Clone, Debug)]
enum Asked {
    Identify {
        owner: Option<usize>,
        key: Index,
        device: Option<Named>,
        mac: usize,
    },
    Record {
        owner: usize,
        device: Option<Named>,
        said: Option<Said>,
        granted: Option<Granted>,
        offered: Option<u8>,
    },
    Push {
        device: Named,
        push: u8,
    },
    Redeem(Index),
    Start(Index),
    Claim(Index),
    Fetch(Index),
}

/// A device: one of those that the store named, or one that names itself.
#[derive(Clone, Debug)]
enum Named {
    Known(Index),
    Itself(u8),
}

#[derive(Clone, Debug)]
struct Said {
    mac: usize,
    name: usize,
    version: usize,
    platform: usize,
    env_hash: usize,
    digest: u64,
    told: bool,
}

#[derive(Clone, Debug)]
struct Granted {
    release: Option<Index>,
    unused_s: u64,
    forced: bool,
}

const MACS: [&str; 4] = ["", "5CCF7F000001", "5CCF7F000002", "SIGFOX1A"];
const NAMES: [&str; 3] = ["", "kitchen", "cellar"];
const VERSIONS: [&str; 3] = ["", "1.0.0", "2.0.0"];
const PLATFORMS: [&str; 4] = ["", "arduino", "arduino:esp8266", "nodemcu"];

fn named() -> impl Strategy<Value = Named> {
    prop_oneof![
        3 => any::<Index>().prop_map(Named::Known),
        1 => (0..3_u8).prop_map(Named::Itself),
    ]
}

fn asked() -> impl Strategy<Value = Asked> {
    let said =
        (0..4_usize, 0..3_usize, 0..3_usize, 0..4_usize, 0..3_usize, 1..4_u64, any::<bool>());
    let said = said.prop_map(|(mac, name, version, platform, env_hash, digest, told)| Said {
        mac,
        name,
        version,
        platform,
        env_hash,
        digest,
        told,
    });
    let granted = (prop::option::of(any::<Index>()), 1..200_u64, any::<bool>());
    let granted =
        granted.prop_map(|(release, unused_s, forced)| Granted { release, unused_s, forced });
    let device = || prop::option::of(named());
    prop_oneof![
        2 => (prop::option::of(0..3_usize), any::<Index>(), device(), 0..4_usize)
            .prop_map(|(owner, key, device, mac)| Asked::Identify { owner, key, device, mac }),
        5 => (0..2_usize, device(), prop::option::of(said), prop::option::of(granted),
              prop::option::of(any::<u8>()))
            .prop_map(|(owner, device, said, granted, offered)| {
                Asked::Record { owner, device, said, granted, offered }
            }),
        1 => (named(), any::<u8>()).prop_map(|(device, push)| Asked::Push { device, push }),
        2 => any::<Index>().prop_map(Asked::Redeem),
        3 => any::<Index>().prop_map(Asked::Start),
        3 => any::<Index>().prop_map(Asked::Claim),
        1 => any::<Index>().prop_map(Asked::Fetch),
    ]
}

fn without_adoption(mut asked: Asked) -> Asked {
    if let Asked::Record { device: None, said: Some(said), .. } = &mut asked {
        said.mac = 0;
    }
    asked
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => asked().prop_map(|asked| Step::Turn(vec![asked])),
        6 => prop::collection::vec(asked().prop_map(without_adoption), 2..8).prop_map(Step::Turn),
        3 => (0..2_usize, prop::option::of(named()), 1..4_usize, 0..3_u8).prop_map(
            |(owner, target, platform, bytes)| Step::Publish { owner, target, platform, bytes }),
        1 => any::<Index>().prop_map(Step::Withdraw),
        1 => (named(), any::<Option<bool>>(), prop::option::of(1..3_usize)).prop_map(
            |(device, auto_update, name)| Step::SetDevice { device, auto_update, name }),
        1 => (named(), prop::option::of(any::<Index>()), 1..200_u64).prop_map(
            |(device, release, unused_s)| Step::IssueToken { device, release, unused_s }),
        1 => any::<Index>().prop_map(Step::RevokeToken),
        1 => named().prop_map(Step::RevokeTokens),
        1 => (0..2_usize).prop_map(Step::CreateKey),
        1 => any::<Index>().prop_map(Step::RevokeKey),
        3 => (0..120_u64).prop_map(|seconds| Step::Advance { seconds }),
        1 => (0..120_u64).prop_map(|seconds| Step::SetBack { seconds }),
        1 => Just(Step::Reopen),
    ]
}

/// One store and what it minted so far.
struct Side {
    bench: Bench,
    /// Devices that have an id never share a MAC: which one of them is found by it hangs on an
    /// order that not all stores keep.
    own_macs: bool,
    owners: Vec<OwnerId>,
    keys: Vec<(ApiKey, [u8; 32])>,
    devices: Vec<DeviceId>,
    tokens: Vec<Token>,
    releases: Vec<ReleaseId>,
    /// Those of the first owner.
    of_first: Vec<ReleaseId>,
    withdrawn: Vec<ReleaseId>,
}

impl Side {
    fn new(which: Which) -> Self {
        let bench = Bench::new(which);
        let (first, _) = bench.owner('a');
        let (second, _) = bench.owner('b');
        let keyless = OwnerId::parse(&"c".repeat(64)).expect("an owner id");
        Self {
            bench,
            own_macs: false,
            owners: vec![first, second, keyless],
            keys: vec![(ApiKey([1; 32]), [1; 32])],
            devices: vec![DeviceId([9; 16])],
            tokens: vec![Token([9; 32])],
            releases: vec![ReleaseId([9; 16])],
            of_first: Vec::new(),
            withdrawn: Vec::new(),
        }
    }

    /// What comes of a step, in words that do not depend on what was minted.
    fn take(&mut self, step: &Step) -> String {
        let operator = self.bench.operator.clone();
        match step {
            Step::Turn(asked) => self.turn(asked),
            Step::Publish { owner, target, platform, bytes } => {
                let target = target.as_ref().map(|d| Target::Device(self.device(d)));
                self.publish(*owner, target.unwrap_or(Target::All), *platform, *bytes)
            }
            Step::Withdraw(release) => {
                let release = *release.get(&self.releases);
                self.withdrawn.push(release);
                said(&operator.withdraw(release).map(drop))
            }
            Step::SetDevice { device, auto_update, name } => {
                let alias = name.map(|name| alias(NAMES[name]));
                let change = DeviceChange { auto_update: *auto_update, alias };
                said(&operator.set_device(self.device(device), change).map(drop))
            }
            Step::IssueToken { device, release, unused_s } => {
                let granted = Granted { release: *release, unused_s: *unused_s, forced: false };
                self.issue(device, &granted)
            }
            Step::RevokeToken(token) => said(&operator.revoke_token(token.get(&self.tokens))),
            Step::RevokeTokens(device) => said(&operator.revoke_tokens(self.device(device))),
            Step::CreateKey(owner) => {
                let key = operator.create_key(&self.owners[*owner], "key");
                said(&key.map(|key| self.keys.push((key.key, key.hash))))
            }
            Step::RevokeKey(key) => said(&operator.revoke_key(&key.get(&self.keys).1).map(drop)),
            Step::Advance { seconds } => self.at_ms(|now_ms| now_ms + seconds * 1000),
            Step::SetBack { seconds } => self.at_ms(|now_ms| now_ms - seconds * 1000),
            Step::Reopen => {
                let nothing = self.at_ms(|now_ms| now_ms);
                self.bench.reopen();
                nothing
            }
        }
    }

    fn publish(&mut self, owner: usize, target: Target, platform: usize, bytes: u8) -> String {
        let operator = &self.bench.operator;
        let release = NewRelease {
            owner: self.owners[owner],
            target,
            version: "2.0.0".to_owned(),
            platform: PLATFORMS[platform].to_owned(),
            env_hash: None,
            kind: Kind::Image,
            source: None,
        };
        let staged = operator.stage(&mut &[bytes; 9][..], 100).expect("staged");
        let is_update =
            |_: &Offer, version: Option<&str>, _: Option<&str>| version == Some("1.0.0");
        let published = operator.publish(release, staged, &is_update).map(|published| {
            self.releases.push(published.offer.release);
            if owner == 0 {
                self.of_first.push(published.offer.release);
            }
            (published.devices, published.waiting)
        });
        said(&published)
    }

    fn issue(&mut self, device: &Named, granted: &Granted) -> String {
        let grant = self.granted(granted);
        let issued = self.bench.operator.issue_token(self.device(device), &grant).map(|issued| {
            self.tokens.push(issued.token);
            (issued.release.map(|release| self.release(release)), issued.expires)
        });
        said(&issued)
    }

    /// Sets the clock. Only what was seen of the time counts; so both see it before.
    fn at_ms(&mut self, then_ms: impl FnOnce(u64) -> u64) -> String {
        self.bench.redeem(Token([0; 32]));
        let now_ms = self.bench.now_ms.load(std::sync::atomic::Ordering::SeqCst);
        self.bench.set_clock(then_ms(now_ms));
        String::new()
    }

    fn turn(&mut self, asked: &[Asked]) -> String {
        let queries = asked.iter().map(|asked| self.query(asked)).collect();
        let answers = self.bench.desk.ask_all(queries);
        answers.iter().map(|answer| self.answer(answer) + "\n").collect()
    }

    fn query(&self, asked: &Asked) -> Query {
        match asked {
            Asked::Identify { owner, key, device, mac } => Query::Identify(Identify {
                owner: owner.map(|owner| self.owners[owner]),
                key: key.get(&self.keys).0,
                device: device.as_ref().map(|device| self.device(device)),
                mac: Mac::parse(MACS[*mac]),
            }),
            Asked::Record { owner, device, said, granted, offered } => {
                let device = device.as_ref().map(|device| self.device(device));
                let mut said = said.as_ref().map(check_in_of);
                if let (Some(said), Some(device), true) = (&mut said, device, self.own_macs) {
                    said.mac = said.mac.map(|mac| self.own_mac(device, mac));
                }
                Query::Record(Box::new(Record {
                    offered: offered.map(|times| Offered {
                        release: ReleaseId([times; 16]),
                        times,
                        failures: times / 2,
                        quiet_until: u64::MAX - u64::from(times),
                    }),
                    grant: granted.as_ref().map(|granted| self.offered(*owner, granted)),
                    ..recording(self.owners[*owner], device, said)
                }))
            }
            Asked::Push { device, push } => {
                Query::Push { device: self.device(device), push: format!("push {push}").into() }
            }
            Asked::Redeem(token) => Query::Redeem { token: *token.get(&self.tokens) },
            Asked::Start(token) => Query::Start { token: *token.get(&self.tokens) },
            Asked::Claim(token) => Query::Claim { token: *token.get(&self.tokens) },
            Asked::Fetch(release) => Query::Fetch { release: *release.get(&self.releases) },
        }
    }

    fn answer(&mut self, answer: &Answer<Image>) -> String {
        match answer {
            Answer::Standing(standing) => {
                let newest = standing.newest.as_ref().map(|offer| self.release(offer.release));
                let device = match &standing.device {
                    DeviceStanding::Unknown => "unknown".to_owned(),
                    DeviceStanding::Foreign => "foreign".to_owned(),
                    DeviceStanding::Known(device) => self.known(device),
                };
                format!("{:?} {device} {newest:?}", standing.key)
            }
            Answer::Release(release) => {
                let shown = release.as_ref().map(|release| {
                    (self.release(release.offer.release), release.image.as_ref().to_vec())
                });
                format!("{shown:?}")
            }
            Answer::Redemption(redemption) => match redeemed(redemption) {
                Redeemed::Ready { release, bytes, started, forced } => {
                    format!("{} {bytes:?} {started} {forced}", self.release(release))
                }
                other @ (Redeemed::Unknown | Redeemed::Nothing) => format!("{other:?}"),
            },
            Answer::Recorded(Some(recorded)) => {
                if !self.devices.contains(&recorded.device) {
                    self.devices.push(recorded.device);
                }
                self.tokens.extend(recorded.token);
                let name = name_of(recorded.device, recorded.alias);
                let device = self.number(recorded.device);
                format!("{device} {name} {} {}", recorded.auto_update, recorded.token.is_some())
            }
            Answer::Recorded(None) => "foreign".to_owned(),
            Answer::Kept => "kept".to_owned(),
            Answer::Claimed(claimed) => format!("{claimed}"),
            Answer::Unavailable => panic!("unavailable"),
        }
    }

    fn known(&self, device: &Device) -> String {
        let name = name_of(device.id, device.alias);
        let Device { mac, auto_update, version, env_hash, digest, told_auto_update, seen, .. } =
            device;
        format!(
            "{} {name} {mac:?} {auto_update} {version:?} {env_hash:?} {digest} \
             {told_auto_update} {seen} {:?}",
            self.number(device.id),
            device.offered
        )
    }

    /// All that operators can see.
    fn everything(&self) -> String {
        let operator = &self.bench.operator;
        let filter = DeviceFilter { limit: 1000, ..DeviceFilter::default() };
        let mut devices = operator.devices(&filter).expect("readable");
        devices.sort_by_key(|row| self.number(row.udid));
        let devices = devices.iter().map(|row| {
            format!(
                "{} {} {:?} {:?} {:?} {:?} {:?} {} {} {} {} {:?} {:?} {:?}\n",
                self.number(row.udid),
                name_of(row.udid, row.alias),
                row.owner,
                row.mac,
                row.platform,
                row.version,
                row.env_hash,
                row.auto_update,
                row.registered,
                row.last_seen,
                row.facts,
                row.push,
                row.offered,
                row.newest.as_ref().map(|offer| self.release(offer.release)),
            )
        });
        // The order of those of different owners within one second is open.
        let mut releases = operator.releases(None).expect("releases");
        releases.sort_by_key(|row| (row.published, row.owner));
        let releases = releases.into_iter().map(|row| {
            format!(
                "{} {:?} {} {:?} {:?}\n",
                self.release(row.offer.release),
                row.owner,
                row.published,
                row.withdrawn,
                row.offer.platform,
            )
        });
        let keys = operator.keys(None).expect("keys").into_iter().map(|key| {
            let number = self.keys.iter().position(|(_, hash)| *hash == key.hash);
            format!("{:?} {number:?} {} {}\n", key.owner, key.alias, key.created)
        });
        format!("{:?}\n", operator.owners().expect("owners"))
            + &devices.chain(releases).chain(keys).collect::<String>()
    }

    fn device(&self, named: &Named) -> DeviceId {
        match named {
            Named::Known(index) => *index.get(&self.devices),
            Named::Itself(number) => DeviceId([*number; 16]),
        }
    }

    /// Nothing is granted of a release that is withdrawn: when its image goes hangs on when what
    /// has ended is removed, and there the stores differ.
    fn granted(&self, granted: &Granted) -> Grant {
        let release = granted.release.map(|release| *release.get(&self.releases));
        Grant {
            forced: granted.forced,
            unused: Duration::from_secs(granted.unused_s),
            used: Duration::from_secs(60),
            transfer: Duration::from_secs(30),
            ..grant(release.filter(|release| !self.withdrawn.contains(release)))
        }
    }

    /// A MAC that only this device has.
    fn own_mac(&self, device: DeviceId, mac: Mac) -> Mac {
        let number = self.devices.iter().position(|known| *known == device);
        let number = number.unwrap_or_else(|| 1000 + usize::from(device.0[0])) as u64;
        let variant = MACS.iter().position(|text| Mac::parse(text) == Some(mac)).unwrap_or(0);
        Mac::from_bits(number << 8 | variant as u64).expect("fits")
    }

    /// The core offers what the device's own owner published.
    fn offered(&self, owner: usize, granted: &Granted) -> Grant {
        let grant = self.granted(granted);
        let own = |release: &ReleaseId| self.of_first.contains(release) == (owner == 0);
        Grant { release: grant.release.filter(own), ..grant }
    }

    fn number(&self, device: DeviceId) -> String {
        match self.devices.iter().position(|known| *known == device) {
            Some(number) => format!("device {number}"),
            None => device.to_string(),
        }
    }

    fn release(&self, release: ReleaseId) -> String {
        match self.releases.iter().position(|known| *known == release) {
            Some(number) => format!("release {number}"),
            None => release.to_string(),
        }
    }
}

fn check_in_of(said: &Said) -> CheckIn {
    let text = |text: &str| (!text.is_empty()).then(|| text.into());
    CheckIn {
        mac: Mac::parse(MACS[said.mac]),
        alias: Alias::clean(NAMES[said.name]),
        version: text(VERSIONS[said.version]),
        platform: text(PLATFORMS[said.platform]),
        env_hash: text(VERSIONS[said.env_hash]),
        facts: format!("{{\"digest\":{}}}", said.digest).into(),
        digest: said.digest,
        told_auto_update: said.told,
    }
}

fn name_of(device: DeviceId, name: Alias) -> String {
    if name == Alias::invented(device) { "invented".to_owned() } else { name.to_string() }
}

fn said<T: std::fmt::Debug>(outcome: &Result<T, OperatorError>) -> String {
    match outcome {
        Ok(value) => format!("{value:?}"),
        Err(error) => error.to_string(),
    }
}
