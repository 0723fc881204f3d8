//! The rooms above the store, each with its concrete type.

use super::{Base, Furniture};
use crate::{
    api::daemon::{Control, HomeBinaries},
    binaries::Binaries,
    model::{Fault, FaultCode},
    plugin::{ChainPlugin, PluginError, PluginState, Plugins},
    ports::Ports,
};
use async_trait::async_trait;
use dvb_proto::endpoint;
use futures::{StreamExt, stream::BoxStream};
use std::sync::Arc;

/// Makes them all. A room that cannot be made is a fault that ends the daemon's start.
pub async fn furnish(base: &Base) -> Result<Furniture, Fault> {
    let ports = Arc::new(Ports::new(base.store.clone(), base.clock.clone(), endpoint::home_hash(base.home.root())));
    let stop = base.stop.clone();
    Ok(Furniture {
        plugins: Arc::new(Absent),
        ports,
        binaries: Arc::new(HomeBinaries { binaries: Binaries::new(&base.home, base.clock.clone()), store: base.store.clone() }),
        control: Arc::new(Absent),
        cgroup_driver: "none".into(),
        cgroup_message: "this build has no runtime".into(),
        controllers: Box::pin(async move { stop.cancelled().await }),
    })
}

/// Rooms that this build does not have: each says so.
struct Absent;

fn absent(what: &str) -> Fault {
    Fault::new(FaultCode::Unimplemented, format!("this build of devnetd has no {what}"))
}

#[async_trait]
impl Plugins for Absent {
    async fn get(&self, name: &str) -> Result<Arc<dyn ChainPlugin>, PluginError> {
        Err(PluginError::Missing { name: name.into(), looked_in: Vec::new(), nearest: None })
    }
    async fn digest(&self, name: &str) -> Result<String, PluginError> {
        Err(PluginError::Missing { name: name.into(), looked_in: Vec::new(), nearest: None })
    }
    async fn list(&self) -> Vec<PluginState> {
        Vec::new()
    }
}

impl Control for Absent {
    fn stop_nodes(&self) -> BoxStream<'static, Result<String, Fault>> {
        futures::stream::iter([Err(absent("runtime, so it has no nodes to stop"))]).boxed()
    }
}
