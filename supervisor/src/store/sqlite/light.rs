//! What a power cut may undo: what is about processes alone, and of a devnet the sum of its nodes' states. A new boot voids both, and the
//! controllers make them anew.

use super::{job::Prepared, mirror::Mirror};
use crate::model::{Condition, Devnet, DevnetPhase, DevnetStatus, Key, Kind, Meta, Object};

/// `mirror` is as of the last commit.
pub(super) fn is_light(write: &Prepared, mirror: &Mirror) -> bool {
    match write {
        Prepared::Event(_) | Prepared::Put { object: Object::Launch(_), .. } => true,
        Prepared::Put { object: Object::Node(after), .. } if after.metadata.deleted_at.is_none() => {
            let before = mirror.get(&Key::node(&after.metadata.namespace, &after.metadata.name));
            matches!(before, Some(Object::Node(before)) if before.spec == after.spec)
        }
        Prepared::Put { object: Object::Devnet(after), .. } => {
            let before = mirror.get(&Key::devnet(&after.metadata.namespace, &after.metadata.name));
            matches!(before, Some(Object::Devnet(before)) if only_sums_up(&before, after))
        }
        Prepared::Put { .. } => false,
        Prepared::Delete { key, .. } => key.kind == Kind::Launch,
    }
}

/// Whether `after` differs from `before` by nothing but how its nodes are doing.
fn only_sums_up(before: &Devnet, after: &Devnet) -> bool {
    let summed = [before, after].iter().all(|devnet| matches!(devnet.status.phase, DevnetPhase::Running | DevnetPhase::Degraded));
    summed && same_meta(&before.metadata, &after.metadata) && same_status(&before.status, &after.status) && before.spec == after.spec
}

/// The store itself stamps the two fields that are left out.
fn same_meta(before: &Meta, after: &Meta) -> bool {
    let Meta { resource_version, updated_at, .. } = *before;
    Meta { resource_version, updated_at, ..after.clone() } == *before
}

fn same_status(before: &DevnetStatus, after: &DevnetStatus) -> bool {
    let DevnetStatus { phase, nodes, ready_nodes, conditions, cause, message, .. } = before.clone();
    let lasting = |status: &DevnetStatus| -> Vec<Condition> { status.conditions.0.iter().filter(|one| one.kind != "Ready").cloned().collect() };
    lasting(before) == lasting(after) && DevnetStatus { phase, nodes, ready_nodes, conditions, cause, message, ..after.clone() } == *before
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::{ConditionStatus, EventId, Timestamp},
        store::fixtures::devnet,
    };

    fn running() -> Devnet {
        let mut running = devnet("default", "net");
        running.status.phase = DevnetPhase::Running;
        running
    }

    #[test]
    fn how_the_nodes_are_doing_is_light_and_all_else_is_not() {
        let check = |light: bool, change: &dyn Fn(&mut Devnet)| {
            let (before, mut after) = (running(), running());
            change(&mut after);
            assert_eq!(only_sums_up(&before, &after), light, "{after:?}");
        };
        let condition = |kind| Condition::new(kind, ConditionStatus::False, "Why", "");
        check(true, &|after| {
            after.status.phase = DevnetPhase::Degraded;
            (after.status.nodes, after.status.ready_nodes) = (2, 1);
            (after.status.message, after.status.cause) = (Some("1 of 2".into()), Some(EventId("e1".into())));
            after.status.conditions.set(condition("Ready"), Timestamp::default());
            after.metadata.updated_at = Timestamp::from_millis(1);
        });
        check(false, &|after| after.status.phase = DevnetPhase::Stopped);
        check(false, &|after| after.status.held = Some("upgrade".into()));
        check(false, &|after| after.status.observed_generation = 1);
        check(false, &|after| after.status.conditions.0.push(condition("Provisioned")));
        check(false, &|after| after.spec.frozen = Some(true));
        check(false, &|after| after.metadata.deleted_at = Some(Timestamp::from_millis(1)));
        check(false, &|after| drop(after.metadata.annotations.insert("a".into(), "b".into())));
    }
}
