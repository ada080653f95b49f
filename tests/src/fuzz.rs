//! Bodies of the fuzz targets (`fuzz/`, docs/fuzzing.md): functions that take any bytes and panic
//! if a law of docs/design.md 8 breaks. `tests/tests/corpus.rs` runs them on stable.
//!
//! Here is what can be tried from outside, and by [`otter_protocol::fuzzing`] what cannot. The
//! bodies for the store's side are in `otter_store::fuzzing`, those for the program in
//! `src/fuzzing.rs`.

mod connection;
mod corpus;
mod differential;
mod grammar;
mod ids;
mod second;
mod seeds;
mod store;
mod tls;
mod version;

pub use connection::connection;
pub use corpus::{plant, replay, root};
pub use differential::{Class, compare, differential};
pub use ids::ids;
pub use otter_protocol::fuzzing::{chunked, head, hello, json, range};
pub use seeds::seeds;
pub use store::store;
pub use tls::tls;
pub use version::version;

/// Takes an input apart, from its front. What is missing is zero.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn byte(&mut self) -> u8 {
        self.0.split_off_first().copied().unwrap_or_default()
    }

    fn number(&mut self) -> usize {
        usize::from(self.byte()) << 8 | usize::from(self.byte())
    }

    /// As many bytes as it says, at most `bytes_max`.
    fn bytes(&mut self, bytes_max: usize) -> &'a [u8] {
        let len = self.number().min(bytes_max).min(self.0.len());
        self.0.split_off(..len).unwrap_or_default()
    }
}
