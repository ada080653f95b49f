//! Law 1: however the input is cut and however little the socket takes, the same comes of it.

use otter_protocol::CloseReason;
use otter_tests::{Exchange, Sample, Scene, samples};
use proptest::prelude::*;

/// All that came of an exchange.
#[derive(Debug, PartialEq, Eq)]
struct Result {
    text: String,
    queries: String,
    ended: bool,
    reports: String,
    closed: Option<CloseReason>,
}

fn result(mut exchange: Exchange) -> Result {
    exchange.settle();
    let heard = exchange.heard();
    Result {
        text: heard.text(),
        queries: format!("{:?}", heard.queries),
        ended: heard.ended,
        reports: format!("{:?}", exchange.peer.reports()),
        closed: exchange.peer.closed(),
    }
}

/// Hands in the pieces one after the other, with everything done between them.
fn in_pieces<'a>(scene: &Scene, pieces: impl IntoIterator<Item = &'a [u8]>) -> Result {
    let mut exchange = scene.exchange();
    for piece in pieces {
        exchange.input(piece);
        exchange.settle();
    }
    result(exchange)
}

fn whole(sample: &Sample) -> Result {
    in_pieces(&sample.scene, [sample.bytes.as_slice()])
}

fn with_takes(sample: &Sample, take_bytes_max: usize) -> Result {
    let mut exchange = sample.scene.exchange();
    exchange.take_bytes_max = take_bytes_max;
    exchange.input(&sample.bytes);
    result(exchange)
}

#[test]
fn every_sample_is_answered() {
    for sample in samples() {
        let result = whole(&sample);
        assert!(result.text.starts_with("HTTP/1.1 "), "{}: {result:?}", sample.name);
    }
}

#[test]
fn one_cut_anywhere_changes_nothing() {
    for sample in samples() {
        let expected = whole(&sample);
        let bytes = sample.bytes.as_slice();
        for cut in 1..bytes.len() {
            let (before, after) = bytes.split_at(cut);
            let result = in_pieces(&sample.scene, [before, after]);
            assert_eq!(result, expected, "{} cut at {cut}", sample.name);
        }
    }
}

#[test]
fn pieces_of_any_one_size_change_nothing() {
    for sample in samples() {
        let expected = whole(&sample);
        for size in (1..=16).chain([31, 64, 100, 255, 512]) {
            let result = in_pieces(&sample.scene, sample.bytes.chunks(size));
            assert_eq!(result, expected, "{} in pieces of {size}", sample.name);
        }
    }
}

#[test]
fn takes_of_any_one_size_change_nothing() {
    for sample in samples() {
        let expected = whole(&sample);
        for size in (1..=8).chain([13, 64, 100, 511, 512, 536, 1460, 4095, 4096, 4097]) {
            let result = with_takes(&sample, size);
            assert_eq!(result, expected, "{} in takes of {size}", sample.name);
        }
    }
}

/// A short answer in takes of every size there is.
#[test]
fn takes_of_every_size_change_nothing() {
    for sample in samples() {
        let expected = whole(&sample);
        let bytes = expected.text.len();
        for size in 1..=bytes.min(if bytes < 1000 { bytes } else { 0 }) {
            let result = with_takes(&sample, size);
            assert_eq!(result, expected, "{} in takes of {size}", sample.name);
        }
    }
}

#[test]
fn a_vectored_write_sends_the_same() {
    for sample in samples() {
        for take_bytes_max in [1, 100, 511, 5000, usize::MAX] {
            let mut exchange = sample.scene.exchange();
            exchange.input(&sample.bytes);
            let mut sent = Vec::new();
            loop {
                if let Some(query) = exchange.ask() {
                    let answer = exchange.store.answer(&query);
                    exchange.answer(answer);
                    continue;
                }
                let taken = exchange.peer.take_vectored(exchange.clock.now(), take_bytes_max);
                if taken.is_empty() {
                    break;
                }
                sent.extend(taken);
            }
            assert_eq!(String::from_utf8_lossy(&sent), whole(&sample).text, "{}", sample.name);
        }
    }
}

#[test]
fn two_requests_at_once_are_two_requests_one_after_the_other() {
    let samples = samples();
    for first in &samples {
        for second in &samples {
            let pair = [first.bytes.as_slice(), second.bytes.as_slice()];
            let apart = in_pieces(&first.scene, pair);
            let together = in_pieces(&first.scene, [pair.concat().as_slice()]);
            assert_eq!(together, apart, "{}, then {}", first.name, second.name);
        }
    }
}

#[test]
fn a_second_request_that_is_cut_changes_nothing() {
    let samples = samples();
    let first = samples.iter().find(|s| s.name == "check-in, kept alive").expect("a sample");
    for second in &samples {
        let bytes = [first.bytes.as_slice(), second.bytes.as_slice()].concat();
        let expected = in_pieces(&first.scene, [bytes.as_slice()]);
        for cut in (first.bytes.len() - 3..bytes.len()).step_by(7) {
            let (before, after) = bytes.split_at(cut);
            let result = in_pieces(&first.scene, [before, after]);
            assert_eq!(result, expected, "{} cut at {cut}", second.name);
        }
    }
}

fn config() -> ProptestConfig {
    ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn any_requests_in_any_pieces_with_any_takes(
        picks in prop::collection::vec(any::<prop::sample::Index>(), 1..6),
        pieces in prop::collection::vec(1usize..900, 1..40),
        takes in prop::collection::vec(1usize..3000, 1..20),
    ) {
        let samples = samples();
        let scene = &picks[0].get(&samples).scene;
        let bytes: Vec<u8> =
            picks.iter().flat_map(|pick| pick.get(&samples).bytes.clone()).collect();
        let expected = in_pieces(scene, [bytes.as_slice()]);
        let mut exchange = scene.exchange();
        let mut left = bytes.as_slice();
        for (piece, take) in pieces.iter().cycle().zip(takes.iter().cycle()) {
            if left.is_empty() {
                break;
            }
            let (now, later) = left.split_at(left.len().min(*piece));
            exchange.take_bytes_max = *take;
            exchange.input(now);
            exchange.settle();
            left = later;
        }
        prop_assert_eq!(result(exchange), expected);
    }
}
