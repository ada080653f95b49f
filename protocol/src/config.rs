//! Every limit and switch of the core, with unit, default and what happens beyond it.

use std::sync::Arc;
use std::time::Duration;

use crate::buffers::Buffers;
use crate::exchange::Spare;
use crate::outflow::Outflow;

/// Settings of the core, shared by any number of connections.
///
/// ```
/// use otter_protocol::Config;
/// let mut config = Config::default();
/// config.body_bytes_max = 4096;
/// assert_eq!(config.head_bytes_max, 8192);
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Config {
    /// Bytes of a request's head, from its first byte to the empty line. Default 8192.
    /// Beyond: 431 and close.
    pub head_bytes_max: usize,
    /// Header lines of a request. Default 64, which is also the most. Beyond: 431 and close.
    pub headers_max: usize,
    /// Bytes of a request's target. Default 2048. Beyond: 414 and close.
    pub target_bytes_max: usize,
    /// Bytes of a request's body after chunked decoding. Default 16384. Beyond: 413 and close.
    pub body_bytes_max: usize,
    /// Bytes of one chunk-size line with its extensions. Default 1024. Beyond: 400 and close.
    pub chunk_line_bytes_max: usize,
    /// Bytes of the trailer section of a chunked body. Default 4096. Beyond: 431 and close.
    pub trailer_bytes_max: usize,
    /// Levels of nesting in a JSON body. Default 8. Beyond: 400.
    pub json_depth_max: usize,
    /// Requests in a row that were already waiting when the one before them was answered.
    /// Default 32. Beyond: the connection is closed after the answer.
    pub pipelined_requests_max: u8,
    /// How long a connection may be silent between requests. Default 75 s. Beyond: closed
    /// without a word.
    pub idle_timeout: Duration,
    /// From the connection to the end of the TLS handshake. Default 10 s: small chips take up to
    /// four for their part. Beyond: closed.
    pub handshake_timeout: Duration,
    /// From the first byte of a request to the end of its head; not extended by further bytes.
    /// Default 10 s. Beyond: 408 and close.
    pub head_timeout: Duration,
    /// From the end of the head to the end of the body; not extended by further bytes.
    /// Default 15 s. Beyond: 408 and close.
    pub body_timeout: Duration,
    /// How long the store may take to answer one query. Default 2 s. Beyond: 503 and close
    /// (for a claim: closed without the tail).
    pub answer_timeout: Duration,
    /// Seconds that a 503 names in `Retry-After`. Default 10.
    pub retry_after_s: u32,
    /// The window over which the least sending rate is judged. Default 30 s.
    pub send_window: Duration,
    /// Bytes that the peer must take in each `send_window` while an answer is on its way.
    /// Default 7680 (256 bytes/s over 30 s). Below: closed.
    pub send_window_bytes_min: u64,
    /// How long one answer may take to send in all. Default 15 min. Beyond: closed.
    pub transfer_timeout: Duration,
    /// A download begins only while what was admitted before it would leave within this time, at
    /// the rate of the last seconds. Default 3 min: downloads that share a line evenly then take
    /// twice as long, well within `transfer_timeout`. Beyond: 503, and the token is as it was;
    /// from half of it on check-ins get no offer ([`crate::Outcome::HeldBack`]).
    pub transfer_backlog: Duration,
    /// What the line is known to carry in `transfer_backlog`, in bytes of images: so many, and as
    /// many downloads as get twice the least rate of it, are admitted in any case. While the line
    /// carries less than a quarter of it, it is not full: then so many are admitted beside
    /// those that have been on their way for 16 s. Default 1 GiB, which is 6 MB/s. `u64::MAX`: no
    /// download is put off, whatever the line carries.
    pub transfer_backlog_bytes_min: u64,
    /// After the last answer: how long the peer's remaining bytes are read and dropped, so that
    /// they cannot reset the answer away. Default 1 s. Beyond: closed.
    pub linger_timeout: Duration,
    /// How many such bytes. Default 65536. Beyond: closed.
    pub linger_bytes_max: u32,
    /// Statuses of refusals. Default [`StatusMode::Thinx`].
    pub status_mode: StatusMode,
    /// In [`StatusMode::Thinx`]: let refusals of `GET /device/firmware` be 200 too, as THiNX'
    /// own tests expect. Default false: the device updaters act on the status (docs/wire.md 2.4).
    pub thinx_get_200: bool,
    /// How old `last seen` may become before a check-in that changes nothing is kept. Default
    /// 10 min.
    pub seen_resolution: Duration,
    /// Life of a token that nobody tried. Default 24 h (docs/token.md).
    pub token_unused: Duration,
    /// Life of a token from the first attempt. Default 1 h (docs/token.md).
    pub token_used: Duration,
    /// How many check-ins in a row may be answered with the same offer before the device is left
    /// alone as boot-looping (docs/wire.md 5). Default 8. A new release, another version reported,
    /// or the operator setting the device's `auto_update` starts over.
    pub offers_max: u8,
    /// How long a device that reports a failed update is left alone; doubles with each further
    /// failure up to 24 h (docs/wire.md 2.4). Default 10 min.
    pub failure_backoff: Duration,
    /// What libraries 2.3.x are told to download from (docs/wire.md 2.6): scheme and authority
    /// without a final `/`, at most 64 bytes; longer counts as none. Default none: they are
    /// offered `ott` like all others and download from their built-in host.
    pub public_url: Option<Arc<str>>,
    pub(crate) spare: Spare,
    pub(crate) buffers: Buffers,
    pub(crate) outflow: Outflow,
}

/// Which status codes refusals of the device API carry. The bodies are the same in both.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StatusMode {
    /// 200 for most refusals, as the libraries in the field expect (docs/wire.md 1).
    #[default]
    Thinx,
    /// 400, 401, 403 and 404 as RFC 9110 means them.
    Http,
}

impl Config {
    /// The same settings for connections that share no line with those of `self`. Clones do share
    /// it: what the line carries is what all of a server's threads send together.
    #[must_use]
    pub fn on_another_line(&self) -> Self {
        Self { outflow: Outflow::default(), ..self.clone() }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            head_bytes_max: 8192,
            headers_max: 64,
            target_bytes_max: 2048,
            body_bytes_max: 16384,
            chunk_line_bytes_max: 1024,
            trailer_bytes_max: 4096,
            json_depth_max: 8,
            pipelined_requests_max: 32,
            idle_timeout: Duration::from_secs(75),
            handshake_timeout: Duration::from_secs(10),
            head_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(15),
            answer_timeout: Duration::from_secs(2),
            retry_after_s: 10,
            send_window: Duration::from_secs(30),
            send_window_bytes_min: 7680,
            transfer_timeout: Duration::from_secs(15 * 60),
            transfer_backlog: Duration::from_secs(3 * 60),
            transfer_backlog_bytes_min: 1024 * 1024 * 1024,
            linger_timeout: Duration::from_secs(1),
            linger_bytes_max: 65536,
            status_mode: StatusMode::Thinx,
            thinx_get_200: false,
            seen_resolution: Duration::from_secs(600),
            token_unused: Duration::from_secs(24 * 3600),
            token_used: Duration::from_secs(3600),
            offers_max: 8,
            failure_backoff: Duration::from_secs(600),
            public_url: None,
            spare: Spare::default(),
            buffers: Buffers::default(),
            outflow: Outflow::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What connections lend each other is no setting: it is neither copied nor shown. What they
    /// know of their line is not shown either.
    #[test]
    fn a_clone_has_the_settings_and_nothing_else() {
        let config = Config { head_bytes_max: 1000, ..Config::default() };
        config.buffers.put(config.buffers.take());
        let clone = config.clone();
        assert_eq!((config.head_bytes_max, clone.head_bytes_max), (1000, 1000));
        let shown = format!("{clone:?}");
        assert!(shown.contains("head_bytes_max: 1000"), "{shown}");
        assert!(shown.ends_with("spare: Spare, buffers: Buffers, outflow: Outflow }"), "{shown}");
    }
}
