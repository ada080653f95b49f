//! A Redis Cluster on loopback.

use std::io;

use super::process::{Port, wait_for};
use super::resp::field;
use super::{Client, RedisOptions, RedisServer, Value};

/// Masters, which share the 16,384 slots evenly, and their replicas.
///
/// Nodes are called by their number: first the masters, then the replicas, as they were at the
/// start. A method that asks "the cluster" asks nodes that run.
#[derive(Debug)]
pub struct RedisCluster {
    nodes: Vec<RedisServer>,
    ids: Vec<String>,
}

impl RedisCluster {
    /// Starts a cluster and waits until all nodes say that it is whole and all replicas are in
    /// sync.
    ///
    /// # Panics
    /// As [`RedisServer::start_with`]; if a cluster of `masters` cannot be (it needs one, and
    /// three to survive the loss of one).
    #[must_use]
    pub fn start(masters: usize, replicas_each: usize) -> Self {
        Self::start_with(masters, replicas_each, &RedisOptions::default())
    }

    /// The same with options for each node.
    ///
    /// # Panics
    /// As [`RedisCluster::start`].
    #[must_use]
    pub fn start_with(masters: usize, replicas_each: usize, options: &RedisOptions) -> Self {
        assert!(masters > 0, "a cluster needs a master");
        let nodes: Vec<_> = (0..masters * (1 + replicas_each))
            .map(|_| RedisServer::start_node(options.clone(), Some(Port::reserve())))
            .collect();
        let ids = nodes.iter().map(|node| node.call(&["CLUSTER", "MYID"]).text()).collect();
        let cluster = Self { nodes, ids };
        for (number, node) in cluster.nodes.iter().enumerate() {
            let epoch = (number + 1).to_string();
            node.call(&["CLUSTER", "SET-CONFIG-EPOCH", &epoch]);
            if number < masters {
                let first = SLOTS as usize * number / masters;
                let last = SLOTS as usize * (number + 1) / masters - 1;
                let (first, last) = (first.to_string(), last.to_string());
                node.call(&["CLUSTER", "ADDSLOTSRANGE", &first, &last]);
            }
            cluster.meet(number);
        }
        wait_for("all nodes to know each other", || {
            cluster.nodes.iter().all(|node| cluster.knows_all(node)).then_some(())
        });
        for number in masters..cluster.nodes.len() {
            cluster.replicate(number, number % masters);
        }
        cluster.wait_until_ok();
        cluster
    }

    fn meet(&self, number: usize) {
        let Some(node) = self.nodes.get(number).filter(|_| number > 0) else { return };
        let bus = node.bus.as_ref().expect("a node").number().to_string();
        let port = node.port().to_string();
        self.nodes[0].call(&["CLUSTER", "MEET", "127.0.0.1", &port, &bus]);
    }

    fn knows_all(&self, node: &RedisServer) -> bool {
        let known = node.call(&["CLUSTER", "NODES"]).text();
        self.ids.iter().all(|id| known.contains(id)) && !known.contains("handshake")
    }

    fn replicate(&self, replica: usize, master: usize) {
        let id = &self.ids[master];
        // It may know the node, and not yet that it is a master.
        wait_for("a replica to be taken", || {
            let asked = self.nodes[replica].client().try_call(&["CLUSTER", "REPLICATE", id]);
            (!matches!(asked, Ok(Value::Error(_)) | Err(_))).then_some(())
        });
        self.nodes[replica].wait_until_synced();
    }

    /// Waits until all nodes that run say that the cluster is whole, agree on who owns which
    /// slot, and name none as owner that does not run.
    ///
    /// # Panics
    /// If that does not happen within a minute.
    pub fn wait_until_ok(&self) {
        wait_for("the cluster to be whole", || {
            let views = self.running().map(|(_, node)| self.view(node));
            let views = views.collect::<io::Result<Vec<_>>>().ok()?;
            let first = views.first()?.as_ref()?;
            let is_agreed = views.iter().all(|view| view.as_ref() == Some(first));
            let owners_run = first.iter().all(|(_, _, owner)| self.is_running(*owner));
            (is_agreed && owners_run).then_some(())
        });
    }

    /// Ranges of slots and their owners, or `None` while the node calls the cluster broken.
    fn view(&self, node: &RedisServer) -> io::Result<Option<Vec<(i64, i64, usize)>>> {
        let mut client = node.try_client()?;
        let info = client.try_call(&["CLUSTER", "INFO"])?.into_text().unwrap_or_default();
        if field(&info, "cluster_state").as_deref() != Some("ok") {
            return Ok(None);
        }
        let Value::List(ranges) = client.try_call(&["CLUSTER", "SLOTS"])? else { return Ok(None) };
        let mut view: Vec<_> = ranges
            .iter()
            .filter_map(|range| {
                let range = range.items();
                let owner = range[2].items()[2].text();
                let owner = self.ids.iter().position(|id| *id == owner)?;
                Some((range[0].integer(), range[1].integer(), owner))
            })
            .collect();
        view.sort_unstable();
        Ok(Some(view))
    }

    fn running(&self) -> impl Iterator<Item = (usize, &RedisServer)> {
        self.nodes.iter().enumerate().filter(|(_, node)| node.process.is_running())
    }

    fn is_running(&self, number: usize) -> bool {
        self.nodes[number].process.is_running()
    }

    fn any(&self) -> &RedisServer {
        self.running().next().expect("a node that runs").1
    }

    /// The nodes.
    #[must_use]
    pub fn nodes(&self) -> &[RedisServer] {
        &self.nodes
    }

    /// A node, to kill, pause or restart it.
    ///
    /// # Panics
    /// If there is none of this number.
    #[must_use]
    pub fn node_mut(&mut self, number: usize) -> &mut RedisServer {
        &mut self.nodes[number]
    }

    /// `redis-cluster://127.0.0.1:PORT?node=127.0.0.1:PORT&...`, which names all nodes.
    #[must_use]
    pub fn url(&self) -> String {
        let addresses: Vec<_> = self.nodes.iter().map(|node| node.address().to_string()).collect();
        let credentials = self.nodes[0].options.password.as_ref();
        let credentials = credentials.map(|word| format!(":{word}@")).unwrap_or_default();
        format!("redis-cluster://{credentials}{}", addresses.join("&node=").replacen('&', "?", 1))
    }

    /// The slot of a key.
    ///
    /// # Panics
    /// If no node answers.
    #[must_use]
    pub fn slot(&self, key: &str) -> u16 {
        self.any().call(&["CLUSTER", "KEYSLOT", key]).integer() as u16
    }

    /// The master that owns a slot.
    ///
    /// # Panics
    /// If nobody does, or the cluster is broken.
    #[must_use]
    pub fn owner(&self, slot: u16) -> usize {
        let slot = i64::from(slot);
        wait_for("an owner of the slot", || {
            let view = self.view(self.any()).ok()??;
            let range = view.iter().find(|(first, last, _)| (*first..=*last).contains(&slot));
            range.map(|(_, _, owner)| *owner)
        })
    }

    /// One command about `key`, at the node that owns it.
    ///
    /// # Panics
    /// If it fails.
    pub fn call<A: AsRef<[u8]>>(&self, key: &str, words: &[A]) -> Value {
        self.nodes[self.owner(self.slot(key))].call(words)
    }

    /// Kills the master that owns a slot (`kill -9`), waits until one of its replicas has taken
    /// over and the cluster is whole again; returns who is gone and who took over.
    ///
    /// # Panics
    /// If that does not happen within a minute; it cannot if that master has no replica.
    pub fn kill_master(&mut self, slot: u16) -> (usize, usize) {
        let dead = self.owner(slot);
        self.nodes[dead].kill();
        self.wait_until_ok();
        (dead, self.owner(slot))
    }

    /// Starts a node again that was killed, and waits until the cluster is whole with it.
    ///
    /// # Panics
    /// If that does not happen within a minute.
    pub fn restart(&mut self, number: usize) {
        self.nodes[number].restart();
        self.wait_until_ok();
    }

    /// Moves a slot with its keys to another master, while clients use it.
    ///
    /// # Panics
    /// If a node refuses.
    pub fn migrate_slot(&self, slot: u16, to: usize) {
        if self.owner(slot) != to {
            self.begin_migration(slot, to);
            self.migrate_keys(slot, to);
            self.end_migration(slot, to);
        }
    }

    /// From here on until [`RedisCluster::end_migration`] its owner answers `ASK` for keys of the
    /// slot that it does not have.
    ///
    /// # Panics
    /// If a node refuses.
    pub fn begin_migration(&self, slot: u16, to: usize) {
        let from = self.owner(slot);
        self.set_slot(to, slot, &["IMPORTING", &self.ids[from]]);
        self.set_slot(from, slot, &["MIGRATING", &self.ids[to]]);
    }

    /// Moves the keys that the slot's owner has.
    ///
    /// # Panics
    /// If a node refuses.
    pub fn migrate_keys(&self, slot: u16, to: usize) {
        let mut from = self.nodes[self.owner(slot)].client();
        let port = self.nodes[to].port().to_string();
        loop {
            let slot = slot.to_string();
            let keys = from.call(&["CLUSTER", "GETKEYSINSLOT", &slot, "100"]);
            let keys: Vec<_> = keys.items().iter().map(Value::text).collect();
            if keys.is_empty() {
                return;
            }
            migrate(&mut from, &port, keys.iter().map(String::as_str));
        }
    }

    /// Moves one key of a slot that is being moved, so that the slot's other keys stay behind.
    ///
    /// # Panics
    /// If a node refuses.
    pub fn migrate_key(&self, from: usize, to: usize, key: &str) {
        let port = self.nodes[to].port().to_string();
        migrate(&mut self.nodes[from].client(), &port, [key]);
    }

    /// Makes the new master the owner; everybody else then answers `MOVED`. Waits until all nodes
    /// know.
    ///
    /// # Panics
    /// If a node refuses, as the old owner does while it has keys of the slot.
    pub fn end_migration(&self, slot: u16, to: usize) {
        let from = self.owner(slot);
        for number in [to, from] {
            self.set_slot(number, slot, &["NODE", &self.ids[to]]);
        }
        self.wait_until_ok();
    }

    fn set_slot(&self, number: usize, slot: u16, words: &[&str]) {
        let slot = slot.to_string();
        self.nodes[number].call(&[&["CLUSTER", "SETSLOT", &slot], words].concat());
    }
}

fn migrate<'a>(from: &mut Client, to: &'a str, keys: impl IntoIterator<Item = &'a str>) {
    let mut words = vec!["MIGRATE", "127.0.0.1", to, "", "0", "5000"];
    words.extend(["AUTH2", super::process::USER, super::process::PASSWORD, "KEYS"]);
    words.extend(keys);
    from.call(&words);
}

/// Long enough that a busy machine does not make nodes suspect each other, short enough that a
/// failover takes a few seconds.
pub(super) const CONFIG: &str = "cluster-enabled yes\ncluster-node-timeout 2000\n\
                                 cluster-replica-validity-factor 0";

const SLOTS: u16 = 16_384;
