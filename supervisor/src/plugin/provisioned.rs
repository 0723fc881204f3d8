//! What plugins are told of a devnet that is provisioned, from what provisioning stored.

use super::DevnetContext;
use crate::model::{Devnet, Node, PlacedNode, PlanBody, SERVICE, unhex};
use std::sync::Arc;

impl DevnetContext {
    pub fn provisioned(devnet: &Devnet, plan: &PlanBody, nodes: &[Arc<Node>]) -> Self {
        let binary = devnet.status.binary.clone().unwrap_or_default();
        let stored = plan.devnet_spec.clone().filter(|spec| **spec == devnet.spec);
        let node_binaries = nodes
            .iter()
            .filter(|node| node.spec.role != SERVICE && node.spec.binary_path != binary.path)
            .map(|node| (node.node_name().short, node.spec.binary_path.clone()))
            .collect();
        Self {
            binary_path: binary.path,
            binary_sha256: binary.sha256,
            node_binaries,
            initialized: unhex(&plan.initialized),
            ..Self::sharing(devnet, stored.unwrap_or_else(|| Arc::new(devnet.spec.clone())))
        }
    }
}

impl PlacedNode {
    pub fn of(node: &Node) -> Self {
        Self {
            name: node.node_name().short,
            role: node.spec.role.clone(),
            index: node.spec.index,
            address: node.spec.address.clone(),
            ports: node.spec.ports.clone(),
            home_dir: node.spec.home_dir.clone(),
        }
    }
}

/// The chain's nodes that answer now.
pub fn ready(nodes: &[Arc<Node>]) -> Vec<&Arc<Node>> {
    let answers = |node: &&Arc<Node>| node.spec.role != SERVICE && node.metadata.deleted_at.is_none() && node.status.conditions.is_true("Ready");
    nodes.iter().filter(answers).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{DevnetSpec, Meta};

    fn devnet(full_nodes: u32) -> Devnet {
        let spec = DevnetSpec { plugin: "mock".into(), full_nodes, ..DevnetSpec::default() };
        Devnet { metadata: Meta { name: "net".into(), namespace: "default".into(), ..Meta::default() }, spec, status: Default::default() }
    }

    #[test]
    fn contexts_share_the_spec_that_is_stored_unless_the_devnet_has_another() {
        let net = devnet(2);
        let plan = PlanBody { devnet_spec: Some(Arc::new(net.spec.clone())), ..PlanBody::default() };
        let stored = plan.devnet_spec.as_ref().unwrap();
        assert!(Arc::ptr_eq(&DevnetContext::provisioned(&net, &plan, &[]).spec, stored));
        assert_eq!(DevnetContext::provisioned(&devnet(3), &plan, &[]).spec.full_nodes, 3);
    }
}
