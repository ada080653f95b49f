//! Growth.
fn main() {}
