//! The log on stderr.

use std::io::{self, IsTerminal};

use tracing_subscriber::EnvFilter;

use crate::cli::LogFormat;
use crate::failure::Failure;

/// Starts logging. What is logged: by `OTTER_LOG`, else `RUST_LOG`, else from `info` on, but for
/// what rustls has to say of strangers' mistakes, of which there may be as many as they like.
pub(crate) fn start(format: LogFormat) -> Result<(), Failure> {
    let directives = VARIABLES.iter().find_map(|name| {
        let text = std::env::var(name).ok().filter(|text| !text.is_empty())?;
        Some((*name, text))
    });
    let filter = match &directives {
        Some((name, text)) => EnvFilter::try_new(text).map_err(|error| {
            Failure::usage(format!("{name} is no filter for the log: {error}"))
                .hint("such as `info`, `debug` or `warn,otter=debug`")
        })?,
        None => EnvFilter::new("info,rustls=error"),
    };
    let builder =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).with_target(true);
    let started = match format {
        LogFormat::Human => builder.with_ansi(io::stderr().is_terminal()).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    started.map_err(|error| Failure::internal(format!("cannot start the log: {error}")))?;
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        let text = panic.payload_as_str().unwrap_or("no message");
        let thread = std::thread::current().name().unwrap_or("unnamed").to_owned();
        tracing::error!(place, thread, "panic: {text}");
    }));
    Ok(())
}

const VARIABLES: [&str; 2] = ["OTTER_LOG", "RUST_LOG"];
