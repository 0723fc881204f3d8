//! ExportService: in the API, but its controller comes with a later release. Nothing is faked.

use super::status;
use crate::model::{Fault, FaultCode};
use dvb_proto::devnet::v1::{self, export_service_server::ExportService};
use futures::stream::BoxStream;
use tonic::{Request, Response, Status};

pub(super) struct Exports;

type Reply<T> = Result<Response<T>, Status>;
type Stream<T> = BoxStream<'static, Result<T, Status>>;

fn later<T>(what: &str) -> Reply<T> {
    let message = format!("{what} are not built yet: their controller comes with a later release of devnetd (this is {})", env!("CARGO_PKG_VERSION"));
    Err(status::status(&Fault::new(FaultCode::Unimplemented, message)))
}

#[tonic::async_trait]
impl ExportService for Exports {
    type WatchStream = Stream<v1::ExportEvent>;
    async fn create(&self, _: Request<v1::Export>) -> Reply<v1::Export> {
        later("exports")
    }
    async fn get(&self, _: Request<v1::ObjectRef>) -> Reply<v1::Export> {
        later("exports")
    }
    async fn list(&self, _: Request<v1::ListRequest>) -> Reply<v1::ListExportsResponse> {
        later("exports")
    }
    async fn delete(&self, _: Request<v1::DeleteRequest>) -> Reply<v1::Export> {
        later("exports")
    }
    async fn watch(&self, _: Request<v1::WatchRequest>) -> Reply<Self::WatchStream> {
        later("exports")
    }
}
