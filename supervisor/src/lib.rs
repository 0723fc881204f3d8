//! devnetd: forks chain nodes, watches them, keeps their desired state in SQLite and reconciles the two.
//!
//! Layers, lowest first; a module may use those below it and no sibling (`cargo xtask check` enforces it):
//!
//! | layer | modules |
//! | --- | --- |
//! | L0 | `model`, `sys` |
//! | L1 | `store`, `queue`, `observe`, `reaper`, `keeper`, `cgroup`, `logs`, `config`, `holders`, `clone` |
//! | L2 | `runtime`, `plugin`, `events`, `ports`, `keylease`, `binaries` |
//! | L3 | `controllers` |
//! | L4 | `api` |
//! | L5 | `daemon` |

pub mod model;
pub mod sys;

pub mod cgroup;
pub mod clone;
pub mod config;
pub mod holders;
pub mod keeper;
pub mod logs;
pub mod observe;
pub mod queue;
pub mod reaper;
pub mod store;

pub mod binaries;
pub mod events;
pub mod keylease;
pub mod plugin;
pub mod ports;
pub mod runtime;

pub mod controllers;

pub mod api;

pub mod daemon;
