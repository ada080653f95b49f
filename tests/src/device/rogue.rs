//! Those that do not play by the rules.

use std::time::Duration;

use bytes::Bytes;

use super::{Act, Actor, Event, Haul, Identity};
use crate::image::hex;
use crate::scene::registration;
use crate::{Line, Random, Reply, Request};

/// What a rogue does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mischief {
    /// Checks in and closes without reading.
    ClosesEarly,
    /// Sends a request one byte at a time.
    Dribbles,
    /// Sends a head at once, and its body one byte at a time.
    DribblesBody,
    /// Sends noise.
    Babbles,
    /// Greets with TLS on a plain port and goes.
    Greets,
    /// Redeems a token that it overheard, and reads a few bytes a second.
    ReadsSlowly,
    /// Redeems tokens that it overheard, whole or in parts.
    Steals,
    /// Tries tokens that nobody was given.
    GuessesTokens,
    /// Tries keys that nobody has, with the name of a device that is there.
    GuessesKeys,
    /// Checks in with an empty body, as library 3.x since 2022 (docs/wire.md 2.1).
    PostsNothing,
    /// Sends many requests at once, and ends its side behind them.
    Pipelines,
    /// Opens one connection after another, begins a request or not, and leaves them open.
    Hogs,
}

impl Mischief {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::ClosesEarly,
        Self::Dribbles,
        Self::DribblesBody,
        Self::Babbles,
        Self::Greets,
        Self::ReadsSlowly,
        Self::Steals,
        Self::GuessesTokens,
        Self::GuessesKeys,
        Self::PostsNothing,
        Self::Pipelines,
        Self::Hogs,
    ];

    /// How long it waits before it does something again, in seconds.
    fn pause_s(self) -> (u64, u64) {
        match self {
            Self::Dribbles | Self::DribblesBody => (0, 3),
            Self::ReadsSlowly => (120, 400),
            Self::GuessesTokens | Self::GuessesKeys | Self::Hogs => (5, 60),
            Self::ClosesEarly
            | Self::Babbles
            | Self::Greets
            | Self::Steals
            | Self::PostsNothing
            | Self::Pipelines => (10, 90),
        }
    }
}

/// Somebody who means no good, or is broken.
#[derive(Debug)]
pub struct Rogue {
    mischief: Mischief,
    identity: Identity,
    token: Option<String>,
    received: Vec<u8>,
    hauls: Vec<Haul>,
    to_dribble: Vec<u8>,
    next: Duration,
    off_at: Duration,
    reads_at: Duration,
    random: Random,
}

impl Rogue {
    /// A rogue that is active from the beginning until the time `off_at`.
    #[must_use]
    pub fn new(mischief: Mischief, identity: Identity, off_at: Duration, random: Random) -> Self {
        Self {
            mischief,
            identity,
            token: None,
            received: Vec::new(),
            hauls: Vec::new(),
            to_dribble: Vec::new(),
            next: Duration::ZERO,
            off_at,
            reads_at: Duration::ZERO,
            random,
        }
    }

    fn check_in(&self, key: &str) -> Vec<u8> {
        let fields = registration()
            .text("owner", self.identity.owner.as_str())
            .text("mac", &self.identity.mac_text())
            .without("udid");
        Request::check_in(key, &fields.wrapped("registration")).bytes()
    }

    fn honest_check_in(&self) -> Vec<u8> {
        self.check_in(&self.identity.key_text())
    }

    fn redeem(&mut self, overheard: &[String]) -> Vec<Act> {
        self.received.clear();
        self.token = None;
        if overheard.is_empty() {
            return Vec::new();
        }
        let token = self.random.pick(overheard).clone();
        let request = Request::get(&format!("/device/firmware?ott={token}"));
        self.token = Some(token);
        let start = self.random.below(3000);
        let request = match self.random.below(4) {
            0 => request.header("Range", &format!("bytes={start}-")),
            1 => request.header("Range", &format!("bytes={start}-{}", start + 2000)),
            _ => request,
        };
        vec![Act::Dial, Act::Say(request.bytes())]
    }

    fn dribble(&mut self) -> Vec<Act> {
        if let Some(byte) = self.to_dribble.pop() {
            return vec![Act::Say(vec![byte])];
        }
        let request = self.honest_check_in();
        let head_end = request.windows(4).position(|bytes| bytes == b"\r\n\r\n");
        let head_end = head_end.filter(|_| self.mischief == Mischief::DribblesBody);
        let at_once = head_end.map_or(0, |end| end + 4);
        self.to_dribble = request[at_once..].iter().rev().copied().collect();
        vec![Act::Dial, Act::Say(request[..at_once].to_vec())]
    }

    /// Many requests in one write, of every kind that needs no luck, and the end behind them.
    fn pipeline(&mut self) -> Vec<Act> {
        let mut said = Vec::new();
        for _ in 0..self.random.between(2, 50) {
            let request = match self.random.below(4) {
                0 => Request::get("/").bytes(),
                1 => Request::get("/nowhere").bytes(),
                2 => Request::get(&format!("/device/firmware?ott={}", self.guess())).bytes(),
                _ => {
                    let body = registration().without("owner").wrapped("registration");
                    Request::post("/device/register", &body).chunked(64).bytes()
                }
            };
            said.extend(request);
        }
        let ends = self.random.chance(50);
        let end = if ends { Act::End } else { Act::Say(b"\r\n".to_vec()) };
        vec![Act::Dial, Act::Say(said), end]
    }

    fn hog(&mut self) -> Vec<Act> {
        let said = self.honest_check_in();
        let length = *self.random.pick(&[0, 1, 40, said.len() - 1, said.len()]);
        vec![Act::Dial, Act::Say(said[..length].to_vec()), Act::Leave]
    }

    /// What looks like a token or a key.
    fn guess(&mut self) -> String {
        hex(&self.random.bytes::<32>())
    }

    fn noise(&mut self) -> Vec<u8> {
        let length = self.random.between(1, 3000);
        let printable = self.random.chance(50);
        (0..length)
            .map(|_| self.random.draw() as u8)
            .map(|byte| if printable { b' ' + byte % 95 } else { byte })
            .collect()
    }
}

impl Actor for Rogue {
    fn wake_at(&self) -> Option<Duration> {
        (self.next < self.off_at).then_some(self.next)
    }

    fn wake(&mut self, at: Duration, overheard: &[String]) -> Vec<Act> {
        let (shortest, longest) = self.mischief.pause_s();
        self.next = at + Duration::from_secs(self.random.between(shortest, longest));
        match self.mischief {
            Mischief::ClosesEarly => {
                vec![Act::Dial, Act::Say(self.honest_check_in()), Act::HangUp]
            }
            Mischief::Dribbles | Mischief::DribblesBody => self.dribble(),
            Mischief::Babbles => vec![Act::Dial, Act::Say(self.noise())],
            Mischief::Greets => vec![Act::Dial, Act::Say(HELLO.to_vec()), Act::HangUp],
            Mischief::ReadsSlowly | Mischief::Steals => self.redeem(overheard),
            Mischief::GuessesTokens => {
                let target = format!("/device/firmware?ott={}", self.guess());
                vec![Act::Dial, Act::Say(Request::get(&target).bytes())]
            }
            Mischief::GuessesKeys => {
                let key = self.guess();
                vec![Act::Dial, Act::Say(self.check_in(&key))]
            }
            Mischief::PostsNothing => {
                let request = Request::check_in(&self.identity.key_text(), "");
                vec![Act::Dial, Act::Say(request.bytes())]
            }
            Mischief::Pipelines => self.pipeline(),
            Mischief::Hogs => self.hog(),
        }
    }

    fn hear(&mut self, at: Duration, event: Event<'_>) -> Vec<Act> {
        let Event::Bytes(bytes) = event else { return vec![Act::HangUp] };
        self.received.extend_from_slice(bytes);
        if self.mischief == Mischief::ReadsSlowly {
            self.reads_at = at + Duration::from_secs(1);
        }
        let Some(token) = self.token.clone() else { return Vec::new() };
        let Some((reply, _)) = Reply::parse(&self.received, false) else { return Vec::new() };
        if reply.status == 200 {
            let image = Bytes::from(reply.body);
            self.hauls.push(Haul { token: Some(token), image });
        }
        self.received.clear();
        Vec::new()
    }

    fn read_bytes_max(&self) -> usize {
        if self.mischief == Mischief::ReadsSlowly { 60 } else { usize::MAX }
    }

    fn reads_at(&self) -> Duration {
        self.reads_at
    }

    fn line(&self) -> Line {
        if self.mischief == Mischief::ReadsSlowly {
            Line::ESP8266
        } else {
            Line { cut: true, ..Line::WIDE }
        }
    }

    fn hauls(&self) -> &[Haul] {
        &self.hauls
    }
}

const HELLO: &[u8] = b"\x16\x03\x01\x00\x2e\x01\x00\x00\x2a\x03\x03\
    abcdefghijklmnopqrstuvwxyz012345\0\0\x04\xc0\x2b\xc0\x2f\x01\0";
