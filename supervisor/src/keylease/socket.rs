//! The machine-wide half of a lease: an abstract socket named by genesis and key, and who has it.

use crate::{
    holders::{Holder, abstract_sockets, socket_owners},
    reaper::{HOME_ID_VAR, LAUNCH_ID_VAR},
    sys::process_env,
};
use sha2::{Digest, Sha256};
use std::{
    fmt, fs, io,
    os::{
        fd::OwnedFd,
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr, UnixDatagram},
    },
    path::PathBuf,
};

/// A holder that ends between our bind and our look is no holder: the bind is tried again.
const TRIES: usize = 3;

/// A process that holds a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signer {
    pub pid: u32,
    pub program: String,
    /// Where it works: a node's home.
    pub cwd: Option<PathBuf>,
    pub origin: Origin,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    ThisHome,
    /// The id of another home whose daemon started it.
    OtherHome(String),
    /// Not a node: a daemon that is about to start one, or a stranger.
    NoNode,
}

impl Signer {
    fn of(pid: u32, program: String) -> Self {
        let node = process_env(pid, LAUNCH_ID_VAR).and_then(|_| process_env(pid, HOME_ID_VAR));
        Self { pid, program, cwd: fs::read_link(format!("/proc/{pid}/cwd")).ok(), origin: node.map_or(Origin::NoNode, Origin::OtherHome) }
    }
    pub(super) fn in_this_home(&mut self, home_id: &str) {
        if self.origin == Origin::OtherHome(home_id.to_owned()) {
            self.origin = Origin::ThisHome;
        }
    }
}

impl fmt::Display for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pid {} ({})", self.pid, self.program)?;
        match &self.origin {
            Origin::ThisHome => f.write_str(", a node of this home")?,
            Origin::OtherHome(id) => write!(f, ", a node of another devnetd home ({id})")?,
            Origin::NoNode => {}
        }
        match &self.cwd {
            Some(cwd) => write!(f, ", in {}", cwd.display()),
            None => Ok(()),
        }
    }
}

/// Short enough for a socket's name, whatever the chain's digests and keys are.
pub(super) fn name(genesis: &str, key: &str) -> String {
    let digest = Sha256::digest(format!("{genesis}/{key}").as_bytes());
    let hex: String = digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    format!("dvb-key-{hex}")
}

/// The socket, or who has it. Blocking; close-on-exec.
pub(super) fn bind(name: &str) -> io::Result<Result<OwnedFd, Vec<Signer>>> {
    let address = SocketAddr::from_abstract_name(name)?;
    for _ in 0..TRIES {
        match UnixDatagram::bind_addr(&address) {
            Ok(socket) => return Ok(Ok(socket.into())),
            Err(error) if error.kind() != io::ErrorKind::AddrInUse => return Err(error),
            Err(_) => {}
        }
        let inodes = abstract_sockets(name);
        let signers = signers(socket_owners(&inodes));
        if !signers.is_empty() || !abstract_sockets(name).is_empty() {
            return Ok(Err(signers));
        }
    }
    Ok(Err(Vec::new()))
}

fn signers(owners: Vec<(u64, Holder)>) -> Vec<Signer> {
    let process = |holder| match holder {
        Holder::Process { pid, program } => Some(Signer::of(pid, program)),
        Holder::Hidden | Holder::TimeWait => None,
    };
    let mut signers: Vec<Signer> = owners.into_iter().filter_map(|(_, holder)| process(holder)).collect();
    signers.dedup_by_key(|signer| signer.pid);
    signers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_tells_chains_and_keys_apart_and_fits_a_socket() {
        let long = "ab".repeat(64);
        assert_ne!(name("g", "k"), name("g", "l"));
        assert_ne!(name("g", "k"), name("h", "k"));
        assert_eq!(name(&long, &long), name(&long, &long));
        assert!(name(&long, &long).len() < 100);
    }

    #[test]
    fn a_key_is_bound_once_names_its_holder_and_is_free_when_the_last_copy_closes() {
        let name = name("test", &format!("key-{}", std::process::id()));
        let socket = bind(&name).unwrap().unwrap();
        let copy = socket.try_clone().unwrap();
        drop(socket);
        let holders = bind(&name).unwrap().unwrap_err();
        assert_eq!((holders[0].pid, &holders[0].origin), (std::process::id(), &Origin::NoNode));
        drop(copy);
        bind(&name).unwrap().unwrap();
    }
}
