//! The rival of a server on Redis: as little of hyper and fred as can be right.
//!
//! One thread. Per request it reads owner and device from the body, asks Redis for the owner's
//! keys (`GET`), keeps 418 bytes for the device (`SET`), and answers with a constant of the length
//! of a check-in's reply. It checks neither key nor device, and decides nothing.

use anyhow::Result;
use bytes::Bytes;
use fred::prelude::{Builder, Client, ClientLike, Config, KeysInterface};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::net::TcpListener;

use super::{KEPT, REPLY};

/// Serves on a free port of loopback until the process ends; prints `ready http=<address>`.
///
/// # Errors
/// If Redis cannot be reached.
pub(super) fn serve(redis: &str) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(accept(redis))
}

async fn accept(redis: &str) -> Result<()> {
    let client = Builder::from_config(Config::from_url(redis)?).build()?;
    client.init().await?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    super::say_ready(listener.local_addr()?)?;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let client = client.clone();
        let service = service_fn(move |request| answer(request, client.clone()));
        tokio::spawn(async move {
            // A connection that fails is the load's to report.
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

#[derive(Deserialize)]
struct Body<'a> {
    #[serde(borrow)]
    registration: Registration<'a>,
}

#[derive(Deserialize)]
struct Registration<'a> {
    owner: &'a str,
    udid: &'a str,
}

async fn answer(request: Request<Incoming>, client: Client) -> Result<Response<Full<Bytes>>> {
    let body = request.into_body().collect().await?.to_bytes();
    let Body { registration } = serde_json::from_slice(&body)?;
    let _keys: Option<Bytes> = client.get(format!("ak:{}", registration.owner)).await?;
    let key = format!("device:{}", registration.udid);
    let _: () = client.set(key, Bytes::from_static(&KEPT), None, None, false).await?;
    let mut response = Response::new(Full::new(Bytes::from_static(REPLY.as_bytes())));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}
