//! Binds a node's ports for a moment, as the node will, to know before the start whether one is taken.

use super::{
    PortError,
    machine::{inactive, port_holder},
    on_blocking_thread,
};
use crate::{
    holders::holder_of,
    model::{Node, PlannedPort},
};
use std::{
    collections::BTreeSet,
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
};
use tokio::net::TcpSocket;

pub(super) async fn probe(node: &Node, ports: &[PlannedPort]) -> Result<(), PortError> {
    // Seen before anything is bound here: of our own sockets a child that is being forked may have copies for a moment.
    let inactive = if ports.iter().all(|port| port.udp) { Vec::new() } else { on_blocking_thread(inactive).await? };
    for port in ports {
        let (owner, name) = (node.metadata.name.clone(), port.name.clone());
        let Some(number) = node.spec.ports.get(&name).copied().filter(|number| *number != 0) else {
            return Err(PortError::NoNumber { node: owner, name });
        };
        let at = if port.wildcard { "0.0.0.0" } else { node.spec.address.as_str() };
        let address: Ipv4Addr = at.parse().map_err(|e| PortError::Bind {
            node: owner.clone(),
            name: name.clone(),
            address: at.to_owned(),
            port: number,
            source: io::Error::new(io::ErrorKind::InvalidInput, e),
        })?;
        let udp = port.udp;
        let holder = match try_bind(address, number, udp) {
            // Both sides said SO_REUSEADDR. The node may not, and it cannot listen when the other one does.
            Ok(()) => {
                let there = inactive.iter().filter(|bound| !udp && bound.port == number && bound.blocks(address));
                let inodes: BTreeSet<u64> = there.map(|bound| bound.inode).collect();
                if inodes.is_empty() {
                    continue;
                }
                on_blocking_thread(move || holder_of(&inodes)).await?
            }
            Err(source) if source.kind() == io::ErrorKind::AddrInUse => on_blocking_thread(move || port_holder(address, number, udp)).await?,
            Err(source) => return Err(PortError::Bind { node: owner, name, address: at.to_owned(), port: number, source }),
        };
        return Err(PortError::Taken { node: owner, name, address: at.to_owned(), port: number, holder });
    }
    Ok(())
}

/// Never listens: a peer that dials meanwhile is refused rather than accepted by nobody.
fn try_bind(address: Ipv4Addr, port: u16, udp: bool) -> io::Result<()> {
    bind((address, port).into(), udp)?;
    if !address.is_unspecified() {
        return Ok(());
    }
    // Programs that "bind everything" often bind [::], which a listener on IPv6 alone would refuse.
    match bind((Ipv6Addr::UNSPECIFIED, port).into(), udp) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => Err(error),
        _ => Ok(()),
    }
}

fn bind(address: SocketAddr, udp: bool) -> io::Result<()> {
    if udp {
        return UdpSocket::bind(address).map(drop);
    }
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // With it a port in TIME_WAIT counts as free, as it does for the node; a live listener is in the way all the same.
    socket.set_reuseaddr(true)?;
    socket.bind(address)
}
