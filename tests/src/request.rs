//! Requests as the device libraries send them, to be varied.

/// A request to be sent: a builder that writes exactly what it is told, right or wrong.
///
/// ```
/// use otter_tests::Request;
/// let bytes = Request::get("/").bytes();
/// assert_eq!(bytes, b"GET / HTTP/1.1\r\nHost: otter\r\n\r\n");
/// ```
#[derive(Clone, Debug)]
pub struct Request {
    method: String,
    target: String,
    version: String,
    headers: Vec<String>,
    framing: Framing,
    body: Vec<u8>,
    after: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Framing {
    None,
    Length,
    Chunked { bytes_max: usize },
}

impl Request {
    /// A request without a body, and with `Host: otter` as its only header.
    #[must_use]
    pub fn new(method: &str, target: &str) -> Self {
        Self {
            method: method.to_owned(),
            target: target.to_owned(),
            version: "HTTP/1.1".to_owned(),
            headers: vec!["Host: otter".to_owned()],
            framing: Framing::None,
            body: Vec::new(),
            after: Vec::new(),
        }
    }

    /// `GET target`.
    #[must_use]
    pub fn get(target: &str) -> Self {
        Self::new("GET", target)
    }

    /// `POST target` with a body and its `Content-Length`.
    #[must_use]
    pub fn post(target: &str, body: &str) -> Self {
        let body = body.as_bytes().to_vec();
        Self { framing: Framing::Length, body, ..Self::new("POST", target) }
    }

    /// `POST /device/register` as library 2.9.450 sends it, CRLF after the body included
    /// (docs/wire.md 1.1).
    #[must_use]
    pub fn check_in(key: &str, body: &str) -> Self {
        let request = Self::post("/device/register", body)
            .host("thinx.cloud")
            .header("Authentication", key)
            .header("Accept", "application/json")
            .header("Origin", "device")
            .header("Content-Type", "application/json")
            .header("User-Agent", "THiNX-Client")
            .header("Connection", "close");
        request.then(b"\r\n")
    }

    /// `GET /device/firmware?ott=..` as the updater of a recent ESP8266 core sends it
    /// (docs/wire.md 2.4).
    #[must_use]
    pub fn esp8266_update(token: &str) -> Self {
        Self::get(&format!("/device/firmware?ott={token}"))
            .version("HTTP/1.0")
            .host("thinx.cloud:7442")
            .header("User-Agent", "ESP8266-http-Update")
            .header("Connection", "close")
            .header("x-ESP8266-Chip-ID", "15602487")
            .header("x-ESP8266-STA-MAC", "DE:BA:7A:B1:E0:42")
            .header("x-ESP8266-AP-MAC", "DE:BA:7A:B1:E0:43")
            .header("x-ESP8266-free-space", "4194304")
            .header("x-ESP8266-sketch-size", "400000")
            .header("x-ESP8266-sketch-md5", "00000000000000000000000000000000")
            .header("x-ESP8266-chip-size", "4194304")
            .header("x-ESP8266-sdk-version", "2.5.0")
            .header("x-ESP8266-mode", "sketch")
            .header("Content-Length", "0")
    }

    /// Another method.
    #[must_use]
    pub fn method(mut self, method: &str) -> Self {
        self.method = method.to_owned();
        self
    }

    /// Another version, `HTTP/1.0`.
    #[must_use]
    pub fn version(mut self, version: &str) -> Self {
        self.version = version.to_owned();
        self
    }

    /// Another host.
    #[must_use]
    pub fn host(mut self, host: &str) -> Self {
        for line in self.headers.iter_mut().filter(|line| line.starts_with("Host:")) {
            *line = format!("Host: {host}");
        }
        self
    }

    /// One more header.
    #[must_use]
    pub fn header(self, name: &str, value: &str) -> Self {
        self.line(&format!("{name}: {value}"))
    }

    /// One more header line, written as it is.
    #[must_use]
    pub fn line(mut self, line: &str) -> Self {
        self.headers.push(line.to_owned());
        self
    }

    /// The key in the header that THiNX devices use.
    #[must_use]
    pub fn key(self, key: &str) -> Self {
        self.header("Authentication", key)
    }

    /// Without any header of this name.
    #[must_use]
    pub fn without(mut self, name: &str) -> Self {
        let named = |line: &String| line.split(':').next().is_some_and(|n| n == name);
        self.headers.retain(|line| !named(line));
        self
    }

    /// The body in chunks of at most `bytes_max` bytes instead of a `Content-Length`.
    #[must_use]
    pub fn chunked(mut self, bytes_max: usize) -> Self {
        self.framing = Framing::Chunked { bytes_max };
        self
    }

    /// Without a word on the body's length.
    #[must_use]
    pub fn unframed(mut self) -> Self {
        self.framing = Framing::None;
        self
    }

    /// Bytes after the body, counted nowhere.
    #[must_use]
    pub fn then(mut self, after: &[u8]) -> Self {
        self.after = after.to_vec();
        self
    }

    /// The bytes of head and body, and what follows them.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        let mut head = format!("{} {} {}\r\n", self.method, self.target, self.version);
        for line in &self.headers {
            head.push_str(line);
            head.push_str("\r\n");
        }
        match self.framing {
            Framing::None => {}
            Framing::Length => head.push_str(&format!("Content-Length: {}\r\n", self.body.len())),
            Framing::Chunked { .. } => head.push_str("Transfer-Encoding: chunked\r\n"),
        }
        let mut bytes = (head + "\r\n").into_bytes();
        match self.framing {
            Framing::None | Framing::Length => bytes.extend_from_slice(&self.body),
            Framing::Chunked { bytes_max } => {
                for chunk in self.body.chunks(bytes_max) {
                    bytes.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
                    bytes.extend_from_slice(chunk);
                    bytes.extend_from_slice(b"\r\n");
                }
                bytes.extend_from_slice(b"0\r\n\r\n");
            }
        }
        bytes.extend_from_slice(&self.after);
        bytes
    }
}

/// The fields of a JSON object, in order.
#[derive(Clone, Debug)]
pub struct Fields {
    fields: Vec<(String, String)>,
}

impl Fields {
    /// No fields.
    #[must_use]
    pub fn none() -> Self {
        Self { fields: Vec::new() }
    }

    /// The field, with a text as its value. Replaces one of the same name where it stands.
    #[must_use]
    pub fn text(self, name: &str, value: &str) -> Self {
        let value = serde_json::Value::from(value).to_string();
        self.raw(name, &value)
    }

    /// The field, with `json` as its value.
    #[must_use]
    pub fn raw(mut self, name: &str, json: &str) -> Self {
        match self.fields.iter_mut().find(|(known, _)| known == name) {
            Some((_, value)) => json.clone_into(value),
            None => self.fields.push((name.to_owned(), json.to_owned())),
        }
        self
    }

    /// Without the field.
    #[must_use]
    pub fn without(mut self, name: &str) -> Self {
        self.fields.retain(|(known, _)| known != name);
        self
    }

    /// The object.
    #[must_use]
    pub fn json(&self) -> String {
        let fields: Vec<String> =
            self.fields.iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
        format!("{{{}}}", fields.join(","))
    }

    /// The object inside another one, as its field `wrapper`.
    #[must_use]
    pub fn wrapped(&self, wrapper: &str) -> String {
        format!("{{\"{wrapper}\":{}}}", self.json())
    }
}
