//! Machine-wide claims: bound abstract sockets that live exactly as long as this object, so that two homes do not take the same thing.
//!
//! A file could be deleted and taken twice, and outlives a crash; the kernel drops an abstract socket with its last descriptor.
//! Children do not inherit it (close-on-exec). The names are per network namespace, as loopback addresses are.

use super::machine::CLAIM_PREFIX;
use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    os::{
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr, UnixDatagram},
    },
    sync::{Mutex, MutexGuard, PoisonError},
};

/// Namespace and name of the devnet that a claim is for.
pub(super) type Owner = (String, String);

pub(super) fn subnet_claim(subnet: impl std::fmt::Display) -> String {
    format!("{CLAIM_PREFIX}subnet-{subnet}")
}

/// For ports on addresses that all share: 127.0.0.1 and 0.0.0.0.
pub(super) fn port_claim(port: u16) -> String {
    format!("{CLAIM_PREFIX}port-{port}")
}

#[derive(Debug)]
pub(super) enum ClaimError {
    /// Another process holds it.
    Held(String),
    Io(String, io::Error),
}

#[derive(Debug, Default)]
pub(super) struct Claims(Mutex<BTreeMap<String, (Owner, UnixDatagram)>>);

impl Claims {
    /// Takes all of `names`, or adds none. One that `owner` holds already stays.
    pub(super) fn take(&self, owner: &Owner, names: &BTreeSet<String>) -> Result<(), ClaimError> {
        let mut held = self.lock();
        let mut fresh = Vec::new();
        for name in names {
            match held.get(name) {
                Some((holder, _)) if holder == owner => {}
                Some(_) => return Err(ClaimError::Held(name.clone())),
                None => fresh.push((name.clone(), (owner.clone(), bind(name)?))),
            }
        }
        held.extend(fresh);
        Ok(())
    }
    /// Drops what `owner` holds beyond `names`.
    pub(super) fn keep(&self, owner: &Owner, names: &BTreeSet<String>) {
        self.lock().retain(|name, (holder, _)| holder != owner || names.contains(name));
    }
    pub(super) fn of(&self, owner: &Owner) -> BTreeSet<String> {
        self.lock().iter().filter(|(_, (holder, _))| holder == owner).map(|(name, _)| name.clone()).collect()
    }
    /// Each step leaves the map whole, so a panic elsewhere is no reason to stop.
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, (Owner, UnixDatagram)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn bind(name: &str) -> Result<UnixDatagram, ClaimError> {
    let address = SocketAddr::from_abstract_name(name).map_err(|e| ClaimError::Io(name.to_owned(), e))?;
    UnixDatagram::bind_addr(&address).map_err(|e| match e.kind() {
        io::ErrorKind::AddrInUse => ClaimError::Held(name.to_owned()),
        _ => ClaimError::Io(name.to_owned(), e),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(devnet: &str) -> Owner {
        ("default".into(), devnet.into())
    }
    fn names(of: &[&str]) -> BTreeSet<String> {
        of.iter().map(|name| format!("{CLAIM_PREFIX}test-{}-{name}", std::process::id())).collect()
    }

    #[test]
    fn a_claim_is_held_once_on_the_machine_and_goes_with_its_holder() {
        let (one, two) = (Claims::default(), Claims::default());
        let wanted = names(&["once"]);
        one.take(&owner("a"), &wanted).unwrap();
        one.take(&owner("a"), &wanted).unwrap();
        assert!(matches!(two.take(&owner("a"), &wanted), Err(ClaimError::Held(_))));
        assert!(matches!(one.take(&owner("b"), &wanted), Err(ClaimError::Held(_))));
        drop(one);
        two.take(&owner("a"), &wanted).unwrap();
    }

    #[test]
    fn a_failed_take_adds_nothing() {
        let (one, two) = (Claims::default(), Claims::default());
        one.take(&owner("a"), &names(&["y"])).unwrap();
        assert!(two.take(&owner("a"), &names(&["x", "y"])).is_err());
        assert_eq!(two.of(&owner("a")), BTreeSet::new());
        one.take(&owner("a"), &names(&["x"])).unwrap();
        one.keep(&owner("a"), &names(&["x"]));
        assert_eq!(one.of(&owner("a")), names(&["x"]));
    }
}
