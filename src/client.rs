//! The command line's side of the admin API: one API, two ways to it.
//!
//! If a server answers on the data directory's socket, commands go there. Otherwise the store is
//! opened here, and the same router answers in this process.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::http::header::CONTENT_TYPE;
use axum::http::{Method, Request, Response, StatusCode};
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper_util::rt::TokioIo;
use otter_store::OpenError;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;
use tokio::runtime::Runtime;
use tower::ServiceExt;

use crate::admin::{self, Admin};
use crate::config::Settings;
use crate::failure::{Context, Failure};
use crate::shapes::Refused;
use crate::socket;
use crate::store::{AnyStore, StoreChoice};

/// A way to the admin API.
pub(crate) struct Client {
    runtime: Runtime,
    transport: Transport,
}

enum Transport {
    /// A server runs.
    Socket(PathBuf),
    /// No server runs: the store is ours for as long as this lives.
    Here { router: Router, store: Option<AnyStore> },
}

/// What to do if there is no data directory, or no store in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum IfAbsent {
    /// It is made: the command is one that may come first.
    Create,
    /// Nothing can be in it, so that is an error, unless facts are kept in Redis.
    Refuse,
}

impl Client {
    /// Finds the server on `data`, or opens the store there.
    pub(crate) fn open(data: &Path, if_absent: IfAbsent) -> Result<Self, Failure> {
        if if_absent == IfAbsent::Refuse && !data.is_dir() && !is_elsewhere(data)? {
            let error = format!("there is no data directory {}", data.display());
            return Err(Failure::not_found(error)
                .hint("name it with --data or OTTER_DATA, or start a new one with `otter serve`"));
        }
        let runtime = runtime()?;
        let socket = data.join(socket::FILE_NAME);
        // A server that starts holds the lock before it answers, and other commands hold it for
        // a moment.
        let patience = Instant::now() + PATIENCE;
        loop {
            let Err(unreachable) = runtime.block_on(UnixStream::connect(&socket)) else {
                return Ok(Self { runtime, transport: Transport::Socket(socket) });
            };
            match open_store(data, if_absent) {
                Ok((router, store)) => {
                    let transport = Transport::Here { router, store: Some(store) };
                    return Ok(Self { runtime, transport });
                }
                Err(Opening::Locked(_)) if Instant::now() < patience => {
                    std::thread::sleep(PAUSE);
                }
                Err(Opening::Locked(pid)) => {
                    return Err(locked(data, pid, &socket, &unreachable));
                }
                Err(Opening::Failed(failure)) => return Err(failure),
            }
        }
    }

    /// The API of a store that somebody else keeps open, in this process.
    pub(crate) fn here(router: Router) -> Result<Self, Failure> {
        Ok(Self { runtime: runtime()?, transport: Transport::Here { router, store: None } })
    }

    pub(crate) fn get<T: DeserializeOwned>(&self, target: &str) -> Result<T, Failure> {
        self.call(Method::GET, target, Body::empty())
    }

    pub(crate) fn post<T: DeserializeOwned>(
        &self,
        target: &str,
        wanted: &impl Serialize,
    ) -> Result<T, Failure> {
        self.call(Method::POST, target, json(wanted)?)
    }

    pub(crate) fn patch<T: DeserializeOwned>(
        &self,
        target: &str,
        wanted: &impl Serialize,
    ) -> Result<T, Failure> {
        self.call(Method::PATCH, target, json(wanted)?)
    }

    pub(crate) fn delete<T: DeserializeOwned>(&self, target: &str) -> Result<T, Failure> {
        self.call(Method::DELETE, target, Body::empty())
    }

    /// Sends any body.
    pub(crate) fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        target: &str,
        body: Body,
    ) -> Result<T, Failure> {
        let request = Request::builder()
            .method(method)
            .uri(target)
            .header("host", "otter")
            .header(CONTENT_TYPE, "application/json")
            .body(body)
            .map_err(|error| Failure::internal(format!("cannot ask for {target}: {error}")))?;
        let (status, bytes) = self.runtime.block_on(self.exchange(request))?;
        if status.is_success() {
            return serde_json::from_slice(&bytes).map_err(|error| {
                Failure::failed(format!("the server's answer cannot be read: {error}"))
                    .hint("do the server and this command have the same version?")
            });
        }
        let refused = serde_json::from_slice(&bytes).unwrap_or_else(|_| Refused {
            error: format!("the server answered {status}"),
            hint: None,
        });
        Err(Failure::from_response(status, refused))
    }

    async fn exchange(&self, request: Request<Body>) -> Result<(StatusCode, Bytes), Failure> {
        match &self.transport {
            Transport::Socket(path) => {
                let stream = UnixStream::connect(path).await.map_err(|error| gone(path, &error))?;
                let (mut sender, connection) =
                    hyper::client::conn::http1::handshake(TokioIo::new(stream))
                        .await
                        .map_err(|error| gone(path, &error))?;
                let driver = tokio::spawn(connection);
                let answered = match sender.send_request(request).await {
                    Ok(response) => collect(response).await,
                    Err(error) => Err(gone(path, &error)),
                };
                driver.abort();
                answered
            }
            Transport::Here { router, .. } => match router.clone().oneshot(request).await {
                Ok(response) => collect(response).await,
                Err(never) => match never {},
            },
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        if let Transport::Here { store, .. } = &mut self.transport
            && let Some(store) = store.take()
        {
            store.close();
        }
    }
}

enum Opening {
    Locked(Option<u32>),
    Failed(Failure),
}

fn open_store(data: &Path, if_absent: IfAbsent) -> Result<(Router, AnyStore), Opening> {
    let settings = Settings::for_command(data).map_err(Opening::Failed)?;
    if if_absent == IfAbsent::Refuse
        && settings.store == StoreChoice::Embedded
        && !data.join("otter.db").exists()
    {
        let error = format!("there is no store in {}", data.display());
        return Err(Opening::Failed(Failure::not_found(error).hint(
            "if its server keeps the facts in Redis, name that in OTTER_STORE or otter.toml; \
             `otter serve` starts a new one",
        )));
    }
    let store = AnyStore::open(data, &settings).map_err(|error| {
        if let OpenError::Locked { pid, .. } = error {
            Opening::Locked(pid)
        } else {
            Opening::Failed(error.into())
        }
    })?;
    let (operator, core) = (store.operator(), settings.core());
    let admin = Admin::new(operator, core, settings.image_bytes_max, None, None);
    Ok((admin::router(admin), store))
}

/// Are the facts in Redis? Then a data directory without anything in it will do.
fn is_elsewhere(data: &Path) -> Result<bool, Failure> {
    Ok(matches!(Settings::for_command(data)?.store, StoreChoice::Redis(_)))
}

fn runtime() -> Result<Runtime, Failure> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context(|| "cannot start the runtime".to_owned())
}

fn json(wanted: &impl Serialize) -> Result<Body, Failure> {
    serde_json::to_vec(wanted)
        .map(Body::from)
        .map_err(|error| Failure::internal(format!("cannot render JSON: {error}")))
}

async fn collect<B>(response: Response<B>) -> Result<(StatusCode, Bytes), Failure>
where
    B: axum::body::HttpBody,
    B::Error: std::fmt::Display,
{
    let status = response.status();
    let body = response.into_body().collect().await.map_err(|error| {
        Failure::unavailable(format!("the server's answer broke off: {error}"))
            .hint("see its log, and try again")
    })?;
    Ok((status, body.to_bytes()))
}

fn gone(socket: &Path, error: &impl std::fmt::Display) -> Failure {
    Failure::unavailable(format!("no answer on {}: {error}", socket.display()))
        .hint("was the server stopped meanwhile? try again")
}

fn locked(data: &Path, pid: Option<u32>, socket: &Path, unreachable: &io::Error) -> Failure {
    let holder = pid.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"));
    let error = format!(
        "{} is locked by {holder}, and nobody answers on {}: {unreachable}",
        data.display(),
        socket.display()
    );
    Failure::conflict(error).hint(if unreachable.kind() == io::ErrorKind::InvalidInput {
        "the path is too long for a socket: give --data as the server was given it, such as a \
         relative path or a symbolic link"
    } else {
        "wait for it to end, or stop it, and try again"
    })
}

/// How long a lock that nobody answers for is waited for.
const PATIENCE: Duration = Duration::from_secs(3);
/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(20);
