//! What belongs to this home and is not accounted for, as the daemon's service tells it.

use crate::model::Fault;
use async_trait::async_trait;
use dvb_proto::devnet::v1;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Orphan {
    /// Names it for `reap`: `launch/<id>`, `keeper/<pid>`, `folder/<path>`.
    pub id: String,
    /// launch, keeper or folder.
    pub kind: String,
    pub name: String,
    /// What there is of it.
    pub what: String,
    /// Why nobody accounts for it.
    pub why: String,
    /// Reaping it loses files.
    pub holds_data: bool,
}

#[derive(Clone, Debug)]
pub struct Reaped {
    pub id: String,
    /// None: it is gone.
    pub failure: Option<Fault>,
}

#[async_trait]
pub trait Orphans: Send + Sync + 'static {
    async fn list(&self) -> Result<Vec<Orphan>, Fault>;
    /// Ends or removes those of `ids` that are orphans still.
    async fn reap(&self, ids: Vec<String>) -> Result<Vec<Reaped>, Fault>;
}

pub(super) fn listed(orphans: Vec<Orphan>) -> v1::ListOrphansResponse {
    let message = |orphan: Orphan| v1::Orphan {
        id: orphan.id,
        kind: orphan.kind,
        name: orphan.name,
        what: orphan.what,
        why: orphan.why,
        holds_data: orphan.holds_data,
    };
    v1::ListOrphansResponse { items: orphans.into_iter().map(message).collect() }
}

pub(super) fn reaped(results: Vec<Reaped>) -> v1::ReapOrphansResponse {
    let message = |result: Reaped| v1::ReapedOrphan { id: result.id, failure: result.failure.map(|fault| fault.to_string()) };
    v1::ReapOrphansResponse { items: results.into_iter().map(message).collect() }
}
