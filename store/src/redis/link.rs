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

use fred::clients::Client;
use fred::error::{Error, ErrorKind};
use fred::interfaces::ClientLike;
use fred::types::{ClusterHash, CustomCommand, Value};
use fred::util::redis_keyslot;
use tokio::sync::Notify;
use tokio::task;
use tokio::time::{Instant, sleep, timeout};

use super::library::Library;
use super::op::{Arg, Kind, Op};
use super::reply::Reply;
use super::round::{Place, Round};
use super::status::Status;
use super::trouble::Trouble;
use crate::clock::Clock;

/// The line to Redis, for the thread that owns it.
pub(super) struct Link {
    client: Client,
    /// For claims that wait until replicas have them: a line of its own, because waiting holds up
    /// all that follows.
    replicated: Option<Replicated>,
    is_cluster: bool,
    library: Library,
    clock: Option<Clock>,
    status: Arc<Status>,
    groups: RefCell<HashMap<Group, Gathered>>,
    /// Rung when there is something to send.
    turn: Notify,
    turns: Cell<u64>,
    /// When each call that is under way was sent.
    under_way: RefCell<HashMap<u64, Instant>>,
    calls: Cell<u64>,
}

/// How claims wait for replicas.
pub(super) struct Replicated {
    pub(super) client: Client,
    pub(super) replicas: u32,
    pub(super) timeout: Duration,
}

/// What goes into one call: a hash slot (0 on a single server) and the function.
type Group = (u16, Kind);

/// What waits for the next call of one group.
#[derive(Default)]
struct Gathered {
    ops: Vec<Asked>,
    under_way: usize,
}

impl Link {
    pub(super) fn new(
        client: Client,
        replicated: Option<Replicated>,
        clock: Option<Clock>,
        status: Arc<Status>,
    ) -> Self {
        Self {
            is_cluster: client.is_clustered(),
            client,
            replicated,
            library: Library::new(),
            clock,
            status,
            groups: RefCell::default(),
            turn: Notify::new(),
            turns: Cell::new(0),
            under_way: RefCell::default(),
            calls: Cell::new(0),
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
        let is_up = self.status.is_up();
        let mut groups = self.groups.borrow_mut();
        for op in ops {
            let place = round.place();
            if is_up {
                let slot = match op.keys.first() {
                    Some(key) if self.is_cluster => redis_keyslot(key.as_bytes()),
                    Some(_) | None => 0,
                };
                groups.entry((slot, op.kind)).or_default().ops.push((op, place));
            }
        }
        self.turn.notify_one();
        round
    }

    /// Do all questions go to one server?
    pub(super) fn is_cluster(&self) -> bool {
        self.is_cluster
    }

    /// Counts the turns in which something was sent: whoever asked in the turn that runs is
    /// answered as of a moment after this.
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

    /// Watches whether Redis answers, forever.
    pub(super) async fn watch(self: Rc<Self>, patience: Duration) {
        loop {
            sleep(WATCH_PAUSE).await;
            let is_connected = self.client.is_connected()
                && self.replicated.as_ref().is_none_or(|claims| claims.client.is_connected());
            let is_up = if self.status.is_up() {
                is_connected && !self.is_stalled(patience)
            } else {
                is_connected && self.answers(patience).await
            };
            self.status.set_up(is_up);
        }
    }

    /// Does a call wait for long, and nothing was answered since it was sent?
    fn is_stalled(&self, patience: Duration) -> bool {
        self.under_way.borrow().values().min().is_some_and(|sent| sent.elapsed() > patience)
    }

    async fn answers(&self, patience: Duration) -> bool {
        let ping = self.client.ping::<Value>(None);
        matches!(timeout(patience, ping).await, Ok(Ok(_)))
    }

    /// Takes the groups that may be sent now, in calls of at most [`OPS_MAX`].
    fn take_ready(&self) -> Vec<(Group, Vec<Asked>)> {
        let calls_max = if self.is_cluster { CALLS_PER_SLOT_MAX } else { CALLS_MAX };
        let mut ready = Vec::new();
        let mut groups = self.groups.borrow_mut();
        groups.retain(|group, gathered| {
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
        let number = self.calls.get();
        self.calls.set(number + 1);
        self.under_way.borrow_mut().insert(number, Instant::now());
        let (ops, answers): (Vec<_>, Vec<_>) = asked.into_iter().unzip();
        self.status.sent(ops.len());
        let replies = self.replies(group, ops, answers.len()).await;
        self.settle(number, &replies);
        match replies {
            Ok(replies) => {
                for (answer, reply) in answers.into_iter().zip(replies) {
                    answer.fill(reply);
                }
            }
            Err(trouble) => {
                for answer in answers {
                    answer.fill(Err(trouble.clone()));
                }
            }
        }
        if let Some(gathered) = self.groups.borrow_mut().get_mut(&group) {
            gathered.under_way -= 1;
        }
        self.turn.notify_one();
    }

    /// Any answer shows that Redis is not stalled.
    fn settle<R>(&self, number: u64, replies: &Result<R, Trouble>) {
        let mut under_way = self.under_way.borrow_mut();
        under_way.remove(&number);
        match replies {
            Ok(_) => {
                let now = Instant::now();
                under_way.values_mut().for_each(|sent| *sent = (*sent).max(now));
            }
            Err(trouble) => self.status.failed(trouble),
        }
    }

    /// One reply for each operation.
    async fn replies(
        &self,
        (slot, kind): Group,
        ops: Vec<Op>,
        count: usize,
    ) -> Result<Vec<Result<Reply, Trouble>>, Trouble> {
        let args = self.arguments(kind, ops);
        let mut loaded = false;
        let mut patience = TRYAGAIN_TIMES;
        loop {
            let error = match self.fcall(slot, kind, args.clone()).await {
                Ok(answer) => match answer.into_bytes() {
                    Some(answer) => return Reply::each(answer, count),
                    None => return Err(Trouble::odd("a call is answered by no text")),
                },
                Err(Failed::Known(trouble)) => return Err(trouble),
                Err(Failed::Call(error)) => error,
            };
            // In both cases nothing was carried out.
            if !loaded && error.details().contains("Function not found") {
                loaded = true;
                self.load(slot, kind).await?;
            } else if patience > 0 && error.details().starts_with("TRYAGAIN") {
                patience -= 1;
                sleep(TRYAGAIN_PAUSE).await;
            } else {
                return Err(trouble_of(&error));
            }
        }
    }

    async fn fcall(&self, slot: u16, kind: Kind, args: Vec<Value>) -> Result<Value, Failed> {
        let fcall = command("FCALL", slot);
        match &self.replicated {
            Some(replicated) if kind == Kind::Replicated => {
                replicated.call(slot, fcall, args).await
            }
            Some(_) | None => Ok(self.client.custom(fcall, args).await?),
        }
    }

    /// Gives the function to the server that has the slot.
    async fn load(&self, slot: u16, kind: Kind) -> Result<(), Trouble> {
        let client = match &self.replicated {
            Some(replicated) if kind == Kind::Replicated => &replicated.client,
            Some(_) | None => &self.client,
        };
        let code = Value::from(self.library.code.clone());
        let args = vec!["LOAD".into(), "REPLACE".into(), code];
        client.custom::<Value, _>(command("FUNCTION", slot), args).await.map_err(|error| {
            Trouble::Refused(format!("its functions cannot be loaded: {}", error.details()))
        })?;
        Ok(())
    }

    /// What the function is called with. Operations of one name and number of arguments that stand
    /// side by side share their header.
    fn arguments(&self, kind: Kind, ops: Vec<Op>) -> Vec<Value> {
        let keys: usize = ops.iter().map(|op| op.keys.len()).sum();
        let all = 3 + keys + ops.iter().map(|op| 3 + op.args.len()).sum::<usize>();
        let mut args = Vec::with_capacity(all);
        args.push(Value::from(match kind {
            Kind::Read => self.library.read.clone(),
            Kind::Write | Kind::Replicated => self.library.write.clone(),
        }));
        args.push(number(keys as u64));
        let mut rest: Vec<(&'static str, Vec<Arg>)> = Vec::with_capacity(ops.len());
        for op in ops {
            args.extend(op.keys.into_iter().map(Value::from));
            rest.push((op.name, op.args));
        }
        args.push(match &self.clock {
            Some(clock) => number(clock()),
            None => Value::from_static_str(""),
        });
        for run in rest.chunk_by_mut(|a, b| a.0 == b.0 && a.1.len() == b.1.len()) {
            args.push(Value::from_static_str(run[0].0));
            args.push(number(run[0].1.len() as u64));
            args.push(number(run.len() as u64));
            args.extend(run.iter_mut().flat_map(|(_, args)| args.drain(..)).map(value));
        }
        args
    }
}

/// An operation, and where its answer goes.
type Asked = (Op, Place);

impl Replicated {
    /// Calls, and waits until enough replicas have what was written. `WAIT` counts only what its
    /// own connection wrote, so both must have gone over one: its number is asked before and after.
    async fn call(
        &self,
        slot: u16,
        fcall: CustomCommand,
        args: Vec<Value>,
    ) -> Result<Value, Failed> {
        let pipeline = self.client.pipeline();
        let wait_ms = u64::try_from(self.timeout.as_millis()).unwrap_or(u64::MAX);
        let id = || (command("CLIENT", slot), vec![Value::from_static_str("ID")]);
        let wait = (command("WAIT", slot), vec![number(u64::from(self.replicas)), number(wait_ms)]);
        for (command, args) in [id(), (fcall, args), wait, id()] {
            pipeline.custom::<(), _>(command, args).await?;
        }
        let replies: [Value; 4] = pipeline
            .all::<Vec<Value>>()
            .await?
            .try_into()
            .map_err(|_| Trouble::odd("a pipeline is not answered one by one"))?;
        let [before, reply, confirmed, after] = replies;
        let confirmed = if before == after { confirmed.as_i64().unwrap_or_default() } else { 0 };
        if confirmed < i64::from(self.replicas) {
            return Err(Trouble::Unreplicated { confirmed, wanted: self.replicas }.into());
        }
        Ok(reply)
    }
}

/// Why a call has no replies.
enum Failed {
    Call(Error),
    Known(Trouble),
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        Self::Call(error)
    }
}

impl From<Trouble> for Failed {
    fn from(trouble: Trouble) -> Self {
        Self::Known(trouble)
    }
}

/// What an error of fred's means for what was asked.
pub(super) fn trouble_of(error: &Error) -> Trouble {
    let said = error.details().to_owned();
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

fn command(name: &'static str, slot: u16) -> CustomCommand {
    CustomCommand::new_static(name, ClusterHash::Custom(slot), false)
}

fn number(number: u64) -> Value {
    Value::from(number.to_string())
}

fn value(arg: Arg) -> Value {
    match arg {
        Arg::Borrowed(text) => Value::from_static_str(text),
        Arg::Owned(text) => Value::from(text),
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
/// A slot that is being moved answers soon.
const TRYAGAIN_TIMES: u32 = 20;
const TRYAGAIN_PAUSE: Duration = Duration::from_millis(25);
