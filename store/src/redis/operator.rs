//! The operator's side of a Redis store: owners, keys and devices.

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError, mpsc};

use futures_util::future::{join_all, try_join_all};
use otter_protocol::{DeviceId, OwnerId};
use tokio::sync::mpsc::UnboundedSender;

use super::Message;
use super::catalog::{with_key, without_key};
use super::desk::Desk;
use super::device::Known;
use super::keys;
use super::op::Op;
use super::status::Status;
use super::trouble::Trouble;
use crate::depot::Depot;
use crate::error::{OperatorError, Subject};
use crate::job::Outcome;
use crate::operator::{
    DeviceChange, DeviceFilter, DeviceRow, Facts, KeyRow, NewKey, OwnerRow, conflict, not_found,
};
use crate::stats::{Counters, StoreStats};
use crate::tables::Key;
use crate::tickets::TicketKey;
use crate::token::{Mint, key_hash};

/// An operator's side that asks Redis.
pub(super) struct RedisOperator {
    pub(super) messages: UnboundedSender<Message>,
    pub(super) depot: Arc<Depot>,
    pub(super) counters: Arc<Counters>,
    pub(super) status: Arc<Status>,
    pub(super) mint: Mint,
    /// The facts as they were counted last: what is told while Redis is away.
    pub(super) counted: Arc<Mutex<StoreStats>>,
}

/// Something to do on the thread of the line to Redis.
pub(super) type Errand = Box<dyn FnOnce(Rc<Desk>) -> Task + Send>;
/// What it does there.
pub(super) type Task = Pin<Box<dyn Future<Output = ()>>>;

impl RedisOperator {
    /// Does something on the thread of the line to Redis, and waits for it.
    pub(super) fn run<R, F>(
        &self,
        errand: impl FnOnce(Rc<Desk>) -> F + Send + 'static,
    ) -> Outcome<R>
    where
        R: Send + 'static,
        F: Future<Output = Outcome<R>> + 'static,
    {
        let (reply, outcome) = mpsc::sync_channel(1);
        let errand: Errand = Box::new(move |desk| {
            let doing = errand(desk);
            Box::pin(async move {
                // The operator may have gone away; what was done stays done.
                let _ = reply.send(doing.await);
            })
        });
        self.messages.send(Message::Errand(errand)).map_err(|_| Trouble::Away)?;
        // It is dropped on the way if the store is closed meanwhile.
        let closed = || Trouble::Unknown("the store was closed".to_owned());
        outcome.recv().unwrap_or_else(|_| Err(closed().into()))
    }
}

impl Facts for RedisOperator {
    fn create_owner(&self, owner: Option<OwnerId>) -> Outcome<OwnerId> {
        let owner = match owner {
            Some(owner) => owner,
            None => self.mint.owner().map_err(OperatorError::unavailable)?,
        };
        self.run(move |desk| async move {
            if desk.owner(&owner).await?.exists() || !desk.found(&owner, None).await? {
                return Err(conflict(
                    Subject::Owner,
                    "it exists already; use it or choose another",
                ));
            }
            Ok(owner)
        })
    }

    fn owners(&self) -> Outcome<Vec<OwnerRow>> {
        self.run(|desk| async move {
            let owners = desk.owners().await?;
            let rows = owners.into_iter().map(|(owner, created)| {
                let desk = Rc::clone(&desk);
                async move {
                    let (catalog, devices) =
                        futures_util::try_join!(desk.owner(&owner), desk.devices_len(&owner))?;
                    Ok::<_, Trouble>(OwnerRow {
                        owner,
                        keys: catalog.keys().len() as u64,
                        devices,
                        releases: catalog.releases.rows.len() as u64,
                        created,
                    })
                }
            });
            Ok(try_join_all(rows).await?)
        })
    }

    fn create_key(&self, owner: &OwnerId, alias: &str) -> Outcome<NewKey> {
        let key = self.mint.key().map_err(OperatorError::unavailable)?;
        let (owner, hash, alias) = (*owner, key_hash(&key), alias.to_owned());
        let kept = alias.clone();
        self.run(move |desk| async move {
            if !desk.owner(&owner).await?.exists() {
                return Err(not_found(Subject::Owner));
            }
            let created = desk.link.unix_s();
            desk.rekey(&owner, |keys| with_key(keys, &hash, &kept, created)).await?;
            Ok(())
        })?;
        Ok(NewKey { owner, key, hash, alias })
    }

    fn keys(&self, owner: Option<&OwnerId>) -> Outcome<Vec<KeyRow>> {
        let owner = owner.copied();
        self.run(move |desk| async move {
            let mut rows = Vec::new();
            for owner in desk.one_or_all(owner).await? {
                let catalog = desk.owner(&owner).await?;
                rows.extend(catalog.keys().iter().map(|key| key_row(owner, key)));
            }
            Ok(rows)
        })
    }

    fn revoke_key(&self, hash: &[u8; 32]) -> Outcome<KeyRow> {
        let hash = *hash;
        self.run(move |desk| async move {
            let mut revoked = None;
            // THiNX may have given one key to several owners.
            for (owner, _) in desk.owners().await? {
                let catalog = desk.owner(&owner).await?;
                let found = catalog.keys().iter().find(|key| key.hash == hash);
                if let Some(row) = found.map(|key| key_row(owner, key)) {
                    desk.rekey(&owner, |keys| without_key(keys, &hash)).await?;
                    revoked.get_or_insert(row);
                }
            }
            revoked.ok_or_else(|| not_found(Subject::Key))
        })
    }

    fn devices(&self, filter: &DeviceFilter) -> Outcome<Vec<DeviceRow>> {
        let filter = filter.clone();
        self.run(move |desk| async move { Ok(desk.page(&filter).await?) })
    }

    fn device(&self, device: DeviceId) -> Outcome<Option<DeviceRow>> {
        self.run(move |desk| async move { Ok(desk.row(device).await?) })
    }

    fn set_device(&self, device: DeviceId, change: DeviceChange) -> Outcome<DeviceRow> {
        self.run(move |desk| async move {
            let auto_update = change.auto_update.map_or("", |auto| if auto { "1" } else { "0" });
            let alias = change.alias;
            let op = Op::write("change", [keys::device(device)]).arg(auto_update);
            let op = op.optional(alias.as_ref().map(otter_protocol::Alias::as_str));
            if !desk.link.ask(op).await?.flag()? {
                return Err(not_found(Subject::Device));
            }
            desk.counters.wrote(1);
            desk.row(device).await?.ok_or_else(|| not_found(Subject::Device))
        })
    }

    fn ticket_keys(&self, period: u64) -> Outcome<Vec<TicketKey>> {
        let minted = TicketKey::minted(period, &self.mint).map_err(OperatorError::unavailable)?;
        self.run(move |desk| async move { desk.ticket_keys(period, &minted).await })
    }

    fn stats(&self) -> StoreStats {
        let counted = self.run(|desk| async move { Ok(desk.counted().await?) });
        let mut last = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        if let Ok(counted) = counted {
            *last = counted;
        }
        let StoreStats { owners, keys, devices, releases, .. } = *last;
        drop(last);
        let mut stats = StoreStats {
            owners,
            keys,
            devices,
            releases,
            redis: Some(self.status.stats()),
            ..self.counters.totals()
        };
        self.depot.count(&mut stats);
        stats
    }

    fn trouble(&self) -> Option<String> {
        if self.status.is_up() {
            return None;
        }
        let why = self.status.trouble().unwrap_or_else(|| "it does not answer".to_owned());
        Some(format!("Redis is away: {why}"))
    }

    fn depot(&self) -> &Depot {
        &self.depot
    }
}

impl Desk {
    /// Makes an owner; false if there is one. `created` is in Unix seconds, now where it is absent.
    pub(super) async fn found(
        &self,
        owner: &OwnerId,
        created: Option<u64>,
    ) -> Result<bool, Trouble> {
        let created = created.map_or_else(String::new, |created| created.to_string());
        let mut reply =
            self.link.ask(Op::write("found", [keys::owner(owner)]).arg(created)).await?;
        let (is_new, created) = (reply.flag()?, reply.text()?);
        // Also where it is not new: its maker may have broken off between the two.
        let index = Op::write("append", [keys::OWNERS.to_owned()]);
        self.link.ask(index.arg(owner.as_str().to_owned()).arg(created.to_string())).await?;
        Ok(is_new)
    }

    /// All owners with the time of their creation, in that order.
    pub(super) async fn owners(&self) -> Result<Vec<(OwnerId, u64)>, Trouble> {
        let mut reply = self.link.ask(Op::read("members", [keys::OWNERS.to_owned()])).await?;
        let mut owners = Vec::new();
        while !reply.is_empty() {
            let owner = reply.parsed(OwnerId::parse)?;
            let created: f64 = reply.number()?;
            owners.push((owner, created as u64));
        }
        Ok(owners)
    }

    /// This owner, or all where none is named.
    pub(super) async fn one_or_all(&self, owner: Option<OwnerId>) -> Result<Vec<OwnerId>, Trouble> {
        match owner {
            Some(owner) => Ok(vec![owner]),
            None => Ok(self.owners().await?.into_iter().map(|(owner, _)| owner).collect()),
        }
    }

    /// How many devices an owner has.
    async fn devices_len(&self, owner: &OwnerId) -> Result<u64, Trouble> {
        let counts = (0..keys::SHARDS).map(|shard| async move {
            self.link.ask(Op::read("count", [keys::devices(owner, shard)])).await?.number::<u64>()
        });
        Ok(try_join_all(counts).await?.into_iter().sum())
    }

    /// Exchanges the keys of an owner; again where somebody else did so meanwhile.
    pub(super) async fn rekey(
        &self,
        owner: &OwnerId,
        change: impl Fn(Option<&str>) -> Result<String, Trouble>,
    ) -> Result<(), Trouble> {
        loop {
            let known = self.text(keys::api_keys(owner)).await?;
            let changed = change(known.as_deref())?;
            let op = Op::write("rekey", [keys::api_keys(owner)]);
            if self.link.ask(op.optional(known.as_deref()).arg(changed)).await?.flag()? {
                self.counters.wrote(1);
                return Ok(());
            }
        }
    }

    /// One device, as operators see it.
    pub(super) async fn row(self: &Rc<Self>, udid: DeviceId) -> Result<Option<DeviceRow>, Trouble> {
        let names = [keys::device(udid), keys::facts(udid), keys::push(udid)];
        let reply = self.link.ask(Op::read("row", names)).await?;
        let Some(row) = Known::read_row(udid, reply)? else { return Ok(None) };
        let catalog = self.owner(&row.owner).await?;
        let newest = catalog.newest(udid, row.platform.as_deref()).map(Arc::clone);
        Ok(Some(DeviceRow { newest, ..row }))
    }

    /// One page of devices.
    async fn page(self: &Rc<Self>, filter: &DeviceFilter) -> Result<Vec<DeviceRow>, Trouble> {
        let owners = self.one_or_all(filter.owner).await?;
        let mut rows = Vec::new();
        let mut after = filter.after;
        while rows.len() < filter.limit {
            let missing = filter.limit - rows.len();
            let ids = self.ids(&owners, after, missing).await?;
            let Some(last) = ids.last() else { break };
            after = Some(*last);
            let found = ids.into_iter().map(|udid| self.row(udid));
            for row in join_all(found).await {
                // An entry of the index without a device is left by a registration that broke off.
                let listed = |row: &DeviceRow| owners.contains(&row.owner);
                rows.extend(row?.filter(listed));
            }
        }
        Ok(rows)
    }

    /// The ids of the next devices of these owners.
    pub(super) async fn ids(
        &self,
        owners: &[OwnerId],
        after: Option<DeviceId>,
        limit: usize,
    ) -> Result<Vec<DeviceId>, Trouble> {
        let first = after.map_or(0, keys::shard);
        let after = after.map_or_else(String::new, |after| after.to_string());
        let mut ids = Vec::new();
        for shard in first..keys::SHARDS {
            let missing = limit - ids.len();
            let pages = owners.iter().map(|owner| {
                let op = Op::read("page", [keys::devices(owner, shard)]).arg(after.clone());
                self.link.ask(op.arg(missing.to_string()))
            });
            let mut found = Vec::new();
            for mut page in try_join_all(pages).await? {
                while !page.is_empty() {
                    found.push(page.parsed(DeviceId::parse)?);
                }
            }
            found.sort_unstable();
            found.dedup();
            ids.extend(found.into_iter().take(missing));
            if ids.len() == limit {
                break;
            }
        }
        Ok(ids)
    }

    /// Counts the facts.
    async fn counted(self: &Rc<Self>) -> Result<StoreStats, Trouble> {
        let owners = self.owners().await?;
        let mut stats = StoreStats { owners: owners.len() as u64, ..StoreStats::default() };
        let counts = owners.iter().map(|(owner, _)| async move {
            futures_util::try_join!(self.owner(owner), self.devices_len(owner))
        });
        for (catalog, devices) in try_join_all(counts).await? {
            stats.keys += catalog.keys().len() as u64;
            stats.releases += catalog.releases.rows.len() as u64;
            stats.devices += devices;
        }
        Ok(stats)
    }
}

pub(super) fn key_row(owner: OwnerId, key: &Key) -> KeyRow {
    KeyRow { owner, hash: key.hash, alias: key.alias.to_string(), created: key.created }
}
