//! A context on fakes, for the controllers' tests.
