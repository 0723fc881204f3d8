//! Checks and chores of this repository: `cargo xtask help`.

fn main() {}
