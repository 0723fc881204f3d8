//! How much of the machine a node uses.

use super::super::{Context, node::handle_of};
use crate::{
    model::{Key, Launch},
    runtime::Handle,
};
use std::{sync::Arc, time::Duration};

/// At most one sample in this time.
const READ_EVERY: Duration = Duration::from_secs(1);

/// How much of the machine one launch uses.
#[derive(Clone)]
pub(super) struct Meter {
    pub(super) cx: Context,
    pub(super) node: Key,
    /// Its row has the handle: a copy for each of hundreds of nodes would be in memory for hours.
    pub(super) launch: Key,
}

impl Meter {
    /// Samples when somebody reads nodes, for ever.
    pub(super) async fn run(&self) {
        let mut reads = self.cx.observations.reads();
        loop {
            self.sample().await;
            tokio::time::sleep(READ_EVERY).await; // however often somebody reads
            if reads.changed().await.is_err() {
                return;
            }
        }
    }

    pub(super) async fn sample(&self) {
        let Some(handle) = self.handle().await else { return };
        if let Ok(usage) = self.cx.runtime.usage(&handle).await {
            self.cx.observations.update(&self.node, |seen| seen.usage = Some(usage));
        }
    }

    pub(super) async fn handle(&self) -> Option<Handle> {
        let launch = Arc::<Launch>::try_from(self.cx.store.get(&self.launch).await.ok()??).ok()?;
        handle_of(&launch)
    }
}
