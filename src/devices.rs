//! The device side of the server, on whichever runtime it runs.

use std::io;
use std::net::SocketAddr;

use otter_mio::Options;
use otter_protocol::{Counters, Legible};
use otter_store::{Store, Wake};

use crate::cli::RuntimeKind;
use crate::tokio_server;

/// A server that listens and does not serve yet.
pub(crate) enum DeviceServer {
    Mio(otter_mio::Server),
    Tokio(tokio_server::Server),
}

/// The reins of one that serves.
#[derive(Clone, Debug)]
pub(crate) enum Devices {
    Mio(otter_mio::Handle),
    Tokio(tokio_server::Handle),
}

impl DeviceServer {
    pub(crate) fn bind(runtime: RuntimeKind, options: Options) -> io::Result<Self> {
        Ok(match runtime {
            RuntimeKind::Mio => Self::Mio(otter_mio::Server::bind(options)?),
            RuntimeKind::Tokio => Self::Tokio(tokio_server::Server::bind(options)?),
        })
    }

    /// Where it listens, in the order of [`Options::listen`].
    pub(crate) fn local_addrs(&self) -> &[SocketAddr] {
        match self {
            Self::Mio(server) => server.local_addrs(),
            Self::Tokio(server) => server.local_addrs(),
        }
    }

    pub(crate) fn spawn<S: Store<Image: Legible>>(
        self,
        make_store: impl FnMut(usize, Wake) -> S,
    ) -> io::Result<Devices> {
        Ok(match self {
            Self::Mio(server) => Devices::Mio(server.spawn(make_store)?),
            Self::Tokio(server) => Devices::Tokio(server.spawn(make_store)?),
        })
    }
}

impl Devices {
    pub(crate) fn shutdown(&self) {
        match self {
            Self::Mio(handle) => handle.shutdown(),
            Self::Tokio(handle) => handle.shutdown(),
        }
    }

    pub(crate) fn join(&self) -> io::Result<()> {
        match self {
            Self::Mio(handle) => handle.join(),
            Self::Tokio(handle) => handle.join(),
        }
    }

    pub(crate) fn counters(&self) -> Counters {
        match self {
            Self::Mio(handle) => handle.counters(),
            Self::Tokio(handle) => handle.counters(),
        }
    }
}
