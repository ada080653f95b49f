//! The line to Redis: what all queries ask in one turn of the thread goes as one call.
//!
//! A call carries the operations of many queries for one hash slot (on a single server: for all of
//! them) and costs about as much as one command. While calls are under way more operations gather
//! for the next one, so batches grow with the load.
//!
//! Nothing is ever sent twice by itself: fred gives up on what was under way when a connection
//! ends, and whoever asked is told that the outcome is unknown.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use fred::error::{Error, ErrorKind};
use fred::util::redis_keyslot;
use rapidhash::fast::RandomState;
use tokio::sync::Notify;
use tokio::task;
use tokio::time::{sleep, timeout};

use super::arguments::{Arguments, arguments};
use super::library::Library;
use super::node::{COMING_PAUSE, Failed, Node};
use super::nodes::{Nodes, Redirection};
use super::op::{Kind, Op};
use super::reply::Reply;
use super::round::{Place, Round};
use super::status::Status;
use super::trouble::Trouble;
use crate::clock::Clock;

/// The line to Redis, for the thread that owns it.
pub(super) struct Link {
    pub(super) nodes: Nodes,
    library: Library,
    clock: Option<Clock>,
    status: Arc<Status>,
    groups: RefCell<HashMap<Group, Gathered, RandomState>>,
    /// Rung when there is something to send.
    turn: Notify,
    turns: Cell<u64>,
    /// What the next call brings as its word: counted from a random number.
    words: Cell<u64>,
}

/// What goes into one call: a hash slot (0 on a single server) and the function.
type Group = (u16, Kind);

/// What waits for the next call of one group.
#[derive(Default)]
struct Gathered {
    ops: Vec<Asked>,
    under_way: usize,
}

/// An operation, and where its answer goes.
type Asked = (Op, Place);

impl Link {
    pub(super) fn new(nodes: Nodes, clock: Option<Clock>, status: Arc<Status>, words: u64) -> Self {
        Self {
            nodes,
            library: Library::new(),
            clock,
            status,
            groups: RefCell::default(),
            turn: Notify::new(),
            turns: Cell::new(0),
            words: Cell::new(words),
        }
    }

    /// Asks one operation, together with all others of this turn.
    ///
    /// # Errors
    /// See [`Trouble`].
    pub(super) async fn ask(&self, op: Op) -> Result<Reply, Trouble> {
        let mut replies = self.ask_all([op]).replies().await;
        replies.pop().unwrap_or(Err(Trouble::Away))
    }

    /// Asks several operations, together with all others of this turn.
    pub(super) fn ask_all(&self, ops: impl IntoIterator<Item = Op>) -> Rc<Round> {
        let round = Rc::<Round>::default();
        let mut groups = self.groups.borrow_mut();
        for op in ops {
            let place = round.place();
            let slot = match op.keys.first() {
                Some(key) if self.is_cluster() => redis_keyslot(key.as_bytes()),
                Some(_) | None => 0,
            };
            if self.is_open(slot) {
                groups.entry((slot, op.kind)).or_default().ops.push((op, place));
            }
        }
        self.turn.notify_one();
        round
    }

    /// Do questions go to different servers?
    pub(super) fn is_cluster(&self) -> bool {
        self.nodes.is_cluster()
    }

    /// May questions for this slot gather? Also for a server that takes over and is not connected
    /// yet.
    fn is_open(&self, slot: u16) -> bool {
        self.nodes.of(slot).is_some_and(|node| node.is_up() || node.is_coming())
    }

    /// Counts the turns in which something was sent, or a server came or went: whoever asked in
    /// the turn that runs is answered as of a moment after this.
    pub(super) fn turn(&self) -> u64 {
        self.turns.get()
    }

    /// Unix seconds, only to be shown: not Redis' clock, but this machine's.
    pub(super) fn unix_s(&self) -> u64 {
        self.clock.as_ref().map_or_else(|| crate::clock::system()(), |clock| clock()) / 1000
    }

    /// Sends what gathers, forever.
    pub(super) async fn run(self: Rc<Self>) {
        loop {
            self.turn.notified().await;
            // All that is ready to run has its say first.
            task::yield_now().await;
            for (group, ops) in self.take_ready() {
                self.turns.set(self.turns.get() + 1);
                task::spawn_local(Rc::clone(&self).call(group, ops));
            }
        }
    }

    /// Watches every server, also those that come later, and where the slots of a cluster are.
    pub(super) fn watch(self: &Rc<Self>, patience: Duration) {
        // The nodes are the link's own, which would never be dropped otherwise.
        let link = Rc::downgrade(self);
        self.nodes.watch(move |node| {
            if let Some(link) = link.upgrade() {
                task::spawn_local(link.watch_node(node, patience));
            }
        });
        if self.nodes.is_cluster() {
            task::spawn_local(Rc::clone(self).chart(patience));
        }
    }

    /// Watches whether a server answers, for as long as it counts.
    async fn watch_node(self: Rc<Self>, node: Rc<Node>, patience: Duration) {
        while self.nodes.is_known(&node) {
            self.mark(&node, node.look(patience).await);
            sleep(if node.is_coming() { COMING_PAUSE } else { WATCH_PAUSE }).await;
        }
    }

    /// Says whether a server is there.
    pub(super) fn mark(&self, node: &Node, is_up: bool) {
        let was_up = node.is_up();
        node.set_up(is_up);
        self.status.set_up(self.nodes.all().iter().any(|node| node.is_up()));
        if was_up && !is_up {
            self.give_up();
        }
        if was_up != is_up {
            // What was asked in this turn and not sent must not be shared by those who come later.
            self.turns.set(self.turns.get() + 1);
            self.nodes.moved.notify_one();
        }
    }

    /// Answers whoever waits to ask a server that is away. Nothing was sent.
    fn give_up(&self) {
        for ((slot, _), gathered) in self.groups.borrow_mut().iter_mut() {
            if !self.is_open(*slot) {
                gathered.ops.clear();
            }
        }
    }

    /// Asks who has which slots: when somebody says that one is elsewhere, often while a server is
    /// away, and now and then.
    async fn chart(self: Rc<Self>, patience: Duration) {
        loop {
            let is_whole = self.nodes.all().iter().all(|node| node.is_up());
            let pause = if is_whole { CHART_PAUSE } else { CHART_PAUSE_BROKEN };
            // Either will do.
            let _ = timeout(pause, self.nodes.moved.notified()).await;
            self.nodes.chart(patience).await;
            sleep(WATCH_PAUSE).await;
        }
    }

    /// Takes the groups that may be sent now, in calls of at most [`OPS_MAX`].
    fn take_ready(&self) -> Vec<(Group, Vec<Asked>)> {
        let calls_max = if self.nodes.is_cluster() { CALLS_PER_SLOT_MAX } else { CALLS_MAX };
        let mut ready = Vec::new();
        let mut groups = self.groups.borrow_mut();
        groups.retain(|group, gathered| {
            // What waits for replicas holds up what is behind it.
            let calls_max = if group.1 == Kind::Replicated { 1 } else { calls_max };
            while gathered.under_way < calls_max && !gathered.ops.is_empty() {
                let rest = gathered.ops.split_off(gathered.ops.len().min(OPS_MAX));
                ready.push((*group, std::mem::replace(&mut gathered.ops, rest)));
                gathered.under_way += 1;
            }
            gathered.under_way > 0
        });
        ready
    }

    async fn call(self: Rc<Self>, group: Group, asked: Vec<Asked>) {
        let (slot, kind) = group;
        let (ops, places): (Vec<_>, Vec<_>) = asked.into_iter().unzip();
        // Otherwise nothing is sent, as the places say when they are dropped.
        if let Some(node) = self.nodes.of(slot)
            && node.wait_until_up().await.is_ok()
        {
            let count = ops.len();
            self.status.sent(count);
            let mut visit = Visit::begin(node, kind, places);
            let replies = self.replies(&mut visit, kind, ops, count).await;
            if let Err(trouble) = &replies {
                self.status.failed(trouble);
            }
            tell(visit.end(replies.is_ok()), replies);
        }
        if let Some(gathered) = self.groups.borrow_mut().get_mut(&group) {
            gathered.under_way -= 1;
        }
        self.turn.notify_one();
    }

    /// One reply for each operation.
    async fn replies(
        &self,
        visit: &mut Visit,
        kind: Kind,
        ops: Vec<Op>,
        count: usize,
    ) -> Result<Vec<Result<Reply, Trouble>>, Trouble> {
        let args = self.arguments(kind, &ops);
        let (mut loads, mut redirections, mut patience) = (LOADS, REDIRECTIONS, TRYAGAIN_TIMES);
        let mut asking = false;
        loop {
            visit.node.resend(visit.number, kind);
            let error = match visit.node.fcall(kind, args.values(), asking).await {
                Ok(answer) => match answer.into_bytes() {
                    Some(answer) => return Reply::each(answer, count),
                    None => return Err(Trouble::odd("a call is answered by no text")),
                },
                Err(Failed::Known(trouble)) => return Err(trouble),
                Err(Failed::Call(error)) => error,
            };
            // In all of these cases nothing was carried out.
            if loads > 0 && error.details().contains("Function not found") {
                loads -= 1;
                visit.node.load(&self.library).await?;
            } else if let Some(to) = Redirection::read(error.details())
                && redirections > 0
            {
                redirections -= 1;
                visit.node.put_off(visit.number);
                let node = self.nodes.redirect(&visit.node, &to).ok_or(Trouble::Away)?;
                asking = to.asking;
                node.wait_until_up().await?;
                visit.go(node, kind);
            } else if patience > 0 && error.details().starts_with("TRYAGAIN") {
                patience -= 1;
                visit.node.put_off(visit.number);
                sleep(TRYAGAIN_PAUSE).await;
            } else {
                return Err(trouble_of(&error));
            }
        }
    }

    /// Waits until all servers are there; where some of a cluster are dead, only for so long.
    ///
    /// # Errors
    /// [`Trouble::Away`] if none is there.
    pub(super) async fn wait_until_up(&self, patience: Duration) -> Result<(), Trouble> {
        let nodes = self.nodes.all();
        let all_up = async {
            while !nodes.iter().all(|node| node.is_up()) {
                sleep(TRYAGAIN_PAUSE).await;
            }
        };
        // One is enough.
        let _ = timeout(patience, all_up).await;
        nodes.iter().any(|node| node.is_up()).then_some(()).ok_or(Trouble::Away)
    }

    /// What the function is called with.
    fn arguments(&self, kind: Kind, ops: &[Op]) -> Arguments {
        let function = match kind {
            Kind::Read => &self.library.read,
            Kind::Write | Kind::Replicated => &self.library.write,
        };
        let now = self.clock.as_ref().map(|clock| clock().to_string()).unwrap_or_default();
        let word = self.words.get();
        self.words.set(word.wrapping_add(1));
        arguments(function, &now, &format!("{word:x}"), ops)
    }
}

/// Where a call is under way, under which number.
struct Visit {
    node: Rc<Node>,
    number: u64,
}

impl Visit {
    fn begin(node: Rc<Node>, kind: Kind, places: Vec<Place>) -> Self {
        let number = node.begin(kind, places);
        Self { node, number }
    }

    /// The call goes on at another server. Whoever was told already stays told.
    fn go(&mut self, node: Rc<Node>, kind: Kind) {
        let places = self.end(true);
        *self = Self::begin(node, kind, places);
    }

    fn end(&self, is_answered: bool) -> Vec<Place> {
        self.node.end(self.number, is_answered)
    }
}

/// Answers those who asked, if they were not told anything yet.
fn tell(places: Vec<Place>, replies: Result<Vec<Result<Reply, Trouble>>, Trouble>) {
    match replies {
        Ok(replies) => {
            places.into_iter().zip(replies).for_each(|(place, reply)| place.fill(reply));
        }
        Err(trouble) => {
            places.into_iter().for_each(|place| place.fill(Err(trouble.clone())));
        }
    }
}

/// What an error of fred's means for what was asked.
pub(super) fn trouble_of(error: &Error) -> Trouble {
    let said = error.details().to_owned();
    // Words of fred's, not of Redis': of what was under way, and of what was not sent.
    if said.starts_with("Too many failed write") {
        return Trouble::Unknown(said);
    } else if said.starts_with("Failed to route") {
        return Trouble::Away;
    }
    match error.kind() {
        ErrorKind::IO | ErrorKind::Timeout | ErrorKind::Canceled | ErrorKind::Protocol => {
            Trouble::Unknown(said)
        }
        ErrorKind::Routing | ErrorKind::Backpressure | ErrorKind::Sentinel => Trouble::Away,
        ErrorKind::Config
        | ErrorKind::Auth
        | ErrorKind::InvalidCommand
        | ErrorKind::InvalidArgument
        | ErrorKind::Url
        | ErrorKind::Tls
        | ErrorKind::Unknown
        | ErrorKind::Cluster
        | ErrorKind::Parse
        | ErrorKind::NotFound => Trouble::Refused(said),
    }
}

/// Calls under way at once, of each function: enough to keep the line busy, few enough that what
/// comes meanwhile gathers.
const CALLS_MAX: usize = 8;
/// The same for each slot of a cluster.
const CALLS_PER_SLOT_MAX: usize = 2;
/// Operations in one call, so that nobody else waits long for Redis.
const OPS_MAX: usize = 256;
/// How often the state of the connection is looked at.
const WATCH_PAUSE: Duration = Duration::from_millis(100);
/// Between two looks at who has which slots.
const CHART_PAUSE: Duration = Duration::from_secs(30);
/// The same while a server is away, and somebody may take its place.
const CHART_PAUSE_BROKEN: Duration = Duration::from_millis(250);
/// A function that is gone again at once was removed by somebody who wants that.
const LOADS: u32 = 2;
/// As many nodes may send a call on.
const REDIRECTIONS: u32 = 5;
/// A slot that is being moved answers soon.
const TRYAGAIN_TIMES: u32 = 20;
const TRYAGAIN_PAUSE: Duration = Duration::from_millis(25);
