//! What is private here, for fuzz targets (`fuzz/`, docs/fuzzing.md) and the tests that replay
//! their corpora (`tests/tests/corpus.rs`). Only with the feature `fuzzing`; not part of the API.

pub use crate::redis::fuzzing::{redis_answers, redis_seeds};
