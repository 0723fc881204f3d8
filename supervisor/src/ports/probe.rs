//! Binds a node's ports for a moment, as the node will, to know before the start whether one is taken.

use super::{PortError, machine::port_holder, on_blocking_thread};
use crate::model::{Node, PlannedPort};
use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
};
use tokio::net::TcpSocket;

pub(super) async fn probe(node: &Node, ports: &[PlannedPort]) -> Result<(), PortError> {
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
        let Err(source) = try_bind(address, number, port.udp) else { continue };
        if source.kind() != io::ErrorKind::AddrInUse {
            return Err(PortError::Bind { node: owner, name, address: at.to_owned(), port: number, source });
        }
        let udp = port.udp;
        let holder = on_blocking_thread(move || port_holder(address, number, udp)).await?;
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
