//! What the machine says about sockets at one moment, as a value.

use super::{PortError, Subnet};
use crate::holders::{Holder, InactiveSocket, abstract_sockets, holder_of, inactive_sockets};
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

/// What the kernel shows of a connection that no process has any more.
const NO_INODE: u64 = 0;

/// A socket that keeps others from binding its port: TCP that listens or is only bound, UDP that is bound.
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
            // What binds everything is tried as [::] too, which any address of IPv6 is in the way of.
            IpAddr::V6(own) => own == Ipv6Addr::UNSPECIFIED || address.is_unspecified() || own.to_ipv4_mapped() == Some(address),
        }
    }
    pub(super) fn subnet(&self) -> Option<Subnet> {
        match self.address {
            IpAddr::V4(own) => Subnet::of(own),
            IpAddr::V6(own) => own.to_ipv4_mapped().and_then(Subnet::of),
        }
    }
}

/// What the kernel gives to outgoing connections.
#[derive(Clone, Debug)]
pub(super) struct Ephemeral {
    pub(super) range: RangeInclusive<u16>,
    /// But not these, as the sysctl has them.
    pub(super) reserved: String,
}

impl Ephemeral {
    /// Two small files of /proc.
    pub(super) fn read() -> Self {
        Self { range: ephemeral_range(), reserved: fs::read_to_string("/proc/sys/net/ipv4/ip_local_reserved_ports").unwrap_or_default() }
    }
}

/// A picture of the machine's sockets, in this network namespace.
#[derive(Clone, Debug)]
pub(super) struct Machine {
    pub(super) bound: Vec<Bound>,
    /// Names of claims that some daemon holds, ours among them.
    pub(super) claims: BTreeSet<String>,
    pub(super) ephemeral: Ephemeral,
}

impl Machine {
    /// Blocking: reads /proc.
    pub(super) fn read() -> Result<Self, PortError> {
        let claims = procfs::net::unix().map_err(|e| PortError::proc("/proc/net/unix", e))?;
        let claims = claims.iter().filter_map(claim_name).collect();
        Ok(Self { bound: bound_sockets()?, claims, ephemeral: Ephemeral::read() })
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

/// `8080,9148-9150`
pub(super) fn parse_ranges(text: &str) -> Vec<RangeInclusive<u16>> {
    let range = |word: &str| {
        let (low, high) = word.split_once('-').unwrap_or((word, word));
        Some(low.parse().ok()?..=high.parse().ok()?)
    };
    text.trim().split(',').filter_map(range).collect()
}

/// In the way of a bind, as far as the kernel tells: of TCP sockets that are only bound it does since Linux 6.8.
fn bound_sockets() -> Result<Vec<Bound>, PortError> {
    let udp = procfs::net::udp().map_err(|e| PortError::proc("/proc/net/udp", e))?;
    // A kernel without IPv6 has no such files.
    let udp = udp.into_iter().chain(procfs::net::udp6().unwrap_or_default());
    let udp = udp.map(|e| Bound { udp: true, address: e.local_address.ip(), port: e.local_address.port(), inode: e.inode });
    let listening = tcp_sockets(|state| *state == TcpState::Listen)?;
    Ok(listening.into_iter().chain(inactive()).chain(udp).collect())
}

/// TCP sockets that are only bound; none where the kernel does not tell.
pub(super) fn inactive() -> Vec<Bound> {
    let sockets = inactive_sockets().unwrap_or_default().into_iter();
    sockets.map(|InactiveSocket { address, port, inode }| Bound { udp: false, address, port, inode }).collect()
}

fn tcp_sockets(wanted: impl Fn(&TcpState) -> bool) -> Result<Vec<Bound>, PortError> {
    let tcp = procfs::net::tcp().map_err(|e| PortError::proc("/proc/net/tcp", e))?;
    let tcp = tcp.into_iter().chain(procfs::net::tcp6().unwrap_or_default()).filter(|entry| wanted(&entry.state));
    Ok(tcp.map(|e| Bound { udp: false, address: e.local_address.ip(), port: e.local_address.port(), inode: e.inode }).collect())
}

/// Who keeps `address:port` from being bound. Blocking: walks /proc.
pub(super) fn port_holder(address: Ipv4Addr, port: u16, udp: bool) -> Holder {
    let inodes = |sockets: Result<Vec<Bound>, PortError>| -> BTreeSet<u64> {
        let sockets = sockets.unwrap_or_default();
        sockets.iter().filter(|s| s.udp == udp && s.port == port && s.blocks(address)).map(|s| s.inode).collect()
    };
    let holder = holder_of(&inodes(bound_sockets()));
    if udp || holder != Holder::Hidden {
        return holder;
    }
    // A connection blocks its own port too, unless both sides said SO_REUSEADDR: one that the kernel gave this port, for instance.
    let connected = inodes(tcp_sockets(|state| *state != TcpState::Listen));
    if connected == BTreeSet::from([NO_INODE]) { Holder::TimeWait } else { holder_of(&connected) }
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
        assert!(bound("::1").blocks(Ipv4Addr::UNSPECIFIED));
    }

    #[test]
    fn the_ephemeral_range_reads_as_the_kernel_writes_it() {
        assert_eq!(parse_range("32768\t60999\n"), Some(32768..=60999));
        assert_eq!(parse_range("nothing"), None);
        assert_eq!(parse_ranges("8080,9148-9150\n"), [8080..=8080, 9148..=9150]);
        assert_eq!(parse_ranges("\n"), []);
    }
}
