//! Ports that are held for nodes that do not run: bound and no more, by sockets that the keeper holds over any death of the daemon.
//!
//! ```text
//!            park: bind, then the keeper gets it
//! (nothing) ─────────────────────────────────────► parked ──► recalled by the next daemon, as long as it is leased
//!     ▲            unpark: just before the start     │
//!     └──────────────────────────────────────────────┘ also: the lease goes, or the plan does not ask for it any more
//! ```
//!
//! Bound with SO_REUSEADDR, since connections of the node's last process may still be in TIME_WAIT, and then without: from there on
//! nobody can bind the port, whatever he says. It is closed before its node starts, which needs to know nothing of all this.
//! A port of all addresses has a second socket, for IPv6 alone: who asks for nothing else would not meet the first, and a node that
//! binds [::] would meet him.

use crate::{keeper::Keeper, sys::failpoint};
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, socket_with, sockopt};
use std::{
    collections::{BTreeMap, BTreeSet},
    io, iter,
    net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV4},
    os::fd::{AsFd, OwnedFd},
    sync::{Mutex, MutexGuard, PoisonError},
};

/// In the keeper a parked port has this before its address.
const PREFIX: &str = "port/";

/// Namespace and full name of the node that a port is for.
pub(super) type Place = (String, String);

/// Each call blocks, mostly for microseconds.
#[derive(Default)]
pub(super) struct Parks {
    /// None: nothing is parked.
    keeper: Option<Keeper>,
    held: Mutex<BTreeMap<SocketAddrV4, Place>>,
}

impl Parks {
    pub(super) fn with(keeper: Keeper) -> Self {
        Self { keeper: Some(keeper), held: Mutex::default() }
    }

    /// Takes back what an earlier daemon has left with the keeper, and lets go of what is not `leased` any more.
    pub(super) fn recall(&self, leased: &BTreeMap<SocketAddrV4, Place>) {
        let Some(keeper) = &self.keeper else { return };
        // A line that fails is given up, so the second time is asked on another.
        let found = keeper.recall(PREFIX).or_else(|_| keeper.recall(PREFIX)).unwrap_or_else(|error| {
            tracing::warn!(%error, "whether ports are parked cannot be told");
            Vec::new()
        });
        let found: BTreeSet<String> = found.into_iter().map(|(name, _)| name).collect();
        let mut stale = found.clone();
        for (address, place) in leased {
            let names = names_of(*address);
            if !names.iter().any(|name| found.contains(name)) {
                continue;
            }
            stale.retain(|name| !names.contains(name));
            // A daemon that died between the two sockets of an address has left one: the other is made now.
            match hold(keeper, *address, &found) {
                Ok(()) => drop(self.held().insert(*address, place.clone())),
                Err(error) => {
                    tracing::warn!(%address, %error, "the port was parked in part, and the rest cannot be had");
                    keeper.release_all(&names);
                }
            }
        }
        if !stale.is_empty() {
            keeper.release_all(&stale.into_iter().collect::<Vec<_>>());
        }
    }

    /// Holds these of the node's ports and no others. Those that could not be had come back with the reason.
    pub(super) fn park(&self, place: &Place, wanted: &BTreeSet<SocketAddrV4>) -> Vec<(SocketAddrV4, io::Error)> {
        let Some(keeper) = &self.keeper else { return Vec::new() };
        self.drop_where(|address, holder| holder == place && !wanted.contains(address));
        let mut failed = Vec::new();
        for address in wanted {
            if self.held().contains_key(address) {
                continue;
            }
            match hold(keeper, *address, &BTreeSet::new()) {
                Ok(()) => drop(self.held().insert(*address, place.clone())),
                Err(error) => {
                    keeper.release_all(&names_of(*address));
                    failed.push((*address, error));
                }
            }
        }
        failed
    }

    /// Lets go of what `goes`; when this returns the ports are free.
    pub(super) fn drop_where(&self, goes: impl Fn(&SocketAddrV4, &Place) -> bool) {
        let Some(keeper) = &self.keeper else { return };
        let names: Vec<String> =
            self.held().extract_if(.., |address, place| goes(address, place)).flat_map(|(address, _)| names_of(address)).collect();
        if names.is_empty() {
            return;
        }
        keeper.release_all(&names);
        failpoint("port/released");
    }

    pub(super) fn are_held(&self, place: &Place, wanted: &BTreeSet<SocketAddrV4>) -> bool {
        let held = self.held();
        held.iter().filter(|(_, holder)| *holder == place).map(|(address, _)| address).eq(wanted)
    }

    pub(super) fn all(&self) -> BTreeMap<SocketAddrV4, Place> {
        self.held().clone()
    }

    /// Each step leaves the map whole, so a panic elsewhere is no reason to stop.
    fn held(&self) -> MutexGuard<'_, BTreeMap<SocketAddrV4, Place>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where a socket is needed to hold `address`.
fn places(address: SocketAddrV4) -> impl Iterator<Item = SocketAddr> {
    let of_ipv6 = IpAddr::from(Ipv6Addr::UNSPECIFIED);
    iter::once(address.into()).chain(address.ip().is_unspecified().then(|| (of_ipv6, address.port()).into()))
}

fn names_of(address: SocketAddrV4) -> Vec<String> {
    places(address).map(name_of).collect()
}

fn name_of(place: SocketAddr) -> String {
    format!("{PREFIX}{place}")
}

/// All places of an address but those that the keeper holds already, by name.
fn hold(keeper: &Keeper, address: SocketAddrV4, held: &BTreeSet<String>) -> io::Result<()> {
    for place in places(address).filter(|place| !held.contains(&name_of(*place))) {
        let socket = match bound(place) {
            // A kernel without IPv6 has nobody who could bind it.
            Err(error) if place.is_ipv6() && error.kind() != io::ErrorKind::AddrInUse => continue,
            socket => socket?,
        };
        failpoint("port/bound");
        keeper.put(&name_of(place), socket.as_fd()).map_err(io::Error::other)?;
    }
    Ok(())
}

fn bound(address: SocketAddr) -> io::Result<OwnedFd> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    if address.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, true)?;
    }
    sockopt::set_socket_reuseaddr(&socket, true)?;
    bind(&socket, &address)?;
    sockopt::set_socket_reuseaddr(&socket, false)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::{Clock, SystemClock};
    use std::{
        net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener, TcpStream},
        sync::atomic::{AtomicU8, Ordering},
    };

    /// Of this test alone: its keeper is a thread.
    fn home() -> String {
        format!("parks-{}", SystemClock.fresh_id().simple())
    }
    fn place(node: &str) -> Place {
        ("default".into(), node.into())
    }
    /// A port that was free a moment ago, on an address that nobody else uses.
    fn port() -> SocketAddrV4 {
        static NEXT: AtomicU8 = AtomicU8::new(200);
        let [_, _, high, low] = std::process::id().to_be_bytes();
        let address = Ipv4Addr::new(127, NEXT.fetch_add(1, Ordering::SeqCst), high, low.max(2));
        let listener = TcpListener::bind((address, 0)).unwrap();
        SocketAddrV4::new(address, listener.local_addr().unwrap().port())
    }
    /// Whether another program could have it, without SO_REUSEADDR and with it, as the standard library sets it.
    fn can_be_bound(address: SocketAddrV4) -> bool {
        let socket = socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None).unwrap();
        let plain = bind(&socket, &address).is_ok();
        drop(socket);
        let reusing = TcpListener::bind(address).is_ok();
        assert_eq!(plain, reusing);
        reusing
    }

    #[test]
    fn a_parked_port_can_be_bound_by_nobody_until_it_is_let_go() {
        let parks = Parks::with(Keeper::in_a_thread(home()));
        let address = port();
        assert!(parks.park(&place("a/b"), &BTreeSet::from([address])).is_empty());
        assert!(!can_be_bound(address));
        for all in [IpAddr::from(Ipv4Addr::UNSPECIFIED), Ipv6Addr::UNSPECIFIED.into()] {
            assert!(TcpListener::bind((all, address.port())).is_err(), "{all}");
        }
        assert!(TcpStream::connect(address).is_err(), "who dials is refused");
        assert!(parks.park(&place("a/b"), &BTreeSet::from([address])).is_empty(), "once more is no harm");
        parks.drop_where(|_, holder| *holder == place("a/other"));
        assert!(!can_be_bound(address));
        parks.drop_where(|_, holder| *holder == place("a/b"));
        assert!(can_be_bound(address));
        assert!(parks.all().is_empty());
    }

    #[test]
    fn a_parked_port_of_all_addresses_is_taken_by_nobody_for_ipv6_alone() {
        let for_ipv6_alone = |port: u16| {
            let socket = socket_with(AddressFamily::INET6, SocketType::STREAM, SocketFlags::CLOEXEC, None).unwrap();
            sockopt::set_ipv6_v6only(&socket, true).unwrap();
            sockopt::set_socket_reuseaddr(&socket, true).unwrap();
            bind(&socket, &SocketAddr::from((Ipv6Addr::UNSPECIFIED, port))).map(|()| socket)
        };
        if TcpListener::bind((Ipv6Addr::UNSPECIFIED, 0)).is_err() {
            return println!("SKIP: this kernel has no IPv6");
        }
        let home = home();
        let free = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap().local_addr().unwrap().port();
        let address = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, free);
        let parks = Parks::with(Keeper::in_a_thread(home.clone()));
        assert!(parks.park(&place("a/b"), &BTreeSet::from([address])).is_empty());
        assert!(for_ipv6_alone(free).is_err());
        drop(parks);
        let recalled = || {
            let next = Parks::with(Keeper::in_a_thread(home.clone()));
            next.recall(&BTreeMap::from([(address, place("a/b"))]));
            assert_eq!(next.all(), BTreeMap::from([(address, place("a/b"))]));
            next
        };
        let next = recalled();
        assert!(for_ipv6_alone(free).is_err(), "kept over a crash");
        // As one that was killed after the first of its two sockets has left it.
        next.keeper.as_ref().unwrap().release_all(&[name_of((Ipv6Addr::UNSPECIFIED, free).into())]);
        drop(for_ipv6_alone(free).unwrap());
        drop(next);
        let next = recalled();
        assert!(for_ipv6_alone(free).is_err(), "the other half is held, too");
        assert!(TcpListener::bind(address).is_err(), "and the first still is");
        next.drop_where(|_, _| true);
        // He who was there first comes back with the reason, and nothing is held half.
        let stranger = for_ipv6_alone(free).unwrap();
        rustix::net::listen(&stranger, 1).unwrap();
        let failed = next.park(&place("a/b"), &BTreeSet::from([address]));
        assert_eq!((failed.len(), failed[0].1.kind()), (1, io::ErrorKind::AddrInUse));
        drop(TcpListener::bind(address).unwrap());
        drop(stranger);
    }

    #[test]
    fn connections_of_the_process_before_are_not_in_the_way() {
        let parks = Parks::with(Keeper::in_a_thread(home()));
        let address = port();
        let listener = TcpListener::bind(address).unwrap();
        let client = TcpStream::connect(address).unwrap();
        drop(listener.accept().unwrap()); // the side that closes first is in TIME_WAIT
        drop(listener);
        drop(client);
        assert!(parks.park(&place("a/b"), &BTreeSet::from([address])).is_empty());
        assert!(TcpListener::bind(address).is_err(), "TIME_WAIT lets others in, we do not");
        parks.drop_where(|_, _| true);
        drop(TcpListener::bind(address).unwrap());
    }

    #[test]
    fn a_port_that_a_stranger_has_comes_back_with_the_reason() {
        let parks = Parks::with(Keeper::in_a_thread(home()));
        let address = port();
        let stranger = TcpListener::bind(address).unwrap();
        let failed = parks.park(&place("a/b"), &BTreeSet::from([address]));
        assert_eq!(failed[0].1.kind(), io::ErrorKind::AddrInUse);
        drop(stranger);
        assert!(parks.park(&place("a/b"), &BTreeSet::from([address])).is_empty());
    }

    #[test]
    fn the_next_daemon_takes_back_what_is_leased_and_lets_go_of_the_rest() {
        let home = home();
        let (kept, stale) = (port(), port());
        let first = Parks::with(Keeper::in_a_thread(home.clone()));
        assert!(first.park(&place("a/b"), &BTreeSet::from([kept, stale])).is_empty());
        drop(first); // as a daemon that is killed: its own descriptors go, without a word to the keeper
        assert!(!can_be_bound(kept) && !can_be_bound(stale));
        let next = Parks::with(Keeper::in_a_thread(home));
        next.recall(&BTreeMap::from([(kept, place("a/b"))]));
        assert_eq!(next.all(), BTreeMap::from([(kept, place("a/b"))]));
        assert!(!can_be_bound(kept));
        next.drop_where(|_, _| true);
        assert!(can_be_bound(kept) && can_be_bound(stale));
    }
}
