//! What operators see and do.

mod common;

use common::{START_MS, alias, check_in, on_each, recording};
use otter_protocol::{CheckIn, DeviceId, Kind, Mac, Offer, OwnerId, ReleaseId};
use otter_store::{
    DeviceChange, DeviceFilter, DeviceRow, KEY_ALIAS_BYTES_MAX, NewRelease, Operator,
    OperatorError, Published, Subject, Target,
};

fn release(owner: OwnerId, target: Target) -> NewRelease {
    NewRelease {
        owner,
        target,
        version: "repo:1.2.3".to_owned(),
        platform: "Arduino".to_owned(),
        env_hash: Some("beef".to_owned()),
        kind: Kind::Bundle,
        source: Some("build 7".to_owned()),
    }
}

fn publish(operator: &Operator, release: NewRelease) -> Result<Published, OperatorError> {
    let staged = operator.stage(&mut &b"firmware"[..], 100)?;
    operator.publish(release, staged, &|_, _, _| true)
}

#[test]
fn owners_and_keys_are_listed_and_named_once() {
    on_each(|bench| {
        let (first, key) = bench.owner('b');
        let second = bench.operator.create_owner(None).expect("minted");
        assert_eq!(second.as_str().len(), 64);
        let again = bench.operator.create_owner(Some(first)).expect_err("it exists");
        assert!(matches!(again, OperatorError::Conflict { what: Subject::Owner, .. }));
        let new = bench.operator.create_key(&second, "caf\u{e9}").expect("a key");
        bench.register(first, "5CCF7F000001");
        bench.publish(first, Target::All, b"firmware");
        bench.reopen();

        let owners = bench.operator.owners().expect("owners");
        let counts = owners.iter().map(|row| (row.owner, row.keys, row.devices, row.releases));
        assert_eq!(counts.collect::<Vec<_>>(), [(first, 1, 1, 1), (second, 1, 0, 0)]);
        assert_eq!(owners[0].created, START_MS / 1000);
        let keys = bench.operator.keys(None).expect("keys");
        assert_eq!(keys.len(), 2);
        assert_eq!((keys[1].owner, &*keys[1].alias), (second, "caf\u{e9}"));
        assert_eq!(keys[1].hash, new.hash);
        assert_eq!(bench.operator.keys(Some(&second)).expect("keys"), keys[1..]);
        assert_ne!(keys[0].hash, key.0, "the key itself is not kept");

        let revoked = bench.operator.revoke_key(&new.hash).expect("revoked");
        assert_eq!(revoked, keys[1]);
        assert!(matches!(
            bench.operator.revoke_key(&new.hash),
            Err(OperatorError::NotFound { what: Subject::Key })
        ));
        let nobody = OwnerId::parse(&"0".repeat(64)).expect("an owner id");
        assert!(matches!(
            bench.operator.create_key(&nobody, ""),
            Err(OperatorError::NotFound { what: Subject::Owner })
        ));
        let long = "x".repeat(KEY_ALIAS_BYTES_MAX + 1);
        assert!(matches!(
            bench.operator.create_key(&first, &long),
            Err(OperatorError::Invalid { .. })
        ));
    });
}

#[test]
fn devices_are_listed_page_by_page() {
    on_each(|bench| {
        let (first, _) = bench.owner('a');
        let (second, _) = bench.owner('b');
        for i in 0..25_u8 {
            let owner = if i % 5 == 0 { second } else { first };
            // Not in the order of their ids.
            let udid = DeviceId([i.wrapping_mul(77); 16]);
            bench.record(recording(owner, Some(udid), Some(check_in()))).expect("new");
        }
        bench.reopen();
        for (owner, devices) in [(None, 25), (Some(first), 20), (Some(second), 5)] {
            let mut filter = DeviceFilter { owner, after: None, limit: 3 };
            let mut all: Vec<DeviceRow> = Vec::new();
            loop {
                let page = bench.operator.devices(&filter).expect("readable");
                let Some(last) = page.last() else { break };
                assert!(page.len() <= 3);
                filter.after = Some(last.udid);
                all.extend(page);
            }
            assert_eq!(all.len(), devices);
            assert!(all.is_sorted_by(|a, b| a.udid < b.udid));
            assert!(all.iter().all(|row| owner.is_none_or(|owner| row.owner == owner)));
        }
        let nobody = OwnerId::parse(&"0".repeat(64)).ok_or("text").expect("an owner id");
        let filter = DeviceFilter { owner: Some(nobody), ..DeviceFilter::default() };
        assert!(bench.operator.devices(&filter).expect("readable").is_empty());
        assert!(bench.operator.device(DeviceId([255; 16])).expect("readable").is_none());
    });
}

#[test]
fn a_publication_counts_whom_it_concerns() {
    on_each(|bench| {
        let (owner, _) = bench.owner('a');
        let (other, _) = bench.owner('b');
        let mut devices = Vec::new();
        for (bits, platform, version) in [
            (1, "arduino:esp8266", "1.0.0"),
            (2, "arduino", "1.0.0"),
            (3, "arduino", "9.0.0"),
            (4, "nodemcu", "1.0.0"),
            (5, "arduino", "1.0.0"),
        ] {
            let said = CheckIn {
                mac: Mac::from_bits(bits),
                platform: Some(platform.into()),
                version: Some(version.into()),
                ..check_in()
            };
            let owner = if bits == 5 { other } else { owner };
            devices.push(bench.record(recording(owner, None, Some(said))).expect("new").device);
        }
        let allowed = DeviceChange { auto_update: Some(true), alias: None };
        bench.operator.set_device(devices[1], allowed).expect("known");
        let is_old = |offer: &Offer, version: Option<&str>, _: Option<&str>| {
            assert_eq!(&*offer.version, "repo:1.2.3");
            version == Some("1.0.0")
        };
        let publish = |target| {
            let staged = bench.operator.stage(&mut &b"firmware"[..], 100).expect("staged");
            let published = bench.operator.publish(release(owner, target), staged, &is_old);
            let published = published.expect("published");
            (published.devices, published.waiting)
        };
        assert_eq!(publish(Target::All), (2, 1));
        assert_eq!(publish(Target::Device(devices[3])), (1, 1));
        assert_eq!(publish(Target::Device(devices[2])), (0, 0), "it is newer");
        assert_eq!(publish(Target::Device(DeviceId([9; 16]))), (0, 0), "not registered yet");
        assert_eq!(publish(Target::All), (2, 1));
    });
}

#[test]
fn releases_are_listed_and_withdrawn_once() {
    on_each(|bench| {
        let (owner, _) = bench.owner('a');
        let (other, _) = bench.owner('b');
        let device = bench.register(owner, "5CCF7F000001");
        let first = publish(&bench.operator, release(owner, Target::All)).expect("published");
        let second = publish(&bench.operator, release(other, Target::All)).expect("published");
        assert_eq!(&*first.offer.platform, "arduino", "in lower case");
        bench.advance(5000);
        let withdrawn = bench.operator.withdraw(first.offer.release).expect("withdrawn");
        assert_eq!(withdrawn.withdrawn, Some(START_MS / 1000 + 5));
        bench.reopen();
        let rows = bench.operator.releases(None).expect("releases");
        let ids: Vec<ReleaseId> = rows.iter().map(|row| row.offer.release).collect();
        assert_eq!(ids, [first.offer.release, second.offer.release]);
        assert_eq!(rows[0], withdrawn);
        assert_eq!(rows[0].offer, first.offer);
        assert_eq!(rows[1].source.as_deref(), Some("build 7"));
        assert_eq!((rows[1].published, rows[1].withdrawn), (START_MS / 1000, None));
        assert_eq!(bench.operator.releases(Some(&other)).expect("releases"), rows[1..]);
        let row = bench.operator.device(device).expect("readable").expect("known");
        assert_eq!(row.newest, None);
        assert!(matches!(
            bench.operator.withdraw(first.offer.release),
            Err(OperatorError::Conflict { what: Subject::Release, .. })
        ));
        assert!(matches!(
            bench.operator.withdraw(ReleaseId([9; 16])),
            Err(OperatorError::NotFound { what: Subject::Release })
        ));
    });
}

#[test]
fn what_cannot_be_offered_is_not_published() {
    on_each(|bench| {
        let (owner, _) = bench.owner('a');
        let (other, _) = bench.owner('b');
        let theirs = bench.register(other, "5CCF7F000001");
        let good = || release(owner, Target::All);
        for (wrong, reason) in [
            (NewRelease { version: String::new(), ..good() }, "the version is empty"),
            (NewRelease { version: "1\"".to_owned(), ..good() }, "the version contains"),
            (NewRelease { version: "1\\".to_owned(), ..good() }, "the version contains"),
            (NewRelease { version: "1\n".to_owned(), ..good() }, "the version contains"),
            (NewRelease { version: "1".repeat(65), ..good() }, "at most 64 bytes"),
            (NewRelease { version: "{1}".to_owned(), ..good() }, "the version would be"),
            (NewRelease { version: "registration".to_owned(), ..good() }, "misunderstood"),
            (NewRelease { platform: String::new(), ..good() }, "the platform is empty"),
            (NewRelease { platform: "a\u{0}".to_owned(), ..good() }, "the platform contains"),
            (NewRelease { env_hash: Some(String::new()), ..good() }, "hash is empty"),
        ] {
            let refused = publish(&bench.operator, wrong).expect_err(reason);
            assert!(matches!(refused, OperatorError::Invalid { .. }), "{refused:?}");
            assert!(refused.to_string().contains(reason), "{refused}");
        }
        let nobody = OwnerId::parse(&"0".repeat(64)).expect("an owner id");
        assert!(matches!(
            publish(&bench.operator, release(nobody, Target::All)),
            Err(OperatorError::NotFound { what: Subject::Owner })
        ));
        let foreign = publish(&bench.operator, release(owner, Target::Device(theirs)));
        let Err(error @ OperatorError::Conflict { what: Subject::Device, .. }) = foreign else {
            panic!("{foreign:?}");
        };
        assert!(error.to_string().contains("another owner"), "{error}");
        assert!(bench.operator.releases(None).expect("releases").is_empty());
        if bench.has_tables() {
            let images = bench.directory.path().join("images");
            let images = std::fs::read_dir(images).expect("readable");
            assert_eq!(images.count(), 1, "only where they are written aside");
        }
        publish(&bench.operator, good()).expect("published");
    });
}

#[test]
fn a_device_is_shown_as_it_is() {
    on_each(|bench| {
        let (owner, _) = bench.owner('a');
        let said = CheckIn { mac: Mac::parse("SIGFOX1A2B"), alias: Some(alias("a")), ..check_in() };
        let device = bench.record(recording(owner, None, Some(said))).expect("new").device;
        let newest = publish(&bench.operator, release(owner, Target::Device(device)));
        let newest = newest.expect("published").offer;
        bench.reopen();
        let row = bench.operator.device(device).expect("readable").expect("known");
        let expected = DeviceRow {
            udid: device,
            owner,
            alias: alias("a"),
            mac: Mac::parse("SIGFOX1A2B"),
            platform: Some("arduino:esp8266".into()),
            version: Some("1.0.0".into()),
            env_hash: None,
            auto_update: false,
            registered: START_MS / 1000,
            last_seen: START_MS / 1000,
            facts: "{\"version\":\"1.0.0\"}".into(),
            push: None,
            offered: None,
            newest: Some(newest),
        };
        assert_eq!(row, expected);
        assert_eq!(bench.operator.devices(&DeviceFilter::default()).expect("readable"), [expected]);
    });
}
