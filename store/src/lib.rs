//! Where the facts of a firmware update server are kept: owners and their keys, devices, releases
//! with their images, one-time tokens.
//!
//! A store keeps facts and answers questions about them; it never judges. The core asks by
//! [`Query`] and is told by [`Answer`]; operators ask by [`Operator`]. Every write is atomic, and
//! durable before it is answered.
//!
//! # Which store
//!
//! | store | keeps | for |
//! |---|---|---|
//! | [`Embedded`] | one local directory: SQLite and image files | the default |
//! | [`Memory`] | nothing but image files | demonstrations, benches, tests |
//! | `Redis` (feature `redis`) | Redis or Valkey | many servers that are one service |
//!
//! The first two answer all reads from the same tables in memory, under the same rules, so they
//! answer alike. A million devices take 184 bytes of memory each and load in under a second.
//!
//! # How a driver uses it
//!
//! 1. Make one value per thread: `embedded.store(wake)`. `wake` rings that thread's loop.
//! 2. Once per turn, [`Store::submit`] what all connections ask. Nothing blocks.
//! 3. [`Store::collect`]: answers to reads wait at once, in the same turn. Answers to writes wait
//!    once the write is durable; then `wake` rings.
//!
//! ```
//! use std::sync::Arc;
//! use std::sync::mpsc;
//! use otter_protocol::{CheckIn, Mac, Record};
//! use otter_store::{Answer, Embedded, EmbeddedOptions, Query, Store, Ticket};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let parent = tempfile::tempdir()?;
//! # let directory = parent.path().join("otter");
//! let embedded = Embedded::open(&directory, EmbeddedOptions::default())?;
//! let owner = embedded.operator().create_owner(None)?;
//!
//! let (ring, bell) = mpsc::channel();
//! let mut store = embedded.store(Arc::new(move || {
//!     let _ = ring.send(());
//! }));
//! let check_in = CheckIn {
//!     mac: Mac::parse("5CCF7F3D8F2A"),
//!     alias: None,
//!     version: Some("1.0.0".into()),
//!     platform: Some("arduino:esp8266".into()),
//!     env_hash: None,
//!     facts: "{}".into(),
//!     digest: 1,
//!     told_auto_update: false,
//! };
//! let record =
//!     Record { owner, device: None, check_in: Some(check_in), offered: None, grant: None };
//! store.submit(&mut vec![(Ticket(7), Query::Record(Box::new(record)))]);
//!
//! bell.recv()?; // A driver's loop sleeps in `epoll_wait` instead.
//! let mut answers = Vec::new();
//! store.collect(&mut answers);
//! assert!(matches!(answers[..], [(Ticket(7), Answer::Recorded(Some(_)))]));
//! # Ok(())
//! # }
//! ```
//!
//! # Promises
//!
//! - **Nothing acknowledged is lost**, whatever kills the process or the machine, as far as the
//!   disk keeps what it says it keeps. Nothing that is not durable is visible to anybody.
//! - **A token is claimed at most once.** The claim is durable before it is answered.
//! - **All or nothing**: a disk that is full or failing makes answers [`Answer::Unavailable`], and
//!   the store goes on when there is room again.
//! - **What is asked about one device is done in the order in which it was asked.** Writes about
//!   different devices may be reordered within a group. In Redis the questions of one turn may be
//!   answered in any order, as if they came from different servers at the same time.
//! - **Deadlines stand on the store's clock**, which never goes back ([`Clock`]).
//! - **An image is given whole or not at all**: see [`Image`]. One that has to be fetched first
//!   holds up nobody but those who asked for it.
//!
//! # Features
//!
//! - `origins` (off by default): images that do not lie here are fetched from other servers or
//!   object storage, and publications are put there; see `ImageOptions::origins`. It brings tokio,
//!   hyper, rustls and `object_store`; without it the store has no network code.
//!
//! Layout, schema, backup and figures: `docs/store.md`.

#![deny(unsafe_code)]

use std::sync::Arc;

pub use otter_protocol::{Answer, Query};

pub use clock::Clock;
pub use copy::{DeviceCopy, Fact, KeptKeys, TokenCopy};
pub use depot::ImageOptions;
pub use embedded::{Embedded, EmbeddedOptions, EmbeddedStore};
pub use error::{OpenError, OperatorError, Subject};
pub use image::{Identity, Image};
pub use memory::{Memory, MemoryOptions, MemoryStore};
pub use operator::{
    DeviceChange, DeviceFilter, DeviceRow, KEY_ALIAS_BYTES_MAX, KeyRow, NewKey, Operator, OwnerRow,
};
#[cfg(feature = "origins")]
pub use origin::{OnFailure, OriginFailure, OriginOptions, OriginState};
pub use publishing::{IssuedToken, Judge, NewRelease, Published, ReleaseRow, Target};
#[cfg(feature = "redis")]
pub use redis::{Redis, RedisOptions, RedisStore};
pub use staging::Staged;
pub use stats::{Buckets, RedisStats, StoreStats};
pub use tickets::TicketKey;

mod aside;
mod clock;
mod committer;
mod copy;
mod depot;
mod embedded;
mod error;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod image;
mod images;
mod inbox;
mod job;
mod ledger;
mod listing;
mod load;
mod lock;
mod memory;
mod operator;
#[cfg(feature = "origins")]
mod origin;
mod publishing;
#[cfg(feature = "redis")]
mod redis;
mod schema;
mod shared;
mod staging;
mod stats;
mod sync;
mod tabled;
mod tables;
mod tickets;
mod token;
mod unfinished;

/// Names one query of one connection in one driver: the driver's to choose, like epoll's data.
/// The answer carries it; the store does nothing else with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ticket(pub u64);

/// Rings a driver's loop: answers wait in [`Store::collect`]. Called from any thread, also while
/// the loop is awake, and seldom more than once per commit. It must not block, and must not call
/// the store.
pub type Wake = Arc<dyn Fn() + Send + Sync>;

/// What a driver needs of a store. One value per thread; see the handle that makes it, such as
/// [`Embedded::store`].
///
/// Every query that is submitted is answered exactly once, if need be with
/// [`Answer::Unavailable`]. A value that is dropped takes the answers that nobody collected with
/// it; writes that were submitted are carried out all the same.
pub trait Store: Send + 'static {
    /// What images are here.
    type Image: AsRef<[u8]> + Clone + Send + 'static;

    /// Takes all queries of one turn and leaves the vector empty, with its room. Never blocks on
    /// the disk.
    ///
    /// Reads are answered at once, of the moment before the writes of the same turn, unless an
    /// image has to be fetched first. Writes are answered when they are durable.
    fn submit(&mut self, queries: &mut Vec<(Ticket, Query)>);

    /// Appends the answers that are ready, in any order. Never blocks. An image that is not open
    /// is opened here.
    fn collect(&mut self, answers: &mut Vec<(Ticket, Answer<Self::Image>)>);
}
