//! A device as it is kept: fields of a hash.

use std::rc::Rc;
use std::sync::Arc;

use otter_protocol::{Alias, Device, DeviceId, Mac, Offered, OwnerId, ReleaseId};

use super::reply::Reply;
use super::trouble::Trouble;
use crate::copy::DeviceCopy;
use crate::operator::DeviceRow;

/// What a check-in needs of a device that is known.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) owner: OwnerId,
    pub(super) device: Device,
    pub(super) platform: Option<Arc<str>>,
}

/// A device as it was in one state.
#[derive(Debug)]
pub(super) struct Remembered {
    /// Names the state.
    pub(super) state: String,
    pub(super) known: Known,
}

impl Remembered {
    /// Reads what the operation `device` answers to somebody who remembers this, or nothing;
    /// `None` if there is no such device.
    ///
    /// # Errors
    /// As [`Known::read`].
    pub(super) fn read(
        udid: DeviceId,
        remembered: Option<Rc<Self>>,
        mut reply: Reply,
    ) -> Result<Option<Rc<Self>>, Trouble> {
        let state = reply.parsed_if_any(|state| Some(state.to_owned()))?.unwrap_or_default();
        if state == "same" {
            let unasked = || Trouble::odd("a device is as nobody knew it");
            return remembered.ok_or_else(unasked).map(Some);
        }
        let known = Known::read(udid, &mut reply)?;
        Ok(known.map(|known| Rc::new(Self { state, known })))
    }
}

impl Known {
    /// Reads the fields; `None` if there is no such device.
    ///
    /// # Errors
    /// [`Trouble::Odd`] if they are not what a server of ours wrote.
    fn read(udid: DeviceId, reply: &mut Reply) -> Result<Option<Self>, Trouble> {
        let owner = reply.parsed_if_any(OwnerId::parse)?;
        let mac = reply.parsed_if_any(mac_from)?;
        let alias = reply.parsed_if_any(|text| Some(Alias::clean(text)))?.flatten();
        let platform = reply.parsed_if_any(|text| Some(Arc::from(text)))?;
        let version = reply.parsed_if_any(|text| Some(Arc::from(text)))?;
        let env_hash = reply.parsed_if_any(|text| Some(Arc::from(text)))?;
        let Some(owner) = owner else { return Ok(None) };
        let device = Device {
            id: udid,
            alias: alias.unwrap_or_else(|| Alias::invented(udid)),
            mac,
            auto_update: reply.flag()?,
            told_auto_update: reply.flag()?,
            digest: reply.digits()?,
            seen: reply.digits()?,
            offered: reply.parsed_if_any(offered_from)?,
            version,
            env_hash,
        };
        Ok(Some(Self { owner, device, platform }))
    }

    /// Reads what operators see out of what the operation `row` answers; `None` if there is no such
    /// device.
    ///
    /// # Errors
    /// As [`Known::read`].
    pub(super) fn read_row(udid: DeviceId, reply: Reply) -> Result<Option<DeviceRow>, Trouble> {
        Ok(Self::read_copy(udid, reply)?.map(|copy| copy.row))
    }

    /// Reads all of what the operation `row` answers; `None` if there is no such device.
    ///
    /// # Errors
    /// As [`Known::read`].
    pub(super) fn read_copy(
        udid: DeviceId,
        mut reply: Reply,
    ) -> Result<Option<DeviceCopy>, Trouble> {
        let Some(Self { owner, device, platform }) = Self::read(udid, &mut reply)? else {
            return Ok(None);
        };
        let registered = reply.number()?;
        let facts = reply.optional()?.map_or_else(|| "{}".into(), |facts| Box::from(&*facts));
        let push = reply.optional()?.map(|push| push.to_string());
        let (digest, told_auto_update) = (device.digest, device.told_auto_update);
        let row = DeviceRow {
            udid,
            owner,
            alias: device.alias,
            mac: device.mac,
            platform: platform.map(|text| Box::from(&*text)),
            version: device.version.as_deref().map(Box::from),
            env_hash: device.env_hash.as_deref().map(Box::from),
            auto_update: device.auto_update,
            registered,
            last_seen: device.seen,
            facts,
            push,
            offered: device.offered,
            newest: None,
        };
        Ok(Some(DeviceCopy { row, digest, told_auto_update }))
    }
}

/// A MAC as a field, and in the name of a key: its 12 digits, or more for a SigFox id.
pub(super) fn mac_text(mac: Mac) -> String {
    format!("{:012x}", mac.to_bits())
}

pub(super) fn mac_from(text: &str) -> Option<Mac> {
    u64::from_str_radix(text, 16).ok().and_then(Mac::from_bits)
}

/// State of the guard rails as one field.
pub(super) fn offered_text(offered: &Offered) -> String {
    let Offered { release, times, failures, quiet_until } = offered;
    format!("{release} {times} {failures} {quiet_until}")
}

fn offered_from(text: &str) -> Option<Offered> {
    let mut parts = text.split(' ');
    Some(Offered {
        release: ReleaseId::parse(parts.next()?)?,
        times: parts.next()?.parse().ok()?,
        failures: parts.next()?.parse().ok()?,
        quiet_until: parts.next()?.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn macs_are_read_as_they_were_written() {
        for text in ["5CCF7F3D8F2A", "00000000000A", "SIGFOX1A2B3C"] {
            let mac = Mac::parse(text).expect("a MAC");
            assert_eq!(mac_from(&mac_text(mac)), Some(mac), "{text}");
        }
        assert_eq!(mac_text(Mac::parse("5CCF7F3D8F2A").expect("a MAC")), "5ccf7f3d8f2a");
    }

    #[test]
    fn guard_rails_are_read_as_they_were_written() {
        let offered =
            Offered { release: ReleaseId([7; 16]), times: 255, failures: 3, quiet_until: u64::MAX };
        assert_eq!(offered_from(&offered_text(&offered)), Some(offered));
        assert_eq!(offered_from(""), None);
        assert_eq!(offered_from("07070707-0707-0707-0707-070707070707 256 0 0"), None);
    }
}
