//! The names of the keys (docs/redis.md). Keys that one step needs together share a hash slot: of a
//! device by `{udid}`, of an owner by `{ak:<owner>}`, which is the slot of THiNX' own `ak:<owner>`.

use otter_protocol::id::hex_text;
use otter_protocol::{DeviceId, Mac, OwnerId, ReleaseId};

use super::device::mac_text;
use crate::token::TokenHash;

/// The name of a key.
pub(super) type Key = String;

/// Hash: what a check-in needs of a device.
pub(super) fn device(udid: DeviceId) -> Key {
    of_device("dev:{", udid)
}

/// String: all fields of a device's last check-in, as JSON.
pub(super) fn facts(udid: DeviceId) -> Key {
    of_device("facts:{", udid)
}

/// String: a device's push token.
pub(super) fn push(udid: DeviceId) -> Key {
    of_device("push:{", udid)
}

/// Hash: the tokens of a device, by the SHA-256 of their texts.
pub(super) fn tokens(udid: DeviceId) -> Key {
    of_device("tok:{", udid)
}

/// String: whose a token is: device and owner.
pub(super) fn token(hash: &TokenHash) -> Key {
    format!("ott:{}", hex(&hash.0))
}

/// Sorted set: which devices of an owner have a MAC, those that were registered first before.
pub(super) fn mac(owner: &OwnerId, mac: Mac) -> Key {
    format!("mac:{owner}:{}", mac_text(mac))
}

/// String: THiNX' JSON array of an owner's API keys.
pub(super) fn api_keys(owner: &OwnerId) -> Key {
    format!("ak:{owner}")
}

/// Hash: an owner.
pub(super) fn owner(owner: &OwnerId) -> Key {
    format!("own:{{ak:{owner}}}")
}

/// Hash: the releases of an owner, by id.
pub(super) fn releases(owner: &OwnerId) -> Key {
    format!("rels:{{ak:{owner}}}")
}

/// String: whose a release is.
pub(super) fn release(id: ReleaseId) -> Key {
    format!("rel:{id}")
}

/// Sorted set: the devices of an owner whose ids begin with this hexadecimal digit.
pub(super) fn devices(owner: &OwnerId, shard: u8) -> Key {
    format!("devs:{owner}:{shard:x}")
}

/// Sorted set: all owners by the time of their creation.
pub(super) const OWNERS: &str = "owners";

/// String: there while a copy into this Redis is under way.
pub(super) const UNFINISHED: &str = "unfinished";

/// Hash: the keys of TLS session tickets, by their periods.
pub(super) const TICKET_KEYS: &str = "ticketkeys";

/// The part of an owner's devices that a device belongs to.
pub(super) fn shard(udid: DeviceId) -> u8 {
    udid.0[0] >> 4
}

/// How many parts there are.
pub(super) const SHARDS: u8 = 16;

/// Not by `format!`: this is built for every check-in.
fn of_device(kind: &str, udid: DeviceId) -> Key {
    let mut key = String::with_capacity(kind.len() + 37);
    key.push_str(kind);
    key.push_str(std::str::from_utf8(&udid.text()).unwrap_or_default());
    key.push('}');
    key
}

/// Bytes as digits.
pub(super) fn hex(bytes: &[u8; 32]) -> String {
    let digits: [u8; 64] = hex_text(bytes);
    String::from_utf8_lossy(&digits).into_owned()
}
