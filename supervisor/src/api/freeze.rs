//! What freeze and thaw make of a devnet or a node. Pure.

use super::change::Draft;
use crate::model::{Desired, Devnet, Fault, FaultCode, Node};

/// None: it is so already.
pub(super) fn devnet(devnet: &Devnet, on: bool) -> Result<Option<(Devnet, Draft)>, Fault> {
    let name = &devnet.metadata.name;
    if devnet.spec.frozen() == on {
        return Ok(None);
    }
    if on && devnet.spec.desired() == Desired::Stopped {
        return Err(nothing_runs(name));
    }
    let mut changed = devnet.clone();
    changed.spec.frozen = Some(on);
    changed.metadata.generation += 1;
    Ok(Some((changed, draft("devnet ", name, on))))
}

/// None: it is so already.
pub(super) fn node(node: &Node, on: bool) -> Result<Option<(Node, Draft)>, Fault> {
    let name = &node.metadata.name;
    if !on && node.spec.frozen_with_devnet {
        return Err(thaw_the_devnet(node, "its whole devnet is frozen, so it cannot go on alone"));
    }
    if node.spec.frozen == on {
        return Ok(None);
    }
    if on && !node.is_wanted() {
        return Err(nothing_runs(name));
    }
    let mut changed = node.clone();
    changed.spec.frozen = on;
    changed.metadata.generation += 1;
    Ok(Some((changed, draft("", name, on))))
}

/// The refusal of what a node of a frozen devnet cannot do.
pub(super) fn thaw_the_devnet(node: &Node, why: &str) -> Fault {
    let fault = Fault::new(FaultCode::Conflict, format!("{}: {why}", node.metadata.name));
    fault.about(&node.metadata.name).remedy(format!("dvbctl thaw {}", node.spec.devnet_ref))
}

fn nothing_runs(name: &str) -> Fault {
    Fault::new(FaultCode::Conflict, format!("{name} is stopped, so there is nothing to freeze")).about(name).remedy(format!("dvbctl start {name}"))
}

fn draft(kind: &str, name: &str, on: bool) -> Draft {
    let (reason, action, before, after) =
        if on { ("FreezeRequested", "freeze", "running", "frozen") } else { ("ThawRequested", "thaw", "frozen", "running") };
    let message = format!("{action} of {kind}{name} requested");
    Draft { reason, message, observed: Some(before.into()), desired: Some(after.into()), action: Some(action.into()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::fixtures;

    #[test]
    fn freeze_and_thaw_change_one_field_once() {
        let net = fixtures::devnet("default", "net");
        let (frozen, draft) = devnet(&net, true).unwrap().unwrap();
        assert_eq!((frozen.spec.frozen, frozen.metadata.generation), (Some(true), net.metadata.generation + 1));
        assert_eq!(draft.message, "freeze of devnet net requested");
        assert!(devnet(&frozen, true).unwrap().is_none(), "it is so already");
        assert_eq!(devnet(&frozen, false).unwrap().unwrap().0.spec.frozen, Some(false));
        assert!(devnet(&net, false).unwrap().is_none());
    }

    #[test]
    fn what_is_stopped_is_not_frozen_and_a_node_of_a_frozen_devnet_not_thawed_alone() {
        let mut net = fixtures::devnet("default", "net");
        net.spec.desired = Some(Desired::Stopped);
        assert_eq!(devnet(&net, true).unwrap_err().remedy.as_deref(), Some("dvbctl start net"));
        let mut one = fixtures::validator("default", "net", 0);
        assert!(node(&one, true).unwrap().unwrap().0.spec.frozen);
        one.spec.frozen_with_devnet = true;
        assert_eq!(node(&one, false).unwrap_err().remedy.as_deref(), Some("dvbctl thaw net"));
        one.spec.suspended = true;
        assert_eq!(node(&one, true).unwrap_err().code, FaultCode::Conflict);
    }
}
