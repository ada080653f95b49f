//! `GET /metrics`: what was counted, added up when somebody asks.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use otter_protocol::{CloseReason, Counters, Endpoint, Handshake, Outcome, Refusal, TlsFailure};
use otter_store::{Buckets, RedisStats, StoreStats};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use super::{Admin, ask};
use crate::failure::Failure;
use crate::tls::{Expiry, TlsStats};

pub(super) async fn show(State(admin): State<Arc<Admin>>) -> Result<impl IntoResponse, Failure> {
    let text = ask(&admin, |admin| render(families(admin))).await?;
    Ok(([(CONTENT_TYPE, OPEN_METRICS)], text))
}

/// Everything that is counted under one name.
#[derive(Debug)]
struct Family {
    /// Without the prefix, and without the `_total` of counters.
    name: &'static str,
    help: &'static str,
    values: Values,
}

#[derive(Debug)]
enum Values {
    Counters(Vec<(Labels, u64)>),
    Gauges(Vec<(Labels, u64)>),
    Histogram { sum: f64, count: u64, buckets: Vec<(f64, u64)> },
}

type Labels = Vec<(&'static str, Cow<'static, str>)>;

fn families(admin: &Admin) -> Vec<Family> {
    let version = vec![("version", env!("CARGO_PKG_VERSION").into())];
    let mut families = vec![
        Family {
            name: "build_info",
            help: "Always 1; the label tells the version",
            values: Values::Gauges(vec![(version, 1)]),
        },
        gauge("start_time_seconds", "Unix time of the start", admin.started_unix),
    ];
    let stats = admin.operator.stats();
    families.extend(of_store(&stats));
    families.extend(of_origins(&stats));
    families.extend(stats.redis.iter().flat_map(of_redis));
    if let Some(served) = &admin.served {
        families.extend(of_devices(&served.counters()));
        let tls = admin.certificates.as_ref().map(|certificates| certificates.stats());
        families.extend(of_tls(&tls.unwrap_or_default()));
    }
    families
}

fn of_store(stats: &StoreStats) -> Vec<Family> {
    let states = vec![
        (vec![("state", "open".into())], stats.tokens_open),
        (vec![("state", "started".into())], stats.tokens_started),
    ];
    vec![
        gauge("owners", "Owners", stats.owners),
        gauge("keys", "API keys", stats.keys),
        gauge("devices", "Registered devices", stats.devices),
        gauge("releases", "Releases, withdrawn ones included", stats.releases),
        Family {
            name: "tokens",
            help: "Tokens that can still be used, by whether a first attempt was made",
            values: Values::Gauges(states),
        },
        counter("tokens_issued", "Tokens issued", stats.tokens_issued_total),
        counter("tokens_started", "First attempts on tokens", stats.tokens_started_total),
        counter("tokens_claimed", "Tokens claimed: the tail went out", stats.tokens_claimed_total),
        counter("tokens_expired", "Tokens that ran out", stats.tokens_expired_total),
        counter("tokens_replaced", "Tokens that made way for newer", stats.tokens_replaced_total),
        counter("tokens_revoked", "Tokens that were revoked", stats.tokens_revoked_total),
        counter("store_commits", "Commits that became durable", stats.commits_total),
        counter("store_commits_failed", "Commits that failed", stats.commits_failed_total),
        counter("store_writes", "Writes that became durable", stats.writes_total),
        counter(
            "store_writes_deferred",
            "Writes that waited for the next commit, because of one before them",
            stats.writes_deferred_total,
        ),
        counter(
            "store_images_refused",
            "Images that could not be opened or were not what was published",
            stats.images_refused_total,
        ),
        histogram("store_commit_seconds", "Time to make a commit durable", &stats.commit_us, 1e6),
        histogram("store_group_writes", "Writes in a commit", &stats.group_writes, 1.0),
    ]
}

fn of_origins(stats: &StoreStats) -> Vec<Family> {
    let fetches = [
        ("fetched", stats.fetches_total),
        ("missing", stats.fetches_missing_total),
        ("unreachable", stats.fetches_unreachable_total),
        ("refused", stats.fetches_refused_total),
        ("wrong", stats.fetches_wrong_total),
        ("unkept", stats.fetches_unkept_total),
    ];
    let puts = [("put", stats.images_put_total), ("failed", stats.images_unput_total)];
    vec![
        labelled("image_fetches", "Attempts at origins of images", "outcome", fetches),
        counter("image_fetched_bytes", "Bytes of fetched images", stats.fetched_bytes_total),
        gauge("image_fetches_open", "Images on their way or in the queue", stats.fetches_open),
        labelled("image_puts", "Published images put to an origin", "outcome", puts),
    ]
}

fn of_redis(redis: &RedisStats) -> Vec<Family> {
    vec![
        gauge("redis_up", "1 while Redis answers, else 0", u64::from(redis.is_up)),
        counter("redis_outages", "Times that Redis went away", redis.outages_total),
        counter("redis_calls", "Calls sent to Redis", redis.calls_total),
        counter("redis_calls_failed", "Calls to Redis that failed", redis.calls_failed_total),
        counter(
            "redis_operations",
            "Operations in all calls to Redis: what is batched",
            redis.operations_total,
        ),
    ]
}

fn of_devices(counters: &Counters) -> Vec<Family> {
    let mut requests: BTreeMap<Labels, u64> = BTreeMap::new();
    let mut check_ins: BTreeMap<&str, u64> = CHECK_IN_OUTCOMES.map(|name| (name, 0)).into();
    let mut refusals: BTreeMap<&str, u64> = REFUSALS.map(|(_, name)| (name, 0)).into();
    let mut offers = 0;
    for group in counters.requests() {
        let labels = vec![
            ("endpoint", endpoint(group.endpoint).into()),
            ("outcome", outcome(group.outcome).into()),
            ("status", status_class(group.status_class).into()),
        ];
        *requests.entry(labels).or_default() += group.count;
        if group.endpoint == Endpoint::CheckIn {
            *check_ins.entry(outcome(group.outcome)).or_default() += group.count;
        }
        if group.outcome == Outcome::Offered {
            offers += group.count;
        }
        if let Outcome::Refused(reason) = group.outcome {
            *refusals.entry(refusal(reason)).or_default() += group.count;
        }
    }
    let handshakes = counters.handshakes().map(|(result, n)| (handshake(result), n));
    let closed = counters.closed_by_reason().map(|(reason, n)| (close_reason(reason), n));
    vec![
        labelled("check_ins", "Check-ins by what became of them", "outcome", check_ins),
        counter("offers", "Check-ins that were answered with an offer", offers),
        labelled("refusals", "Refused requests by reason", "reason", refusals),
        Family {
            name: "requests",
            help: "Requests by where they went, what became of them, and status",
            values: Values::Counters(requests.into_iter().collect()),
        },
        counter("bytes_sent", "Bytes that devices took", counters.bytes_sent),
        counter("bytes_received", "Bytes that devices sent", counters.bytes_received),
        gauge("connections_open", "Connections that are open", counters.open),
        counter("connections_accepted", "Connections that were accepted", counters.accepted),
        counter(
            "connections_refused",
            "Connections beyond the limit, answered 503",
            counters.refused,
        ),
        counter(
            "connections_evicted",
            "Idle connections that were closed to make room",
            counters.evicted,
        ),
        counter("connections_broken", "Connections that ended with an error", counters.broken),
        counter("connections_panicked", "Connections that ended with a bug", counters.panicked),
        labelled("connections_closed", "Connections that ended, by reason", "reason", closed),
        labelled("tls_handshakes", "TLS handshakes by their result", "result", handshakes),
        counter(
            "accept_pauses",
            "Times that accepting paused for want of descriptors or memory",
            counters.accept_pauses,
        ),
        answers(&counters.answers),
    ]
}

fn of_tls(tls: &TlsStats) -> Vec<Family> {
    let mut ends: BTreeMap<Labels, u64> = BTreeMap::new();
    for Expiry { name, key, not_after } in &tls.certificates {
        let labels = vec![("name", name.clone().into()), ("key", (*key).into())];
        // Of two alike, the one that ends first is the one to know of.
        ends.entry(labels).and_modify(|end| *end = (*end).min(*not_after)).or_insert(*not_after);
    }
    let reloads = [("ok", tls.reloads_total), ("failed", tls.reloads_failed_total)];
    vec![
        Family {
            name: "tls_certificate_expiry_seconds",
            help: "Unix time at which a certificate ends, by its first name and its sort of key",
            values: Values::Gauges(ends.into_iter().collect()),
        },
        labelled("tls_reloads", "Times that certificates were read again", "result", reloads),
    ]
}

fn render(families: Vec<Family>) -> Result<String, Failure> {
    let mut registry = Registry::with_prefix(PREFIX);
    registry.register_collector(Box::new(Families(families)));
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry)
        .map_err(|error| Failure::internal(format!("cannot render the metrics: {error}")))?;
    Ok(text)
}

#[derive(Debug)]
struct Families(Vec<Family>);

impl Collector for Families {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        for family in &self.0 {
            let metric_type = match family.values {
                Values::Counters(_) => MetricType::Counter,
                Values::Gauges(_) => MetricType::Gauge,
                Values::Histogram { .. } => MetricType::Histogram,
            };
            let metric = encoder.encode_descriptor(family.name, family.help, None, metric_type)?;
            family.values.encode(metric)?;
        }
        Ok(())
    }
}

impl Values {
    fn encode(&self, mut metric: MetricEncoder<'_>) -> fmt::Result {
        let (values, is_gauge) = match self {
            Self::Counters(values) => (values, false),
            Self::Gauges(values) => (values, true),
            Self::Histogram { sum, count, buckets } => {
                return metric.encode_histogram::<NoLabelSet>(*sum, *count, buckets, None);
            }
        };
        for (labels, value) in values {
            let encode = |metric: &mut MetricEncoder<'_>| {
                if is_gauge {
                    metric.encode_gauge(&i64::try_from(*value).unwrap_or(i64::MAX))
                } else {
                    metric.encode_counter::<NoLabelSet, u64, u64>(value, None)
                }
            };
            if labels.is_empty() {
                encode(&mut metric)?;
            } else {
                encode(&mut metric.encode_family(labels)?)?;
            }
        }
        Ok(())
    }
}

fn counter(name: &'static str, help: &'static str, value: u64) -> Family {
    Family { name, help, values: Values::Counters(vec![(Vec::new(), value)]) }
}

fn gauge(name: &'static str, help: &'static str, value: u64) -> Family {
    Family { name, help, values: Values::Gauges(vec![(Vec::new(), value)]) }
}

fn labelled(
    name: &'static str,
    help: &'static str,
    label: &'static str,
    values: impl IntoIterator<Item = (&'static str, u64)>,
) -> Family {
    let values = values.into_iter().map(|(text, value)| (vec![(label, text.into())], value));
    Family { name, help, values: Values::Counters(values.collect()) }
}

fn histogram(name: &'static str, help: &'static str, from: &Buckets, per_unit: f64) -> Family {
    let bound = |most: u64| if most == u64::MAX { f64::INFINITY } else { most as f64 / per_unit };
    let mut buckets: Vec<_> = from.counts.iter().map(|(most, n)| (bound(*most), *n)).collect();
    if buckets.is_empty() {
        buckets.push((f64::INFINITY, 0));
    }
    let count = from.counts.iter().map(|(_, n)| n).sum();
    Family {
        name,
        help,
        values: Values::Histogram { sum: from.sum as f64 / per_unit, count, buckets },
    }
}

/// The drivers count in classes that double; the sum is taken from their upper bounds.
fn answers(classes: &[u64]) -> Family {
    let bound = |class: usize| 0.000_25 * f64::from(1 << class);
    let mut buckets: Vec<_> = classes.iter().enumerate().map(|(i, n)| (bound(i), *n)).collect();
    let sum = buckets.iter().map(|(bound, n)| bound * *n as f64).sum();
    buckets.push((f64::INFINITY, 0));
    let count = classes.iter().sum();
    Family {
        name: "store_answer_seconds",
        help: "Time until the store answered a worker; the sum is an upper bound",
        values: Values::Histogram { sum, count, buckets },
    }
}

fn endpoint(endpoint: Endpoint) -> &'static str {
    match endpoint {
        Endpoint::CheckIn => "check_in",
        Endpoint::Firmware => "firmware",
        Endpoint::Issue => "issue",
        Endpoint::Redeem => "redeem",
        Endpoint::Push => "push",
        Endpoint::Health => "health",
        Endpoint::Other => "other",
    }
}

fn outcome(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Registered => "registered",
        Outcome::Current => "current",
        Outcome::Offered => "offered",
        Outcome::HeldBack => "held_back",
        Outcome::Issued => "issued",
        Outcome::Delivered => "delivered",
        Outcome::Ranged => "ranged",
        Outcome::NotModified => "not_modified",
        Outcome::Answered => "answered",
        Outcome::Aborted => "aborted",
        Outcome::Unclaimed => "unclaimed",
        Outcome::Refused(_) => "refused",
    }
}

fn refusal(reason: Refusal) -> &'static str {
    let known = REFUSALS.iter().find(|(known, _)| *known == reason);
    known.map_or("other", |(_, name)| name)
}

fn close_reason(reason: CloseReason) -> &'static str {
    match reason {
        CloseReason::Peer => "peer",
        CloseReason::Idle => "idle",
        CloseReason::Slow => "slow",
        CloseReason::Refused => "refused",
        CloseReason::Unclaimed => "unclaimed",
        CloseReason::Shutdown => "shutdown",
        CloseReason::Tls => "tls",
        CloseReason::Torn => "torn",
        _ => "other",
    }
}

fn handshake(result: Handshake) -> &'static str {
    match result {
        Handshake::Full => "full",
        Handshake::Resumed => "resumed",
        Handshake::Probed => "probed",
        Handshake::Failed(TlsFailure::NothingInCommon) => "nothing_in_common",
        Handshake::Failed(TlsFailure::PeerRefused) => "peer_refused",
        Handshake::Failed(TlsFailure::NotTrusted) => "not_trusted",
        Handshake::Failed(TlsFailure::Malformed) => "malformed",
        Handshake::Failed(TlsFailure::PlainHttp) => "plain_http",
        Handshake::Failed(TlsFailure::Abandoned) => "abandoned",
        Handshake::Failed(TlsFailure::TimedOut) => "timed_out",
    }
}

fn status_class(class: u8) -> &'static str {
    match class {
        1 => "1xx",
        2 => "2xx",
        3 => "3xx",
        4 => "4xx",
        5 => "5xx",
        _ => "none",
    }
}

const PREFIX: &str = "otter";
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// Shown from the start, so that a rate can be taken of the first one, too.
const CHECK_IN_OUTCOMES: [&str; 5] = ["registered", "current", "offered", "held_back", "refused"];
const REFUSALS: [(Refusal, &str); 16] = [
    (Refusal::NoRoute, "no_route"),
    (Refusal::Malformed, "malformed"),
    (Refusal::NotTls, "not_tls"),
    (Refusal::TooLarge, "too_large"),
    (Refusal::TooSlow, "too_slow"),
    (Refusal::BadBody, "bad_body"),
    (Refusal::NoKey, "no_key"),
    (Refusal::UnknownOwner, "unknown_owner"),
    (Refusal::WrongKey, "wrong_key"),
    (Refusal::UnknownDevice, "unknown_device"),
    (Refusal::DeadToken, "dead_token"),
    (Refusal::NoRelease, "no_release"),
    (Refusal::BadRange, "bad_range"),
    (Refusal::Precondition, "precondition"),
    (Refusal::Unavailable, "unavailable"),
    (Refusal::PutOff, "put_off"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_is_what_prometheus_reads() {
        let mut buckets = Buckets::default();
        buckets.counts = vec![(100, 0), (1000, 2), (u64::MAX, 1)];
        buckets.sum = 5000;
        let text = render(vec![
            counter("offers", "Offers", 3),
            histogram("store_commit_seconds", "Time", &buckets, 1e6),
        ]);
        let text = text.expect("rendered");
        for line in [
            "# TYPE otter_offers counter",
            "otter_offers_total 3",
            "otter_store_commit_seconds_sum 0.005",
            "otter_store_commit_seconds_bucket{le=\"0.0001\"} 0",
            "otter_store_commit_seconds_bucket{le=\"0.001\"} 2",
            "otter_store_commit_seconds_bucket{le=\"+Inf\"} 3",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in {text}");
        }
    }

    #[test]
    fn certificates_of_one_name_are_told_apart_or_merged() {
        let expiry = |key, not_after| Expiry { name: "a.example".to_owned(), key, not_after };
        let certificates = vec![expiry("rsa", 3), expiry("ecdsa", 2), expiry("rsa", 1)];
        let tls = TlsStats { certificates, reloads_total: 4, reloads_failed_total: 5 };
        let text = render(of_tls(&tls)).expect("rendered");
        for line in [
            "otter_tls_certificate_expiry_seconds{name=\"a.example\",key=\"ecdsa\"} 2",
            "otter_tls_certificate_expiry_seconds{name=\"a.example\",key=\"rsa\"} 1",
            "otter_tls_reloads_total{result=\"ok\"} 4",
            "otter_tls_reloads_total{result=\"failed\"} 5",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in {text}");
        }
        assert_eq!(text.matches("key=\"rsa\"").count(), 1, "{text}");
    }

    #[test]
    fn the_documentation_lists_exactly_these_metrics() {
        let mut families = of_store(&StoreStats::default());
        families.extend(of_origins(&StoreStats::default()));
        families.extend(of_redis(&RedisStats::default()));
        families.extend(of_devices(&Counters::default()));
        families.extend(of_tls(&TlsStats::default()));
        let mut existing: Vec<_> = families
            .iter()
            .map(|family| match family.values {
                Values::Counters(_) => format!("otter_{}_total", family.name),
                Values::Gauges(_) | Values::Histogram { .. } => format!("otter_{}", family.name),
            })
            .chain(["otter_build_info".to_owned(), "otter_start_time_seconds".to_owned()])
            .collect();
        existing.sort();
        let mut documented: Vec<_> = include_str!("../../docs/operating.md")
            .lines()
            .filter_map(|line| line.strip_prefix("| `otter_")?.split('`').next())
            .map(|name| format!("otter_{}", name.split('{').next().unwrap_or_default()))
            .collect();
        documented.sort();
        assert_eq!(documented, existing);
    }
}
