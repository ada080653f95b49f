//! A connection, driven by any calls in any order.

use std::sync::OnceLock;
use std::time::Duration;

use bytes::Bytes;
use otter_protocol::{
    Answer, DeviceStanding, Grant, KeyStanding, QueryId, Recorded, Redemption, Standing,
};

use super::Input;
use crate::scene::{DEVICE, device};
use crate::{Exchange, Sample, Scene, samples};

/// Laws 2 to 10: whatever a driver calls in whatever order, with any bytes, answers and times,
/// nothing panics or hangs, [`Watched`](crate::Watched) finds no law broken, the connection closes
/// in the end, and the same calls once more give the same outputs.
///
/// The bytes are calls: see `OPS`.
///
/// # Panics
/// If that is not so.
pub fn connection(bytes: &[u8]) {
    let first = run(bytes);
    assert_eq!(first, run(bytes), "law 10: the same calls, other outputs");
}

/// How many calls there are: the first byte of a call modulo this says which one it is.
pub(super) const OPS: u8 = 18;

fn run(bytes: &[u8]) -> Vec<String> {
    let mut driven = Driven::new();
    let mut input = Input(bytes);
    for _ in 0..CALLS_MAX {
        if input.is_empty() {
            break;
        }
        driven.step(&mut input);
        driven.note();
    }
    driven.end();
    driven.transcript
}

struct Driven {
    exchange: Exchange,
    is_asked: bool,
    transcript: Vec<String>,
}

impl Driven {
    fn new() -> Self {
        Self { exchange: scene().exchange(), is_asked: false, transcript: Vec::new() }
    }

    fn step(&mut self, input: &mut Input<'_>) {
        let now = self.exchange.clock.now();
        match input.byte() % OPS {
            0 => self.exchange.input(input.bytes(usize::MAX)),
            1 => self.exchange.input(&sample(input.byte()).bytes),
            2 => {
                let bytes = &sample(input.byte()).bytes;
                self.exchange.input(&bytes[..input.number() % bytes.len()]);
            }
            3 => {
                let mut bytes = sample(input.byte()).bytes.clone();
                let at = input.number() % bytes.len();
                bytes[at] = input.byte();
                self.exchange.input(&bytes);
            }
            4 => self.is_asked |= self.exchange.ask().is_some(),
            5 => self.answer(None),
            6 => self.answer(Some(Answer::Unavailable)),
            7 => self.answer(Some(nonsense(input.byte()))),
            8 => {
                let id = QueryId(1000 + u32::from(input.byte()));
                self.exchange.peer.answer(now, id, Answer::Kept);
            }
            9 => {
                self.exchange.take(input.number() % 6000);
            }
            10 => {
                self.exchange.peer.take_vectored(now, input.number() % 6000);
            }
            11 => self.exchange.advance(Duration::from_millis(input.number() as u64)),
            12 => self.exchange.peer.timeout(now),
            13 => self.deadline(),
            14 => self.exchange.eof(),
            15 => self.exchange.peer.reset(now),
            16 => self.exchange.peer.shutdown(now),
            _ => {
                self.answer(None);
                self.exchange.settle();
            }
        }
    }

    /// Answers what was asked; `None`: as the store does.
    fn answer(&mut self, answer: Option<Answer<Bytes>>) {
        match answer {
            _ if !std::mem::take(&mut self.is_asked) => {}
            Some(answer) => self.exchange.answer(answer),
            None => self.exchange.answer_truly(),
        }
    }

    fn deadline(&mut self) {
        if self.exchange.deadline().is_some() {
            self.exchange.expire();
        }
    }

    fn note(&mut self) {
        let heard = self.exchange.heard();
        let deadline = self.exchange.deadline();
        self.transcript.push(format!("{} {:?} {deadline:?}", heard.text(), heard.queries));
    }

    fn end(&mut self) {
        self.answer(None);
        let reason = self.exchange.close();
        self.transcript.push(format!("{reason:?} {:?}", self.exchange.peer.reports()));
    }
}

/// What no store would answer to this, or not now.
fn nonsense(which: u8) -> Answer<Bytes> {
    let standing = |key, device| Answer::Standing(Standing { key, device, newest: None });
    match which % 12 {
        0 => Answer::Kept,
        1 => Answer::Claimed(false),
        2 => Answer::Claimed(true),
        3 => Answer::Recorded(None),
        4 => Answer::Release(None),
        5 => Answer::Redemption(Redemption::Nothing),
        6 => Answer::Redemption(Redemption::Unknown),
        7 => standing(KeyStanding::Wrong, DeviceStanding::Foreign),
        8 => standing(KeyStanding::Valid, DeviceStanding::Foreign),
        9 => standing(KeyStanding::Valid, DeviceStanding::Unknown),
        10 => standing(KeyStanding::Wrong, DeviceStanding::Unknown),
        _ => {
            let (device, alias) = (device(DEVICE), otter_protocol::Alias::invented(device(DEVICE)));
            Answer::Recorded(Some(Recorded { device, alias, auto_update: true, token: None }))
        }
    }
}

fn sample(which: u8) -> &'static Sample {
    let samples = all();
    &samples[usize::from(which) % samples.len()]
}

/// The scene in which tokens are redeemed has all that the others ask for as well.
fn scene() -> &'static Scene {
    static SCENE: OnceLock<Scene> = OnceLock::new();
    SCENE.get_or_init(|| {
        let sample = all().iter().find(|sample| sample.name == "redeem").expect("a sample");
        let mut scene = sample.scene.clone().with_auto_update();
        let grant: Grant = scene.grant(None);
        scene.store.issue(device(DEVICE), grant);
        scene
    })
}

pub(super) fn all() -> &'static [Sample] {
    static SAMPLES: OnceLock<Vec<Sample>> = OnceLock::new();
    SAMPLES.get_or_init(samples)
}

/// More than any input needs; each may cost a deadline.
const CALLS_MAX: usize = 400;
