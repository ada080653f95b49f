//! The operator's side of the stores that answer from tables in memory.

use std::io;
use std::sync::mpsc::Sender;
use std::sync::{Arc, PoisonError};

use otter_protocol::{DeviceId, OwnerId};
use rusqlite::Connection;

use crate::committer::Message;
use crate::copy::DeviceCopy;
use crate::depot::Depot;
use crate::embedded::Reader;
use crate::error::{OperatorError, Subject};
use crate::job::{Outcome, operation};
use crate::listing;
use crate::memory::operate_now;
use crate::operator::{
    DeviceChange, DeviceFilter, DeviceRow, Facts, KeyRow, NewKey, OwnerRow, conflict, not_found,
};
use crate::shared::Shared;
use crate::stats::StoreStats;
use crate::tables::{Change, KeptDevice, Key, Plan, Tables, Touch};
use crate::tickets::TicketKey;
use crate::token::key_hash;
use crate::unfinished::Unfinished;

/// An operator's side that decides by the tables.
pub(crate) struct Tabled {
    shared: Arc<Shared>,
    keeping: Keeping,
}

/// What makes an operator's writes durable, if anything does.
enum Keeping {
    Memory,
    Embedded { messages: Sender<Message>, reader: Reader, unfinished: Unfinished },
}

impl Tabled {
    pub(crate) fn of_memory(shared: Arc<Shared>) -> Self {
        Self { shared, keeping: Keeping::Memory }
    }

    pub(crate) fn of_embedded(
        shared: Arc<Shared>,
        messages: Sender<Message>,
        reader: Reader,
        unfinished: Unfinished,
    ) -> Self {
        Self { shared, keeping: Keeping::Embedded { messages, reader, unfinished } }
    }

    /// What all threads of the store share.
    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Decides by the rule and waits until what it changes is durable.
    pub(crate) fn write<R, F>(&self, rule: F) -> Outcome<R>
    where
        R: Send + 'static,
        F: FnMut(&Tables, u64, &mut Plan) -> Outcome<R> + Send + 'static,
    {
        match &self.keeping {
            Keeping::Memory => operate_now(&self.shared, rule),
            Keeping::Embedded { messages, .. } => {
                let (operation, outcome) = operation(rule);
                // If the committer has ended, the operation is dropped and the wait ends at once.
                let _ = messages.send(Message::Operation(operation));
                outcome.recv().unwrap_or_else(|_| Err(OperatorError::unavailable(Closed)))
            }
        }
    }

    /// The next devices in the order of their registration, behind the one that this same function
    /// named as the last; without their newest release.
    pub(crate) fn devices_after(&self, last: i64, limit: usize) -> Outcome<(Vec<DeviceCopy>, i64)> {
        match &self.keeping {
            Keeping::Memory => {
                Ok(listing::registered_in_memory(&self.shared.tables(), last, limit))
            }
            Keeping::Embedded { reader, .. } => {
                read(reader, |database| listing::registered(database, last, limit))
            }
        }
    }

    /// Was a copy into it begun and not finished?
    pub(crate) fn is_unfinished(&self) -> bool {
        match &self.keeping {
            Keeping::Memory => false,
            Keeping::Embedded { unfinished, .. } => unfinished.is_marked(),
        }
    }

    /// Says whether a copy into it is under way.
    ///
    /// # Errors
    /// What the system said.
    pub(crate) fn set_unfinished(&self, is_unfinished: bool) -> io::Result<()> {
        match &self.keeping {
            Keeping::Memory => Ok(()),
            Keeping::Embedded { unfinished, .. } => unfinished.mark(is_unfinished),
        }
    }

    fn with_newest(&self, row: DeviceRow) -> DeviceRow {
        let tables = self.shared.tables();
        let known = tables.devices.find(row.udid);
        let newest = known.and_then(|known| tables.newest(known).cloned());
        DeviceRow { newest, ..row }
    }
}

impl Facts for Tabled {
    fn create_owner(&self, owner: Option<OwnerId>) -> Outcome<OwnerId> {
        let owner = match owner {
            Some(owner) => owner,
            None => self.shared.mint.owner().map_err(OperatorError::unavailable)?,
        };
        self.write(move |tables, now_ms, plan| {
            plan.reads(Touch::Owner(&owner));
            if tables.owners.find(&owner).is_some() {
                return Err(conflict(
                    Subject::Owner,
                    "it exists already; use it or choose another",
                ));
            }
            plan.change(tables, Change::OwnerAdded { owner, created: now_ms / 1000 });
            Ok(owner)
        })
    }

    fn owners(&self) -> Outcome<Vec<OwnerRow>> {
        let mut rows = Vec::new();
        self.shared.each_row(owners_len, |tables, row| {
            let owner = &tables.owners.rows[row];
            rows.push(OwnerRow {
                owner: owner.id,
                keys: owner.keys.len() as u64,
                devices: owner.devices,
                releases: owner.releases,
                created: owner.created,
            });
        });
        Ok(rows)
    }

    fn create_key(&self, owner: &OwnerId, alias: &str) -> Outcome<NewKey> {
        let key = self.shared.mint.key().map_err(OperatorError::unavailable)?;
        let (owner, hash, kept): (_, _, Box<str>) = (*owner, key_hash(&key), alias.into());
        self.write(move |tables, now_ms, plan| {
            plan.reads(Touch::Owner(&owner));
            if tables.owners.find(&owner).is_none() {
                return Err(not_found(Subject::Owner));
            }
            let (alias, created) = (kept.clone(), now_ms / 1000);
            plan.change(tables, Change::KeyAdded { owner, hash, alias, created });
            Ok(())
        })?;
        Ok(NewKey { owner, key, hash, alias: alias.to_owned() })
    }

    fn keys(&self, owner: Option<&OwnerId>) -> Outcome<Vec<KeyRow>> {
        let mut rows = Vec::new();
        self.shared.each_row(owners_len, |tables, row| {
            let known = &tables.owners.rows[row];
            if owner.is_none_or(|owner| known.id == *owner) {
                rows.extend(known.keys.iter().map(|key| key_row(known.id, key)));
            }
        });
        Ok(rows)
    }

    fn revoke_key(&self, hash: &[u8; 32]) -> Outcome<KeyRow> {
        let hash = *hash;
        self.write(move |tables, _, plan| {
            plan.reads(Touch::Key(&hash));
            let (owner, key) = tables.owners.key(&hash).ok_or_else(|| not_found(Subject::Key))?;
            plan.change(tables, Change::KeyRevoked { hash });
            Ok(key_row(tables.owner_id(owner), key))
        })
    }

    fn devices(&self, filter: &DeviceFilter) -> Outcome<Vec<DeviceRow>> {
        match &self.keeping {
            Keeping::Memory => Ok(listing::from_memory(&self.shared.tables(), filter)),
            Keeping::Embedded { reader, .. } => {
                let listed = read(reader, |database| listing::from_database(database, filter))?;
                Ok(listed.into_iter().map(|row| self.with_newest(row)).collect())
            }
        }
    }

    fn device(&self, device: DeviceId) -> Outcome<Option<DeviceRow>> {
        match &self.keeping {
            Keeping::Memory => Ok(listing::one_from_memory(&self.shared.tables(), device)),
            Keeping::Embedded { reader, .. } => {
                // What the tables know was durable before they knew it.
                let is_known = self.shared.tables().devices.find(device).is_some();
                match read(reader, |database| listing::one_from_database(database, device))? {
                    Some(row) => Ok(Some(self.with_newest(row))),
                    None if is_known => Err(OperatorError::damaged(Lost)),
                    None => Ok(None),
                }
            }
        }
    }

    fn set_device(&self, device: DeviceId, change: DeviceChange) -> Outcome<DeviceRow> {
        self.write(move |tables, _, plan| {
            plan.reads(Touch::Device(device));
            let row = tables.devices.find(device).ok_or_else(|| not_found(Subject::Device))?;
            let facts = tables.devices.facts(row);
            let mut facts = facts.with_texts(|text| Box::from(*text));
            if let Some(auto_update) = change.auto_update {
                facts.auto_update = auto_update;
                // Somebody looked at the device: what held it back is over.
                facts.offered = None;
            }
            facts.alias = change.alias.unwrap_or(facts.alias);
            let owner = tables.owner_id(facts.owner);
            let kept = KeptDevice { facts, owner, registered: None, details: None };
            plan.change(tables, Change::DeviceKept(Box::new(kept)));
            Ok(())
        })?;
        self.device(device)?.ok_or_else(|| not_found(Subject::Device))
    }

    fn ticket_keys(&self, period: u64) -> Outcome<Vec<TicketKey>> {
        if self.shared.trouble().is_some() {
            return Err(OperatorError::unavailable(Closed));
        }
        let minted = TicketKey::minted(period, &self.shared.mint);
        let minted = minted.map_err(OperatorError::unavailable)?;
        Ok(self.shared.ticket_keys.during(period, minted))
    }

    fn stats(&self) -> StoreStats {
        self.shared.stats()
    }

    fn trouble(&self) -> Option<String> {
        self.shared.trouble()
    }

    fn depot(&self) -> &Depot {
        &self.shared.depot
    }
}

fn owners_len(tables: &Tables) -> usize {
    tables.owners.rows.len()
}

fn key_row(owner: OwnerId, key: &Key) -> KeyRow {
    KeyRow { owner, hash: key.hash, alias: key.alias.to_string(), created: key.created }
}

fn read<R>(
    reader: &Reader,
    query: impl FnOnce(&Connection) -> rusqlite::Result<R>,
) -> Result<R, OperatorError> {
    let reader = reader.lock().unwrap_or_else(PoisonError::into_inner);
    let database = reader.as_ref().ok_or_else(|| OperatorError::unavailable(Closed))?;
    query(database).map_err(OperatorError::database)
}

#[derive(Debug, thiserror::Error)]
#[error("it was closed")]
struct Closed;

#[derive(Debug, thiserror::Error)]
#[error("a row that was there is missing")]
struct Lost;
