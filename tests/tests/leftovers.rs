//! What one request or one connection leaves to the next: nothing, and in the order in which it
//! came. Found to be missing by planted bugs (docs/planted.md, 18 and 19).

use std::sync::Arc;

use otter_tests::scene::{KEY, registration};
use otter_tests::{Clock, Request, Scene, Watched, samples};

/// All connections of a server lend each other memory; half a request, with half of its answer
/// unsent, must not show in it.
#[test]
fn a_connection_that_ended_anywhere_leaves_nothing_to_the_next() {
    let clock = Clock::start();
    let samples = samples();
    let health = Request::get("/").bytes();
    let expected = {
        let mut fresh = Watched::new(Arc::default(), clock.now());
        fresh.input(clock.now(), &health);
        fresh.take(clock.now(), usize::MAX)
    };
    for sample in &samples {
        let config = Arc::new(sample.scene.config.clone());
        for cut in [1, 30, sample.bytes.len() / 2, sample.bytes.len() - 1, sample.bytes.len()] {
            for taken in [0, 10] {
                let mut before = Watched::new(Arc::clone(&config), clock.now());
                before.input(clock.now(), &sample.bytes[..cut.min(sample.bytes.len())]);
                before.take(clock.now(), taken);
                before.reset(clock.now());
                drop(before);
                let mut next = Watched::new(Arc::clone(&config), clock.now());
                next.input(clock.now(), &health);
                let answer = next.take(clock.now(), usize::MAX);
                let name = &sample.name;
                assert_eq!(answer, expected, "after {cut} bytes of {name}, {taken} taken");
            }
        }
    }
}

/// A driver that reads although nothing is wanted hands in what it has; it is kept in order.
#[test]
fn what_comes_while_an_answer_is_due_waits_in_order() {
    let check_in = Request::check_in(KEY, &registration().wrapped("registration"));
    let kept_alive = check_in.without("Connection").bytes();
    let mut exchange = Scene::new().exchange();
    exchange.input(&kept_alive);
    exchange.ask().expect("Identify");
    for (index, piece) in Request::get("/nowhere").bytes().chunks(7).enumerate() {
        assert!(index < 20);
        exchange.input(piece);
    }
    exchange.input(&Request::get("/").bytes());
    exchange.answer_truly();
    exchange.settle();
    let replies = exchange.heard().replies();
    let statuses: Vec<u16> = replies.iter().map(|reply| reply.status).collect();
    assert_eq!(statuses, [200, 404, 200], "{replies:?}");
}
