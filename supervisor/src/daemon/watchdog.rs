//! The service manager's watchdog: signs of life from the async runtime for as long as we serve, where it asks for them.

use super::tell_service_manager;
use std::{convert::Infallible, time::Duration};
use tokio::time::{MissedTickBehavior, interval};

/// Never ends. Without a watchdog it never wakes either.
pub(super) async fn pat(limit: Option<Duration>) -> Infallible {
    let Some(limit) = limit else { return std::future::pending().await };
    // Half of it, as systemd recommends: one that comes late does no harm.
    let mut ticks = interval(limit / 2);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        tell_service_manager(&[sd_notify::NotifyState::Watchdog]);
    }
}
