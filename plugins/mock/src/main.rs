//! devnetd plugin: mock.

fn main() {}
