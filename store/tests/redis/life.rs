//! The whole life of a device, and what single answers mean when Redis may be away.

use std::time::Duration;

use otter_protocol::{
    Answer, ApiKey, DeviceId, DeviceStanding, Identify, KeyStanding, Mac, OwnerId, Query, Token,
};
use otter_store::{DeviceFilter, Image, RedisOptions, Target};
use otter_tests::redis::wait_for;

use crate::common::{Bench, Desk, Redeemed, check_in, grant, recording};

/// Options with which an outage is noticed after half a second, as by default.
pub(crate) fn options(url: impl Into<String>) -> RedisOptions {
    RedisOptions::new(url)
}

/// Everything that a device and its operator do, from the first check-in to the end.
pub(crate) fn whole_life(bench: &mut Bench, letter: char) {
    let (owner, key) = bench.owner(letter);
    let by_mac = bench.register(owner, "5CCF7F0000A1");
    assert_eq!(bench.register(owner, "5CCF7F0000A1"), by_mac, "it is the same one");
    let by_id = DeviceId([letter as u8; 16]);
    let record = recording(owner, Some(by_id), Some(check_in()));
    assert_eq!(bench.record(record).expect("registered").device, by_id);

    let bytes: Vec<u8> = (0..9000_u32).map(|n| n as u8).collect();
    let release = bench.publish(owner, Target::All, &bytes).offer.release;
    let found = Identify { owner: Some(owner), key, device: None, mac: Mac::parse("5CCF7F0000A1") };
    let standing = bench.identify(found);
    assert_eq!(standing.key, KeyStanding::Valid);
    let DeviceStanding::Known(device) = standing.device else { panic!("{:?}", standing.device) };
    assert_eq!(device.id, by_mac);
    assert_eq!(standing.newest.expect("published").release, release);
    assert!(bench.fetch(release).is_some());

    let token = bench.grant(owner, by_mac, grant(Some(release)));
    let ready = |started| Redeemed::Ready { release, bytes: bytes.clone(), started, forced: false };
    assert_eq!(bench.redeem(token), ready(false));
    assert_eq!(bench.start(token), ready(true));
    assert_eq!(bench.redeem(token), ready(true), "for each range");
    assert!(bench.claim(token));
    assert!(!bench.claim(token));
    assert_eq!(bench.redeem(token), Redeemed::Unknown);

    let push = Query::Push { device: by_id, push: "push token".into() };
    assert!(matches!(bench.ask(push), Answer::Kept));
    assert_pages(bench, owner, &[by_mac, by_id]);
    let issued = bench.operator.issue_token(by_id, &grant(None)).expect("a token");
    assert_eq!(issued.release, Some(release));
    assert_eq!(bench.operator.revoke_tokens(by_id).expect("revoked"), 1);
    assert_eq!(bench.start(issued.token), Redeemed::Unknown);
    bench.operator.withdraw(release).expect("withdrawn");
    assert!(bench.fetch(release).is_none());
    let hash = bench.operator.keys(Some(&owner)).expect("keys")[0].hash;
    bench.operator.revoke_key(&hash).expect("revoked");
    assert_eq!(bench.identify(found).key, KeyStanding::UnknownOwner);
}

fn assert_pages(bench: &Bench, owner: OwnerId, devices: &[DeviceId]) {
    let mut devices = devices.to_vec();
    devices.sort_unstable();
    let mut filter = DeviceFilter { owner: Some(owner), limit: 1, ..DeviceFilter::default() };
    for device in &devices {
        let page = bench.operator.devices(&filter).expect("a page");
        assert_eq!(page.iter().map(|row| row.udid).collect::<Vec<_>>(), [*device]);
        filter.after = Some(*device);
    }
    assert!(bench.operator.devices(&filter).expect("a page").is_empty());
}

/// An owner with a device on it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Home {
    pub(crate) owner: OwnerId,
    pub(crate) key: ApiKey,
    pub(crate) device: DeviceId,
}

impl Home {
    pub(crate) fn new(bench: &mut Bench, letter: char) -> Self {
        let (owner, key) = bench.owner(letter);
        let device = bench.register(owner, "5CCF7F0000B1");
        Self { owner, key, device }
    }

    pub(crate) fn identify(&self) -> Query {
        let Self { owner, key, device } = *self;
        Query::Identify(Identify { owner: Some(owner), key, device: Some(device), mac: None })
    }

    /// A check-in that says this version.
    pub(crate) fn check_in(&self, version: &str) -> Query {
        let said = otter_protocol::CheckIn { version: Some(version.into()), ..check_in() };
        Query::Record(Box::new(recording(self.owner, Some(self.device), Some(said))))
    }

    /// The version of the last check-in that was kept.
    pub(crate) fn version(&self, desk: &mut Desk) -> Option<String> {
        let Answer::Standing(standing) = desk.ask(self.identify()) else { return None };
        let DeviceStanding::Known(device) = standing.device else { return None };
        device.version.map(|version| version.to_string())
    }

    pub(crate) fn token(&self, bench: &mut Bench) -> Token {
        bench.grant(self.owner, self.device, grant(None))
    }
}

/// Is it the right answer, or none because Redis is away?
pub(crate) fn is_away(answer: &Answer<Image>) -> bool {
    matches!(answer, Answer::Unavailable)
}

/// Asks until it is answered; says how long that took.
pub(crate) fn wait_until_served(desk: &mut Desk, query: &Query) -> Duration {
    let began = std::time::Instant::now();
    wait_for("an answer", || (!is_away(&desk.ask(query.clone()))).then_some(()));
    began.elapsed()
}
