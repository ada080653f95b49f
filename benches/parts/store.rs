//! `store`: questions in batches, as drivers ask them in one turn, of both stores that keep all in
//! memory. What `embedded` writes is synced: those rows are what the disk takes.

use std::sync::Arc;
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use criterion::measurement::WallTime;
use criterion::{BatchSize, BenchmarkGroup, Criterion, Throughput};
use otter_protocol::{
    Answer, ApiKey, CheckIn, DeviceId, Grant, Identify, Kind, Mac, OwnerId, Query, Record, Token,
};
use otter_store::{
    Embedded, EmbeddedOptions, Image, Memory, MemoryOptions, NewRelease, Operator, Store, Target,
    Ticket, Wake,
};
use otter_tests::Random;

pub(crate) fn store(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("store");
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = |name: &str| directory.path().join(name);
    let memory = Memory::open(&path("memory"), MemoryOptions::default()).expect("opened");
    measure(&mut group, "memory", &memory.operator(), |wake| memory.store(wake));
    let options = EmbeddedOptions::default();
    let embedded = Embedded::open(&path("embedded"), options).expect("opened");
    measure(&mut group, "embedded", &embedded.operator(), |wake| embedded.store(wake));
    embedded.close();
    group.finish();
}

fn measure<S: Store<Image = Image>>(
    group: &mut BenchmarkGroup<'_, WallTime>,
    name: &str,
    operator: &Operator,
    store: impl FnOnce(Wake) -> S,
) {
    let key = populate(operator);
    let mut asker = Asker::new(store);
    for first in (0..DEVICES).step_by(500) {
        asker.ask((first..first + 500).map(|number| record(number, 0, None)));
    }
    let mut random = Random::new(7);
    for batch in [1, 16, 64] {
        group.throughput(Throughput::Elements(batch));
        // None twice: a newer token of the same device would take the place of an older one.
        let mut numbers = || {
            let first = random.below(DEVICES);
            (0..batch).map(|place| (first + place * APART) % DEVICES).collect::<Vec<_>>()
        };
        group.bench_function(format!("{name}/identify/{batch}"), |bencher| {
            bencher.iter_batched(
                &mut numbers,
                |numbers| asker.ask(numbers.into_iter().map(|number| identify(key, number))).len(),
                BatchSize::SmallInput,
            );
        });
        let mut time = batch << 32;
        group.bench_function(format!("{name}/record/{batch}"), |bencher| {
            bencher.iter_batched(
                &mut numbers,
                |numbers| {
                    time += 1;
                    asker.ask(numbers.into_iter().map(|number| record(number, time, None))).len()
                },
                BatchSize::SmallInput,
            );
        });
        group.bench_function(format!("{name}/redeem-and-claim/{batch}"), |bencher| {
            bencher.iter_custom(|count| {
                (0..count).map(|_| redeem_and_claim(&mut asker, &numbers())).sum()
            });
        });
    }
}

/// An owner with a key and a release.
fn populate(operator: &Operator) -> ApiKey {
    operator.create_owner(Some(owner())).expect("created");
    let release = NewRelease {
        owner: owner(),
        target: Target::All,
        version: "2.0.0".to_owned(),
        platform: PLATFORM.to_owned(),
        env_hash: None,
        kind: Kind::Image,
        source: None,
    };
    let staged = operator.stage(&mut &[7; 100_000][..], 1 << 20).expect("staged");
    operator.publish(release, staged, &|_, _, _| true).expect("published");
    operator.create_key(&owner(), "measured").expect("created").key
}

/// How long that took, once tokens were there.
fn redeem_and_claim<S: Store<Image = Image>>(asker: &mut Asker<S>, numbers: &[u64]) -> Duration {
    let day = Duration::from_secs(24 * 3600);
    let grant = Grant { release: None, forced: false, unused: day, used: day, transfer: day };
    let granted = asker.ask(numbers.iter().map(|number| record(*number, 1, Some(grant))));
    let tokens: Vec<Token> = granted
        .iter()
        .filter_map(|answer| match answer {
            Answer::Recorded(Some(recorded)) => recorded.token,
            Answer::Standing(_)
            | Answer::Release(_)
            | Answer::Redemption(_)
            | Answer::Recorded(None)
            | Answer::Kept
            | Answer::Claimed(_)
            | Answer::Unavailable => None,
        })
        .collect();
    assert_eq!(tokens.len(), numbers.len(), "a token is missing");
    let begun = std::time::Instant::now();
    asker.ask(tokens.iter().map(|token| Query::Redeem { token: *token }));
    let claimed = asker.ask(tokens.iter().map(|token| Query::Claim { token: *token }));
    let took = begun.elapsed();
    assert!(claimed.iter().all(|answer| matches!(answer, Answer::Claimed(true))), "not claimed");
    took
}

/// One thread's side of a store, and its bell.
struct Asker<S> {
    store: S,
    bell: Receiver<()>,
    queries: Vec<(Ticket, Query)>,
    answers: Vec<(Ticket, Answer<Image>)>,
}

impl<S: Store<Image = Image>> Asker<S> {
    fn new(store: impl FnOnce(Wake) -> S) -> Self {
        let (ring, bell) = mpsc::channel();
        let store = store(Arc::new(move || {
            let _ = ring.send(());
        }));
        Self { store, bell, queries: Vec::new(), answers: Vec::new() }
    }

    /// Asks all in one turn and waits for all answers.
    fn ask(&mut self, queries: impl Iterator<Item = Query>) -> Vec<Answer<Image>> {
        self.queries.extend(queries.map(|query| (Ticket(0), query)));
        let asked = self.queries.len();
        self.store.submit(&mut self.queries);
        loop {
            self.store.collect(&mut self.answers);
            if self.answers.len() >= asked {
                break;
            }
            self.bell.recv_timeout(Duration::from_secs(60)).expect("an answer");
        }
        self.answers.drain(..).map(|(_, answer)| answer).collect()
    }
}

/// A check-in with other facts at each time.
fn record(number: u64, time: u64, grant: Option<Grant>) -> Query {
    let facts = format!(
        "{{\"mac\":\"{number:012X}\",\"firmware\":\"thinx-lib-esp8266-arduino:{time}\",\
         \"status\":\"Registered\",\"commit\":\"52e5b0dcb2ef8e1a41bc8c7d2ea8ce7ddc72fa4b\"}}"
    );
    let check_in = CheckIn {
        mac: Mac::from_bits(number),
        alias: None,
        version: Some("1.0.0".into()),
        platform: Some(PLATFORM.into()),
        env_hash: None,
        facts: facts.into(),
        digest: number ^ time << 24,
        told_auto_update: false,
    };
    let (device, check_in) = (Some(device(number)), Some(check_in));
    Query::Record(Box::new(Record { owner: owner(), device, check_in, offered: None, grant }))
}

fn identify(key: ApiKey, number: u64) -> Query {
    let (owner, device) = (Some(owner()), Some(device(number)));
    Query::Identify(Identify { owner, key, device, mac: Mac::from_bits(number) })
}

/// Ids that look random and can be made again.
fn device(number: u64) -> DeviceId {
    let spread = u128::from(number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
    DeviceId(spread.to_be_bytes())
}

fn owner() -> OwnerId {
    OwnerId::parse(&"0123456789abcdef".repeat(4)).expect("an owner id")
}

const DEVICES: u64 = 10_000;
/// Has no factor in common with their number.
const APART: u64 = 7_919;
const PLATFORM: &str = "arduino:esp8266";
