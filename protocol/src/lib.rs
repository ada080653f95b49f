//! The device side of a firmware update server as a sans-IO state machine.
//!
//! Everything here is a function of its inputs: there is no socket, no clock, no thread, no file
//! and no randomness in this crate. The same bytes, answers and times give the same bytes,
//! queries and deadlines, which is how it is tested, simulated and fuzzed.
//!
//! One type does the work, [`Connection`]: bytes, answers and the time go in; bytes, image
//! ranges, queries and one deadline come out. A *driver* owns the socket and carries both ways;
//! a *store* owns the facts and answers queries. The protocol is the one that THiNX devices in
//! the field speak: check-in, offer, download, and the one-time token.
//!
//! ```text
//!   socket --bytes--> handle_input                 poll_query --Query--> store
//!                          |                            ^                  |
//!                          v                            |                  |
//!                      [ HTTP ] --request--> [ device API: decisions ] <---+ handle_answer
//!                                                       |
//!   socket <--bytes-- transmit  <------- response ------+
//!                     handle_sent(n)
//! ```
//!
//! # The loop
//!
//! Whatever drives a connection does these steps, in any order and at its own pace:
//!
//! 1. Read the socket while [`Connection::wants_read`]; give what was read to
//!    [`Connection::handle_input`], the end of it to [`Connection::handle_eof`].
//! 2. Carry each [`Connection::poll_query`] to the store, and its answer to
//!    [`Connection::handle_answer`].
//! 3. Write what [`Connection::transmit`] shows, as much as the socket takes, and say how much
//!    that was with [`Connection::handle_sent`].
//! 4. At [`Connection::poll_timeout`] call [`Connection::handle_timeout`].
//! 5. Once [`Connection::wants_shutdown`], shut down the sending side; once
//!    [`Connection::closed`], drop the socket.
//!
//! ```
//! use std::io::{Read, Write};
//! use std::sync::Arc;
//! use std::time::Instant;
//! use otter_protocol::{Answer, Config, Connection, Now, Query};
//!
//! /// Serves one connection over anything that reads and writes, with a store that is a function.
//! fn drive(mut socket: impl Read + Write, mut store: impl FnMut(Query) -> Answer<bytes::Bytes>) {
//!     let now = || Now { instant: Instant::now(), unix: 1_795_478_791 };
//!     let mut connection = Connection::plain(Arc::new(Config::default()), now());
//!     let mut buffer = [0; 4096];
//!     while connection.closed().is_none() {
//!         if let Some((id, query)) = connection.poll_query() {
//!             connection.handle_answer(now(), id, store(query));
//!         } else if let Some(transmit) = connection.transmit() {
//!             match socket.write(transmit.as_slice()) {
//!                 Ok(0) | Err(_) => connection.handle_reset(now()),
//!                 Ok(n) => connection.handle_sent(now(), n),
//!             }
//!         } else {
//!             match socket.read(&mut buffer) {
//!                 Ok(0) | Err(_) => connection.handle_eof(now()),
//!                 Ok(n) => connection.handle_input(now(), &buffer[..n]),
//!             }
//!         }
//!     }
//! }
//!
//! # struct Peer(std::io::Cursor<Vec<u8>>, Vec<u8>);
//! # impl Read for Peer {
//! #     fn read(&mut self, b: &mut [u8]) -> std::io::Result<usize> { self.0.read(b) }
//! # }
//! # impl Write for Peer {
//! #     fn write(&mut self, b: &[u8]) -> std::io::Result<usize> { self.1.write(b) }
//! #     fn flush(&mut self) -> std::io::Result<()> { Ok(()) }
//! # }
//! # let request = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n".to_vec();
//! # let mut peer = Peer(std::io::Cursor::new(request), Vec::new());
//! # struct By<'a>(&'a mut Peer);
//! # impl Read for By<'_> {
//! #     fn read(&mut self, b: &mut [u8]) -> std::io::Result<usize> { self.0.read(b) }
//! # }
//! # impl Write for By<'_> {
//! #     fn write(&mut self, b: &[u8]) -> std::io::Result<usize> { self.0.write(b) }
//! #     fn flush(&mut self) -> std::io::Result<()> { Ok(()) }
//! # }
//! # drive(By(&mut peer), |_| Answer::Unavailable);
//! # assert!(peer.1.ends_with(br#"{"healthcheck":true}"#));
//! ```
//!
//! The `otter-mio` crate is the same loop for many thousand connections.
//!
//! # Facts and decisions
//!
//! A store is asked for facts ([`Query::Identify`]) and told to keep facts ([`Query::Record`]);
//! it never judges. Who is authorised, what is newer, when a token's tail may leave: all of it is
//! decided here, so it is tried here, whatever store is behind it. A request asks at most one
//! read and one write; a download by token one read, one write when the first attempt begins, and
//! one claim before the last bytes.
//!
//! # The one-time token
//!
//! A token gives *at most one whole image, ever*. Any number of attempts may read all but the last
//! 4096 bytes; those leave only after the store has answered [`Query::Claim`] with
//! [`Answer::Claimed`]`(true)`, which it does once per token.
//!
//! # TLS
//!
//! With the feature `tls`, off by default, `Connection::tls` puts rustls beneath HTTP: the same
//! methods, with ciphertext in the place of bytes. A driver hands a [`Security`] through
//! [`Connection::accept`] and need not know of it; only what an image is must be readable by user
//! space ([`Legible`]). Certificates, what resumes a session, and rustls' own time and randomness
//! come with the `rustls::ServerConfig`. A driver of many connections asks
//! [`Connection::is_handshaking`] to let those wait whose next bytes cost much.
//!
//! # Time
//!
//! [`Now`] carries both clocks: a monotonic one for deadlines, and the wall clock for what devices
//! are told. Until it is closed a connection always has exactly one deadline.
#![forbid(unsafe_code)]

mod api;
mod buffers;
pub mod config;
pub mod connection;
mod digits;
mod exchange;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod http;
pub mod id;
mod json;
mod legible;
mod machine;
mod mandate;
mod now;
mod outflow;
pub mod query;
pub mod report;
mod security;
mod state;
pub mod tally;
#[cfg(feature = "tls")]
mod tls;
#[cfg(not(feature = "tls"))]
#[path = "tls/absent.rs"]
mod tls;
pub mod transmit;
pub mod update;
mod words;

pub use api::no_room;
pub use config::{Config, StatusMode};
pub use connection::Connection;
pub use id::{Alias, ApiKey, DeviceId, Mac, OwnerId, ReleaseId, Token};
pub use legible::Legible;
pub use now::Now;
pub use query::{
    Answer, CheckIn, Device, DeviceStanding, Grant, Identify, KeyStanding, Kind, Offer, Offered,
    Query, QueryId, Record, Recorded, Redemption, Release, Standing,
};
pub use report::{CloseReason, Endpoint, Handshake, Outcome, Refusal, Report, TlsFailure};
pub use security::Security;
pub use tally::{Counters, Tally};
pub use transmit::Transmit;
