//! The gRPC plugin (to be filled in).
