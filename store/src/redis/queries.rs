//! What each query of a device asks of Redis, and what is answered.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::try_join;
use otter_protocol::{
    Alias, Answer, CheckIn, DeviceId, Grant, Mac, Offer, OwnerId, Query, Record, Recorded,
    Redemption, Release, ReleaseId, Token,
};

use super::desk::{Desk, Holder};
use super::device::{mac_text, offered_text};
use super::identify::holds;
use super::keys;
use super::op::Op;
use super::reply::Reply;
use super::trouble::Trouble;
use crate::stats::TokenCount;
use crate::token::TokenHash;

impl Desk {
    /// Answers a query, all but the image.
    pub(super) async fn answer(self: &Rc<Self>, query: Query) -> Answer<()> {
        let answer = match query {
            Query::Identify(identify) => self.identify(&identify).await.map(Answer::Standing),
            Query::Fetch { release } => self.fetch(release).await.map(Answer::Release),
            Query::Redeem { token } => {
                self.redeem(&TokenHash::of(&token)).await.map(Answer::Redemption)
            }
            Query::Start { token } => {
                self.start(&TokenHash::of(&token)).await.map(Answer::Redemption)
            }
            Query::Record(record) => self.record(&record).await.map(Answer::Recorded),
            Query::Push { device, push } => self.push(device, push).await.map(|()| Answer::Kept),
            Query::Claim { token } => self.claim(&TokenHash::of(&token)).await.map(Answer::Claimed),
        };
        answer.unwrap_or(Answer::Unavailable)
    }

    async fn fetch(self: &Rc<Self>, release: ReleaseId) -> Result<Option<Release<()>>, Trouble> {
        let Some(owner) = self.owner_of(release).await? else { return Ok(None) };
        let catalog = self.owner(&owner).await?;
        let offer = catalog.releases.offered(release).map(Arc::clone);
        Ok(offer.map(|offer| Release { offer, image: () }))
    }

    async fn redeem(self: &Rc<Self>, hash: &TokenHash) -> Result<Redemption<()>, Trouble> {
        Ok(match self.look(hash).await? {
            Some(looked) if looked.lives => looked.redemption(),
            Some(_) | None => Redemption::Unknown,
        })
    }

    async fn start(self: &Rc<Self>, hash: &TokenHash) -> Result<Redemption<()>, Trouble> {
        let Some(looked) = self.look(hash).await?.filter(|looked| looked.lives) else {
            return Ok(Redemption::Unknown);
        };
        let Some(offer) = looked.offer.clone().filter(|offer| self.intact(offer)) else {
            // Nothing is given, so this was no attempt.
            return Ok(Redemption::Nothing);
        };
        let op = Op::write("start", [keys::tokens(looked.holder.device)]);
        let op = op.arg(keys::hex(&hash.0)).arg(offer.release.to_string());
        // A failover that forgets it would give the token its first deadline back.
        let mut reply = self.link.ask(op.replicated()).await?;
        if reply.is_empty() {
            return Ok(Redemption::Unknown);
        }
        if reply.flag()? {
            self.counters.token(TokenCount::Started, 1);
        }
        Ok(Looked { offer: Some(offer), started: true, forced: reply.flag()?, ..looked }
            .redemption())
    }

    async fn claim(self: &Rc<Self>, hash: &TokenHash) -> Result<bool, Trouble> {
        let Some(looked) = self.look(hash).await? else { return Ok(false) };
        if looked.bound.as_deref().is_some_and(|offer| !self.intact(offer)) {
            return Ok(false);
        }
        let op = Op::write("claim", [keys::tokens(looked.holder.device)]);
        let claimed = self.link.ask(op.arg(keys::hex(&hash.0)).replicated()).await?.flag()?;
        self.counters.token(TokenCount::Claimed, u64::from(claimed));
        Ok(claimed)
    }

    /// What is behind a token, unless it can not even be claimed any more.
    async fn look(self: &Rc<Self>, hash: &TokenHash) -> Result<Option<Looked>, Trouble> {
        let Some(holder) = self.holder(hash).await? else { return Ok(None) };
        let Holder { device, owner } = holder;
        let op = Op::read("token", [keys::device(device), keys::tokens(device)]);
        let token = self.link.ask(op.arg(keys::hex(&hash.0)));
        let (mut reply, catalog) = try_join(token, self.owner(&owner)).await?;
        if reply.is_empty() || reply.optional()?.as_deref() != Some(owner.as_str()) {
            return Ok(None);
        }
        let platform = reply.optional()?;
        let release = reply.text()?;
        let release = ReleaseId::parse(&release);
        let offered = match release {
            Some(release) => catalog.releases.offered(release),
            None => catalog.newest(device, platform.as_deref()),
        };
        let bound = release.and_then(|release| catalog.release(release)).map(|kept| &kept.offer);
        Ok(Some(Looked {
            holder,
            offer: offered.map(Arc::clone),
            bound: bound.or(offered).map(Arc::clone),
            started: reply.flag()?,
            forced: reply.flag()?,
            lives: reply.flag()?,
        }))
    }

    fn intact(&self, offer: &Offer) -> bool {
        self.images.intact(&offer.sha256, offer.size)
    }

    async fn push(&self, device: DeviceId, push: Box<str>) -> Result<(), Trouble> {
        let op = Op::write("push", [keys::device(device), keys::push(device)]);
        self.link.ask(op.arg(String::from(push))).await?;
        self.counters.wrote(1);
        Ok(())
    }

    async fn record(&self, record: &Record) -> Result<Option<Recorded>, Trouble> {
        let minted = self.mint.minted()?;
        let mac = record.check_in.as_ref().and_then(|check_in| check_in.mac);
        let (udid, mut prepared) = match (record.device, mac) {
            (Some(udid), _) => (udid, false),
            (None, Some(mac)) => {
                let leader = self.leader(&record.owner, mac, minted.device).await?;
                (leader, leader == minted.device)
            }
            (None, None) => (minted.device, true),
        };
        if prepared {
            // Nobody can have written what it needs.
            self.prepare(&record.owner, udid, mac, String::new()).await?;
        }
        let token = record.grant.map(|grant| (TokenHash::of(&minted.token), grant));
        loop {
            let kept = self.link.ask(record_op(record, udid, prepared, token.as_ref()));
            let pointed = self.point(token.as_ref(), udid, &record.owner);
            let (mut reply, ()) = try_join(kept, pointed).await?;
            match &*reply.text()? {
                "foreign" if prepared => {
                    // Another owner was faster.
                    let key = keys::devices(&record.owner, keys::shard(udid));
                    self.link.ask(Op::write("unindex", [key]).arg(udid.to_string())).await?;
                    return Ok(None);
                }
                "foreign" => return Ok(None),
                "again" if !prepared => {
                    let registered = reply.text()?.to_string();
                    self.prepare(&record.owner, udid, mac, registered).await?;
                }
                "kept" => return self.recorded(record, udid, reply, &minted.token).await.map(Some),
                other => return Err(Trouble::Odd(format!("a record was answered with {other}"))),
            }
            prepared = true;
        }
    }

    async fn recorded(
        &self,
        record: &Record,
        udid: DeviceId,
        mut reply: Reply,
        token: &Token,
    ) -> Result<Recorded, Trouble> {
        let alias = Alias::clean(&reply.text()?).unwrap_or_else(|| Alias::invented(udid));
        let auto_update = reply.flag()?;
        let old_mac = reply.text()?;
        self.counters.wrote(1);
        if record.grant.is_some() {
            let _deadline_ms = reply.text()?;
            self.counters.issued(reply.number()?, reply.number()?);
        }
        if !old_mac.is_empty() {
            let key = format!("mac:{}:{old_mac}", record.owner);
            // It is only in the way, and looked through by whoever meets it.
            let _ = self.link.ask(Op::write("unindex", [key]).arg(udid.to_string())).await;
        }
        let token = record.grant.map(|_| *token);
        Ok(Recorded { device: udid, alias, auto_update, token })
    }

    /// Which device is registered for this MAC: the one that is found by it already, also where
    /// another server registers it at this moment, or the one of the minted id.
    async fn leader(
        &self,
        owner: &OwnerId,
        mac: Mac,
        minted: DeviceId,
    ) -> Result<DeviceId, Trouble> {
        let op = Op::write("lead", [keys::mac(owner, mac)]).arg(minted.to_string());
        let reply = self.link.ask(op).await?;
        let found = self.holding(reply).await?;
        let leader = found.iter().find(|(_, known)| match known {
            Some(known) => holds(known, owner, mac),
            None => true,
        });
        Ok(leader.map_or(minted, |(leader, _)| *leader))
    }

    /// Writes the indexes of a device before the device itself, so that a crash between the two
    /// leaves an entry that leads nowhere, and no device that nobody finds.
    async fn prepare(
        &self,
        owner: &OwnerId,
        udid: DeviceId,
        mac: Option<Mac>,
        registered: String,
    ) -> Result<(), Trouble> {
        let index = Op::write("index", [keys::devices(owner, keys::shard(udid))]);
        let listed = self.link.ask(index.arg(udid.to_string()));
        let held = async {
            match mac {
                Some(mac) => {
                    let op = Op::write("append", [keys::mac(owner, mac)]).arg(udid.to_string());
                    self.link.ask(op.arg(registered)).await.map(|_| ())
                }
                None => Ok(()),
            }
        };
        try_join(listed, held).await?;
        Ok(())
    }

    /// Lets a token's hash lead to its device, for as long as it can live.
    pub(super) async fn point(
        &self,
        token: Option<&(TokenHash, Grant)>,
        device: DeviceId,
        owner: &OwnerId,
    ) -> Result<(), Trouble> {
        let Some((hash, grant)) = token else { return Ok(()) };
        let lives = grant.unused.saturating_add(grant.transfer);
        let op = Op::write("point", [keys::token(hash)]).arg(format!("{device} {owner}"));
        self.link.ask(op.arg("").arg(milliseconds(lives).to_string())).await?;
        Ok(())
    }
}

/// A token that can at least be claimed.
struct Looked {
    holder: Holder,
    /// What a request with it gets.
    offer: Option<Arc<Offer>>,
    /// What a transfer under way gives, withdrawn or not.
    bound: Option<Arc<Offer>>,
    started: bool,
    forced: bool,
    /// Can it be redeemed?
    lives: bool,
}

impl Looked {
    fn redemption(self) -> Redemption<()> {
        let Self { holder, offer, started, forced, .. } = self;
        offer.map_or(Redemption::Nothing, |offer| Redemption::Ready {
            device: holder.device,
            release: Release { offer, image: () },
            started,
            forced,
        })
    }
}

fn record_op(
    record: &Record,
    udid: DeviceId,
    prepared: bool,
    token: Option<&(TokenHash, Grant)>,
) -> Op {
    let named = record.check_in.as_ref().and_then(|check_in| check_in.alias);
    let offered = record.offered.as_ref().map_or_else(String::new, offered_text);
    let op = Op::write("record", [keys::device(udid), keys::facts(udid), keys::tokens(udid)])
        .arg(record.owner.as_str().to_owned())
        .flag(prepared)
        .optional(named.as_ref().map(Alias::as_str))
        .arg(Alias::invented(udid).as_str().to_owned())
        .arg(offered)
        .flag(token.is_some())
        .flag(record.check_in.is_some());
    let op = match &record.check_in {
        Some(check_in) => check_in_args(op, check_in),
        None => op,
    };
    match token {
        Some((hash, grant)) => grant_args(op, hash, grant),
        None => op,
    }
}

fn check_in_args(op: Op, check_in: &CheckIn) -> Op {
    op.optional(check_in.mac.map(mac_text).as_deref())
        .optional(check_in.version.as_deref())
        .optional(check_in.platform.as_deref())
        .optional(check_in.env_hash.as_deref())
        .arg(check_in.digest.to_string())
        .flag(check_in.told_auto_update)
        .arg(check_in.facts.to_string())
}

/// The six arguments of a token that is issued.
pub(super) fn grant_args(op: Op, hash: &TokenHash, grant: &Grant) -> Op {
    let release = grant.release.map_or_else(|| "-".to_owned(), |release| release.to_string());
    op.arg(keys::hex(&hash.0))
        .arg(release)
        .arg(milliseconds(grant.unused).to_string())
        .arg(milliseconds(grant.used).to_string())
        .arg(milliseconds(grant.transfer).to_string())
        .flag(grant.forced)
}

/// More would not fit into what Lua counts with; it is some 30,000 years.
fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX).min(1_000_000_000_000_000)
}
