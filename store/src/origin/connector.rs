//! HTTP for `object_store`: hyper, with rustls on ring where an address asks for TLS.

use std::fmt;
use std::sync::OnceLock;
use std::time::Duration;

use http::header::AUTHORIZATION;
use http::uri::Scheme;
use http::{HeaderValue, Uri};
use http_body_util::BodyExt;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use object_store::client::{
    HttpClient, HttpConnector as Connects, HttpError, HttpErrorKind, HttpRequest, HttpRequestBody,
    HttpResponse, HttpResponseBody, HttpService,
};
use object_store::{ClientConfigKey, ClientOptions};

/// Makes the clients of one origin.
#[derive(Clone, Debug)]
pub(crate) struct Connector {
    connect_timeout: Duration,
    is_server: bool,
    authorization: Option<HeaderValue>,
}

impl Connector {
    pub(crate) fn new(connect_timeout: Duration) -> Self {
        Self { connect_timeout, is_server: false, authorization: None }
    }

    /// For another server of ours, which may be asked in the clear, and knows us by a secret.
    ///
    /// # Errors
    /// If the secret cannot stand in a header.
    pub(crate) fn for_server(self, secret: Option<&str>) -> Result<Self, String> {
        let authorization = secret.map(|secret| HeaderValue::try_from(format!("Bearer {secret}")));
        let mut authorization = authorization
            .transpose()
            .map_err(|_| "the secret has characters that cannot stand in a header".to_owned())?;
        authorization.iter_mut().for_each(|value| value.set_sensitive(true));
        Ok(Self { is_server: true, authorization, ..self })
    }
}

impl Connects for Connector {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let allowed = options.get_config_value(&ClientConfigKey::AllowHttp);
        let mut http = HttpConnector::new();
        http.enforce_http(false);
        http.set_nodelay(true);
        http.set_connect_timeout(Some(self.connect_timeout));
        Ok(HttpClient::new(Requests {
            plain: client(http.clone()),
            encrypted: OnceLock::new(),
            http,
            clear_allowed: self.is_server || allowed.as_deref() == Some("true"),
            authorization: self.authorization.clone(),
        }))
    }
}

/// One client.
struct Requests {
    plain: Client<HttpConnector, HttpRequestBody>,
    /// Made when it is needed first: the certificates of the system are read for it.
    encrypted: OnceLock<Client<HttpsConnector<HttpConnector>, HttpRequestBody>>,
    http: HttpConnector,
    clear_allowed: bool,
    authorization: Option<HeaderValue>,
}

impl Requests {
    fn encrypted(
        &self,
    ) -> Result<&Client<HttpsConnector<HttpConnector>, HttpRequestBody>, HttpError> {
        if let Some(client) = self.encrypted.get() {
            return Ok(client);
        }
        let provider = rustls::crypto::ring::default_provider();
        let builder = HttpsConnectorBuilder::new()
            .with_provider_and_native_roots(provider)
            .map_err(|error| HttpError::new(HttpErrorKind::Unknown, error))?;
        let connector = builder.https_only().enable_http1().wrap_connector(self.http.clone());
        Ok(self.encrypted.get_or_init(|| client(connector)))
    }
}

#[async_trait::async_trait]
impl HttpService for Requests {
    async fn call(&self, mut request: HttpRequest) -> Result<HttpResponse, HttpError> {
        if let Some(authorization) = &self.authorization {
            request.headers_mut().insert(AUTHORIZATION, authorization.clone());
        }
        let answered = if is_clear(request.uri()) {
            if !self.clear_allowed {
                let reason = "it is not encrypted, and AWS_ALLOW_HTTP or its like is not set";
                return Err(HttpError::new(HttpErrorKind::Unknown, std::io::Error::other(reason)));
            }
            self.plain.request(request).await
        } else {
            self.encrypted()?.request(request).await
        };
        let answer = answered.map_err(|error| {
            let kind =
                if error.is_connect() { HttpErrorKind::Connect } else { HttpErrorKind::Request };
            HttpError::new(kind, error)
        })?;
        Ok(answer.map(|body| {
            HttpResponseBody::new(
                body.map_err(|error| HttpError::new(HttpErrorKind::Interrupted, error)),
            )
        }))
    }
}

impl fmt::Debug for Requests {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Requests").finish_non_exhaustive()
    }
}

fn client<C>(connector: C) -> Client<C, HttpRequestBody>
where
    C: hyper_util::client::legacy::connect::Connect + Clone,
{
    Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(IDLE_TIMEOUT)
        .pool_max_idle_per_host(IDLE_MAX)
        .build(connector)
}

fn is_clear(uri: &Uri) -> bool {
    uri.scheme() == Some(&Scheme::HTTP)
}

/// Shorter than servers keep connections, so that one that was just closed is seldom used.
const IDLE_TIMEOUT: Duration = Duration::from_secs(4);
const IDLE_MAX: usize = 4;
