//! Drives the protocol core of Otter with [tokio], for programs that live there.
#![forbid(unsafe_code)]

mod batcher;
mod desk;
mod listen;
mod peer;
mod server;
mod service;
mod socket;

pub use server::{Handle, Options, Server};
pub use service::{Batching, OnReport, Service, drive, drive_tcp, serve};
pub use socket::Legible;
