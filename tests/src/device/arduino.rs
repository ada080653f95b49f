//! The C++ libraries on ESP8266 and ESP32: 2.3.184, 3.0.270 and 2.9.450.

use std::time::Duration;

use serde_json::Value;

use super::fetch::{Fetch, Progress, Updater};
use super::{Act, Actor, Event, Flash, Identity};
use crate::{Fields, Line, Random, Request};

/// Which library.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Library {
    /// 2.3.184 (2018): one buffer of 512 bytes for everything up to the end of the connection.
    V2_3,
    /// 3.0.270: a body of 512 bytes, and blind once the receive queue is empty.
    V3_0,
    /// 2.9.450, the current one: a body of 768 bytes, and blind in the same way.
    V2_9,
}

/// A device with one of the C++ libraries.
#[derive(Debug)]
pub struct Arduino {
    library: Library,
    updater: Updater,
    identity: Identity,
    flash: Flash,
    udid: Option<String>,
    alias: String,
    /// What the last OK said; 2.3 and 3.0 act on offers only where it was true.
    auto_update: bool,
    status: String,
    /// A token that is to be redeemed; kept after a failure, as the libraries do.
    pending: Option<String>,
    lost: u32,
    doing: Doing,
    /// How long it rests after a download, however that ended.
    after_fetch_s: (u64, u64),
    loss_percent: u64,
    random: Random,
}

#[derive(Debug)]
enum Doing {
    Resting { until: Duration },
    CheckingIn { received: Vec<u8>, until: Duration },
    Fetching { fetch: Fetch, until: Duration },
}

impl Arduino {
    /// A device that is switched on at the time `on_at`.
    #[must_use]
    pub fn new(
        library: Library,
        updater: Updater,
        identity: Identity,
        on_at: Duration,
        random: Random,
    ) -> Self {
        Self {
            library,
            updater,
            identity,
            flash: Flash::factory("1.0.0"),
            udid: None,
            alias: "unnamed".to_owned(),
            auto_update: library == Library::V3_0,
            status: "Registered".to_owned(),
            pending: None,
            lost: 0,
            doing: Doing::Resting { until: on_at },
            after_fetch_s: AFTER_FETCH_S,
            loss_percent: 0,
            random,
        }
    }

    /// The same in a place where so many of 100 segments are lost.
    #[must_use]
    pub fn far_away(self, loss_percent: u64) -> Self {
        Self { loss_percent, ..self }
    }

    /// The same with a main loop that tries again at once, as libraries 2.9 and 3.x do
    /// (docs/wire.md 2.4).
    #[must_use]
    pub fn impatient(self) -> Self {
        Self { after_fetch_s: (0, 1), ..self }
    }

    fn check_in(&mut self, at: Duration) -> Vec<Act> {
        let mut fields = Fields::none()
            .text("mac", &self.identity.mac_text())
            .text("version", self.flash.version())
            .text("owner", self.identity.owner.as_str())
            .text("alias", &self.alias);
        if let Some(udid) = &self.udid {
            fields = fields.text("udid", udid);
        }
        let body = fields
            .text("firmware", self.library.firmware())
            .text("status", &self.status)
            .text("platform", "arduino:esp8266")
            .wrapped("registration");
        let request = Request::check_in(&self.identity.key_text(), &body).then(b"");
        self.doing = Doing::CheckingIn { received: Vec::new(), until: at + FIRST_BYTE_WAIT };
        // The line end after the body is a write of its own, and counted nowhere.
        vec![Act::Dial, Act::Say(request.bytes()), Act::Say(b"\r\n".to_vec())]
    }

    fn fetch(&mut self, at: Duration, token: &str) -> Vec<Act> {
        let fetch = Fetch::new(self.updater, token, &self.flash.image);
        let acts = fetch.begin();
        self.doing = Doing::Fetching { fetch, until: at + STALL_MAX };
        acts
    }

    fn rest(&mut self, at: Duration, seconds: (u64, u64)) -> Vec<Act> {
        let seconds = self.random.between(seconds.0, seconds.1);
        self.doing = Doing::Resting { until: at + Duration::from_secs(seconds) };
        vec![Act::HangUp]
    }

    /// More of the reply to a check-in; is it all that the library will look at?
    fn read(&mut self, event: Event<'_>) -> Option<Vec<u8>> {
        let Doing::CheckingIn { received, .. } = &mut self.doing else { return None };
        let bytes = match event {
            Event::Bytes(bytes) => bytes,
            Event::Reset => return Some(Vec::new()),
            Event::End => return Some(std::mem::take(received)),
        };
        received.extend_from_slice(bytes);
        if self.library == Library::V2_3 {
            return None;
        }
        // A line of the head is waited for; in the body an empty queue is taken for the end.
        let head_end = received.windows(4).position(|window| window == b"\r\n\r\n")?;
        Some(received[head_end + 4..].to_vec())
    }

    fn obey(&mut self, payload: &[u8]) {
        if payload.len() >= self.library.buffer_bytes() {
            let what = format!("{:?}: {} bytes smash the stack", self.library, payload.len());
            self.flash.complain(&what);
        }
        let text = String::from_utf8_lossy(payload);
        let Some(json) = self.library.parse(&text) else {
            self.lost += 1;
            return;
        };
        let registration = &json["registration"];
        match registration["status"].as_str() {
            Some("OK") => self.obey_ok(registration),
            Some("FIRMWARE_UPDATE") => self.obey_offer(registration),
            _ => {}
        }
    }

    fn obey_ok(&mut self, registration: &Value) {
        if registration["owner"] != self.identity.owner.as_str() {
            self.flash.complain("an OK reply changes the owner");
        }
        match (registration["alias"].as_str(), registration["udid"].as_str()) {
            (Some(alias), Some(udid)) if alias.len() > 1 && udid.len() == 36 => {
                if self.udid.as_deref().is_some_and(|known| known != udid) {
                    self.flash.complain("an OK reply changes the id");
                }
                self.alias = alias.to_owned();
                self.udid = Some(udid.to_owned());
            }
            (_, _) => self.flash.complain("an OK reply without a name or an id"),
        }
        if let Some(auto_update) = registration["auto_update"].as_bool() {
            self.auto_update = auto_update;
        }
        self.status = "Registered".to_owned();
    }

    fn obey_offer(&mut self, registration: &Value) {
        let told = registration["auto_update"] == true;
        let acts = if self.library.obeys_last_ok() { self.auto_update } else { told };
        let token = match self.library {
            Library::V2_3 => ["url", "ott"].iter().find_map(|name| registration[*name].as_str()),
            Library::V3_0 | Library::V2_9 => registration["ott"].as_str(),
        };
        let token = token.map(|text| text.rsplit('=').next().unwrap_or(text).to_owned());
        match token {
            Some(token) if acts => self.pending = Some(token),
            // The reply that told the flag may have been lost: the library ignores the offer.
            Some(_) => {}
            None => self.flash.complain("an offer that this library cannot fetch"),
        }
    }

    /// A download is over, one way or the other.
    fn fetched(&mut self, at: Duration, token: &str, progress: Progress) -> Vec<Act> {
        match progress {
            Progress::Going(acts) => return acts,
            Progress::Whole(image) => {
                self.flash.install(Some(token), image);
                self.pending = None;
                self.status = "Registered".to_owned();
            }
            Progress::Unchanged => {
                self.pending = None;
                self.status = "OK".to_owned();
            }
            Progress::Failed(text) => {
                self.status = text.to_owned();
                // Where parts do not work, all at once may.
                if let Updater::IdfParts { .. } = self.updater {
                    self.updater = Updater::IdfWhole;
                }
            }
        }
        self.rest(at, self.after_fetch_s)
    }
}

impl Actor for Arduino {
    fn wake_at(&self) -> Option<Duration> {
        match &self.doing {
            Doing::Resting { until }
            | Doing::CheckingIn { until, .. }
            | Doing::Fetching { until, .. } => Some(*until),
        }
    }

    fn wake(&mut self, at: Duration, _overheard: &[String]) -> Vec<Act> {
        match (&self.doing, self.pending.clone()) {
            // After a failure the library checks in first, and then tries the same again.
            (Doing::Resting { .. }, Some(token)) if self.status == "Registered" => {
                self.fetch(at, &token)
            }
            (Doing::Resting { .. }, _) => self.check_in(at),
            (Doing::CheckingIn { .. }, _) => {
                self.lost += 1;
                self.rest(at, INTERVAL_S)
            }
            (Doing::Fetching { fetch, .. }, _) => {
                let token = fetch.token.clone();
                let failed = Progress::Failed("Update error: ERROR[6]: Stream Read Timeout");
                self.fetched(at, &token, failed)
            }
        }
    }

    fn hear(&mut self, at: Duration, event: Event<'_>) -> Vec<Act> {
        match &mut self.doing {
            Doing::Resting { .. } => Vec::new(),
            Doing::CheckingIn { .. } => match self.read(event) {
                Some(payload) => {
                    self.obey(&payload);
                    let soon = self.pending.is_some();
                    self.rest(at, if soon { self.after_fetch_s } else { INTERVAL_S })
                }
                None => Vec::new(),
            },
            Doing::Fetching { fetch, until } => {
                *until = at + STALL_MAX;
                let progress = fetch.hear(event);
                let token = fetch.token.clone();
                self.fetched(at, &token, progress)
            }
        }
    }

    /// What is in the flash stays: image, names, and what the last OK allowed.
    fn reboot(&mut self, at: Duration) {
        self.pending = None;
        self.status = "Registered".to_owned();
        self.doing = Doing::Resting { until: at + REBOOT };
    }

    fn line(&self) -> Line {
        Line { loss_percent: self.loss_percent, ..Line::ESP8266 }
    }

    fn flash(&self) -> Option<&Flash> {
        Some(&self.flash)
    }

    fn lost(&self) -> u32 {
        self.lost
    }

    fn udid(&self) -> Option<&str> {
        self.udid.as_deref()
    }
}

impl Library {
    /// Does it act on offers only where the last OK reply allowed it (docs/wire.md 2.3)?
    fn obeys_last_ok(self) -> bool {
        match self {
            Self::V2_3 | Self::V3_0 => true,
            Self::V2_9 => false,
        }
    }

    fn firmware(self) -> &'static str {
        match self {
            Self::V2_3 => "thinx-lib-esp8266-arduino:2.3.184:2018-03-10",
            Self::V3_0 => "thinx-lib-esp8266-arduinoc:3.0.270:2020-01-01",
            Self::V2_9 => "thinx-lib-esp32-arduino:2.9.450",
        }
    }

    fn buffer_bytes(self) -> usize {
        match self {
            Self::V2_3 | Self::V3_0 => 512,
            Self::V2_9 => 768,
        }
    }

    /// What the library parses of a payload, as it finds it by searching the text.
    fn parse(self, text: &str) -> Option<Value> {
        match self {
            Self::V2_3 | Self::V3_0 => {
                if text.contains("old_protocol_owner:-undefined-") {
                    return None;
                }
                let start = text.find("{\"registration\"")?;
                let end = start + text[start..].find("}}")? + 2;
                serde_json::from_str(&text[start..end]).ok()
            }
            Self::V2_9 => {
                let keywords =
                    ["\"registration", "\"FIRMWARE_UPDATE", "\"notification", "\"configuration"];
                let latest = keywords.iter().max_by_key(|keyword| text.rfind(**keyword))?;
                // Registrations and offers are read by the same code; the others are not.
                let read = *latest == "\"registration" || *latest == "\"FIRMWARE_UPDATE";
                read.then(|| serde_json::from_str(text).ok())?
            }
        }
    }
}

const FIRST_BYTE_WAIT: Duration = Duration::from_secs(30);
const STALL_MAX: Duration = Duration::from_secs(60);
const INTERVAL_S: (u64, u64) = (90, 300);
const AFTER_FETCH_S: (u64, u64) = (1, 20);
const REBOOT: Duration = Duration::from_secs(2);
