//! The memory store, and what it answers.

use std::env;
use std::path::Path;

use otter_store::{Memory, MemoryOptions};

use crate::Random;
use crate::pair::{Pair, clock, start};

/// Law 12: whatever is asked, the memory store answers as the model store does.
///
/// # Panics
/// If it does not.
pub fn store(bytes: &[u8]) {
    // Images are synced, which takes no time where there is no disk.
    let memory = Path::new("/dev/shm");
    let place = if memory.is_dir() { memory.to_owned() } else { env::temp_dir() };
    let directory = tempfile::tempdir_in(place).expect("a directory");
    let now_ms = start();
    let mut options = MemoryOptions::default();
    options.clock = clock(&now_ms);
    let memory = Memory::open(directory.path(), options).expect("a store");
    Pair::new(&memory, &now_ms, Random::given(bytes)).run_all();
}
