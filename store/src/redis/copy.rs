//! Copying out of and into a Redis store.

use std::rc::Rc;

use futures_util::future::try_join_all;
use otter_protocol::{DeviceId, OwnerId, ReleaseId};

use super::catalog::{api_keys_text, release_value};
use super::desk::Desk;
use super::device::{Known, mac_from, mac_text, offered_text};
use super::keys;
use super::op::Op;
use super::operator::{RedisOperator, key_row};
use super::reply::Reply;
use super::trouble::Trouble;
use crate::copy::{Copying, DeviceCopy, Fact, KeptKeys, NOT_EMPTY, PAGE_FACTS, TokenCopy, placed};
use crate::error::Subject;
use crate::job::Outcome;
use crate::operator::{KeyRow, conflict};
use crate::publishing::{Publication, ReleaseRow};

impl Copying for RedisOperator {
    fn export(&self, each: &mut dyn FnMut(Vec<Fact>) -> Outcome<()>) -> Outcome<()> {
        let owners = self.run(|desk| async move { Ok(desk.owners().await?) })?;
        for page in owners.chunks(PAGE_FACTS / 2) {
            let page = page.to_vec();
            each(self.run(|desk| async move { Ok(desk.owner_facts(page).await?) })?)?;
        }
        for page in placed(self.releases(None)?).chunks(PAGE_FACTS) {
            each(page.to_vec())?;
        }
        let mut registered = Vec::new();
        for (owner, _) in owners {
            let mut after = None;
            loop {
                let (places, last) =
                    self.run(move |desk| async move { Ok(desk.places(owner, after).await?) })?;
                registered.extend(places);
                if last.is_none() {
                    break;
                }
                after = last;
            }
        }
        // Redis has them by their ids; who came first decides whom a MAC leads to.
        registered.sort_unstable_by(|one: &Place, other| {
            one.seconds.total_cmp(&other.seconds).then(one.device.cmp(&other.device))
        });
        for page in registered.chunks(PAGE_FACTS) {
            let page: Vec<_> = page.iter().map(|place| place.device).collect();
            let facts = self.run(|desk| async move { Ok(desk.device_facts(page).await?) })?;
            let (devices, tokens) = facts;
            each(devices)?;
            if !tokens.is_empty() {
                each(tokens)?;
            }
        }
        Ok(())
    }

    fn import(&self, facts: Vec<Fact>) -> Outcome<()> {
        self.run(move |desk| async move { Ok(desk.import(&facts).await?) })
    }

    fn begin_copy(&self) -> Outcome<bool> {
        self.run(|desk| async move {
            if desk.text(keys::UNFINISHED.to_owned()).await?.is_some() {
                return Ok(true);
            }
            // A device without an owner is nobody's, so none are left where there are no owners.
            if !desk.owners().await?.is_empty() {
                return Err(conflict(Subject::Owner, NOT_EMPTY));
            }
            let op = Op::write("aim", [keys::UNFINISHED.to_owned()]);
            desk.link.ask(op.arg("1")).await?;
            Ok(false)
        })
    }

    fn finish_copy(&self) -> Outcome<()> {
        self.run(|desk| async move {
            desk.link.ask(Op::write("remove", [keys::UNFINISHED.to_owned()])).await?;
            Ok(())
        })
    }
}

/// Where a device stands in the order of registration.
struct Place {
    /// Unix seconds, with its place among those of the same second and MAC behind the point.
    seconds: f64,
    device: DeviceId,
}

impl Desk {
    async fn owner_facts(
        self: Rc<Self>,
        owners: Vec<(OwnerId, u64)>,
    ) -> Result<Vec<Fact>, Trouble> {
        let catalogs = try_join_all(owners.iter().map(|(owner, _)| self.owner(owner))).await?;
        let mut facts = Vec::new();
        for ((owner, created), catalog) in owners.into_iter().zip(catalogs) {
            let mut keys: Vec<KeyRow> = Vec::new();
            for key in catalog.keys() {
                // THiNX does not look whether it has a key already.
                if !keys.iter().any(|known| known.hash == key.hash) {
                    keys.push(key_row(owner, key));
                }
            }
            let kept = catalog.api_keys.as_ref().map(|text| KeptKeys(text.to_string()));
            facts.push(Fact::Owner { owner, created });
            facts.push(Fact::Keys { owner, keys, kept });
        }
        Ok(facts)
    }

    /// One page of an owner's devices, by id, and the last id of it; `None` behind the last page.
    async fn places(
        self: Rc<Self>,
        owner: OwnerId,
        after: Option<DeviceId>,
    ) -> Result<(Vec<Place>, Option<DeviceId>), Trouble> {
        let ids = self.ids(&[owner], after, PAGE_FACTS).await?;
        let last = ids.last().copied();
        let op = |id: &DeviceId| Op::read("registered", [keys::device(*id)]);
        let found = self.all(ids.iter().map(op).collect()).await?;
        let (mut places, mut held) = (Vec::new(), Vec::new());
        for (device, mut reply) in ids.into_iter().zip(found) {
            let known = reply.optional()?;
            // An entry of the index without a device is left by a registration that broke off.
            if known.as_deref() != Some(owner.as_str()) {
                continue;
            }
            let mac = reply.optional()?.as_deref().and_then(mac_from);
            let seconds: u64 = reply.number()?;
            if let Some(mac) = mac {
                let op = Op::read("score", [keys::mac(&owner, mac)]).arg(device.to_string());
                held.push((places.len(), op));
            }
            places.push(Place { seconds: seconds as f64, device });
        }
        let (rows, ops): (Vec<_>, Vec<_>) = held.into_iter().unzip();
        for (row, mut reply) in rows.into_iter().zip(self.all(ops).await?) {
            if !reply.is_empty() {
                places[row].seconds = reply.number()?;
            }
        }
        Ok((places, last))
    }

    /// What is kept of devices, and of their tokens.
    async fn device_facts(
        self: Rc<Self>,
        ids: Vec<DeviceId>,
    ) -> Result<(Vec<Fact>, Vec<Fact>), Trouble> {
        let ops = ids.iter().flat_map(|id| {
            let row = [keys::device(*id), keys::facts(*id), keys::push(*id)];
            [Op::read("row", row), Op::read("tokens", [keys::tokens(*id)])]
        });
        let mut replies = self.all(ops.collect()).await?.into_iter();
        let (mut devices, mut tokens) = (Vec::new(), Vec::new());
        for id in ids {
            let (Some(row), Some(mut kept)) = (replies.next(), replies.next()) else { break };
            let Some(device) = Known::read_copy(id, row)? else { continue };
            let owner = device.row.owner;
            devices.push(Fact::Device(Box::new(device)));
            while !kept.is_empty() {
                tokens.push(Fact::Token(Box::new(token_from(id, owner, &mut kept)?)));
            }
        }
        Ok((devices, tokens))
    }

    /// Asks operations that are carried out in this order, as far as they are of one slot.
    async fn all(&self, ops: Vec<Op>) -> Result<Vec<Reply>, Trouble> {
        self.link.ask_all(ops).replies().await.into_iter().collect()
    }

    async fn import(self: Rc<Self>, facts: &[Fact]) -> Result<(), Trouble> {
        let mut ops = Vec::new();
        for fact in facts {
            match fact {
                Fact::Owner { owner, created } => {
                    self.found(owner, Some(*created)).await?;
                }
                Fact::Keys { owner, keys, kept } => {
                    let text = match kept {
                        Some(KeptKeys(text)) => Some(text.clone()),
                        None if keys.is_empty() => None,
                        None => Some(api_keys_text(keys)),
                    };
                    let op = Op::write("aim", [keys::api_keys(owner)]);
                    ops.extend(text.map(|text| op.arg(text)));
                }
                Fact::Release { row, place } => release_ops(row, *place, &mut ops),
                Fact::Device(device) => device_ops(device, &mut ops),
                Fact::Token(token) => token_ops(token, &mut ops),
            }
        }
        let writes = ops.len() as u64;
        self.all(ops).await?;
        self.counters.wrote(writes);
        Ok(())
    }
}

/// Indexes before what they lead to, as everywhere.
fn release_ops(row: &ReleaseRow, place: u64, ops: &mut Vec<Op>) {
    let (id, owner) = (row.offer.release, &row.owner);
    ops.push(Op::write("aim", [keys::release(id)]).arg(owner.as_str().to_owned()));
    let op = Op::write("restore_release", [keys::owner(owner), keys::releases(owner)]);
    ops.push(op.arg(id.to_string()).arg(release_value(place, row)).arg(place.to_string()));
}

fn device_ops(device: &DeviceCopy, ops: &mut Vec<Op>) {
    let row = &device.row;
    let (udid, id) = (row.udid, row.udid.to_string());
    ops.push(Op::write("index", [keys::devices(&row.owner, keys::shard(udid))]).arg(id.clone()));
    if let Some(mac) = row.mac {
        let op = Op::write("append", [keys::mac(&row.owner, mac)]);
        ops.push(op.arg(id).arg(row.registered.to_string()));
    }
    let fields = [
        ("owner", Some(row.owner.as_str().to_owned())),
        ("alias", Some(row.alias.as_str().to_owned())),
        ("auto", Some(u8::from(row.auto_update).to_string())),
        ("told", Some(u8::from(device.told_auto_update).to_string())),
        ("digest", Some(device.digest.to_string())),
        ("seen", Some(row.last_seen.to_string())),
        ("registered", Some(row.registered.to_string())),
        ("mac", row.mac.map(mac_text)),
        ("platform", row.platform.as_deref().map(str::to_owned)),
        ("version", row.version.as_deref().map(str::to_owned)),
        ("env", row.env_hash.as_deref().map(str::to_owned)),
        ("offered", row.offered.as_ref().map(offered_text)),
    ];
    let names = [keys::device(udid), keys::facts(udid), keys::push(udid)];
    let op = Op::write("restore", names).arg(row.facts.to_string()).optional(row.push.as_deref());
    let present = fields.into_iter().filter_map(|(name, value)| Some((name, value?)));
    ops.push(present.fold(op, |op, (name, value)| op.arg(name).arg(value)));
}

fn token_ops(token: &TokenCopy, ops: &mut Vec<Op>) {
    let hash = keys::hex(&token.hash);
    let release = token.release.map_or_else(|| "-".to_owned(), |release| release.to_string());
    let [deadline, used, transfer] =
        [token.deadline_ms, token.used_ms, token.transfer_ms].map(|ms| ms.min(MS_MAX));
    let flags = [token.started, token.forced, token.replaced].map(u8::from);
    let [started, forced, replaced] = flags;
    let record = format!("{release} {deadline} {used} {transfer} {started}{forced}{replaced}");
    let pointer = Op::write("restore_pointer", [format!("ott:{hash}")]);
    let holder = format!("{} {}", token.device, token.owner);
    ops.push(pointer.arg(holder).arg(token.end_ms().min(MS_MAX).to_string()));
    let op = Op::write("restore_token", [keys::tokens(token.device)]);
    ops.push(op.arg(hash).arg(record));
}

pub(super) fn token_from(
    device: DeviceId,
    owner: OwnerId,
    reply: &mut Reply,
) -> Result<TokenCopy, Trouble> {
    let hash = reply.parsed(|text| otter_protocol::id::bytes_from_hex(text.as_bytes()))?;
    reply.parsed(|text| {
        let mut parts = text.split(' ');
        let release = match parts.next()? {
            "-" => None,
            release => Some(ReleaseId::parse(release)?),
        };
        let mut number = || parts.next()?.parse().ok();
        let (deadline_ms, used_ms, transfer_ms) = (number()?, number()?, number()?);
        let &[started, forced, replaced] = parts.next()?.as_bytes() else { return None };
        Some(TokenCopy {
            hash,
            device,
            owner,
            release,
            deadline_ms,
            used_ms,
            transfer_ms,
            started: started == b'1',
            forced: forced == b'1',
            replaced: replaced == b'1',
        })
    })
}

/// More would not fit into what Lua counts with; it is some 30,000 years.
const MS_MAX: u64 = 1_000_000_000_000_000;
