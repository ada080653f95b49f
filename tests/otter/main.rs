//! The program as a whole: real processes, real sockets, real files.
#![forbid(unsafe_code)]

mod admin;
mod commands;
mod crash;
mod demo;
mod device;
mod first_run;
mod help;
mod import;
mod metrics;
mod origins;
mod program;
mod publish;
mod runtime;
mod serve;
mod watch;
mod wire;
