//! The client API: a file per gRPC service over one `Context`. It reads and writes the store and never calls a controller.
//!
//! ```text
//! request ─► auth ─► convert ─► admission (pure) ─► store.commit(event + object) ─► convert ─► reply
//!                                                        │
//!                                                        └─► change feed ─► watches, controllers
//! ```

pub mod admission;
pub mod auth;
pub mod binaries;
mod change;
pub mod convert;
pub mod daemon;
mod declared;
mod devnets;
pub mod diff;
mod explain;
mod exports;
mod foresight;
mod freeze;
mod gov;
mod hopeless;
mod impossible;
mod logs;
mod merge;
mod names;
mod node_message;
mod nodes;
mod origin;
pub mod orphans;
mod plugins;
pub mod server;
pub mod status;
mod transactions;
mod upgrades;
mod watch;

#[cfg(test)]
mod service_tests;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod watch_tests;

use crate::{config::Home, observe::Observations, plugin::Plugins, store::Store, sys::Clock};
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// What the services stand on; made once by the daemon's wiring.
#[derive(Clone)]
pub struct Context {
    pub store: Arc<dyn Store>,
    pub observations: Arc<Observations>,
    pub plugins: Arc<dyn Plugins>,
    pub clock: Arc<dyn Clock>,
    pub home: Home,
    pub ports: Arc<dyn PortStates>,
    pub binaries: Arc<dyn binaries::BinaryCache>,
    pub control: Arc<dyn daemon::Control>,
    pub orphans: Arc<dyn orphans::Orphans>,
    pub about: Arc<daemon::About>,
    /// Fires when the daemon ends: streams end with it, and the Shutdown RPC fires it.
    pub shutdown: CancellationToken,
}

pub use nodes::PortStates;

/// The one of `known` that `given` was probably meant to be.
fn nearest<'a>(given: &str, known: impl Iterator<Item = &'a str>) -> Option<String> {
    let given: String = given.chars().take(100).collect();
    known
        .map(|name| (strsim::jaro_winkler(&given, name), name))
        .filter(|(likeness, _)| *likeness > 0.8)
        .fold(None::<(f64, &str)>, |best, next| if best.is_some_and(|best| best.0 >= next.0) { best } else { Some(next) })
        .map(|(_, name)| name.to_owned())
}
