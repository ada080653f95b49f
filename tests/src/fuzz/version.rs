//! Versions, and whether one is an update for the other.

use std::cmp::Ordering;

use otter_protocol::update::{Verdict, judge, parse_version, supports};
use otter_protocol::{Kind, Offer, ReleaseId};

/// What is read as a version reads the same when it is written; precedence is an order; of two
/// versions at most one is an update for the other, and nothing is one for itself.
///
/// Lines: the offered version, the device's, the two environment hashes, the platform.
///
/// # Panics
/// If that is not so.
pub fn version(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let mut lines = text.split('\n');
    let mut line = || lines.next().unwrap_or_default();
    let (offered, installed, offered_hash, installed_hash) = (line(), line(), line(), line());
    let platform = Some(line()).filter(|text| !text.is_empty()).unwrap_or("arduino:esp8266");
    for text in [offered, installed] {
        let Some(version) = parse_version(text) else { continue };
        let again = parse_version(&version.to_string()).expect("what was read can be read");
        assert_eq!(version, again, "{text:?}");
        let last = text.rsplit(':').next().unwrap_or_default().trim();
        if !last.starts_with(['v', 'V']) {
            let named = format!("repo:v{last}");
            assert_eq!(parse_version(&named), Some(version), "{named:?}");
        }
    }
    let offer = |version: &str| offer(version, platform, offered_hash);
    let verdict = judge(&offer(offered), Some(installed), Some(installed_hash));
    let back = judge(&offer(installed), Some(offered), Some(installed_hash));
    assert_eq!(verdict == Verdict::UnsupportedPlatform, !supports(platform));
    let same = judge(&offer(offered), Some(offered), Some(offered_hash));
    assert_ne!(same, Verdict::Update, "{offered:?} for itself");
    let (Some(new), Some(old)) = (parse_version(offered), parse_version(installed)) else {
        let is_silent = installed.is_empty() && parse_version(offered).is_some();
        assert!(is_silent || verdict != Verdict::Update, "{offered:?} for {installed:?}");
        return;
    };
    match new.cmp_precedence(&old) {
        Ordering::Greater => {
            assert!(verdict == Verdict::Update || !supports(platform));
            assert_ne!(back, Verdict::Update, "each for the other: {offered:?}, {installed:?}");
        }
        Ordering::Less => assert_ne!(verdict, Verdict::Update, "{offered:?} for {installed:?}"),
        // docs/wire.md 5: two environments that are known, and not the library's default.
        Ordering::Equal => {
            let is_known = !offered_hash.is_empty() && !installed_hash.is_empty();
            let is_own = !installed_hash.starts_with("cafebabe");
            let is_other = is_known && is_own && offered_hash != installed_hash;
            assert_eq!(verdict, back, "equal and not alike");
            assert_eq!(verdict == Verdict::Update, is_other && supports(platform));
        }
    }
}

fn offer(version: &str, platform: &str, env_hash: &str) -> Offer {
    Offer {
        release: ReleaseId([1; 16]),
        version: version.into(),
        platform: platform.into(),
        env_hash: Some(env_hash.into()),
        sha256: [2; 32],
        md5: [3; 16],
        size: 9000,
        kind: Kind::Image,
    }
}
