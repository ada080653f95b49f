//! The store of many servers: Redis or Valkey, alone, behind Sentinel, or as a Cluster.
//!
//! ```text
//!  workers --queries, one message per turn--> one thread: a task per query (desk, queries)
//!                                                  | operations
//!                                                  v
//!                                      one call per turn and slot (link) --> otter.lua in Redis
//! ```
//!
//! Keys, fields, expiry, and what is done when Redis is away: docs/redis.md.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use otter_protocol::{Answer, Query};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

use crate::clock::Clock;
use crate::depot::{Depot, ImageOptions};
use crate::error::OpenError;
use crate::image::Image;
use crate::inbox::Inbox;
use crate::job::Promise;
use crate::operator::Operator;
use crate::stats::{Counters, StoreStats};
use crate::token::Mint;
use crate::{Store, Ticket, Wake};

use self::operator::{Errand, RedisOperator};
use self::status::Status;

mod adoption;
mod arguments;
mod catalog;
mod connect;
mod copy;
mod desk;
mod device;
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing;
mod identify;
mod keys;
mod library;
mod line;
mod link;
mod node;
mod nodes;
mod op;
mod operator;
mod publication;
mod queries;
mod reply;
mod round;
mod status;
mod tickets;
mod trouble;

/// The store of many servers: facts in Redis 7 or Valkey, images in a directory.
///
/// Any number of servers over one Redis are one service. One thread owns the line to Redis; what
/// all workers ask in one turn goes as one call.
///
/// Dropping it waits for the queries under way, for as long as one may take. Whatever
/// [`Redis::store`] and [`Redis::operator`] gave out answers [`Answer::Unavailable`] and
/// [`OperatorError::Unavailable`](crate::OperatorError::Unavailable) from then on.
///
/// ```no_run
/// use otter_store::{Redis, RedisOptions};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let options = RedisOptions::new("redis://127.0.0.1:6379");
/// let redis = Redis::open("/var/lib/otter".as_ref(), options)?;
/// let owner = redis.operator().create_owner(None)?;
/// let mut store = redis.store(std::sync::Arc::new(|| {})); // one per thread
/// # let _ = (&mut store, owner);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Redis {
    messages: UnboundedSender<Message>,
    depot: Arc<Depot>,
    counters: Arc<Counters>,
    status: Arc<Status>,
    counted: Arc<Mutex<StoreStats>>,
    warnings: Vec<String>,
    line: Option<JoinHandle<()>>,
}

/// Settings of a [`Redis`] store.
#[derive(Clone)]
#[non_exhaustive]
pub struct RedisOptions {
    /// Where Redis is, with the user and password of an ACL:
    ///
    /// - `redis://[[user]:password@]host[:port][/database]`, over TLS `rediss://`
    /// - `redis-sentinel://host:port?node=host:port&sentinelServiceName=name`, over TLS
    ///   `rediss-sentinel://`; `sentinelUsername` and `sentinelPassword` are the sentinels' own
    /// - `redis-cluster://host:port?node=host:port`, over TLS `rediss-cluster://`
    /// - `redis+unix:///path/to/socket`
    ///
    /// `valkey` may stand for `redis` in each.
    pub url: String,
    /// A file with certificates (PEM) of the authorities that sign Redis' certificate. Default
    /// none: the system's authorities.
    pub ca: Option<PathBuf>,
    /// How long a call to Redis may take. Default 2 s. Beyond: what was asked is answered as
    /// unavailable. A quarter of it without any answer, and Redis counts as away: everything is
    /// answered as unavailable at once, until it answers again.
    pub timeout: Duration,
    /// How many replicas must have the claim of a token before the image's tail leaves. Default
    /// 0. With fewer the token is lost and the download ends without its tail.
    pub replicas: u32,
    /// How long a claim waits for those replicas. Default 500 ms.
    pub replicas_timeout: Duration,
    /// Accept the SHA-256 of a key in place of the key (docs/wire.md 4). Default false.
    pub accept_key_hash: bool,
    /// Where images lie, and where those come from that do not lie there. None is ever removed.
    pub images: ImageOptions,
    /// The clock on which deadlines stand. Default none: Redis' own.
    pub clock: Option<Clock>,
    /// Open it also if a copy into it was not finished, to go on with that. Default false.
    pub unfinished: bool,
}

impl RedisOptions {
    /// The defaults, and where Redis is.
    #[must_use]
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            ca: None,
            timeout: Duration::from_secs(2),
            replicas: 0,
            replicas_timeout: Duration::from_millis(500),
            accept_key_hash: false,
            images: ImageOptions::default(),
            clock: None,
            unfinished: false,
        }
    }
}

/// Shows no password.
impl fmt::Debug for RedisOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisOptions")
            .field("timeout", &self.timeout)
            .field("replicas", &self.replicas)
            .finish_non_exhaustive()
    }
}

/// What is sent to the thread of the line.
enum Message {
    /// The queries of one turn of one thread.
    Queries(Vec<(Query, Promise)>),
    /// Something that an operator wants done.
    Errand(Errand),
    /// Finish what came before, and end.
    Close,
}

impl Redis {
    /// Connects, and opens the images in `directory/images`.
    ///
    /// # Errors
    /// [`OpenError::RedisUrl`] if the URL makes no sense;
    /// [`OpenError::Redis`] if Redis cannot be reached or used;
    /// [`OpenError::Unfinished`] if a copy into it was not finished;
    /// [`OpenError::Directory`] if the directory cannot be used; [`OpenError::Origin`] for an
    /// origin of images that cannot be one.
    pub fn open(directory: &Path, options: RedisOptions) -> Result<Self, OpenError> {
        let depot = Arc::new(Depot::open(directory, &options.images, false)?);
        let (counters, status) = (Arc::<Counters>::default(), Arc::<Status>::default());
        let (messages, received) = unbounded_channel();
        let (opened, outcome) = mpsc::sync_channel(1);
        let line = line::Line {
            options,
            images: Arc::clone(&depot.images),
            counters: Arc::clone(&counters),
            status: Arc::clone(&status),
            messages: received,
            opened,
        };
        let thread = thread::Builder::new()
            .name("otter-redis".to_owned())
            .spawn(|| line.run())
            .map_err(|source| OpenError::Thread { source })?;
        let warnings = match outcome.recv() {
            Ok(opened) => opened?,
            Err(_) => return Err(OpenError::redis("the thread for it broke off")),
        };
        let (counted, line) = (Arc::default(), Some(thread));
        Ok(Self { messages, depot, counters, status, counted, warnings, line })
    }

    /// What an operator should know about this Redis: it may forget, or throw things away.
    #[must_use]
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// The store of one thread. `wake` is rung when answers wait. At most 32,768 queries of it
    /// wait for Redis: more are answered with [`Answer::Unavailable`] at once.
    #[must_use]
    pub fn store(&self, wake: Wake) -> RedisStore {
        RedisStore {
            messages: self.messages.clone(),
            status: Arc::clone(&self.status),
            depot: Arc::clone(&self.depot),
            inbox: Arc::new(Inbox::new(wake)),
            bare: Vec::new(),
        }
    }

    /// The operator's side.
    #[must_use]
    pub fn operator(&self) -> Operator {
        Operator::new(RedisOperator {
            messages: self.messages.clone(),
            depot: Arc::clone(&self.depot),
            counters: Arc::clone(&self.counters),
            status: Arc::clone(&self.status),
            mint: Mint::new(),
            counted: Arc::clone(&self.counted),
        })
    }

    /// Waits for the queries under way and hangs up, as dropping does.
    pub fn close(self) {
        drop(self);
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        // Both fail only if the thread broke off, and then there is nothing to wait for.
        let _ = self.messages.send(Message::Close);
        if let Some(line) = self.line.take() {
            let _ = line.join();
        }
        self.depot.close();
    }
}

/// One thread's side of a [`Redis`] store.
pub struct RedisStore {
    messages: UnboundedSender<Message>,
    status: Arc<Status>,
    depot: Arc<Depot>,
    inbox: Arc<Inbox>,
    /// Answers that still lack their image. Kept from turn to turn for its room.
    bare: Vec<(Ticket, Answer<()>)>,
}

impl Store for RedisStore {
    type Image = Image;

    fn submit(&mut self, queries: &mut Vec<(Ticket, Query)>) {
        if queries.is_empty() {
            return;
        }
        let is_up = self.status.is_up();
        let mut asked = Vec::with_capacity(queries.len());
        for (ticket, query) in queries.drain(..) {
            if is_up && self.inbox.expect() {
                asked.push((query, Promise::new(ticket, Arc::clone(&self.inbox))));
            } else {
                self.bare.push((ticket, Answer::Unavailable));
            }
        }
        // If the thread has ended, the promises come back, and are kept when they are dropped.
        let _ = self.messages.send(Message::Queries(asked));
    }

    fn collect(&mut self, answers: &mut Vec<(Ticket, Answer<Image>)>) {
        self.inbox.append_to(&mut self.bare);
        let filled = self.bare.drain(..).filter_map(|(ticket, answer)| {
            let answer = self.depot.fill(ticket, answer, &self.inbox)?;
            Some((ticket, answer))
        });
        answers.extend(filled);
    }
}

impl fmt::Debug for RedisStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisStore").finish_non_exhaustive()
    }
}
