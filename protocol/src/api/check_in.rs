//! `POST /device/register`: check-in and first registration (docs/wire.md 1.1).

use std::borrow::Cow;
use std::sync::Arc;

use crate::api::fields::{Credential, Field, credential};
use crate::api::guard::{self, Advice, Aftermath};
use crate::api::registration::{Fields, Name, Place};
use crate::api::{Content, Context, Response, Scratch, Step, refuse, refuse_key, refuse_standing};
use crate::digits::decimal;
use crate::http::{Framing, Request, Status};
use crate::id::{Alias, DeviceId, Mac, OwnerId, Token, misleads};
use crate::json::Reader;
use crate::query::{
    Answer, Device, DeviceStanding, Grant, Identify, Offer, Offered, Query, Record, Recorded,
    Standing,
};
use crate::report::{Outcome, Refusal};
use crate::update::{self, Verdict};

/// What is remembered of a check-in while the store works. The body itself waits in
/// [`Scratch::text`].
pub(crate) struct Plan {
    owner: Place,
    device: Option<DeviceId>,
    mac: Option<Mac>,
    version: Place,
    env_hash: Place,
    firmware: Place,
    platform: Place,
    status: Place,
    digest: u64,
    downlink: bool,
    stage: Stage,
}

enum Stage {
    Identifying,
    /// The check-in is being kept; this is what will be answered.
    Keeping(Verb),
}

/// What a check-in is answered with.
#[derive(Clone)]
enum Verb {
    Registered,
    Ok { held_back: bool },
    Offer { offer: Arc<Offer>, mac: Option<Mac> },
}

/// What the server has on a device, as a reply tells it.
struct Kept<'a> {
    device: DeviceId,
    alias: &'a Alias,
    auto_update: bool,
    token: Option<&'a Token>,
}

/// Reads the body and the key, and asks who this is.
pub(super) fn begin<I>(
    request: &Request<'_>,
    plan: &mut Option<super::Plan>,
    context: &mut Context<'_>,
) -> Step<I> {
    if matches!(request.head.framing, Framing::None) {
        let text = r#"{"success":false,"response":"no_body"}"#;
        return Step::Reply(Response::refusal(Status::BAD_REQUEST, Refusal::BadBody, text));
    }
    let depth_max = context.config.json_depth_max;
    let replaced;
    let mut body = request.body;
    let mut fields = Fields::default();
    let mut read = fields.read(body, depth_max);
    if read.is_err() && std::str::from_utf8(body).is_err() {
        // The name of a radio station may be in any encoding; it is not worth a lost check-in.
        replaced = String::from_utf8_lossy(body);
        body = replaced.as_bytes();
        fields = Fields::default();
        read = fields.read(body, depth_max);
    }
    if read.is_err() {
        return Step::Reply(Response::bad_body());
    }
    let key = match credential(request) {
        Credential::Missing => {
            let text = r#"{"success":false,"response":"authentication_error"}"#;
            return refuse(
                context.config,
                Status::UNAUTHORIZED,
                Refusal::NoKey,
                Content::Json(text),
            );
        }
        Credential::Malformed => None,
        Credential::Key(key) => Some(key),
    };
    let Some(owner) = fields.of(Name::Owner).owner() else {
        return refuse_owner(fields.of(Name::Owner), context);
    };
    let Some(key) = key else { return refuse_key(Refusal::NoKey, context) };
    let (device, mac) = (fields.of(Name::Udid).device(), fields.of(Name::Mac).mac());
    *plan = Some(super::Plan::CheckIn(Plan::of(&fields, body, device, mac)));
    context.scratch.text.clear();
    context.scratch.text.extend_from_slice(body);
    context.ask(Query::Identify(Identify { owner: Some(owner), key, device, mac }))
}

/// Decides on the standing, then answers once everything is kept.
pub(super) fn resume<I>(plan: &mut Plan, answer: &Answer<I>, context: &mut Context<'_>) -> Step<I> {
    match (&plan.stage, answer) {
        (Stage::Identifying, Answer::Standing(standing)) => decide(plan, standing, context),
        (Stage::Keeping(verb), Answer::Recorded(Some(recorded))) => {
            let Recorded { device, alias, auto_update, token } = recorded;
            let (device, auto_update, token) = (*device, *auto_update, token.as_ref());
            reply(plan, verb, Kept { device, alias, auto_update, token }, context)
        }
        (Stage::Keeping(_), Answer::Recorded(None)) => refuse_key(Refusal::UnknownDevice, context),
        (Stage::Identifying | Stage::Keeping(_), _) => Step::Reply(Response::unavailable()),
    }
}

fn decide<I>(plan: &mut Plan, standing: &Standing, context: &mut Context<'_>) -> Step<I> {
    if let Some(refusal) = refuse_standing(standing.key, context) {
        return refusal;
    }
    match &standing.device {
        // No hint that the id exists (docs/wire.md 1.1).
        DeviceStanding::Foreign => refuse_key(Refusal::UnknownDevice, context),
        DeviceStanding::Unknown => {
            plan.stage = Stage::Keeping(Verb::Registered);
            keep(plan, false, None, None, context)
        }
        DeviceStanding::Known(device) => {
            plan.device = Some(device.id);
            decide_known(plan, device, standing.newest.as_ref(), context)
        }
    }
}

fn decide_known<I>(
    plan: &mut Plan,
    device: &Device,
    newest: Option<&Arc<Offer>>,
    context: &mut Context<'_>,
) -> Step<I> {
    let (verb, offered) = choose(plan, device, newest, context);
    let grant = match &verb {
        Verb::Offer { offer, .. } => Some(Grant {
            release: Some(offer.release),
            forced: false,
            unused: context.config.token_unused,
            used: context.config.token_used,
            transfer: context.config.transfer_timeout,
        }),
        Verb::Registered | Verb::Ok { .. } => None,
    };
    let told = match verb {
        Verb::Ok { .. } => device.auto_update,
        // Should the offer have no effect, the next reply tells the flag once more.
        Verb::Registered | Verb::Offer { .. } => false,
    };
    let age = context.now.unix.saturating_sub(device.seen);
    let nothing_new = plan.digest == device.digest
        && told == device.told_auto_update
        && age < context.config.seen_resolution.as_secs();
    if nothing_new && offered.is_none() && grant.is_none() {
        let (alias, auto_update) = (&device.alias, device.auto_update);
        let kept = Kept { device: device.id, alias, auto_update, token: None };
        return reply(plan, &verb, kept, context);
    }
    plan.stage = Stage::Keeping(verb);
    keep(plan, told, offered, grant, context)
}

/// What a known device is answered with, and the new state of its guard rails.
fn choose(
    plan: &Plan,
    device: &Device,
    newest: Option<&Arc<Offer>>,
    context: &Context<'_>,
) -> (Verb, Option<Offered>) {
    const OK: Verb = Verb::Ok { held_back: false };
    let Some(offer) = newest.filter(|_| device.auto_update) else { return (OK, None) };
    if plan.platform.text(context.scratch).is_some_and(update::never_offered) {
        return (OK, None);
    }
    let reported = plan.version.text(context.scratch);
    let installed = reported.or(device.version.as_deref());
    let environment = plan.env_hash.text(context.scratch);
    if update::judge(offer, installed, environment) != Verdict::Update {
        return (OK, None);
    }
    let firmware = plan.firmware.text(context.scratch).unwrap_or_default();
    if !device.told_auto_update && guard::trusts_last_ok_only(firmware) {
        return (OK, None);
    }
    let aftermath = Aftermath {
        failed: guard::tells_failure(plan.status.bytes(&context.scratch.text)),
        other_version: reported.is_some() && reported != device.version.as_deref(),
    };
    let (unix, config) = (context.now.unix, context.config);
    match guard::advise(device.offered, offer.release, aftermath, unix, config) {
        Advice::Offer(_) if !config.outflow.offers(offer.size, context.now, config) => {
            (Verb::Ok { held_back: true }, None)
        }
        Advice::Offer(state) => {
            let (offer, mac) = (Arc::clone(offer), plan.mac.or(device.mac));
            (Verb::Offer { offer, mac }, Some(state))
        }
        Advice::HoldBack(state) => (Verb::Ok { held_back: true }, state),
    }
}

fn keep<I>(
    plan: &Plan,
    told_auto_update: bool,
    offered: Option<Offered>,
    grant: Option<Grant>,
    context: &mut Context<'_>,
) -> Step<I> {
    // Read a second time only here, so that a check-in with nothing to keep copies nothing.
    let mut fields = Fields::default();
    let read = fields.read(&context.scratch.text, context.config.json_depth_max);
    let (Ok(()), Some(owner)) = (read, fields.of(Name::Owner).owner()) else {
        return Step::Reply(Response::bad_body());
    };
    let record = Record {
        owner,
        device: plan.device,
        check_in: Some(fields.check_in(plan.mac, plan.digest, told_auto_update)),
        offered,
        grant,
    };
    context.ask(Query::Record(Box::new(record)))
}

fn reply<I>(plan: &Plan, verb: &Verb, kept: Kept<'_>, context: &mut Context<'_>) -> Step<I> {
    let outcome = match verb {
        Verb::Registered => Outcome::Registered,
        Verb::Ok { held_back: true } => Outcome::HeldBack,
        Verb::Ok { held_back: false } => Outcome::Current,
        Verb::Offer { .. } => Outcome::Offered,
    };
    let url = context.config.public_url.as_deref().filter(|url| url.len() <= URL_BYTES_MAX);
    let url =
        url.filter(|_| plan.firmware.text(context.scratch).is_some_and(guard::has_fixed_host));
    let Scratch { text, body } = &mut *context.scratch;
    body.clear();
    match (verb, kept.token) {
        _ if plan.downlink => write_downlink(plan, text, body),
        (Verb::Offer { offer, mac }, Some(token)) => {
            write_offer(body, &kept, offer, *mac, token, url, context.now.unix);
        }
        (Verb::Offer { .. }, None) => return Step::Reply(Response::unavailable()),
        (Verb::Registered | Verb::Ok { .. }, _) => {
            write_ok(body, plan.owner.bytes(text), &kept, context.now.unix);
        }
    }
    Step::Reply(Response::new(Status::OK, outcome, Content::Written).of(kept.device))
}

/// The OK reply, in the order that docs/wire.md 1.1 fixes; new devices get the same.
fn write_ok(body: &mut Vec<u8>, owner: &[u8], kept: &Kept<'_>, unix: u64) {
    body.extend_from_slice(br#"{"registration":{"success":true,"status":"OK","auto_update":"#);
    // Texts of a known length need no call.
    if kept.auto_update {
        body.extend_from_slice(br#"true,"owner":""#);
    } else {
        body.extend_from_slice(br#"false,"owner":""#);
    }
    body.extend_from_slice(owner);
    body.extend_from_slice(br#"","alias":""#);
    body.extend_from_slice(kept.alias.as_bytes());
    body.extend_from_slice(br#"","mesh_ids":[],"udid":""#);
    body.extend_from_slice(&kept.device.text());
    body.extend_from_slice(br#"","timestamp":"#);
    decimal(body, unix);
    body.extend_from_slice(b"}}");
}

/// The FIRMWARE_UPDATE reply (docs/wire.md 1.1, without `mesh_ids`). Libraries with a host of their
/// own get a whole `url` in place of the token where one is configured (docs/wire.md 2.6).
fn write_offer(
    body: &mut Vec<u8>,
    kept: &Kept<'_>,
    offer: &Offer,
    mac: Option<Mac>,
    token: &Token,
    url: Option<&str>,
    unix: u64,
) {
    body.extend_from_slice(br#"{"registration":{"status":"FIRMWARE_UPDATE","auto_update":"#);
    body.extend_from_slice(if kept.auto_update { b"true" } else { b"false" });
    body.extend_from_slice(br#","alias":""#);
    body.extend_from_slice(match url {
        Some(_) => kept.alias.start(ALIAS_BYTES_BESIDE_URL).as_bytes(),
        None => kept.alias.as_bytes(),
    });
    body.extend_from_slice(br#"","udid":""#);
    body.extend_from_slice(&kept.device.text());
    body.extend_from_slice(br#"","timestamp":"#);
    decimal(body, unix);
    match url {
        Some(url) => {
            body.extend_from_slice(br#","url":""#);
            body.extend_from_slice(url.as_bytes());
            body.extend_from_slice(b"/device/firmware?ott=");
        }
        None => body.extend_from_slice(br#","ott":""#),
    }
    body.extend_from_slice(&token.text());
    if let Some(mac) = mac {
        body.extend_from_slice(br#"","mac":""#);
        body.extend_from_slice(mac.to_string().as_bytes());
    }
    body.extend_from_slice(br#"","version":""#);
    let version = match &*offer.version {
        misleading if misleads(misleading) => misleading.rsplit(':').next().unwrap_or_default(),
        version => version,
    };
    body.extend_from_slice(version.as_bytes());
    body.extend_from_slice(br#""}}"#);
}

/// The SigFox downlink: the id without its prefix, and 8 bytes of the status in hexadecimal
/// (docs/wire.md 8).
fn write_downlink(plan: &Plan, text: &[u8], body: &mut Vec<u8>) {
    let id = plan.mac.and_then(Mac::sigfox_id).unwrap_or_default();
    let mut fields = Fields::default();
    // It was read before with less depth, so it can be read again.
    let _ = fields.read(text, Reader::DEPTH_MAX);
    let status = fields.of(Name::Status).text().map(|text| text.decode()).unwrap_or_default();
    let mut payload = [0; 8];
    for (byte, from) in payload.iter_mut().zip(status.bytes()) {
        *byte = from;
    }
    body.extend_from_slice(b"{\"");
    body.extend_from_slice(id.as_bytes());
    body.extend_from_slice(br#"":{"downlinkData":""#);
    body.extend_from_slice(&crate::digits::hex_text::<8, 16>(&payload));
    body.extend_from_slice(br#""}}"#);
}

/// Echoes what was sent, made safe and short.
fn refuse_owner<I>(owner: &Field<'_>, context: &mut Context<'_>) -> Step<I> {
    let sent = owner.text().map_or(Cow::Borrowed("undefined"), |text| text.decode());
    let body = &mut context.scratch.body;
    body.clear();
    body.extend_from_slice(br#"{"success":false,"response":"invalid owner:"#);
    let safe = |b: &u8| b.is_ascii() && !b.is_ascii_control() && !br#""\{}"#.contains(b);
    let echo = sent.bytes().filter(safe).take(OwnerId::BYTES_MAX).collect::<Vec<_>>();
    // A text that is dropped by a library is not worth repeating.
    if !std::str::from_utf8(&echo).is_ok_and(misleads) {
        body.extend_from_slice(&echo);
    }
    body.extend_from_slice(br#""}"#);
    refuse(context.config, Status::BAD_REQUEST, Refusal::UnknownOwner, Content::Written)
}

impl Plan {
    #[inline(always)]
    fn of(fields: &Fields<'_>, body: &[u8], device: Option<DeviceId>, mac: Option<Mac>) -> Self {
        let place = |name| Place::of(fields.of(name), body);
        let asks = fields.of(Name::Ack).is_given();
        Self {
            owner: place(Name::Owner),
            device,
            mac,
            version: place(Name::Version),
            env_hash: place(Name::EnvHash),
            firmware: place(Name::Firmware),
            platform: place(Name::Platform),
            status: place(Name::Status),
            digest: fields.digest(body),
            downlink: asks && mac.is_some_and(|mac| mac.sigfox_id().is_some()),
            stage: Stage::Identifying,
        }
    }
}

/// Longest [`crate::Config::public_url`] with which every reply fits into 511 bytes, and how much
/// of the alias then does.
const URL_BYTES_MAX: usize = 64;
const ALIAS_BYTES_BESIDE_URL: usize = 10;
