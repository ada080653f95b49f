//! `otter demo`: a server, an operator and devices in one process, and the story of an update.

use std::ffi::OsStr;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use md5::{Digest, Md5};
use otter_mio::{Handle, Options, Server};
use otter_protocol::Config;
use otter_store::{Embedded, EmbeddedOptions};
use serde_json::{Value, json};

use crate::admin::{self, Admin};
use crate::beneath::Directory;
use crate::bundle;
use crate::client::Client;
use crate::deploy::Content;
use crate::devices::Devices;
use crate::failure::{Context, Failure};
use crate::output::Output;
use crate::played::{Answer, Played};
use crate::shapes::{
    DeviceEntry, DeviceWanted, KeyCreated, KeyWanted, OwnerName, OwnerWanted, Published,
    ReleaseWanted,
};
use crate::upload;
use crate::vet;

pub(crate) fn run(output: Output) -> Result<ExitCode, Failure> {
    let directory = tempfile::tempdir().context(|| "cannot make a directory".to_owned())?;
    let mut story = Story { output, steps: 0 };
    story.title("A server, an operator and an ESP8266, in one process:")?;
    let stage = Stage::open(directory.path())?;
    let told = play(&stage, &mut story);
    stage.close()?;
    match told {
        Ok(()) => {
            story.title("All of it is true.")?;
            Ok(ExitCode::SUCCESS)
        }
        Err(failure) => {
            let error = format!("after step {}: {}", story.steps, failure.error);
            Err(Failure { error, ..failure })
        }
    }
}

fn play(stage: &Stage, story: &mut Story) -> Result<(), Failure> {
    story.tell(format!(
        "The server listens on {}, with its data in {}.",
        stage.server,
        stage.data.display()
    ))?;
    let device = stage.device(UDID, "5CCF7FEE1337", "esp8266", "arduino:esp8266");
    register(&device, story)?;
    let image = stage.publish_image(&device, story)?;
    let token = offer(stage, &device, story)?;
    download(&device, &token, &image, story)?;
    spent(&device, &token, story)?;
    without_token(&device, &image, story)?;
    files(stage, story)
}

fn register(device: &Played, story: &mut Story) -> Result<(), Failure> {
    let answer = device.check_in("1.0.0")?;
    let registration = registration(&answer)?;
    expect("the status of the registration", &registration["status"], "OK")?;
    expect("the udid that the device keeps", &registration["udid"], UDID)?;
    story.tell(format!(
        "The device checks in for the first time and is registered: one answer of {} bytes.",
        answer.len()
    ))
}

/// Two check-ins: auto-update is off, then on.
fn offer(stage: &Stage, device: &Played, story: &mut Story) -> Result<String, Failure> {
    let quiet = registration(&device.check_in("1.0.0")?)?;
    expect("the status while auto-update is off", &quiet["status"], "OK")?;
    expect("the flag while auto-update is off", &quiet["auto_update"], false)?;
    story.tell("It checks in again. Its auto-update is off, so it is told: OK.".to_owned())?;

    stage.let_update(device)?;
    let answer = device.check_in("1.0.0")?;
    let offer = registration(&answer)?;
    expect("the status once auto-update is on", &offer["status"], "FIRMWARE_UPDATE")?;
    expect("the version on offer", &offer["version"], VERSION)?;
    let token = offer["ott"].as_str().unwrap_or_default().to_owned();
    expect("the length of the token", token.len(), 64)?;
    ensure(answer.len() <= REPLY_BYTES_MAX, || {
        format!("the answer has {} bytes, more than old devices can hold", answer.len())
    })?;
    story.tell(format!(
        "The operator switches auto-update on. Now it is told: FIRMWARE_UPDATE, version \
         {VERSION}, one-time token {}...",
        &token[..6]
    ))?;
    Ok(token)
}

/// By token, over HTTP/1.0, in two parts.
fn download(device: &Played, token: &str, image: &[u8], story: &mut Story) -> Result<(), Failure> {
    let first = device.download(token, 0, LOST_AFTER_BYTES)?;
    expect("the status of the download", first.status, 200)?;
    expect("its Content-Length", first.header("content-length"), image.len().to_string())?;
    let stated = first.header("x-md5").to_owned();
    expect("the bytes before the loss", first.body.len(), LOST_AFTER_BYTES)?;
    story.tell(format!(
        "It downloads by token over HTTP/1.0. After {LOST_AFTER_BYTES} of {} bytes the \
         connection is lost.",
        image.len()
    ))?;

    let rest = device.download(token, LOST_AFTER_BYTES, usize::MAX)?;
    expect("the status of the resumption", rest.status, 206)?;
    let range = format!("bytes {LOST_AFTER_BYTES}-{}/{}", image.len() - 1, image.len());
    expect("its Content-Range", rest.header("content-range"), range)?;
    story.tell(format!(
        "It comes back with the same token, asks for the rest by Range, and gets {} bytes.",
        rest.body.len()
    ))?;

    let whole = [first.body, rest.body].concat();
    expect("the MD5 of both parts", md5_text(&whole), stated)?;
    ensure(whole == image, || "the image that arrived is not the one published".to_owned())?;
    story.tell(format!("MD5 {} is what x-MD5 said. It flashes and restarts.", md5_text(&whole)))
}

fn spent(device: &Played, token: &str, story: &mut Story) -> Result<(), Failure> {
    for start in [0, LOST_AFTER_BYTES] {
        let again = device.download(token, start, usize::MAX)?;
        expect("the status of a second use", again.status, 404)?;
        expect("its text", again.text().as_str(), "OTT_UPDATE_NOT_FOUND")?;
    }
    story.tell(
        "The token is spent: 404 OTT_UPDATE_NOT_FOUND, from the start or a part.".to_owned(),
    )?;
    let current = registration(&device.check_in(VERSION)?)?;
    expect("the status after the update", &current["status"], "OK")?;
    story.tell(format!("It checks in as {VERSION} and is told: OK."))
}

fn without_token(device: &Played, image: &[u8], story: &mut Story) -> Result<(), Failure> {
    let simple = device.firmware("1.0.0", false)?;
    expect("the status of a simple download", simple.status, 200)?;
    expect("its x-MD5", simple.header("x-md5"), md5_text(image))?;
    ensure(simple.body == image, || "a simple download gave other bytes".to_owned())?;
    story.tell(
        "Simple: POST /device/firmware as version 1.0.0 gives the image at once.".to_owned(),
    )?;
    let nothing = device.firmware(VERSION, false)?;
    let body = r#"{"success":false,"status":"OK"}"#;
    expect("the answer to a device that is current", nothing.text().as_str(), body)?;
    let forced = device.firmware(VERSION, true)?;
    expect("the status of a forced download", forced.status, 200)?;
    ensure(forced.body == image, || "a forced download gave other bytes".to_owned())?;
    story.tell(format!(
        "As version {VERSION} there is nothing new; forced, the image comes all the same."
    ))
}

/// A device of files.
fn files(stage: &Stage, story: &mut Story) -> Result<(), Failure> {
    let device =
        stage.device("5ccf7fee-1337-4000-8000-00000000ab02", "5CCF7FEE1338", "nodemcu", "nodemcu");
    registration(&device.check_in("1.0.0")?)?;
    let directory = stage.data.join("lua");
    fs::create_dir(&directory).context(|| "cannot make a directory".to_owned())?;
    for (name, text) in FILES {
        fs::write(directory.join(name), text).context(|| format!("cannot write {name}"))?;
    }
    let bundle = bundle::render(&Directory::open(&directory)?, vet::platform("nodemcu")?)?;
    stage.publish(&device, Content::Bundle(bundle.json))?;
    stage.let_update(&device)?;
    let answer = device.firmware("1.0.0", false)?;
    let found: Value = serde_json::from_slice(&answer.body)
        .context(|| format!("the files do not come as JSON: {}", answer.text()))?;
    let files: Vec<_> =
        FILES.iter().map(|(name, data)| json!({"name": name, "data": data})).collect();
    expect("the files", found, json!({"type": "file", "files": files}))?;
    story.tell(format!("A NodeMCU gets its {} files as one JSON text.", files.len()))
}

/// A server with a store of its own, and the operator.
struct Stage {
    data: PathBuf,
    server: SocketAddr,
    devices: Handle,
    store: Embedded,
    operator: Client,
    owner: String,
    key: String,
}

impl Stage {
    fn open(data: &Path) -> Result<Self, Failure> {
        let store = Embedded::open(data, EmbeddedOptions::default())?;
        let mut options = Options::new(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
        options.workers = 1;
        let server = Server::bind(options).context(|| "cannot listen".to_owned())?;
        let address = server.local_addr();
        let devices =
            server.spawn(|_, wake| store.store(wake)).context(|| "cannot serve".to_owned())?;
        let admin = Admin::new(
            store.operator(),
            Config::default(),
            IMAGE_BYTES_MAX,
            Some(Devices::Mio(devices.clone())),
            None,
        );
        let operator = Client::here(admin::router(admin))?;
        let made: OwnerName = operator.post("/owners", &OwnerWanted::default())?;
        let wanted = KeyWanted { owner: made.owner.clone(), alias: None };
        let key: KeyCreated = operator.post("/keys", &wanted)?;
        Ok(Self {
            data: data.to_owned(),
            server: address,
            devices,
            store,
            operator,
            owner: made.owner,
            key: key.key,
        })
    }

    fn close(self) -> Result<(), Failure> {
        self.devices.shutdown();
        self.devices.join().context(|| "the server did not end well".to_owned())?;
        drop(self.operator);
        self.store.close();
        Ok(())
    }

    fn device(&self, udid: &str, mac: &str, alias: &str, platform: &str) -> Played {
        Played {
            server: self.server,
            owner: self.owner.clone(),
            key: self.key.clone(),
            udid: udid.to_owned(),
            mac: mac.to_owned(),
            alias: alias.to_owned(),
            platform: platform.to_owned(),
        }
    }

    fn let_update(&self, device: &Played) -> Result<(), Failure> {
        let wanted = DeviceWanted { auto_update: Some(true), alias: None };
        let entry: DeviceEntry =
            self.operator.patch(&format!("/devices/{}", device.udid), &wanted)?;
        expect("the flag after it was set", entry.auto_update, true)
    }

    fn publish_image(&self, device: &Played, story: &mut Story) -> Result<Vec<u8>, Failure> {
        let image = image();
        let name = OsStr::new("app.bin");
        fs::write(self.data.join(name), &image).context(|| "cannot write an image".to_owned())?;
        let regular = Directory::open(&self.data)?.file(name)?;
        let regular = regular.ok_or_else(|| Failure::failed("the image vanished"))?;
        let published = self.publish(device, Content::Image(regular))?;
        expect("the size of the release", published.size, image.len() as u64)?;
        expect("the devices it is for", (published.devices, published.waiting), (1, 1))?;
        story.tell(format!(
            "The operator publishes version {VERSION}: {} bytes, SHA-256 {}...",
            published.size,
            published.sha256.get(..12).unwrap_or_default()
        ))?;
        Ok(image)
    }

    fn publish(&self, device: &Played, mut content: Content) -> Result<Published, Failure> {
        let wanted = ReleaseWanted {
            owner: self.owner.clone(),
            device: Some(device.udid.clone()),
            all: None,
            version: VERSION.to_owned(),
            platform: device.platform.clone(),
            env_hash: None,
            kind: None,
            sha256: Some(upload::sha256(&mut content)?),
            source: None,
            unregistered: None,
        };
        upload::publish(&self.operator, content, &wanted, Output::new(true))
    }
}

/// Tells what happened, step by step.
struct Story {
    output: Output,
    steps: usize,
}

impl Story {
    fn title(&self, text: &str) -> Result<(), Failure> {
        if self.output.is_json() { Ok(()) } else { self.output.line(text) }
    }

    fn tell(&mut self, text: String) -> Result<(), Failure> {
        self.steps += 1;
        let step = self.steps;
        self.output.show(&json!({"step": step, "text": text}), |_| format!("{step:3}. {text}"))
    }
}

/// The object in a check-in's answer.
fn registration(answer: &Answer) -> Result<Value, Failure> {
    expect("the status of a check-in", answer.status, 200)?;
    let mut body: Value = serde_json::from_slice(&answer.body)
        .context(|| format!("a check-in's answer is no JSON: {}", answer.text()))?;
    Ok(body["registration"].take())
}

fn expect<A: PartialEq<B> + std::fmt::Debug, B: std::fmt::Debug>(
    what: &str,
    found: A,
    wanted: B,
) -> Result<(), Failure> {
    ensure(found == wanted, || format!("{what} is {found:?} and should be {wanted:?}"))
}

fn ensure(truth: bool, otherwise: impl FnOnce() -> String) -> Result<(), Failure> {
    if truth { Ok(()) } else { Err(Failure::failed(otherwise())) }
}

fn md5_text(bytes: &[u8]) -> String {
    Md5::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// 1 MiB that begins like an image for an ESP chip.
fn image() -> Vec<u8> {
    let mut image: Vec<u8> = (0..IMAGE_BYTES).map(|i| (i * 31 + (i >> 8)) as u8).collect();
    image[0] = 0xE9;
    image
}

const UDID: &str = "5ccf7fee-1337-4000-8000-00000000ab01";
const VERSION: &str = "1.1.0";
const IMAGE_BYTES: usize = 1 << 20;
const IMAGE_BYTES_MAX: u64 = 64 << 20;
const LOST_AFTER_BYTES: usize = 500_000;
/// What devices hold of an answer to a check-in (docs/wire.md 2.2).
const REPLY_BYTES_MAX: usize = 511;
/// Sorted, as they are served.
const FILES: [(&str, &str); 3] = [
    ("config.lua", "return { interval = 60 }\n"),
    ("sensor.lua", "return adc.read(0)\n"),
    ("thinx.lua", "print(\"1.1.0\")\n"),
];
