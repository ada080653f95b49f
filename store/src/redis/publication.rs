//! The operator's side of a Redis store: releases and tokens.

use std::collections::HashMap;
use std::io::Read;
use std::rc::Rc;
use std::sync::Arc;

use futures_util::future::{try_join, try_join_all};
use otter_protocol::{DeviceId, Grant, Offer, OwnerId, ReleaseId, Token};

use super::catalog::release_record;
use super::desk::Desk;
use super::keys;
use super::op::Op;
use super::operator::RedisOperator;
use super::queries::grant_args;
use super::trouble::Trouble;
use crate::error::{OperatorError, Subject};
use crate::job::Outcome;
use crate::operator::{conflict, not_found};
use crate::publishing::{
    Checked, IssuedToken, Judge, NewRelease, Publication, Published, ReleaseRow, Reported, Target,
    checked, invalid,
};
use crate::staging::Staged;
use crate::stats::TokenCount;
use crate::tables::Release;
use crate::token::TokenHash;

impl Publication for RedisOperator {
    fn stage(&self, source: &mut dyn Read, bytes_max: u64) -> Outcome<Staged> {
        Staged::copy(Arc::clone(&self.depot.images), &self.mint, None, source, bytes_max)
    }

    fn publish(
        &self,
        release: NewRelease,
        image: Staged,
        is_update: Judge<'_>,
    ) -> Outcome<Published> {
        if !image.belongs_to(&self.depot.images) {
            return Err(invalid("the image was staged in another store; stage it here"));
        }
        let release = checked(release, &image, &self.mint)?;
        let (offer, owner, target) = (Arc::clone(&release.offer), release.owner, release.target);
        self.run(move |desk| async move { desk.must_exist(&owner).await })?;
        self.depot.put(&offer.sha256, offer.size)?;
        let concerned = Arc::clone(&offer);
        let reported = self.run(move |desk| async move {
            desk.publish(&release).await?;
            Ok(desk.reported(&owner, target, &concerned).await?)
        })?;
        drop(image);
        let judged = reported.into_iter().filter(|((version, env_hash), _)| {
            is_update(&offer, version.as_deref(), env_hash.as_deref())
        });
        let (devices, waiting) =
            judged.fold((0, 0), |sum, (_, counts)| (sum.0 + counts.0, sum.1 + counts.1));
        Ok(Published { offer, devices, waiting })
    }

    fn releases(&self, owner: Option<&OwnerId>) -> Outcome<Vec<ReleaseRow>> {
        let owner = owner.copied();
        self.run(move |desk| async move {
            let mut rows = Vec::new();
            for owner in desk.one_or_all(owner).await? {
                let catalog = desk.owner(&owner).await?;
                rows.extend(catalog.releases.rows.iter().map(|release| row(owner, release)));
            }
            // Within an owner they stand in their order already.
            rows.sort_by_key(|row| row.published);
            Ok(rows)
        })
    }

    fn withdraw(&self, release: ReleaseId) -> Outcome<ReleaseRow> {
        self.run(move |desk| async move {
            let unknown = || not_found(Subject::Release);
            let owner = desk.owner_of(release).await?.ok_or_else(unknown)?;
            let names = [keys::owner(&owner), keys::releases(&owner)];
            let op = Op::write("withdraw", names).arg(release.to_string());
            let mut reply = desk.link.ask(op).await?;
            if reply.is_empty() {
                return Err(unknown());
            }
            let (_unix_s, is_new): (u64, _) = (reply.number()?, reply.flag()?);
            if !is_new {
                return Err(conflict(Subject::Release, "it is withdrawn already"));
            }
            desk.counters.wrote(1);
            let catalog = desk.owner(&owner).await?;
            Ok(row(owner, catalog.release(release).ok_or_else(unknown)?))
        })
    }

    fn issue_token(&self, device: DeviceId, grant: &Grant) -> Outcome<IssuedToken> {
        let token = self.mint.minted().map_err(OperatorError::unavailable)?.token;
        let grant = *grant;
        self.run(move |desk| async move { desk.issue_token(device, grant, token).await })
    }

    fn revoke_token(&self, token: &Token) -> Outcome<()> {
        let hash = TokenHash::of(token);
        self.run(move |desk| async move {
            let unknown = || not_found(Subject::Token);
            let holder = desk.holder(&hash).await?.ok_or_else(unknown)?;
            match desk.revoke(holder.device, Some(&hash)).await? {
                0 => Err(unknown()),
                _ => Ok(()),
            }
        })
    }

    fn revoke_tokens(&self, device: DeviceId) -> Outcome<u64> {
        self.run(move |desk| async move {
            if desk.device(device).await?.is_none() {
                return Err(not_found(Subject::Device));
            }
            Ok(desk.revoke(device, None).await?)
        })
    }
}

/// How many devices report each version and environment hash, and how many of them wait.
type Counted = HashMap<Reported, (u64, u64)>;

impl Desk {
    async fn must_exist(self: &Rc<Self>, owner: &OwnerId) -> Outcome<()> {
        let exists = self.owner(owner).await?.exists();
        if exists { Ok(()) } else { Err(not_found(Subject::Owner)) }
    }

    async fn publish(self: &Rc<Self>, release: &Checked) -> Outcome<()> {
        let Checked { owner, target, offer, source } = release;
        self.must_exist(owner).await?;
        if let Target::Device(device) = target {
            let known = self.device(*device).await?;
            if known.is_some_and(|known| known.owner != *owner) {
                let reason = "it belongs to another owner; publish for that one";
                return Err(conflict(Subject::Device, reason));
            }
        }
        // First what leads to it, so that a crash between the two leaves no release that nobody
        // finds.
        let id = offer.release.to_string();
        let pointer = Op::write("aim", [keys::release(offer.release)]);
        self.link.ask(pointer.arg(owner.as_str().to_owned())).await.map_err(OperatorError::from)?;
        let op = Op::write("publish", [keys::owner(owner), keys::releases(owner)]).arg(id);
        let record = release_record(offer, *target, source.as_deref());
        self.link.ask(op.arg(record)).await.map_err(OperatorError::from)?;
        self.counters.wrote(1);
        Ok(())
    }

    /// What the devices report for which the offer is the newest.
    async fn reported(
        self: &Rc<Self>,
        owner: &OwnerId,
        target: Target,
        offer: &Offer,
    ) -> Result<Counted, Trouble> {
        let mut reported = Counted::new();
        let mut after = None;
        loop {
            let ids = match target {
                Target::Device(device) if after.is_none() => vec![device],
                Target::Device(_) => Vec::new(),
                Target::All => self.ids(&[*owner], after, PAGE).await?,
            };
            let Some(last) = ids.last() else { return Ok(reported) };
            after = Some(*last);
            let catalog = self.owner(owner).await?;
            for known in try_join_all(ids.into_iter().map(|id| self.device(id))).await? {
                let Some(known) = known.filter(|known| known.owner == *owner) else { continue };
                let newest = catalog.newest(known.device.id, known.platform.as_deref());
                if newest.is_some_and(|newest| newest.release == offer.release) {
                    let facts = (known.device.version, known.device.env_hash);
                    let counts = reported.entry(facts).or_default();
                    counts.0 += 1;
                    counts.1 += u64::from(!known.device.auto_update);
                }
            }
        }
    }

    async fn issue_token(
        self: &Rc<Self>,
        device: DeviceId,
        grant: Grant,
        token: Token,
    ) -> Outcome<IssuedToken> {
        let unknown = || not_found(Subject::Device);
        let known = self.device(device).await?.ok_or_else(unknown)?;
        let catalog = self.owner(&known.owner).await?;
        let release = match grant.release {
            None => {
                let newest = catalog.newest(device, known.platform.as_deref());
                newest.map(|offer| offer.release)
            }
            Some(release) => match catalog.release(release) {
                None => return Err(not_found(Subject::Release)),
                Some(kept) if kept.withdrawn.is_some() => {
                    let reason = "it is withdrawn; publish it again";
                    return Err(conflict(Subject::Release, reason));
                }
                Some(_) => Some(release),
            },
        };
        let granted = (TokenHash::of(&token), Grant { release, ..grant });
        let op = Op::write("issue", [keys::device(device), keys::tokens(device)]);
        let op = grant_args(op.arg(known.owner.as_str().to_owned()), &granted.0, &granted.1);
        let pointed = self.point(Some(&granted), device, &known.owner);
        let (mut reply, ()) = try_join(self.link.ask(op), pointed).await?;
        if *reply.text()? != *"issued" {
            return Err(unknown());
        }
        let deadline_ms: u64 = reply.number()?;
        self.counters.wrote(1);
        self.counters.issued(reply.number()?, reply.number()?);
        Ok(IssuedToken { token, release, expires: deadline_ms / 1000 })
    }

    async fn revoke(&self, device: DeviceId, hash: Option<&TokenHash>) -> Result<u64, Trouble> {
        let op = Op::write("revoke", [keys::tokens(device)]);
        let op = match hash {
            Some(hash) => op.arg(keys::hex(&hash.0)),
            None => op,
        };
        let revoked = self.link.ask(op).await?.number()?;
        self.counters.token(TokenCount::Revoked, revoked);
        Ok(revoked)
    }
}

fn row(owner: OwnerId, release: &Release) -> ReleaseRow {
    ReleaseRow {
        offer: Arc::clone(&release.offer),
        owner,
        target: release.target,
        published: release.published,
        withdrawn: release.withdrawn,
        source: release.source.as_deref().map(str::to_owned),
    }
}

/// Devices that are looked at in one go.
const PAGE: usize = 2048;
