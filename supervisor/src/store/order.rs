//! The order in which objects are listed: people read it, so numbers sort as numbers, validators come first, and transactions stand
//! in the order in which they were wanted.

use crate::model::{Kind, Object};
use std::cmp::Ordering;

/// Kind, namespace, then name; nodes: devnet, role (validator, fullnode, others), index.
pub(super) fn compare(a: &Object, b: &Object) -> Ordering {
    rank(a).cmp(&rank(b))
}

/// Clones in the order of `compare`, each ranked once.
pub(super) fn sorted(objects: Vec<&Object>) -> Vec<Object> {
    let mut ranked: Vec<_> = objects.into_iter().map(|object| (rank(object), object)).collect();
    ranked.sort_by_key(|(rank, _)| *rank);
    ranked.into_iter().map(|(_, object)| object.clone()).collect()
}

type Rank<'a> = (Kind, &'a str, &'a str, u8, u32, &'a str, u64, &'a str);

fn rank(object: &Object) -> Rank<'_> {
    let meta = object.meta();
    let (namespace, name) = (meta.namespace.as_str(), meta.name.as_str());
    if let Object::Transaction(tx) = object {
        return (object.kind(), namespace, &tx.spec.devnet_ref, 0, 0, "", u64::try_from(meta.created_at.as_millis()).unwrap_or(0), name);
    }
    let Object::Node(node) = object else { return (object.kind(), namespace, "", 0, 0, name, 0, name) };
    let (role, index) = match node.spec.role.as_str() {
        "validator" => (0, node.spec.index),
        "fullnode" => (1, node.spec.index),
        _ => (2, 0),
    };
    let (stem, number) = split_number(name);
    (Kind::Node, namespace, &node.spec.devnet_ref, role, index, stem, number, name)
}

/// `driver-10` is `driver-` and 10; a name without a number at its end is itself and 0.
fn split_number(name: &str) -> (&str, u64) {
    let stem = name.trim_end_matches(|c: char| c.is_ascii_digit());
    (stem, name[stem.len()..].parse().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use crate::store::fixtures::node;

    #[test]
    fn validators_come_first_and_sort_by_number() {
        let mut nodes: Vec<crate::model::Object> = [("relayer", "service", 0), ("driver-10", "driver", 10), ("fullnode-0", "fullnode", 0)]
            .into_iter()
            .chain([("validator-10", "validator", 10), ("validator-2", "validator", 2), ("driver-9", "driver", 9)])
            .map(|(short, role, index)| node("default", "net", short, role, index).into())
            .collect();
        nodes.sort_by(super::compare);
        let names: Vec<_> = nodes.iter().map(|node| node.meta().name.as_str()).collect();
        assert_eq!(names, ["net/validator-2", "net/validator-10", "net/fullnode-0", "net/driver-9", "net/driver-10", "net/relayer"]);
    }
}
