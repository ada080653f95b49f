//! Goal 11: a check-in over TLS, from connect to close.

use anyhow::Result;
use otter_benches::Contestant;
use otter_benches::contest::Cost;
use otter_benches::report::{Bar, Line};
use otter_benches::rounds::Goal;
use otter_benches::tls::{Resume, Terms, Then};

use crate::scene::{Scene, lines, values};

/// Full beside nginx; resumed beside Otter's own full one.
pub(crate) fn check_ins(scene: &Scene) -> Result<Vec<Line>> {
    let certificate = &scene.certificate;
    let otter = scene.start(Contestant::OtterTls(&scene.otter, certificate))?;
    let nginx = scene.has_nginx.then(|| scene.start(Contestant::NginxTls(certificate)));
    let nginx = nginx.transpose()?;
    let job = otter.check_in(Then::Reconnect);
    let (new, old) = (Terms::tls13(), Terms::tls12());
    let mut entries = Vec::new();
    for terms in [new, old, old.resumed(Resume::SessionId)] {
        entries.push(otter.secure(&terms, certificate, job.clone(), CLIENTS)?);
    }
    entries.push(otter.plain(job, CLIENTS)?);
    let mut pairs = Vec::new();
    if let Some(nginx) = &nginx {
        let bar = Bar::Ratio(Goal { pass: 0.50, stretch: 0.40 });
        pairs.push((entries.len(), "nginx", bar));
        let job = nginx.check_in(Then::Reconnect);
        entries.push(nginx.secure(&new, certificate, job, CLIENTS)?);
    }
    let columns = scene.contest(&mut entries, ROUNDS, Cost::us_per_answer, &pairs)?;
    let what = "CPU us of a check-in over TLS 1.3, connection included";
    let mut all = lines(11, what, &columns, Cost::us_per_answer, &pairs);
    let of = |place: usize| values(&columns[place], Cost::us_per_answer);
    let [full, resumed, plain] = [of(1), of(2), of(3)];
    let bar = Bar::Ratio(Goal { pass: 0.30, stretch: 0.20 });
    all.push(Line::measured(
        11,
        "CPU us over TLS 1.2 resumed by id, beside full",
        "itself",
        [&resumed, &full],
        bar,
    ));
    // The kernel's work for a connection is the same in both.
    let added =
        |whole: &[f64]| -> Vec<_> { whole.iter().zip(&plain).map(|(a, b)| a - b).collect() };
    all.push(Line::measured(
        11,
        "what TLS 1.2 adds to plain HTTP: resumed beside full",
        "itself",
        [&added(&resumed), &added(&full)],
        bar,
    ));
    Ok(all)
}

const CLIENTS: usize = 8;
const ROUNDS: usize = 16;
