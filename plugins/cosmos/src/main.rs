//! devnetd plugin: cosmos.

fn main() {}
