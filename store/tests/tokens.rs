//! The life of a one-time token (docs/token.md), on a clock that the test holds.

mod common;

use std::time::Duration;

use common::{Bench, HOUR_MS, Redeemed, START_MS, grant, on_each, on_each_with_tables, recording};
use otter_protocol::{DeviceId, Grant, OwnerId, ReleaseId, Token};
use otter_store::{OperatorError, Subject, Target};

const FIRMWARE: &[u8] = b"firmware";

/// An owner, a device, and a release for it.
fn fleet(bench: &mut Bench) -> (OwnerId, DeviceId, ReleaseId) {
    let (owner, _) = bench.owner('a');
    let device = bench.register(owner, "5CCF7F000001");
    let release = bench.publish(owner, Target::All, FIRMWARE).offer.release;
    (owner, device, release)
}

fn ready(release: ReleaseId, started: bool) -> Redeemed {
    Redeemed::Ready { release, bytes: FIRMWARE.to_vec(), started, forced: false }
}

#[test]
fn a_token_gives_its_image_once() {
    on_each(|bench| {
        let (owner, device, release) = fleet(bench);
        let token = bench.grant(owner, device, grant(Some(release)));
        for _ in 0..2 {
            assert_eq!(bench.redeem(token), ready(release, false), "HEAD starts nothing");
        }
        assert_eq!(bench.start(token), ready(release, true));
        assert_eq!(bench.redeem(token), ready(release, true));
        bench.reopen();
        assert_eq!(bench.redeem(token), ready(release, true));
        assert!(bench.claim(token));
        assert!(!bench.claim(token));
        bench.reopen();
        assert!(!bench.claim(token));
        assert_eq!(bench.redeem(token), Redeemed::Unknown);
        assert_eq!(bench.start(token), Redeemed::Unknown);
        assert_eq!(bench.redeem(Token([9; 32])), Redeemed::Unknown);
        assert!(!bench.claim(Token([9; 32])));
    });
}

#[test]
fn an_untouched_token_lives_24_hours() {
    on_each(|bench| {
        let (owner, device, release) = fleet(bench);
        let token = bench.grant(owner, device, grant(Some(release)));
        bench.advance(24 * HOUR_MS - 1);
        assert_eq!(bench.redeem(token), ready(release, false));
        bench.reopen();
        bench.advance(1);
        assert_eq!(bench.redeem(token), Redeemed::Unknown);
        assert_eq!(bench.start(token), Redeemed::Unknown);
    });
}

#[test]
fn the_first_attempt_shortens_the_deadline_once() {
    on_each(|bench| {
        let (owner, device, release) = fleet(bench);
        let token = bench.grant(owner, device, grant(Some(release)));
        bench.advance(HOUR_MS);
        assert_eq!(bench.start(token), ready(release, true));
        bench.advance(HOUR_MS - 1);
        assert_eq!(bench.start(token), ready(release, true), "a second attempt extends nothing");
        bench.reopen();
        assert_eq!(bench.redeem(token), ready(release, true));
        bench.advance(1);
        assert_eq!(bench.redeem(token), Redeemed::Unknown);
        assert_eq!(bench.start(token), Redeemed::Unknown);
    });
}

#[test]
fn a_late_first_attempt_does_not_lengthen_the_deadline() {
    on_each(|bench| {
        let (owner, device, release) = fleet(bench);
        let token = bench.grant(owner, device, grant(Some(release)));
        bench.advance(24 * HOUR_MS - 1000);
        assert_eq!(bench.start(token), ready(release, true));
        bench.advance(999);
        assert_eq!(bench.redeem(token), ready(release, true));
        bench.advance(1);
        assert_eq!(bench.redeem(token), Redeemed::Unknown);
    });
}

#[test]
fn a_transfer_under_way_may_claim_for_a_while_after_the_deadline() {
    on_each(|bench| {
        let (owner, device, release) = fleet(bench);
        let transfer_ms = 900_000;
        for (late_ms, claimed) in [(0, true), (transfer_ms - 1, true), (transfer_ms, false)] {
            let token = bench.grant(owner, device, grant(Some(release)));
            bench.start(token);
            bench.advance(HOUR_MS + late_ms);
            assert_eq!(bench.redeem(token), Redeemed::Unknown);
            bench.reopen();
            assert_eq!(bench.claim(token), claimed, "{late_ms} ms late");
        }
    });
}

#[test]
fn a_clock_that_is_set_back_revives_nothing() {
    on_each(|bench| {
        let (owner, device, release) = fleet(bench);
        let token = bench.grant(owner, device, grant(Some(release)));
        bench.start(token);
        bench.advance(2 * HOUR_MS);
        assert_eq!(bench.redeem(token), Redeemed::Unknown);
        assert!(!bench.claim(token));
        bench.set_clock(START_MS);
        assert_eq!(bench.redeem(token), Redeemed::Unknown);
        bench.reopen();
        assert_eq!(bench.redeem(token), Redeemed::Unknown);
        assert!(!bench.claim(token));
        let fresh = bench.grant(owner, device, grant(Some(release)));
        assert_eq!(bench.redeem(fresh), ready(release, false), "issued at the time that stands");
    });
}

#[test]
fn a_newer_token_replaces_one_that_nobody_tried() {
    on_each(|bench| {
        let (owner, device, release) = fleet(bench);
        let first = bench.grant(owner, device, grant(Some(release)));
        let second = bench.grant(owner, device, grant(Some(release)));
        assert_eq!(bench.redeem(first), Redeemed::Unknown);
        assert!(!bench.claim(first));
        assert_eq!(bench.redeem(second), ready(release, false));
        bench.assert_open(1);
        assert_eq!(bench.operator.stats().tokens_replaced_total, 1);
    });
}

#[test]
fn a_replaced_token_keeps_the_claim_of_its_transfer() {
    on_each(|bench| {
        let (owner, device, release) = fleet(bench);
        let first = bench.grant(owner, device, grant(Some(release)));
        bench.start(first);
        let second = bench.grant(owner, device, grant(Some(release)));
        bench.reopen();
        assert_eq!(bench.redeem(first), Redeemed::Unknown);
        assert_eq!(bench.start(first), Redeemed::Unknown);
        assert!(bench.claim(first));
        assert!(!bench.claim(first));
        assert_eq!(bench.redeem(second), ready(release, false));
        assert!(bench.claim(second));
    });
}

#[test]
fn a_replaced_token_cannot_be_claimed_for_ever() {
    on_each(|bench| {
        let (owner, device, release) = fleet(bench);
        let first = bench.grant(owner, device, grant(Some(release)));
        bench.start(first);
        bench.grant(owner, device, grant(Some(release)));
        bench.advance(HOUR_MS + 900_000);
        assert!(!bench.claim(first));
    });
}

#[test]
fn a_device_keeps_eight_replaced_tokens_and_no_more() {
    on_each(|bench| {
        let (owner, device, release) = fleet(bench);
        let tokens: Vec<Token> = (0..10)
            .map(|_| {
                bench.advance(1);
                let token = bench.grant(owner, device, grant(Some(release)));
                bench.start(token);
                token
            })
            .collect();
        let claimed: Vec<bool> = tokens.iter().map(|token| bench.claim(*token)).collect();
        assert_eq!(claimed, [&[false][..], &[true; 9]].concat(), "the oldest made way");
        assert_eq!(bench.operator.stats().tokens_replaced_total, 9);
    });
}

#[test]
fn tokens_for_different_releases_live_side_by_side() {
    on_each(|bench| {
        let (owner, device, release) = fleet(bench);
        let first = bench.grant(owner, device, grant(Some(release)));
        let newer = bench.publish(owner, Target::All, b"newer").offer.release;
        let second = bench.grant(owner, device, grant(Some(newer)));
        assert_eq!(bench.redeem(first), ready(release, false), "what was offered is delivered");
        let Redeemed::Ready { release, bytes, .. } = bench.redeem(second) else { panic!() };
        assert_eq!((release, bytes.as_slice()), (newer, &b"newer"[..]));
    });
}

#[test]
fn an_unbound_token_binds_at_its_first_attempt_and_keeps_to_it() {
    on_each(|bench| {
        let (owner, _) = bench.owner('a');
        let device = bench.register(owner, "5CCF7F000001");
        let token = bench.grant(owner, device, Grant { forced: true, ..grant(None) });
        assert_eq!(bench.redeem(token), Redeemed::Nothing);
        assert_eq!(bench.start(token), Redeemed::Nothing);
        bench.advance(2 * HOUR_MS);
        assert_eq!(bench.redeem(token), Redeemed::Nothing, "that was no attempt");
        let first = bench.publish(owner, Target::All, FIRMWARE).offer.release;
        let ready = |release, bytes: &[u8], started| Redeemed::Ready {
            release,
            bytes: bytes.to_vec(),
            started,
            forced: true,
        };
        assert_eq!(bench.redeem(token), ready(first, FIRMWARE, false));
        let second = bench.publish(owner, Target::All, b"newer").offer.release;
        assert_eq!(bench.redeem(token), ready(second, b"newer", false), "not bound yet");
        assert_eq!(bench.start(token), ready(second, b"newer", true));
        bench.publish(owner, Target::All, b"newest");
        bench.reopen();
        assert_eq!(bench.start(token), ready(second, b"newer", true));
        assert!(bench.claim(token));
    });
}

#[test]
fn a_withdrawn_release_gives_nothing_but_a_transfer_under_way_finishes() {
    on_each(|bench| {
        let (owner, device, release) = fleet(bench);
        let token = bench.grant(owner, device, grant(Some(release)));
        bench.start(token);
        assert!(bench.fetch(release).is_some());
        bench.operator.withdraw(release).expect("withdrawn");
        bench.reopen();
        assert!(bench.fetch(release).is_none());
        assert_eq!(bench.redeem(token), Redeemed::Nothing);
        assert_eq!(bench.start(token), Redeemed::Nothing);
        assert!(bench.claim(token));
    });
}

#[test]
fn operators_issue_and_revoke_tokens() {
    on_each(|bench| {
        let (owner, device, release) = fleet(bench);
        let issued = bench.operator.issue_token(device, &grant(None)).expect("issued");
        assert_eq!(issued.release, Some(release), "the newest");
        assert_eq!(issued.expires, START_MS / 1000 + 24 * 3600);
        assert_eq!(bench.redeem(issued.token), ready(release, false));
        bench.operator.revoke_token(&issued.token).expect("revoked");
        bench.reopen();
        assert_eq!(bench.redeem(issued.token), Redeemed::Unknown);
        assert!(!bench.claim(issued.token));
        let again = bench.operator.revoke_token(&issued.token);
        assert!(matches!(again, Err(OperatorError::NotFound { what: Subject::Token })));

        let started = bench.grant(owner, device, grant(Some(release)));
        bench.start(started);
        let open = bench.operator.issue_token(device, &grant(Some(release))).expect("issued");
        assert_eq!(bench.operator.revoke_tokens(device).expect("revoked"), 2);
        assert!(!bench.claim(started), "a transfer under way ends too");
        assert!(!bench.claim(open.token));
        assert_eq!(
            bench.operator.stats().tokens_revoked_total,
            2 + u64::from(!bench.was_reopened())
        );
    });
}

#[test]
fn operators_issue_only_what_the_device_may_have() {
    on_each(|bench| {
        let (owner, device, release) = fleet(bench);
        let (other, _) = bench.owner('b');
        let foreign = bench.publish(other, Target::All, b"foreign").offer.release;
        let issue = |bench: &Bench, device, release| {
            bench.operator.issue_token(device, &grant(release)).map(|issued| issued.release)
        };
        let nobody = DeviceId([9; 16]);
        assert!(matches!(
            issue(bench, nobody, None),
            Err(OperatorError::NotFound { what: Subject::Device })
        ));
        for unknown in [foreign, ReleaseId([9; 16])] {
            assert!(matches!(
                issue(bench, device, Some(unknown)),
                Err(OperatorError::NotFound { what: Subject::Release })
            ));
        }
        bench.operator.withdraw(release).expect("withdrawn");
        assert!(matches!(
            issue(bench, device, Some(release)),
            Err(OperatorError::Conflict { what: Subject::Release, .. })
        ));
        assert_eq!(issue(bench, device, None).expect("issued"), None, "unbound");
        let newer = bench.publish(owner, Target::All, FIRMWARE).offer.release;
        assert_eq!(issue(bench, device, None).expect("issued"), Some(newer));
    });
}

#[test]
fn what_has_ended_is_removed_by_later_writes() {
    on_each_with_tables(|bench| {
        let (owner, device, release) = fleet(bench);
        let open = bench.grant(owner, device, grant(Some(release)));
        let short = Grant { unused: Duration::from_secs(1), ..grant(Some(ReleaseId([9; 16]))) };
        bench.grant(owner, device, short);
        bench.advance(1000 + 900_000 - 1);
        bench.record(recording(owner, Some(device), None)).expect("known");
        assert_eq!(bench.operator.stats().tokens_open, 2);
        bench.advance(1);
        bench.record(recording(owner, Some(device), None)).expect("known");
        let stats = bench.operator.stats();
        assert_eq!((stats.tokens_open, stats.tokens_expired_total), (1, 1));
        bench.reopen();
        assert_eq!(bench.operator.stats().tokens_open, 1);
        assert_eq!(bench.redeem(open), ready(release, false));
    });
}
