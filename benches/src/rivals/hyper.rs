//! As little of hyper and `serde_json` as can be right: a check-in becomes a typed struct, of which
//! another one is answered. Nothing is looked up, kept or decided.

use anyhow::Result;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;

/// Serves until the process ends.
pub(super) fn serve() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(accept())
}

async fn accept() -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    super::say_ready(listener.local_addr()?)?;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        tokio::spawn(async move {
            let service = service_fn(answer);
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
    mac: &'a str,
    version: &'a str,
    owner: &'a str,
    alias: &'a str,
    udid: &'a str,
    firmware: &'a str,
    status: &'a str,
    platform: &'a str,
    fcid: &'a str,
}

#[derive(Serialize)]
struct Reply<'a> {
    registration: Registered<'a>,
}

#[derive(Serialize)]
struct Registered<'a> {
    success: bool,
    status: &'static str,
    auto_update: bool,
    owner: &'a str,
    alias: &'a str,
    mesh_ids: [&'a str; 0],
    udid: &'a str,
    timestamp: u64,
}

async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>> {
    let body = request.into_body().collect().await?.to_bytes();
    let Body { registration } = serde_json::from_slice(&body)?;
    let Registration { mac, version, owner, alias, udid, firmware, status, platform, fcid } =
        registration;
    let is_said = [mac, version, firmware, platform, fcid].iter().all(|text| !text.is_empty());
    let registration = Registered {
        success: is_said && status == "Registered",
        status: "OK",
        auto_update: false,
        owner,
        alias,
        mesh_ids: [],
        udid,
        timestamp: 1_795_478_791,
    };
    let reply = serde_json::to_vec(&Reply { registration })?;
    let mut response = Response::new(Full::new(Bytes::from(reply)));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}
