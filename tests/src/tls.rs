//! TLS for tests: what both sides may speak, a client without a socket, hellos by hand, and the
//! records that pass by.
//!
//! Keys, names, validity and time are fixed, so a test means the same on any day. What cannot be
//! fixed is the randomness of rustls: the same test gives other ciphertext each time, but always
//! as much of it ([`Key::Ed25519`] and [`Key::Rsa`]: signatures of one length).

mod beneath;
mod client;
mod hello;
mod records;
mod sealer;
mod session;
mod terms;
mod trusting;

pub use beneath::{Beneath, Difference};
pub use client::{Client, End};
pub use hello::Hello;
pub use records::{APPLICATION, Alert, HANDSHAKE, HEADER_BYTES, Record, records};
pub use sealer::Sealer;
pub use session::Session;
pub use terms::{Key, Terms, Time, V1_2, V1_3, suites};
pub use trusting::Trusting;
