//! What [`inbox`](crate::inbox) shares between threads is made of; `tests/shared` has others.

pub(crate) use std::sync::Mutex;
pub(crate) use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
