//! devnetd plugin: commonware.

fn main() {}
