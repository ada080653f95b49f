//! `transmit`: what a driver does while an image leaves, one piece at a time.

use std::hint::black_box;
use std::io::IoSlice;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput};
use otter_protocol::{Config, Connection, Now};

use crate::device::offering;

pub(crate) fn transmit(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("transmit");
    let image = Bytes::from(vec![0xe9; IMAGE_BYTES]);
    let now = Now { instant: Instant::now(), unix: 1_795_478_791 };
    let config = Arc::new(Config::default());
    let responding = || {
        let mut connection = Connection::plain(Arc::clone(&config), now);
        let request = format!("GET /device/firmware?ott={} HTTP/1.0\r\n\r\n", "5".repeat(64));
        connection.handle_input(now, request.as_bytes());
        let (id, query) = connection.poll_query().expect("a question about the token");
        connection.handle_answer(now, id, offering(&image)(query));
        connection
    };
    group.throughput(Throughput::Elements(1));
    let connection: Connection = responding();
    group.bench_function("show", |bencher| {
        bencher.iter(|| black_box(&connection).transmit().map(|next| next.as_slice().len()));
    });
    group.bench_function("show-head-and-image", |bencher| {
        bencher.iter(|| {
            let mut slices = [IoSlice::new(&[]); 2];
            assert_eq!(black_box(&connection).transmit_vectored(&mut slices), 2);
            slices[1].len()
        });
    });
    group.throughput(Throughput::Elements(PIECES as u64));
    group.bench_function("advance-by-1460", |bencher| {
        bencher.iter_batched_ref(
            responding,
            |connection| {
                for _ in 0..PIECES {
                    let shown = connection.transmit().map_or(0, |next| next.as_slice().len());
                    connection.handle_sent(now, shown.min(1460));
                }
            },
            BatchSize::SmallInput,
        );
    });
    group.finish();
}

const IMAGE_BYTES: usize = 1 << 20;
/// Fewer than there are, so that the tail is not reached.
const PIECES: usize = 700;
