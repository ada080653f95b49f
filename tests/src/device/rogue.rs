//! Those that do not play by the rules.

use std::time::Duration;

use bytes::Bytes;

use super::{Act, Actor, Event, Haul, Identity};
use crate::scene::registration;
use crate::{Line, Random, Reply, Request};

/// What a rogue does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mischief {
    /// Checks in and closes without reading.
    ClosesEarly,
    /// Sends a request one byte at a time.
    Dribbles,
    /// Sends noise.
    Babbles,
    /// Greets with TLS on a plain port and goes.
    Greets,
    /// Redeems a token that it overheard, and reads a few bytes a second.
    ReadsSlowly,
    /// Redeems tokens that it overheard, whole or in parts.
    Steals,
}

impl Mischief {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::ClosesEarly,
        Self::Dribbles,
        Self::Babbles,
        Self::Greets,
        Self::ReadsSlowly,
        Self::Steals,
    ];
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

    fn check_in(&self) -> Vec<u8> {
        let fields = registration()
            .text("owner", self.identity.owner.as_str())
            .text("mac", &self.identity.mac_text())
            .without("udid");
        Request::check_in(&self.identity.key_text(), &fields.wrapped("registration")).bytes()
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
        match self.to_dribble.pop() {
            Some(byte) => vec![Act::Say(vec![byte])],
            None => {
                self.to_dribble = self.check_in();
                self.to_dribble.reverse();
                vec![Act::Dial]
            }
        }
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
        let seconds = match self.mischief {
            Mischief::Dribbles => self.random.between(0, 3),
            Mischief::ReadsSlowly => self.random.between(120, 400),
            Mischief::ClosesEarly | Mischief::Babbles | Mischief::Greets | Mischief::Steals => {
                self.random.between(10, 90)
            }
        };
        self.next = at + Duration::from_secs(seconds);
        match self.mischief {
            Mischief::ClosesEarly => {
                vec![Act::Dial, Act::Say(self.check_in()), Act::HangUp]
            }
            Mischief::Dribbles => self.dribble(),
            Mischief::Babbles => vec![Act::Dial, Act::Say(self.noise())],
            Mischief::Greets => vec![Act::Dial, Act::Say(HELLO.to_vec()), Act::HangUp],
            Mischief::ReadsSlowly | Mischief::Steals => self.redeem(overheard),
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
        match self.mischief {
            Mischief::ReadsSlowly => Line::ESP8266,
            Mischief::ClosesEarly
            | Mischief::Dribbles
            | Mischief::Babbles
            | Mischief::Greets
            | Mischief::Steals => Line { cut: true, ..Line::WIDE },
        }
    }

    fn hauls(&self) -> &[Haul] {
        &self.hauls
    }
}

const HELLO: &[u8] = b"\x16\x03\x01\x00\x2e\x01\x00\x00\x2a\x03\x03\
    abcdefghijklmnopqrstuvwxyz012345\0\0\x04\xc0\x2b\xc0\x2f\x01\0";
