//! The thread that owns the line to Redis.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;

use otter_protocol::{OwnerId, Query};
use tokio::runtime;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::task::{self, LocalSet};
use tokio::time::timeout;

use super::connect;
use super::desk::Desk;
use super::identify::Plain;
use super::link::Link;
use super::status::Status;
use super::{Message, RedisOptions, adoption, keys};
use crate::error::OpenError;
use crate::images::Images;
use crate::job::Promise;
use crate::stats::Counters;
use crate::token::Mint;

/// What the thread starts with.
pub(super) struct Line {
    pub(super) options: RedisOptions,
    pub(super) images: Arc<Images>,
    pub(super) counters: Arc<Counters>,
    pub(super) status: Arc<Status>,
    pub(super) messages: UnboundedReceiver<Message>,
    pub(super) opened: SyncSender<Result<Vec<String>, OpenError>>,
}

impl Line {
    /// Connects, says so, and works until [`Message::Close`].
    pub(super) fn run(self) {
        let runtime = match runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime,
            Err(source) => {
                // Whoever waits for it is there until this arrives.
                let _ = self.opened.send(Err(OpenError::Thread { source }));
                return;
            }
        };
        LocalSet::new().block_on(&runtime, self.work());
    }

    async fn work(mut self) {
        let desk = match self.open().await {
            Ok((desk, warnings)) => {
                let _ = self.opened.send(Ok(warnings));
                desk
            }
            Err(error) => {
                let _ = self.opened.send(Err(error));
                return;
            }
        };
        loop {
            match self.messages.recv().await {
                Some(Message::Queries(queries)) => take(&desk, queries),
                Some(Message::Errand(errand)) => {
                    task::spawn_local(errand(Rc::clone(&desk)));
                }
                Some(Message::Close) | None => break,
            }
        }
        // Whatever is not answered by then is answered as unavailable when it is dropped.
        let _ = timeout(self.options.timeout, desk.done()).await;
        desk.close();
        self.status.set_up(false);
    }

    async fn open(&self) -> Result<(Rc<Desk>, Vec<String>), OpenError> {
        let (nodes, warnings) = connect::connect(&self.options, &self.status).await?;
        let (clock, status) = (self.options.clock.clone(), Arc::clone(&self.status));
        let words = u64::from_ne_bytes(Mint::new().bytes().map_err(OpenError::redis)?);
        let link = Rc::new(Link::new(nodes, clock, status, words));
        link.watch(self.options.timeout / 4);
        let (images, counters) = (Arc::clone(&self.images), Arc::clone(&self.counters));
        let desk = Desk::new(Rc::clone(&link), images, counters, self.options.accept_key_hash);
        let desk = Rc::new(desk);
        task::spawn_local(Rc::clone(&link).run());
        task::spawn_local(Rc::clone(&desk).ring());
        link.wait_until_up(self.options.timeout).await.map_err(OpenError::redis)?;
        let unfinished = desk.text(keys::UNFINISHED.to_owned()).await.map_err(OpenError::redis)?;
        if unfinished.is_some() && !self.options.unfinished {
            return Err(OpenError::Unfinished { store: "this Redis".to_owned() });
        }
        adoption::adopt(&desk).await.map_err(OpenError::redis)?;
        Ok((desk, warnings))
    }
}

/// Begins to answer the queries of one turn.
fn take(desk: &Rc<Desk>, queries: Vec<(Query, Promise)>) {
    // On a cluster one must not wait for the node of another.
    let together_max = if desk.link.is_cluster() { 1 } else { usize::MAX };
    let mut together: Vec<(OwnerId, Vec<Plain>)> = Vec::new();
    for (query, promise) in queries {
        desk.begin();
        if let Query::Identify(identify) = query
            && let (Some(owner), Some(device)) = (identify.owner, identify.device)
        {
            let plain = Plain { identify, device, promise };
            let others = together
                .iter_mut()
                .find(|(other, others)| *other == owner && others.len() < together_max);
            match others {
                Some((_, others)) => others.push(plain),
                None => together.push((owner, vec![plain])),
            }
        } else {
            let desk = Rc::clone(desk);
            task::spawn_local(async move {
                let answer = desk.answer(query).await;
                desk.end(promise.answer(answer));
            });
        }
    }
    for (owner, asked) in together {
        task::spawn_local(Rc::clone(desk).identify_all(owner, asked));
    }
}
