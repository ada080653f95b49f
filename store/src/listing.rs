//! Devices as operators see them.

use otter_protocol::{DeviceId, OwnerId};
use rusqlite::{Connection, OptionalExtension, Result, Row, params};

use crate::copy::DeviceCopy;
use crate::load::{DEVICE_COLUMNS, DEVICE_COLUMNS_LEN, device_facts, owner_id, unsigned};
use crate::operator::{DeviceFilter, DeviceRow};
use crate::tables::{Detail, DeviceFacts, Tables};

/// One page of devices from tables that keep everything.
pub(crate) fn from_memory(tables: &Tables, filter: &DeviceFilter) -> Vec<DeviceRow> {
    let owner = match &filter.owner {
        Some(owner) => match tables.owners.find(owner) {
            Some(owner) => Some(owner),
            None => return Vec::new(),
        },
        None => None,
    };
    let devices = &tables.devices;
    let rows = (0..devices.len()).filter(|row| {
        owner.is_none_or(|owner| devices.owner(*row) == owner)
            && filter.after.is_none_or(|after| devices.udid(*row) > after)
    });
    let mut rows: Vec<u32> = rows.collect();
    rows.sort_unstable_by_key(|row| devices.udid(*row));
    rows.into_iter().take(filter.limit).map(|row| memory_row(tables, row)).collect()
}

/// One device from tables that keep everything.
pub(crate) fn one_from_memory(tables: &Tables, device: DeviceId) -> Option<DeviceRow> {
    tables.devices.find(device).map(|row| memory_row(tables, row))
}

/// One page of devices, all but their newest release.
///
/// # Errors
/// What the database said.
pub(crate) fn from_database(
    database: &Connection,
    filter: &DeviceFilter,
) -> Result<Vec<DeviceRow>> {
    // No id is less than or equal to the empty one.
    let after = filter.after.map_or_else(Vec::new, |after| after.0.to_vec());
    let limit = i64::try_from(filter.limit).unwrap_or(i64::MAX);
    let of_owner = "devices.owner = (SELECT id FROM owners WHERE owner = ?3) AND";
    let of_owner = if filter.owner.is_some() { of_owner } else { "?3 IS NULL AND" };
    let sql = select(&format!("{of_owner} udid > ?1 ORDER BY udid LIMIT ?2"));
    let owner = filter.owner.as_ref().map(OwnerId::as_str);
    let mut statement = database.prepare_cached(&sql)?;
    let rows = statement.query_map(params![after, limit, owner], database_row)?;
    rows.collect()
}

/// One device, all but its newest release.
///
/// # Errors
/// What the database said.
pub(crate) fn one_from_database(
    database: &Connection,
    device: DeviceId,
) -> Result<Option<DeviceRow>> {
    database.prepare_cached(&select("udid = ?1"))?.query_row([device.0], database_row).optional()
}

/// The next devices in the order of their registration, behind row `last` of the database, and the
/// last row of them; without their newest release.
///
/// # Errors
/// What the database said.
pub(crate) fn registered(
    database: &Connection,
    last: i64,
    limit: usize,
) -> Result<(Vec<DeviceCopy>, i64)> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let sql = select("devices.id > ?1 ORDER BY devices.id LIMIT ?2");
    let mut statement = database.prepare_cached(&sql)?;
    let mut rows = statement.query(params![last, limit])?;
    let (mut devices, mut last) = (Vec::new(), last);
    while let Some(row) = rows.next()? {
        let facts = device_facts(row, 0)?;
        devices.push(DeviceCopy {
            digest: facts.digest,
            told_auto_update: facts.told_auto_update,
            row: database_row(row)?,
        });
        last = row.get(DEVICE_COLUMNS_LEN + 4)?;
    }
    Ok((devices, last))
}

/// As [`registered`]; `last` counts rows.
pub(crate) fn registered_in_memory(
    tables: &Tables,
    last: i64,
    limit: usize,
) -> (Vec<DeviceCopy>, i64) {
    let first = u32::try_from(last).unwrap_or(u32::MAX);
    let rows = (first..tables.devices.len()).take(limit);
    let devices: Vec<_> = rows
        .map(|row| {
            let facts = tables.devices.facts(row);
            DeviceCopy {
                digest: facts.digest,
                told_auto_update: facts.told_auto_update,
                row: DeviceRow { newest: None, ..memory_row(tables, row) },
            }
        })
        .collect();
    let last = last + devices.len() as i64;
    (devices, last)
}

fn memory_row(tables: &Tables, row: u32) -> DeviceRow {
    let facts = tables.devices.facts(row);
    let detail = tables.details.as_ref().map(|details| details.of(facts.udid)).unwrap_or_default();
    let newest = tables.newest(row).cloned();
    DeviceRow { newest, ..device_row(&facts, tables.owner_id(facts.owner), detail) }
}

fn database_row(row: &Row<'_>) -> Result<DeviceRow> {
    let detail = Detail {
        registered: unsigned(row, DEVICE_COLUMNS_LEN + 1)?,
        facts: row.get(DEVICE_COLUMNS_LEN + 2)?,
        push: row.get(DEVICE_COLUMNS_LEN + 3)?,
    };
    Ok(device_row(&device_facts(row, 0)?, owner_id(row, DEVICE_COLUMNS_LEN)?, detail))
}

fn device_row(facts: &DeviceFacts<&str>, owner: OwnerId, detail: Detail) -> DeviceRow {
    DeviceRow {
        udid: facts.udid,
        owner,
        alias: facts.alias,
        mac: facts.mac,
        platform: facts.platform.map(Into::into),
        version: facts.version.map(Into::into),
        env_hash: facts.env_hash.map(Into::into),
        auto_update: facts.auto_update,
        registered: detail.registered,
        last_seen: facts.seen,
        facts: detail.facts,
        push: detail.push.map(Into::into),
        offered: facts.offered,
        newest: None,
    }
}

fn select(condition: &str) -> String {
    format!(
        "SELECT {DEVICE_COLUMNS}, owners.owner, registered, coalesce(facts, '{{}}'), push,
                devices.id
         FROM devices
         JOIN owners ON owners.id = devices.owner
         LEFT JOIN details ON details.device = devices.id
         WHERE {condition}"
    )
}
