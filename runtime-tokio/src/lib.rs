//! Drives the protocol core of Otter with [tokio], for programs that live there: [`drive`] serves
//! one connection over anything that reads and writes, [`serve`] a listening socket.
//!
//! ```text
//!   task of a connection: read -> core -> write         one per connection
//!                          | query      ^ answer
//!                          v            |
//!   batcher's task: Store::submit -> Store::collect     one per service
//! ```
//!
//! The bytes are those of the `otter-mio` crate, which is faster and has nothing but devices on
//! its threads. Take this one to serve devices inside of a tokio program: beside other routes on
//! the same port, or over a pipe.
//!
//! # A server in a program
//!
//! A [`Service`] is a store with the settings to serve it with. Its batcher is a future to be
//! spawned: the queries of all connections that are ready in one turn of the runtime go to the
//! store as one batch.
//!
//! ```
//! use otter_store::{Memory, MemoryOptions};
//! use otter_tokio::{Options, Security, Service, serve};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let directory = tempfile::tempdir()?;
//! let memory = Memory::open(directory.path(), MemoryOptions::default())?;
//! let (service, batching) = Service::new(Options::default(), |wake| memory.store(wake));
//! tokio::spawn(batching);
//!
//! let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
//! println!("devices may check in at {}", listener.local_addr()?);
//! let serving = tokio::spawn(async move {
//!     serve(&service, listener, Security::Plain).await
//! });
//! # serving.abort();
//! # Ok(())
//! # }
//! ```
//!
//! All of it works on a current-thread runtime and on a multi-thread one: futures and services are
//! `Send`, if the stream is. A service has one batcher and one desk, whatever the number of
//! threads. One current-thread runtime per core with a service each shares nothing, and costs less
//! per request: that is `otter serve --runtime tokio`, in `src/tokio_server.rs` of the workspace.
//!
//! # Beside other routes
//!
//! `examples/axum.rs` serves devices and an axum router on one port: `cargo run -p otter-tokio
//! --example axum`. The core speaks HTTP itself, to the byte that devices expect, so a connection
//! is handed over before any byte of it is read: who asks for `/device` first gets [`drive_tcp`].
//! `examples/by_hand.rs` has one check-in over a pipe in memory, and prints it.
//!
//! # Images
//!
//! Over TCP without TLS ([`serve`], [`drive_tcp`]) an image leaves from its mapping by
//! `writev`; nobody but the kernel touches the bytes. Any other stream needs them in user space,
//! where touching a mapping whose file was cut short would end the process: [`drive`] therefore
//! wants an image that is [`Legible`]. [`otter_store::Image`] is, by `pread` from its file, and so
//! are [`bytes::Bytes`].
//!
//! # What one connection costs
//!
//! While it is idle: one task with its timer, the socket's entry in the runtime and a seat at the
//! service's desk, and no buffer. The future of a plain TCP connection has 304 bytes; 10,000 idle
//! connections to `otter serve --runtime tokio` were measured at 1,162 bytes each, everything
//! included (mio: 98).
//! While it is served: 2.02 system calls for a check-in on one of 64 busy connections and no heap
//! call; 12,032 instructions in user space (mio: 9,454).
//!
//! Linux only.
#![forbid(unsafe_code)]

mod batcher;
mod desk;
mod peer;
mod service;

pub use otter_protocol::{Legible, Security};
pub use service::{Batching, OnReport, Options, Service, drive, drive_tcp, serve};
