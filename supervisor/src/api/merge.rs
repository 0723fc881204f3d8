//! Objects as clients see them: the stored state with what was last observed of it.

use super::convert;
use crate::{
    model::{Devnet, Fault, Node, NodePhase, Object},
    observe::Observations,
};
use dvb_proto::devnet::v1;
use std::collections::BTreeMap;

/// The node with its last height, peers, details and usage. Of a node that does not run only the height is known.
pub(super) fn node(node: &Node, observations: &Observations) -> Node {
    let mut node = node.clone();
    let alive = matches!(node.status.phase, NodePhase::Starting | NodePhase::Running | NodePhase::Stopping);
    if let Some(seen) = observations.get(&crate::model::Key::node(&node.metadata.namespace, &node.metadata.name)) {
        let status = &mut node.status;
        if seen.height > 0 {
            status.block_height = seen.height;
        }
        status.peer_count = if alive { seen.peers } else { 0 };
        status.catching_up = alive && seen.catching_up;
        status.usage = seen.usage.filter(|_| alive);
        status.details = if alive { seen.details } else { BTreeMap::new() };
    }
    node
}

/// The devnet with the highest height that any of its nodes is known to have reached.
pub(super) fn devnet(devnet: &Devnet, observations: &Observations) -> Devnet {
    let mut devnet = devnet.clone();
    let seen = observations.highest(&devnet.metadata.namespace, &devnet.metadata.name);
    devnet.status.current_height = devnet.status.current_height.max(seen);
    devnet
}

pub(super) fn node_message(object: &Node, observations: &Observations) -> Result<v1::Node, Fault> {
    convert::to_message(&node(object, observations))
}

pub(super) fn devnet_message(object: &Devnet, observations: &Observations) -> Result<v1::Devnet, Fault> {
    convert::to_message(&devnet(object, observations))
}

/// The messages of all objects of one kind; others are left out.
pub(super) fn nodes(objects: &[Object], observations: &Observations) -> Result<Vec<v1::Node>, Fault> {
    let nodes = objects.iter().filter_map(|object| if let Object::Node(node) = object { Some(node) } else { None });
    nodes.map(|node| node_message(node, observations)).collect()
}

pub(super) fn devnets(objects: &[Object], observations: &Observations) -> Result<Vec<v1::Devnet>, Fault> {
    let devnets = objects.iter().filter_map(|object| if let Object::Devnet(devnet) = object { Some(devnet) } else { None });
    devnets.map(|devnet| devnet_message(devnet, observations)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Key, Meta, NodeSpec, NodeStatus, Usage};

    #[test]
    fn observations_win_over_what_was_stored_and_usage_ends_with_the_process() {
        let observations = Observations::default();
        let metadata = Meta { name: "mynet/validator-0".into(), namespace: "default".into(), ..Meta::default() };
        let status = NodeStatus { phase: NodePhase::Running, block_height: 7, ..NodeStatus::default() };
        let mut object = Node { metadata, spec: NodeSpec::default(), status };
        assert_eq!(node(&object, &observations).status.block_height, 7);
        observations.update(&Key::node("default", "mynet/validator-0"), |seen| {
            seen.height = 9;
            seen.peers = 3;
            seen.usage = Some(Usage { cpu: 0.5, memory: 1, fds: 2 });
        });
        let seen = node(&object, &observations).status;
        assert_eq!((seen.block_height, seen.peer_count, seen.usage.is_some()), (9, 3, true));
        object.status.phase = NodePhase::Stopped;
        let seen = node(&object, &observations).status;
        assert_eq!((seen.block_height, seen.peer_count, seen.usage.is_some()), (9, 0, false));
        assert_eq!(observations.highest("default", "mynet"), 9);
        assert_eq!(observations.highest("default", "mynet2") + observations.highest("other", "mynet"), 0);
    }
}
