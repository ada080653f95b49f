//! Guard rails: when an update that is due is not offered after all (docs/wire.md 2.4 and 5).
//!
//! Libraries 2.9 and 3.x retry a failed download in every turn of their main loop, and a release
//! that does not boot brings the device back with its old version for ever. Both end here.

use std::time::Duration;

use crate::config::Config;
use crate::id::ReleaseId;
use crate::query::Offered;

/// What is to be done about an update that is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Advice {
    /// Offer it, and keep this.
    Offer(Offered),
    /// Leave the device alone; keep this, if it is something new.
    HoldBack(Option<Offered>),
}

/// What the check-in says of the last offer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Aftermath {
    /// The status is an updater's error text.
    pub(crate) failed: bool,
    /// The reported version differs from the one before.
    pub(crate) other_version: bool,
}

/// Decides, from the state that the last check-in left, at `unix` seconds.
pub(crate) fn advise(
    before: Option<Offered>,
    release: ReleaseId,
    aftermath: Aftermath,
    unix: u64,
    config: &Config,
) -> Advice {
    let fresh = Offered { release, times: 0, failures: 0, quiet_until: 0 };
    let mut state = match before {
        Some(before) if before.release == release && !aftermath.other_version => before,
        Some(_) | None => return Advice::Offer(Offered { times: 1, ..fresh }),
    };
    // What is further away than any back-off was set by a clock that has been set back since.
    if unix < state.quiet_until && state.quiet_until - unix <= BACKOFF_MAX.as_secs() {
        return Advice::HoldBack(None);
    }
    // A failure counts once per offer: the text may stand in the status long after.
    if aftermath.failed && state.quiet_until == 0 {
        let backoff = config.failure_backoff.as_secs() << u32::from(state.failures).min(16);
        state.failures = state.failures.saturating_add(1);
        state.quiet_until = unix + backoff.clamp(1, BACKOFF_MAX.as_secs());
        return Advice::HoldBack(Some(state));
    }
    if state.times >= config.offers_max {
        return Advice::HoldBack(None);
    }
    Advice::Offer(Offered { times: state.times + 1, quiet_until: 0, ..state })
}

/// Is this status, as it was sent, the error text of a core's HTTP updater, which the libraries
/// pass on?
#[inline]
pub(crate) fn tells_failure(status: &[u8]) -> bool {
    // Each check-in is asked, and few begin with any of those letters.
    let may_tell = status.first().is_some_and(|first| FAILURE_INITIALS >> (first % 32) & 1 == 1);
    may_tell && FAILURES.iter().any(|failure| begins_with(status, failure.as_bytes()))
}

fn begins_with(status: &[u8], failure: &[u8]) -> bool {
    status.get(..failure.len()).is_some_and(|start| start.eq_ignore_ascii_case(failure))
}

/// Do these libraries act on the `auto_update` of the last OK reply only? True for 2.x before 2.9
/// and for 3.x (docs/wire.md 2.3); `firmware` is `<name>:<version>[:<date>]`.
pub(crate) fn trusts_last_ok_only(firmware: &str) -> bool {
    match library_version(firmware) {
        Some((2, minor)) => minor < 9,
        Some((major, _)) => major == 3,
        None => false,
    }
}

/// Does this library download from a host of its own unless it is given a whole `url`? True for
/// 2.3.x (docs/wire.md 2.6).
pub(crate) fn has_fixed_host(firmware: &str) -> bool {
    library_version(firmware) == Some((2, 3))
}

/// Major and minor of a `thinx` library; a user's own firmware says nothing about its library.
fn library_version(firmware: &str) -> Option<(u32, u32)> {
    let (name, version) = firmware.split_once(':')?;
    let mut parts = version.split('.');
    let thinx = name.get(..5).is_some_and(|start| start.eq_ignore_ascii_case("thinx"));
    if !thinx { None } else { Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?)) }
}

const BACKOFF_MAX: Duration = Duration::from_secs(24 * 3600);

/// How the error texts begin (ESP8266 and ESP32 cores, and the libraries' prefixes).
const FAILURES: [&str; 18] = [
    "update error",
    "error[",
    "http error",
    "file not found (404)",
    "forbidden (403)",
    "unauthorized (401)",
    "wrong http code",
    "wrong md5",
    "verify bin header failed",
    "new binary does not fit",
    "not enough space",
    "too less space",
    "server did not report size",
    "partition could not be found",
    "stream read timeout",
    "flash config wrong",
    "flash read failed",
    "flash write failed",
];

/// One bit for each letter that an error text begins with; the cases differ in a higher bit.
const FAILURE_INITIALS: u32 = {
    let (mut initials, mut at) = (0, 0);
    while at < FAILURES.len() {
        initials |= 1 << (FAILURES[at].as_bytes()[0] % 32);
        at += 1;
    }
    initials
};

#[cfg(test)]
mod tests {
    use super::*;

    const RELEASE: ReleaseId = ReleaseId([1; 16]);
    const CALM: Aftermath = Aftermath { failed: false, other_version: false };
    const FAILED: Aftermath = Aftermath { failed: true, other_version: false };

    fn state(times: u8, failures: u8, quiet_until: u64) -> Offered {
        Offered { release: RELEASE, times, failures, quiet_until }
    }

    #[test]
    fn the_table_of_cases() {
        use Advice::{HoldBack, Offer};
        let config = Config::default();
        let other = Offered { release: ReleaseId([2; 16]), ..state(8, 3, 9_999) };
        let moved = Aftermath { failed: false, other_version: true };
        for (before, aftermath, advice) in [
            (None, CALM, Offer(state(1, 0, 0))),
            (None, FAILED, Offer(state(1, 0, 0))),
            (Some(other), FAILED, Offer(state(1, 0, 0))),
            (Some(state(1, 0, 0)), CALM, Offer(state(2, 0, 0))),
            (Some(state(7, 0, 0)), CALM, Offer(state(8, 0, 0))),
            // the same offer too often: a boot loop, until the version changes
            (Some(state(8, 0, 0)), CALM, HoldBack(None)),
            (Some(state(8, 0, 0)), moved, Offer(state(1, 0, 0))),
            // a failure: quiet for 10 min, then 20, 40, ...
            (Some(state(1, 0, 0)), FAILED, HoldBack(Some(state(1, 1, 1_600)))),
            (Some(state(2, 1, 0)), FAILED, HoldBack(Some(state(2, 2, 2_200)))),
            (Some(state(3, 2, 0)), FAILED, HoldBack(Some(state(3, 3, 3_400)))),
            (Some(state(3, 200, 0)), FAILED, HoldBack(Some(state(3, 201, 87_400)))),
            // a hot loop meanwhile keeps nothing
            (Some(state(1, 1, 1_600)), FAILED, HoldBack(None)),
            (Some(state(1, 1, 1_001)), CALM, HoldBack(None)),
            // over: offered again, although the status still tells of the old failure
            (Some(state(1, 1, 1_000)), FAILED, Offer(state(2, 1, 0))),
            (Some(state(1, 1, 999)), CALM, Offer(state(2, 1, 0))),
            // a back-off never lasts longer than a day: beyond that, the clock was set back
            (Some(state(1, 1, 87_400)), CALM, HoldBack(None)),
            (Some(state(1, 1, 87_401)), CALM, Offer(state(2, 1, 0))),
            (Some(state(1, 1, u64::MAX)), FAILED, Offer(state(2, 1, 0))),
        ] {
            let found = advise(before, RELEASE, aftermath, 1_000, &config);
            assert_eq!(found, advice, "{before:?} {aftermath:?}");
        }
    }

    #[test]
    fn error_texts_of_the_updaters_are_known() {
        for failure in [
            "File Not Found (404)",
            "Update error: ERROR[7]: New Binary Does Not Fit Flash Size",
            "Wrong MD5",
            "Not Enough space",
            "HTTP error: connection refused",
        ] {
            assert!(tells_failure(failure.as_bytes()), "{failure}");
        }
        for failure in FAILURES {
            for cased in [failure.to_owned(), failure.to_uppercase()] {
                assert!(tells_failure(cased.as_bytes()), "{cased}");
            }
        }
        for fine in ["Registered", "OK", "", "connected", "\u{e9}\u{e9}", "updated", "HTTP"] {
            assert!(!tells_failure(fine.as_bytes()), "{fine}");
        }
    }

    #[test]
    fn libraries_are_told_apart() {
        for (firmware, old, fixed_host) in [
            ("thinx-lib-esp8266-arduino:2.3.184", true, true),
            ("thinx-lib-esp8266-arduino:2.3.184:2018-01-01", true, true),
            ("thinx-firmware-esp8266:3.0.270", true, false),
            ("thinx-lib-esp32-arduino:2.9.450", false, false),
            ("THiNX32:2.10.1", false, false),
            ("my-own:2.3.4", false, false),
            ("thinx", false, false),
            ("thinx:", false, false),
            ("thinx:2", false, false),
            ("thinx:x.3", false, false),
            ("thinx:2.x", false, false),
            ("", false, false),
        ] {
            assert_eq!(trusts_last_ok_only(firmware), old, "{firmware}");
            assert_eq!(has_fixed_host(firmware), fixed_host, "{firmware}");
        }
    }
}
