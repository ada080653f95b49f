//! The updaters: `ESP8266HTTPUpdate` and `esp_https_ota` (docs/wire.md 2.4).

use bytes::Bytes;

use super::{Act, Event};
use crate::image::{FIRST_BYTE, hex, md5_of};
use crate::{Reply, Request};

/// A download that is under way.
#[derive(Debug)]
pub struct Fetch {
    /// The token that is redeemed.
    pub token: String,
    updater: Updater,
    /// MD5 of what the device runs, as the headers say it.
    sketch_md5: String,
    received: Vec<u8>,
    got: Vec<u8>,
    length: Option<usize>,
    etag: Option<String>,
    is_probed: bool,
    redials_left: u8,
}

/// Which updater fetches, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Updater {
    /// `ESP8266HTTPUpdate`: one HTTP/1.0 `GET`, all or nothing.
    Esp8266,
    /// `HTTPUpdate` of the ESP32 core: the same with headers of its own.
    Esp32 {
        /// Newer versions tell the MD5 of what runs.
        tells_md5: bool,
    },
    /// `esp_https_ota`: one `GET`, resumed where it broke off.
    IdfWhole,
    /// `esp_https_ota` with `partial_http_download`: `HEAD`, a probe of one byte, then parts,
    /// each asked for with one byte too many.
    IdfParts {
        /// Bytes of a part.
        part_bytes: usize,
    },
}

/// How a download stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// It goes on, with these acts.
    Going(Vec<Act>),
    /// The image is whole and passed the updater's checks.
    Whole(Bytes),
    /// There is nothing newer.
    Unchanged,
    /// It failed, with the text that the next check-in reports.
    Failed(&'static str),
}

impl Fetch {
    /// Prepares a download.
    #[must_use]
    pub fn new(updater: Updater, token: &str, running: &[u8]) -> Self {
        Self {
            token: token.to_owned(),
            updater,
            sketch_md5: hex(&md5_of(running)),
            received: Vec::new(),
            got: Vec::new(),
            length: None,
            etag: None,
            is_probed: false,
            redials_left: REDIALS_MAX,
        }
    }

    /// Opens the connection and asks.
    #[must_use]
    pub fn begin(&self) -> Vec<Act> {
        vec![Act::Dial, Act::Say(self.request().bytes())]
    }

    /// Goes on with what came.
    pub fn hear(&mut self, event: Event<'_>) -> Progress {
        match event {
            Event::Bytes(bytes) => {
                self.received.extend_from_slice(bytes);
                self.take()
            }
            Event::End | Event::Reset => self.broken(),
        }
    }

    fn request(&self) -> Request {
        match self.updater {
            Updater::Esp8266 => Request::esp8266_update(&self.token)
                .without("x-ESP8266-sketch-md5")
                .header("x-ESP8266-sketch-md5", &self.sketch_md5),
            Updater::Esp32 { tells_md5 } => self.esp32_request(tells_md5),
            Updater::IdfWhole | Updater::IdfParts { .. } => self.idf_request(),
        }
    }

    fn esp32_request(&self, tells_md5: bool) -> Request {
        let request = Request::get(&format!("/device/firmware?ott={}", self.token))
            .version("HTTP/1.0")
            .host("thinx.cloud:7442")
            .header("User-Agent", "ESP32-http-Update")
            .header("Connection", "close")
            .header("x-ESP32-STA-MAC", "DE:BA:7A:B1:E0:42")
            .header("x-ESP32-free-space", "1310720")
            .header("x-ESP32-mode", "sketch");
        if !tells_md5 {
            return request;
        }
        request.header("x-ESP32-sketch-md5", &self.sketch_md5)
    }

    fn idf_request(&self) -> Request {
        let request = Request::get(&format!("/device/firmware?ott={}", self.token))
            .host("app.thinx.cloud:7442")
            .header("User-Agent", "ESP32 HTTP Client/1.0");
        let start = self.got.len();
        let range = match (self.updater, self.length) {
            (Updater::IdfParts { .. }, None) => return request.method("HEAD"),
            (Updater::IdfParts { .. }, Some(_)) if !self.is_probed => "bytes=0-0".to_owned(),
            (Updater::IdfParts { part_bytes }, Some(length)) => {
                format!("bytes={start}-{}", (start + part_bytes).min(length))
            }
            (_, _) if start > 0 => format!("bytes={start}-"),
            (_, _) => return request,
        };
        let request = request.header("Range", &range);
        match &self.etag {
            Some(etag) => request.header("If-Range", etag),
            None => request,
        }
    }

    /// Looks at what was received, as far as it makes sense already.
    fn take(&mut self) -> Progress {
        let Some((head, head_bytes)) = Reply::parse_head(&self.received) else {
            return Progress::Going(Vec::new());
        };
        match head.status {
            200 | 206 => {}
            304 => return Progress::Unchanged,
            401 => return Progress::Failed("Unauthorized (401)"),
            403 => return Progress::Failed("Forbidden (403)"),
            404 => return Progress::Failed("File Not Found (404)"),
            _ => return Progress::Failed("Wrong HTTP Code"),
        }
        let Some(body_bytes) = head.content_length() else {
            return Progress::Failed("Server Did Not Report Size");
        };
        if head.status == 206 && self.is_all_or_nothing() {
            return Progress::Failed("Wrong HTTP Code");
        }
        if self.is_head_request() {
            self.length = Some(body_bytes);
            self.etag = head.header("ETag").map(str::to_owned);
            self.received.clear();
            return Progress::Going(self.ask_again(&head));
        }
        if self.received.len() < head_bytes + body_bytes {
            return Progress::Going(Vec::new());
        }
        self.keep(&head, head_bytes, body_bytes)
    }

    fn is_all_or_nothing(&self) -> bool {
        matches!(self.updater, Updater::Esp8266 | Updater::Esp32 { .. })
    }

    fn is_head_request(&self) -> bool {
        matches!(self.updater, Updater::IdfParts { .. }) && self.length.is_none()
    }

    /// One answer is whole.
    fn keep(&mut self, head: &Reply, head_bytes: usize, body_bytes: usize) -> Progress {
        let body = self.received[head_bytes..head_bytes + body_bytes].to_vec();
        self.received.clear();
        if head.status == 200 {
            return self.check(head, &body);
        }
        if matches!(self.updater, Updater::IdfParts { .. }) && !self.is_probed {
            self.is_probed = true;
            return Progress::Going(self.ask_again(head));
        }
        self.got.extend(body);
        if Some(self.got.len()) == total_bytes(head) {
            let got = std::mem::take(&mut self.got);
            return self.check(head, &got);
        }
        Progress::Going(self.ask_again(head))
    }

    /// The checks that an updater makes before it starts an image.
    fn check(&self, head: &Reply, image: &[u8]) -> Progress {
        let md5s = head.headers.iter().filter(|(name, _)| name.eq_ignore_ascii_case("x-MD5"));
        let md5s: Vec<&str> = md5s.map(|(_, value)| value.as_str()).collect();
        if md5s.len() > 1 {
            return Progress::Failed("Wrong MD5");
        }
        if image.first() != Some(&FIRST_BYTE) {
            return Progress::Failed("Verify Bin Header Failed");
        }
        match md5s.first() {
            Some(md5) if !md5.eq_ignore_ascii_case(&hex(&md5_of(image))) => {
                Progress::Failed("Update error: ERROR[7]: MD5 Failed")
            }
            Some(_) | None => Progress::Whole(Bytes::copy_from_slice(image)),
        }
    }

    fn ask_again(&self, head: &Reply) -> Vec<Act> {
        let say = Act::Say(self.request().bytes());
        if head.says_close() { vec![Act::Dial, say] } else { vec![say] }
    }

    /// The connection is gone before the end.
    fn broken(&mut self) -> Progress {
        if self.is_all_or_nothing() || self.redials_left == 0 {
            return Progress::Failed("Update error: ERROR[6]: Stream Read Timeout");
        }
        self.redials_left -= 1;
        self.save_partial();
        Progress::Going(self.begin())
    }

    /// Keeps the part of a body that came, to go on behind it.
    fn save_partial(&mut self) {
        let received = std::mem::take(&mut self.received);
        if self.is_head_request() {
            return;
        }
        if let Some((head, head_bytes)) = Reply::parse_head(&received) {
            let body = &received[head_bytes..];
            match head.status {
                200 => {
                    self.etag = head.header("ETag").map(str::to_owned);
                    self.got = body.to_vec();
                }
                206 if self.is_probed || self.updater == Updater::IdfWhole => self.got.extend(body),
                _ => {}
            }
        }
    }
}

/// The length of the whole image that a 206 belongs to.
fn total_bytes(head: &Reply) -> Option<usize> {
    head.header("Content-Range")?.rsplit('/').next()?.parse().ok()
}

const REDIALS_MAX: u8 = 6;
