//! Processes that stand still without being told: the kernel's freezer of cgroup version 2.

use super::{Leaf, leaf::field};
use std::{fs, io, time::Duration};
use tokio::time::timeout;

/// How long the kernel may take: a process in the middle of a disk access freezes when that is over.
const PATIENCE: Duration = Duration::from_secs(5);

impl Leaf {
    /// Whether this kernel can freeze it.
    pub fn can_freeze(&self) -> bool {
        self.freeze_file
    }

    /// Returns when every process in it and below stands still. SIGKILL still ends them; another signal waits for the thaw.
    pub async fn freeze(&self) -> io::Result<()> {
        self.set_frozen("1")?;
        timeout(PATIENCE, self.until(says_frozen)).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }

    /// Harmless when it is not frozen, or gone.
    pub fn thaw(&self) -> io::Result<()> {
        match self.set_frozen("0") {
            Err(error) if !super::leaf::is_gone(&error) => Err(error),
            _ => Ok(()),
        }
    }

    /// False when it is gone.
    pub fn is_frozen(&self) -> bool {
        fs::read_to_string(self.path.join("cgroup.events")).is_ok_and(|events| says_frozen(&events))
    }

    fn set_frozen(&self, value: &str) -> io::Result<()> {
        fs::write(self.path.join("cgroup.freeze"), value)
    }
}

fn says_frozen(events: &str) -> bool {
    field(events, "frozen") == Some(1)
}
