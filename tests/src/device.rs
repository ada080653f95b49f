//! Model devices: what each library sends, and what it makes of the answers (docs/wire.md 2).
//!
//! An [`Actor`] is as sans-IO as the core: it is woken, it hears bytes, and it says what it does.
//! Honest ones keep a [`Flash`]; whatever would break a device in the field (a smashed stack, a
//! wrong identity, an image that nobody published) is a complaint there.

pub mod arduino;
pub mod fetch;
pub mod node;
pub mod rogue;
pub mod script;

use std::fmt::{self, Debug};
use std::time::Duration;

use bytes::Bytes;
use otter_protocol::{ApiKey, Mac, OwnerId};

use crate::{Line, image};

/// Somebody at the other end of connections. It has at most one connection at a time.
pub trait Actor: Debug {
    /// When it does something by itself; `None` for never again.
    fn wake_at(&self) -> Option<Duration>;

    /// It is that time.
    fn wake(&mut self, at: Duration, overheard: &[String]) -> Vec<Act>;

    /// Something came over its connection.
    fn hear(&mut self, at: Duration, event: Event<'_>) -> Vec<Act>;

    /// Most bytes that it reads at once. Default: all there are.
    fn read_bytes_max(&self) -> usize {
        usize::MAX
    }

    /// It reads nothing before this time. Default: it reads at once.
    fn reads_at(&self) -> Duration {
        Duration::ZERO
    }

    /// What its network is like.
    fn line(&self) -> Line {
        Line::ESP8266
    }

    /// Its power fails, and is back; what is not in its flash is forgotten. Its connection is left
    /// open: nobody says that it ended. Default: it has another source of power.
    fn reboot(&mut self, _at: Duration) {}

    /// Its flash, if it is an honest device that takes updates.
    fn flash(&self) -> Option<&Flash> {
        None
    }

    /// What went wrong that never may.
    fn complaints(&self) -> &[String] {
        self.flash().map_or(&[], |flash| &flash.complaints)
    }

    /// How many check-ins ended without a reply that it could read.
    fn lost(&self) -> u32 {
        0
    }

    /// Whole images that it got, each with the token that gave it.
    fn hauls(&self) -> &[Haul] {
        self.flash().map_or(&[], |flash| &flash.hauls)
    }

    /// The server's id of it, once it knows.
    fn udid(&self) -> Option<&str> {
        None
    }
}

/// Nobody: holds a place among actors that are known by number.
#[derive(Clone, Copy, Debug)]
pub struct Absent;

impl Actor for Absent {
    fn wake_at(&self) -> Option<Duration> {
        None
    }

    fn wake(&mut self, _at: Duration, _overheard: &[String]) -> Vec<Act> {
        Vec::new()
    }

    fn hear(&mut self, _at: Duration, _event: Event<'_>) -> Vec<Act> {
        Vec::new()
    }
}

/// What an actor does. In order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Act {
    /// Opens a connection; one that is open is hung up.
    Dial,
    /// Sends bytes, as one write.
    Say(Vec<u8>),
    /// Ends its sending side, and still listens.
    End,
    /// Closes the connection.
    HangUp,
    /// Leaves the connection open and never looks at it again.
    Leave,
}

/// What an actor hears.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// Bytes, at least one.
    Bytes(&'a [u8]),
    /// The server ended.
    End,
    /// The connection broke, or could not be made.
    Reset,
}

/// A whole image and where it came from.
#[derive(Clone, PartialEq, Eq)]
pub struct Haul {
    /// The token; `None` if it came without one.
    pub token: Option<String>,
    /// The bytes.
    pub image: Bytes,
}

/// Whose a device is and what it is known by.
#[derive(Clone, Debug)]
pub struct Identity {
    /// Its owner.
    pub owner: OwnerId,
    /// The owner's key.
    pub key: ApiKey,
    /// Its address.
    pub mac: Mac,
}

impl Identity {
    /// The key as it is sent.
    #[must_use]
    pub fn key_text(&self) -> String {
        String::from_utf8_lossy(&self.key.text()).into_owned()
    }

    /// The address as the libraries send it: digits alone.
    #[must_use]
    pub fn mac_text(&self) -> String {
        self.mac.to_string().replace(':', "")
    }
}

impl Debug for Haul {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let token = self.token.as_deref().and_then(|token| token.get(..6));
        let shown = (image::version_of(&self.image), self.image.len());
        write!(f, "{token:?} gave {shown:?}")
    }
}

/// What is installed on a device, and what befell it.
#[derive(Clone)]
pub struct Flash {
    /// The image it runs.
    pub image: Bytes,
    /// All images that it took, in order.
    pub hauls: Vec<Haul>,
    /// What went wrong that never may.
    pub complaints: Vec<String>,
}

impl Debug for Flash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} after {:?}, complains {:?}", self.version(), self.hauls, self.complaints)
    }
}

impl Flash {
    /// A device that left the factory with this version.
    #[must_use]
    pub fn factory(version: &str) -> Self {
        let image = image::image(version, 1200);
        Self { image, hauls: Vec::new(), complaints: Vec::new() }
    }

    /// The version that it runs and reports.
    #[must_use]
    pub fn version(&self) -> &str {
        image::version_of(&self.image).unwrap_or_default()
    }

    /// Installs an image and starts it.
    pub fn install(&mut self, token: Option<&str>, image: Bytes) {
        if image::version_of(&image).is_none() {
            self.complain("installed what is no image");
            return;
        }
        self.hauls.push(Haul { token: token.map(str::to_owned), image: image.clone() });
        self.image = image;
    }

    /// Notes what never may happen.
    pub fn complain(&mut self, what: &str) {
        self.complaints.push(what.to_owned());
    }
}
