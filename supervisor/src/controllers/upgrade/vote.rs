//! The chain's governance.
use super::super::{Context, ReconcileError};
use super::{facts::Seen, plan::Vote};
use crate::model::Upgrade;
pub(super) async fn look(_: &Upgrade, _: &Seen, _: &Context) -> Result<Vote, ReconcileError> {
    Ok(Vote::Unknown)
}
pub(super) async fn draft(_: &Upgrade, _: &Seen, _: &Context) -> Result<(), ReconcileError> {
    Ok(())
}
pub(super) async fn propose(_: &Upgrade, _: &Seen, _: &Context) -> Result<(), ReconcileError> {
    Ok(())
}
pub(super) async fn cast(_: &Upgrade, _: &Seen, _: &Context) -> Result<(), ReconcileError> {
    Ok(())
}
