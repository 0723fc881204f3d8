//! Writes what becomes of an export.

use super::super::{Context, Edit, ReconcileError, Story};
use super::files::Files;
use crate::{
    model::{Condition, ConditionStatus, Export, ExportPhase, Fault, Key},
    store::{Expect, StoreError, Write},
};
use std::sync::Arc;

pub(super) async fn read(key: &Key, cx: &Context) -> Result<Option<Arc<Export>>, StoreError> {
    Ok(cx.store.get(key).await?.and_then(|object| object.try_into().ok()))
}

/// Applies `edit` to the stored export; again when somebody else was faster.
pub(super) async fn edit(key: &Key, cx: &Context, edit: impl Fn(&mut Export) -> Edit + Send + Sync) -> Result<(), StoreError> {
    while let Some(current) = read(key, cx).await? {
        let mut export = Export::clone(&current);
        let mut writes = Vec::new();
        match edit(&mut export) {
            Edit::Skip => return Ok(()),
            Edit::Quiet => {}
            Edit::Tell(story) => export.status.cause = Some(cx.tell_into(&mut writes, key, export.status.cause.clone(), story)),
        }
        writes.push(Write::update(export));
        match cx.store.commit(writes).await {
            Err(StoreError::Conflict { key: other, .. } | StoreError::Missing(other)) if other == *key => {}
            result => return result.map(drop),
        }
    }
    Ok(())
}

/// What it is doing, for watchers.
pub(super) async fn say(key: &Key, text: &str, cx: &Context) -> Result<(), StoreError> {
    edit(key, cx, |export| {
        if export.status.message.as_deref() == Some(text) {
            return Edit::Skip;
        }
        export.status.message = Some(text.to_owned());
        Edit::Quiet
    })
    .await
}

pub(super) async fn fail(key: &Key, fault: &Fault, cx: &Context) -> Result<(), StoreError> {
    let (now, reason) = (cx.clock.now(), format!("{:?}", fault.code));
    edit(key, cx, |export| {
        let condition = Condition::new("Completed", ConditionStatus::False, &reason, fault.message.clone());
        export.status.conditions.set(Condition { remedy: fault.remedy.clone(), ..condition }, now);
        export.status.phase = ExportPhase::Failed;
        export.status.message = Some(fault.message.clone());
        export.status.bytes = 0;
        Edit::Tell(Story::new("export", "ExportFailed", fault.message.clone()).warn().desired("Completed").action("export").result("failed"))
    })
    .await
}

/// The file is there, whole.
pub(super) async fn complete(key: &Key, files: &Files, (bytes, sha256): (u64, String), height: u64, cx: &Context) -> Result<(), StoreError> {
    let (now, path) = (cx.clock.now(), files.state().display().to_string());
    edit(key, cx, |export| {
        let text = format!("the state at height {height} is in {path}");
        export.status.conditions.set(Condition::new("Completed", ConditionStatus::True, "Exported", text.clone()), now);
        export.status.phase = ExportPhase::Completed;
        export.status.path = Some(path.clone());
        export.status.sha256 = Some(sha256.clone());
        export.status.bytes = bytes;
        export.status.height = Some(height);
        export.status.message = Some(text);
        Edit::Tell(Story::new("export", "Exported", format!("the state at height {height}, {bytes} bytes, sha256 {sha256}")).action("export"))
    })
    .await
}

/// Its files, then the object.
pub(super) async fn remove(export: &Export, cx: &Context) -> Result<(), ReconcileError> {
    let (files, key) = (Files::of(export, &cx.home), Key::export(&export.metadata.namespace, &export.metadata.name));
    if let Some(node) = &export.status.node
        && export.status.phase == ExportPhase::Cloning
    {
        super::session::go_on(&key.namespace, &export.spec.devnet_ref, node, cx).await?;
    }
    let root = files.root.clone();
    tokio::task::spawn_blocking(move || crate::clone::remove(&root)).await.map_err(|error| ReconcileError::Unfit(error.to_string()))??;
    let mut writes = vec![Write::Delete { key: key.clone(), expect: Expect::Any }];
    cx.tell_into(&mut writes, &key, export.status.cause.clone(), Story::new("export", "Gone", "was removed with its file").action("delete"));
    cx.store.commit(writes).await?;
    Ok(())
}
