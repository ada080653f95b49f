//! The admin API: HTTP and JSON, over a Unix socket or in the same process.

use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use axum::extract::rejection::{JsonRejection, PathRejection, QueryRejection};
use axum::extract::{DefaultBodyLimit, FromRequest, FromRequestParts, Path, Query, Request, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get};
use axum::{Json, Router};
use otter_protocol::{Config, DeviceId, OwnerId};
use otter_store::{Operator, OperatorError, OriginState};
use serde::de::DeserializeOwned;

use crate::devices::Devices;
use crate::failure::{Failure, Kind};
use crate::shapes::{Health, OriginEntry, Refused};
use crate::tls::Certificates;

mod devices;
mod metrics;
mod owners;
mod releases;
mod tokens;

/// What the admin API works on.
pub(crate) struct Admin {
    operator: Operator,
    core: Config,
    image_bytes_max: u64,
    started: Instant,
    started_unix: u64,
    /// The device side of this process, if it has one.
    served: Option<Devices>,
    /// What its devices are shown, if it speaks TLS.
    certificates: Option<Arc<Certificates>>,
}

impl Admin {
    pub(crate) fn new(
        operator: Operator,
        core: Config,
        image_bytes_max: u64,
        served: Option<Devices>,
        certificates: Option<Arc<Certificates>>,
    ) -> Self {
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            operator,
            core,
            image_bytes_max,
            started: Instant::now(),
            started_unix: since_1970.as_secs(),
            served,
            certificates,
        }
    }
}

/// All routes.
pub(crate) fn router(admin: Admin) -> Router {
    Router::new()
        .route("/health", get(health))
        .route("/metrics", get(metrics::show))
        .route("/owners", get(owners::list).post(owners::create))
        .route("/keys", get(owners::list_keys).post(owners::create_key))
        .route("/keys/{hash}", delete(owners::revoke_key))
        .route("/devices", get(devices::list))
        .route("/devices/{udid}", get(devices::show).patch(devices::set))
        .route("/devices/{udid}/tokens", delete(tokens::revoke_all))
        .route("/tokens", axum::routing::post(tokens::issue))
        .route("/tokens/{ott}", delete(tokens::revoke))
        .route("/releases", get(releases::list).post(releases::publish))
        .route("/releases/{id}", delete(releases::withdraw))
        .fallback(no_route)
        .method_not_allowed_fallback(no_method)
        .layer(DefaultBodyLimit::max(JSON_BYTES_MAX))
        .with_state(Arc::new(admin))
}

async fn health(State(admin): State<Arc<Admin>>) -> Result<Json<Health>, Failure> {
    if let Some(trouble) = admin.operator.trouble() {
        return Err(Failure::unavailable(trouble)
            .hint("devices are told to come back later, and served again as soon as it is"));
    }
    Ok(Json(Health {
        status: "ok".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pid: std::process::id(),
        uptime_s: admin.started.elapsed().as_secs(),
        image_bytes_max: admin.image_bytes_max,
        image_origins: admin.operator.origins().into_iter().map(origin).collect(),
    }))
}

fn origin(state: OriginState) -> OriginEntry {
    let (failure_at, failure) =
        state.last_failure.map(|failure| (failure.unix_s, failure.reason)).unzip();
    OriginEntry {
        origin: state.origin,
        takes_images: state.takes_images,
        fetched: state.fetched_total,
        failed: state.failed_total,
        failure,
        failure_at,
    }
}

async fn no_route() -> Failure {
    Failure::not_found("there is no such route").hint("docs/operating.md lists them all")
}

async fn no_method() -> Response {
    let failure = Failure::usage("this route does not know this method")
        .hint("docs/operating.md lists methods and routes");
    (StatusCode::METHOD_NOT_ALLOWED, failure.into_body()).into_response()
}

/// Asks the store on a thread that may wait.
async fn ask<T: Send + 'static>(
    admin: &Arc<Admin>,
    question: impl FnOnce(&Admin) -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    let admin = Arc::clone(admin);
    match tokio::task::spawn_blocking(move || question(&admin)).await {
        Ok(result) => result,
        Err(error) => Err(Failure::internal(format!("the request could not be finished: {error}"))),
    }
}

/// The query of a request's target.
struct Params<T>(T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Params<T> {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Failure> {
        let query: Result<Query<T>, QueryRejection> = Query::from_request_parts(parts, state).await;
        query.map(|Query(params)| Self(params)).map_err(|rejection| {
            Failure::usage(rejection.body_text()).hint("docs/operating.md lists the parameters")
        })
    }
}

/// The one part of a request's path that names something.
struct Named(String);

impl<S: Send + Sync> FromRequestParts<S> for Named {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Failure> {
        let path: Result<Path<String>, PathRejection> =
            Path::from_request_parts(parts, state).await;
        path.map(|Path(name)| Self(name)).map_err(|rejection| {
            Failure::usage(rejection.body_text()).hint("docs/operating.md lists the routes")
        })
    }
}

/// A JSON body, whatever its content type; an empty one counts as `{}`.
struct Wanted<T>(T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Wanted<T> {
    type Rejection = Failure;

    async fn from_request(request: Request, state: &S) -> Result<Self, Failure> {
        let bytes = bytes::Bytes::from_request(request, state)
            .await
            .map_err(|rejection| Failure::usage(rejection.body_text()))?;
        let text: &[u8] = if bytes.is_empty() { b"{}" } else { &bytes };
        let json: Result<Json<T>, JsonRejection> = Json::from_bytes(text);
        json.map(|Json(wanted)| Self(wanted)).map_err(|rejection| {
            Failure::usage(rejection.body_text()).hint("docs/operating.md shows the JSON to send")
        })
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let status = match self.kind {
            Kind::Failed => StatusCode::UNPROCESSABLE_ENTITY,
            Kind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
            Kind::Usage => StatusCode::BAD_REQUEST,
            Kind::NotFound => StatusCode::NOT_FOUND,
            Kind::Conflict => StatusCode::CONFLICT,
            Kind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        };
        (status, self.into_body()).into_response()
    }
}

impl Failure {
    fn into_body(self) -> Json<Refused> {
        Json(Refused { error: self.error, hint: self.hint })
    }

    /// The inverse of its response.
    pub(crate) fn from_response(status: StatusCode, refused: Refused) -> Self {
        let kind = match status {
            StatusCode::UNPROCESSABLE_ENTITY => Kind::Failed,
            StatusCode::NOT_FOUND => Kind::NotFound,
            StatusCode::CONFLICT => Kind::Conflict,
            StatusCode::SERVICE_UNAVAILABLE => Kind::Unavailable,
            status if status.is_client_error() => Kind::Usage,
            _ => Kind::Internal,
        };
        Self { kind, error: refused.error, hint: refused.hint }
    }
}

impl From<OperatorError> for Failure {
    fn from(error: OperatorError) -> Self {
        let text = error.to_string();
        match error {
            OperatorError::NotFound { .. } => Self::not_found(text),
            OperatorError::Conflict { .. } => Self::conflict(text),
            OperatorError::Invalid { .. } => Self::failed(text),
            OperatorError::Unavailable { .. } | OperatorError::Origin { .. } => {
                Self::unavailable(text)
            }
            other => Self::internal(other.to_string()),
        }
    }
}

fn owner_from(text: &str) -> Result<OwnerId, Failure> {
    OwnerId::parse(text)
        .ok_or_else(|| Failure::usage("`owner` must be 64 to 128 characters of a-z and 0-9"))
}

fn device_from(text: &str) -> Result<DeviceId, Failure> {
    DeviceId::parse(text)
        .ok_or_else(|| Failure::usage("a udid is 36 characters, hexadecimal as 8-4-4-4-12"))
}

fn no_device(device: DeviceId) -> Failure {
    Failure::not_found(format!("there is no device {device}"))
        .hint("`otter device list` shows those that have checked in")
}

fn hex<const BYTES: usize>(bytes: &[u8; BYTES]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Most bytes of a JSON body.
const JSON_BYTES_MAX: usize = 64 << 10;
