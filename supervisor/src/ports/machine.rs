//! What the machine says about sockets at one moment, as a value.

use super::{PortError, Subnet};
use crate::holders::{Holder, abstract_sockets, holder_of};
use procfs::net::{TcpState, UnixNetEntry};
use std::{
    collections::BTreeSet,
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    ops::RangeInclusive,
};

/// Abstract sockets by which daemons tell each other what they hold begin with this.
pub(super) const CLAIM_PREFIX: &str = "dvb-";
/// The kernel's default, for a /proc without the file.
const DEFAULT_EPHEMERAL: RangeInclusive<u16> = 32768..=60999;

/// A socket that keeps others from binding its port: TCP that listens, UDP that is bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bound {
    pub(super) udp: bool,
    pub(super) address: IpAddr,
    pub(super) port: u16,
    pub(super) inode: u64,
}

impl Bound {
    /// True when a bind to `address` would meet it.
    pub(super) fn blocks(&self, address: Ipv4Addr) -> bool {
        match self.address {
            IpAddr::V4(own) => own == address || own.is_unspecified() || address.is_unspecified(),
            IpAddr::V6(own) => own == Ipv6Addr::UNSPECIFIED || own.to_ipv4_mapped().is_some_and(|own| own == address || address.is_unspecified()),
        }
    }
    pub(super) fn subnet(&self) -> Option<Subnet> {
        match self.address {
            IpAddr::V4(own) => Subnet::of(own),
            IpAddr::V6(own) => own.to_ipv4_mapped().and_then(Subnet::of),
        }
    }
}

/// A picture of the machine's sockets, in this network namespace.
#[derive(Clone, Debug)]
pub(super) struct Machine {
    pub(super) bound: Vec<Bound>,
    /// Names of claims that some daemon holds, ours among them.
    pub(super) claims: BTreeSet<String>,
    /// Ports that the kernel gives to outgoing connections.
    pub(super) ephemeral: RangeInclusive<u16>,
}

impl Machine {
    /// Blocking: reads /proc.
    pub(super) fn read() -> Result<Self, PortError> {
        let claims = procfs::net::unix().map_err(|e| PortError::proc("/proc/net/unix", e))?;
        let claims = claims.iter().filter_map(claim_name).collect();
        Ok(Self { bound: bound_sockets()?, claims, ephemeral: ephemeral_range() })
    }
}

fn claim_name(entry: &UnixNetEntry) -> Option<String> {
    let name = entry.path.as_ref()?.to_str()?.strip_prefix('@')?;
    name.starts_with(CLAIM_PREFIX).then(|| name.to_owned())
}

fn ephemeral_range() -> RangeInclusive<u16> {
    let text = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    parse_range(&text).unwrap_or(DEFAULT_EPHEMERAL)
}

fn parse_range(text: &str) -> Option<RangeInclusive<u16>> {
    let mut words = text.split_whitespace().map(str::parse::<u16>);
    Some(words.next()?.ok()?..=words.next()?.ok()?)
}

fn bound_sockets() -> Result<Vec<Bound>, PortError> {
    let tcp = procfs::net::tcp().map_err(|e| PortError::proc("/proc/net/tcp", e))?;
    let udp = procfs::net::udp().map_err(|e| PortError::proc("/proc/net/udp", e))?;
    // A kernel without IPv6 has no such files.
    let tcp = tcp.into_iter().chain(procfs::net::tcp6().unwrap_or_default()).filter(|entry| entry.state == TcpState::Listen);
    let udp = udp.into_iter().chain(procfs::net::udp6().unwrap_or_default());
    let tcp = tcp.map(|e| Bound { udp: false, address: e.local_address.ip(), port: e.local_address.port(), inode: e.inode });
    let udp = udp.map(|e| Bound { udp: true, address: e.local_address.ip(), port: e.local_address.port(), inode: e.inode });
    Ok(tcp.chain(udp).collect())
}

/// Who keeps `address:port` from being bound. Blocking: walks /proc.
pub(super) fn port_holder(address: Ipv4Addr, port: u16, udp: bool) -> Holder {
    let Ok(bound) = bound_sockets() else { return Holder::Hidden };
    let inodes = bound.iter().filter(|s| s.udp == udp && s.port == port && s.blocks(address)).map(|s| s.inode).collect();
    holder_of(&inodes)
}

/// Who holds the claim of this name. Blocking: walks /proc.
pub(super) fn claim_holder(name: &str) -> Holder {
    holder_of(&abstract_sockets(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wildcard_socket_blocks_every_address() {
        let bound = |address: &str| Bound { udp: false, address: address.parse().unwrap(), port: 1, inode: 1 };
        let ours = Ipv4Addr::new(127, 64, 0, 1);
        assert!(bound("0.0.0.0").blocks(ours));
        assert!(bound("::").blocks(ours));
        assert!(bound("::ffff:127.64.0.1").blocks(ours));
        assert!(bound("127.64.0.9").blocks(Ipv4Addr::UNSPECIFIED));
        assert!(!bound("127.64.0.2").blocks(ours));
        assert!(!bound("::1").blocks(ours));
    }

    #[test]
    fn the_ephemeral_range_reads_as_the_kernel_writes_it() {
        assert_eq!(parse_range("32768\t60999\n"), Some(32768..=60999));
        assert_eq!(parse_range("nothing"), None);
    }
}
