//! The Redis store on real servers that are killed, paused, moved, full or wrong.
#![cfg(feature = "redis")]

#[path = "../common/mod.rs"]
mod common;

mod cluster;
mod connecting;
mod cuts;
mod life;
mod many;
mod outage;
mod replicas;
