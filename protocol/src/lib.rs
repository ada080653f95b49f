//! The device side of a firmware update server as a sans-IO state machine.
#![forbid(unsafe_code)]

pub mod config;
pub mod connection;
#[cfg_attr(not(test), expect(dead_code, reason = "the connection does not use it yet"))]
mod http;
pub mod id;
#[cfg_attr(not(test), expect(dead_code, reason = "the connection does not use it yet"))]
mod json;
pub mod query;
pub mod report;
pub mod transmit;

pub use config::{Config, StatusMode};
pub use connection::{CloseReason, Connection, Now};
pub use id::{Alias, ApiKey, DeviceId, Mac, OwnerId, ReleaseId, Token};
pub use query::{
    Answer, CheckIn, Device, DeviceStanding, Grant, Identify, KeyStanding, Kind, Offer, Offered,
    Query, QueryId, Record, Recorded, Redemption, Release, Standing,
};
pub use report::{Endpoint, Outcome, Refusal, Report};
pub use transmit::Transmit;
