//! The simulated world in which Otter is tried.
