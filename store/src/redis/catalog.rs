//! What is known of one owner: keys and releases, kept from batch to batch.
//!
//! It is never stale: each batch of questions asks Redis whether it still holds, in the same call
//! (on a cluster: in the same turn), and gets it anew if not.

use std::borrow::Cow;
use std::sync::Arc;

use otter_protocol::id::bytes_from_hex;
use otter_protocol::{ApiKey, DeviceId, KeyStanding, Kind, Offer, OwnerId, ReleaseId};
use ring::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::keys::hex;
use super::reply::Reply;
use super::trouble::Trouble;
use crate::operator::KeyRow;
use crate::publishing::{ReleaseRow, Target};
use crate::tables::{Owners, Release, Releases};

/// An owner's keys and releases at one moment.
#[derive(Debug, Default)]
pub(super) struct Catalog {
    /// Names this state; changes with every change.
    pub(super) tag: String,
    /// Unix seconds; `None` if only THiNX knows the owner.
    pub(super) created: Option<u64>,
    /// `ak:<owner>` as it was read.
    pub(super) api_keys: Option<String>,
    /// One owner, in row 0.
    owners: Owners,
    /// Its releases in their order.
    pub(super) releases: Releases,
}

impl Catalog {
    /// Reads what the operation `owner` answered; `None`: what is known still holds.
    ///
    /// # Errors
    /// [`Trouble::Odd`] for a release that no server of ours wrote.
    pub(super) fn read(owner: &OwnerId, mut reply: Reply) -> Result<Option<Self>, Trouble> {
        if *reply.text()? == *"same" {
            return Ok(None);
        }
        let mut catalog = Self {
            tag: reply.text()?.to_string(),
            created: reply.optional()?.and_then(|created| created.parse().ok()),
            api_keys: reply.optional()?.map(|text| text.to_string()),
            ..Self::default()
        };
        catalog.owners.add(*owner, catalog.created.unwrap_or_default());
        let entries = catalog.api_keys.as_ref().map(|text| entries(text)).unwrap_or_default();
        for entry in &entries {
            if let Some(hash) = hash_of(entry) {
                let created = entry.get("created").and_then(Value::as_u64).unwrap_or_default();
                catalog.owners.add_key(0, hash, alias_of(entry), created);
            }
        }
        let mut releases = Vec::new();
        while !reply.is_empty() {
            let id = reply.parsed(ReleaseId::parse)?;
            releases.push(reply.parsed(|value| release_from(id, value))?);
        }
        releases.sort_unstable_by_key(|(place, _)| *place);
        for (_, release) in releases {
            catalog.releases.add(release);
        }
        Ok(Some(catalog))
    }

    /// Does Otter or THiNX know the owner?
    pub(super) fn exists(&self) -> bool {
        self.created.is_some() || self.api_keys.is_some()
    }

    /// Is the key one of the owner's?
    pub(super) fn standing(&self, key: &ApiKey, accept_hash: bool) -> KeyStanding {
        self.owners.standing(0, key, accept_hash)
    }

    /// The keys in their order: hash, alias, Unix seconds of creation (0 where THiNX made them).
    pub(super) fn keys(&self) -> &[crate::tables::Key] {
        &self.owners.row(0).keys
    }

    /// The newest release for a device.
    pub(super) fn newest(&self, device: DeviceId, platform: Option<&str>) -> Option<&Arc<Offer>> {
        self.releases.newest(0, device, platform)
    }

    /// A release, withdrawn or not.
    pub(super) fn release(&self, id: ReleaseId) -> Option<&Release> {
        self.releases.find(id).map(|row| self.releases.row(row))
    }
}

/// The entries of `ak:<owner>`: THiNX writes an array of objects. Anything else is no entry.
fn entries(text: &str) -> Vec<Map<String, Value>> {
    match serde_json::from_str(text) {
        Ok(Value::Array(values)) => {
            let objects = values.into_iter().filter_map(|value| {
                let Value::Object(entry) = value else { return None };
                Some(entry)
            });
            objects.collect()
        }
        Ok(_) | Err(_) => Vec::new(),
    }
}

/// SHA-256 of an entry's key. Where THiNX kept the key itself that counts, not what stands beside.
fn hash_of(entry: &Map<String, Value>) -> Option<[u8; 32]> {
    let text = |field: &str| entry.get(field).and_then(Value::as_str);
    match text("key") {
        Some(key) => {
            let key = ApiKey::parse(key.as_bytes())?;
            digest(&SHA256, &key.text()).as_ref().try_into().ok()
        }
        None => bytes_from_hex(text("hash")?.as_bytes()),
    }
}

fn alias_of(entry: &Map<String, Value>) -> &str {
    entry.get("alias").and_then(Value::as_str).unwrap_or_default()
}

/// `ak:<owner>` with one more key, the newest last. What THiNX wrote stays as it is, byte for
/// byte. The key itself is not written.
///
/// # Errors
/// [`Trouble::Odd`] if it is no array: it is not ours to throw away.
pub(super) fn with_key(
    api_keys: Option<&str>,
    hash: &[u8; 32],
    alias: &str,
    created: u64,
) -> Result<String, Trouble> {
    let new = entry(hash, alias, created).to_string();
    let all = array(api_keys)?.into_iter().map(RawValue::get);
    Ok(array_of(all.chain([new.as_str()])))
}

/// `ak:<owner>` with just these keys.
pub(super) fn api_keys_text(keys: &[KeyRow]) -> String {
    Value::Array(keys.iter().map(|key| entry(&key.hash, &key.alias, key.created)).collect())
        .to_string()
}

fn entry(hash: &[u8; 32], alias: &str, created: u64) -> Value {
    serde_json::json!({ "hash": hex(hash), "alias": alias, "created": created })
}

/// `ak:<owner>` without the key of this hash.
///
/// # Errors
/// [`Trouble::Odd`] if it is no array.
pub(super) fn without_key(api_keys: Option<&str>, hash: &[u8; 32]) -> Result<String, Trouble> {
    let is_other = |entry: &&str| {
        let entry = serde_json::from_str::<Map<String, Value>>(entry);
        entry.ok().as_ref().and_then(hash_of) != Some(*hash)
    };
    Ok(array_of(array(api_keys)?.into_iter().map(RawValue::get).filter(is_other)))
}

fn array(api_keys: Option<&str>) -> Result<Vec<&RawValue>, Trouble> {
    match api_keys.map(serde_json::from_str) {
        None => Ok(Vec::new()),
        Some(Ok(all)) => Ok(all),
        Some(Err(_)) => Err(Trouble::odd("the owner's keys are no JSON array")),
    }
}

fn array_of<'a>(entries: impl Iterator<Item = &'a str>) -> String {
    format!("[{}]", entries.collect::<Vec<_>>().join(","))
}

/// A release as it is kept, behind its place and times.
#[derive(Deserialize, Serialize)]
struct Kept<'a> {
    version: Cow<'a, str>,
    platform: Cow<'a, str>,
    env_hash: Option<Cow<'a, str>>,
    sha256: String,
    md5: String,
    size: u64,
    bundle: bool,
    /// A device's id; absent for all of the owner's.
    device: Option<String>,
    source: Option<Cow<'a, str>>,
}

/// The part of a release's record that never changes.
pub(super) fn release_record(offer: &Offer, target: Target, source: Option<&str>) -> String {
    let kept = Kept {
        version: Cow::Borrowed(&offer.version),
        platform: Cow::Borrowed(&offer.platform),
        env_hash: offer.env_hash.as_deref().map(Cow::Borrowed),
        sha256: hex(&offer.sha256),
        md5: offer.md5.iter().map(|byte| format!("{byte:02x}")).collect(),
        size: offer.size,
        bundle: offer.kind == Kind::Bundle,
        device: match target {
            Target::Device(device) => Some(device.to_string()),
            Target::All => None,
        },
        source: source.map(Cow::Borrowed),
    };
    serde_json::to_string(&kept).expect("texts and numbers are JSON")
}

/// A whole record: place, times, and what [`release_record`] made.
pub(super) fn release_value(place: u64, row: &ReleaseRow) -> String {
    let record = release_record(&row.offer, row.target, row.source.as_deref());
    let withdrawn = row.withdrawn.unwrap_or_default();
    format!("{place} {} {withdrawn} {record}", row.published)
}

/// A release with its place among the owner's.
pub(super) fn release_from(id: ReleaseId, value: &str) -> Option<(u64, Release)> {
    let mut parts = value.splitn(4, ' ');
    let mut number = || parts.next()?.parse::<u64>().ok();
    let (place, published, withdrawn) = (number()?, number()?, number()?);
    let kept: Kept<'_> = serde_json::from_str(parts.next()?).ok()?;
    let offer = Offer {
        release: id,
        version: kept.version.into(),
        platform: kept.platform.into(),
        env_hash: kept.env_hash.map(Into::into),
        sha256: bytes_from_hex(kept.sha256.as_bytes())?,
        md5: bytes_from_hex(kept.md5.as_bytes())?,
        size: kept.size,
        kind: if kept.bundle { Kind::Bundle } else { Kind::Image },
    };
    let target = match kept.device {
        Some(device) => Target::Device(DeviceId::parse(&device)?),
        None => Target::All,
    };
    let withdrawn = (withdrawn != 0).then_some(withdrawn);
    let (offer, source) = (Arc::new(offer), kept.source.map(Into::into));
    Some((place, Release { offer, owner: 0, target, published, withdrawn, source }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "88eb20839c1d8bf43819818b75a25cef3244c28e77817386b7b73b043193cef4";

    #[test]
    fn keys_are_read_as_thinx_writes_them() {
        let hash = hex(&crate::token::key_hash(&ApiKey::parse(KEY.as_bytes()).expect("a key")));
        let other = "5".repeat(64);
        let text = format!(
            r#"[{{"key":"{KEY}","hash":"{hash}","alias":"Default MQTT API Key"}},
                {{"hash":"{other}","alias":"ours","created":7}},
                {{"key":"short","hash":"{other}"}}, 17, {{}}]"#
        );
        let known: Vec<_> = entries(&text).iter().filter_map(hash_of).map(|h| hex(&h)).collect();
        assert_eq!(known, [hash.clone(), other.clone()]);
        for text in ["", "{}", "null", "[[]]", "nonsense"] {
            assert!(entries(text).is_empty(), "{text}");
        }

        let more = with_key(Some(&text), &[7; 32], "new", 9).expect("an array");
        let last = format!(r#",{{"alias":"new","created":9,"hash":"{}"}}]"#, "07".repeat(32));
        assert!(more.ends_with(&last), "{more}");
        let first =
            format!(r#"[{{"key":"{KEY}","hash":"{hash}","alias":"Default MQTT API Key"}},"#);
        assert!(more.starts_with(&first), "THiNX' own stays byte for byte: {more}");
        let thinx = bytes_from_hex(hash.as_bytes()).expect("digits");
        let fewer = without_key(Some(&more), &thinx).expect("an array");
        assert!(!fewer.contains(KEY) && fewer.contains(&other), "{fewer}");
        assert_eq!(format!("{first}{}", &fewer[1..]), more);
        assert!(with_key(Some("{}"), &[7; 32], "new", 9).is_err());
        assert_eq!(with_key(None, &[0; 32], "a", 1).expect("new").matches("hash").count(), 1);
    }

    #[test]
    fn a_release_is_read_as_it_was_written() {
        let row = ReleaseRow {
            offer: Arc::new(Offer {
                release: ReleaseId([3; 16]),
                version: "1.0.0".into(),
                platform: "arduino".into(),
                env_hash: Some("e".into()),
                sha256: [9; 32],
                md5: [8; 16],
                size: 77,
                kind: Kind::Bundle,
            }),
            owner: OwnerId::parse(&"a".repeat(64)).expect("an owner id"),
            target: Target::Device(DeviceId([4; 16])),
            published: 5,
            withdrawn: Some(6),
            source: Some("a \"source\"".into()),
        };
        let value = release_value(11, &row);
        let (place, read) = release_from(ReleaseId([3; 16]), &value).expect("readable");
        assert_eq!((place, &read.offer), (11, &row.offer));
        let again = ReleaseRow {
            offer: read.offer,
            owner: row.owner,
            target: read.target,
            published: read.published,
            withdrawn: read.withdrawn,
            source: read.source.map(String::from),
        };
        assert_eq!(again, row);
        for odd in ["", "1 2 3", "1 2 3 {}", "x 2 3 {}"] {
            assert!(release_from(ReleaseId([3; 16]), odd).is_none(), "{odd}");
        }
    }
}
