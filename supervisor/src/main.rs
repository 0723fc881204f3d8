//! The daemon: flags, tracing, signals; everything else is in the library.

fn main() {}
