//! The world: one clock, devices, servers, wires and a store. [`World::step`] jumps to the next
//! event and lets it happen; nothing else makes time pass.
//!
//! Everything follows from the seed. The laws are checked at every step: those of one connection
//! by [`crate::Watched`], the one tail per token by [`Ledger`], and what devices may suffer by
//! their complaints. [`World::trace`] is a hash of all that happened, in order.

mod agenda;
mod budget;
mod deed;
mod history;
mod link;
mod veil;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use otter_protocol::{Answer, Config, Handshake, Outcome, ReleaseId};

use self::agenda::{Agenda, Entry};
use self::budget::Budget;
pub use self::deed::{Blow, Deed, Moment};
use self::history::shown;
use self::link::Link;
use self::veil::Veil;
use crate::device::{Act, Actor, Event};
use crate::image::hex;
use crate::{Clock, Desk, Ledger, ModelStore, Random, Read, SharedLine};

/// Everything there is in one simulation.
#[derive(Debug)]
pub struct World {
    /// The store and its queue.
    pub desk: Desk,
    /// The one clock.
    pub clock: Clock,
    /// The load balancer sends nobody to a server that is down. Default: it knows nothing.
    pub is_balanced: bool,
    actors: Vec<Box<dyn Actor>>,
    /// Of each actor: the chance of its connections and queries, so that what befalls one does not
    /// depend on who else is there.
    dice: Vec<Random>,
    servers: Vec<Server>,
    veil: Option<Veil>,
    /// By how many seconds the store's clock is wrong.
    store_skew_s: i64,
    links: BTreeMap<u64, Link>,
    /// By actor: the link that it made last, the only one that it may hold.
    last_links: Vec<u64>,
    agenda: Agenda,
    links_made: u64,
    deeds: BTreeMap<(Duration, usize), Deed>,
    /// Never reused, as the deeds that were done are forgotten.
    deeds_planned: usize,
    ambushes: Vec<(Moment, Blow)>,
    published: Vec<ReleaseId>,
    overheard: Vec<String>,
    break_percent: u64,
    ledger: Ledger,
    budget: Budget,
    /// By actor: how many of its images were looked at.
    hauls_seen: Vec<usize>,
    /// Tokens that gave a whole image.
    tokens_spent: BTreeSet<String>,
    counts: BTreeMap<&'static str, u64>,
    journal: Option<Journal>,
    outcomes: BTreeMap<Outcome, u64>,
    handshakes: BTreeMap<Handshake, u64>,
    cut_short: u64,
    drained_at_work: u64,
    random: Random,
    trace: u64,
    steps: u64,
}

/// What happened in a world, a line each. It outlives a world that a broken law ends.
pub type Journal = Arc<Mutex<Vec<String>>>;

/// One server, with connections and a line of its own.
#[derive(Clone, Debug)]
struct Server {
    config: Arc<Config>,
    /// What all its images leave by, if they share anything.
    line: Option<SharedLine>,
    /// Does it take connections?
    is_up: bool,
    /// By how many seconds its unix time is wrong.
    skew_s: i64,
}

impl Server {
    fn new(config: &Config) -> Self {
        let config = Arc::new(config.on_another_line());
        Self { config, line: None, is_up: true, skew_s: 0 }
    }
}

impl World {
    /// A world without devices, with so many servers over one store.
    #[must_use]
    pub fn new(seed: u64, mut store: ModelStore, config: Config, servers: usize) -> Self {
        let mut random = Random::new(seed);
        let clock = Clock::start();
        store.set_clock(clock.since_1970());
        Self {
            desk: Desk::new(store, random.fork()),
            clock,
            is_balanced: false,
            actors: Vec::new(),
            dice: Vec::new(),
            servers: (0..servers).map(|_| Server::new(&config)).collect(),
            veil: None,
            store_skew_s: 0,
            links: BTreeMap::new(),
            last_links: Vec::new(),
            agenda: Agenda::default(),
            links_made: 0,
            deeds: BTreeMap::new(),
            deeds_planned: 0,
            ambushes: Vec::new(),
            published: Vec::new(),
            overheard: Vec::new(),
            break_percent: 0,
            ledger: Ledger::default(),
            budget: Budget::default(),
            hauls_seen: Vec::new(),
            tokens_spent: BTreeSet::new(),
            counts: BTreeMap::new(),
            journal: None,
            outcomes: BTreeMap::new(),
            handshakes: BTreeMap::new(),
            cut_short: 0,
            drained_at_work: 0,
            random,
            trace: FNV_START,
            steps: 0,
        }
    }

    /// Lets somebody join.
    pub fn join(&mut self, actor: impl Actor + 'static) {
        self.agenda.set(Entry::Actor(self.actors.len()), actor.wake_at());
        self.actors.push(Box::new(actor));
        self.dice.push(self.random.fork());
        self.last_links.push(0);
        self.hauls_seen.push(0);
    }

    /// From now on all images that a server sends share a line of so many bytes per second.
    pub fn narrow(&mut self, server: usize, bytes_per_s: u64) {
        self.servers[server].line = Some(SharedLine::new(self.clock.at(), bytes_per_s));
    }

    /// The line of a server, if its images share one.
    #[must_use]
    pub fn line(&self, server: usize) -> Option<&SharedLine> {
        self.servers[server].line.as_ref()
    }

    /// Nothing is wrong any more: from now on a device may cost the store far less.
    pub fn calm_down(&mut self) {
        self.budget.calm_down();
    }

    /// Writes down from now on what happens.
    pub fn keep_journal(&mut self, journal: Journal) {
        self.journal = Some(journal);
    }

    /// Plans a deed.
    pub fn plan(&mut self, at: Duration, deed: Deed) {
        self.deeds_planned += 1;
        self.deeds.insert((at, self.deeds_planned), deed);
    }

    /// Steps until nothing happens before `until`.
    ///
    /// # Panics
    /// If a law is broken, or if time stands still.
    pub fn run(&mut self, until: Duration) {
        let mut steps_here = 0;
        while self.next().is_some_and(|at| at <= until) {
            let before = self.clock.at();
            self.step();
            steps_here = if self.clock.at() == before { steps_here + 1 } else { 0 };
            assert!(steps_here < STEPS_AT_ONCE_MAX, "time stands still at {before:?}");
        }
        self.clock.jump(until);
    }

    /// Jumps to the next event and lets everything happen that is due then. False if there is
    /// nothing to wait for.
    pub fn step(&mut self) -> bool {
        let Some(at) = self.next() else { return false };
        self.clock.jump(at);
        self.steps += 1;
        self.do_deeds();
        self.tell_time();
        self.desk.store.set_clock(self.clock.skewed(self.store_skew_s).since_1970());
        for (ticket, answer) in self.desk.collect(self.clock.at()) {
            self.deliver(ticket, answer);
        }
        self.wake_actors();
        for link in self.agenda.links(self.clock.at()) {
            self.settle(link);
        }
        self.look_ahead();
        true
    }

    /// When the next event is due.
    #[must_use]
    pub fn next(&self) -> Option<Duration> {
        let now = self.clock.at();
        let deed = self.deeds.first_key_value().map(|((at, _), _)| *at);
        let next = [self.agenda.next(), deed, self.desk.next()].into_iter().flatten().min()?;
        Some(next.max(now))
    }

    /// Everybody.
    #[must_use]
    pub fn actors(&self) -> &[Box<dyn Actor>] {
        &self.actors
    }

    fn deliver(&mut self, ticket: u64, answer: Answer<bytes::Bytes>) {
        if let Answer::Recorded(Some(recorded)) = &answer
            && let Some(token) = recorded.token
        {
            self.overheard.push(hex(&token.0));
            if self.overheard.len() > OVERHEARD_MAX {
                self.overheard.remove(0);
            }
        }
        let (link, query) = link::from_ticket(ticket);
        self.agenda.touch(Entry::Link(link));
        if let Some(link) = self.links.get_mut(&link) {
            let clock = self.clock.skewed(self.servers[link.server].skew_s);
            link.answer(clock.now(), query, answer);
        }
    }

    fn wake_actors(&mut self) {
        let now = self.clock.at();
        for index in self.agenda.actors(now) {
            let acts = self.actors[index].wake(now, &self.overheard);
            self.agenda.touch(Entry::Actor(index));
            self.act(index, acts);
        }
    }

    fn act(&mut self, actor: usize, acts: Vec<Act>) {
        let now = self.clock.at();
        for act in acts {
            match act {
                Act::Dial => self.dial(actor),
                Act::Say(bytes) => {
                    self.note(actor as u64, &bytes);
                    self.tell(|| format!("actor {actor} says {}", shown(&bytes)));
                    if let Some(link) = self.link_of(actor) {
                        link.say(now, &bytes);
                    }
                }
                Act::End => {
                    if let Some(link) = self.link_of(actor) {
                        link.end(now);
                    }
                }
                Act::HangUp => {
                    if let Some(link) = self.link_of(actor) {
                        link.hang_up(now);
                    }
                }
                Act::Leave => {
                    if let Some(link) = self.link_of(actor) {
                        link.leave();
                    }
                }
            }
        }
    }

    /// The connection that an actor holds.
    fn link_of(&mut self, actor: usize) -> Option<&mut Link> {
        let id = *self.last_links.get(actor)?;
        self.agenda.touch(Entry::Link(id));
        self.links.get_mut(&id).filter(|link| link.is_held)
    }

    fn dial(&mut self, actor: usize) {
        let now = self.clock.at();
        if let Some(link) = self.link_of(actor) {
            link.hang_up(now);
        }
        let server = self.balance(actor);
        let Server { is_up, skew_s, .. } = self.servers[server];
        self.probe(actor, server);
        let (watched, client) = self.connect(actor, server, &self.clock.skewed(skew_s));
        let line = self.actors[actor].line();
        let mut link = Link::new(actor, server, watched, line, &mut self.dice[actor]);
        if let Some(client) = client {
            link.veil(now, client);
        }
        let dice = &mut self.dice[actor];
        let breaks_after = Duration::from_millis(dice.below(20_000));
        if dice.chance(self.break_percent) {
            self.count("broken connection", 1);
            link.break_at(now + breaks_after);
        }
        if !is_up {
            link.crash(now);
        }
        self.links_made += 1;
        self.links.insert(self.links_made, link);
        self.last_links[actor] = self.links_made;
        self.agenda.touch(Entry::Link(self.links_made));
        self.tell(|| format!("actor {actor} dials server {server}: link {}", self.links_made));
    }

    /// A server for a new connection, another one each time.
    fn balance(&mut self, actor: usize) -> usize {
        let takes = |server: &usize| !self.is_balanced || self.servers[*server].is_up;
        let choice: Vec<usize> = (0..self.servers.len()).filter(takes).collect();
        choice
            .get(self.dice[actor].below(choice.len() as u64) as usize)
            .copied()
            .unwrap_or_default()
    }

    /// Lets one connection do all it can without time passing.
    fn settle(&mut self, id: u64) {
        loop {
            let Some(link) = self.links.get_mut(&id) else { return };
            let server = link.server;
            let clock = self.clock.skewed(self.servers[server].skew_s);
            let dice = &mut self.dice[link.actor];
            let line = self.servers[server].line.as_mut();
            let moved = link.serve(&clock, id, &mut self.desk, dice, line);
            let (tails, sent) = (link.take_tails(), link.take_sent());
            let is_veiled = link.is_veiled();
            for token in link.take_presented() {
                self.ledger.presented(token, server);
            }
            let (moments, bills) = (link.take_moments(), link.take_bills());
            let actor = link.actor;
            let tail = (!tails.is_empty()).then_some(Moment::Tail);
            for token in tails {
                self.ledger.tail_left(token, id);
            }
            if is_veiled && !sent.is_empty() {
                // Of ciphertext only the length follows from the seed.
                self.note(id, &sent.len().to_le_bytes());
            } else {
                self.note(id, &sent);
            }
            if !sent.is_empty() {
                self.tell(|| format!("link {id}: server {server} sends {}", shown(&sent)));
            }
            for (report, cost) in bills {
                self.tell(|| format!("link {id}: {:?}", report.outcome));
                self.budget.charge(self.clock.at(), actor, &report, cost);
            }
            for moment in moments.into_iter().chain(tail) {
                self.spring(moment, server);
            }
            if !moved && !self.listen(id) {
                break;
            }
        }
        if self.links.get(&id).is_some_and(Link::is_over)
            && let Some(over) = self.links.remove(&id)
        {
            self.count("lost segment", over.lost());
            for outcome in over.outcomes() {
                *self.outcomes.entry(outcome).or_default() += 1;
            }
            if let Some(handshake) = over.handshake() {
                *self.handshakes.entry(handshake).or_default() += 1;
            }
        }
    }

    /// Lets the actor read what has arrived; did it?
    fn listen(&mut self, id: u64) -> bool {
        let now = self.clock.at();
        let Some(link) = self.links.get_mut(&id).filter(|link| link.is_held) else { return false };
        let index = link.actor;
        self.agenda.touch(Entry::Actor(index));
        let actor = &mut self.actors[index];
        if actor.reads_at() > now {
            return false;
        }
        let mut opened = Vec::new();
        let acts = match link.read(now, actor.read_bytes_max()) {
            Read::Empty => return false,
            Read::Bytes(bytes) => {
                let acts = actor.hear(now, Event::Bytes(&bytes));
                opened = bytes;
                acts
            }
            Read::End => {
                link.hang_up(now);
                actor.hear(now, Event::End)
            }
            Read::Reset => {
                link.hang_up(now);
                actor.hear(now, Event::Reset)
            }
        };
        if self.links.get(&id).is_some_and(Link::is_veiled) {
            self.note(id, &opened);
        }
        self.act(index, acts);
        true
    }

    /// Notes when those that something happened to are to be looked at again, and checks them.
    fn look_ahead(&mut self) {
        while let Some(entry) = self.agenda.pop_touched() {
            let at = match entry {
                Entry::Actor(index) => {
                    self.check(index);
                    // What it reads hangs on it as well.
                    self.agenda.touch(Entry::Link(self.last_links[index]));
                    self.actors[index].wake_at()
                }
                Entry::Link(id) => self.links.get(&id).and_then(|link| {
                    let actor = self.actors.get(link.actor);
                    link.next(&self.clock, actor.map_or(Duration::ZERO, |a| a.reads_at()))
                }),
            };
            self.agenda.set(entry, at);
        }
    }

    /// What an actor suffers, and what it got: whole images that were published, one per token.
    fn check(&mut self, index: usize) {
        if let (Some(actor), Some(seen)) = (self.actors.get(index), self.hauls_seen.get_mut(index))
        {
            let complaints = actor.complaints();
            assert!(complaints.is_empty(), "complaint: {actor:?}: {complaints:?}");
            for haul in &actor.hauls()[*seen..] {
                let is_published = self.desk.store.images().any(|image| *image == haul.image);
                assert!(is_published, "splice: nobody published {haul:?}");
                if let Some(token) = &haul.token {
                    let is_new = self.tokens_spent.insert(token.clone());
                    assert!(is_new, "two images: one token {haul:?}");
                }
            }
            *seen = actor.hauls().len();
        }
    }
}

const OVERHEARD_MAX: usize = 20;
const STEPS_AT_ONCE_MAX: u32 = 10_000;
const FNV_START: u64 = 0xcbf2_9ce4_8422_2325;
