//! The rules of the writes: what each changes, and what it is answered.

use std::time::Duration;

use otter_protocol::{
    Alias, Answer, CheckIn, DeviceId, Grant, Query, Record, Recorded, Redemption, ReleaseId, Token,
};

use super::Tables;
use super::change::{Change, KeptDevice, KeptToken, Removal, TokenEvent};
use super::devices::DeviceFacts;
use super::plan::{Plan, Touch};
use super::tokens::TokenFacts;
use crate::token::{Minted, TokenHash};

/// A query that keeps facts.
#[derive(Clone, Debug)]
pub(crate) enum Write {
    /// [`Query::Record`]
    Record(Box<Record>),
    /// [`Query::Push`]
    Push { device: DeviceId, push: Box<str> },
    /// [`Query::Start`]
    Start { token: TokenHash },
    /// [`Query::Claim`]
    Claim { token: TokenHash },
}

impl Write {
    /// Takes a query that keeps facts; `None` for one that only asks for facts.
    pub(crate) fn of(query: Query) -> Option<Self> {
        match query {
            Query::Record(record) => Some(Self::Record(record)),
            Query::Push { device, push } => Some(Self::Push { device, push }),
            Query::Start { token } => Some(Self::Start { token: TokenHash::of(&token) }),
            Query::Claim { token } => Some(Self::Claim { token: TokenHash::of(&token) }),
            Query::Identify(_) | Query::Fetch { .. } | Query::Redeem { .. } => None,
        }
    }

    /// The token whose image must be intact for this.
    pub(crate) fn token(&self) -> Option<&TokenHash> {
        match self {
            Self::Start { token } | Self::Claim { token } => Some(token),
            Self::Record(_) | Self::Push { .. } => None,
        }
    }

    /// May it need an id or a token?
    pub(crate) fn mints(&self) -> bool {
        match self {
            Self::Record(record) => record.device.is_none() || record.grant.is_some(),
            Self::Push { .. } | Self::Start { .. } | Self::Claim { .. } => false,
        }
    }
}

impl Tables {
    /// Names the facts that the decision on a write will stand on. Cheap, because a write that has
    /// to wait for another is asked again with each group.
    pub(crate) fn stand(&self, write: &Write, plan: &mut Plan) {
        match write {
            Write::Record(record) => {
                let Some(owner) = self.owners.find(&record.owner) else { return };
                let mac = record.check_in.as_ref().and_then(|check_in| check_in.mac);
                if let Some(mac) = mac {
                    plan.reads(Touch::Mac(owner, mac));
                }
                let by_mac = || mac.and_then(|mac| self.devices.find_mac(owner, mac));
                let known = record.device.or_else(|| by_mac().map(|row| self.devices.udid(row)));
                if let Some(udid) = known {
                    plan.reads(Touch::Device(udid));
                }
            }
            Write::Push { device, .. } => plan.reads(Touch::Device(*device)),
            Write::Start { token } | Write::Claim { token } => {
                let Some((device, facts)) = self.tokens.find(token) else { return };
                plan.reads(Touch::Device(self.devices.udid(device)));
                plan.reads(match facts.release {
                    Some(release) => Touch::Release(release),
                    None => Touch::Published(self.devices.owner(device)),
                });
            }
        }
    }

    /// Says what a write changes and what it is answered, all but the image. `intact` says that
    /// the image of [`Write::token`] is there and what it was.
    pub(crate) fn decide(
        &self,
        write: &Write,
        now_ms: u64,
        minted: &Minted,
        intact: bool,
        plan: &mut Plan,
    ) -> Answer<()> {
        match write {
            Write::Record(record) => Answer::Recorded(self.record(record, now_ms, minted, plan)),
            Write::Push { device, push } => {
                if self.devices.find(*device).is_some() {
                    let change = Change::PushKept { device: *device, push: push.clone() };
                    plan.change(self, change);
                }
                Answer::Kept
            }
            Write::Start { token } => Answer::Redemption(self.start(token, now_ms, intact, plan)),
            Write::Claim { token } => Answer::Claimed(self.claim(token, now_ms, intact, plan)),
        }
    }

    /// Issues a token for a device that may not be registered yet (`row` is `None`), and lets it
    /// take the place of the one it has for the same release. Returns its deadline.
    pub(crate) fn issue(
        &self,
        (udid, row): (DeviceId, Option<u32>),
        grant: &Grant,
        now_ms: u64,
        token: &Token,
        plan: &mut Plan,
    ) -> u64 {
        if let Some(row) = row {
            self.replace_tokens(row, grant.release, now_ms, plan);
        }
        let deadline_ms = now_ms.saturating_add(milliseconds(grant.unused));
        let issued = KeptToken {
            hash: TokenHash::of(token),
            device: udid,
            facts: TokenFacts {
                release: grant.release,
                deadline_ms,
                used_ms: milliseconds(grant.used),
                transfer_ms: milliseconds(grant.transfer),
                started: false,
                forced: grant.forced,
                replaced: false,
            },
            event: TokenEvent::Issued { unix_ms: now_ms },
        };
        plan.change(self, Change::TokenKept(Box::new(issued)));
        deadline_ms
    }

    fn record(
        &self,
        record: &Record,
        now_ms: u64,
        minted: &Minted,
        plan: &mut Plan,
    ) -> Option<Recorded> {
        let owner = self.owners.find(&record.owner)?;
        let mac = record.check_in.as_ref().and_then(|check_in| check_in.mac);
        let (udid, row) = match record.device {
            Some(udid) => (udid, self.devices.find(udid)),
            None => match mac.and_then(|mac| self.devices.find_mac(owner, mac)) {
                Some(row) => (self.devices.udid(row), Some(row)),
                None => (minted.device, None),
            },
        };
        if row.is_some_and(|row| self.devices.owner(row) != owner) {
            return None;
        }
        let kept = self.kept_device(record, owner, (udid, row), now_ms / 1000);
        let (alias, auto_update) = (kept.facts.alias, kept.facts.auto_update);
        plan.change(self, Change::DeviceKept(Box::new(kept)));
        let token = record.grant.as_ref().map(|grant| {
            self.issue((udid, row), grant, now_ms, &minted.token, plan);
            minted.token
        });
        Some(Recorded { device: udid, alias, auto_update, token })
    }

    /// What is known of a device after a record.
    fn kept_device(
        &self,
        record: &Record,
        owner: u32,
        (udid, row): (DeviceId, Option<u32>),
        unix_s: u64,
    ) -> KeptDevice {
        let check_in = record.check_in.as_ref();
        let mut facts = match row {
            Some(row) => self.devices.facts(row),
            None => new_device(owner, udid, check_in, unix_s),
        };
        if let Some(check_in) = check_in {
            facts.mac = check_in.mac;
            facts.version = check_in.version.as_deref().or(facts.version);
            facts.platform = check_in.platform.as_deref().or(facts.platform);
            facts.env_hash = check_in.env_hash.as_deref();
            facts.digest = check_in.digest;
            facts.told_auto_update = check_in.told_auto_update;
            facts.seen = unix_s;
        }
        facts.offered = record.offered.or(facts.offered);
        let details = match check_in {
            // Also for an equal digest: it says nothing of what changes all the time.
            Some(check_in) => Some(check_in.facts.clone()),
            None => row.is_none().then(|| "{}".into()),
        };
        KeptDevice {
            facts: facts.with_texts(|text| Box::from(*text)),
            owner: record.owner,
            registered: row.is_none().then_some(unix_s),
            details,
        }
    }

    fn start(
        &self,
        hash: &TokenHash,
        now_ms: u64,
        intact: bool,
        plan: &mut Plan,
    ) -> Redemption<()> {
        let Some((device, token)) = self.tokens.find(hash) else { return Redemption::Unknown };
        let (udid, release, forced) = match self.redeem(hash, now_ms) {
            Redemption::Ready { device, release, forced, .. } if intact => {
                (device, release, forced)
            }
            // Nothing is given, so this was no attempt.
            Redemption::Ready { .. } | Redemption::Nothing => return Redemption::Nothing,
            Redemption::Unknown => return Redemption::Unknown,
        };
        if !token.started {
            let started = TokenFacts {
                release: Some(release.offer.release),
                deadline_ms: token.deadline_ms.min(now_ms.saturating_add(token.used_ms)),
                started: true,
                ..*token
            };
            self.plan_token(*hash, device, started, TokenEvent::Started, plan);
        }
        Redemption::Ready { device: udid, release, started: true, forced }
    }

    fn claim(&self, hash: &TokenHash, now_ms: u64, intact: bool, plan: &mut Plan) -> bool {
        let alive = self.tokens.find(hash).is_some_and(|(_, token)| now_ms < token.end_ms());
        if alive && intact {
            let removal = Removal::Claimed;
            plan.change(self, Change::TokenRemoved { hash: *hash, removal });
        }
        alive && intact
    }

    /// Makes way for a new token of the same device and release. What nobody tried yet goes; what
    /// may have a transfer under way can still be claimed, and the oldest of too many such goes.
    fn replace_tokens(
        &self,
        device: u32,
        release: Option<ReleaseId>,
        now_ms: u64,
        plan: &mut Plan,
    ) {
        let mut replaced = Vec::new();
        for (hash, token) in self.tokens.of_device(device, now_ms) {
            if token.replaced {
                replaced.push((token.end_ms(), hash));
            } else if token.release == release && token.started {
                replaced.push((token.end_ms(), hash));
                let facts = TokenFacts { replaced: true, ..*token };
                self.plan_token(hash, device, facts, TokenEvent::Replaced, plan);
            } else if token.release == release {
                plan.change(self, Change::TokenRemoved { hash, removal: Removal::Replaced });
            }
        }
        let surplus = replaced.len().saturating_sub(REPLACED_PER_DEVICE_MAX);
        replaced.sort_unstable();
        for (_, hash) in replaced.into_iter().take(surplus) {
            plan.change(self, Change::TokenRemoved { hash, removal: Removal::Surplus });
        }
    }

    fn plan_token(
        &self,
        hash: TokenHash,
        device: u32,
        facts: TokenFacts,
        event: TokenEvent,
        plan: &mut Plan,
    ) {
        let kept = KeptToken { hash, device: self.devices.udid(device), facts, event };
        plan.change(self, Change::TokenKept(Box::new(kept)));
    }
}

/// What is known of a device before its first check-in is kept.
fn new_device(
    owner: u32,
    udid: DeviceId,
    check_in: Option<&CheckIn>,
    unix_s: u64,
) -> DeviceFacts<&str> {
    let named = check_in.and_then(|check_in| check_in.alias);
    DeviceFacts {
        udid,
        owner,
        mac: None,
        alias: named.unwrap_or_else(|| Alias::invented(udid)),
        platform: None,
        version: None,
        env_hash: None,
        auto_update: false,
        told_auto_update: false,
        digest: 0,
        seen: unix_s,
        offered: None,
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// A device that begins one transfer after another keeps at most this many claims besides its
/// newest token; it can use only one of them.
const REPLACED_PER_DEVICE_MAX: usize = 8;
