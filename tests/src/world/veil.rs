//! Who speaks TLS in a world, and on which terms.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use otter_protocol::Handshake;
use rustls::{ClientConfig, ServerConfig};

use super::agenda::Entry;
use super::link::Link;
use super::{Server, World};
use crate::tls::{Client, HEADER_BYTES, Hello, Terms, Time, V1_2, V1_3};
use crate::{Clock, Random, Watched};

/// TLS in a world: each server with settings of its own, each device with a memory of its own.
#[derive(Debug)]
pub(super) struct Veil {
    random: Random,
    share_percent: u64,
    servers: Vec<(Arc<ServerConfig>, Arc<Time>)>,
    /// By actor: its settings, if it speaks TLS.
    clients: BTreeMap<usize, Option<Arc<ClientConfig>>>,
    /// Those that probe before each connection, as the ESP8266 core does (docs/wire.md 2.5).
    probing: BTreeSet<usize>,
    /// What the devices take for the time.
    time: Arc<Time>,
}

impl World {
    /// Lets so many of 100 devices speak TLS: old ones and new ones, with tickets or session ids or
    /// neither, to servers with records of any size. What follows from the seed is plaintext, when
    /// it comes and how much ciphertext carries it.
    pub fn protect(&mut self, seed: u64, share_percent: u64) {
        let mut random = Random::new(seed ^ 0x7154);
        let servers = self.servers.iter().map(|_| server(&mut random)).collect();
        let (clients, probing, time) = (BTreeMap::new(), BTreeSet::new(), Arc::default());
        self.veil = Some(Veil { random, share_percent, servers, clients, probing, time });
    }

    /// How often which handshake came about, or did not, on connections that are over.
    #[must_use]
    pub fn handshakes(&self) -> &BTreeMap<Handshake, u64> {
        &self.handshakes
    }

    /// Tells TLS the time, each server its own.
    pub(super) fn tell_time(&self) {
        let Some(veil) = &self.veil else { return };
        veil.time.set(self.clock.now().unix);
        for (Server { skew_s, .. }, (_, time)) in self.servers.iter().zip(&veil.servers) {
            time.set(self.clock.skewed(*skew_s).now().unix);
        }
    }

    /// A device that probes asks on a connection of its own, and is gone when the answer comes.
    pub(super) fn probe(&mut self, actor: usize, server: usize) {
        let Some(veil) = &self.veil else { return };
        let speaks_tls = matches!(veil.clients.get(&actor), Some(Some(_)));
        if !speaks_tls || !veil.probing.contains(&actor) || !self.servers[server].is_up {
            return;
        }
        let clock = self.clock.skewed(self.servers[server].skew_s);
        let tls = Arc::clone(&veil.servers[server].0);
        let watched = Watched::tls(Arc::clone(&self.servers[server].config), tls, clock.now());
        let line = self.actors[actor].line();
        let mut link = Link::new(actor, server, watched, line, &mut self.dice[actor]);
        link.say(clock.at(), &Hello::esp8266_probe(1).bytes());
        link.is_held = false;
        self.links_made += 1;
        self.links.insert(self.links_made, link);
        self.agenda.touch(Entry::Link(self.links_made));
    }

    /// A new connection of this actor's to a server, and the actor's end of TLS.
    pub(super) fn connect(
        &mut self,
        actor: usize,
        server: usize,
        clock: &Clock,
    ) -> (Watched, Option<Client>) {
        let config = Arc::clone(&self.servers[server].config);
        let client = self.veil.as_mut().and_then(|veil| veil.client_of(actor));
        match (&self.veil, client) {
            (Some(veil), Some(client)) => {
                let tls = Arc::clone(&veil.servers[server].0);
                (Watched::tls(config, tls, clock.now()), Some(Client::new(client)))
            }
            (_, _) => (Watched::new(config, clock.now()), None),
        }
    }
}

impl Veil {
    fn client_of(&mut self, actor: usize) -> Option<Arc<ClientConfig>> {
        let Self { random, share_percent, probing, time, .. } = self;
        let made = self.clients.entry(actor).or_insert_with(|| {
            if random.chance(30) {
                probing.insert(actor);
            }
            let versions = *random.pick(&[V1_2, V1_3, rustls::ALL_VERSIONS]);
            let terms = Terms { versions, time: Arc::clone(time), ..Terms::default() };
            random.chance(*share_percent).then(|| terms.client())
        });
        made.clone()
    }
}

fn server(random: &mut Random) -> (Arc<ServerConfig>, Arc<Time>) {
    let fragment = *random.pick(&[Some(512), Some(1024), Some(4096), None]);
    let time = Arc::<Time>::default();
    let terms = Terms {
        fragment_max: fragment.map(|bytes: usize| bytes + HEADER_BYTES),
        tickets: random.chance(70),
        sessions: random.chance(70),
        time: Arc::clone(&time),
        ..Terms::default()
    };
    (terms.server(), time)
}
