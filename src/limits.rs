//! The limit of open files, which bounds the connections.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises this process' limit so far that `connections_max` connections fit, as far as it may;
/// returns how many fit.
pub(crate) fn make_room(connections_max: usize) -> usize {
    let now = getrlimit(Resource::Nofile);
    let room = Room::of(connections_max as u64, now.current, now.maximum);
    if room.limit != now.current
        && let Err(error) =
            setrlimit(Resource::Nofile, Rlimit { current: room.limit, maximum: now.maximum })
    {
        tracing::warn!(%error, "the limit of open files cannot be raised");
    }
    if room.connections < connections_max as u64 {
        tracing::warn!(
            connections_max,
            fit = room.connections,
            "the limit of open files allows fewer connections; raise it (ulimit -n, LimitNOFILE)"
        );
    }
    usize::try_from(room.connections).unwrap_or(connections_max)
}

/// What fits.
#[derive(Debug, PartialEq, Eq)]
struct Room {
    /// The limit to set; none is no limit.
    limit: Option<u64>,
    connections: u64,
}

impl Room {
    fn of(connections_max: u64, current: Option<u64>, maximum: Option<u64>) -> Self {
        let wanted = connections_max.saturating_add(OTHER_FILES);
        let Some(current) = current.filter(|current| *current < wanted) else {
            return Self { limit: current, connections: connections_max };
        };
        let limit = wanted.min(maximum.unwrap_or(wanted)).max(current);
        let connections = limit.saturating_sub(OTHER_FILES).clamp(1, connections_max);
        Self { limit: Some(limit), connections }
    }
}

/// Files that are open beside connections: images, the store, listeners, the admin API.
const OTHER_FILES: u64 = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_raised_as_far_as_needed_and_allowed() {
        for (current, maximum, limit, connections) in [
            (None, None, None, 1000),
            (Some(5000), Some(5000), Some(5000), 1000),
            (Some(1024), Some(4096), Some(1256), 1000),
            (Some(1024), None, Some(1256), 1000),
            (Some(512), Some(600), Some(600), 344),
            (Some(64), Some(64), Some(64), 1),
        ] {
            assert_eq!(Room::of(1000, current, maximum), Room { limit, connections });
        }
    }
}
