//! Is this release an update for this device? One pure function and its version rule (docs/wire.md
//! 5).

use std::cmp::Ordering;

use semver::{BuildMetadata, Prerelease, Version};

use crate::query::Offer;

/// What a release is to a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The device should have it.
    Update,
    /// The device has it, or something newer.
    Current,
    /// Devices of this platform do not update from here.
    UnsupportedPlatform,
    /// One of the versions cannot be compared: never offered by itself.
    Incomparable,
}

/// Judges `offer` for a device that reports `version` and `env_hash` (docs/wire.md 5).
///
/// A device that reports no version counts as `0.0.1`. A higher version is an update; for an
/// equal one the environment decides: both hashes present, different, and the device's not the
/// library's default (`cafebabe...`). A lower version never is.
#[must_use]
pub fn judge(offer: &Offer, version: Option<&str>, env_hash: Option<&str>) -> Verdict {
    if !supports(&offer.platform) {
        return Verdict::UnsupportedPlatform;
    }
    let version = version.filter(|version| !version.is_empty()).unwrap_or(UNREPORTED);
    // The steady case: nothing to parse.
    let order = if *offer.version == *version && parse_version(version).is_some() {
        Ordering::Equal
    } else {
        let (Some(offered), Some(installed)) =
            (parse_version(&offer.version), parse_version(version))
        else {
            return Verdict::Incomparable;
        };
        offered.cmp_precedence(&installed)
    };
    let newer = match order {
        Ordering::Greater => true,
        Ordering::Equal => other_environment(offer.env_hash.as_deref(), env_hash),
        Ordering::Less => false,
    };
    if newer { Verdict::Update } else { Verdict::Current }
}

/// Does Otter update devices of this platform? What follows a `:` does not matter.
#[must_use]
pub fn supports(platform: &str) -> bool {
    PLATFORMS.contains(&platform.split(':').next().unwrap_or_default())
}

/// Are devices of this platform never offered anything, whatever is published for them? Node.js
/// devices update themselves and only trip over an offer, SigFox ones cannot (docs/wire.md 2.3, 8).
pub(crate) fn never_offered(platform: &str) -> bool {
    let base = platform.split(':').next().unwrap_or_default();
    base.eq_ignore_ascii_case("nodejs") || base.eq_ignore_ascii_case("sigfox")
}

/// Reads a version as both sides write it: what follows the last `:`, without a leading `v`; one
/// or two parts are padded with zeros, of four or five parts the third and later ones are added
/// up; a prerelease counts as semver says, build metadata does not. `None` for anything else.
#[must_use]
pub fn parse_version(text: &str) -> Option<Version> {
    let text = text.rsplit(':').next()?.trim();
    let text = text.strip_prefix(['v', 'V']).unwrap_or(text);
    let (text, build) = text.split_once('+').map_or((text, ""), |(text, build)| (text, build));
    let (numbers, pre) = text.split_once('-').map_or((text, ""), |(numbers, pre)| (numbers, pre));
    BuildMetadata::new(build).ok()?;
    let mut parts = [0; 3];
    for (i, number) in numbers.split('.').enumerate() {
        let digits = (1..=19).contains(&number.len()) && number.bytes().all(|b| b.is_ascii_digit());
        if !digits || i >= PARTS_MAX {
            return None;
        }
        let part: &mut u64 = &mut parts[i.min(2)];
        // A sum has no more digits than a number that is sent.
        *part = part.checked_add(number.parse().ok()?).filter(|sum| *sum < PART_END)?;
    }
    Some(Version { pre: Prerelease::new(pre).ok()?, ..Version::new(parts[0], parts[1], parts[2]) })
}

fn other_environment(offered: Option<&str>, installed: Option<&str>) -> bool {
    match (offered, installed) {
        (Some(offered), Some(installed)) => {
            let both = !offered.is_empty() && !installed.is_empty();
            both && offered != installed && !installed.starts_with(LIBRARY_DEFAULT)
        }
        (Some(_) | None, _) => false,
    }
}

/// What platforms are updated (docs/wire.md 5), as they stand before a `:`.
pub const PLATFORMS: [&str; 8] = [
    "mongooseos",
    "mongoose",
    "python",
    "micropython",
    "nodemcu",
    "pine64",
    "platformio",
    "arduino",
];

const UNREPORTED: &str = "0.0.1";
const LIBRARY_DEFAULT: &str = "cafebabe";
const PARTS_MAX: usize = 5;
const PART_END: u64 = 10_u64.pow(19);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::ReleaseId;
    use crate::query::Kind;

    fn offer(version: &str, platform: &str, env_hash: Option<&str>) -> Offer {
        Offer {
            release: ReleaseId([1; 16]),
            version: version.into(),
            platform: platform.into(),
            env_hash: env_hash.map(Into::into),
            sha256: [0; 32],
            md5: [0; 16],
            size: 1000,
            kind: Kind::Image,
        }
    }

    #[test]
    fn versions_are_read_alike_on_both_sides() {
        for (text, read) in [
            ("1.2.3", Some("1.2.3")),
            ("v1.2.3", Some("1.2.3")),
            ("repo:1.2.3", Some("1.2.3")),
            ("repo:v1.2.3", Some("1.2.3")),
            ("a:b:1.2.3", Some("1.2.3")),
            ("2", Some("2.0.0")),
            ("1.2", Some("1.2.0")),
            ("repo:1.2", Some("1.2.0")),
            ("repo:7", Some("7.0.0")),
            ("1.2.3.4", Some("1.2.7")),
            ("1.2.3.4.5", Some("1.2.12")),
            ("1.0.0.0", Some("1.0.0")),
            ("1.2.3-rc.1", Some("1.2.3-rc.1")),
            ("1.2.3+build.5", Some("1.2.3")),
            ("1.2.3-rc.1+5", Some("1.2.3-rc.1")),
            ("01.2.3", Some("1.2.3")),
            ("1.2.3.4.5.6", None),
            ("Build-12", None),
            ("repo-1.2.3", None),
            ("", None),
            ("1..2", None),
            ("1.2.x", None),
            ("1.2.3-", Some("1.2.3")),
            ("1.2.3-a..b", None),
            ("99999999999999999999", None),
            ("1.2.9999999999999999999.9999999999999999999", None),
            ("1.2.8884867803814619112.6368372881419097342", None),
            ("1.2.9999999999999999998.1", Some("1.2.9999999999999999999")),
        ] {
            assert_eq!(parse_version(text).map(|v| v.to_string()).as_deref(), read, "{text}");
        }
    }

    #[test]
    fn the_table_of_cases() {
        use Verdict::{Current, Incomparable, UnsupportedPlatform, Update};
        let e = Some("e1");
        for (offered, environment, reported, installed, verdict) in [
            // offered version and environment, reported version and environment
            ("1.0.1", None, Some("1.0.0"), None, Update),
            ("1.0.0", None, Some("1.0.0"), None, Current),
            ("1.0.0", None, Some("1.0.1"), None, Current),
            ("repo:1.2.3", None, Some("1.2.2"), None, Update),
            ("repo:1.2", None, Some("1.2"), None, Current),
            ("repo:1.3", None, Some("1.2"), None, Update),
            ("0.0.1", None, None, None, Current),
            ("0.0.2", None, None, None, Update),
            ("1.0.0", None, Some("1.0.0-rc.1"), None, Update),
            ("1.0.0-rc.2", None, Some("1.0.0-rc.1"), None, Update),
            ("1.0.0-rc.2", None, Some("1.0.0-rc.10"), None, Current),
            ("1.0.0", None, Some("1.0.0+7"), None, Current),
            ("1.0.0.1", None, Some("1.0.0"), None, Update),
            // the environment decides only between equal versions
            ("1.0.0", e, Some("1.0.0"), Some("e2"), Update),
            ("1.0.0", e, Some("1.0.0"), Some("e1"), Current),
            ("1.0.0", e, Some("1.0.0"), None, Current),
            ("1.0.0", None, Some("1.0.0"), Some("e2"), Current),
            ("1.0.0", e, Some("1.0.0"), Some("cafebabe00"), Current),
            ("1.0.0", e, Some("1.0.1"), Some("e2"), Current),
            ("1.0.0", Some(""), Some("1.0.0"), Some("e2"), Current),
            ("1.0.0", e, Some("1.0.0"), Some(""), Current),
            ("0.0.1", None, Some(""), None, Current),
            // what cannot be compared is never offered
            ("Build-12", None, Some("Build-12"), None, Incomparable),
            ("1.0.0", None, Some("Build-12"), None, Incomparable),
            ("Build-12", None, Some("1.0.0"), None, Incomparable),
        ] {
            let offer = offer(offered, "arduino", environment);
            let case = format!("{offered} {environment:?} for {reported:?} {installed:?}");
            assert_eq!(judge(&offer, reported, installed), verdict, "{case}");
        }
        for (platform, verdict) in [
            ("arduino:esp8266", Update),
            ("platformio", Update),
            ("nodemcu", Update),
            ("nodejs", UnsupportedPlatform),
            ("sigfox", UnsupportedPlatform),
            ("", UnsupportedPlatform),
            ("arduinox", UnsupportedPlatform),
        ] {
            assert_eq!(judge(&offer("2.0.0", platform, None), Some("1"), None), verdict);
        }
    }
}
