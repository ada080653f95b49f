//! A store in memory with one owner, one device and one release.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use otter_protocol::{Answer, ApiKey, DeviceId, Grant, Kind, OwnerId, Query, Token};
use otter_store::{
    DeviceChange, Image, Memory, MemoryOptions, NewRelease, Operator, Published, Target,
};
use tempfile::TempDir;

use crate::{Peer, answers, request};

/// The store, and who comes to it.
pub struct Shop {
    /// The store.
    pub memory: Memory,
    /// Its one owner.
    pub owner: OwnerId,
    /// The owner's key.
    pub key: ApiKey,
    _images: TempDir,
}

impl Shop {
    /// A store whose device is registered, takes updates, and runs what is published: an image of
    /// `image_bytes`.
    ///
    /// # Errors
    /// If there is no temporary directory, or the device is refused.
    pub fn open(image_bytes: usize) -> Result<Self> {
        let images = tempfile::tempdir()?;
        let memory = Memory::open(images.path(), MemoryOptions::default())?;
        let (owner, key) = staffed(&memory.operator())?;
        publish(&memory.operator(), owner, request::VERSION, image_bytes)?;
        let shop = Self { memory, owner, key, _images: images };
        let mut peer = shop.peer();
        let check_in = request::check_in(&shop, request::VERSION);
        ensure!(peer.hear(&check_in).starts_with(b"HTTP/1.1 200 "), "not registered");
        let change = DeviceChange { auto_update: Some(true), alias: None };
        shop.memory.operator().set_device(DEVICE, change)?;
        // It is told so, and from then on nothing is new.
        peer.say(&check_in);
        Ok(shop)
    }

    /// A connection of the device.
    pub fn peer(&self) -> Peer<Image, impl FnMut(Query) -> Answer<Image> + use<>> {
        Peer::new(answers(self.memory.store(Arc::new(|| {}))))
    }

    /// A token for the device's newest release that was redeemed before, so that the next time
    /// nothing is written.
    ///
    /// # Errors
    /// If there is none.
    pub fn token(&self) -> Result<Token> {
        let grant = Grant {
            release: None,
            forced: true,
            unused: Duration::from_secs(24 * 3600),
            used: Duration::from_secs(24 * 3600),
            transfer: Duration::from_secs(900),
        };
        let token = self.memory.operator().issue_token(DEVICE, &grant)?.token;
        let heard = self.peer().hear(&request::redeem(&token, 16));
        ensure!(heard.starts_with(b"HTTP/1.1 206 "), "{}", heard.escape_ascii());
        Ok(token)
    }
}

/// An owner with a key.
///
/// # Errors
/// If the store keeps neither.
fn staffed(operator: &Operator) -> Result<(OwnerId, ApiKey)> {
    let owner = OwnerId::parse(&"0123456789abcdef".repeat(4)).context("an owner id")?;
    operator.create_owner(Some(owner))?;
    Ok((owner, operator.create_key(&owner, "measured")?.key))
}

fn publish(
    operator: &Operator,
    owner: OwnerId,
    version: &str,
    image_bytes: usize,
) -> Result<Published> {
    let content: Vec<u8> = (0..image_bytes).map(|at| (at * 7 + at / 251) as u8).collect();
    let staged = operator.stage(&mut &content[..], image_bytes as u64)?;
    let release = NewRelease {
        owner,
        target: Target::All,
        version: version.to_owned(),
        platform: "arduino".to_owned(),
        env_hash: None,
        kind: Kind::Image,
        source: None,
    };
    Ok(operator.publish(release, staged, &|_, _, _| true)?)
}

/// As [`request::check_in`] names it.
const DEVICE: DeviceId = DeviceId(0x5ccf_7fee_1337_4000_8000_0000_0000_0001_u128.to_be_bytes());
