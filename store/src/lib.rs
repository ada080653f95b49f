//! Where the facts of a firmware update server are kept.

#![deny(unsafe_code)]

use std::sync::Arc;

pub use otter_protocol::{Answer, Query};

pub use clock::Clock;
pub use embedded::{Embedded, EmbeddedOptions, EmbeddedStore};
pub use error::{OpenError, OperatorError, Subject};
pub use image::{Identity, Image};
pub use memory::{Memory, MemoryOptions, MemoryStore};
pub use operator::{
    DeviceChange, DeviceFilter, DeviceRow, KEY_ALIAS_BYTES_MAX, KeyRow, NewKey, Operator, OwnerRow,
};
pub use publishing::{IssuedToken, Judge, NewRelease, Published, ReleaseRow, Target};
pub use staging::Staged;
pub use stats::{Buckets, StoreStats};

mod clock;
mod committer;
mod embedded;
mod error;
mod image;
mod images;
mod job;
mod ledger;
mod listing;
mod load;
mod lock;
mod memory;
mod operator;
mod publishing;
mod schema;
mod shared;
mod staging;
mod stats;
mod tables;
mod token;

/// Names one query of one connection in one driver: the driver's to choose, like epoll's data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ticket(pub u64);

/// Rings a driver's loop: answers wait in [`Store::collect`]. Called from any thread.
pub type Wake = Arc<dyn Fn() + Send + Sync>;

/// What a driver needs of a store. One value per thread; see the handle that makes it.
pub trait Store: Send + 'static {
    /// What images are here.
    type Image: AsRef<[u8]> + Clone + Send + 'static;

    /// Takes all queries of one turn and leaves the vector empty. Never blocks.
    fn submit(&mut self, queries: &mut Vec<(Ticket, Query)>);

    /// Appends the answers that are ready, in any order. Never blocks.
    fn collect(&mut self, answers: &mut Vec<(Ticket, Answer<Self::Image>)>);
}
