//! The NodeJS client 0.1.8: chunked request bodies, one connection for many check-ins, `"0"` for
//! an id it does not have, numbers for its position. It never takes an update.

use std::time::Duration;

use super::{Act, Actor, Event, Identity};
use crate::{Fields, Line, Random, Reply, Request};

/// A computer with the NodeJS client.
#[derive(Debug)]
pub struct NodeJs {
    identity: Identity,
    udid: String,
    is_connected: bool,
    received: Vec<u8>,
    complaints: Vec<String>,
    next: Duration,
    random: Random,
}

impl NodeJs {
    /// A client that is started at the time `on_at`.
    #[must_use]
    pub fn new(identity: Identity, on_at: Duration, random: Random) -> Self {
        Self {
            identity,
            udid: "0".to_owned(),
            is_connected: false,
            received: Vec::new(),
            complaints: Vec::new(),
            next: on_at,
            random,
        }
    }

    fn request(&self) -> Vec<u8> {
        let body = Fields::none()
            .text("mac", &self.identity.mac.to_string())
            .text("firmware", "nodejs")
            .text("version", "0.1.8")
            .text("owner", self.identity.owner.as_str())
            .text("alias", "node")
            .text("udid", &self.udid)
            .text("platform", "nodejs")
            .raw("lat", "50.0755")
            .raw("lon", "14.4378")
            .wrapped("registration");
        Request::post("/device/register", &body)
            .host("thinx.cloud:7443")
            .key(&self.identity.key_text())
            .header("Accept", "application/json")
            .header("Origin", "device")
            .header("Content-Type", "application/json")
            .header("User-Agent", "THiNX-Client")
            .header("Connection", "keep-alive")
            .chunked(4096)
            .bytes()
    }

    /// `JSON.parse` of the whole body, whatever it is.
    fn obey(&mut self, reply: &Reply) {
        let Ok(json) = serde_json::from_slice::<serde_json::Value>(&reply.body) else {
            self.complaints.push(format!("no JSON: {}", reply.head));
            return;
        };
        // Any other status is only logged by this client.
        let registration = &json["registration"];
        if let (Some("OK"), Some(udid)) =
            (registration["status"].as_str(), registration["udid"].as_str())
        {
            udid.clone_into(&mut self.udid);
        }
    }
}

impl Actor for NodeJs {
    fn wake_at(&self) -> Option<Duration> {
        Some(self.next)
    }

    fn wake(&mut self, at: Duration, _overheard: &[String]) -> Vec<Act> {
        // Some check-ins find the connection of the last one open, and some do not.
        self.next = at + Duration::from_secs(self.random.between(40, 200));
        self.received.clear();
        let say = Act::Say(self.request());
        if self.is_connected {
            vec![say]
        } else {
            self.is_connected = true;
            vec![Act::Dial, say]
        }
    }

    fn hear(&mut self, _at: Duration, event: Event<'_>) -> Vec<Act> {
        match event {
            Event::Bytes(bytes) => {
                self.received.extend_from_slice(bytes);
                if let Some((reply, length)) = Reply::parse(&self.received, false) {
                    self.received.drain(..length);
                    self.obey(&reply);
                }
                Vec::new()
            }
            Event::End | Event::Reset => {
                self.is_connected = false;
                vec![Act::HangUp]
            }
        }
    }

    fn reboot(&mut self, at: Duration) {
        self.is_connected = false;
        self.received.clear();
        self.next = at + REBOOT;
    }

    fn line(&self) -> Line {
        Line { cut: true, ..Line::WIDE }
    }

    fn complaints(&self) -> &[String] {
        &self.complaints
    }

    fn udid(&self) -> Option<&str> {
        (self.udid != "0").then_some(self.udid.as_str())
    }
}

const REBOOT: Duration = Duration::from_secs(20);
