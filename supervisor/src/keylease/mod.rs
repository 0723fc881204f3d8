//! One validator key signs in at most one process: leased in the store, bound machine-wide, handed to the process that signs with it.
//!
//! ```text
//! row of this node? ──► sign-state not behind its mark? ──► nobody else at work in its home? ──► bind ──► KeyLease ──► the node inherits it
//!      │ another devnet's        │ restored, copied              │ started by hand                 │ another home's process
//!      ▼                         ▼                               ▼                                 ▼
//!   KeyInUse              SignStateWentBack                   HomeInUse                         KeyInUse, the holder named
//! ```
//!
//! A process that was started by hand has no lease. It is found by its program and by what it writes, in the node's home or in a copy of
//! it: before each launch, and while the node runs as its sign-state moves (`rivals`).
//!
//! The row goes with its devnet and keeps the mark. The abstract socket lives exactly as long as a process has it: the daemon closes
//! its own copy after the fork, so a node holds its key over the daemon's death, and the kernel gives the key back with the node's
//! last process. Abstract names are per network namespace, as loopback addresses are.

mod fault;
mod intruder;
mod mark;
mod rival;
mod socket;

pub use socket::Signer;

use crate::{
    holders::FolderUser,
    model::{Kind, Lease, LeaseSpec, Meta, Node, Object, SignMark, Uid},
    store::{Expect, Selector, Store, StoreError, Write},
    sys::Clock,
};
use mark::Drift;
use std::{
    io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::Arc,
};

#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error("the key of {node} belongs to {by}, a devnet of this home with the same genesis")]
    Leased { node: String, by: String },
    #[error("the key of {node} signs in another process: {}", listed(.by))]
    InUse { node: String, by: Vec<Signer> },
    #[error("another process is at work in the home of {node}: {}", named(.by))]
    HomeInUse { node: String, by: Vec<FolderUser> },
    #[error("the sign-state of {node} went back: {was} when its process ended, now {is} ({path})")]
    WentBack { node: String, path: PathBuf, was: String, is: String },
    #[error("cannot {action}: {source}")]
    Io { action: String, source: io::Error },
    #[error("cannot lease a key: {0}")]
    Store(#[from] StoreError),
}

/// What a launch may sign with.
#[derive(Debug)]
pub struct KeyLease {
    /// None: somebody else holds the key, and a user has allowed that.
    socket: Option<OwnedFd>,
    /// Somebody signed while this node did not run; in words.
    pub signed_elsewhere: Option<String>,
    /// The mark from which on this launch signs: for the commit of the launch, so that a launch that is not made forgets no warning.
    pub writes: Vec<Write>,
}

impl KeyLease {
    /// For `Grants`: the process and its children hold the key as long as they live.
    pub fn into_grant(self) -> Option<(String, OwnedFd)> {
        self.socket.map(|socket| ("dvb-key-lease".to_owned(), socket))
    }
    pub fn is_held(&self) -> bool {
        self.socket.is_some()
    }
}

/// A mark that goes back.
#[derive(Clone, Debug)]
pub struct Rewind {
    /// In words.
    pub was: String,
    pub is: String,
    pub write: Option<Write>,
}

/// What a look at a sign-state found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Look {
    /// There is none.
    Nothing,
    /// As it should be.
    Seen(SignMark),
    /// Another process wrote it.
    Moved { reason: &'static str, message: String },
}

/// The leases of one home.
pub struct Keys<'a> {
    pub store: &'a dyn Store,
    pub clock: &'a dyn Clock,
    /// Tells this home from others on the machine.
    pub home_id: String,
}

impl Keys<'_> {
    /// For the next launch of a node that signs. It refuses when anything says that the key is, or was, used elsewhere.
    pub async fn take(&self, node: &Node, genesis: &str, key: &str) -> Result<KeyLease, KeyError> {
        let mut row = self.row(node, genesis, key).await?;
        let (state, present) = sign_state(node).await?;
        let signed_elsewhere = judge(node, state.as_deref(), row.spec.sign_mark.as_ref(), present.as_ref())?;
        let by = self.strangers(node).await?;
        if !by.is_empty() {
            return Err(KeyError::HomeInUse { node: node.metadata.name.clone(), by });
        }
        let name = socket::name(genesis, key);
        let bound = blocking("bind the socket of a key", move || socket::bind(&name)).await?;
        let socket = bound.map_err(|by| KeyError::InUse { node: node.metadata.name.clone(), by: self.described(by) })?;
        self.rivals(node).await?.map_or(Ok(()), Err)?; // who holds the lease is better known than one who does not
        let mut writes = Vec::new();
        if signed_elsewhere.is_some() {
            row.spec.sign_mark = present; // it is told once
            writes.push(Write::update(row));
        }
        Ok(KeyLease { socket: Some(socket), signed_elsewhere, writes })
    }

    /// For one launch that a user allowed to sign twice: takes what can be had, and what the sign-state says now counts from now on.
    pub async fn take_anyhow(&self, node: &Node, genesis: &str, key: &str) -> Result<KeyLease, KeyError> {
        let mut writes = Vec::new();
        match self.row(node, genesis, key).await {
            Ok(mut row) => {
                row.spec.sign_mark = sign_state(node).await?.1;
                writes.push(Write::update(row));
            }
            Err(KeyError::Leased { .. }) => {}
            Err(error) => return Err(error),
        }
        let name = socket::name(genesis, key);
        let bound = blocking("bind the socket of a key", move || socket::bind(&name)).await?;
        Ok(KeyLease { socket: bound.ok(), signed_elsewhere: None, writes })
    }

    /// Puts on record how far a node had signed when its process ended. A mark never goes back.
    pub async fn record(&self, node: &Node) -> Result<(), KeyError> {
        let Some(row) = self.rows(node).await?.into_iter().next() else { return Ok(()) };
        let (_, Some(present)) = sign_state(node).await? else { return Ok(()) };
        if row.spec.sign_mark.as_ref().is_some_and(|was| *was == present || mark::drift(was, Some(&present)) == Drift::Back) {
            return Ok(());
        }
        let mut row = Lease::clone(&row);
        row.spec.sign_mark = Some(present);
        self.store.commit(vec![Write::update(row)]).await?;
        Ok(())
    }

    /// What the sign-state says now counts from now on, though it went back: it was put back together with those of all validators,
    /// while none of them ran.
    pub async fn rewind(&self, node: &Node) -> Result<Rewind, KeyError> {
        let (_, present) = sign_state(node).await?;
        let Some(row) = self.rows(node).await?.into_iter().next() else {
            return Ok(Rewind { was: mark::words(None), is: mark::words(present.as_ref()), write: None });
        };
        let mut row = Lease::clone(&row);
        let was = mark::words(row.spec.sign_mark.as_ref());
        let is = mark::words(present.as_ref());
        row.spec.sign_mark = present;
        Ok(Rewind { was, is, write: Some(Write::update(row)) })
    }

    /// What the sign-state says: of a node that runs against `seen`, the furthest that it was before; else against its mark. One that tells
    /// no height moved when somebody is seen at work there: a copy that is put in its place has new times.
    pub async fn look(&self, node: &Node, runs: bool, seen: Option<&SignMark>) -> Result<Look, KeyError> {
        let (_, Some(present)) = sign_state(node).await? else { return Ok(Look::Nothing) };
        let rows = self.rows(node).await?;
        let was = if runs { seen } else { rows.first().and_then(|row| row.spec.sign_mark.as_ref()) };
        let Some(was) = was.filter(|was| !runs || !was.position.is_empty()) else { return Ok(Look::Seen(present)) };
        let (before, now) = (mark::words(Some(was)), mark::words(Some(&present)));
        let name = &node.metadata.name;
        let (reason, what) = match mark::drift(was, Some(&present)) {
            Drift::Back => ("SignStateWentBack", format!("the sign-state of {name} went back from {before} to {now}")),
            Drift::Ahead if !runs => ("SignedElsewhere", format!("somebody signed with the key of {name} while it was down: {before}, then {now}")),
            Drift::None | Drift::Ahead => return Ok(Look::Seen(present)),
        };
        let by = self.strangers(node).await?;
        if was.position.is_empty() && by.is_empty() {
            return Ok(Look::Seen(present));
        }
        let by = if by.is_empty() { "no process is at work in its home now".into() } else { format!("at work in its home: {}", named(&by)) };
        Ok(Look::Moved { reason, message: format!("{what}; {by}") })
    }

    /// Whoever else can sign with the node's key and has no lease of it, as `KeyError::InUse`.
    pub async fn rivals(&self, node: &Node) -> Result<Option<KeyError>, KeyError> {
        let Some(state) = node.spec.sign_state.as_ref().map(Path::new) else { return Ok(None) };
        let signing = rival::Signing {
            home: PathBuf::from(&node.spec.home_dir),
            data: state.parent().unwrap_or(state).to_owned(),
            key: node.spec.key_file.as_ref().map(PathBuf::from),
            binary: PathBuf::from(&node.spec.binary_path),
        };
        let home_id = self.home_id.clone();
        let by = blocking("look into /proc", move || Ok(rival::find(&signing, &home_id))).await?;
        Ok((!by.is_empty()).then(|| KeyError::InUse { node: node.metadata.name.clone(), by }))
    }

    /// Processes at work in the node's home that are not its own launch.
    async fn strangers(&self, node: &Node) -> Result<Vec<FolderUser>, KeyError> {
        let (home, binary) = (PathBuf::from(&node.spec.home_dir), PathBuf::from(&node.spec.binary_path));
        let state = node.spec.sign_state.as_ref().map(|below| home.join(below));
        let (home_id, launch) = (self.home_id.clone(), node.status.launch_id.clone());
        let find = move || Ok(intruder::find(&home, state.as_deref(), &binary, &home_id, launch.as_ref()));
        blocking("look into /proc", find).await
    }

    /// What gives a node's key back: it is reset with its whole devnet, or goes away.
    pub async fn forget(&self, node: &Node) -> Result<Vec<Write>, KeyError> {
        let delete = |row: Arc<Lease>| Write::Delete { key: Object::Lease(row).key(), expect: Expect::Any };
        Ok(self.rows(node).await?.into_iter().map(delete).collect())
    }

    /// The row of this key, made with the first launch.
    async fn row(&self, node: &Node, genesis: &str, key: &str) -> Result<Lease, KeyError> {
        let name = row_name(genesis, key);
        let selector = Selector { name: Some(name.clone()), ..Selector::kind(Kind::Lease) };
        let (objects, _) = self.store.list(&selector).await?;
        if let Some(row) = objects.into_iter().find_map(|object| Arc::<Lease>::try_from(object).ok()) {
            let ours = row.metadata.namespace == node.metadata.namespace && row.spec.node_ref.as_ref() == Some(&node.metadata.name);
            let by = || format!("{}/{}", row.metadata.namespace, row.spec.devnet_ref);
            return if ours { Ok(Lease::clone(&row)) } else { Err(KeyError::Leased { node: node.metadata.name.clone(), by: by() }) };
        }
        let metadata = Meta {
            name,
            namespace: node.metadata.namespace.clone(),
            uid: Uid::from_uuid(self.clock.fresh_id()),
            generation: 1,
            created_at: self.clock.now(),
            ..Meta::default()
        };
        let spec = LeaseSpec { devnet_ref: node.spec.devnet_ref.clone(), node_ref: Some(node.metadata.name.clone()), ..LeaseSpec::default() };
        let mut row = Lease { metadata, spec };
        row.metadata.resource_version = self.store.commit(vec![Write::create(row.clone())]).await?;
        Ok(row)
    }

    async fn rows(&self, node: &Node) -> Result<Vec<Arc<Lease>>, KeyError> {
        let selector = Selector::in_devnet(Kind::Lease, &node.metadata.namespace, &node.spec.devnet_ref);
        let (objects, _) = self.store.list(&selector).await?;
        let rows = objects.into_iter().filter_map(|object| Arc::<Lease>::try_from(object).ok());
        Ok(rows.filter(|row| row.metadata.name.starts_with(ROWS) && row.spec.node_ref.as_ref() == Some(&node.metadata.name)).collect())
    }

    fn described(&self, mut signers: Vec<Signer>) -> Vec<Signer> {
        signers.iter_mut().for_each(|signer| signer.in_this_home(&self.home_id));
        signers
    }
}

/// An error when the sign-state is behind its mark; words when somebody signed since then.
fn judge(node: &Node, path: Option<&Path>, was: Option<&SignMark>, is: Option<&SignMark>) -> Result<Option<String>, KeyError> {
    let (Some(path), Some(was)) = (path, was) else { return Ok(None) };
    let name = &node.metadata.name;
    let (before, now) = (mark::words(Some(was)), mark::words(is));
    match mark::drift(was, is) {
        Drift::None => Ok(None),
        Drift::Ahead => Ok(Some(format!("somebody else signed with the key of {name} while it was down: {before} when it ended, now {now}"))),
        Drift::Back => Err(KeyError::WentBack { node: name.clone(), path: path.to_owned(), was: before, is: now }),
    }
}

const ROWS: &str = "key/";

fn row_name(genesis: &str, key: &str) -> String {
    format!("{ROWS}{genesis}/{key}")
}

/// Where it is, and what it says; neither for a node without one.
async fn sign_state(node: &Node) -> Result<(Option<PathBuf>, Option<SignMark>), KeyError> {
    let Some(below) = &node.spec.sign_state else { return Ok((None, None)) };
    let path = Path::new(&node.spec.home_dir).join(below);
    let there = path.clone();
    let mark = blocking(&format!("read the sign-state {}", path.display()), move || mark::read(&there)).await?;
    Ok((Some(path), mark))
}

async fn blocking<T: Send + 'static>(action: &str, work: impl FnOnce() -> io::Result<T> + Send + 'static) -> Result<T, KeyError> {
    let io = |source| KeyError::Io { action: action.to_owned(), source };
    tokio::task::spawn_blocking(work).await.map_err(|error| io(io::Error::other(error)))?.map_err(io)
}

fn listed(signers: &[Signer]) -> String {
    let words: Vec<String> = signers.iter().map(Signer::to_string).collect();
    if words.is_empty() { "one that cannot be seen from here (another user's)".into() } else { words.join("; ") }
}

fn named(users: &[FolderUser]) -> String {
    users.iter().map(|user| user.holder().to_string()).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests;
