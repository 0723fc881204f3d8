//! PluginService: which plugins were found and how they do.

use super::{Context, devnets::reply, nearest};
use crate::{
    model::{Fault, FaultCode},
    plugin::PluginState,
};
use dvb_proto::devnet::v1::{self, plugin_service_server::PluginService};
use tonic::{Request, Response, Status};

pub(super) struct PluginList(pub(super) Context);

type Reply<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl PluginService for PluginList {
    async fn list(&self, _: Request<v1::Empty>) -> Reply<v1::ListPluginsResponse> {
        let items = self.0.plugins.introduce().await.into_iter().map(message).collect();
        Ok(Response::new(v1::ListPluginsResponse { items }))
    }

    async fn get(&self, request: Request<v1::PluginRef>) -> Reply<v1::PluginInfo> {
        let name = request.into_inner().name;
        let all = self.0.plugins.introduce().await;
        let hint = nearest(&name, all.iter().map(|plugin| plugin.name.as_str()));
        let found = all.into_iter().find(|plugin| plugin.name == name);
        reply(found.map(message).ok_or_else(|| {
            let fault = Fault::new(FaultCode::NotFound, format!("there is no plugin `{name}`")).about(name);
            fault.remedy(hint.map_or_else(|| "dvbctl plugins".into(), |hint| format!("did you mean `{hint}`? dvbctl plugins")))
        }))
    }
}

fn message(plugin: PluginState) -> v1::PluginInfo {
    let info = plugin.info.unwrap_or_default();
    v1::PluginInfo {
        name: plugin.name,
        path: plugin.path.to_string_lossy().into_owned(),
        version: info.version,
        sha256: plugin.sha256,
        api_version: info.api_version,
        state: plugin.state,
        message: plugin.message,
        capabilities: info.capabilities,
        networks: info.networks,
        description: info.description,
    }
}
