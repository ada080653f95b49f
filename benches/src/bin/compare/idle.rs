//! Goals 7 and 8: connections that are silent.

use anyhow::Result;
use otter_benches::Contestant;
use otter_benches::report::{Bar, Line};
use otter_benches::rounds::Goal;
use otter_benches::tls::Terms;

use crate::scene::Scene;

/// Goal 7.
pub(crate) fn plain(scene: &Scene) -> Result<Vec<Line>> {
    let bytes = |contestant| scene.start(contestant)?.idle_bytes(None, scene.idle);
    let what = format!("bytes of a silent connection, of {}", scene.idle);
    let ours = bytes(scene.otter())?;
    let theirs = if scene.has_nginx { bytes(Contestant::Nginx)? } else { f64::NAN };
    let line = |theirs, bar| Line::counted(7, &what, ("nginx", ours, theirs), bar);
    let mut lines = vec![line(f64::NAN, Bar::Own(105.0))];
    if scene.has_nginx {
        lines.push(line(theirs, Bar::Ratio(Goal { pass: 0.20, stretch: 0.12 })));
    }
    Ok(lines)
}

/// Goal 8.
pub(crate) fn secure(scene: &Scene) -> Result<Vec<Line>> {
    if !scene.has_nginx {
        return Ok(Vec::new());
    }
    let certificate = &scene.certificate;
    let mut lines = Vec::new();
    for (version, terms) in [("1.3", Terms::tls13()), ("1.2", Terms::tls12())] {
        // Servers that have not served yet: what others left would be used first.
        let bytes = |contestant| {
            scene.start(contestant)?.idle_bytes(Some((&terms, certificate)), scene.idle)
        };
        let ours = bytes(Contestant::OtterTls(&scene.otter, certificate))?;
        let theirs = bytes(Contestant::NginxTls(certificate))?;
        lines.push(Line::counted(
            8,
            &format!("bytes of a silent connection, TLS {version}"),
            ("nginx", ours, theirs),
            Bar::Ratio(Goal { pass: 0.35, stretch: 0.25 }),
        ));
    }
    Ok(lines)
}
