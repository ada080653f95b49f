//! `GET /device/firmware?ott=`: one image for one token (docs/wire.md 1.4, 2.4, 3.4;
//! docs/token.md).
//!
//! Looking at a token is free: HEAD, a version probe, 304, 404 and 416 start nothing. Only when
//! bytes of the image are about to leave does the first attempt begin (`Start`), and not before
//! the line has room for them.

use std::ops::Range;

use crate::api::{Content, Context, Part, Response, Step, response};
use crate::config::StatusMode;
use crate::digits::bytes_from_hex;
use crate::http::{Condition, Method, Request, Selection, Status};
use crate::id::Token;
use crate::outflow::Share;
use crate::query::{Answer, Offer, Query, Redemption, Release};
use crate::report::{Outcome, Refusal};

/// What is remembered while the store works. The headers wait in [`super::Scratch::text`]; ranges
/// are offsets in it.
pub(crate) struct Plan {
    token: Token,
    intent: Intent,
    /// The first attempt has been begun.
    starting: bool,
    /// What the answer has of the line, while the attempt is begun.
    share: Option<Share>,
    range: Option<Range<usize>>,
    if_range: Option<Range<usize>>,
    if_match: Option<Range<usize>>,
    if_none_match: Option<Range<usize>>,
    /// MD5 of what the device runs now.
    sketch_md5: Option<[u8; 16]>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Intent {
    /// Bytes of the image.
    Bytes,
    /// Its head only.
    Head,
    /// Its version only (`x-ESP8266-mode: version`).
    Version,
}

/// Reads the token; a malformed one is refused without asking the store.
pub(super) fn begin<I>(
    request: &Request<'_>,
    plan: &mut Option<super::Plan>,
    context: &mut Context<'_>,
) -> Step<I> {
    let token = match token_text(request.query().unwrap_or_default()) {
        Presented::Missing => {
            let content = Content::Json(r#"{"success":false,"response":"OTT_MISSING"}"#);
            return refuse(Status::BAD_REQUEST, Refusal::DeadToken, content, context);
        }
        Presented::Text(text) => Token::parse(text.as_bytes()),
        Presented::Repeated => None,
    };
    let Some(token) = token else { return dead(context) };
    let is_version = |mode: &[u8]| mode.eq_ignore_ascii_case(b"version");
    let intent = match request.method() {
        _ if request.header("x-esp8266-mode").is_some_and(is_version) => Intent::Version,
        Method::Head => Intent::Head,
        Method::Get | Method::Post | Method::Options | Method::Other => Intent::Bytes,
    };
    let sketch = ["x-esp8266-sketch-md5", "x-esp32-sketch-md5"];
    let sketch = sketch.iter().find_map(|name| request.header(name));
    context.scratch.text.clear();
    let text = &mut context.scratch.text;
    let mut keep = |name, lines_max| {
        let start = text.len();
        let mut lines = request.headers(name).take(lines_max);
        text.extend_from_slice(lines.next()?);
        // Lines of a list are one list (RFC 9110 5.3).
        lines.for_each(|line| text.extend([b",", line].concat()));
        Some(start..text.len())
    };
    *plan = Some(super::Plan::Redeem(Plan {
        token,
        intent,
        starting: false,
        share: None,
        range: keep("range", 1),
        if_range: keep("if-range", 1),
        if_match: keep("if-match", usize::MAX),
        if_none_match: keep("if-none-match", usize::MAX),
        sketch_md5: sketch.and_then(|md5| bytes_from_hex(&md5.to_ascii_lowercase())),
    }));
    context.ask(Query::Redeem { token })
}

/// Decides what the token gets; asks to start the first attempt where bytes would leave.
pub(super) fn resume<I: Clone>(
    plan: &mut Plan,
    answer: &Answer<I>,
    context: &mut Context<'_>,
) -> Step<I> {
    let (device, release, started, forced) = match answer {
        Answer::Redemption(Redemption::Ready { device, release, started, forced }) => {
            (*device, release.clone(), *started, *forced)
        }
        Answer::Redemption(Redemption::Unknown) => return dead(context),
        Answer::Redemption(Redemption::Nothing) => {
            let content = Content::Text("OTT_UPDATE_NOT_AVAILABLE");
            return refuse(Status::NOT_FOUND, Refusal::NoRelease, content, context);
        }
        Answer::Standing(_)
        | Answer::Release(_)
        | Answer::Recorded(_)
        | Answer::Kept
        | Answer::Claimed(_)
        | Answer::Unavailable => return Step::Reply(Response::unavailable()),
    };
    let mut response = plan.answer(release, forced, context);
    if let Content::Image(part) = &mut response.content
        && plan.intent == Intent::Bytes
    {
        match plan.admit(part.end - part.start, response.outcome, context) {
            Ok(share) => part.share = Some(share),
            Err(retry_after_s) => {
                return Step::Reply(Response::put_off(retry_after_s).of(device));
            }
        }
        if !started && !plan.starting {
            plan.starting = true;
            plan.share = part.share.take();
            return context.ask(Query::Start { token: plan.token });
        }
    }
    Step::Reply(response.of(device))
}

impl Plan {
    /// Lets so many bytes leave, unless the line has enough to carry. Short parts always may: who
    /// fetches those keeps what it has.
    fn admit(&mut self, bytes: u64, outcome: Outcome, context: &Context<'_>) -> Result<Share, u32> {
        let outflow = &context.config.outflow;
        match self.share.take() {
            Some(mut share) => {
                share.resize(bytes);
                Ok(share)
            }
            None if outcome == Outcome::Ranged && bytes <= SHORT_PART_BYTES_MAX => {
                Ok(outflow.take(bytes))
            }
            None => outflow.admit(bytes, context.now, context.config),
        }
    }

    fn answer<I>(&self, release: Release<I>, forced: bool, context: &Context<'_>) -> Response<I> {
        let offer: &Offer = &release.offer;
        if self.sketch_md5 == Some(offer.md5) && !forced && self.intent != Intent::Version {
            return Response::not_modified(offer);
        }
        let kept = |range: &Option<Range<usize>>| context.scratch.text.get(range.clone()?);
        let etag = response::etag(&offer.sha256);
        let etag = std::str::from_utf8(&etag).unwrap_or_default();
        let size = offer.size;
        if self.intent != Intent::Version {
            match Condition::of(kept(&self.if_match), kept(&self.if_none_match), etag) {
                Condition::Holds => {}
                Condition::NotModified => return Response::not_modified(offer),
                Condition::Failed => {
                    let outcome = Outcome::Refused(Refusal::Precondition);
                    return Response::new(Status::PRECONDITION_FAILED, outcome, Content::Empty);
                }
            }
        }
        let selection = match self.intent {
            Intent::Bytes => Selection::of(kept(&self.range), kept(&self.if_range), etag, size),
            // A range has a meaning for GET only (RFC 9110 14.2).
            Intent::Head => Selection::Whole,
            Intent::Version => {
                let content = Content::Version(offer.version.clone());
                return Response::new(Status::OK, Outcome::Answered, content);
            }
        };
        let token = Some(self.token);
        let (status, outcome, start, end) = match selection {
            Selection::Whole if self.intent == Intent::Head => {
                (Status::OK, Outcome::Answered, 0, size)
            }
            Selection::Whole => (Status::OK, Outcome::Delivered, 0, size),
            Selection::Part { start, end } => {
                let end = short_of_tail(start, end, offer);
                let whole = start == 0 && end == size;
                let outcome = if whole { Outcome::Delivered } else { Outcome::Ranged };
                (Status::PARTIAL_CONTENT, outcome, start, end)
            }
            Selection::Unsatisfiable => {
                let outcome = Outcome::Refused(Refusal::BadRange);
                return Response::new(
                    Status::RANGE_NOT_SATISFIABLE,
                    outcome,
                    Content::OutOfRange(size),
                );
            }
        };
        let content = Content::Image(Box::new(Part { release, start, end, token, share: None }));
        let close = status == Status::OK && self.intent == Intent::Bytes;
        Response { close, ..Response::new(status, outcome, content) }
    }
}

/// Where a part ends that would stop inside the tail: before it. Its claim would be spent on some
/// of the tail, and the request for the rest would find the token dead. A part may be shorter than
/// was asked for (RFC 9110 15.3.7); the client asks on from there.
fn short_of_tail(start: u64, end: u64, offer: &Offer) -> u64 {
    let tail = offer.tail_start();
    if start < tail && end < offer.size { end.min(tail) } else { end }
}

/// One answer for unknown, expired, used, replaced and malformed tokens.
fn dead<I>(context: &Context<'_>) -> Step<I> {
    refuse(Status::NOT_FOUND, Refusal::DeadToken, Content::Text("OTT_UPDATE_NOT_FOUND"), context)
}

/// The updaters act on the status, so it is true unless the operator wants THiNX' own 200.
fn refuse<I>(
    status: Status,
    refusal: Refusal,
    content: Content<I>,
    context: &Context<'_>,
) -> Step<I> {
    let as_thinx = context.config.status_mode == StatusMode::Thinx && context.config.thinx_get_200;
    let status = if as_thinx { Status::OK } else { status };
    Step::Reply(Response::new(status, Outcome::Refused(refusal), content))
}

enum Presented<'a> {
    Missing,
    Text(&'a str),
    Repeated,
}

fn token_text(query: &str) -> Presented<'_> {
    let mut texts = query.split('&').filter_map(|pair| match pair.split_once('=') {
        Some((name, text)) => (name == "ott").then_some(text),
        None => (pair == "ott").then_some(""),
    });
    match (texts.next(), texts.next()) {
        (None, _) => Presented::Missing,
        (Some(text), None) => Presented::Text(text),
        (Some(_), Some(_)) => Presented::Repeated,
    }
}

/// Parts of updaters that fetch in parts, a few KiB each, and the last part of any.
const SHORT_PART_BYTES_MAX: u64 = 64 * 1024;
