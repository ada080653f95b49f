//! Devices.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use otter_protocol::Alias;
use otter_store::{DeviceChange, DeviceFilter, DeviceRow};
use serde::Deserialize;
use serde_json::Value;

use super::releases::is_update;
use super::{Admin, Named, Params, Wanted, ask, device_from, no_device, owner_from};
use crate::failure::Failure;
use crate::shapes::{DeviceEntry, DeviceWanted, NewestEntry, OfferedEntry};

/// `?owner=&after=&limit=`
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Page {
    owner: Option<String>,
    after: Option<String>,
    limit: Option<usize>,
}

pub(super) async fn list(
    State(admin): State<Arc<Admin>>,
    Params(page): Params<Page>,
) -> Result<Json<Vec<DeviceEntry>>, Failure> {
    let filter = DeviceFilter {
        owner: page.owner.as_deref().map(owner_from).transpose()?,
        after: page.after.as_deref().map(device_from).transpose()?,
        limit: page.limit.unwrap_or(PAGE_DEVICES).min(PAGE_DEVICES_MAX),
    };
    let rows = ask(&admin, move |admin| Ok(admin.operator.devices(&filter)?)).await?;
    Ok(Json(rows.into_iter().map(entry).collect()))
}

pub(super) async fn show(
    State(admin): State<Arc<Admin>>,
    Named(udid): Named,
) -> Result<Json<DeviceEntry>, Failure> {
    let device = device_from(&udid)?;
    let row = ask(&admin, move |admin| Ok(admin.operator.device(device)?)).await?;
    row.map(|row| Json(entry(row))).ok_or_else(|| no_device(device))
}

pub(super) async fn set(
    State(admin): State<Arc<Admin>>,
    Named(udid): Named,
    Wanted(wanted): Wanted<DeviceWanted>,
) -> Result<Json<DeviceEntry>, Failure> {
    let device = device_from(&udid)?;
    let alias = match wanted.alias {
        None => None,
        Some(text) => Some(Alias::clean(&text).ok_or_else(|| {
            Failure::usage("nothing is left of the alias once unsafe characters are dropped")
        })?),
    };
    let change = DeviceChange { auto_update: wanted.auto_update, alias };
    let row = ask(&admin, move |admin| Ok(admin.operator.set_device(device, change)?)).await?;
    Ok(Json(entry(row)))
}

fn entry(row: DeviceRow) -> DeviceEntry {
    let newest = row.newest.as_ref().map(|offer| NewestEntry {
        release: offer.release.to_string(),
        version: offer.version.to_string(),
        update: is_update(offer, row.version.as_deref(), row.env_hash.as_deref()),
    });
    DeviceEntry {
        udid: row.udid.to_string(),
        owner: row.owner.to_string(),
        alias: row.alias.to_string(),
        mac: row.mac.map(|mac| mac.to_string()),
        platform: row.platform.map(String::from),
        version: row.version.map(String::from),
        auto_update: row.auto_update,
        last_seen: row.last_seen,
        registered: row.registered,
        env_hash: row.env_hash.map(String::from),
        push: row.push.is_some(),
        newest,
        offered: row.offered.map(|offered| OfferedEntry {
            release: offered.release.to_string(),
            times: offered.times,
            failures: offered.failures,
            quiet_until: offered.quiet_until,
        }),
        facts: serde_json::from_str(&row.facts).unwrap_or(Value::Null),
    }
}

/// How many devices a page has unless told otherwise.
const PAGE_DEVICES: usize = 100;
/// How many it has at most.
const PAGE_DEVICES_MAX: usize = 1000;
