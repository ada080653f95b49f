//! `otter`: the operator's program. Thin subcommands over the crates of this workspace.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::Parser;

use cli::{Cli, Command};
use failure::Failure;
use output::Output;

mod admin;
mod beneath;
mod bundle;
mod cert;
mod cli;
mod client;
mod commands;
mod config;
mod copy;
mod demo;
mod deploy;
mod devices;
mod failure;
mod first_run;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod images;
mod import;
mod limits;
mod listen;
mod logs;
mod output;
mod played;
mod publish;
mod secret;
mod serve;
mod shapes;
mod socket;
mod store;
mod tls;
mod tokio_server;
mod upload;
mod vet;
mod watch;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return explain(&error),
    };
    let output = Output::new(cli.json);
    match run(&cli, output) {
        Ok(code) => code,
        Err(failure) => {
            output.failure(&failure);
            failure.exit_code()
        }
    }
}

/// Shows help or a mistake in the arguments: in JSON if they ask for that, whatever else they say.
fn explain(error: &clap::Error) -> ExitCode {
    let json = std::env::args_os().any(|argument| argument == "--json");
    if !json || !error.use_stderr() {
        // There is nobody left to tell if this cannot be written.
        let _ = error.print();
        return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(1));
    }
    let text = error.to_string();
    // Only the first paragraph says what is wrong.
    let said = text.split("\n\n").next().unwrap_or_default();
    let words: Vec<_> = said.split_whitespace().collect();
    let words = words.join(" ");
    let failure = Failure::usage(words.strip_prefix("error: ").unwrap_or(&words))
        .hint("`--help` after the command says what it takes");
    Output::new(true).failure(&failure);
    failure.exit_code()
}

fn run(cli: &Cli, output: Output) -> Result<ExitCode, Failure> {
    let data = &cli.data;
    match &cli.command {
        Command::Owner(command) => commands::owner(data, command, output)?,
        Command::Key(command) => commands::key(data, command, output)?,
        Command::Device(command) => commands::device(data, command, output)?,
        Command::Token(command) => commands::token(data, command, output)?,
        Command::Release(command) => commands::release(data, command, output)?,
        Command::Store(cli::Store::Copy(args)) => copy::run(data, args, output)?,
        Command::Cert(command) => return cert::run(data, command, output),
        Command::Publish(args) => publish::run(data, args, output)?,
        Command::Import(args) => return import::run(data, args, output),
        Command::Serve(args) => return serve::run(data, args, output),
        Command::Demo => return demo::run(output),
    }
    Ok(ExitCode::SUCCESS)
}
