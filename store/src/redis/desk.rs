//! Who answers queries: one task each, on the thread that owns the line to Redis.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::{LocalBoxFuture, Shared};
use otter_protocol::{DeviceId, OwnerId, ReleaseId};
use rapidhash::fast::RandomState;
use tokio::sync::Notify;

use super::catalog::Catalog;
use super::device::{Known, Remembered};
use super::keys;
use super::link::Link;
use super::op::Op;
use super::trouble::Trouble;
use crate::images::Images;
use crate::inbox::Inbox;
use crate::stats::Counters;
use crate::token::{Mint, TokenHash};

/// What all tasks of the thread share.
pub(super) struct Desk {
    pub(super) link: Rc<Link>,
    pub(super) images: Arc<Images>,
    pub(super) counters: Arc<Counters>,
    pub(super) mint: Mint,
    pub(super) accept_key_hash: bool,
    catalogs: RefCell<HashMap<OwnerId, Rc<Catalog>>>,
    checks: RefCell<Checks>,
    holders: RefCell<HashMap<TokenHash, Holder>>,
    /// Devices that checked in here, each as it was then.
    devices: RefCell<HashMap<DeviceId, Rc<Remembered>, RandomState>>,
    /// Whose each release is that was read here.
    releases: RefCell<HashMap<ReleaseId, OwnerId>>,
    open: Cell<usize>,
    all_done: Notify,
    rung: RefCell<Vec<Arc<Inbox>>>,
    bell: Notify,
}

/// Questions for owners that were asked and not sent yet: whoever comes in time shares them.
#[derive(Default)]
struct Checks {
    turn: u64,
    by_owner: HashMap<OwnerId, Shared<Check>>,
}

/// A question for an owner.
type Check = LocalBoxFuture<'static, Result<Rc<Catalog>, Trouble>>;

/// Whose a token is. Never changes, so that it may be remembered.
#[derive(Clone, Copy, Debug)]
pub(super) struct Holder {
    pub(super) device: DeviceId,
    pub(super) owner: OwnerId,
}

impl Desk {
    pub(super) fn new(
        link: Rc<Link>,
        images: Arc<Images>,
        counters: Arc<Counters>,
        accept_key_hash: bool,
    ) -> Self {
        Self {
            link,
            images,
            counters,
            mint: Mint::new(),
            accept_key_hash,
            catalogs: RefCell::default(),
            checks: RefCell::default(),
            holders: RefCell::default(),
            devices: RefCell::default(),
            releases: RefCell::default(),
            open: Cell::new(0),
            all_done: Notify::new(),
            rung: RefCell::default(),
            bell: Notify::new(),
        }
    }

    /// What is known of an owner now. All who ask in one turn share one question.
    ///
    /// # Errors
    /// See [`Trouble`].
    pub(super) async fn owner(self: &Rc<Self>, owner: &OwnerId) -> Result<Rc<Catalog>, Trouble> {
        let check = {
            let mut checks = self.checks.borrow_mut();
            let turn = self.link.turn();
            if checks.turn != turn {
                checks.turn = turn;
                checks.by_owner.clear();
            }
            let ask = || Rc::clone(self).check(*owner).boxed_local().shared();
            checks.by_owner.entry(*owner).or_insert_with(ask).clone()
        };
        check.await
    }

    async fn check(self: Rc<Self>, owner: OwnerId) -> Result<Rc<Catalog>, Trouble> {
        let known = self.catalogs.borrow().get(&owner).map(Rc::clone);
        let names = [keys::api_keys(&owner), keys::owner(&owner), keys::releases(&owner)];
        let tag = known.as_ref().map_or_else(String::new, |catalog| catalog.tag.clone());
        let reply = self.link.ask(Op::read("owner", names).arg(tag)).await?;
        let Some(catalog) = Catalog::read(&owner, reply)? else {
            return known.ok_or_else(|| Trouble::odd("an owner is as nobody knew it"));
        };
        if catalog.exists() && catalog.created.is_none() {
            // THiNX made it after this Redis was first seen here.
            self.found(&owner, None).await?;
        }
        let catalog = Rc::new(catalog);
        let mut releases = self.releases.borrow_mut();
        forget_beyond(&mut releases, REMEMBERED_MAX);
        releases.extend(catalog.releases.rows.iter().map(|row| (row.offer.release, owner)));
        if catalog.exists() {
            let mut catalogs = self.catalogs.borrow_mut();
            forget_beyond(&mut catalogs, OWNERS_MAX);
            catalogs.insert(owner, Rc::clone(&catalog));
        } else {
            self.catalogs.borrow_mut().remove(&owner);
        }
        Ok(catalog)
    }

    /// What is known of a device.
    ///
    /// # Errors
    /// See [`Trouble`].
    pub(super) async fn device(&self, udid: DeviceId) -> Result<Option<Known>, Trouble> {
        let reply = self.link.ask(ask_device(udid, None)).await?;
        let read = Remembered::read(udid, None, reply)?;
        Ok(read.and_then(Rc::into_inner).map(|read| read.known))
    }

    /// A device as it was when it was read last, if that is remembered.
    pub(super) fn remembered(&self, udid: DeviceId) -> Option<Rc<Remembered>> {
        self.devices.borrow().get(&udid).map(Rc::clone)
    }

    /// Remembers a device.
    pub(super) fn remember(&self, device: &Rc<Remembered>) {
        let mut devices = self.devices.borrow_mut();
        forget_beyond(&mut devices, DEVICES_MAX);
        devices.insert(device.known.device.id, Rc::clone(device));
    }

    /// A string.
    ///
    /// # Errors
    /// See [`Trouble`].
    pub(super) async fn text(&self, key: String) -> Result<Option<String>, Trouble> {
        let mut reply = self.link.ask(Op::read("text", [key])).await?;
        Ok(reply.optional()?.map(|text| text.to_string()))
    }

    /// Whose a token is; `None` if nobody issued it.
    ///
    /// # Errors
    /// See [`Trouble`].
    pub(super) async fn holder(&self, hash: &TokenHash) -> Result<Option<Holder>, Trouble> {
        if let Some(holder) = self.holders.borrow().get(hash) {
            return Ok(Some(*holder));
        }
        let Some(text) = self.text(keys::token(hash)).await? else { return Ok(None) };
        let holder = text.split_once(' ').and_then(|(device, owner)| {
            Some(Holder { device: DeviceId::parse(device)?, owner: OwnerId::parse(owner)? })
        });
        let holder = holder.ok_or_else(|| Trouble::odd("a token leads nowhere"))?;
        let mut holders = self.holders.borrow_mut();
        forget_beyond(&mut holders, REMEMBERED_MAX);
        holders.insert(*hash, holder);
        Ok(Some(holder))
    }

    /// Whose a release is.
    ///
    /// # Errors
    /// See [`Trouble`].
    pub(super) async fn owner_of(&self, release: ReleaseId) -> Result<Option<OwnerId>, Trouble> {
        if let Some(owner) = self.releases.borrow().get(&release) {
            return Ok(Some(*owner));
        }
        let text = self.text(keys::release(release)).await?;
        Ok(text.as_deref().and_then(OwnerId::parse))
    }

    /// A query was taken.
    pub(super) fn begin(&self) {
        self.open.set(self.open.get() + 1);
    }

    /// A query was answered into this inbox, which is rung at the end of the turn.
    pub(super) fn end(&self, inbox: Arc<Inbox>) {
        self.open.set(self.open.get() - 1);
        if self.open.get() == 0 {
            self.all_done.notify_one();
        }
        let mut rung = self.rung.borrow_mut();
        if !rung.iter().any(|other| Arc::ptr_eq(other, &inbox)) {
            rung.push(inbox);
            self.bell.notify_one();
        }
    }

    /// Rings those whose queries were answered, once per turn, forever.
    pub(super) async fn ring(self: Rc<Self>) {
        loop {
            self.bell.notified().await;
            tokio::task::yield_now().await;
            let rung = std::mem::take(&mut *self.rung.borrow_mut());
            rung.iter().for_each(|inbox| inbox.ring());
        }
    }

    /// Lets go of questions that are not answered: they hold the desk, as it holds them.
    pub(super) fn close(&self) {
        self.checks.borrow_mut().by_owner.clear();
    }

    /// Waits until no query is open.
    pub(super) async fn done(&self) {
        while self.open.get() > 0 {
            self.all_done.notified().await;
        }
    }
}

/// Asks for a device, unless it still is as it is remembered.
pub(super) fn ask_device(udid: DeviceId, remembered: Option<&Remembered>) -> Op {
    let state = remembered.map_or_else(String::new, |remembered| remembered.state.clone());
    Op::read("device", [keys::device(udid)]).arg(state)
}

/// What is remembered may be forgotten at any time; so it is, all at once, where it grows too
/// large.
fn forget_beyond<K, V, S>(remembered: &mut HashMap<K, V, S>, max: usize) {
    if remembered.len() >= max {
        remembered.clear();
    }
}

/// Devices that are remembered, some 500 bytes each.
const DEVICES_MAX: usize = 65_536;
/// Owners whose keys and releases are remembered.
const OWNERS_MAX: usize = 10_000;
/// Tokens and releases whose owner is remembered: some 100 bytes each.
const REMEMBERED_MAX: usize = 65_536;
