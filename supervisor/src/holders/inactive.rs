//! TCP sockets that are bound and neither listen nor are connected. No file of /proc shows them: the kernel is asked over netlink.

use netlink_packet_core::{NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_sock_diag::{
    SockDiagMessage,
    constants::{AF_INET, AF_INET6, IPPROTO_TCP},
    inet::{ExtensionFlags, InetRequest, SocketId, StateFlags},
};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink::SOCK_DIAG, recv, send, socket_with};
use std::{
    io,
    net::IpAddr,
    os::fd::{AsFd, BorrowedFd},
};

/// TCP_BOUND_INACTIVE, since Linux 6.8; what is older knows no such sockets and answers with none.
const BOUND_INACTIVE: u32 = 1 << 13;
/// The kernel puts at most 32 KiB into one answer of a dump.
const ANSWER: usize = 64 << 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InactiveSocket {
    pub address: IpAddr,
    pub port: u16,
    pub inode: u64,
}

/// All of this network namespace, other users' too. Empty on Linux before 6.8.
pub fn inactive_sockets() -> io::Result<Vec<InactiveSocket>> {
    let line = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, Some(SOCK_DIAG))?;
    let mut found = dump(line.as_fd(), AF_INET, SocketId::new_v4())?;
    // A kernel without IPv6 refuses the question.
    found.extend(dump(line.as_fd(), AF_INET6, SocketId::new_v6()).unwrap_or_default());
    Ok(found)
}

fn dump(line: BorrowedFd<'_>, family: u8, socket_id: SocketId) -> io::Result<Vec<InactiveSocket>> {
    let states = StateFlags::from_bits_retain(BOUND_INACTIVE);
    let question = InetRequest { family, protocol: IPPROTO_TCP, extensions: ExtensionFlags::empty(), states, socket_id };
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | NLM_F_DUMP;
    let mut question = NetlinkMessage::new(header, NetlinkPayload::from(SockDiagMessage::InetRequest(question)));
    question.finalize();
    let mut bytes = vec![0; question.buffer_len()];
    question.serialize(&mut bytes);
    send(line, &bytes, SendFlags::empty())?;

    let mut found = Vec::new();
    let mut answer = vec![0; ANSWER];
    loop {
        let (_, length) = recv(line, answer.as_mut_slice(), RecvFlags::empty())?;
        let mut rest = &answer[..length.min(ANSWER)];
        while !rest.is_empty() {
            let message = NetlinkMessage::<SockDiagMessage>::deserialize(rest).map_err(io::Error::other)?;
            rest = rest.get(aligned(message.header.length)..).unwrap_or_default();
            match message.payload {
                NetlinkPayload::InnerMessage(SockDiagMessage::InetResponse(socket)) => {
                    let (id, inode) = (&socket.header.socket_id, socket.header.inode.into());
                    found.push(InactiveSocket { address: id.source_address, port: id.source_port, inode });
                }
                NetlinkPayload::Error(error) => return Err(error.to_io()),
                NetlinkPayload::Done(_) => return Ok(found),
                _ => {}
            }
        }
    }
}

/// Messages in one answer begin at multiples of four.
fn aligned(length: u32) -> usize {
    usize::try_from(length.next_multiple_of(4)).unwrap_or(usize::MAX).max(4)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::net::{bind, sockopt};
    use std::{net::SocketAddr, os::fd::OwnedFd};

    fn bound(address: SocketAddr) -> OwnedFd {
        let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let socket = socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None).unwrap();
        bind(&socket, &address).unwrap();
        socket
    }

    #[test]
    fn a_bound_socket_is_seen_until_it_listens() {
        let there = |port: u16| inactive_sockets().unwrap().into_iter().find(|socket| socket.port == port);
        let sockets = [bound(([127, 0, 0, 1], 0).into()), bound(([0; 16], 0).into())];
        for socket in sockets {
            let address = SocketAddr::try_from(rustix::net::getsockname(&socket).unwrap()).unwrap();
            let inode = rustix::fs::fstat(&socket).unwrap().st_ino;
            let Some(seen) = there(address.port()) else {
                return println!("SKIP: this kernel (before 6.8) does not tell of bound sockets");
            };
            assert_eq!(seen, InactiveSocket { address: address.ip(), port: address.port(), inode });
            rustix::net::listen(&socket, 1).unwrap();
            assert!(sockopt::socket_acceptconn(&socket).unwrap());
            assert_eq!(there(address.port()), None);
        }
    }
}
