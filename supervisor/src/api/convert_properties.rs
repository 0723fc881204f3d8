//! Objects with odd texts and numbers, and parts that are missing, have one JSON shape too.

use super::{
    from_message,
    tests::{devnet, last_exit, meta, node, usage},
    to_message,
};
use crate::model::{Devnet, DevnetStatus, GenesisSpec, LastExit, Meta, Node, NodeSpec, NodeStatus, Operations, RestartSpec, Span, Timestamp, Usage};
use proptest::prelude::*;

prop_compose! {
    fn any_meta()(name in ".{0,50}", labels in prop::collection::btree_map(".{0,9}", ".{0,9}", 0..4), numbers in any::<[u64; 2]>(),
        created in 0_i64..4_102_444_800_000, deleted in prop::option::of(0_i64..4_102_444_800_000)) -> Meta {
        Meta {
            name, annotations: labels.clone(), labels, generation: numbers[0], resource_version: numbers[1],
            created_at: Timestamp::from_millis(created), deleted_at: deleted.map(Timestamp::from_millis), ..meta()
        }
    }
}

prop_compose! {
    /// Each optional part there or not, with odd texts and numbers.
    fn any_devnet()(metadata in any_meta(), keep in any::<[bool; 12]>(), text in prop::option::of(".{0,30}"), count in prop::option::of(any::<u32>()),
        height in any::<u64>(), millis in any::<u32>(), env in prop::collection::btree_map(".{0,9}", ".{0,9}", 0..4)) -> Devnet {
        let mut devnet = devnet();
        devnet.metadata = metadata;
        let spec = &mut devnet.spec;
        spec.chain_id = text.clone();
        spec.seed = text.clone();
        spec.validators = count;
        spec.full_nodes = count.unwrap_or_default();
        spec.block_time = Some(Span::millis(millis.into()));
        spec.nodes[0].env = env;
        if keep[0] { spec.binary = None; }
        if keep[1] { spec.genesis = GenesisSpec::default(); }
        if keep[2] { spec.restart = RestartSpec::default(); }
        if keep[3] { spec.resources = None; }
        if keep[4] { spec.desired = None; }
        if keep[5] { spec.nodes.clear(); }
        if keep[6] { spec.services = std::sync::Arc::default(); }
        if keep[7] { spec.operations = Operations::default(); }
        if keep[8] { spec.localhost = None; }
        if keep[9] { devnet.status = DevnetStatus::default(); }
        devnet.status.current_height = keep[0].then_some(height);
        devnet.status.message = text;
        devnet
    }
}

proptest! {
    #[test]
    fn any_devnet_goes_there_and_back(object in any_devnet()) {
        let read: Devnet = from_message(&to_message(&object).unwrap()).unwrap();
        prop_assert_eq!(read, object);
    }

    #[test]
    fn any_node_goes_there_and_back(metadata in any_meta(), cpu in 0.0_f64..64.0, keep in any::<[bool; 4]>(), code in any::<i32>(), height in any::<u64>()) {
        let mut object = Node { metadata, ..node() };
        object.status.block_height = keep[1].then_some(height);
        object.status.usage = keep[0].then_some(Usage { cpu, memory: height, ..usage() });
        object.status.last_exit = keep[1].then_some(LastExit { code: Some(code), ..last_exit() });
        if keep[2] { object.status = NodeStatus::default(); }
        if keep[3] { object.spec = NodeSpec::default(); }
        let message = to_message(&object).unwrap();
        prop_assert_eq!(&super::super::node_message::message(object.clone()).unwrap(), &message);
        let read: Node = from_message(&message).unwrap();
        prop_assert_eq!(read, object);
    }
}
