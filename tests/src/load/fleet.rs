//! The devices of one thread: what they know of themselves, and what they send.

use super::Acknowledged;
use super::verdict::Asked;
use crate::Random;

/// The devices, by their index here.
#[derive(Debug)]
pub(super) struct Fleet {
    devices: Vec<Device>,
    /// Those without a request under way.
    idle: Vec<usize>,
    random: Random,
    /// The number of the next device, and how far apart numbers are.
    next: u32,
    step: u32,
}

#[derive(Debug)]
struct Device {
    mac: String,
    /// Its own, or the one that it was given; some have none before.
    udid: Option<String>,
    /// The last version that was acknowledged, if any was.
    version: Option<u32>,
    /// Those that were sent later.
    unknown: Vec<u32>,
}

/// A check-in that is to be sent.
#[derive(Debug)]
pub(super) struct CheckIn {
    pub(super) device: usize,
    pub(super) version: u32,
    pub(super) request: Vec<u8>,
}

impl Fleet {
    /// The devices of thread `thread` of `threads`.
    pub(super) fn new(thread: u32, threads: u32, seed: u64) -> Self {
        let random = Random::new(seed ^ (u64::from(thread) << 32));
        Self { devices: Vec::new(), idle: Vec::new(), random, next: thread, step: threads }
    }

    /// The next check-in, by a device that is busy from then on.
    pub(super) fn check_in(&mut self, plan: &super::Plan) -> CheckIn {
        let device = if self.idle.is_empty() || self.random.chance(plan.new_percent) {
            self.create()
        } else {
            let place = self.random.below(self.idle.len() as u64) as usize;
            self.idle.swap_remove(place)
        };
        let is_changed = self.random.chance(plan.changed_percent);
        let known = &self.devices[device];
        let last = known.unknown.last().copied().or(known.version);
        let version = match last {
            // One whose fate is unknown is sent again, as a device would.
            Some(last) if is_changed && known.unknown.is_empty() => last + 1,
            Some(last) => last,
            None => 0,
        };
        let request = request(known, version, plan);
        self.devices[device].sends(version);
        CheckIn { device, version, request }
    }

    fn create(&mut self) -> usize {
        let number = self.next;
        self.next += self.step;
        let has_id = self.random.chance(50);
        self.devices.push(Device {
            mac: format!("5CCF7F{number:06X}"),
            udid: has_id.then(|| format!("5ccf7fee-1337-4000-8000-{number:012x}")),
            version: None,
            unknown: Vec::new(),
        });
        self.devices.len() - 1
    }

    pub(super) fn asked<'a>(&'a self, device: usize, owner: &'a str) -> Asked<'a> {
        let Device { mac, udid, version, .. } = &self.devices[device];
        Asked { owner, udid: udid.as_deref(), mac, is_known: version.is_some() }
    }

    pub(super) fn mac(&self, device: usize) -> &str {
        &self.devices[device].mac
    }

    /// Its request has ended: with the id in the right answer to it, if there was one.
    pub(super) fn settle(&mut self, device: usize, version: u32, udid: Option<String>) {
        self.idle.push(device);
        if udid.is_some() {
            let device = &mut self.devices[device];
            device.udid = udid;
            device.version = Some(version);
            device.unknown.clear();
        }
    }

    pub(super) fn into_acknowledged(self) -> Vec<Acknowledged> {
        let acknowledged = |device: Device| {
            Some(Acknowledged {
                version: text(device.version?),
                versions_unknown: device.unknown.into_iter().map(text).collect(),
                udid: device.udid?,
                mac: device.mac,
            })
        };
        self.devices.into_iter().filter_map(acknowledged).collect()
    }
}

impl Device {
    fn sends(&mut self, version: u32) {
        if self.version != Some(version) && self.unknown.last() != Some(&version) {
            self.unknown.push(version);
        }
    }
}

fn request(device: &Device, version: u32, plan: &super::Plan) -> Vec<u8> {
    let body = format!(
        concat!(
            r#"{{"registration":{{"mac":"{}","version":"{}","owner":"{}","alias":"unnamed","#,
            r#""udid":"{}","firmware":"thinx-lib-esp8266-arduino:2.9.450","#,
            r#""status":"Registered","platform":"arduino:esp8266","fcid":"164020"}}}}"#
        ),
        device.mac,
        text(version),
        plan.owner,
        device.udid.as_deref().unwrap_or("0"),
    );
    format!(
        "POST /device/register HTTP/1.1\r\nHost: thinx.cloud\r\nAuthentication: {}\r\n\
         Accept: application/json\r\nOrigin: device\r\nContent-Type: application/json\r\n\
         User-Agent: THiNX-Client\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}\r\n",
        plan.key,
        body.len()
    )
    .into_bytes()
}

fn text(version: u32) -> String {
    format!("1.0.{version}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::Plan;

    #[test]
    fn what_is_acknowledged_and_what_is_unknown_is_kept_apart() {
        let plan = Plan { new_percent: 0, changed_percent: 100, ..Plan::new(vec![], "o", "k") };
        let mut fleet = Fleet::new(1, 2, 7);
        let first = fleet.check_in(&plan);
        let other = fleet.check_in(&plan);
        assert_ne!(first.device, other.device, "the first one is busy");
        assert_eq!(
            (fleet.mac(first.device), fleet.mac(other.device)),
            ("5CCF7F000001", "5CCF7F000003")
        );
        fleet.settle(first.device, first.version, Some("u".to_owned()));
        assert!(fleet.asked(first.device, "o").is_known);
        let second = fleet.check_in(&plan);
        assert_eq!((second.device, second.version), (first.device, 1));
        assert!(String::from_utf8_lossy(&second.request).contains(r#""udid":"u""#));
        fleet.settle(second.device, second.version, None);
        let again = fleet.check_in(&plan);
        assert_eq!((again.device, again.version), (first.device, 1), "the same again");
        let acknowledged = fleet.into_acknowledged();
        assert_eq!(acknowledged.len(), 1, "the other one was never answered");
        assert_eq!(acknowledged[0].version, "1.0.0");
        assert_eq!(acknowledged[0].versions_unknown, ["1.0.1"]);
    }
}
