//! What goes over the admin socket, and what `--json` prints: the same JSON.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// `owner create`, and the body of `POST /owners`.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct OwnerName {
    pub(crate) owner: String,
}

/// The body of `POST /owners`: no id asks for a random one.
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct OwnerWanted {
    pub(crate) owner: Option<String>,
}

/// An entry of `owner list`.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct OwnerEntry {
    pub(crate) owner: String,
    pub(crate) keys: u64,
    pub(crate) devices: u64,
    pub(crate) releases: u64,
    /// Unix seconds.
    pub(crate) created: u64,
}

/// The body of `POST /keys`.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct KeyWanted {
    pub(crate) owner: String,
    #[serde(default)]
    pub(crate) alias: Option<String>,
}

/// `key create`: the only time that the key is shown.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct KeyCreated {
    pub(crate) owner: String,
    pub(crate) key: String,
    pub(crate) hash: String,
    pub(crate) alias: String,
}

/// An entry of `key list`, and `key revoke`.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct KeyEntry {
    pub(crate) owner: String,
    pub(crate) hash: String,
    pub(crate) alias: String,
    /// Unix seconds.
    pub(crate) created: u64,
}

/// An entry of `device list`, `device show` and `device set`.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct DeviceEntry {
    pub(crate) udid: String,
    pub(crate) owner: String,
    pub(crate) alias: String,
    pub(crate) mac: Option<String>,
    pub(crate) platform: Option<String>,
    pub(crate) version: Option<String>,
    pub(crate) auto_update: bool,
    /// Unix seconds of the last check-in that was kept.
    pub(crate) last_seen: u64,
    /// Unix seconds.
    pub(crate) registered: u64,
    pub(crate) env_hash: Option<String>,
    /// Does it have a push token?
    pub(crate) push: bool,
    /// The newest release for it.
    pub(crate) newest: Option<NewestEntry>,
    /// What it was offered last.
    pub(crate) offered: Option<OfferedEntry>,
    /// Every field of the last check-in that was kept.
    pub(crate) facts: Value,
}

/// The newest release for a device.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct NewestEntry {
    pub(crate) release: String,
    pub(crate) version: String,
    /// Is it an update for what the device reported last?
    pub(crate) update: bool,
}

/// What a device was offered last.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct OfferedEntry {
    pub(crate) release: String,
    /// In how many check-ins in a row.
    pub(crate) times: u8,
    /// How often it reported that installing failed.
    pub(crate) failures: u8,
    /// Unix seconds before which it is left alone.
    pub(crate) quiet_until: u64,
}

/// The body of `PATCH /devices/{udid}`; what is absent stays.
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DeviceWanted {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) auto_update: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) alias: Option<String>,
}

/// The body of `POST /tokens`.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TokenWanted {
    pub(crate) udid: String,
}

/// `token issue`.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct TokenIssued {
    pub(crate) ott: String,
    /// What the device fetches.
    pub(crate) path: String,
    /// Unix seconds.
    pub(crate) expires: u64,
}

/// `token revoke`.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct TokensRevoked {
    pub(crate) revoked: u64,
}

/// The query of `POST /releases`; the body is the image, or the rendered bundle.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ReleaseWanted {
    pub(crate) owner: String,
    /// The udid of the one device it is for, or
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) device: Option<String>,
    /// it is for all devices of the owner.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) all: Option<bool>,
    pub(crate) version: String,
    pub(crate) platform: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) env_hash: Option<String>,
    /// `image` (which it is without a word) or `bundle`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) kind: Option<String>,
    /// What the bytes must be; anything else is not published.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) sha256: Option<String>,
    /// Where it came from, such as THiNX' `build_id`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) source: Option<String>,
    /// Let `device` be one that has not registered yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) unregistered: Option<bool>,
}

/// `publish`.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Published {
    pub(crate) release: String,
    pub(crate) version: String,
    pub(crate) platform: String,
    pub(crate) size: u64,
    pub(crate) sha256: String,
    pub(crate) md5: String,
    /// Registered devices that will be offered it.
    pub(crate) devices: u64,
    /// Those of them for which auto-update must be switched on first.
    pub(crate) waiting: u64,
    /// What is odd about it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) warnings: Vec<String>,
}

/// An entry of `release list`, and `release withdraw`.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct ReleaseEntry {
    pub(crate) release: String,
    pub(crate) owner: String,
    /// The udid of the one device it is for; none says all of the owner's.
    pub(crate) device: Option<String>,
    pub(crate) version: String,
    pub(crate) platform: String,
    pub(crate) env_hash: Option<String>,
    /// `image` or `bundle`.
    pub(crate) kind: String,
    pub(crate) size: u64,
    pub(crate) sha256: String,
    pub(crate) md5: String,
    /// Unix seconds.
    pub(crate) published: u64,
    /// Unix seconds, if it was withdrawn.
    pub(crate) withdrawn: Option<u64>,
    pub(crate) source: Option<String>,
}

/// `cert self-signed`.
#[derive(Debug, Serialize)]
pub(crate) struct CertMade {
    /// The file of the certificate.
    pub(crate) certificate: String,
    /// The file of its key.
    pub(crate) key: String,
    pub(crate) names: Vec<String>,
    /// Unix seconds.
    pub(crate) not_after: u64,
    /// As sketches give it to `setFingerprint`.
    pub(crate) sha1: String,
    pub(crate) sha256: String,
}

/// `cert show`.
#[derive(Debug, Serialize)]
pub(crate) struct CertEntry {
    pub(crate) names: Vec<String>,
    /// Such as `ECDSA P-256` or `RSA 2048`.
    pub(crate) key: String,
    /// Does the key that was looked at belong to it? None if there was none.
    pub(crate) key_matches: Option<bool>,
    /// Unix seconds.
    pub(crate) not_before: u64,
    /// Unix seconds.
    pub(crate) not_after: u64,
    /// Whole days until it ends; below zero if it did.
    pub(crate) days_left: i64,
    /// Certificates in the file, itself included.
    pub(crate) certificates: usize,
    /// As sketches give it to `setFingerprint`.
    pub(crate) sha1: String,
    pub(crate) sha256: String,
}

/// `GET /health`.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Health {
    /// `ok`.
    pub(crate) status: String,
    pub(crate) version: String,
    /// The process that answers.
    pub(crate) pid: u32,
    pub(crate) uptime_s: u64,
    /// Most bytes of an image.
    pub(crate) image_bytes_max: u64,
    /// Where images are fetched from, in the order in which that is tried.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) image_origins: Vec<OriginEntry>,
}

/// One origin of images.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct OriginEntry {
    pub(crate) origin: String,
    /// Are published images put there?
    pub(crate) takes_images: bool,
    /// Images that it gave.
    pub(crate) fetched: u64,
    /// Times that it failed, other than by not having an image.
    pub(crate) failed: u64,
    /// The last such failure, and when it was in Unix seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) failure: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) failure_at: Option<u64>,
}

/// Any failure.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Refused {
    pub(crate) error: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) hint: Option<String>,
}
