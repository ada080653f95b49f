//! Answers as text, so that those of both sides can be compared.

use otter_protocol::{Alias, Answer, Device, DeviceId, DeviceStanding, Redemption, ReleaseId};

use super::Pair;

/// Which of a pair's ids an answer holds.
#[derive(Clone, Copy)]
pub(super) enum Side {
    Model,
    Real,
}

impl Pair {
    /// An answer as text, without what is random in it.
    pub(super) fn plain<I: AsRef<[u8]>>(&self, answer: &Answer<I>, side: Side) -> String {
        match answer {
            Answer::Standing(standing) => {
                let device = match &standing.device {
                    DeviceStanding::Known(device) => self.plain_device(device, side),
                    DeviceStanding::Unknown => "unknown".to_owned(),
                    DeviceStanding::Foreign => "foreign".to_owned(),
                };
                let newest = standing.newest.as_ref().map(|offer| offer.version.clone());
                format!("{:?} {device} {newest:?}", standing.key)
            }
            Answer::Release(release) => {
                let bytes = release.as_ref().map(|release| release.image.as_ref().to_vec());
                format!("{:?}", bytes.map(|bytes| crate::image::sha256_of(&bytes)))
            }
            Answer::Redemption(Redemption::Ready { device, release, started, forced }) => {
                let (device, version) = (self.place(*device, side), &release.offer.version);
                let sha256 = crate::image::sha256_of(release.image.as_ref());
                let sha256_told = release.offer.sha256;
                format!("{device} {version} {started} {forced} {}", sha256 == sha256_told)
            }
            Answer::Redemption(Redemption::Unknown) => "unknown".to_owned(),
            Answer::Redemption(Redemption::Nothing) => "nothing".to_owned(),
            Answer::Recorded(Some(recorded)) => {
                let alias = plain_alias(recorded.alias, recorded.device);
                let device = self.place(recorded.device, side);
                format!("{device} {alias} {} {}", recorded.auto_update, recorded.token.is_some())
            }
            Answer::Recorded(None) => "refused".to_owned(),
            Answer::Kept => "kept".to_owned(),
            Answer::Claimed(claimed) => format!("claimed {claimed}"),
            Answer::Unavailable => "unavailable".to_owned(),
        }
    }

    fn plain_device(&self, device: &Device, side: Side) -> String {
        let offered = device.offered.map(|offered| {
            let known = |(model, real): &(ReleaseId, ReleaseId)| match side {
                Side::Model => *model == offered.release,
                Side::Real => *real == offered.release,
            };
            (self.releases.iter().position(known), offered.times, offered.failures)
        });
        format!(
            "{} {} {:?} {} {:?} {:?} {} {} {} {offered:?}",
            self.place(device.id, side),
            plain_alias(device.alias, device.id),
            device.mac,
            device.auto_update,
            device.version,
            device.env_hash,
            device.digest,
            device.told_auto_update,
            device.seen,
        )
    }

    fn place(&self, device: DeviceId, side: Side) -> usize {
        let found = self.devices.iter().position(|(model, real)| match side {
            Side::Model => *model == device,
            Side::Real => *real == device,
        });
        found.expect("a device that was registered")
    }
}

fn plain_alias(alias: Alias, device: DeviceId) -> String {
    if alias == Alias::invented(device) { "(invented)".to_owned() } else { alias.to_string() }
}
