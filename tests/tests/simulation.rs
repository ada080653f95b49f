//! Fleets of model devices against several servers over one store, with faults of every kind: no
//! spliced image, at most one whole image per token, no loop that costs more than its budget, and
//! every honest device ends on the release that it should. A load balancer that knows nothing sends
//! each connection to another server. docs/simulation.md.
//!
//! Each seed is a world of its own. A failure says how to replay it and make it small;
//! `SEEDS=10000` tries more.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::{env, thread};

use otter_protocol::{Handshake, Outcome, Refusal, TlsFailure};
use otter_tests::fleet::{Failure, Fleet, Kind, Story, shrunk};

const SEEDS_DEFAULT: u64 = 1000;
const FAILOVER_SEEDS: u64 = 100;
/// With TLS a seed takes ten times as long.
const TLS_SEEDS: u64 = 12;

/// Lives through so many seeds on all processors, and tells all stories.
fn live(kind: Kind, default: u64) -> Vec<Story> {
    let seeds = env::var("SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(default);
    let (next, stories) = (AtomicU64::new(0), Mutex::new(Vec::new()));
    let threads = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds {
                        return;
                    }
                    let story = story(kind, seed);
                    stories.lock().unwrap_or_else(PoisonError::into_inner).push(story);
                }
            });
        }
    });
    stories.into_inner().unwrap_or_else(PoisonError::into_inner)
}

fn story(kind: Kind, seed: u64) -> Story {
    let fleet = Fleet::of(kind, seed);
    match fleet.run() {
        Ok(story) => story,
        Err(failure) => panic!("{failure}\nmake it small with: {}", fleet.command()),
    }
}

/// The budget of CI is 60 s for this.
#[test]
fn a_thousand_fleets_survive_faults() {
    let stories = live(Kind::Plain, SEEDS_DEFAULT);
    the_worlds_are_eventful(&stories);
}

/// The fleets meet what they are meant to meet: every kind of trouble, and tokens that are
/// redeemed on one server and used up on another.
fn the_worlds_are_eventful(stories: &[Story]) {
    let worlds = stories.len() as u64;
    let sum = |part: fn(&Story) -> u64| stories.iter().map(part).sum::<u64>();
    assert!(sum(|story| story.links) > 50 * worlds);
    assert!(sum(|story| story.tails.0 as u64) > 2 * worlds);
    assert!(sum(|story| story.tails.1 as u64) > worlds / 4, "tokens seen by several servers");
    assert!(sum(|story| story.cut_short) > worlds / 50, "no answer was due when a server stopped");
    let mut befallen = BTreeMap::new();
    let mut outcomes = BTreeMap::new();
    for story in stories {
        for (what, times) in &story.befallen {
            *befallen.entry(*what).or_insert(0) += times;
        }
        for (outcome, times) in &story.outcomes {
            *outcomes.entry(*outcome).or_insert(0) += times;
        }
    }
    for what in [
        "ambush",
        "broken connection",
        "crash",
        "cut off",
        "drain",
        "failover",
        "lost answer",
        "lost segment",
        "publish",
        "reboot",
        "refused query",
        "server clock",
        "stalled query",
        "store clock",
        "withdraw",
    ] {
        let times = befallen.get(what).copied().unwrap_or_default();
        assert!(times > worlds / 10, "{what} befalls {worlds} worlds {times} times: {befallen:?}");
    }
    for outcome in [
        Outcome::Delivered,
        Outcome::Ranged,
        Outcome::Aborted,
        Outcome::Unclaimed,
        Outcome::HeldBack,
        Outcome::NotModified,
        Outcome::Refused(Refusal::BadBody),
        Outcome::Refused(Refusal::DeadToken),
        Outcome::Refused(Refusal::Malformed),
        Outcome::Refused(Refusal::NoRelease),
        Outcome::Refused(Refusal::TooSlow),
        Outcome::Refused(Refusal::Unavailable),
        Outcome::Refused(Refusal::WrongKey),
    ] {
        assert!(outcomes.contains_key(&outcome), "{outcome:?} never happens: {outcomes:?}");
    }
}

/// Law 10 for a whole world: one seed, one trace.
#[test]
fn a_seed_is_a_history() {
    let told = |seed| {
        let Story { trace, steps, links, .. } = story(Kind::Plain, seed);
        (trace, steps, links)
    };
    for seed in 0..5 {
        assert_eq!(told(seed), told(seed), "seed {seed}");
    }
    assert_ne!(told(0), told(1));
}

/// Promise 1 where a replica takes the store's place: a claim is answered once the replica has it.
#[test]
fn replicated_claims_survive_failovers() {
    let stories = live(Kind::Failovers, FAILOVER_SEEDS);
    let failovers = |story: &Story| story.befallen.get("failover").copied().unwrap_or_default();
    assert!(stories.iter().map(failovers).sum::<u64>() > 0);
}

/// The same worlds where nothing waits for the replica: so the law can be broken, and the check
/// sees it.
#[test]
fn claims_that_wait_for_nothing_do_not() {
    planted_failure();
}

/// The first fleet that the planted bug breaks.
fn planted_failure() -> (Fleet, Failure) {
    let broken = (0..SEEDS_DEFAULT).find_map(|seed| {
        let fleet = Fleet::of(Kind::Planted, seed);
        let failure = fleet.run().err()?;
        Some((fleet, failure))
    });
    let (fleet, failure) = broken.expect("a fleet in which a token gives two tails");
    assert!(["law 9", "two images"].contains(&failure.class()), "{failure}");
    (fleet, failure)
}

/// What is left of a failure is small, fails in the same way, and can be replayed.
#[test]
fn a_failure_is_made_small() {
    let (fleet, failure) = planted_failure();
    let (small, small_failure) = shrunk(&fleet, &failure);
    assert_eq!(small_failure.class(), failure.class());
    let (keep, whole) = (small.keep(), fleet.keep());
    assert!(keep.members.len() <= 4, "{keep:?} of {whole:?}");
    assert!(keep.faults.len() <= 4, "{keep:?} of {whole:?}");
    assert!(keep.course.len() <= 6, "{keep:?} of {whole:?}");
    assert!(keep.until <= whole.until && small_failure.steps <= failure.steps);
    let again = fleet.only(keep.clone());
    assert_eq!(again.command(), small.command());
    assert_eq!(again.run().expect_err("it fails again"), small_failure);
    for member in &keep.members {
        let mut less = keep.clone();
        less.members.remove(member);
        let is_needed = fleet.only(less).run().err().map(|f| f.class() == failure.class());
        assert_ne!(is_needed, Some(true), "it fails without member {member}, too");
    }
}

/// The same fleets, faults and laws with TLS beneath. Sessions begin, are taken up again and break
/// in the middle, and tails leave.
#[test]
fn fleets_over_tls_survive_faults() {
    let stories = live(Kind::Tls, TLS_SEEDS);
    let mut handshakes = BTreeMap::new();
    for story in &stories {
        for (handshake, count) in &story.handshakes {
            *handshakes.entry(*handshake).or_insert(0) += count;
        }
    }
    let tails: usize = stories.iter().map(|story| story.tails.0).sum();
    assert!(tails > 20, "{tails} tails");
    for (handshake, count) in [
        (Handshake::Full, 100),
        (Handshake::Resumed, 100),
        (Handshake::Probed, 20),
        (Handshake::Failed(TlsFailure::Abandoned), 1),
    ] {
        let happened = handshakes.get(&handshake).copied().unwrap_or(0);
        assert!(happened >= count, "{handshake:?} happens {happened} times: {handshakes:?}");
    }
}

/// Law 10: plaintext, times and the sizes of ciphertext follow from the seed.
#[test]
fn a_seed_is_a_history_over_tls() {
    let traces = [0, 1].map(|seed| {
        let told = || {
            let Story { trace, steps, links, handshakes, .. } = story(Kind::Tls, seed);
            (trace, steps, links, handshakes)
        };
        let first = told();
        assert_eq!(first, told());
        first.0
    });
    assert_ne!(traces[0], traces[1]);
}

/// Law 9 is seen to be broken through TLS, too.
#[test]
fn claims_over_tls_that_wait_for_nothing_do_not() {
    let broken = (0..SEEDS_DEFAULT).find_map(|seed| {
        let mut world = Fleet::of(Kind::Planted, seed).world();
        world.protect(seed, 100);
        let run = std::panic::AssertUnwindSafe(|| world.run(otter_tests::fleet::UNREST));
        std::panic::catch_unwind(run).err()
    });
    let panic = broken.expect("a fleet in which a token gives two tails");
    let text = panic.downcast_ref::<String>().map(String::as_str).unwrap_or_default();
    assert!(text.contains("law 9") || text.contains("two images"), "{text}");
}
