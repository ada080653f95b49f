//! `POST /device/addpush`: keeps the push token of a device's app (docs/wire.md 1.5).

use crate::api::fields::{Credential, Field, credential};
use crate::api::{Content, Context, Response, Step, refuse};
use crate::http::{Request, Status};
use crate::id::DeviceId;
use crate::json::{Invalid, Kind, Reader, Text};
use crate::query::{Answer, DeviceStanding, Identify, KeyStanding, Query, Standing};
use crate::report::{Outcome, Refusal};

/// What is remembered while the store works.
pub(crate) struct Plan {
    device: DeviceId,
    push: Box<str>,
}

/// Checks the push token and the form of the key, and asks whose device it is.
pub(super) fn begin<I>(
    request: &Request<'_>,
    plan: &mut Option<super::Plan>,
    context: &mut Context<'_>,
) -> Step<I> {
    let config = context.config;
    let no_body = r#"{"success":false,"response":"no_body"}"#;
    if request.body.is_empty() {
        return refuse(config, Status::BAD_REQUEST, Refusal::BadBody, Content::Json(no_body));
    }
    let Ok((push, udid)) = read(request.body, config.json_depth_max) else {
        return Step::Reply(Response::bad_body());
    };
    if matches!(push, Pushed::Absent) {
        return refuse(config, Status::BAD_REQUEST, Refusal::BadBody, Content::Json(no_body));
    }
    let Pushed::Token(push) = push else {
        let text = r#"{"success":false,"response":"no_token"}"#;
        return refuse(config, Status::BAD_REQUEST, Refusal::BadBody, Content::Json(text));
    };
    let Credential::Key(key) = credential(request) else { return forbidden(Refusal::NoKey) };
    let Some(device) = udid.device() else { return no_device(context) };
    let identify = Identify { owner: None, key, device: Some(device), mac: None };
    *plan = Some(super::Plan::Push(Plan { device, push: push.decode().into() }));
    context.ask(Query::Identify(identify))
}

/// The key must be one of the device's owner.
pub(super) fn resume<I>(plan: &Plan, answer: &Answer<I>, context: &mut Context<'_>) -> Step<I> {
    match answer {
        Answer::Standing(Standing { key, device: DeviceStanding::Known(_), .. }) => match key {
            KeyStanding::Valid => {
                context.ask(Query::Push { device: plan.device, push: plan.push.clone() })
            }
            KeyStanding::Wrong | KeyStanding::UnknownOwner => forbidden(Refusal::WrongKey),
        },
        Answer::Standing(_) => no_device(context),
        Answer::Kept => {
            let text = r#"{"success":true,"response":"push_token_registered"}"#;
            Step::Reply(Response::json(Status::OK, text).of(plan.device))
        }
        Answer::Release(_)
        | Answer::Redemption(_)
        | Answer::Recorded(_)
        | Answer::Claimed(_)
        | Answer::Unavailable => Step::Reply(Response::unavailable()),
    }
}

/// 403 with nothing behind it, in both status modes.
fn forbidden<I>(refusal: Refusal) -> Step<I> {
    Step::Reply(Response::new(Status::FORBIDDEN, Outcome::Refused(refusal), Content::Empty))
}

fn no_device<I>(context: &Context<'_>) -> Step<I> {
    let text = r#"{"success":false,"response":"push_device_not_found"}"#;
    refuse(context.config, Status::NOT_FOUND, Refusal::UnknownDevice, Content::Json(text))
}

enum Pushed<'a> {
    Absent,
    /// Not a string, or against the rule.
    Bad,
    Token(Text<'a>),
}

fn read(body: &[u8], depth_max: usize) -> Result<(Pushed<'_>, Field<'_>), Invalid> {
    let mut push = Pushed::Absent;
    let mut udid = Field::default();
    let mut reader = Reader::new(body, depth_max)?;
    reader.members(|reader, key| {
        let value = reader.value()?;
        if key.is("udid") {
            udid.keep(value)
        } else if key.is("push") {
            if !matches!(push, Pushed::Absent) {
                return Err(Invalid);
            }
            push = match value.text() {
                Some(text) if text.plain().is_some_and(follows_rule) => Pushed::Token(text),
                None if value.kind == Kind::Null => Pushed::Absent,
                Some(_) | None => Pushed::Bad,
            };
            Ok(())
        } else {
            Ok(())
        }
    })?;
    reader.end()?;
    Ok((push, udid))
}

/// 64 hexadecimal digits (iOS), or any other length of `[a-zA-Z0-9_:-]` (Android).
fn follows_rule(token: &[u8]) -> bool {
    let android = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b':' | b'-');
    match token.len() {
        0 => false,
        64 => token.iter().all(u8::is_ascii_hexdigit),
        _ => token.iter().all(android),
    }
}
