//! What the tests of the mio driver find in its place: the server of `otter serve --runtime tokio`,
//! which is this driver with a thread per core.
#![allow(dead_code, reason = "each test binary uses its part")]

#[path = "../../../src/tokio_server.rs"]
mod tokio_server;

use std::io;

use otter_protocol::Legible;
use otter_store::{Store, Wake};

pub(crate) use tokio_server::{Handle, Server};

impl Server {
    pub(crate) fn handle(&self) -> Handle {
        self.handle.clone()
    }

    pub(crate) fn run<S: Store<Image: Legible>>(
        self,
        make_store: impl FnMut(usize, Wake) -> S,
    ) -> io::Result<()> {
        self.spawn(make_store)?.join()
    }
}
