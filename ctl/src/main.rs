//! Command line client of devnetd.

fn main() {}
