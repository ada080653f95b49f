//! A client and the core with a store, in one hand, and all ciphertext between them in view.

use std::sync::Arc;
use std::time::Duration;

use otter_protocol::CloseReason;
use rustls::{ClientConfig, ServerConfig};

use super::{Client, Record, Terms, records};
use crate::{Clock, ModelStore, Scene, Watched};

/// One connection over TLS, from its beginning.
///
/// ```
/// use otter_tests::{Scene, tls::{Session, Terms}};
/// let mut session = Session::new(&Scene::new(), &Terms::default());
/// let answer = session.request(b"GET / HTTP/1.1\r\nHost: otter\r\n\r\n");
/// assert!(answer.ends_with(b"{\"healthcheck\":true}"));
/// ```
#[derive(Debug)]
pub struct Session {
    /// The connection; its bytes are ciphertext.
    pub peer: Watched,
    /// The client.
    pub client: Client,
    /// The store behind the connection.
    pub store: ModelStore,
    /// The one clock.
    pub clock: Clock,
    /// Most bytes of ciphertext that arrive at once.
    pub piece_bytes: usize,
    /// Most bytes of ciphertext that the socket takes at once.
    pub take_bytes_max: usize,
    /// All that the server sent since somebody looked.
    down: Vec<u8>,
}

impl Session {
    /// A connection to a copy of this service; nothing has been said.
    #[must_use]
    pub fn new(scene: &Scene, terms: &Terms) -> Self {
        Self::with(scene, &terms.server(), &terms.client())
    }

    /// The same, with settings that others have, too.
    #[must_use]
    pub fn with(scene: &Scene, server: &Arc<ServerConfig>, client: &Arc<ClientConfig>) -> Self {
        let clock = Clock::start();
        let config = Arc::new(scene.config.on_another_line());
        Self {
            peer: Watched::tls(config, Arc::clone(server), clock.now()),
            client: Client::new(Arc::clone(client)),
            store: scene.store.clone(),
            clock,
            piece_bytes: usize::MAX,
            take_bytes_max: usize::MAX,
            down: Vec::new(),
        }
    }

    /// The same, with the handshake done and its records forgotten.
    ///
    /// # Panics
    /// If it does not come about.
    #[must_use]
    pub fn open(scene: &Scene, terms: &Terms) -> Self {
        let mut session = Self::new(scene, terms);
        session.settle();
        assert!(!session.client.is_handshaking(), "{:?}", session.client.end());
        session.down.clear();
        session
    }

    /// Says something, drives to rest, and takes what was heard.
    pub fn request(&mut self, plain: &[u8]) -> Vec<u8> {
        self.client.say(plain);
        self.settle();
        self.client.take_heard()
    }

    /// Does all there is to do without time passing.
    pub fn settle(&mut self) {
        loop {
            let up = self.client.take_wire();
            self.input(&up);
            let has_asked = self.answer();
            if up.is_empty() && !has_asked && self.take(self.take_bytes_max) == 0 {
                break;
            }
        }
    }

    /// Hands in ciphertext, piece by piece.
    pub fn input(&mut self, wire: &[u8]) {
        for piece in wire.chunks(self.piece_bytes) {
            self.peer.input(self.clock.now(), piece);
        }
    }

    /// Answers the next query, if there is one.
    pub fn answer(&mut self) -> bool {
        let Some((id, query)) = self.peer.query() else { return false };
        let answer = self.store.answer(&query);
        self.peer.answer(self.clock.now(), id, answer);
        true
    }

    /// Lets the socket take at most so many bytes of ciphertext; how many it took.
    pub fn take(&mut self, bytes_max: usize) -> usize {
        let taken = self.peer.take(self.clock.now(), bytes_max);
        self.down.extend_from_slice(&taken);
        self.client.hear(&taken);
        taken.len()
    }

    /// The ciphertext of the server's since this was asked last, as records.
    pub fn records(&mut self) -> Vec<Record> {
        records(&std::mem::take(&mut self.down))
    }

    /// Lets time pass.
    pub fn advance(&mut self, by: Duration) {
        self.clock.advance(by);
        self.store.set_clock(self.clock.since_1970());
    }

    /// Jumps to the deadline and acts on it; how long that was from now.
    ///
    /// # Panics
    /// If there is none.
    pub fn expire(&mut self) -> Duration {
        let deadline = self.clock.offset(self.peer.deadline().expect("a deadline"));
        let wait = deadline.saturating_sub(self.clock.at());
        self.advance(wait);
        self.peer.timeout(self.clock.now());
        wait
    }

    /// The socket ends and nobody announced it; the last deadlines pass: why it closed.
    ///
    /// # Panics
    /// If it never closes.
    pub fn close(&mut self) -> CloseReason {
        self.peer.eof(self.clock.now());
        for _ in 0..DEADLINES_MAX {
            self.settle();
            match self.peer.closed() {
                Some(reason) => return reason,
                None => self.expire(),
            };
        }
        panic!("law 4: still open after {DEADLINES_MAX} deadlines");
    }
}

const DEADLINES_MAX: usize = 100;
