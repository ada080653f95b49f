//! The tests of the mio driver over TLS, with this driver in its place.
#![expect(clippy::duplicate_mod, reason = "each of the two files has its support")]

// They find there what is used here.
extern crate self as otter_mio;

mod driver;
#[path = "../../runtime-mio/tests/exchange.rs"]
mod exchange;
#[path = "../../runtime-mio/tests/limits.rs"]
mod limits;

pub(crate) use driver::{Handle, Server};
pub(crate) use mio_driver::{Listeners, OnReport, Options, bind, listen};
