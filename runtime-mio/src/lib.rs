//! The protocol core on mio: one thread per core.
