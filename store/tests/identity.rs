//! Who presents a key, and which device is it? (docs/wire.md 1.1 and 4)

mod common;

use common::{Bench, START_MS, alias, check_in, on_each, recording};
use otter_protocol::{
    Alias, ApiKey, CheckIn, Device, DeviceId, DeviceStanding, Identify, KeyStanding, Mac, Offered,
    OwnerId, Query, Record, ReleaseId,
};
use otter_store::{DeviceChange, Target};

const NOBODY: DeviceId = DeviceId([0xee; 16]);

/// What the ids of a request lead to, short enough for a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Led {
    Unknown,
    Foreign,
    To(DeviceId),
}

fn ask(
    bench: &mut Bench,
    owner: Option<OwnerId>,
    key: ApiKey,
    device: Option<DeviceId>,
    mac: &str,
) -> (KeyStanding, Led) {
    let standing = bench.identify(Identify { owner, key, device, mac: Mac::parse(mac) });
    let led = match standing.device {
        DeviceStanding::Unknown => Led::Unknown,
        DeviceStanding::Foreign => Led::Foreign,
        DeviceStanding::Known(device) => Led::To(device.id),
    };
    (standing.key, led)
}

#[test]
fn ids_and_keys_lead_where_the_wire_contract_says() {
    on_each(|bench| {
        let (mine, key) = bench.owner('a');
        let (theirs, their_key) = bench.owner('b');
        let keyless = OwnerId::parse(&"c".repeat(64)).expect("an owner id");
        bench.operator.create_owner(Some(keyless)).expect("a new owner");
        let nobody = OwnerId::parse(&"d".repeat(128)).expect("an owner id");
        let device = bench.register(mine, "5CCF7F000001");
        let other = bench.register(theirs, "5CCF7F000002");
        assert_ne!(device, other);

        use KeyStanding::{UnknownOwner, Valid, Wrong};
        let (mac, their_mac, none) = ("5CCF7F000001", "5CCF7F000002", "");
        for (owner, key, id, mac, expected) in [
            // By id.
            (Some(mine), key, Some(device), none, (Valid, Led::To(device))),
            (Some(mine), key, Some(device), their_mac, (Valid, Led::To(device))),
            (Some(mine), key, Some(other), none, (Valid, Led::Foreign)),
            (Some(mine), key, Some(other), mac, (Valid, Led::Foreign)),
            (Some(mine), key, Some(NOBODY), none, (Valid, Led::Unknown)),
            // By MAC, within the owner.
            (Some(mine), key, Some(NOBODY), mac, (Valid, Led::To(device))),
            (Some(mine), key, None, mac, (Valid, Led::To(device))),
            (Some(mine), key, None, their_mac, (Valid, Led::Unknown)),
            (Some(mine), key, None, none, (Valid, Led::Unknown)),
            // Keys.
            (Some(mine), their_key, Some(device), none, (Wrong, Led::To(device))),
            (Some(mine), ApiKey([0; 32]), None, mac, (Wrong, Led::To(device))),
            (Some(keyless), key, Some(device), none, (UnknownOwner, Led::Foreign)),
            (Some(nobody), key, Some(device), none, (UnknownOwner, Led::Foreign)),
            (Some(nobody), key, Some(NOBODY), mac, (UnknownOwner, Led::Unknown)),
            // The device's own owner (addpush).
            (None, key, Some(device), none, (Valid, Led::To(device))),
            (None, their_key, Some(device), none, (Wrong, Led::To(device))),
            (None, their_key, Some(other), none, (Valid, Led::To(other))),
            (None, key, Some(NOBODY), mac, (Wrong, Led::Unknown)),
            (None, key, None, mac, (Wrong, Led::Unknown)),
        ] {
            for _ in 0..2 {
                let led = ask(bench, owner, key, id, mac);
                assert_eq!(led, expected, "{owner:?} {id:?} {mac}");
            }
        }
    });
}

#[test]
fn a_key_ends_with_its_revocation() {
    on_each(|bench| {
        let (owner, key) = bench.owner('a');
        let second = bench.operator.create_key(&owner, "second").expect("a key");
        let standing = |bench: &mut Bench, key| ask(bench, Some(owner), key, None, "").0;
        assert_eq!(standing(bench, key), KeyStanding::Valid);
        assert_eq!(standing(bench, second.key), KeyStanding::Valid);
        let hash_as_key = ApiKey(second.hash);
        assert_eq!(standing(bench, hash_as_key), KeyStanding::Wrong);
        bench.operator.revoke_key(&second.hash).expect("revoked");
        bench.reopen();
        assert_eq!(standing(bench, second.key), KeyStanding::Wrong);
        assert_eq!(standing(bench, key), KeyStanding::Valid);
    });
}

#[test]
fn a_new_device_is_registered_as_it_says() {
    on_each(|bench| {
        let (owner, key) = bench.owner('a');
        let said = CheckIn {
            mac: Mac::parse("5CCF7F000001"),
            alias: Some(alias("kitchen")),
            env_hash: Some("beef".into()),
            digest: u64::MAX,
            told_auto_update: true,
            ..check_in()
        };
        let recorded = bench.record(recording(owner, None, Some(said.clone()))).expect("new");
        assert_eq!(recorded.alias, alias("kitchen"));
        assert!(!recorded.auto_update, "off by default");
        assert!(recorded.token.is_none());
        assert_eq!(recorded.device.to_string().as_bytes()[14], b'4', "a random UUID");
        bench.reopen();
        let Device { id, alias: name, mac, version, env_hash, digest, seen, offered, .. } =
            bench.known(owner, key, recorded.device);
        assert_eq!((id, name, mac), (recorded.device, alias("kitchen"), said.mac));
        assert_eq!(version.as_deref(), Some("1.0.0"));
        assert_eq!(env_hash.as_deref(), Some("beef"));
        assert_eq!((digest, seen, offered), (u64::MAX, START_MS / 1000, None));
        let row = bench.operator.device(recorded.device).expect("readable").expect("known");
        assert_eq!(row.registered, START_MS / 1000);
        assert_eq!(row.platform.as_deref(), Some("arduino:esp8266"));
        assert_eq!(row.facts, said.facts);
    });
}

#[test]
fn a_device_without_an_id_takes_over_what_its_mac_leads_to() {
    on_each(|bench| {
        let (owner, _) = bench.owner('a');
        let (other, _) = bench.owner('b');
        let device = bench.register(owner, "5CCF7F000001");
        assert_eq!(bench.register(owner, "5c:cf:7f:00:00:01"), device);
        assert_ne!(bench.register(other, "5CCF7F000001"), device, "owners do not meet");
        assert_ne!(bench.register(owner, "5CCF7F000002"), device);
        assert_ne!(bench.register(owner, ""), bench.register(owner, ""), "no MAC leads nowhere");
        assert_eq!(bench.operator.stats().devices, 5);
    });
}

#[test]
fn an_id_that_is_not_known_is_registered_and_one_of_another_owner_refused() {
    on_each(|bench| {
        let (owner, key) = bench.owner('a');
        let (other, _) = bench.owner('b');
        let said = Some(CheckIn { mac: Mac::parse("5CCF7F000001"), ..check_in() });
        let first = bench.record(recording(owner, Some(NOBODY), said.clone())).expect("new");
        assert_eq!(first.device, NOBODY);
        assert_eq!(first.alias, Alias::invented(NOBODY));
        let record = Record { grant: Some(common::grant(None)), ..recording(other, None, None) };
        assert!(bench.record(Record { device: Some(NOBODY), ..record }).is_none());
        bench.assert_open(0);
        assert_eq!(bench.operator.stats().devices, 1);
        assert_eq!(bench.known(owner, key, NOBODY).mac, said.and_then(|said| said.mac));
    });
}

#[test]
fn what_is_not_said_stays_or_goes() {
    on_each(|bench| {
        let (owner, key) = bench.owner('a');
        let said = CheckIn {
            mac: Mac::parse("5CCF7F000001"),
            alias: Some(alias("kitchen")),
            env_hash: Some("beef".into()),
            ..check_in()
        };
        let device = bench.record(recording(owner, None, Some(said))).expect("new").device;
        bench.advance(60_000);
        let offered = Offered {
            release: ReleaseId([7; 16]),
            times: 3,
            failures: 2,
            quiet_until: START_MS / 1000 + 600,
        };
        let silent = CheckIn {
            mac: None,
            alias: Some(alias("cellar")),
            version: None,
            platform: None,
            env_hash: None,
            facts: "{\"silent\":true}".into(),
            digest: 2,
            told_auto_update: true,
        };
        let record = recording(owner, Some(device), Some(silent));
        let kept = bench.record(Record { offered: Some(offered), ..record }).expect("known");
        assert_eq!(kept.alias, alias("kitchen"), "a stored name stays");
        bench.reopen();
        let known = bench.known(owner, key, device);
        assert_eq!(known.mac, None);
        assert_eq!(known.version.as_deref(), Some("1.0.0"));
        assert_eq!(known.env_hash, None);
        assert_eq!(known.offered, Some(offered));
        assert_eq!((known.digest, known.told_auto_update), (2, true));
        assert_eq!(known.seen, START_MS / 1000 + 60);
        let row = bench.operator.device(device).expect("readable").expect("known");
        assert_eq!(row.platform.as_deref(), Some("arduino:esp8266"));
        assert_eq!(&*row.facts, "{\"silent\":true}");
        assert_eq!(row.registered, START_MS / 1000);

        bench.advance(60_000);
        bench.record(recording(owner, Some(device), None)).expect("known");
        let known = bench.known(owner, key, device);
        assert_eq!(known.offered, Some(offered), "nothing was said of it");
        assert_eq!(known.seen, START_MS / 1000 + 60, "no check-in was kept");

        let named = DeviceChange { auto_update: None, alias: Some(alias("roof")) };
        bench.operator.set_device(device, named).expect("named");
        assert_eq!(bench.known(owner, key, device).offered, Some(offered));
        let looked_after = DeviceChange { auto_update: Some(true), alias: None };
        bench.operator.set_device(device, looked_after).expect("changed");
        assert_eq!(bench.known(owner, key, device).offered, None, "it is offered again");
    });
}

#[test]
fn operators_name_devices_and_let_them_update() {
    on_each(|bench| {
        let (owner, key) = bench.owner('a');
        let device = bench.register(owner, "5CCF7F000001");
        let change = DeviceChange { auto_update: Some(true), alias: Some(alias("attic")) };
        let row = bench.operator.set_device(device, change).expect("changed");
        assert_eq!((row.alias, row.auto_update), (alias("attic"), true));
        bench.reopen();
        let kept = bench.record(recording(owner, Some(device), Some(check_in()))).expect("known");
        assert_eq!((kept.alias, kept.auto_update), (alias("attic"), true));
        assert!(bench.known(owner, key, device).auto_update);
        let row = bench.operator.set_device(device, DeviceChange::default()).expect("unchanged");
        assert_eq!((row.alias, row.auto_update), (alias("attic"), true));
        assert!(bench.operator.set_device(NOBODY, change).is_err());
    });
}

#[test]
fn an_alias_reads_the_same_after_a_restart() {
    on_each(|bench| {
        let (owner, key) = bench.owner('a');
        let blank_first = CheckIn { alias: Some(alias("\u{7} porch")), ..check_in() };
        let cut = format!("{} y", "x".repeat(63));
        let blank_last = CheckIn { alias: Some(alias(&cut)), ..check_in() };
        for said in [blank_first, blank_last] {
            let recorded = bench.record(recording(owner, None, Some(said))).expect("new");
            bench.reopen();
            let known = bench.known(owner, key, recorded.device);
            assert_eq!(known.alias.as_str(), recorded.alias.as_str());
        }
    });
}

#[test]
fn a_push_token_is_kept() {
    on_each(|bench| {
        let (owner, _) = bench.owner('a');
        let device = bench.register(owner, "5CCF7F000001");
        let push = |device| Query::Push { device, push: "token".into() };
        assert!(matches!(bench.ask(push(device)), otter_store::Answer::Kept));
        assert!(matches!(bench.ask(push(NOBODY)), otter_store::Answer::Kept));
        bench.reopen();
        let row = bench.operator.device(device).expect("readable").expect("known");
        assert_eq!(row.push.as_deref(), Some("token"));
        assert!(bench.operator.device(NOBODY).expect("readable").is_none());
    });
}

#[test]
fn a_release_may_wait_for_its_device() {
    on_each(|bench| {
        let (owner, key) = bench.owner('a');
        let (other, other_key) = bench.owner('b');
        let published = bench.publish(owner, Target::Device(NOBODY), b"firmware");
        assert_eq!(published.devices, 0);
        bench.reopen();
        let newest = |bench: &mut Bench, owner, key, device| {
            let asked = Identify { owner: Some(owner), key, device: Some(device), mac: None };
            bench.identify(asked).newest.map(|offer| offer.release)
        };
        let stranger = DeviceId([0xdd; 16]);
        for (owner, device) in [(owner, NOBODY), (other, stranger)] {
            bench.record(recording(owner, Some(device), None)).expect("registered");
        }
        let release = published.offer.release;
        assert_eq!(newest(bench, owner, key, NOBODY), Some(release));
        assert_eq!(newest(bench, other, other_key, stranger), None);
    });
}
