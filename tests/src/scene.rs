//! A small service with names: two owners, their devices, perhaps a release and a token.

use otter_protocol::{ApiKey, Config, DeviceId, Grant, Mac, OwnerId, ReleaseId, StatusMode, Token};

use crate::exchange::kind;
use crate::{Clock, Draft, Exchange, Fields, Heard, ModelStore, Request, Target};

/// The owner of [`DEVICE`].
pub const OWNER: &str = "07cef9718edaad79b3974251bb5ef4aedca58703142e8c4c48c20f96cda4979c";
/// A key of [`OWNER`].
pub const KEY: &str = "88eb20839c1d8bf43819818b75a25cef3244c28e77817386b7b73b043193cef4";
/// A device of [`OWNER`] with the name [`ALIAS`] and the address [`MAC`].
pub const DEVICE: &str = "5ccf7fee-1337-4000-8000-00000000ab01";
/// The address of [`DEVICE`] as libraries send it.
pub const MAC: &str = "5CCF7F3D8F2A";
/// The address of [`DEVICE`] as the server writes it.
pub const MAC_SHOWN: &str = "5C:CF:7F:3D:8F:2A";
/// The name of [`DEVICE`].
pub const ALIAS: &str = "dev1";

/// Another owner.
pub const OTHER_OWNER: &str = "d2e85e0f04ee7ff3e5a61e1a2d8ca9a7dcbd8ae2ee1bf6a3b8d9e1c5b0f9a6e7";
/// A key of [`OTHER_OWNER`].
pub const OTHER_KEY: &str = "0f1e2d3c4b5a69788796a5b4c3d2e1f00f1e2d3c4b5a69788796a5b4c3d2e1f0";
/// A device of [`OTHER_OWNER`].
pub const OTHER_DEVICE: &str = "6ddf7fee-1337-4000-8000-00000000cd02";

/// A key that nobody has.
pub const NO_KEY: &str = "ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff";
/// An owner that has no keys.
pub const NO_OWNER: &str = "eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee";
/// A device that nobody has.
pub const NO_DEVICE: &str = "7eef7fee-1337-4000-8000-00000000ef03";

/// A store with [`OWNER`], [`OTHER_OWNER`] and one device of each, and settings to serve it with.
#[derive(Clone, Debug)]
pub struct Scene {
    /// The store; its clock stands at [`Clock::UNIX_START`].
    pub store: ModelStore,
    /// The settings of the connections.
    pub config: Config,
}

impl Scene {
    /// Nothing is published, and no device has `auto_update`.
    #[must_use]
    pub fn new() -> Self {
        let mut store = ModelStore::new(1);
        store.set_clock(Clock::start().since_1970());
        store.add_key(owner(OWNER), key(KEY));
        store.add_key(owner(OTHER_OWNER), key(OTHER_KEY));
        store.register(owner(OWNER), device(DEVICE), Mac::parse(MAC), ALIAS);
        store.register(owner(OTHER_OWNER), device(OTHER_DEVICE), None, "other");
        Self { store, config: Config::default() }
    }

    /// With a binary for [`DEVICE`].
    #[must_use]
    pub fn with_release(mut self, version: &str, size: usize) -> Self {
        self.publish(&Draft::binary(version, size));
        self
    }

    /// With `auto_update` for [`DEVICE`].
    #[must_use]
    pub fn with_auto_update(mut self) -> Self {
        self.store.set_auto_update(device(DEVICE), true);
        self
    }

    /// With [`StatusMode::Http`].
    #[must_use]
    pub fn with_http_statuses(mut self) -> Self {
        self.config.status_mode = StatusMode::Http;
        self
    }

    /// Publishes for [`DEVICE`].
    pub fn publish(&mut self, draft: &Draft) -> ReleaseId {
        self.store.publish(Target::Device(device(DEVICE)), draft)
    }

    /// Issues a token to [`DEVICE`].
    pub fn issue(&mut self, release: Option<ReleaseId>) -> Token {
        self.store.issue(device(DEVICE), self.grant(release))
    }

    /// A grant with the lives that the settings give.
    #[must_use]
    pub fn grant(&self, release: Option<ReleaseId>) -> Grant {
        Grant {
            release,
            forced: false,
            unused: self.config.token_unused,
            used: self.config.token_used,
            transfer: self.config.transfer_timeout,
        }
    }

    /// A connection to a copy of this service, on a line of its own.
    #[must_use]
    pub fn exchange(&self) -> Exchange {
        Exchange::new(self.store.clone(), self.config.on_another_line())
    }

    /// A connection to a copy of this service that shares its line with all such.
    #[must_use]
    pub fn exchange_beside_others(&self) -> Exchange {
        Exchange::new(self.store.clone(), self.config.clone())
    }
}

impl Default for Scene {
    fn default() -> Self {
        Self::new()
    }
}

/// A release for [`DEVICE`], and a token that is good for it.
#[derive(Clone, Debug)]
pub struct Redeemable {
    /// The service.
    pub scene: Scene,
    /// What the token is good for.
    pub release: ReleaseId,
    /// The token.
    pub token: Token,
}

impl Redeemable {
    /// Publishes, and issues a token.
    #[must_use]
    pub fn of(draft: &Draft) -> Self {
        let mut scene = Scene::new();
        let release = scene.publish(draft);
        let token = scene.issue(Some(release));
        Self { scene, release, token }
    }

    /// The request that redeems the token.
    #[must_use]
    pub fn get(&self) -> Request {
        Request::get(&format!("/device/firmware?ott={}", token_text(self.token)))
    }

    /// A connection to a copy of the service.
    #[must_use]
    pub fn exchange(&self) -> Exchange {
        self.scene.exchange()
    }

    /// What comes of a request on a connection of its own.
    #[must_use]
    pub fn fetch(&self, request: &Request) -> (Exchange, Heard) {
        let mut exchange = self.exchange();
        let heard = exchange.request(&request.bytes());
        (exchange, heard)
    }

    /// A connection on which the token was redeemed and started and everything that is shown was
    /// taken, so that the claim is asked and not answered.
    ///
    /// # Panics
    /// If the core asks anything else, or claims while there is something to send.
    #[must_use]
    pub fn up_to_the_claim(&self, request: &Request) -> Exchange {
        let mut exchange = self.exchange();
        exchange.input(&request.bytes());
        for expected in ["Redeem", "Start"] {
            assert_eq!(exchange.ask().as_ref().map(kind), Some(expected));
            exchange.answer_truly();
        }
        assert!(exchange.ask().is_none(), "no claim while earlier bytes are there to send");
        while exchange.take(usize::MAX) > 0 {}
        assert_eq!(exchange.ask().as_ref().map(kind), Some("Claim"));
        exchange
    }
}

/// What [`DEVICE`] says of itself with library 2.9.450 (docs/wire.md 1.1), at version 1.0.0.
#[must_use]
pub fn registration() -> Fields {
    Fields::none()
        .text("mac", MAC)
        .text("version", "1.0.0")
        .text("owner", OWNER)
        .text("alias", "unnamed")
        .text("udid", DEVICE)
        .text("firmware", "thinx-lib-esp32-arduino:2.9.450")
        .text("status", "Registered")
        .text("platform", "arduino:esp8266")
        .text("fcid", "164020")
}

/// What [`DEVICE`] sends to `/device/firmware` (docs/wire.md 1.2).
#[must_use]
pub fn firmware() -> Fields {
    Fields::none()
        .text("mac", MAC)
        .text("udid", DEVICE)
        .text("owner", OWNER)
        .text("version", "1.0.0")
}

/// The text of a token.
#[must_use]
pub fn token_text(token: Token) -> String {
    crate::image::hex(&token.0)
}

/// One of the owners above.
///
/// # Panics
/// If `text` is no owner id.
#[must_use]
pub fn owner(text: &str) -> OwnerId {
    OwnerId::parse(text).expect("an owner id")
}

/// One of the keys above.
///
/// # Panics
/// If `text` is no key.
#[must_use]
pub fn key(text: &str) -> ApiKey {
    ApiKey::parse(text.as_bytes()).expect("a key")
}

/// One of the devices above.
///
/// # Panics
/// If `text` is no UUID.
#[must_use]
pub fn device(text: &str) -> DeviceId {
    DeviceId::parse(text).expect("a device id")
}
