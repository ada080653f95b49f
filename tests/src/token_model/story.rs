//! A path as sentences.

use stateright::Path;

use super::state::{At, Line, Query, Stage, State};
use super::{Rule, Step};

/// What happens on a path under `rule`, a sentence a step.
#[must_use]
pub fn story(rule: Rule, path: Path<State, Step>) -> Vec<String> {
    path.into_actions().into_iter().map(|step| sentence(rule, step)).collect()
}

fn sentence(rule: Rule, step: Step) -> String {
    match step {
        Step::Dial { client, server, token, resumes } => {
            let wants = if resumes { "the rest" } else { "all" };
            format!("client {client} asks server {server} for {wants} by token {token}")
        }
        Step::Do(line) => {
            let node = line.query.map_or(0, |flight| flight.node);
            format!("store {node} carries out the {}", asked(line))
        }
        Step::Confirm(line) => format!("replicas confirm the {}", asked(line)),
        Step::Hear(line) => {
            let is_no = line.query.is_some_and(|query| query.stage == Stage::Answered(false));
            let answer = if is_no { "no" } else { "yes" };
            format!("server {} hears {answer} to the {}", line.server, asked(line))
        }
        Step::GiveUp(line) => {
            format!("server {} hears nothing of the {}", line.server, asked(line))
        }
        Step::Replay(line) => format!("server {} sends again the {}", line.server, asked(line)),
        Step::Write(line) => {
            format!("server {} sends {} to client {}", line.server, sent(rule, line), line.client)
        }
        Step::Receive(line) => format!("client {} reads {}", line.client, read(line)),
        Step::Break(line) => {
            format!("the connection of client {} to server {} breaks", line.client, line.server)
        }
        Step::Notice(line) => {
            format!("server {} notices that client {} is gone", line.server, line.client)
        }
        Step::Finish(line) => {
            format!("server {} sees that client {} closed", line.server, line.client)
        }
        Step::Restart(server) => format!("server {server} restarts"),
        Step::Switch(server) => format!("server {server} turns to the new primary"),
        Step::Hour => "an hour passes".to_owned(),
        Step::Replace => "a check-in replaces token 0 by token 1".to_owned(),
        Step::Copy(node) => format!("store {node} copies"),
        Step::Promote(node) => format!("store {node} becomes the primary"),
        Step::Follow(node) => format!("store {node} becomes a replica of the new primary"),
    }
}

fn asked(line: Line) -> String {
    let query = match line.query.map(|flight| flight.query) {
        Some(Query::Begin) => "start",
        Some(Query::Claim) => "claim",
        Some(Query::Delete) => "removal",
        Some(Query::GiveBack) => "return",
        None => "query",
    };
    format!("{query} for client {}", line.client)
}

fn sent(rule: Rule, line: Line) -> &'static str {
    match line.at {
        At::SendsTail => "the tail",
        At::Asks | At::Sends | At::Watches | At::Gone if rule.claims() => "the prefix",
        At::Asks | At::Sends | At::Watches | At::Gone => "prefix and tail",
    }
}

fn read(line: Line) -> &'static str {
    match (line.prefix_under_way, line.tail_under_way) {
        (true, true) => "prefix and tail",
        (true, false) => "the prefix",
        (false, _) => "the tail",
    }
}
