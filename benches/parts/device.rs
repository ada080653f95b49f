//! `core`: what devices ask, from the first byte to the last, with a store that answers at once.

use std::hint::black_box;
use std::sync::Arc;

use bytes::Bytes;
use criterion::{Criterion, Throughput};
use otter_paths::{PATHS, Peer, Shop, request};
use otter_protocol::{
    Alias, Answer, Device, DeviceId, DeviceStanding, KeyStanding, Kind, Mac, Offer, Query,
    Recorded, Redemption, Release, ReleaseId, Standing, Token,
};

pub(crate) fn core(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("core");
    group.throughput(Throughput::Elements(1));
    for path in PATHS.iter().filter(|path| !path.name.starts_with("TLS")) {
        let mut round = (path.make)().expect("a store in memory");
        group.bench_function(path.name, |bencher| bencher.iter(&mut round));
    }
    let shop = Shop::open(1).expect("a store in memory");
    let request = request::check_in(&shop, "2.9.0");
    let mut peer = Peer::<Bytes, _>::new(offering(&Bytes::new()));
    assert!(peer.hear(&request).windows(5).any(|text| text == b"\"ott\""), "no offer");
    group.bench_function("offer", |bencher| bencher.iter(|| peer.say(black_box(&request))));

    let image = Bytes::from(vec![0xe9; IMAGE_BYTES]);
    let request = format!("GET /device/firmware?ott={} HTTP/1.0\r\n\r\n", "5".repeat(64));
    group.throughput(Throughput::Bytes(IMAGE_BYTES as u64));
    for (name, bytes) in [
        ("download-of-1-MiB/whole", usize::MAX),
        ("download-of-1-MiB/by-16-KiB", 16 * 1024),
        ("download-of-1-MiB/by-1460", 1460),
    ] {
        let mut peer = Peer::new(offering(&image));
        peer.taken_bytes_max = bytes;
        assert!(peer.say(request.as_bytes()) > IMAGE_BYTES, "a part is missing");
        group.bench_function(name, |bencher| bencher.iter(|| peer.say(request.as_bytes())));
    }
    group.finish();
}

/// A store that knows one device, offers it this image, and lets a token be claimed again and
/// again.
pub(crate) fn offering(image: &Bytes) -> impl FnMut(Query) -> Answer<Bytes> + use<> {
    let offer = Arc::new(offer("2.9.450", image.len()));
    let release = Release { offer: Arc::clone(&offer), image: image.clone() };
    let (id, alias) = (DEVICE, Alias::invented(DEVICE));
    let device = Device {
        id,
        alias,
        mac: Mac::parse("5CCF7F3D8F2A"),
        auto_update: true,
        version: Some("2.9.0".into()),
        env_hash: None,
        digest: 0,
        told_auto_update: true,
        seen: 0,
        offered: None,
    };
    move |query| match query {
        Query::Identify(_) => Answer::Standing(Standing {
            key: KeyStanding::Valid,
            device: DeviceStanding::Known(device.clone()),
            newest: Some(Arc::clone(&offer)),
        }),
        Query::Record(_) => Answer::Recorded(Some(Recorded {
            device: id,
            alias,
            auto_update: true,
            token: Some(Token([7; 32])),
        })),
        Query::Fetch { .. } => Answer::Release(Some(release.clone())),
        Query::Redeem { .. } | Query::Start { .. } => Answer::Redemption(Redemption::Ready {
            device: id,
            release: release.clone(),
            started: true,
            forced: false,
        }),
        Query::Push { .. } => Answer::Kept,
        Query::Claim { .. } => Answer::Claimed(true),
    }
}

pub(crate) fn offer(version: &str, size: usize) -> Offer {
    Offer {
        release: ReleaseId([7; 16]),
        version: version.into(),
        platform: "arduino".into(),
        env_hash: None,
        sha256: [1; 32],
        md5: [2; 16],
        size: size as u64,
        kind: Kind::Image,
    }
}

const IMAGE_BYTES: usize = 1 << 20;
/// As [`request::check_in`] names it.
const DEVICE: DeviceId = DeviceId(0x5ccf_7fee_1337_4000_8000_0000_0000_0001_u128.to_be_bytes());
