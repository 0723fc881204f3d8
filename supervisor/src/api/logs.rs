//! StreamLogs: lines of the nodes' log files, several nodes as one stream.

use super::Context;
use crate::model::{Fault, FaultCode};
use dvb_proto::devnet::v1;
use futures::stream::BoxStream;
use tonic::Status;

pub(super) async fn stream(_: &Context, _: v1::LogRequest) -> Result<BoxStream<'static, Result<v1::LogEntry, Status>>, Fault> {
    Err(Fault::new(FaultCode::Unimplemented, "log streams are not built yet"))
}
