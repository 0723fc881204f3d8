//! The machine, where the rest of the daemon may not touch it itself: clock and fresh ids, commands, signal names, boot id.

mod clock;
mod command;
mod signals;

pub use clock::{Clock, ManualClock, SystemClock};
pub use command::{boot_id, command};
pub use signals::{signal_from_name, signal_name};
