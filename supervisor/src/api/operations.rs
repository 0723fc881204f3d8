//! UpgradeService: in the API, but its controller comes with a later release. Nothing is faked.

use super::status;
use crate::model::{Fault, FaultCode};
use dvb_proto::devnet::v1::{self, upgrade_service_server::UpgradeService};
use futures::stream::BoxStream;
use tonic::{Request, Response, Status};

pub(super) struct Upgrades;

type Reply<T> = Result<Response<T>, Status>;
type Stream<T> = BoxStream<'static, Result<T, Status>>;

fn later<T>(what: &str) -> Reply<T> {
    let message = format!("{what} are not built yet: their controller comes with a later release of devnetd (this is {})", env!("CARGO_PKG_VERSION"));
    Err(status::status(&Fault::new(FaultCode::Unimplemented, message)))
}

#[tonic::async_trait]
impl UpgradeService for Upgrades {
    type WatchStream = Stream<v1::UpgradeEvent>;
    async fn create(&self, _: Request<v1::Upgrade>) -> Reply<v1::Upgrade> {
        later("upgrades")
    }
    async fn get(&self, _: Request<v1::ObjectRef>) -> Reply<v1::Upgrade> {
        later("upgrades")
    }
    async fn list(&self, _: Request<v1::ListRequest>) -> Reply<v1::ListUpgradesResponse> {
        later("upgrades")
    }
    async fn delete(&self, _: Request<v1::DeleteRequest>) -> Reply<v1::Upgrade> {
        later("upgrades")
    }
    async fn cancel(&self, _: Request<v1::ObjectRef>) -> Reply<v1::Upgrade> {
        later("upgrades")
    }
    async fn retry(&self, _: Request<v1::ObjectRef>) -> Reply<v1::Upgrade> {
        later("upgrades")
    }
    async fn watch(&self, _: Request<v1::WatchRequest>) -> Reply<Self::WatchStream> {
        later("upgrades")
    }
}
