//! The hot paths of the core, with a real store behind them and no socket before them.
//!
//! `benches/instructions` counts them under callgrind, `cargo bench -p otter-benches` times them.
//! Both need the same thing: a [`Round`] that can be repeated any number of times and does the same
//! each time.

mod peer;
pub mod request;
mod round;
mod shop;
mod tunnel;

pub use peer::{Peer, answers};
pub use round::{PATHS, Path, Round};
pub use shop::Shop;
pub use tunnel::{Suite, Tunnel};
