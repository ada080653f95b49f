//! Requests to decisions: the device API of docs/wire.md 1, as pure functions.
//!
//! An endpoint is two functions: `begin` reads the request and says what it must know first,
//! `resume` takes the store's answer and says what comes next. Nothing here changes a connection.

mod check_in;
mod fields;
mod firmware;
mod guard;
mod push;
mod redeem;
mod registration;
mod response;

pub use response::no_room;
pub(crate) use response::{Content, Part, Response};

use crate::config::Config;
use crate::http::{Method, Request, Status};
use crate::now::Now;
use crate::query::{Answer, KeyStanding, Query};
use crate::report::{Endpoint, Outcome, Refusal};
use crate::words::is;

/// What an endpoint wants next.
pub(crate) enum Step<I> {
    /// An answer to [`Context::query`]; then [`resume`] with the plan.
    Ask,
    /// The answer.
    Reply(Response<I>),
}

/// What an endpoint remembers while the store works.
pub(crate) enum Plan {
    CheckIn(check_in::Plan),
    Firmware(firmware::Plan),
    Issue(firmware::IssuePlan),
    Redeem(redeem::Plan),
    Push(push::Plan),
}

/// Memory that the endpoints of one exchange share, kept from request to request.
#[derive(Default)]
pub(crate) struct Scratch {
    /// What must outlive the request while the store works.
    pub(crate) text: Vec<u8>,
    /// The JSON body of the answer, where it is not a fixed text.
    pub(crate) body: Vec<u8>,
}

/// What an endpoint may look at besides its request or answer.
pub(crate) struct Context<'a> {
    pub(crate) config: &'a Config,
    pub(crate) now: Now,
    /// Where the request went; an endpoint whose body decides that says so here.
    pub(crate) endpoint: Endpoint,
    pub(crate) scratch: &'a mut Scratch,
    /// What is asked next: facts, or that facts are kept.
    pub(crate) query: &'a mut Option<Query>,
}

impl Context<'_> {
    /// Queries are written where they wait for the driver: they are large, and every request has
    /// one.
    fn ask<I>(&mut self, query: Query) -> Step<I> {
        *self.query = Some(query);
        Step::Ask
    }
}

/// Which endpoint a request is for: the one table of routes (docs/wire.md 1.0: any case, one
/// trailing slash). [`Endpoint::Issue`] is told from [`Endpoint::Firmware`] by its body only.
pub(crate) fn route(request: &Request<'_>) -> Endpoint {
    let path = request.path();
    let path = path.strip_suffix(b"/").unwrap_or(path);
    match request.method() {
        Method::Post if is(path, b"/device/register") => Endpoint::CheckIn,
        Method::Post if is(path, b"/device/firmware") => Endpoint::Firmware,
        Method::Post if is(path, b"/device") => Endpoint::Issue,
        Method::Post if is(path, b"/device/addpush") => Endpoint::Push,
        Method::Get | Method::Head if is(path, b"/device/firmware") => Endpoint::Redeem,
        Method::Get | Method::Head if path.is_empty() => Endpoint::Health,
        Method::Get | Method::Head | Method::Post | Method::Options | Method::Other => {
            Endpoint::Other
        }
    }
}

/// Starts on a complete request. Sets the plan where it asks.
pub(crate) fn begin<I>(
    request: &Request<'_>,
    plan: &mut Option<Plan>,
    context: &mut Context<'_>,
) -> Step<I> {
    match context.endpoint {
        Endpoint::CheckIn => check_in::begin(request, plan, context),
        Endpoint::Firmware => firmware::begin(request, plan, context),
        Endpoint::Issue => firmware::begin_alias(request, plan, context),
        Endpoint::Redeem => redeem::begin(request, plan, context),
        Endpoint::Push => push::begin(request, plan, context),
        Endpoint::Health => Step::Reply(Response::json(Status::OK, r#"{"healthcheck":true}"#)),
        Endpoint::Other if request.method() == Method::Options && request.path() == b"*" => {
            Step::Reply(Response::new(Status::OK, Outcome::Answered, Content::Empty))
        }
        Endpoint::Other => Step::Reply(Response::no_route()),
    }
}

/// Goes on with the store's answer.
pub(crate) fn resume<I: Clone>(
    plan: &mut Plan,
    answer: &Answer<I>,
    context: &mut Context<'_>,
) -> Step<I> {
    if matches!(answer, Answer::Unavailable) {
        return Step::Reply(Response::unavailable());
    }
    match plan {
        Plan::CheckIn(plan) => check_in::resume(plan, answer, context),
        Plan::Firmware(plan) => firmware::resume(plan, answer, context),
        Plan::Issue(plan) => firmware::resume_issue(plan, answer, context),
        Plan::Redeem(plan) => redeem::resume(plan, answer, context),
        Plan::Push(plan) => push::resume(plan, answer, context),
    }
}

/// A refusal whose status depends on [`Config::status_mode`].
fn refuse<I>(config: &Config, http: Status, refusal: Refusal, content: Content<I>) -> Step<I> {
    let status = match config.status_mode {
        crate::StatusMode::Thinx => Status::OK,
        crate::StatusMode::Http => http,
    };
    Step::Reply(Response::new(status, Outcome::Refused(refusal), content))
}

/// Refuses a key that is none of the owner's, or an owner without keys; `None` for a valid key.
fn refuse_standing<I>(key: KeyStanding, context: &Context<'_>) -> Option<Step<I>> {
    match key {
        KeyStanding::Valid => None,
        KeyStanding::Wrong => Some(refuse_key(Refusal::WrongKey, context)),
        KeyStanding::UnknownOwner => {
            let content = Content::Json(r#"{"success":false,"response":"apikey_not_found"}"#);
            let status = Status::UNAUTHORIZED;
            Some(refuse(context.config, status, Refusal::UnknownOwner, content))
        }
    }
}

/// What a wrong key is told, and what must not be told from it.
fn refuse_key<I>(refusal: Refusal, context: &Context<'_>) -> Step<I> {
    let content = Content::Json(r#"{"success":false,"response":"owner_found_but_no_key"}"#);
    refuse(context.config, Status::UNAUTHORIZED, refusal, content)
}
