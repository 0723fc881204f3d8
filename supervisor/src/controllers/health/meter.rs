//! How much of the machine nodes use.

use super::{
    super::{Context, node::handle_of},
    Sessions, launch_name,
};
use crate::{
    model::{Key, Kind, Launch},
    runtime::Handle,
};
use std::{
    sync::{Arc, Weak},
    time::Duration,
};

/// At most one sample of each node in this time.
const READ_EVERY: Duration = Duration::from_secs(1);

/// How much of the machine one launch uses.
pub(super) struct Meter {
    pub(super) cx: Context,
    pub(super) node: Key,
    /// Its row has the handle.
    pub(super) launch: Key,
}

/// Samples all nodes with a session when somebody reads nodes, until the sessions are gone. One task for all of them: one for each
/// would hold a kilobyte for hours.
pub(super) async fn sample_when_read(sessions: Weak<Sessions>, cx: Context) {
    let mut reads = cx.observations.reads();
    while reads.changed().await.is_ok() {
        let Some(launches) = sessions.upgrade().map(|sessions| sessions.launches()) else { return };
        for (node, launch) in launches {
            let launch = Key::new(Kind::Launch, &node.namespace, &launch_name(&node.name, &launch));
            Meter { cx: cx.clone(), node, launch }.sample().await;
        }
        tokio::time::sleep(READ_EVERY).await; // however often somebody reads
    }
}

impl Meter {
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
