//! What documents may look like, and what is said of those that are wrong.
