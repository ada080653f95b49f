//! What [`bell`](crate::bell) is made of; `tests/shared` has others.

pub(crate) use std::sync::atomic::{AtomicBool, Ordering};
