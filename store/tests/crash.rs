//! `kill -9` at random moments: what was acknowledged is there, what was claimed once is never
//! claimed again.
//!
//! `OTTER_KILLS=200 cargo test -p otter-store --test crash` tries harder than the default of 10.

mod common;

use std::collections::{HashMap, HashSet};
use std::env;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use common::{Desk, check_in, grant, recording};
use otter_protocol::{
    Answer, ApiKey, CheckIn, DeviceId, DeviceStanding, Identify, Kind, Mac, OwnerId, Query, Record,
    Redemption, ReleaseId, Token,
};
use otter_store::{Embedded, EmbeddedOptions, Image, NewRelease, Operator, Target};

#[test]
fn nothing_acknowledged_is_lost_and_nothing_is_claimed_twice() {
    let kills = env::var("OTTER_KILLS").ok().and_then(|kills| kills.parse().ok()).unwrap_or(10);
    let directory = tempfile::tempdir().expect("a directory");
    let mut random = seed();
    let mut said = Said::default();
    for kill in 0..kills {
        let before = said.devices.len();
        run_and_kill(directory.path(), kill, Duration::from_micros(random() % 200_000), &mut said);
        check(directory.path(), &mut said);
        println!("kill {kill}: {} more devices acknowledged", said.devices.len() - before);
    }
    println!(
        "{} devices, {} tokens, {} claims, {} keys, {} releases acknowledged over {kills} kills",
        said.devices.len(),
        said.tokens.len(),
        said.claimed.len(),
        said.keys.len(),
        said.releases.len(),
    );
    assert!(!said.devices.is_empty() && !said.claimed.is_empty());
}

/// What the children said before they were killed.
#[derive(Default)]
struct Said {
    key: Option<ApiKey>,
    devices: HashMap<DeviceId, Mac>,
    tokens: HashSet<[u8; 32]>,
    /// A claim was on its way: it may have succeeded without an answer.
    claiming: HashSet<[u8; 32]>,
    claimed: HashSet<[u8; 32]>,
    keys: HashSet<[u8; 32]>,
    releases: HashSet<ReleaseId>,
}

impl Said {
    fn hear(&mut self, line: &str) {
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["@key", key] => self.key = ApiKey::parse(key.as_bytes()),
            ["@device", udid, mac] => {
                let mac = mac.parse().ok().and_then(Mac::from_bits).expect("a MAC");
                self.devices.insert(DeviceId::parse(udid).expect("an id"), mac);
            }
            ["@token", token] => {
                self.tokens.insert(bytes(token));
            }
            ["@claiming", token] => {
                self.claiming.insert(bytes(token));
            }
            ["@claimed", token] => {
                assert!(self.claimed.insert(bytes(token)), "claimed twice");
            }
            ["@hash", hash] => {
                self.keys.insert(bytes(hash));
            }
            ["@release", release] => {
                self.releases.insert(ReleaseId::parse(release).expect("an id"));
            }
            _ => assert!(!line.starts_with('@'), "{line}"),
        }
    }
}

fn run_and_kill(directory: &Path, round: u64, after: Duration, said: &mut Said) {
    let mut child = Command::new(env::current_exe().expect("this test"))
        .args(["--exact", "writes_until_it_is_killed", "--nocapture"])
        .env(DIRECTORY, directory)
        .env(ROUND, round.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .expect("started");
    let mut output = BufReader::new(child.stdout.take().expect("piped"));
    while !hear_line(&mut output, said).expect("the child said something") {}
    thread::scope(|scope| {
        scope.spawn(|| {
            // The moment is what this test is about; nothing waits for it.
            thread::sleep(after);
            child.kill().expect("killed");
            child.wait().expect("ended");
        });
        while hear_line(&mut output, said).is_some() {}
    });
}

/// Says whether the next line was one of ours; `None` at the end. A line without its end is a word
/// that was cut off, and was not said.
fn hear_line(output: &mut impl BufRead, said: &mut Said) -> Option<bool> {
    let mut line = String::new();
    output.read_line(&mut line).expect("readable");
    let line = line.strip_suffix('\n')?;
    said.hear(line);
    Some(line.starts_with('@'))
}

fn check(directory: &Path, said: &mut Said) {
    let store = Embedded::open(directory, EmbeddedOptions::default()).expect("opens at once");
    let operator = store.operator();
    let mut desk = Desk::new(|wake| store.store(wake));
    let keys: HashSet<[u8; 32]> =
        operator.keys(None).expect("keys").iter().map(|key| key.hash).collect();
    assert!(said.keys.is_subset(&keys), "an acknowledged key is lost");
    for release in &said.releases {
        let answer = desk.ask(Query::Fetch { release: *release });
        let Answer::Release(Some(release)) = answer else { panic!("a release is lost") };
        assert!(release.image.as_ref().iter().all(|byte| *byte == 7), "an image is torn");
    }
    let (devices, macs): (Vec<_>, Vec<_>) = said.devices.iter().unzip();
    let key = said.key.expect("the first thing that is said");
    let identify = |device| Identify { owner: Some(owner()), key, device: Some(device), mac: None };
    let known = desk.ask_all(devices.iter().map(|d| Query::Identify(identify(*d))).collect());
    for (answer, mac) in known.iter().zip(macs) {
        let Answer::Standing(standing) = answer else { panic!("{answer:?}") };
        let DeviceStanding::Known(device) = &standing.device else { panic!("a device is lost") };
        assert_eq!(device.mac, Some(mac));
    }
    let tokens: Vec<Token> = said.tokens.iter().map(|token| Token(*token)).collect();
    let redeemed = desk.ask_all(tokens.iter().map(|t| Query::Redeem { token: *t }).collect());
    for (token, answer) in tokens.iter().zip(redeemed) {
        let alive = matches!(answer, Answer::Redemption(Redemption::Ready { .. }));
        if said.claimed.contains(&token.0) {
            assert!(!alive, "a claimed token lives");
        } else if !said.claiming.contains(&token.0) {
            assert!(alive, "a token is lost");
        }
    }
    let claims = said.claiming.iter().map(|token| Query::Claim { token: Token(*token) });
    let claims = desk.ask_all(claims.collect());
    for (token, answer) in said.claiming.iter().zip(claims) {
        if matches!(answer, Answer::Claimed(true)) {
            assert!(said.claimed.insert(*token), "claimed twice");
        }
    }
}

/// The child. Says what it is told before it asks for more.
#[test]
fn writes_until_it_is_killed() {
    let Some(directory) = env::var_os(DIRECTORY).map(PathBuf::from) else { return };
    let round: u64 = env::var(ROUND).ok().and_then(|round| round.parse().ok()).unwrap_or(0);
    let store = Embedded::open(&directory, EmbeddedOptions::default()).expect("a store");
    let operator = store.operator();
    if operator.owners().expect("owners").is_empty() {
        operator.create_owner(Some(owner())).expect("a new owner");
    }
    let key = operator.create_key(&owner(), "key").expect("a key");
    say(format!("@key {}\n@hash {}\n", hex(&key.key.0), hex(&key.hash)));
    let mut release = publish(&operator, round);
    let mut desks = [Desk::new(|wake| store.store(wake)), Desk::new(|wake| store.store(wake))];
    for turn in 0_u64.. {
        let size = 1 + turn * 7 % 64;
        let base = (round << 24) + (turn << 8);
        let registrations = (0..size).map(|i| registration(base + i, release));
        let answers = desks[0].ask_all(registrations.collect());
        let tokens = said_of(&answers, base);
        let some: Vec<Token> = tokens.into_iter().step_by(2).collect();
        say(some.iter().map(|token| format!("@claiming {}\n", hex(&token.0))).collect());
        let starts = some.iter().map(|token| Query::Start { token: *token });
        desks[0].ask_all(starts.collect());
        for desk in &mut desks {
            desk.submit(some.iter().map(|token| Query::Claim { token: *token }).collect());
        }
        for desk in &mut desks {
            let answers = desk.answers(some.len());
            let claimed = some.iter().zip(answers);
            let claimed = claimed.filter(|(_, answer)| matches!(answer, Answer::Claimed(true)));
            say(claimed.map(|(token, _)| format!("@claimed {}\n", hex(&token.0))).collect());
        }
        if turn % 16 == 15 {
            let key = operator.create_key(&owner(), "key").expect("a key");
            say(format!("@hash {}\n", hex(&key.hash)));
            release = publish(&operator, round + turn);
        }
    }
}

fn publish(operator: &Operator, length: u64) -> ReleaseId {
    let bytes = vec![7; 5000 + length as usize];
    let staged = operator.stage(&mut &*bytes, 1 << 20).expect("staged");
    let release = NewRelease {
        owner: owner(),
        target: Target::All,
        version: "2.0.0".to_owned(),
        platform: "arduino".to_owned(),
        env_hash: None,
        kind: Kind::Image,
        source: None,
    };
    let published = operator.publish(release, staged, &|_, _, _| true).expect("published");
    say(format!("@release {}\n", published.offer.release));
    published.offer.release
}

fn registration(bits: u64, release: ReleaseId) -> Query {
    let said = CheckIn { mac: Mac::from_bits(bits), digest: bits, ..check_in() };
    let record = recording(owner(), None, Some(said));
    Query::Record(Box::new(Record { grant: Some(grant(Some(release))), ..record }))
}

fn said_of(answers: &[Answer<Image>], base: u64) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut text = String::new();
    for (answer, bits) in answers.iter().zip(base..) {
        let Answer::Recorded(Some(recorded)) = answer else { panic!("{answer:?}") };
        let token = recorded.token.expect("granted");
        text += &format!("@device {} {bits}\n@token {}\n", recorded.device, hex(&token.0));
        tokens.push(token);
    }
    say(text);
    tokens
}

fn say(text: String) {
    std::io::stdout().lock().write_all(text.as_bytes()).expect("heard");
}

fn owner() -> OwnerId {
    OwnerId::parse(&"a".repeat(64)).expect("an owner id")
}

fn hex(bytes: &[u8; 32]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn bytes(text: &str) -> [u8; 32] {
    Token::parse(text.as_bytes()).expect("64 digits").0
}

/// A generator (xorshift) that differs from run to run: the moments of the kills do anyway.
fn seed() -> impl FnMut() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("past 1970");
    let mut state = now.as_nanos() as u64 | 1;
    move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    }
}

const DIRECTORY: &str = "OTTER_CRASH_DIRECTORY";
const ROUND: &str = "OTTER_CRASH_ROUND";
