//! Goals 9 and 10: images.

use anyhow::{Context, Result};
use otter_benches::Contestant;
use otter_benches::contest::{Cost, Side};
use otter_benches::counts::{self, Work};
use otter_benches::report::{Bar, Line, is_settled};
use otter_benches::rounds::{Goal, turns_until};
use otter_benches::seal::{Sealer, Seals};
use otter_benches::tls::{SecureLoader, Terms};

use crate::scene::{Pair, Scene, columns, lines};

/// What can be counted: copies of a plain image, heap calls of an encrypted one.
pub(crate) fn counts(scene: &Scene) -> Result<Vec<Line>> {
    let certificate = &scene.certificate;
    let plain =
        |side: &Side| SecureLoader::plain(side.server.address(), side.download(0, LARGE)?, 1);
    let secure = |side: &Side| {
        let address = side.server.tls_address()?;
        let job = side.download(0, LARGE)?;
        SecureLoader::new(address, &Terms::tls13(), certificate, job, 1)
    };
    let mut lines = Vec::new();
    if scene.has_strace {
        let count = |contestant| -> Result<f64> {
            Ok(counts::system_calls(contestant, &Work::of(IMAGES, plain))?.file_reads())
        };
        let theirs = if scene.has_nginx { count(Contestant::Nginx)? } else { f64::NAN };
        let what = "reads of a file for an image of 1 MiB";
        let counted = ("nginx", count(scene.otter())?, theirs);
        lines.push(Line::counted(9, what, counted, Bar::Own(FILE_READS)));
    }
    if scene.has_valgrind {
        let count = |contestant| -> Result<f64> {
            Ok(counts::heap_calls(contestant, &Work::of(IMAGES, secure))? / RECORDS)
        };
        let what = "heap calls of a TLS record of an image";
        let ours = count(Contestant::OtterTls(&scene.otter, certificate))?;
        lines.push(Line::counted(10, what, ("nobody", ours, f64::NAN), Bar::Own(HEAP_CALLS)));
    }
    Ok(lines)
}

/// Goal 9.
pub(crate) fn plain(scene: &Scene) -> Result<Vec<Line>> {
    let mut all = Vec::new();
    let stock = Bar::Ratio(Goal { pass: 0.70, stretch: 0.55 });
    let tuned = Bar::Ratio(Goal { pass: 1.00, stretch: 0.85 });
    let open = [Bar::None, Bar::None];
    for (what, size, clients, rounds, bars) in [
        ("CPU s/GiB, images of 1 MiB, 8 connections", LARGE, 8, 16, [stock, tuned]),
        ("CPU s/GiB, images of 64 KiB, 8 connections", 1 << 16, 8, 8, open),
        ("CPU s/GiB, images of 4 MiB, 8 connections", 1 << 22, 8, 8, open),
        ("CPU s/GiB, 64 KiB, 128 clients with small windows", 1 << 16, NARROW, 8, open),
    ] {
        all.extend(downloads(scene, what, [size, clients, rounds], bars)?);
    }
    Ok(all)
}

fn downloads(
    scene: &Scene,
    what: &str,
    [size, clients, rounds]: [usize; 3],
    [stock, tuned]: [Bar; 2],
) -> Result<Vec<Line>> {
    let mut sides = vec![scene.start(scene.otter())?];
    let mut pairs: Vec<Pair> = Vec::new();
    let mut add = |contestant, name, bar| -> Result<()> {
        pairs.push((sides.len(), name, bar));
        sides.push(scene.start(contestant)?);
        Ok(())
    };
    if scene.has_nginx {
        add(Contestant::Nginx, "nginx", stock)?;
        add(Contestant::NginxTuned, "nginx, tuned", tuned)?;
    }
    add(scene.rival(&["rival", "floor", "images"]), "floor", Bar::None)?;
    let entry = |side| {
        let side: &Side = side;
        let job = side.download(0, size)?;
        if clients == NARROW { side.narrow(job, clients) } else { side.plain(job, clients) }
    };
    let mut entries = sides.iter().map(entry).collect::<Result<Vec<_>>>()?;
    let columns = scene.contest(&mut entries, rounds, Cost::seconds_per_gib, &pairs)?;
    Ok(lines(9, what, &columns, Cost::seconds_per_gib, &pairs))
}

/// Goal 10.
pub(crate) fn secure(scene: &Scene) -> Result<Vec<Line>> {
    let mut all = sealing(scene)?;
    if !scene.has_nginx {
        return Ok(all);
    }
    let certificate = &scene.certificate;
    let otter = scene.start(Contestant::OtterTls(&scene.otter, certificate))?;
    let nginx = scene.start(Contestant::NginxTls(certificate))?;
    let mut entries = Vec::new();
    for side in [&otter, &nginx] {
        entries.push(side.secure(&Terms::tls13(), certificate, side.download(0, LARGE)?, 4)?);
    }
    let pairs = [(1, "nginx", Bar::Ratio(Goal { pass: 0.60, stretch: 0.50 }))];
    let columns = scene.contest(&mut entries, 16, Cost::seconds_per_gib, &pairs)?;
    let what = "CPU s/GiB, images of 1 MiB over TLS 1.3, 4 connections";
    all.extend(lines(10, what, &columns, Cost::seconds_per_gib, &pairs));
    Ok(all)
}

fn sealing(scene: &Scene) -> Result<Vec<Line>> {
    let mut seals = Seals::new()?;
    let mut sealers = [Sealer::Memory, Sealer::File, Sealer::Bare];
    // 0.55 of the speed, and 0.75 of it.
    let bar = Bar::Ratio(Goal { pass: 1.0 / 0.55, stretch: 1.0 / 0.75 });
    let rounds = turns_until(
        &mut sealers,
        scene.plan(15),
        |sealer| seals.seconds_per_gib(*sealer),
        |rounds| {
            let columns = columns(rounds);
            is_settled([&columns[0], &columns[2]], bar)
        },
    )?;
    let columns = columns(&rounds);
    let [memory, file, bare] = columns.first_chunk().context("three sealers")?;
    let line = |what, ours: &[f64], bar| Line::measured(10, what, "bare ring", [ours, bare], bar);
    Ok(vec![
        line("CPU s/GiB, sealing records from memory, TLS 1.3", memory, bar),
        line("CPU s/GiB, sealing records from a file, TLS 1.3", file, Bar::None),
    ])
}

const LARGE: usize = 1 << 20;
const NARROW: usize = 128;
const FILE_READS: f64 = 0.0;
/// One of a record, and little else.
const HEAP_CALLS: f64 = 1.05;
/// How many are counted, in the shorter and in the longer run.
const IMAGES: [u32; 2] = [8, 24];
/// In an answer with an image of 1 MiB: the head, and 16 KiB each.
const RECORDS: f64 = 65.0;
