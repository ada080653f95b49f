//! The commands that ask the admin API one thing and print the answer.

use std::path::Path;

use otter_protocol::{DeviceId, OwnerId};

use crate::cli::{Device, Key, Owner, Release, Switch, Token};
use crate::client::{Client, IfAbsent};
use crate::failure::Failure;
use crate::output::{Output, on_off, or_dash, pairs, time};
use crate::shapes::{
    DeviceEntry, DeviceWanted, KeyCreated, KeyEntry, KeyWanted, OwnerEntry, OwnerName, OwnerWanted,
    ReleaseEntry, TokenIssued, TokenWanted, TokensRevoked,
};

pub(crate) fn owner(data: &Path, command: &Owner, output: Output) -> Result<(), Failure> {
    match command {
        Owner::Create { owner } => {
            let client = Client::open(data, IfAbsent::Create)?;
            let wanted = OwnerWanted { owner: owner.map(|owner| owner.to_string()) };
            let made: OwnerName = client.post("/owners", &wanted)?;
            output.show(&made, |made| made.owner.clone())
        }
        Owner::List => {
            let client = Client::open(data, IfAbsent::Refuse)?;
            let owners: Vec<OwnerEntry> = client.get("/owners")?;
            output.list(&owners, &["OWNER", "KEYS", "DEVICES", "RELEASES", "CREATED"], |entry| {
                vec![
                    entry.owner.clone(),
                    entry.keys.to_string(),
                    entry.devices.to_string(),
                    entry.releases.to_string(),
                    time(entry.created),
                ]
            })
        }
    }
}

pub(crate) fn key(data: &Path, command: &Key, output: Output) -> Result<(), Failure> {
    let client = Client::open(data, IfAbsent::Refuse)?;
    match command {
        Key::Create { owner, alias } => {
            let wanted = KeyWanted { owner: owner.to_string(), alias: Some(alias.clone()) };
            let made: KeyCreated = client.post("/keys", &wanted)?;
            output.show(&made, |made| {
                pairs(&[
                    ("owner", made.owner.clone()),
                    ("key", made.key.clone()),
                    ("hash", made.hash.clone()),
                    ("alias", made.alias.clone()),
                ]) + "\nThe key is shown only this once."
            })
        }
        Key::List { owner } => {
            let keys: Vec<KeyEntry> = client.get(&format!("/keys{}", query(*owner, None)))?;
            doubt(&client, *owner, keys.is_empty(), output)?;
            output.list(&keys, &["HASH", "ALIAS", "CREATED", "OWNER"], |entry| {
                vec![
                    entry.hash.clone(),
                    entry.alias.clone(),
                    time(entry.created),
                    entry.owner.clone(),
                ]
            })
        }
        Key::Revoke { hash } => {
            let revoked: KeyEntry = client.delete(&format!("/keys/{hash}"))?;
            output.show(&revoked, |key| format!("revoked {} ({})", key.hash, key.alias))
        }
    }
}

pub(crate) fn device(data: &Path, command: &Device, output: Output) -> Result<(), Failure> {
    let client = Client::open(data, IfAbsent::Refuse)?;
    match command {
        Device::List { owner } => list_devices(&client, *owner, output),
        Device::Show { udid } => {
            let entry: DeviceEntry = client.get(&format!("/devices/{udid}"))?;
            output.show(&entry, describe)
        }
        Device::Set { udid, auto_update, alias } => {
            let wanted = DeviceWanted {
                auto_update: auto_update.map(|switch| switch == Switch::On),
                alias: alias.clone(),
            };
            let entry: DeviceEntry = client.patch(&format!("/devices/{udid}"), &wanted)?;
            output.show(&entry, describe)
        }
    }
}

pub(crate) fn token(data: &Path, command: &Token, output: Output) -> Result<(), Failure> {
    let client = Client::open(data, IfAbsent::Refuse)?;
    match command {
        Token::Issue { device } => {
            let wanted = TokenWanted { udid: device.to_string() };
            let issued: TokenIssued = client.post("/tokens", &wanted)?;
            let entry: DeviceEntry = client.get(&format!("/devices/{device}"))?;
            if entry.newest.is_none() {
                output.note(
                    "warning: nothing is published for this device; the token is for what is the \
                     newest when it is first used",
                );
            }
            output.show(&issued, |issued| {
                pairs(&[
                    ("ott", issued.ott.clone()),
                    ("path", issued.path.clone()),
                    ("expires", time(issued.expires)),
                ])
            })
        }
        Token::Revoke { ott, device } => {
            let target = match (ott, device) {
                (Some(ott), _) => format!("/tokens/{ott}"),
                (None, Some(device)) => format!("/devices/{device}/tokens"),
                (None, None) => return Err(Failure::usage("name a token, or --device")),
            };
            let revoked: TokensRevoked = client.delete(&target)?;
            output.show(&revoked, |revoked| format!("revoked {}", revoked.revoked))
        }
    }
}

pub(crate) fn release(data: &Path, command: &Release, output: Output) -> Result<(), Failure> {
    let client = Client::open(data, IfAbsent::Refuse)?;
    match command {
        Release::List { owner, device } => {
            let releases: Vec<ReleaseEntry> =
                client.get(&format!("/releases{}", query(*owner, *device)))?;
            doubt(&client, *owner, releases.is_empty(), output)?;
            let heads =
                ["RELEASE", "VERSION", "PLATFORM", "SIZE", "FOR", "PUBLISHED", "STATE", "OWNER"];
            output.list(&releases, &heads, |entry| {
                vec![
                    entry.release.clone(),
                    entry.version.clone(),
                    entry.platform.clone(),
                    entry.size.to_string(),
                    entry.device.clone().unwrap_or_else(|| "all".to_owned()),
                    time(entry.published),
                    entry.withdrawn.map_or_else(
                        || "offered".to_owned(),
                        |at| format!("withdrawn {}", time(at)),
                    ),
                    entry.owner.clone(),
                ]
            })
        }
        Release::Withdraw { release } => {
            let entry: ReleaseEntry = client.delete(&format!("/releases/{release}"))?;
            output.show(&entry, |entry| format!("withdrew {} ({})", entry.release, entry.version))
        }
    }
}

/// All devices, page by page.
fn list_devices(client: &Client, owner: Option<OwnerId>, output: Output) -> Result<(), Failure> {
    let mut devices: Vec<DeviceEntry> = Vec::new();
    loop {
        let mut target = format!("/devices?limit={PAGE_DEVICES}");
        if let Some(owner) = owner {
            target.push_str(&format!("&owner={owner}"));
        }
        if let Some(last) = devices.last() {
            target.push_str(&format!("&after={}", last.udid));
        }
        let page: Vec<DeviceEntry> = client.get(&target)?;
        let whole = page.len() == PAGE_DEVICES;
        devices.extend(page);
        if !whole {
            break;
        }
    }
    doubt(client, owner, devices.is_empty(), output)?;
    let heads = ["UDID", "ALIAS", "PLATFORM", "VERSION", "AUTO-UPDATE", "LAST SEEN", "OWNER"];
    output.list(&devices, &heads, |entry| {
        vec![
            entry.udid.clone(),
            entry.alias.clone(),
            or_dash(entry.platform.as_deref()),
            or_dash(entry.version.as_deref()),
            on_off(entry.auto_update),
            time(entry.last_seen),
            entry.owner.clone(),
        ]
    })
}

/// Nothing of an owner may mean that there is no such owner: says so beside the empty list.
fn doubt(
    client: &Client,
    owner: Option<OwnerId>,
    empty: bool,
    output: Output,
) -> Result<(), Failure> {
    let Some(owner) = owner.filter(|_| empty) else { return Ok(()) };
    let owners: Vec<OwnerEntry> = client.get("/owners")?;
    if !owners.iter().any(|entry| entry.owner == owner.as_str()) {
        output.note(&format!(
            "warning: there is no owner {owner}; `otter owner list` shows those that exist"
        ));
    }
    Ok(())
}

fn describe(entry: &DeviceEntry) -> String {
    let newest = entry.newest.as_ref().map(|newest| {
        let what = if newest.update { "an update" } else { "no update" };
        format!("{} ({what}; release {})", newest.version, newest.release)
    });
    let offered = entry.offered.as_ref().map(|offered| {
        let mut text = format!("release {}, {} in a row", offered.release, offered.times);
        if offered.failures > 0 {
            text.push_str(&format!(", {} failed", offered.failures));
        }
        if offered.quiet_until > 0 {
            text.push_str(&format!(", not again before {}", time(offered.quiet_until)));
        }
        text
    });
    pairs(&[
        ("udid", entry.udid.clone()),
        ("owner", entry.owner.clone()),
        ("alias", entry.alias.clone()),
        ("mac", or_dash(entry.mac.as_deref())),
        ("platform", or_dash(entry.platform.as_deref())),
        ("version", or_dash(entry.version.as_deref())),
        ("env-hash", or_dash(entry.env_hash.as_deref())),
        ("auto-update", on_off(entry.auto_update)),
        ("push", if entry.push { "yes".to_owned() } else { "no".to_owned() }),
        ("registered", time(entry.registered)),
        ("last seen", time(entry.last_seen)),
        ("newest", or_dash(newest.as_deref())),
        ("offered", or_dash(offered.as_deref())),
        ("said", entry.facts.to_string()),
    ])
}

fn query(owner: Option<OwnerId>, device: Option<DeviceId>) -> String {
    let pairs = [
        owner.map(|owner| format!("owner={owner}")),
        device.map(|device| format!("device={device}")),
    ];
    let pairs: Vec<_> = pairs.into_iter().flatten().collect();
    if pairs.is_empty() { String::new() } else { format!("?{}", pairs.join("&")) }
}

/// Devices asked for at once.
const PAGE_DEVICES: usize = 500;
