//! devnetd plugin: exec.

fn main() {}
