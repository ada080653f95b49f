//! What TLS costs in memory, counted by the allocator: per idle connection, per record, and after
//! those who only knock. A binary of its own, with one test: whatever else runs would be counted.

use std::sync::Arc;

use otter_protocol::{Config, Connection};
use otter_tests::scene::Redeemable;
use otter_tests::tls::{
    APPLICATION, Client, HANDSHAKE, HEADER_BYTES, Hello, Key, Sealer, Session, Terms, V1_2, V1_3,
};
use otter_tests::{Clock, Draft, Request};
use rustls::{ClientConfig, ServerConfig};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<std::alloc::System> = &INSTRUMENTED_SYSTEM;

/// An idle connection holds less: rustls' own state, and a little of ours (docs/performance.md).
const IDLE_BYTES_MAX: usize = 4608;
const IMAGE_BYTES: usize = 1_000_000;

#[test]
fn what_tls_costs() {
    for (name, terms) in [("TLS 1.2", Terms::only(V1_2)), ("TLS 1.3", Terms::only(V1_3))] {
        let terms = Terms { key: Key::P256, sessions: false, ..terms };
        idle(name, &terms);
        bounds(name, &terms);
        records(name, &terms);
        strangers(name, &terms);
    }
}

/// Bytes that the allocator has given out and not got back.
fn held(region: &Region<'_, std::alloc::System>) -> isize {
    let change = region.change();
    change.bytes_allocated as isize - change.bytes_deallocated as isize
}

/// A hundred connections that have had a request answered each.
fn idle(name: &str, terms: &Terms) {
    let (server, client) = (terms.server(), terms.client());
    let config = Arc::new(Config::default());
    let serve = || serve(&config, &server, &client);
    // What is there once for all: spare buffers, and what rustls makes at its first use.
    drop((serve(), serve()));
    let mut connections = Vec::with_capacity(100);
    let region = Region::new(ALLOCATOR);
    connections.extend((0..100).map(|_| serve()));
    let each = held(&region) as usize / connections.len();
    let resting = size_of_val(&connections[0]);
    eprintln!("{name}: {each} bytes of heap per idle connection, beside {resting} of its own");
    assert!(each <= IDLE_BYTES_MAX, "{name}: {each} bytes per idle connection");
    drop(connections);
    assert!(held(&region) < 1024, "{name}: {} bytes are left of them", held(&region));
}

/// A connection after its handshake and one request; the client is gone.
fn serve(
    config: &Arc<Config>,
    server: &Arc<ServerConfig>,
    client: &Arc<ClientConfig>,
) -> Connection {
    let now = Clock::start().now();
    let mut connection = Connection::tls(Arc::clone(config), Arc::clone(server), now);
    let mut client = Client::new(Arc::clone(client));
    client.say(&Request::get("/").bytes());
    loop {
        let wire = client.take_wire();
        connection.handle_input(now, &wire);
        let Some(transmit) = connection.transmit() else { break };
        let taken = transmit.as_slice().to_vec();
        client.hear(&taken);
        connection.handle_sent(now, taken.len());
    }
    assert!(client.heard().ends_with(b"{\"healthcheck\":true}") && connection.is_idle());
    assert!(connection.poll_handshake().is_some());
    connection
}

/// Law 5: what a connection keeps of a peer at its worst, beside what it holds when it is idle. Of
/// what comes: the part of a record that is not whole, or of a message in pieces 64 KiB, whatever
/// its records are; a `Vec` that grew has up to twice that. Of what leaves: one batch. Spare
/// buffers of the handshake that are used or given up make the counts smaller by 17 KiB each.
fn bounds(name: &str, terms: &Terms) {
    let image = Redeemable::of(&Draft::binary("1.2.0", IMAGE_BYTES));
    let rest = IDLE_BYTES_MAX as isize;
    let open = || Session::open(&image.scene, &terms.clone().sealable());
    let taken_over = || {
        let mut session = open();
        let client = std::mem::replace(&mut session.client, Client::new(terms.client()));
        (session, Sealer::of(client))
    };
    let (mut session, mut sealer) = taken_over();
    let wire = sealer.seal(APPLICATION, &[b'x'; 16_384]);
    let region = Region::new(ALLOCATOR);
    for byte in &wire[..wire.len() - 1] {
        session.peer.input(session.clock.now(), &[*byte]);
    }
    let kept = held(&region);
    eprintln!("{name}: {kept} bytes for most of a record");
    assert!(kept <= 2 * 18_437 + rest, "{name}: {kept} bytes for most of a record");

    let (mut session, mut sealer) = taken_over();
    session.peer.input(session.clock.now(), &sealer.seal(HANDSHAKE, &[24, 0, 0xff, 0xff]));
    let mut kept = 0;
    let region = Region::new(ALLOCATOR);
    while session.peer.connection().wants_read() && !session.peer.connection().wants_shutdown() {
        let wire = sealer.seal(HANDSHAKE, &[0]);
        session.peer.input(session.clock.now(), &wire);
        kept = kept.max(held(&region));
    }
    eprintln!("{name}: {kept} bytes for a message in pieces");
    assert!(kept <= 2 * 65_536 + 2 * rest, "{name}: {kept} bytes for a message in pieces");

    let mut session = open();
    session.client.say(&image.get().bytes());
    let wire = session.client.take_wire();
    let region = Region::new(ALLOCATOR);
    session.input(&wire);
    while session.answer() {}
    for _ in 0..100 {
        session.peer.take(session.clock.now(), 900);
    }
    let kept = held(&region);
    eprintln!("{name}: {kept} bytes while an image leaves");
    // The batch, and a spare buffer or two that all connections share.
    assert!(kept <= 3 * 17_408 + 2 * rest, "{name}: {kept} bytes while an image leaves");
}

/// An image in records of every size; what the driver does costs nothing.
fn records(name: &str, terms: &Terms) {
    let image = Redeemable::of(&Draft::binary("1.2.0", IMAGE_BYTES));
    for fragment in [512, 1024, 4096, 16_384] {
        let terms = Terms { fragment_max: Some(fragment + HEADER_BYTES), ..terms.clone() };
        let mut session = Session::open(&image.scene, &terms);
        session.client.say(&image.get().bytes());
        let wire = session.client.take_wire();
        session.input(&wire);
        while session.answer() {}
        // The first batch is taken: memory is there from now on.
        session.take(usize::MAX);
        let now = session.clock.now();
        let (mut ciphertext, mut allocations) = (0, 0);
        while let Some(transmit) = session.peer.connection().transmit() {
            let n = transmit.as_slice().len();
            ciphertext += n;
            let region = Region::new(ALLOCATOR);
            session.peer.sent(now, n);
            let change = region.change();
            allocations += change.allocations + change.reallocations;
        }
        let records = ciphertext / (fragment + 29);
        eprintln!("{name}: {allocations} allocations for {records} records of {fragment}");
        assert!(records > 50 && allocations <= records + 2, "{name}: {allocations} of {fragment}");
    }
}

/// A thousand probes, and a thousand that say hello and go: nothing of them stays.
fn strangers(name: &str, terms: &Terms) {
    let server = terms.server();
    let config = Arc::new(Config::default());
    let now = Clock::start().now();
    let knock = |hello: &[u8], takes: bool| {
        let mut connection: Connection =
            Connection::tls(Arc::clone(&config), Arc::clone(&server), now);
        connection.handle_input(now, hello);
        let shown = connection.transmit().map_or(0, |transmit| transmit.as_slice().len());
        assert!(shown > 0);
        if takes {
            connection.handle_sent(now, shown);
            connection.handle_eof(now);
        } else {
            connection.handle_reset(now);
        }
        assert!(connection.closed().is_some() && connection.poll_handshake().is_some());
    };
    for (what, hello) in [("probes", Hello::esp8266_probe(1)), ("hellos", Hello::new())] {
        let hello = hello.bytes();
        knock(&hello, true);
        let region = Region::new(ALLOCATOR);
        for n in 0..1000 {
            knock(&hello, n % 2 == 0);
        }
        assert!(held(&region) <= 0, "{name}: {} bytes are left of {what}", held(&region));
    }
}
