//! The program as a whole: real processes, real sockets, real files.
#![forbid(unsafe_code)]

mod admin;
mod certificates;
mod commands;
mod crash;
mod demo;
mod device;
mod downloads;
mod first_run;
mod help;
mod import;
mod kills;
mod many;
mod metrics;
mod origins;
mod outage;
mod program;
mod publish;
mod redis;
mod rolling;
mod runtime;
mod serve;
mod site;
mod store_copy;
mod thinx;
mod thousands;
mod tls;
mod watch;
mod wire;
