//! TLS beneath a connection: any ciphertext, and any record that is sealed by real keys.

use std::sync::{Arc, OnceLock};

use rustls::{ClientConfig, ServerConfig};

use super::Input;
use super::connection::all;
use crate::tls::{Client, Sealer, Session, Terms, V1_2, V1_3};
use crate::{Clock, ModelStore, Scene, Watched};

/// Laws 2 to 9 over TLS: any ciphertext, a client's own bytes with changes, or any records that a
/// client's real keys seal: nothing panics or hangs, [`Watched`] finds no law broken, and the
/// connection closes in the end.
///
/// The first byte says which version and which of the three.
///
/// # Panics
/// If that is not so.
pub fn tls(bytes: &[u8]) {
    let mut input = Input(bytes);
    let first = input.byte();
    let versions = if first & 1 == 0 { Versions::V1_2 } else { Versions::V1_3 };
    match first >> 1 & 3 {
        0 => raw(&mut input, versions),
        1 => damaged(&mut input, versions),
        _ => sealed(&mut input, versions),
    }
}

#[derive(Clone, Copy)]
enum Versions {
    V1_2,
    V1_3,
}

/// Any bytes, in pieces that it says itself.
fn raw(input: &mut Input<'_>, versions: Versions) {
    let (server, _) = settings(versions);
    let scene = Scene::new();
    let clock = Clock::start();
    let config = Arc::new(scene.config.on_another_line());
    let mut peer = Watched::tls(config, Arc::clone(server), clock.now());
    let mut store = scene.store;
    while !input.is_empty() {
        let piece = input.bytes(usize::MAX);
        peer.input(clock.now(), piece);
        settle(&mut peer, &mut store, clock);
    }
    close(peer, store, clock);
}

/// A client's bytes, each flight with one byte changed or cut short where the input says so.
fn damaged(input: &mut Input<'_>, versions: Versions) {
    let (server, client) = settings(versions);
    let mut session = Session::with(&Scene::new(), server, client);
    session.client.say(&all()[usize::from(input.byte()) % all().len()].bytes);
    for _ in 0..FLIGHTS_MAX {
        let mut up = session.client.take_wire();
        let (how, at, value) = (input.byte(), input.number(), input.byte());
        if how & 3 == 1 && !up.is_empty() {
            let at = at % up.len();
            up[at] ^= value;
        } else if how & 3 == 2 {
            up.truncate(at);
        }
        session.piece_bytes = if how & 4 == 0 { usize::MAX } else { 1 + usize::from(value) };
        session.input(&up);
        while session.answer() || session.take(usize::MAX) > 0 {}
        if up.is_empty() {
            break;
        }
    }
    let Session { peer, store, clock, .. } = session;
    close(peer, store, clock);
}

/// Records of any kind and content in the name of a client that has shaken hands.
fn sealed(input: &mut Input<'_>, versions: Versions) {
    let (server, client) = settings(versions);
    let mut session = Session::with(&Scene::new(), server, client);
    session.settle();
    assert!(!session.client.is_handshaking(), "{:?}", session.client.end());
    let Session { mut peer, client, mut store, mut clock, .. } = session;
    let mut sealer = Sealer::of(client);
    while !input.is_empty() {
        let how = input.byte();
        match how % 8 {
            // A record with data, or with whatever else.
            0 | 1 => peer.input(clock.now(), &sealer.seal(23, input.bytes(RECORD_BYTES_MAX))),
            2 => peer.input(clock.now(), &sealer.seal(how >> 3, input.bytes(RECORD_BYTES_MAX))),
            3 => {
                let sample = &all()[usize::from(input.byte()) % all().len()];
                for piece in sample.bytes.chunks(4096) {
                    peer.input(clock.now(), &sealer.seal(23, piece));
                }
            }
            // Two records that arrive as one, cut anywhere.
            4 => {
                let mut wire = sealer.seal(23, input.bytes(RECORD_BYTES_MAX));
                wire.extend(sealer.seal(23, input.bytes(RECORD_BYTES_MAX)));
                let (front, back) = wire.split_at(input.number() % wire.len());
                peer.input(clock.now(), front);
                peer.input(clock.now(), back);
            }
            5 => peer.input(clock.now(), input.bytes(usize::MAX)),
            6 => {
                peer.take(clock.now(), input.number());
            }
            _ if how & 8 == 0 => settle(&mut peer, &mut store, clock),
            _ => expire(&mut peer, &mut clock),
        }
    }
    close(peer, store, clock);
}

fn settle(peer: &mut Watched, store: &mut ModelStore, clock: Clock) {
    loop {
        if let Some((id, query)) = peer.query() {
            let answer = store.answer(&query);
            peer.answer(clock.now(), id, answer);
        } else if peer.take(clock.now(), usize::MAX).is_empty() {
            break;
        }
    }
}

fn expire(peer: &mut Watched, clock: &mut Clock) {
    if let Some(deadline) = peer.deadline() {
        clock.jump(clock.offset(deadline));
        peer.timeout(clock.now());
    }
}

fn close(mut peer: Watched, mut store: ModelStore, mut clock: Clock) {
    peer.eof(clock.now());
    for _ in 0..DEADLINES_MAX {
        settle(&mut peer, &mut store, clock);
        if peer.closed().is_some() {
            return;
        }
        expire(&mut peer, &mut clock);
    }
    panic!("law 4: still open after {DEADLINES_MAX} deadlines");
}

/// Kept for all inputs: a client that was here takes up its session.
fn settings(versions: Versions) -> &'static (Arc<ServerConfig>, Arc<ClientConfig>) {
    static MADE: [OnceLock<(Arc<ServerConfig>, Arc<ClientConfig>)>; 2] =
        [const { OnceLock::new() }; 2];
    MADE[versions as usize].get_or_init(|| {
        let versions = match versions {
            Versions::V1_2 => V1_2,
            Versions::V1_3 => V1_3,
        };
        let terms = Terms::only(versions).sealable();
        (terms.server(), terms.client())
    })
}

/// The first flight of a client, for seeds.
pub(super) fn hello() -> Vec<u8> {
    Client::new(Arc::clone(&settings(Versions::V1_3).1)).take_wire()
}

/// What one record may hold.
const RECORD_BYTES_MAX: usize = 1 << 14;
const FLIGHTS_MAX: usize = 8;
const DEADLINES_MAX: usize = 100;
