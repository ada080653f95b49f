//! The reference store: ordered maps, one obvious function per query, no time and no chance but
//! what it is given.
//!
//! It answers as `otter_protocol::query` and docs/token.md say; other stores are right where they
//! answer like this one. The operator's side stands in [`operator`](self), queues and faults in
//! [`Desk`].

mod desk;
mod operator;
mod replica;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use otter_protocol::{
    Alias, Answer, Device, DeviceId, DeviceStanding, Grant, Identify, KeyStanding, Mac, Offer,
    Offered, OwnerId, Query, Record, Recorded, Redemption, Release, ReleaseId, Standing, Token,
};

pub use self::desk::{Desk, Faults};
pub use self::operator::{Draft, Target};
pub use self::replica::Replication;
use crate::Random;

/// A store that is simple enough to be obviously right.
///
/// ```
/// use otter_protocol::{Answer, Query, Redemption, Token};
/// let mut store = otter_tests::ModelStore::new(1);
/// let answer = store.answer(&Query::Redeem { token: Token([7; 32]) });
/// assert!(matches!(answer, Answer::Redemption(Redemption::Unknown)));
/// ```
#[derive(Clone, Debug)]
pub struct ModelStore {
    /// Time since 1970 on the store's own clock.
    now: Duration,
    random: Random,
    keys: BTreeMap<OwnerId, BTreeSet<[u8; 32]>>,
    devices: BTreeMap<DeviceId, KeptDevice>,
    /// In order of publication.
    releases: Vec<Published>,
    tokens: BTreeMap<[u8; 32], KeptToken>,
}

/// All that is kept of a device.
#[derive(Clone, Debug)]
pub struct KeptDevice {
    /// Whose it is.
    pub owner: OwnerId,
    /// What the core may know of it.
    pub device: Device,
    /// [`otter_protocol::CheckIn::platform`] as it was said last.
    pub platform: Option<Box<str>>,
    /// [`otter_protocol::CheckIn::facts`] of the last check-in.
    pub facts: Box<str>,
    /// Its push token.
    pub push: Option<Box<str>>,
}

/// All that is kept of a token.
#[derive(Clone, Copy, Debug)]
pub struct KeptToken {
    /// The device it was issued for.
    pub device: DeviceId,
    /// What it is bound to.
    pub release: Option<ReleaseId>,
    /// When it stops being redeemable, since 1970.
    pub deadline: Duration,
    /// Has a first attempt been made?
    pub started: bool,
    /// A newer one took its place: it can only be claimed, by a transfer under way.
    pub replaced: bool,
    grant: Grant,
}

#[derive(Clone, Debug)]
struct Published {
    target: Target,
    withdrawn: bool,
    release: Release<Bytes>,
}

impl ModelStore {
    /// An empty store at the beginning of 1970, whose ids and tokens follow from `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            now: Duration::ZERO,
            random: Random::new(seed),
            keys: BTreeMap::new(),
            devices: BTreeMap::new(),
            releases: Vec::new(),
            tokens: BTreeMap::new(),
        }
    }

    /// Sets the store's clock to a time since 1970; it may jump either way.
    pub fn set_clock(&mut self, now: Duration) {
        self.now = now;
    }

    /// Goes on with other ids and tokens: whoever takes a store's place mints his own.
    pub fn reseed(&mut self, seed: u64) {
        self.random = Random::new(seed);
    }

    /// Answers one query, now and for good.
    pub fn answer(&mut self, query: &Query) -> Answer<Bytes> {
        match query {
            Query::Identify(identify) => Answer::Standing(self.standing(identify)),
            Query::Fetch { release } => Answer::Release(self.release(*release)),
            Query::Redeem { token } => Answer::Redemption(self.redemption(*token)),
            Query::Start { token } => Answer::Redemption(self.start(*token)),
            Query::Record(record) => Answer::Recorded(self.record(record)),
            Query::Push { device, push } => {
                if let Some(kept) = self.devices.get_mut(device) {
                    kept.push = Some(push.clone());
                }
                Answer::Kept
            }
            Query::Claim { token } => Answer::Claimed(self.claim(*token)),
        }
    }

    fn standing(&self, identify: &Identify) -> Standing {
        let named = identify.device.and_then(|id| self.devices.get(&id));
        let owner = identify.owner.or_else(|| named.map(|kept| kept.owner));
        let key = match owner.and_then(|owner| self.keys.get(&owner)) {
            Some(keys) if keys.contains(&identify.key.0) => KeyStanding::Valid,
            Some(keys) if !keys.is_empty() => KeyStanding::Wrong,
            Some(_) | None => KeyStanding::UnknownOwner,
        };
        let device = match (named, owner) {
            (Some(kept), Some(owner)) if kept.owner == owner => {
                DeviceStanding::Known(kept.device.clone())
            }
            (Some(_), _) => DeviceStanding::Foreign,
            (None, Some(owner)) => match self.by_mac(owner, identify.mac) {
                Some(kept) => DeviceStanding::Known(kept.device.clone()),
                None => DeviceStanding::Unknown,
            },
            (None, None) => DeviceStanding::Unknown,
        };
        let newest = match &device {
            DeviceStanding::Known(device) => self.newest(device.id),
            DeviceStanding::Unknown | DeviceStanding::Foreign => None,
        };
        Standing { key, device, newest: newest.map(|release| release.offer) }
    }

    fn by_mac(&self, owner: OwnerId, mac: Option<Mac>) -> Option<&KeptDevice> {
        let mac = mac?;
        self.devices.values().find(|kept| kept.owner == owner && kept.device.mac == Some(mac))
    }

    /// The last release published for a device that was not withdrawn since.
    fn newest(&self, device: DeviceId) -> Option<Release<Bytes>> {
        let kept = self.devices.get(&device)?;
        let fits = |published: &Published| match published.target {
            Target::Device(id) => id == device,
            Target::Owner(id) => id == kept.owner && kept.runs(&published.release.offer.platform),
        };
        let mut newest_first = self.releases.iter().rev();
        newest_first.find(|p| !p.withdrawn && fits(p)).map(|p| p.release.clone())
    }

    fn release(&self, id: ReleaseId) -> Option<Release<Bytes>> {
        let found = self.releases.iter().find(|p| p.release.offer.release == id)?;
        (!found.withdrawn).then(|| found.release.clone())
    }

    fn redemption(&self, token: Token) -> Redemption<Bytes> {
        let lives = |kept: &&KeptToken| !kept.replaced && self.now < kept.deadline;
        let Some(kept) = self.tokens.get(&token.0).filter(lives) else {
            return Redemption::Unknown;
        };
        let release = match kept.release {
            Some(release) => self.release(release),
            None => self.newest(kept.device),
        };
        match release {
            Some(release) => Redemption::Ready {
                device: kept.device,
                release,
                started: kept.started,
                forced: kept.grant.forced,
            },
            None => Redemption::Nothing,
        }
    }

    /// Where there is nothing to give there is no attempt either (docs/token.md, promise 3).
    fn start(&mut self, token: Token) -> Redemption<Bytes> {
        if let Redemption::Ready { release, started: false, .. } = self.redemption(token)
            && let Some(kept) = self.tokens.get_mut(&token.0)
        {
            kept.started = true;
            kept.release = Some(release.offer.release);
            kept.deadline = kept.deadline.min(self.now + kept.grant.used);
        }
        self.redemption(token)
    }

    /// A transfer under way may claim after the deadline; without a first attempt there is none.
    fn claim(&mut self, token: Token) -> bool {
        let removed = self.tokens.remove(&token.0);
        removed.is_some_and(|kept| {
            let late = if kept.started { kept.grant.transfer } else { Duration::ZERO };
            self.now < kept.deadline + late
        })
    }

    fn record(&mut self, record: &Record) -> Option<Recorded> {
        let mac = record.check_in.as_ref().and_then(|check_in| check_in.mac);
        let id = match (record.device, self.by_mac(record.owner, mac)) {
            (Some(id), _) => id,
            (None, Some(kept)) => kept.device.id,
            (None, None) => self.minted_device(),
        };
        let owner = record.owner;
        let kept = self.devices.entry(id).or_insert_with(|| KeptDevice::new(id, owner, record));
        if kept.owner != owner {
            return None;
        }
        kept.keep(record, self.now.as_secs());
        let (alias, auto_update) = (kept.device.alias, kept.device.auto_update);
        let token = record.grant.map(|grant| self.grant(id, grant));
        Some(Recorded { device: id, alias, auto_update, token })
    }

    /// Mints a token; one that lived for the same device and release is replaced: from now on it
    /// cannot be redeemed, and a transfer under way keeps its claim (docs/token.md).
    fn grant(&mut self, device: DeviceId, grant: Grant) -> Token {
        self.tokens.retain(|_, kept| {
            let is_same = kept.device == device && kept.release == grant.release;
            kept.replaced |= is_same;
            kept.started || !is_same
        });
        let token = Token(self.random.bytes());
        let deadline = self.now + grant.unused;
        let release = grant.release;
        let (started, replaced) = (false, false);
        let kept = KeptToken { device, release, deadline, started, replaced, grant };
        self.tokens.insert(token.0, kept);
        token
    }

    fn minted_device(&mut self) -> DeviceId {
        let mut id: [u8; 16] = self.random.bytes();
        id[6] = id[6] & 0x0f | 0x40;
        id[8] = id[8] & 0x3f | 0x80;
        DeviceId(id)
    }
}

impl KeptDevice {
    /// A device at its registration: `auto_update` is off until the operator says otherwise.
    fn new(id: DeviceId, owner: OwnerId, record: &Record) -> Self {
        let named = record.check_in.as_ref().and_then(|check_in| check_in.alias);
        let device = Device {
            id,
            alias: named.unwrap_or_else(|| Alias::invented(id)),
            mac: None,
            auto_update: false,
            version: None,
            env_hash: None,
            digest: 0,
            told_auto_update: false,
            seen: 0,
            offered: None,
        };
        Self { owner, device, platform: None, facts: "{}".into(), push: None }
    }

    /// Is a release for `platform` for this device as well? One for `arduino` is for
    /// `arduino:esp8266`, not the other way round (docs/wire.md 5).
    fn runs(&self, platform: &str) -> bool {
        let own = self.platform.as_deref().unwrap_or_default();
        own == platform || own.split_once(':').is_some_and(|(family, _)| family == platform)
    }

    fn keep(&mut self, record: &Record, seen: u64) {
        if let Some(check_in) = &record.check_in {
            let device = &mut self.device;
            device.mac = check_in.mac;
            device.env_hash = check_in.env_hash.as_deref().map(Arc::from);
            if let Some(version) = &check_in.version {
                device.version = Some(Arc::from(&**version));
            }
            if let Some(platform) = &check_in.platform {
                self.platform = Some(platform.clone());
            }
            device.digest = check_in.digest;
            device.told_auto_update = check_in.told_auto_update;
            device.seen = seen;
            self.facts = check_in.facts.clone();
        }
        if let Some(offered) = record.offered {
            self.device.offered = Some(offered);
        }
    }
}

/// The guard rails of a device as a test expects them.
#[must_use]
pub fn offered(release: ReleaseId, times: u8, failures: u8, quiet_until: u64) -> Offered {
    Offered { release, times, failures, quiet_until }
}

/// What an offer says of `image`.
fn offer_of(release: ReleaseId, draft: &Draft) -> Offer {
    Offer {
        release,
        version: draft.version.as_str().into(),
        platform: draft.platform.as_str().into(),
        env_hash: draft.env_hash.as_deref().map(Into::into),
        sha256: crate::image::sha256_of(&draft.image),
        md5: crate::image::md5_of(&draft.image),
        size: draft.image.len() as u64,
        kind: draft.kind,
    }
}
