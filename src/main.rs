//! `otter`: the operator's program.
#![forbid(unsafe_code)]

mod beneath;
mod bundle;
mod cli;
mod config;
mod deploy;
mod failure;
mod vet;

fn main() {}
