//! How many launches of a node are kept: the newest, with their logs.

use super::super::{Context, ReconcileError};
use crate::{
    logs,
    model::{Kind, Launch, LaunchPhase, Node, Object},
    store::{Expect, Selector, Write},
};
use std::{path::Path, sync::Arc};

/// With the one that runs.
const KEEP: usize = 20;

/// What goes when one more launch of `node` has been recorded; `node` is as it was before.
pub(super) async fn outdated(node: &Node, cx: &Context) -> Result<Vec<Arc<Launch>>, ReconcileError> {
    if node.status.launch_id.is_none() {
        return Ok(Vec::new()); // its first launch, or the first since a reset: the next one looks
    }
    let (namespace, name) = (node.metadata.namespace.clone(), node.metadata.name.clone());
    let (objects, _) = cx.store.list(&Selector { namespace: Some(namespace), node: Some(name), ..Selector::kind(Kind::Launch) }).await?;
    let mut launches: Vec<_> = objects.into_iter().filter_map(|object| Arc::<Launch>::try_from(object).ok()).collect();
    launches.sort_by_key(|launch| std::cmp::Reverse((launch.metadata.created_at, launch.spec.launch_id.clone())));
    // The last one stays whatever the clock said when it was made: it is what somebody wants to read about.
    let may_go = |launch: &Arc<Launch>| launch.status.phase == LaunchPhase::Ended && node.status.launch_id.as_ref() != Some(&launch.spec.launch_id);
    Ok(launches.into_iter().skip(KEEP).filter(may_go).collect())
}

pub(super) fn removal(launch: &Arc<Launch>) -> Write {
    Write::Delete { key: Object::Launch(launch.clone()).key(), expect: Expect::Any }
}

/// After the commit: a log without a row is litter, a row without its log is a lie.
pub(super) fn remove_logs(launches: &[Arc<Launch>]) {
    for launch in launches {
        if let Err(error) = logs::remove(Path::new(&launch.spec.log_path)) {
            tracing::warn!(log = launch.spec.log_path, %error, "an old log stays until its node is removed");
        }
    }
}
