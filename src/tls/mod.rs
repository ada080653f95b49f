//! TLS of `otter serve`: what all workers share.

#![cfg_attr(
    not(test),
    expect(dead_code, reason = "the listeners that use it come with Connection::tls")
)]

pub(crate) mod sessions;
pub(crate) mod tickets;

#[cfg(test)]
mod resumption;
