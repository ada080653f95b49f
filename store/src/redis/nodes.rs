//! Which server has which keys: all of them on one, or by hash slot on the masters of a cluster.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;

use fred::clients::Client;
use fred::interfaces::ClientLike;
use fred::types::Value;
use fred::types::config::Server;
use tokio::sync::Notify;
use tokio::task;
use tokio::time::timeout;

use super::connect::Dialer;
use super::node::{Node, command};
use crate::error::OpenError;

/// The servers, by what they have.
pub(super) struct Nodes {
    dialer: Dialer,
    /// Who has each slot: one entry for all on a single server.
    slots: RefCell<Vec<Option<Rc<Node>>>>,
    /// Those of a cluster that are known, by where they are.
    known: RefCell<HashMap<Server, Rc<Node>>>,
    /// Rung when slots seem to be elsewhere.
    pub(super) moved: Notify,
    /// Called with each server that is new.
    watch: RefCell<Option<Watch>>,
}

/// What is done with a server that is new.
type Watch = Box<dyn Fn(Rc<Node>)>;

impl Nodes {
    pub(super) fn single(dialer: Dialer, node: Node) -> Self {
        Self::new(dialer, vec![Some(Rc::new(node))])
    }

    /// The nodes of a cluster that says this of itself.
    ///
    /// # Errors
    /// [`OpenError::Redis`] if that makes no sense.
    pub(super) fn cluster(dialer: Dialer, said: &Said) -> Result<Self, OpenError> {
        let nodes = Self::new(dialer, vec![None; SLOTS]);
        nodes.take(said).ok_or_else(|| OpenError::redis("it is no cluster that has slots"))?;
        Ok(nodes)
    }

    fn new(dialer: Dialer, slots: Vec<Option<Rc<Node>>>) -> Self {
        Self {
            dialer,
            slots: RefCell::new(slots),
            known: RefCell::default(),
            moved: Notify::new(),
            watch: RefCell::default(),
        }
    }

    pub(super) fn is_cluster(&self) -> bool {
        self.dialer.is_cluster()
    }

    /// Who has a slot.
    pub(super) fn of(&self, slot: u16) -> Option<Rc<Node>> {
        let slots = self.slots.borrow();
        slots.get(usize::from(slot)).and_then(Option::clone)
    }

    /// All that have slots.
    pub(super) fn all(&self) -> Vec<Rc<Node>> {
        if self.is_cluster() {
            self.known.borrow().values().map(Rc::clone).collect()
        } else {
            self.of(0).into_iter().collect()
        }
    }

    /// Has `watch` called for each server, those that are there and those that will be.
    pub(super) fn watch(&self, watch: impl Fn(Rc<Node>) + 'static) {
        self.all().into_iter().for_each(&watch);
        *self.watch.borrow_mut() = Some(Box::new(watch));
    }

    /// Somebody says that a slot is elsewhere now, or about to be.
    pub(super) fn redirect(&self, from: &Node, to: &Redirection) -> Option<Rc<Node>> {
        let server = self.beside(from.server.as_ref()?, &to.host, to.port);
        let node = self.named(&server)?;
        if !to.asking {
            if let Some(slot) = self.slots.borrow_mut().get_mut(usize::from(to.slot)) {
                *slot = Some(Rc::clone(&node));
            }
            self.moved.notify_one();
        }
        Some(node)
    }

    /// A server of a cluster as another one names it, which may leave out the host that they share.
    fn beside(&self, sayer: &Server, host: &str, port: u16) -> Server {
        let host = if host.is_empty() { sayer.host.to_string() } else { host.to_owned() };
        self.dialer.server(host, port)
    }

    /// The server of this name; connects to it in the background if it is new.
    fn named(&self, server: &Server) -> Option<Rc<Node>> {
        if let Some(node) = self.known.borrow().get(server) {
            return Some(Rc::clone(node));
        }
        let node = Rc::new(self.dialer.node(server).ok()?);
        self.known.borrow_mut().insert(server.clone(), Rc::clone(&node));
        if let Some(watch) = &*self.watch.borrow() {
            watch(Rc::clone(&node));
        }
        Some(node)
    }

    /// Asks the cluster who has which slots.
    pub(super) async fn chart(&self, patience: Duration) {
        for node in self.all() {
            let Some(server) = node.server.as_ref().filter(|_| node.is_up()) else { continue };
            let said = timeout(patience, Said::ask(&node.client, server)).await;
            if said.is_ok_and(|said| said.and_then(|said| self.take(&said)).is_some()) {
                return;
            }
        }
        // Nobody who is known is there: as at the beginning.
        if let Ok((_, said)) = self.dialer.find_cluster().await {
            self.take(&said);
        }
    }

    /// Believes it; `None` if it says nothing.
    fn take(&self, said: &Said) -> Option<()> {
        let mut slots = vec![None; SLOTS];
        for (first, last, host, port) in said.ranges()? {
            let node = self.named(&self.beside(&said.sayer, &host, port));
            slots.get_mut(first..=last)?.fill(node);
        }
        slots.iter().any(Option::is_some).then_some(())?;
        *self.slots.borrow_mut() = slots;
        self.part();
        Some(())
    }

    /// Hangs up on those that have no slots any more.
    fn part(&self) {
        let slots = self.slots.borrow();
        let has_slots =
            |node: &Rc<Node>| slots.iter().flatten().any(|owner| Rc::ptr_eq(owner, node));
        self.known.borrow_mut().retain(|_, node| {
            let stays = has_slots(node);
            if !stays {
                // It first answers what is under way.
                let node = Rc::clone(node);
                task::spawn_local(async move { node.leave().await });
            }
            stays
        });
    }

    /// Is it one of those that count?
    pub(super) fn is_known(&self, node: &Rc<Node>) -> bool {
        self.all().iter().any(|known| Rc::ptr_eq(known, node))
    }
}

/// What a cluster says of its slots.
pub(super) struct Said {
    sayer: Server,
    slots: Value,
}

impl Said {
    /// Asks one of its nodes; `None` if it does not say.
    pub(super) async fn ask(client: &Client, sayer: &Server) -> Option<Self> {
        let args = vec![Value::from_static_str("SLOTS")];
        let slots = client.custom::<Value, _>(command("CLUSTER"), args).await.ok()?;
        Some(Self { sayer: sayer.clone(), slots })
    }

    /// First and last slot, host and port of the master.
    fn ranges(&self) -> Option<Vec<(usize, usize, String, u16)>> {
        let Value::Array(ranges) = &self.slots else { return None };
        let range = |range: &Value| {
            let Value::Array(range) = range else { return None };
            let [first, last, Value::Array(master), ..] = range.as_slice() else { return None };
            let number = |value: &Value| usize::try_from(value.as_i64()?).ok();
            let host = master.first()?.as_str().unwrap_or_default().to_string();
            let port = u16::try_from(master.get(1)?.as_i64()?).ok()?;
            Some((number(first)?, number(last)?, host, port))
        };
        ranges.iter().map(range).collect()
    }
}

/// Where a cluster sends somebody who asked the wrong node.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Redirection {
    slot: u16,
    host: String,
    port: u16,
    /// Only for this question, because the slot is being moved.
    pub(super) asking: bool,
}

impl Redirection {
    /// Reads `MOVED 1234 host:port` and `ASK 1234 host:port`.
    pub(super) fn read(error: &str) -> Option<Self> {
        let mut words = error.split(' ');
        let asking = match words.next()? {
            "MOVED" => false,
            "ASK" => true,
            _ => return None,
        };
        let slot = words.next()?.parse().ok()?;
        let (host, port) = words.next()?.rsplit_once(':')?;
        Some(Self { slot, host: host.to_owned(), port: port.parse().ok()?, asking })
    }
}

/// Hash slots of a cluster.
const SLOTS: usize = 16_384;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirections_are_read() {
        let read = |error| Redirection::read(error).map(|r| (r.slot, r.host, r.port, r.asking));
        assert_eq!(read("MOVED 3999 10.0.0.1:6381"), Some((3999, "10.0.0.1".into(), 6381, false)));
        assert_eq!(read("ASK 0 ::1:7000"), Some((0, "::1".into(), 7000, true)));
        assert_eq!(read("MOVED 1 :7000"), Some((1, String::new(), 7000, false)));
        for other in ["", "TRYAGAIN a b:1", "MOVED", "MOVED x a:1", "ASK 1 a", "ASK 1 a:70000"] {
            assert_eq!(read(other), None, "{other}");
        }
    }
}
