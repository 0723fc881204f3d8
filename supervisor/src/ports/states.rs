//! What is at each leased port now: nothing, the node that it belongs to, or a stranger.

use super::{PortError, machine::Machine, parks::Place};
use crate::{
    holders::{Holder, socket_owners},
    model::{Lease, Node},
    reaper::LAUNCH_ID_VAR,
    sys::process_env,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::{Ipv4Addr, SocketAddrV4},
    sync::Arc,
};

/// One leased port. `state` is `free`, `held` (by the node that leases it), `parked` (by us, for that node) or `taken` (by another
/// process).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PortLease {
    /// Full node name.
    pub node: String,
    pub namespace: String,
    pub name: String,
    pub address: String,
    pub port: u16,
    pub wildcard: bool,
    pub udp: bool,
    pub state: String,
    pub holder: Option<Holder>,
    /// The kernel may give the number to an outgoing connection.
    pub ephemeral: bool,
}

/// Blocking: walks /proc once.
pub(super) fn states(leases: &[Arc<Lease>], nodes: &[Arc<Node>], parked: &BTreeMap<SocketAddrV4, Place>) -> Result<Vec<PortLease>, PortError> {
    let machine = Machine::read()?;
    let nodes: BTreeMap<(&str, &str), &Node> =
        nodes.iter().map(|node| ((node.metadata.namespace.as_str(), node.metadata.name.as_str()), node.as_ref())).collect();
    let mut rows: Vec<(PortLease, BTreeSet<u64>)> = Vec::new();
    for lease in leases {
        let Some(mut row) = row(lease) else { continue };
        let Ok(address) = row.address.parse::<Ipv4Addr>() else { continue };
        let there = machine.bound.iter().filter(|bound| bound.udp == row.udp && bound.port == row.port && bound.blocks(address));
        let inodes: BTreeSet<u64> = there.map(|bound| bound.inode).collect();
        row.ephemeral = !row.udp && machine.ephemeral.may_give_away(row.port);
        if !row.udp && parked.contains_key(&SocketAddrV4::new(address, row.port)) {
            row.state = "parked".to_owned();
            rows.push((row, BTreeSet::new()));
            continue;
        }
        row.state = if inodes.is_empty() { "free" } else { "taken" }.to_owned();
        rows.push((row, inodes));
    }
    let owners = socket_owners(&rows.iter().flat_map(|(_, inodes)| inodes.iter().copied()).collect());
    for (row, inodes) in &mut rows {
        let node = nodes.get(&(row.namespace.as_str(), row.node.as_str())).copied();
        let mut here: Vec<&Holder> = owners.iter().filter(|(inode, _)| inodes.contains(inode)).map(|(_, holder)| holder).collect();
        // A wrapper and its child may share the socket: the node's own process tells the state.
        here.sort_by_key(|holder| !belongs(holder, node));
        if let Some(holder) = here.first() {
            row.holder = Some((*holder).clone());
            if belongs(holder, node) {
                row.state = "held".to_owned();
            }
        }
    }
    Ok(rows.into_iter().map(|(row, _)| row).collect())
}

fn row(lease: &Lease) -> Option<PortLease> {
    Some(PortLease {
        node: lease.spec.node_ref.clone()?,
        namespace: lease.metadata.namespace.clone(),
        name: lease.spec.port_name.clone()?,
        address: lease.spec.address.clone()?,
        port: lease.spec.port?,
        wildcard: lease.spec.wildcard,
        udp: lease.metadata.name.ends_with("/udp"),
        ..PortLease::default()
    })
}

/// The node's main process, or one that was started in its launch.
fn belongs(holder: &Holder, node: Option<&Node>) -> bool {
    let (Holder::Process { pid, .. }, Some(node)) = (holder, node) else { return false };
    node.status.pid == Some(*pid)
        || node.status.launch_id.as_ref().is_some_and(|launch| process_env(*pid, LAUNCH_ID_VAR).as_deref() == Some(launch.as_str()))
}
