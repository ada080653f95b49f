//! Copying out of and into the stores that answer from tables in memory.

use std::sync::Arc;

use otter_protocol::OwnerId;

use super::{Copying, DeviceCopy, Fact, NOT_EMPTY, PAGE_FACTS, TokenCopy, placed};
use crate::error::{OperatorError, Subject};
use crate::job::Outcome;
use crate::operator::{Facts, KeyRow, conflict, not_found};
use crate::publishing::{Publication, ReleaseRow};
use crate::tabled::Tabled;
use crate::tables::{
    Change, DeviceFacts, KeptDevice, KeptToken, Plan, PublishedRelease, Release, Tables,
    TokenEvent, TokenFacts,
};
use crate::token::TokenHash;

impl Copying for Tabled {
    fn export(&self, each: &mut dyn FnMut(Vec<Fact>) -> Outcome<()>) -> Outcome<()> {
        for page in self.owner_facts().chunks(PAGE_FACTS) {
            each(page.to_vec())?;
        }
        for page in placed(self.releases(None)?).chunks(PAGE_FACTS) {
            each(page.to_vec())?;
        }
        let mut last = 0;
        loop {
            let (devices, next) = self.devices_after(last, PAGE_FACTS)?;
            if devices.is_empty() {
                break;
            }
            last = next;
            each(devices.into_iter().map(|device| Fact::Device(Box::new(device))).collect())?;
        }
        self.export_tokens(each)
    }

    fn import(&self, facts: Vec<Fact>) -> Outcome<()> {
        // What follows from another kind of fact needs it to be kept already.
        let mut rest = facts.into_iter().peekable();
        while let Some(first) = rest.next() {
            let kind = std::mem::discriminant(&first);
            let mut run = vec![first];
            while let Some(fact) = rest.next_if(|fact| std::mem::discriminant(fact) == kind) {
                run.push(fact);
            }
            self.write(move |tables, now_ms, plan| {
                run.iter().try_for_each(|fact| keep(tables, now_ms, plan, fact))
            })?;
        }
        Ok(())
    }

    fn begin_copy(&self) -> Outcome<bool> {
        if self.is_unfinished() {
            return Ok(true);
        }
        let stats = self.stats();
        if stats.owners + stats.devices + stats.releases > 0 {
            return Err(conflict(Subject::Owner, NOT_EMPTY));
        }
        self.set_unfinished(true).map_err(OperatorError::unavailable)?;
        Ok(false)
    }

    fn finish_copy(&self) -> Outcome<()> {
        self.set_unfinished(false).map_err(OperatorError::unavailable)
    }
}

impl Tabled {
    fn owner_facts(&self) -> Vec<Fact> {
        let mut facts = Vec::new();
        self.shared().each_row(
            |tables| tables.owners.rows.len(),
            |tables, row| {
                let known = &tables.owners.rows[row];
                let owner = known.id;
                let keys = known.keys.iter().map(|key| KeyRow {
                    owner,
                    hash: key.hash,
                    alias: key.alias.to_string(),
                    created: key.created,
                });
                facts.push(Fact::Owner { owner, created: known.created });
                facts.push(Fact::Keys { owner, keys: keys.collect(), kept: None });
            },
        );
        facts
    }

    fn export_tokens(&self, each: &mut dyn FnMut(Vec<Fact>) -> Outcome<()>) -> Outcome<()> {
        let now_ms = self.shared().clock.now_ms();
        let mut slot = 0;
        loop {
            let page: Vec<Fact> = {
                let tables = self.shared().tables();
                let end = tables.tokens.slots_len().min(slot + PAGE_FACTS);
                if slot == end {
                    return Ok(());
                }
                let kept = (slot..end).filter_map(|slot| tables.tokens.in_slot(slot));
                slot = end;
                let living = kept.filter(|(_, _, token)| now_ms < token.end_ms());
                living
                    .map(|(hash, device, token)| token_fact(&tables, hash, device, token))
                    .collect()
            };
            if !page.is_empty() {
                each(page)?;
            }
        }
    }
}

fn token_fact(tables: &Tables, hash: TokenHash, device: u32, token: &TokenFacts) -> Fact {
    Fact::Token(Box::new(TokenCopy {
        hash: hash.0,
        device: tables.devices.udid(device),
        owner: tables.owner_id(tables.devices.owner(device)),
        release: token.release,
        deadline_ms: token.deadline_ms,
        used_ms: token.used_ms,
        transfer_ms: token.transfer_ms,
        started: token.started,
        forced: token.forced,
        replaced: token.replaced,
    }))
}

/// Plans what makes the tables know a fact.
fn keep(tables: &Tables, now_ms: u64, plan: &mut Plan, fact: &Fact) -> Outcome<()> {
    match fact {
        Fact::Owner { owner, created } => {
            if tables.owners.find(owner).is_none() {
                plan.change(tables, Change::OwnerAdded { owner: *owner, created: *created });
            }
            Ok(())
        }
        Fact::Keys { owner, keys, kept: _ } => {
            keys.iter().try_for_each(|key| keep_key(tables, plan, owner, key))
        }
        Fact::Release { row, place: _ } => keep_release(tables, plan, row),
        Fact::Device(device) => keep_device(tables, plan, device),
        Fact::Token(token) => keep_token(tables, now_ms, plan, token),
    }
}

fn keep_key(tables: &Tables, plan: &mut Plan, owner: &OwnerId, key: &KeyRow) -> Outcome<()> {
    let row = tables.owners.find(owner).ok_or_else(|| not_found(Subject::Owner))?;
    match tables.owners.key(&key.hash) {
        Some((known, _)) if known == row => {}
        Some(_) => return Err(shared_key()),
        None => {
            let planned = plan
                .changes
                .iter()
                .any(|change| matches!(change, Change::KeyAdded { hash, .. } if *hash == key.hash));
            if planned {
                return Err(shared_key());
            }
            let (alias, created) = (key.alias.as_str().into(), key.created);
            let change = Change::KeyAdded { owner: *owner, hash: key.hash, alias, created };
            plan.change(tables, change);
        }
    }
    Ok(())
}

fn shared_key() -> OperatorError {
    conflict(Subject::Key, "it is a key of two owners; revoke it, and make each one of its own")
}

fn keep_release(tables: &Tables, plan: &mut Plan, row: &ReleaseRow) -> Outcome<()> {
    let owner = tables.owners.find(&row.owner).ok_or_else(|| not_found(Subject::Owner))?;
    let release = row.offer.release;
    let known = tables.releases.find(release).map(|known| tables.releases.row(known));
    if known.is_none() {
        let published = PublishedRelease {
            release: Release {
                offer: Arc::clone(&row.offer),
                owner,
                target: row.target,
                published: row.published,
                withdrawn: None,
                source: row.source.as_deref().map(Into::into),
            },
            owner: row.owner,
        };
        plan.change(tables, Change::ReleasePublished(Box::new(published)));
    }
    if let Some(unix_s) = row.withdrawn
        && known.is_none_or(|known| known.withdrawn.is_none())
    {
        plan.change(tables, Change::ReleaseWithdrawn { release, unix_s });
    }
    Ok(())
}

fn keep_device(tables: &Tables, plan: &mut Plan, device: &DeviceCopy) -> Outcome<()> {
    let row = &device.row;
    let owner = tables.owners.find(&row.owner).ok_or_else(|| not_found(Subject::Owner))?;
    let known = tables.devices.find(row.udid);
    if known.is_some_and(|known| tables.devices.owner(known) != owner) {
        return Err(conflict(Subject::Device, "it belongs to another owner here"));
    }
    let facts = DeviceFacts {
        udid: row.udid,
        owner,
        mac: row.mac,
        alias: row.alias,
        platform: row.platform.clone(),
        version: row.version.clone(),
        env_hash: row.env_hash.clone(),
        auto_update: row.auto_update,
        told_auto_update: device.told_auto_update,
        digest: device.digest,
        seen: row.last_seen,
        offered: row.offered,
    };
    let registered = known.is_none().then_some(row.registered);
    let details = Some(row.facts.clone());
    let kept = KeptDevice { facts, owner: row.owner, registered, details };
    plan.change(tables, Change::DeviceKept(Box::new(kept)));
    if let Some(push) = &row.push {
        plan.change(tables, Change::PushKept { device: row.udid, push: push.as_str().into() });
    }
    Ok(())
}

fn keep_token(tables: &Tables, now_ms: u64, plan: &mut Plan, token: &TokenCopy) -> Outcome<()> {
    if now_ms >= token.end_ms() {
        return Ok(());
    }
    if tables.devices.find(token.device).is_none() {
        return Err(not_found(Subject::Device));
    }
    let hash = TokenHash(token.hash);
    let facts = TokenFacts {
        release: token.release,
        deadline_ms: token.deadline_ms,
        used_ms: token.used_ms,
        transfer_ms: token.transfer_ms,
        started: token.started,
        forced: token.forced,
        replaced: token.replaced,
    };
    let event = match tables.tokens.find(&hash) {
        Some(_) => TokenEvent::Started,
        None => TokenEvent::Issued { unix_ms: now_ms },
    };
    let kept = KeptToken { hash, device: token.device, facts, event };
    plan.change(tables, Change::TokenKept(Box::new(kept)));
    Ok(())
}
