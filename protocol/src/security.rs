//! What stands between HTTP and the socket.

/// How the connections of one listening socket are protected: what
/// [`Connection::accept`](crate::Connection::accept) makes them of. A driver hands it through and
/// knows nothing of it.
///
/// ```
/// use std::{sync::Arc, time::Instant};
/// use otter_protocol::{Config, Connection, Now, Security};
///
/// let now = Now { instant: Instant::now(), unix: 1_795_478_791 };
/// let config = Arc::new(Config::default());
/// let connection: Connection = Connection::accept(config, &Security::Plain, now);
/// assert!(!connection.is_handshaking());
/// ```
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub enum Security {
    /// Not at all: HTTP on TCP, as most devices speak it (port 7442).
    #[default]
    Plain,
    /// By TLS, with these settings (port 7443). See
    /// [`Connection::tls`](crate::Connection::tls).
    #[cfg(feature = "tls")]
    Tls(std::sync::Arc<rustls::ServerConfig>),
}
