//! devnetd plugin `exec`: devnets of plain commands. There is no chain; the daemon itself runs what `spec.services` names.

use async_trait::async_trait;
use dvb_plugin_sdk::{HeightStream, Plugin, PluginFault, Result, pb};
use std::process::ExitCode;

struct Exec;

#[async_trait]
impl Plugin for Exec {
    async fn get_info(&self, _request: pb::GetInfoRequest) -> Result<pb::PluginInfo> {
        Ok(pb::PluginInfo {
            name: "exec".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            description: "plain commands as spec.services, without a chain".into(),
            default_validators: Some(0),
            ..pb::PluginInfo::default()
        })
    }

    async fn validate_spec(&self, request: pb::ValidateSpecRequest) -> Result<pb::ValidateSpecResponse> {
        Ok(pb::ValidateSpecResponse { violations: violations(&request.devnet.unwrap_or_default()) })
    }

    async fn plan_nodes(&self, request: pb::PlanNodesRequest) -> Result<pb::PlanNodesResponse> {
        if let Some(first) = violations(&request.devnet.unwrap_or_default()).into_iter().next() {
            return Err(PluginFault::InvalidArgument(format!("{}: {}", first.field, first.message)));
        }
        Ok(pb::PlanNodesResponse::default())
    }

    async fn generate_genesis(&self, _request: pb::GenerateGenesisRequest) -> Result<pb::GenerateGenesisResponse> {
        Ok(pb::GenerateGenesisResponse::default())
    }

    async fn start_node(&self, request: pb::StartNodeRequest) -> Result<pb::LaunchPlan> {
        Err(no_nodes(&request.node))
    }

    async fn get_node_status(&self, request: pb::NodeRef) -> Result<pb::NodeStatus> {
        Err(no_nodes(&request.node.unwrap_or_default().name))
    }

    async fn get_block_height(&self, request: pb::NodeRef) -> Result<pb::BlockHeight> {
        Err(no_nodes(&request.node.unwrap_or_default().name))
    }

    async fn stream_block_heights(&self, request: pb::NodeRef) -> Result<HeightStream> {
        Err(no_nodes(&request.node.unwrap_or_default().name))
    }
}

fn no_nodes(name: &str) -> PluginFault {
    PluginFault::Unimplemented(format!("plugin exec has no chain nodes, so none named `{name}`; services are run by devnetd itself"))
}

/// What only a chain can have. An absent genesis time or seed is filled in by the host and thus no fault.
fn violations(devnet: &pb::DevnetContext) -> Vec<pb::Violation> {
    let counts = [("spec.validators", devnet.validators), ("spec.fullNodes", devnet.full_nodes)];
    let mut found: Vec<_> = counts
        .into_iter()
        .filter(|(_, count)| *count > 0)
        .map(|(field, count)| {
            violation(field, &format!("must be 0 for plugin exec, which has no chain nodes, and is {count}"), "put commands under spec.services")
        })
        .collect();
    if !devnet.genesis_patch.is_empty() {
        found.push(violation("spec.genesis.patch", "plugin exec has no genesis that could be patched", "remove the patch"));
    }
    if !devnet.network.is_empty() {
        found.push(violation("spec.network", "plugin exec has no named networks", "remove the field"));
    }
    found
}

fn violation(field: &str, message: &str, suggestion: &str) -> pb::Violation {
    pb::Violation { field: field.into(), message: message.into(), suggestion: suggestion.into() }
}

fn main() -> ExitCode {
    dvb_plugin_sdk::run(Exec)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_s_fields_are_refused_by_name() {
        let devnet = pb::DevnetContext { validators: 4, network: "wasmd".into(), genesis_patch: "{}".into(), ..Default::default() };
        let fields: Vec<_> = violations(&devnet).into_iter().map(|found| found.field).collect();
        assert_eq!(fields, ["spec.validators", "spec.genesis.patch", "spec.network"]);
        assert_eq!(violations(&pb::DevnetContext::default()), []);
    }
}
