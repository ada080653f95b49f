//! Who presents a key, and which device is it: the question behind every request.

use std::rc::Rc;
use std::sync::Arc;

use futures_util::future::{join, try_join, try_join_all};
use otter_protocol::{
    Answer, DeviceId, DeviceStanding, Identify, KeyStanding, Mac, OwnerId, Standing,
};
use tokio::task;

use super::catalog::Catalog;
use super::desk::{Desk, ask_device};
use super::device::{Known, Remembered};
use super::keys;
use super::op::Op;
use super::reply::Reply;
use super::trouble::Trouble;
use crate::job::Promise;

/// A question that names owner and device, as nearly all do.
pub(super) struct Plain {
    pub(super) identify: Identify,
    pub(super) device: DeviceId,
    pub(super) promise: Promise,
}

impl Desk {
    /// Answers the plain questions of one turn that have one owner in one task: a task for each
    /// would cost as much as all else that is done for it.
    pub(super) async fn identify_all(self: Rc<Self>, owner: OwnerId, asked: Vec<Plain>) {
        let remembered: Vec<Option<Rc<Remembered>>> =
            asked.iter().map(|plain| self.remembered(plain.device)).collect();
        let each = asked.iter().zip(&remembered);
        let ops = each.map(|(plain, remembered)| ask_device(plain.device, remembered.as_deref()));
        let devices = self.link.ask_all(ops);
        let (devices, catalog) = join(devices.replies(), self.owner(&owner)).await;
        let devices = devices.into_iter().zip(remembered);
        for (Plain { identify, device, promise }, (reply, old)) in asked.into_iter().zip(devices) {
            let known = reply.and_then(|reply| self.learn(device, old, reply));
            match (known, &catalog) {
                (Ok(None), Ok(_)) if identify.mac.is_some() => {
                    let desk = Rc::clone(&self);
                    task::spawn_local(async move {
                        let standing = desk.identify(&identify).await;
                        desk.end(promise.answer(answer(standing)));
                    });
                }
                (Ok(known), Ok(catalog)) => {
                    let known = known.as_ref().map(|device| &device.known);
                    let standing = self.standing(&identify, known, catalog);
                    self.end(promise.answer(Answer::Standing(standing)));
                }
                (Err(_), _) | (_, Err(_)) => self.end(promise.answer(Answer::Unavailable)),
            }
        }
    }

    /// Reads a reply, and remembers the device if it is not as it was.
    fn learn(
        &self,
        udid: DeviceId,
        old: Option<Rc<Remembered>>,
        reply: Reply,
    ) -> Result<Option<Rc<Remembered>>, Trouble> {
        let device = Remembered::read(udid, old.clone(), reply)?;
        if let Some(device) = &device
            && old.is_none_or(|old| !Rc::ptr_eq(&old, device))
        {
            self.remember(device);
        }
        Ok(device)
    }

    /// Answers one question.
    pub(super) async fn identify(
        self: &Rc<Self>,
        identify: &Identify,
    ) -> Result<Standing, Trouble> {
        let Identify { owner, device, mac, .. } = *identify;
        let Some(owner) = owner else {
            return match self.known(device).await? {
                Some(known) => {
                    let catalog = self.owner(&known.owner).await?;
                    Ok(self.standing(identify, Some(&known), &catalog))
                }
                None => Ok(unknown(KeyStanding::Wrong)),
            };
        };
        let found = async {
            match (self.known(device).await?, mac) {
                (None, Some(mac)) => self.find_mac(&owner, mac).await,
                (known, _) => Ok(known),
            }
        };
        let (known, catalog) = try_join(found, self.owner(&owner)).await?;
        Ok(self.standing(identify, known.as_ref(), &catalog))
    }

    async fn known(&self, device: Option<DeviceId>) -> Result<Option<Known>, Trouble> {
        match device {
            Some(device) => self.device(device).await,
            None => Ok(None),
        }
    }

    fn standing(
        &self,
        identify: &Identify,
        known: Option<&Known>,
        catalog: &Rc<Catalog>,
    ) -> Standing {
        let key = catalog.standing(&identify.key, self.accept_key_hash);
        let Some(known) = known else { return unknown(key) };
        if identify.owner.is_some_and(|owner| owner != known.owner) {
            return Standing { key, device: DeviceStanding::Foreign, newest: None };
        }
        let newest = catalog.newest(known.device.id, known.platform.as_deref()).map(Arc::clone);
        Standing { key, device: DeviceStanding::Known(known.device.clone()), newest }
    }

    async fn find_mac(&self, owner: &OwnerId, mac: Mac) -> Result<Option<Known>, Trouble> {
        let reply = self.link.ask(Op::read("holders", [keys::mac(owner, mac)])).await?;
        let found = self.holding(reply).await?;
        Ok(found.into_iter().find_map(|(_, known)| known.filter(|known| holds(known, owner, mac))))
    }

    /// The devices behind the entries of a MAC, in their order; some may be none yet, or have
    /// another MAC by now.
    pub(super) async fn holding(
        &self,
        mut reply: Reply,
    ) -> Result<Vec<(DeviceId, Option<Known>)>, Trouble> {
        let mut udids = Vec::new();
        while !reply.is_empty() {
            udids.push(reply.parsed(DeviceId::parse)?);
        }
        let known = try_join_all(udids.iter().map(|udid| self.device(*udid))).await?;
        Ok(udids.into_iter().zip(known).collect())
    }
}

/// Has a device of this owner this MAC?
pub(super) fn holds(known: &Known, owner: &OwnerId, mac: Mac) -> bool {
    known.owner == *owner && known.device.mac == Some(mac)
}

fn unknown(key: KeyStanding) -> Standing {
    Standing { key, device: DeviceStanding::Unknown, newest: None }
}

fn answer(standing: Result<Standing, Trouble>) -> Answer<()> {
    standing.map_or(Answer::Unavailable, Answer::Standing)
}
