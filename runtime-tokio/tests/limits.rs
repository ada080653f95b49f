//! What happens at the edges: the tests of the mio driver, with this driver in its place.

extern crate otter_tokio as otter_mio;

#[path = "../../runtime-mio/tests/limits.rs"]
mod limits;
