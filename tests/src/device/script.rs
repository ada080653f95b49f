//! The script libraries of 2017: NodeMCU Lua and MicroPython.

use std::time::Duration;

use bytes::Bytes;

use super::{Act, Actor, Event, Flash, Identity};
use crate::{Fields, Line, Random, Reply, Request};

/// Which script library.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// `Authentication:<key>` without a blank, JSON with blanks; takes offers by token.
    Lua,
    /// HTTP/1.0, a body wrapped in `update`; asks for the image itself.
    MicroPython,
}

/// A device with one of the script libraries.
#[derive(Debug)]
pub struct Script {
    dialect: Dialect,
    identity: Identity,
    flash: Flash,
    udid: Option<String>,
    token: Option<String>,
    asks_image: bool,
    received: Vec<u8>,
    is_talking: bool,
    next: Duration,
    random: Random,
}

impl Script {
    /// A device that is switched on at the time `on_at`.
    #[must_use]
    pub fn new(dialect: Dialect, identity: Identity, on_at: Duration, random: Random) -> Self {
        Self {
            dialect,
            identity,
            flash: Flash::factory("1.0.0"),
            udid: None,
            token: None,
            asks_image: false,
            received: Vec::new(),
            is_talking: false,
            next: on_at,
            random,
        }
    }

    fn fields(&self) -> Fields {
        let fields = Fields::none()
            .text("mac", &self.identity.mac.to_string())
            .text("version", self.flash.version())
            .text("owner", self.identity.owner.as_str());
        match &self.udid {
            Some(udid) => fields.text("udid", udid),
            None => fields,
        }
    }

    fn request(&self) -> Request {
        if let Some(token) = &self.token {
            return Request::get(&format!("/device/firmware?ott={token}"));
        }
        let key = self.identity.key_text();
        match (self.dialect, self.asks_image) {
            (Dialect::MicroPython, true) => {
                let body = self.fields().wrapped("update");
                Request::post("/device/firmware", &body).version("HTTP/1.0").key(&key)
            }
            (Dialect::MicroPython, false) => {
                let body = self.fields().text("platform", "micropython").wrapped("registration");
                Request::post("/device/register", &body).version("HTTP/1.0").key(&key)
            }
            (Dialect::Lua, _) => {
                let body = self.fields().text("platform", "nodemcu").wrapped("registration");
                let spaced = body.replace(":{", " : { ").replace("\",\"", "\" , \"");
                Request::post("/device/register", &spaced)
                    .line(&format!("Authentication:{key}"))
                    .header("Connection", "close")
            }
        }
    }

    fn obey(&mut self, reply: &Reply) {
        let token = self.token.take();
        let content_type = reply.header("Content-Type").unwrap_or_default();
        if reply.status == 200 && content_type == "application/octet-stream" {
            self.flash.install(token.as_deref(), Bytes::copy_from_slice(&reply.body));
        } else if let Ok(json) = serde_json::from_slice::<serde_json::Value>(&reply.body) {
            let registration = &json["registration"];
            if let Some(udid) = registration["udid"].as_str() {
                self.udid = Some(udid.to_owned());
            }
            if self.dialect == Dialect::Lua {
                self.token = registration["ott"].as_str().map(str::to_owned);
            }
        } else if token.is_none() && reply.text() != "no_such_device" {
            self.flash.complain(&format!("no JSON: {}", reply.text()));
        }
        // MicroPython checks in and asks for the image in turn.
        self.asks_image = !self.asks_image && self.udid.is_some();
    }

    fn over(&mut self, at: Duration) -> Vec<Act> {
        let seconds = if self.token.is_some() { 1 } else { self.random.between(60, 240) };
        self.next = at + Duration::from_secs(seconds);
        self.is_talking = false;
        vec![Act::HangUp]
    }
}

impl Actor for Script {
    fn wake_at(&self) -> Option<Duration> {
        Some(self.next)
    }

    fn wake(&mut self, at: Duration, _overheard: &[String]) -> Vec<Act> {
        if self.is_talking {
            self.token = None;
            return self.over(at);
        }
        self.is_talking = true;
        self.received.clear();
        self.next = at + PATIENCE;
        vec![Act::Dial, Act::Say(self.request().bytes())]
    }

    fn hear(&mut self, at: Duration, event: Event<'_>) -> Vec<Act> {
        match event {
            Event::Bytes(bytes) => {
                self.received.extend_from_slice(bytes);
                match Reply::parse(&self.received, false) {
                    Some((reply, _)) => {
                        self.obey(&reply);
                        self.over(at)
                    }
                    None => Vec::new(),
                }
            }
            Event::End | Event::Reset => {
                self.token = None;
                self.over(at)
            }
        }
    }

    fn reboot(&mut self, at: Duration) {
        (self.token, self.asks_image, self.is_talking) = (None, false, false);
        self.next = at + REBOOT;
    }

    fn line(&self) -> Line {
        Line { cut: true, ..Line::ESP8266 }
    }

    fn flash(&self) -> Option<&Flash> {
        Some(&self.flash)
    }

    fn udid(&self) -> Option<&str> {
        self.udid.as_deref()
    }
}

const PATIENCE: Duration = Duration::from_secs(120);
const REBOOT: Duration = Duration::from_secs(2);
