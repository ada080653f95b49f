//! The simulated world in which Otter is tried.
//!
//! Nothing here opens a socket, reads a clock or waits, except [`redis`] and [`load`], which are
//! for tests of real servers, and [`handshake`], which counts CPU time. Where to look:
//!
//! | to | read |
//! |---|---|
//! | say "these bytes in, those out" | [`Exchange`], with [`Scene`], [`Request`], [`Reply`] |
//! | know what a store must answer | [`ModelStore`]; with delays and failures, [`Desk`] |
//! | see which laws hold at every step | [`Watched`] for one connection, [`Ledger`] over many |
//! | have every kind of request in one table | [`samples()`] |
//! | let fleets of devices meet faults | [`Fleet`]; by hand [`World`], [`device`] |
//! | make a failure of a fleet small | [`fleet::shrunk`], and docs/simulation.md |
//! | speak TLS to a connection, or send what no TLS library would | [`tls`] |
//! | start a real Redis, a cluster or sentinels, and break them | [`redis`] |
//! | load real servers at a steady rate, and judge every answer | [`load`] |
//! | know what a connection may own | [`bounds`], and docs/proof.md |
//! | let a client and a server of rustls shake hands in memory | [`handshake`] |
//! | try anything with any bytes | [`fuzz`], and docs/fuzzing.md |
//! | see why a token ends when it does | [`TokenModel`], and `tests/tests/token_model.rs` |
//! | understand what a device library does to an answer | [`device`], and docs/wire.md 2 |
//!
//! The tests beside (`tests/tests/*.rs`) are named by the section of docs/wire.md that they hold
//! the core to; `over_tls_1_2` and `over_tls_1_3` run them once more with TLS beneath, `tls` and
//! `tls_memory` hold TLS itself to section 2.5, `memory` what connections hold to docs/proof.md,
//! `conformance` the core to docs/http.md. `cuts`, `laws`, `simulation` and
//! `rolling_restart` hold it to docs/design.md 8, `token_model` the rule of the token to its
//! promises (docs/token.md), `stores` the real stores to the model, `tidy` the sources to
//! docs/design.md 11. A failing simulation prints the command that replays it and makes it
//! small; `tests/simulate --hours 8` tries new seeds.
#![forbid(unsafe_code)]

pub mod bounds;
pub mod check_in;
pub mod clock;
pub mod device;
pub mod exchange;
pub mod fleet;
pub mod fuzz;
pub mod handshake;
pub mod image;
pub mod laws;
pub mod load;
pub mod model;
pub mod pair;
pub mod random;
pub mod redis;
pub mod reply;
pub mod request;
pub mod samples;
pub mod scene;
pub mod slow;
pub mod tls;
pub mod token_model;
pub mod wire;
pub mod world;

pub use clock::Clock;
pub use exchange::{Exchange, Heard};
pub use fleet::Fleet;
pub use laws::{Ledger, Watched};
pub use model::{Desk, Draft, Faults, ModelStore, Replication, Target};
pub use random::Random;
pub use reply::Reply;
pub use request::{Fields, Request};
pub use samples::{Sample, samples};
pub use scene::Scene;
pub use token_model::TokenModel;
pub use wire::{Line, Pipe, Read, SharedLine};
pub use world::World;
