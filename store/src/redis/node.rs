//! One server of Redis: the only one, or a master of a cluster.
//!
//! Each has lines of its own, so that one that is dead or slow holds up nobody but those whose keys
//! it has.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::mem;
use std::time::Duration;

use fred::clients::Client;
use fred::error::Error;
use fred::interfaces::ClientLike;
use fred::types::config::Server;
use fred::types::{ClusterHash, CustomCommand, Value};
use tokio::time::{Instant, sleep, timeout};

use super::library::Library;
use super::op::Kind;
use super::round::Place;
use super::trouble::Trouble;

/// One server of Redis.
pub(super) struct Node {
    /// Where it is in a cluster.
    pub(super) server: Option<Server>,
    pub(super) client: Client,
    /// For claims that wait until replicas have them: a line of its own, because waiting holds up
    /// all that follows.
    replicated: Option<Replicated>,
    state: Cell<State>,
    /// How long it may take to connect.
    patience: Duration,
    calls: Cell<u64>,
    under_way: RefCell<HashMap<u64, UnderWay>>,
    /// It said that it is a replica, and is not asked again to say so at once.
    read_only: Cell<ReadOnly>,
}

#[derive(Clone, Copy)]
enum State {
    /// New since then, and being connected to.
    Coming(Instant),
    Up,
    Down,
}

/// How claims wait for replicas.
pub(super) struct Replicated {
    pub(super) client: Client,
    pub(super) replicas: u32,
    pub(super) timeout: Duration,
}

/// A call that was sent and is not answered.
struct UnderWay {
    sent: Instant,
    /// One that waits for replicas says nothing about the server.
    counts: bool,
    places: Vec<Place>,
}

#[derive(Clone, Copy, Default)]
struct ReadOnly {
    was_met: bool,
    reconnected: Option<Instant>,
}

impl Node {
    pub(super) fn new(
        server: Option<Server>,
        client: Client,
        replicated: Option<Replicated>,
        patience: Duration,
    ) -> Self {
        Self {
            server,
            client,
            replicated,
            state: Cell::new(State::Coming(Instant::now())),
            patience: patience.max(CONNECT_MIN),
            calls: Cell::new(0),
            under_way: RefCell::default(),
            read_only: Cell::default(),
        }
    }

    /// May anything be asked of it?
    pub(super) fn is_up(&self) -> bool {
        matches!(self.state.get(), State::Up)
    }

    /// Is it new, and likely to be there in a moment?
    pub(super) fn is_coming(&self) -> bool {
        matches!(self.state.get(), State::Coming(since) if since.elapsed() < self.patience)
    }

    /// Waits until it is there.
    ///
    /// # Errors
    /// [`Trouble::Away`] if it does not come in time, or was there and is not any more.
    pub(super) async fn wait_until_up(&self) -> Result<(), Trouble> {
        while self.is_coming() {
            sleep(COMING_PAUSE).await;
        }
        if self.is_up() { Ok(()) } else { Err(Trouble::Away) }
    }

    /// Says that it is there, or gone. If it is gone whoever waits for it is told at once.
    pub(super) fn set_up(&self, is_up: bool) {
        match (is_up, self.state.get()) {
            (true, _) => self.state.set(State::Up),
            // Its time passes by itself.
            (false, State::Coming(_)) => {}
            (false, State::Up | State::Down) => self.state.set(State::Down),
        }
        if !is_up {
            for under_way in self.under_way.borrow_mut().values_mut() {
                for place in under_way.places.drain(..) {
                    place.fill(Err(Trouble::Unknown("it stopped answering".to_owned())));
                }
            }
        }
    }

    /// Is it there? Without an answer for as long as `patience` it is not, until it answers again.
    pub(super) async fn look(&self, patience: Duration) -> bool {
        self.follow(patience).await;
        if !self.client.is_connected() {
            false
        } else if self.is_up() {
            // Claims that cannot be made now are no reason to turn others away.
            !self.is_stalled(patience)
        } else if self.replicated.as_ref().is_some_and(|claims| !claims.client.is_connected()) {
            false
        } else {
            let ping = self.client.ping::<Value>(None);
            matches!(timeout(patience, ping).await, Ok(Ok(_)))
        }
    }

    /// Does a call wait for long, and nothing was answered since it was sent?
    fn is_stalled(&self, patience: Duration) -> bool {
        let under_way = self.under_way.borrow();
        let sent = under_way.values().filter(|call| call.counts).map(|call| call.sent).min();
        sent.is_some_and(|sent| sent.elapsed() > patience)
    }

    /// Connects anew if it turned out to be a replica: behind its name there may be another one by
    /// now, which is not found on a connection that goes on.
    async fn follow(&self, patience: Duration) {
        let ReadOnly { was_met, reconnected } = self.read_only.get();
        if was_met && reconnected.is_none_or(|then| then.elapsed() > READ_ONLY_PAUSE) {
            self.read_only.set(ReadOnly { was_met: false, reconnected: Some(Instant::now()) });
            let claims = self.replicated.as_ref().map(|claims| &claims.client);
            for client in [Some(&self.client), claims].into_iter().flatten() {
                // If it fails, it goes on trying by itself.
                let _ = timeout(patience, client.force_reconnection()).await;
            }
        }
    }

    /// A call is sent. Whoever waits for it is kept here, to be told if the server goes.
    pub(super) fn begin(&self, kind: Kind, places: Vec<Place>) -> u64 {
        let number = self.calls.get();
        self.calls.set(number + 1);
        let counts = !self.waits(kind);
        let under_way = UnderWay { sent: Instant::now(), counts, places };
        self.under_way.borrow_mut().insert(number, under_way);
        number
    }

    /// A call is sent once more.
    pub(super) fn resend(&self, number: u64, kind: Kind) {
        if let Some(call) = self.under_way.borrow_mut().get_mut(&number) {
            call.sent = Instant::now();
            call.counts = !self.waits(kind);
        }
    }

    /// A call was answered, and goes on: until it is sent again, it waits for something else than
    /// this server.
    pub(super) fn put_off(&self, number: u64) {
        let mut under_way = self.under_way.borrow_mut();
        if under_way.get_mut(&number).is_some_and(|call| mem::take(&mut call.counts)) {
            refresh(&mut under_way);
        }
    }

    /// A call ended, with an answer or without; returns who still waits for it.
    pub(super) fn end(&self, number: u64, is_answered: bool) -> Vec<Place> {
        let mut under_way = self.under_way.borrow_mut();
        let ended = under_way.remove(&number);
        if is_answered && ended.as_ref().is_some_and(|ended| ended.counts) {
            refresh(&mut under_way);
        }
        ended.map(|ended| ended.places).unwrap_or_default()
    }

    fn waits(&self, kind: Kind) -> bool {
        kind == Kind::Replicated && self.replicated.is_some()
    }

    /// Calls the function. `asking` where a slot is about to come to this server.
    ///
    /// # Errors
    /// What Redis or the line says, or that replicas are missing.
    pub(super) async fn fcall(
        &self,
        kind: Kind,
        args: Vec<Value>,
        asking: bool,
    ) -> Result<Value, Failed> {
        let called = match &self.replicated {
            Some(replicated) if kind == Kind::Replicated => replicated.call(args, asking).await,
            Some(_) | None if asking => {
                let [_, reply] = in_turn(&self.client, [asking_command(), ("FCALL", args)]).await?;
                Ok(reply)
            }
            Some(_) | None => Ok(self.client.custom(command("FCALL"), args).await?),
        };
        if let Err(Failed::Call(error)) = &called
            && error.details().starts_with("READONLY")
        {
            self.read_only.set(ReadOnly { was_met: true, ..self.read_only.get() });
        }
        called
    }

    /// Gives it the function.
    ///
    /// # Errors
    /// [`Trouble::Refused`] if it does not take it.
    pub(super) async fn load(&self, library: &Library) -> Result<(), Trouble> {
        let args = vec!["LOAD".into(), "REPLACE".into(), Value::from(library.code.clone())];
        self.client.custom::<Value, _>(command("FUNCTION"), args).await.map_err(|error| {
            Trouble::Refused(format!("its functions cannot be loaded: {}", error.details()))
        })?;
        Ok(())
    }

    /// Hangs up.
    pub(super) async fn leave(&self) {
        let claims = self.replicated.as_ref().map(|claims| &claims.client);
        for client in [Some(&self.client), claims].into_iter().flatten() {
            // Whether or not it says goodbye.
            let _ = client.quit().await;
        }
    }
}

/// Any answer shows that a server is not stalled.
fn refresh(under_way: &mut HashMap<u64, UnderWay>) {
    let now = Instant::now();
    under_way.values_mut().for_each(|call| call.sent = call.sent.max(now));
}

impl Replicated {
    /// Calls, and waits until enough replicas have what was written. `WAIT` counts only what its
    /// own connection wrote, so both must have gone over one: its number is asked before and after.
    async fn call(&self, args: Vec<Value>, asking: bool) -> Result<Value, Failed> {
        if !self.client.is_connected() {
            return Err(Trouble::Away.into());
        }
        let wait_ms = u64::try_from(self.timeout.as_millis()).unwrap_or(u64::MAX);
        let id = || ("CLIENT", vec![Value::from_static_str("ID")]);
        let before = if asking { asking_command() } else { id() };
        let wait = ("WAIT", vec![number(u64::from(self.replicas)), number(wait_ms)]);
        let commands = [id(), before, ("FCALL", args), wait, id()];
        let [before, _, reply, confirmed, after] = in_turn(&self.client, commands).await?;
        let confirmed = if before == after { confirmed.as_i64().unwrap_or_default() } else { 0 };
        if confirmed < i64::from(self.replicas) {
            return Err(Trouble::Unreplicated { confirmed, wanted: self.replicas }.into());
        }
        Ok(reply)
    }
}

/// Sends commands one directly after the other; fails if one fails.
async fn in_turn<const N: usize>(
    client: &Client,
    commands: [(&'static str, Vec<Value>); N],
) -> Result<[Value; N], Failed> {
    let pipeline = client.pipeline();
    for (name, args) in commands {
        pipeline.custom::<(), _>(command(name), args).await?;
    }
    let replies = pipeline.all::<Vec<Value>>().await?.try_into();
    Ok(replies.map_err(|_| Trouble::odd("a pipeline is not answered one by one"))?)
}

/// Why a call has no replies.
pub(super) enum Failed {
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

/// A command that goes to the server of the client.
pub(super) fn command(name: &'static str) -> CustomCommand {
    CustomCommand::new_static(name, ClusterHash::Custom(0), false)
}

fn asking_command() -> (&'static str, Vec<Value>) {
    ("ASKING", Vec::new())
}

pub(super) fn number(number: u64) -> Value {
    Value::from(number.to_string())
}

/// A server is given so long to connect at least.
const CONNECT_MIN: Duration = Duration::from_secs(1);
/// Between two looks at whether it has.
pub(super) const COMING_PAUSE: Duration = Duration::from_millis(10);
/// How often somebody who turned out to be a replica is connected to anew.
const READ_ONLY_PAUSE: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_that_is_put_off_does_not_speak_against_its_server() {
        let node = Node::new(None, Client::default(), None, Duration::ZERO);
        let stalls = || (0..1_000_000).any(|_| node.is_stalled(Duration::ZERO));
        assert!(!stalls(), "nothing is under way");
        let number = node.begin(Kind::Read, Vec::new());
        assert!(stalls());
        node.put_off(number);
        assert!(!stalls(), "it was answered");
        node.resend(number, Kind::Read);
        assert!(stalls());
        node.end(number, true);
        assert!(!stalls());
    }
}
