//! `POST /device/firmware`: simple and forced download, and the request for a token (docs/wire.md
//! 1.2 and 1.3). The image answers at once; no token is involved unless `use` is `ott`.

use crate::api::fields::{Credential, Field, credential};
use crate::api::{Content, Context, Part, Response, Step, refuse, refuse_key, refuse_standing};
use crate::http::{Request, Status};
use crate::id::{ApiKey, DeviceId, OwnerId};
use crate::json::{Invalid, Reader, Text};
use crate::query::{
    Answer, Device, DeviceStanding, Grant, Identify, KeyStanding, Offer, Query, Record, Standing,
};
use crate::report::{Endpoint, Outcome, Refusal};
use crate::update::{self, Verdict};

/// What is remembered of a download while the store works.
pub(crate) struct Plan {
    forced: bool,
    version: Option<Box<str>>,
    env_hash: Option<Box<str>>,
    device: Option<DeviceId>,
}

/// What is remembered of a request for a token.
pub(crate) struct IssuePlan {
    owner: OwnerId,
    forced: bool,
    device: Option<DeviceId>,
}

/// `POST /device/firmware`.
pub(super) fn begin<I>(
    request: &Request<'_>,
    plan: &mut Option<super::Plan>,
    context: &mut Context<'_>,
) -> Step<I> {
    match read(request.body, context.config.json_depth_max) {
        Ok(fields) if fields.uses_token() => {
            context.endpoint = Endpoint::Issue;
            closing(begin_issue(request, &fields, plan, context))
        }
        Ok(fields) => closing(begin_download(request, &fields, plan, context)),
        Err(Invalid) => closing(Step::Reply(Response::bad_body())),
    }
}

/// `POST /device`, which knows `use: ott` only (docs/wire.md 1.0).
pub(super) fn begin_alias<I>(
    request: &Request<'_>,
    plan: &mut Option<super::Plan>,
    context: &mut Context<'_>,
) -> Step<I> {
    match read(request.body, context.config.json_depth_max) {
        Ok(fields) if fields.uses_token() => closing(begin_issue(request, &fields, plan, context)),
        Ok(_) => {
            context.endpoint = Endpoint::Other;
            Step::Reply(Response::no_route())
        }
        Err(Invalid) => Step::Reply(Response::bad_body()),
    }
}

fn begin_download<I>(
    request: &Request<'_>,
    fields: &Fields<'_>,
    plan: &mut Option<super::Plan>,
    context: &mut Context<'_>,
) -> Step<I> {
    let config = context.config;
    if fields.mac.text().is_none_or(|mac| mac.raw().is_empty()) {
        let text = r#"{"success":false,"response":"missing_mac"}"#;
        return refuse(config, Status::BAD_REQUEST, Refusal::BadBody, Content::Json(text));
    }
    let key = match credential(request) {
        Credential::Missing => {
            let text = r#"{"success":false,"response":"authentication"}"#;
            return refuse(config, Status::UNAUTHORIZED, Refusal::NoKey, Content::Json(text));
        }
        Credential::Malformed => None,
        Credential::Key(key) => Some(key),
    };
    let Some(owner) = fields.owner.owner() else {
        let text = r#"{"success":false}"#;
        return refuse(config, Status::BAD_REQUEST, Refusal::UnknownOwner, Content::Json(text));
    };
    let Some(key) = key else { return refuse_key(Refusal::NoKey, context) };
    let identify = fields.identify(owner, key);
    let owned = |field: Field<'_>| field.text().map(|text| Box::from(text.decode()));
    *plan = Some(super::Plan::Firmware(Plan {
        forced: fields.is_forced(),
        version: owned(fields.version),
        env_hash: owned(fields.env_hash),
        device: None,
    }));
    context.ask(Query::Identify(identify))
}

/// Decides on the standing, then gives the image.
pub(super) fn resume<I: Clone>(
    plan: &mut Plan,
    answer: &Answer<I>,
    context: &mut Context<'_>,
) -> Step<I> {
    closing(match answer {
        Answer::Standing(standing) => decide(plan, standing, context),
        Answer::Release(Some(release)) => {
            let end = release.offer.size;
            let response = match context.config.outflow.admit(end, context.now, context.config) {
                Ok(share) => {
                    let (release, share) = (release.clone(), Some(share));
                    let part = Part { release, start: 0, end, token: None, share };
                    Response::new(Status::OK, Outcome::Delivered, Content::Image(Box::new(part)))
                }
                Err(retry_after_s) => Response::put_off(retry_after_s),
            };
            Step::Reply(Response { device: plan.device, ..response })
        }
        Answer::Release(None) => refuse_release(context),
        Answer::Redemption(_)
        | Answer::Recorded(_)
        | Answer::Kept
        | Answer::Claimed(_)
        | Answer::Unavailable => Step::Reply(Response::unavailable()),
    })
}

fn decide<I>(plan: &mut Plan, standing: &Standing, context: &mut Context<'_>) -> Step<I> {
    if let Some(refusal) = refuse_standing(standing.key, context) {
        return refusal;
    }
    let DeviceStanding::Known(device) = &standing.device else {
        let content = Content::Text("no_such_device");
        return refuse(context.config, Status::NOT_FOUND, Refusal::UnknownDevice, content);
    };
    let newest = standing.newest.as_ref();
    let Some(offer) = newest.filter(|offer| update::supports(&offer.platform)) else {
        return refuse_release(context);
    };
    if plan.forced || (device.auto_update && plan.is_update(offer, device)) {
        plan.device = Some(device.id);
        return context.ask(Query::Fetch { release: offer.release });
    }
    let content = Content::Json(r#"{"success":false,"status":"OK"}"#);
    Step::Reply(Response::new(Status::OK, Outcome::NotModified, content).of(device.id))
}

impl Plan {
    /// What the request leaves out is what the device said at its last check-in.
    fn is_update(&self, offer: &Offer, device: &Device) -> bool {
        let version = self.version.as_deref().or(device.version.as_deref());
        let env_hash = self.env_hash.as_deref().or(device.env_hash.as_deref());
        update::judge(offer, version, env_hash) == Verdict::Update
    }
}

fn begin_issue<I>(
    request: &Request<'_>,
    fields: &Fields<'_>,
    plan: &mut Option<super::Plan>,
    context: &mut Context<'_>,
) -> Step<I> {
    let (Credential::Key(key), Some(owner)) = (credential(request), fields.owner.owner()) else {
        return refuse_issue(Refusal::NoKey, context);
    };
    *plan = Some(super::Plan::Issue(IssuePlan { owner, forced: fields.is_forced(), device: None }));
    context.ask(Query::Identify(fields.identify(owner, key)))
}

/// Issues also where nothing is published yet: the token binds at its first redemption.
pub(super) fn resume_issue<I>(
    plan: &mut IssuePlan,
    answer: &Answer<I>,
    context: &mut Context<'_>,
) -> Step<I> {
    closing(match answer {
        Answer::Standing(Standing {
            key: KeyStanding::Valid,
            device: DeviceStanding::Known(device),
            newest,
        }) => {
            let grant = Grant {
                release: newest.as_ref().map(|offer| offer.release),
                forced: plan.forced,
                unused: context.config.token_unused,
                used: context.config.token_used,
                transfer: context.config.transfer_timeout,
            };
            let record = Record {
                owner: plan.owner,
                device: Some(device.id),
                check_in: None,
                offered: None,
                grant: Some(grant),
            };
            plan.device = Some(device.id);
            context.ask(Query::Record(Box::new(record)))
        }
        Answer::Standing(Standing { key: KeyStanding::Valid, .. }) => {
            refuse_issue(Refusal::UnknownDevice, context)
        }
        Answer::Standing(_) => refuse_issue(Refusal::WrongKey, context),
        Answer::Recorded(recorded) => match recorded.as_ref().and_then(|recorded| recorded.token) {
            Some(token) => {
                let body = &mut context.scratch.body;
                body.clear();
                body.extend_from_slice(br#"{"ott":""#);
                body.extend_from_slice(&token.text());
                body.extend_from_slice(br#""}"#);
                let response = Response::new(Status::OK, Outcome::Issued, Content::Written);
                Step::Reply(Response { device: plan.device, ..response })
            }
            None => refuse_issue(Refusal::UnknownDevice, context),
        },
        Answer::Release(_)
        | Answer::Redemption(_)
        | Answer::Kept
        | Answer::Claimed(_)
        | Answer::Unavailable => Step::Reply(Response::unavailable()),
    })
}

fn refuse_issue<I>(refusal: Refusal, context: &Context<'_>) -> Step<I> {
    refuse(context.config, Status::UNAUTHORIZED, refusal, Content::Text("OTT_API_KEY_NOT_VALID"))
}

fn refuse_release<I>(context: &Context<'_>) -> Step<I> {
    let text = r#"{"success":false,"status":"UPDATE_NOT_FOUND"}"#;
    refuse(context.config, Status::NOT_FOUND, Refusal::NoRelease, Content::Json(text))
}

/// `POST /device/firmware` always closes (docs/wire.md 1.0).
fn closing<I>(step: Step<I>) -> Step<I> {
    match step {
        Step::Reply(response) => Step::Reply(Response { close: true, ..response }),
        Step::Ask => Step::Ask,
    }
}

/// What a body may say, flat or inside `registration` or `update`; `use` on top only.
#[derive(Default)]
struct Fields<'a> {
    uses: Field<'a>,
    forced: Field<'a>,
    mac: Field<'a>,
    udid: Field<'a>,
    owner: Field<'a>,
    version: Field<'a>,
    env_hash: Field<'a>,
}

fn read(body: &[u8], depth_max: usize) -> Result<Fields<'_>, Invalid> {
    let mut fields = Fields::default();
    if body.iter().all(u8::is_ascii_whitespace) {
        return Ok(fields);
    }
    let mut reader = Reader::new(body, depth_max)?;
    reader.members(|reader, key| {
        if key.is("use") {
            return fields.uses.keep(reader.value()?);
        }
        if (key.is("registration") || key.is("update")) && reader.starts_object() {
            return reader.members(|reader, key| fields.keep(reader, key));
        }
        fields.keep(reader, key)
    })?;
    reader.end()?;
    let scalar = [fields.udid, fields.owner, fields.version, fields.env_hash];
    if scalar.iter().any(Field::is_nested) { Err(Invalid) } else { Ok(fields) }
}

impl<'a> Fields<'a> {
    fn keep(&mut self, reader: &mut Reader<'a>, key: Text<'a>) -> Result<(), Invalid> {
        let value = reader.value()?;
        match key.plain() {
            Some(b"mac") => self.mac.keep(value),
            Some(b"udid") => self.udid.keep(value),
            Some(b"owner") => self.owner.keep(value),
            Some(b"version") => self.version.keep(value),
            Some(b"env_hash") => self.env_hash.keep(value),
            Some(b"forced") => self.forced.keep(value),
            Some(_) | None => Ok(()),
        }
    }

    fn is_forced(&self) -> bool {
        matches!(self.forced.plain(), Some(b"true" | b"1"))
    }

    fn uses_token(&self) -> bool {
        self.uses.text().is_some_and(|text| text.is("ott"))
    }

    /// By id; by MAC only where the request names no device.
    fn identify(&self, owner: OwnerId, key: ApiKey) -> Identify {
        let device = self.udid.device();
        let mac = if device.is_none() { self.mac.mac() } else { None };
        Identify { owner: Some(owner), key, device, mac }
    }
}
