//! The rule of docs/token.md, searched to its end, and the rejected rules, each with the shortest
//! way to a broken promise. The stories say why the rule is what it is.
//!
//! `cargo test -p otter-tests --test token_model -- --nocapture` prints how many states there are.
//! Larger worlds: the same with `--release`, and `--ignored` before `--nocapture`.

use otter_tests::token_model::{Promise, Rule, TokenModel, Waits, story};
use stateright::{Checker, Model};

const PROMISES: [Promise; 4] =
    [Promise::OneImage, Promise::AttemptsAreFree, Promise::DeadlineStays, Promise::NoIsTrue];

/// The shortest way to what is asked, as a story; `None` if there is none.
fn shortest(model: &TokenModel, promise: Promise) -> Option<Vec<String>> {
    let checker = model.clone().asked(promise).checker().spawn_bfs().join();
    checker.discoveries().into_values().next().map(|path| story(model.rule, path))
}

/// By promise: how many steps it takes to break it. One search finds which are broken at all.
fn lengths(model: &TokenModel) -> [Option<usize>; 4] {
    let all = TokenModel { promises: PROMISES.to_vec(), ..model.clone() };
    let broken = all.checker().spawn_bfs().join().discoveries();
    PROMISES.map(|promise| {
        broken.get(promise.name())?;
        shortest(model, promise).map(|steps| steps.len())
    })
}

/// Breaks `promise` in the way that is told, and no other way is shorter.
fn breaks(model: &TokenModel, promise: Promise, told: &str) {
    let told: Vec<&str> = told.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    assert_eq!(shortest(model, promise).as_deref().unwrap_or_default(), told, "{promise:?}");
}

/// Searches all states: every promise is kept, and everything that should be possible is.
fn keeps(name: &str, model: TokenModel, states: usize) {
    let checker = model.checker().spawn_bfs().join();
    eprintln!(
        "{name}: {} states, {} steps between them, at most {} deep",
        checker.unique_state_count(),
        checker.state_count(),
        checker.max_depth(),
    );
    checker.assert_properties();
    assert_eq!(checker.unique_state_count(), states, "{name}: docs/token.md names the number");
}

/// Otter's rule in the smallest world that has all of its troubles.
fn held() -> TokenModel {
    TokenModel { nameless: true, ..TokenModel::new(Rule::HoldTheTail) }
}

/// One client is enough to see what a failover does.
fn alone() -> TokenModel {
    TokenModel { clients: 1, lines: 1, ..TokenModel::new(Rule::HoldTheTail) }
}

/// All but the deadline, which a failover may move back unless first attempts wait as well.
fn without_deadline(model: TokenModel) -> TokenModel {
    let mut promises = model.promises.clone();
    promises.retain(|promise| *promise != Promise::DeadlineStays);
    TokenModel { promises, ..model }
}

#[test]
fn the_rule_holds_over_breaks_restarts_and_lost_answers() {
    keeps("connections", TokenModel { lines: 3, ..held() }, 85_622);
}

#[test]
fn the_rule_holds_over_deadlines() {
    keeps("deadlines", TokenModel { hours: 3, ..held() }, 23_867);
}

#[test]
fn the_rule_holds_over_replaced_tokens() {
    keeps("replaced tokens", TokenModel { tokens: 2, ..held() }, 52_077);
}

#[test]
fn the_rule_holds_over_a_failover_with_replicated_claims() {
    let model = held().with_failover(1, Waits::Claims(1));
    keeps("one replica, claims wait", without_deadline(model), 167_454);
    let model = TokenModel { lines: 1, ..held().with_failover(2, Waits::Claims(2)) };
    keeps("two replicas, claims wait for both", without_deadline(model), 18_524);
}

#[test]
fn with_first_attempts_replicated_the_deadline_holds_too() {
    let model = TokenModel { lines: 1, ..held().with_failover(1, Waits::ClaimsAndStarts(1)) };
    keeps("one replica, deadlines", TokenModel { hours: 3, ..model }, 12_257);
    let model = TokenModel { lines: 1, ..held().with_failover(2, Waits::ClaimsAndStarts(2)) };
    keeps("two replicas, all wait for both", model, 7_013);
}

#[test]
#[ignore = "half a minute with --release; for changes of the rule or of the model"]
fn the_rule_holds_in_larger_worlds() {
    keeps("three clients", TokenModel { clients: 3, lines: 3, ..held() }, 447_794);
    let replaced = TokenModel { tokens: 2, hours: 3, ..held() };
    keeps("replaced tokens and deadlines", replaced, 974_282);
    let model = held().with_failover(1, Waits::ClaimsAndStarts(1));
    keeps("one replica, all wait", model, 114_605);
    let model = held().with_failover(2, Waits::Claims(2));
    keeps(
        "two connections, two replicas, claims wait for both",
        without_deadline(model),
        1_447_623,
    );
}

/// What it costs never to give the image twice: nobody knows of a claim whose answer is lost.
#[test]
fn a_token_can_be_spent_in_vain() {
    breaks(
        &TokenModel::new(Rule::HoldTheTail),
        Promise::CanBeSpentInVain,
        "client 0 asks server 0 for all by token 0
         store 0 carries out the start for client 0
         server 0 hears yes to the start for client 0
         server 0 sends the prefix to client 0
         store 0 carries out the claim for client 0
         server 0 hears nothing of the claim for client 0
         client 0 reads the prefix",
    );
}

/// THiNX' rule.
#[test]
fn never_deleted_gives_the_image_to_everybody() {
    breaks(
        &TokenModel::new(Rule::NeverDelete),
        Promise::OneImage,
        "client 0 asks server 0 for all by token 0
         client 1 asks server 0 for all by token 0
         store 0 carries out the start for client 0
         server 0 hears yes to the start for client 0
         server 0 sends prefix and tail to client 0
         client 0 reads prefix and tail
         store 0 carries out the start for client 1
         server 0 hears yes to the start for client 1
         server 0 sends prefix and tail to client 1
         client 1 reads prefix and tail",
    );
}

/// The removal after the last write is on its way while the next one begins.
#[test]
fn deleted_after_the_last_write_is_too_late() {
    breaks(
        &TokenModel::new(Rule::DeleteAfterLastWrite),
        Promise::OneImage,
        "client 0 asks server 0 for all by token 0
         client 1 asks server 0 for all by token 0
         store 0 carries out the start for client 0
         server 0 hears yes to the start for client 0
         server 0 sends prefix and tail to client 0
         client 0 reads prefix and tail
         store 0 carries out the start for client 1
         server 0 hears yes to the start for client 1
         server 0 sends prefix and tail to client 1
         client 1 reads prefix and tail",
    );
}

/// The lease of a server that stopped is given back, and the client had it all.
#[test]
fn a_lease_that_is_given_back_was_used() {
    breaks(
        &TokenModel::new(Rule::LeaseGivenBackOnReset),
        Promise::OneImage,
        "client 0 asks server 0 for all by token 0
         client 1 asks server 1 for all by token 0
         store 0 carries out the start for client 0
         server 0 hears yes to the start for client 0
         server 0 sends prefix and tail to client 0
         client 0 reads prefix and tail
         server 0 restarts
         store 0 carries out the start for client 1
         server 1 hears yes to the start for client 1
         server 1 sends prefix and tail to client 1
         client 1 reads prefix and tail",
    );
}

/// Not a byte has left.
#[test]
fn deleted_at_the_start_makes_every_attempt_the_last() {
    breaks(
        &TokenModel::new(Rule::DeleteAtStart),
        Promise::AttemptsAreFree,
        "client 0 asks server 0 for all by token 0
         store 0 carries out the start for client 0",
    );
}

/// The second try finds the token gone, by the first one. The device is cut off, and the log says
/// that somebody else had its image.
#[test]
fn a_replayed_claim_loses_against_itself() {
    breaks(
        &TokenModel::new(Rule::ReplayedClaim),
        Promise::NoIsTrue,
        "client 0 asks server 0 for all by token 0
         store 0 carries out the start for client 0
         server 0 hears yes to the start for client 0
         server 0 sends the prefix to client 0
         store 0 carries out the claim for client 0
         server 0 sends again the claim for client 0
         store 0 carries out the claim for client 0",
    );
}

/// "It was gone, so my first try must have removed it": it was client 1's that did.
#[test]
fn a_replay_that_is_trusted_gives_the_tail_twice() {
    breaks(
        &TokenModel::new(Rule::TrustedReplay),
        Promise::OneImage,
        "client 0 asks server 0 for all by token 0
         client 1 asks server 0 for all by token 0
         store 0 carries out the start for client 0
         server 0 hears yes to the start for client 0
         server 0 sends the prefix to client 0
         server 0 sends again the claim for client 0
         store 0 carries out the start for client 1
         server 0 hears yes to the start for client 1
         server 0 sends the prefix to client 1
         store 0 carries out the claim for client 1
         store 0 carries out the claim for client 0
         server 0 hears no to the claim for client 0
         server 0 sends the tail to client 0
         client 0 reads prefix and tail
         server 0 hears yes to the claim for client 1
         server 0 sends the tail to client 1
         client 1 reads prefix and tail",
    );
}

/// Neither claim reached the store.
#[test]
fn an_unknown_claim_is_no_claim() {
    breaks(
        &TokenModel::new(Rule::UnknownIsSuccess),
        Promise::OneImage,
        "client 0 asks server 0 for all by token 0
         client 1 asks server 0 for all by token 0
         store 0 carries out the start for client 0
         server 0 hears yes to the start for client 0
         server 0 sends the prefix to client 0
         server 0 hears nothing of the claim for client 0
         server 0 sends the tail to client 0
         client 0 reads prefix and tail
         store 0 carries out the start for client 1
         server 0 hears yes to the start for client 1
         server 0 sends the prefix to client 1
         server 0 hears nothing of the claim for client 1
         server 0 sends the tail to client 1
         client 1 reads prefix and tail",
    );
}

/// Why `token.replicas` exists: the replica never heard of the claim. The same is true of a disk
/// that lacks the last second.
#[test]
fn a_failover_forgets_a_claim_that_nobody_waited_for() {
    breaks(
        &alone().with_failover(1, Waits::Never),
        Promise::OneImage,
        "client 0 asks server 0 for all by token 0
         store 0 carries out the start for client 0
         server 0 hears yes to the start for client 0
         server 0 sends the prefix to client 0
         store 0 carries out the claim for client 0
         server 0 hears yes to the claim for client 0
         server 0 sends the tail to client 0
         client 0 reads prefix and tail
         store 1 becomes the primary
         server 0 turns to the new primary
         client 0 asks server 0 for all by token 0
         store 1 carries out the start for client 0
         server 0 hears yes to the start for client 0
         server 0 sends the prefix to client 0
         store 1 carries out the claim for client 0
         server 0 hears yes to the claim for client 0
         server 0 sends the tail to client 0
         client 0 reads prefix and tail",
    );
}

/// Why it must be the number of all replicas that may be promoted: store 1 confirmed, store 2
/// became the primary.
#[test]
fn a_failover_forgets_a_claim_that_another_replica_confirmed() {
    breaks(
        &alone().with_failover(2, Waits::Claims(1)),
        Promise::OneImage,
        "client 0 asks server 0 for all by token 0
         store 0 carries out the start for client 0
         server 0 hears yes to the start for client 0
         server 0 sends the prefix to client 0
         store 0 carries out the claim for client 0
         store 1 copies
         replicas confirm the claim for client 0
         server 0 hears yes to the claim for client 0
         server 0 sends the tail to client 0
         client 0 reads prefix and tail
         store 2 becomes the primary
         server 0 turns to the new primary
         client 0 asks server 0 for all by token 0
         store 2 carries out the start for client 0
         server 0 hears yes to the start for client 0
         server 0 sends the prefix to client 0
         store 2 carries out the claim for client 0
         store 0 becomes a replica of the new primary
         replicas confirm the claim for client 0
         server 0 hears yes to the claim for client 0
         server 0 sends the tail to client 0
         client 0 reads prefix and tail",
    );
}

/// What waiting for claims alone leaves: the first hour begins anew at the next attempt.
#[test]
fn a_failover_forgets_a_first_attempt() {
    breaks(
        &alone().with_failover(1, Waits::Claims(1)),
        Promise::DeadlineStays,
        "client 0 asks server 0 for all by token 0
         store 0 carries out the start for client 0
         store 1 becomes the primary",
    );
}

/// The tables of docs/token.md.
#[test]
fn the_rules_beside_each_other() {
    let of = |rule| lengths(&TokenModel::new(rule));
    assert_eq!(of(Rule::HoldTheTail), [None, None, None, None]);
    assert_eq!(of(Rule::NeverDelete), [Some(10), None, None, None]);
    assert_eq!(of(Rule::DeleteAfterLastWrite), [Some(10), None, None, None]);
    assert_eq!(of(Rule::LeaseGivenBackOnReset), [Some(11), None, None, None]);
    assert_eq!(of(Rule::DeleteAtStart), [None, Some(2), None, None]);
    assert_eq!(of(Rule::ReplayedClaim), [None, None, None, Some(7)]);
    assert_eq!(of(Rule::TrustedReplay), [Some(17), None, None, Some(7)]);
    assert_eq!(of(Rule::UnknownIsSuccess), [Some(14), None, None, None]);
}

/// The same over a failover.
#[test]
fn the_waits_beside_each_other() {
    let of = |replicas, waits| lengths(&alone().with_failover(replicas, waits));
    assert_eq!(of(1, Waits::Never), [Some(18), None, Some(3), None]);
    assert_eq!(of(1, Waits::Claims(1)), [None, None, Some(3), None]);
    assert_eq!(of(1, Waits::ClaimsAndStarts(1)), [None; 4]);
    assert_eq!(of(2, Waits::Claims(1)), [Some(22), None, Some(3), None]);
    assert_eq!(of(2, Waits::Claims(2)), [None, None, Some(3), None]);
    assert_eq!(of(2, Waits::ClaimsAndStarts(2)), [None; 4]);
}
