//! Filling the tables in memory from the database.

use std::sync::Arc;

use otter_protocol::{Alias, DeviceId, Kind, Mac, Offer, Offered, OwnerId, ReleaseId};
use rusqlite::types::{FromSql, Type};
use rusqlite::{Connection, Error, Result, Row};

use crate::ledger::kind_text;
use crate::publishing::Target;
use crate::tables::{DeviceFacts, Release, Tables, TokenFacts};
use crate::token::TokenHash;

/// Loads all facts that are answered from memory, and the highest time that was ever seen, in
/// milliseconds since 1970.
///
/// # Errors
/// What the database said, or that a row holds what we never write.
pub(crate) fn load(database: &mut Connection, tables: &mut Tables) -> Result<u64> {
    // One transaction, so that all of it is of one moment.
    let database = database.transaction()?;
    let owners = owners(&database, tables)?;
    keys(&database, tables, &owners)?;
    devices(&database, tables, &owners)?;
    releases(&database, tables, &owners)?;
    tokens(&database, tables)?;
    database.query_row("SELECT unix_ms FROM clock", [], |row| unsigned(row, 0))
}

/// Rows of owners in memory by their ids in the database.
struct OwnerRows(Vec<i64>);

impl OwnerRows {
    fn row(&self, id: i64) -> Result<u32> {
        match self.0.binary_search(&id) {
            Ok(row) => Ok(row as u32),
            Err(_) => Err(odd("owner", "an owner that does not exist")),
        }
    }
}

fn owners(database: &Connection, tables: &mut Tables) -> Result<OwnerRows> {
    let mut statement = database.prepare("SELECT id, owner, created FROM owners ORDER BY id")?;
    let mut rows = statement.query([])?;
    let mut ids = Vec::new();
    while let Some(row) = rows.next()? {
        tables.owners.add(owner_id(row, 1)?, unsigned(row, 2)?);
        ids.push(row.get(0)?);
    }
    Ok(OwnerRows(ids))
}

fn keys(database: &Connection, tables: &mut Tables, owners: &OwnerRows) -> Result<()> {
    let mut statement =
        database.prepare("SELECT hash, owner, alias, created FROM keys ORDER BY id")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let owner = owners.row(row.get(1)?)?;
        tables.owners.add_key(owner, row.get(0)?, row.get_ref(2)?.as_str()?, unsigned(row, 3)?);
    }
    Ok(())
}

fn devices(database: &Connection, tables: &mut Tables, owners: &OwnerRows) -> Result<()> {
    let most: Option<i64> =
        database.query_row("SELECT max(id) FROM devices", [], |row| row.get(0))?;
    let most = most.and_then(|id| usize::try_from(id).ok()).unwrap_or_default();
    // With room for as many more as may come until the next start: making room later moves all
    // rows' places in the indexes while nobody is answered.
    tables.devices.reserve((most + most / 4).min(RESERVED_MAX));
    let mut statement =
        database.prepare(&format!("SELECT {DEVICE_COLUMNS} FROM devices ORDER BY id"))?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        tables.add_device(&device_facts(row, owners.row(row.get(1)?)?)?);
    }
    Ok(())
}

/// A device out of a row that begins with [`DEVICE_COLUMNS`].
///
/// # Errors
/// If the row holds what we never write.
pub(crate) fn device_facts<'a>(row: &'a Row<'_>, owner: u32) -> Result<DeviceFacts<&'a str>> {
    let udid = DeviceId(row.get(0)?);
    let text = |column| -> Result<Option<&'a str>> { Ok(row.get_ref(column)?.as_str_or_null()?) };
    Ok(DeviceFacts {
        udid,
        owner,
        mac: mac(row, 2)?,
        alias: alias(row, 3, udid)?,
        platform: text(4)?,
        version: text(5)?,
        env_hash: text(6)?,
        auto_update: row.get(7)?,
        told_auto_update: row.get(8)?,
        digest: unsigned(row, 9)?,
        seen: unsigned(row, 10)?,
        offered: offered(row, 11)?,
    })
}

/// An owner's id out of a column.
///
/// # Errors
/// If it is none.
pub(crate) fn owner_id(row: &Row<'_>, column: usize) -> Result<OwnerId> {
    let text = row.get_ref(column)?.as_str()?;
    OwnerId::parse(text).ok_or_else(|| odd("owner", "no owner id"))
}

fn mac(row: &Row<'_>, column: usize) -> Result<Option<Mac>> {
    let Some(bits) = row.get::<_, Option<i64>>(column)? else { return Ok(None) };
    Mac::from_bits(bits as u64).map(Some).ok_or_else(|| odd("mac", "no MAC"))
}

/// A name that somebody else wrote into the database is made safe, or gives way to an invented one.
fn alias(row: &Row<'_>, column: usize, udid: DeviceId) -> Result<Alias> {
    let text = row.get_ref(column)?.as_str()?;
    Ok(Alias::clean(text).unwrap_or_else(|| Alias::invented(udid)))
}

fn offered(row: &Row<'_>, first: usize) -> Result<Option<Offered>> {
    let Some(release) = row.get::<_, Option<[u8; 16]>>(first)? else { return Ok(None) };
    Ok(Some(Offered {
        release: ReleaseId(release),
        times: row.get(first + 1)?,
        failures: row.get(first + 2)?,
        quiet_until: unsigned(row, first + 3)?,
    }))
}

fn releases(database: &Connection, tables: &mut Tables, owners: &OwnerRows) -> Result<()> {
    let mut statement = database.prepare(
        "SELECT release, owner, target, version, platform, env_hash, kind, sha256, md5, size,
                published, withdrawn, source
         FROM releases ORDER BY id",
    )?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let offer = Offer {
            release: ReleaseId(row.get(0)?),
            version: row.get(3)?,
            platform: row.get(4)?,
            env_hash: row.get(5)?,
            sha256: row.get(7)?,
            md5: row.get(8)?,
            size: unsigned(row, 9)?,
            kind: kind(row.get_ref(6)?.as_str()?)?,
        };
        let target: Option<[u8; 16]> = row.get(2)?;
        tables.add_release(Release {
            offer: Arc::new(offer),
            owner: owners.row(row.get(1)?)?,
            target: target.map_or(Target::All, |udid| Target::Device(DeviceId(udid))),
            published: unsigned(row, 10)?,
            withdrawn: optional(row, 11)?.map(|unix_s: i64| unix_s as u64),
            source: row.get(12)?,
        });
    }
    Ok(())
}

fn kind(text: &str) -> Result<Kind> {
    [Kind::Image, Kind::Bundle]
        .into_iter()
        .find(|kind| kind_text(*kind) == text)
        .ok_or_else(|| odd("kind", "no kind of image"))
}

fn tokens(database: &Connection, tables: &mut Tables) -> Result<()> {
    let mut statement = database.prepare(
        "SELECT hash, device, release, deadline_ms, used_ms, transfer_ms, started, forced, replaced
         FROM tokens",
    )?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let device = tables.devices.find(DeviceId(row.get(1)?));
        let device = device.ok_or_else(|| odd("device", "a device that does not exist"))?;
        let facts = TokenFacts {
            release: optional(row, 2)?.map(ReleaseId),
            deadline_ms: unsigned(row, 3)?,
            used_ms: unsigned(row, 4)?,
            transfer_ms: unsigned(row, 5)?,
            started: row.get(6)?,
            forced: row.get(7)?,
            replaced: row.get(8)?,
        };
        tables.tokens.keep(TokenHash(row.get(0)?), device, facts);
    }
    Ok(())
}

fn optional<T: FromSql>(row: &Row<'_>, column: usize) -> Result<Option<T>> {
    row.get(column)
}

/// The counterpart of [`crate::ledger::signed`].
pub(crate) fn unsigned(row: &Row<'_>, column: usize) -> Result<u64> {
    row.get::<_, i64>(column).map(|signed| signed as u64)
}

/// A row holds what we never write.
fn odd(column: &'static str, what: &'static str) -> Error {
    Error::FromSqlConversionFailure(0, Type::Null, format!("column {column}: {what}").into())
}

/// What [`device_facts`] reads.
pub(crate) const DEVICE_COLUMNS: &str = "
    udid, devices.owner, mac, devices.alias, platform, version, env_hash, auto_update,
    told_auto_update, digest, seen, offered_release, offered_times, offered_failures,
    offered_quiet_until";

/// How many columns these are.
pub(crate) const DEVICE_COLUMNS_LEN: usize = 15;

/// A damaged file must not make us ask for more memory than there is; beyond this, rows make room
/// as they come.
const RESERVED_MAX: usize = 16_000_000;
