//! What the machine says about sockets at one moment, as a value, and who holds them.

use super::{PortError, Subnet};
use procfs::{
    net::{TcpState, UnixNetEntry},
    process::{FDTarget, all_processes},
};
use std::{
    collections::BTreeSet,
    fmt, fs,
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

/// Who holds a port or a claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Holder {
    Process {
        pid: u32,
        /// The program's short name.
        program: String,
    },
    /// Another user's process, or a socket that is bound without listening: /proc does not tell.
    Hidden,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Process { pid, program } => write!(f, "pid {pid} ({program})"),
            Self::Hidden => f.write_str("a process that cannot be seen from here (another user's, or it does not listen)"),
        }
    }
}

/// Who keeps `address:port` from being bound. Blocking: walks /proc.
pub(super) fn port_holder(address: Ipv4Addr, port: u16, udp: bool) -> Holder {
    let Ok(bound) = bound_sockets() else { return Holder::Hidden };
    let inodes = bound.iter().filter(|s| s.udp == udp && s.port == port && s.blocks(address)).map(|s| s.inode).collect();
    holder_of(&inodes)
}

/// Who holds the claim of this name. Blocking: walks /proc.
pub(super) fn claim_holder(name: &str) -> Holder {
    let Ok(sockets) = procfs::net::unix() else { return Holder::Hidden };
    holder_of(&sockets.iter().filter(|entry| claim_name(entry).as_deref() == Some(name)).map(|entry| entry.inode).collect())
}

/// The process with a descriptor of one of these sockets; where a parent and its child share one, the parent.
fn holder_of(inodes: &BTreeSet<u64>) -> Holder {
    socket_owners(inodes).into_iter().map(|(_, owner)| owner).next().unwrap_or(Holder::Hidden)
}

/// Each process that has one of these sockets open, by rising pid. Blocking; processes of other users are passed over.
pub(super) fn socket_owners(inodes: &BTreeSet<u64>) -> Vec<(u64, Holder)> {
    let Ok(processes) = all_processes() else { return Vec::new() };
    let mut owners = Vec::new();
    for process in processes.flatten() {
        let Ok(fds) = process.fd() else { continue };
        for fd in fds.flatten() {
            if let FDTarget::Socket(inode) = fd.target
                && inodes.contains(&inode)
            {
                let program = process.stat().map(|stat| stat.comm).unwrap_or_else(|_| "?".to_owned());
                owners.push((process.pid(), inode, program));
            }
        }
    }
    owners.sort();
    owners.into_iter().map(|(pid, inode, program)| (inode, Holder::Process { pid: pid.unsigned_abs(), program })).collect()
}

/// True when the process carries this launch id in its environment.
pub(super) fn carries_launch(pid: u32, launch: &str) -> bool {
    let wanted = format!("DVB_LAUNCH_ID={launch}");
    fs::read(format!("/proc/{pid}/environ")).is_ok_and(|environ| environ.split(|b| *b == 0).any(|entry| entry == wanted.as_bytes()))
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
