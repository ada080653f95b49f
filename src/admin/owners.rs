//! Owners and their keys.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use otter_protocol::id::bytes_from_hex;
use otter_store::{KeyRow, OperatorError};
use serde::Deserialize;

use super::{Admin, Named, Params, Wanted, ask, hex, owner_from};
use crate::failure::Failure;
use crate::shapes::{KeyCreated, KeyEntry, KeyWanted, OwnerEntry, OwnerName, OwnerWanted};

/// `?owner=`
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Filter {
    owner: Option<String>,
}

pub(super) async fn list(
    State(admin): State<Arc<Admin>>,
) -> Result<Json<Vec<OwnerEntry>>, Failure> {
    let rows = ask(&admin, |admin| Ok(admin.operator.owners()?)).await?;
    let entries = rows.into_iter().map(|row| OwnerEntry {
        owner: row.owner.to_string(),
        keys: row.keys,
        devices: row.devices,
        releases: row.releases,
        created: row.created,
    });
    Ok(Json(entries.collect()))
}

pub(super) async fn create(
    State(admin): State<Arc<Admin>>,
    Wanted(wanted): Wanted<OwnerWanted>,
) -> Result<Json<OwnerName>, Failure> {
    let owner = wanted.owner.as_deref().map(owner_from).transpose()?;
    let owner = ask(&admin, move |admin| Ok(admin.operator.create_owner(owner)?)).await?;
    Ok(Json(OwnerName { owner: owner.to_string() }))
}

pub(super) async fn list_keys(
    State(admin): State<Arc<Admin>>,
    Params(filter): Params<Filter>,
) -> Result<Json<Vec<KeyEntry>>, Failure> {
    let owner = filter.owner.as_deref().map(owner_from).transpose()?;
    let rows = ask(&admin, move |admin| Ok(admin.operator.keys(owner.as_ref())?)).await?;
    Ok(Json(rows.into_iter().map(entry).collect()))
}

pub(super) async fn create_key(
    State(admin): State<Arc<Admin>>,
    Wanted(wanted): Wanted<KeyWanted>,
) -> Result<Json<KeyCreated>, Failure> {
    let owner = owner_from(&wanted.owner)?;
    let alias = wanted.alias.unwrap_or_else(|| DEFAULT_ALIAS.to_owned());
    if alias.len() > ALIAS_BYTES_MAX || alias.chars().any(char::is_control) {
        let rule = format!("at most {ALIAS_BYTES_MAX} bytes and no control characters");
        return Err(Failure::usage(format!("the alias of a key has {rule}")));
    }
    let made = ask(&admin, move |admin| Ok(admin.operator.create_key(&owner, &alias)?)).await?;
    Ok(Json(KeyCreated {
        owner: made.owner.to_string(),
        key: String::from_utf8_lossy(&made.key.text()).into_owned(),
        hash: hex(&made.hash),
        alias: made.alias,
    }))
}

pub(super) async fn revoke_key(
    State(admin): State<Arc<Admin>>,
    Named(hash): Named,
) -> Result<Json<KeyEntry>, Failure> {
    let Some(hash) = bytes_from_hex(hash.as_bytes()) else {
        return Err(Failure::usage("a key's hash is 64 lower-case hexadecimal digits"));
    };
    let row = ask(&admin, move |admin| match admin.operator.revoke_key(&hash) {
        Err(error @ OperatorError::NotFound { .. }) => {
            Err(Failure::from(error).hint("it goes by the key's hash, not by the key itself"))
        }
        revoked => Ok(revoked?),
    })
    .await?;
    Ok(Json(entry(row)))
}

fn entry(row: KeyRow) -> KeyEntry {
    KeyEntry {
        owner: row.owner.to_string(),
        hash: hex(&row.hash),
        alias: row.alias,
        created: row.created,
    }
}

const DEFAULT_ALIAS: &str = "default";
const ALIAS_BYTES_MAX: usize = 128;
