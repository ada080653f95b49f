//! What is beneath HTTP in the suites that hold the core to docs/wire.md: they know nothing of it.

use std::env;
use std::sync::{Arc, OnceLock};

use rustls::{ClientConfig, ServerConfig};

use super::{Terms, V1_2, V1_3};

/// What [`crate::Watched::new`] puts beneath HTTP. The variable `OTTER_BENEATH` says what
/// (`plain`, `tls12`, `tls13`), else the name of the test binary (`over_tls_1_2`, `over_tls_1_3`).
#[derive(Clone, Debug)]
pub struct Beneath {
    /// The server's settings, shared by all connections of the process.
    pub server: Arc<ServerConfig>,
    /// The client's: one that comes back takes up its session again.
    pub client: Arc<ClientConfig>,
    /// Does the client end with close_notify and leave its socket open? Else the socket ends and
    /// nothing announced it.
    pub ends_by_alert: bool,
}

impl Beneath {
    /// What this process puts there; `None`: nothing.
    pub fn of_this_process() -> Option<&'static Self> {
        static BENEATH: OnceLock<Option<Beneath>> = OnceLock::new();
        BENEATH.get_or_init(|| Self::named(&name())).as_ref()
    }

    /// Old devices and new ones: small records and whole ones, tickets or not, one end or the
    /// other.
    fn named(name: &str) -> Option<Self> {
        let (terms, ends_by_alert) = match name {
            "tls12" => (Terms { fragment_max: Some(512), ..Terms::only(V1_2) }, true),
            "tls13" => (Terms { fragment_max: None, ..Terms::only(V1_3) }, false),
            _ => return None,
        };
        Some(Self { server: terms.server(), client: terms.client(), ends_by_alert })
    }
}

/// What TLS cannot do as plain HTTP does. There is nothing else: a test of the suites that does not
/// name one of these must come out the same: bytes, queries, reports, deadlines and ends.
///
/// Not among the suites are `cuts`, as ciphertext is what must be cut there
/// (`tests/tests/tls/laws.rs`), and the deadline of the handshake, which is done before a suite
/// begins (`tests/tests/tls/handshakes.rs`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Difference {
    /// The test looks at what `transmit` shows, piece by piece. Over TLS that is ciphertext, and
    /// an image is never shown as such.
    Pieces,
    /// The test lets the socket take an exact number of bytes, and less than a record. Over TLS a
    /// record gives all of its plaintext or none: `tests/tests/tls/slow.rs` counts ciphertext.
    PartialTakes,
}

impl Difference {
    /// Is there such a difference in this process? Then the test has nothing to say.
    #[must_use]
    pub fn is_here(self) -> bool {
        match self {
            Self::Pieces | Self::PartialTakes => Beneath::of_this_process().is_some(),
        }
    }
}

fn name() -> String {
    env::var("OTTER_BENEATH").unwrap_or_else(|_| {
        let binary = env::current_exe().ok();
        let stem = binary.as_deref().and_then(|path| path.file_stem()).unwrap_or_default();
        let stem = stem.to_string_lossy();
        let known = [("over_tls_1_2", "tls12"), ("over_tls_1_3", "tls13")];
        let name = known.iter().find(|(binary, _)| stem.starts_with(binary));
        name.map_or("plain", |(_, name)| name).to_owned()
    })
}
