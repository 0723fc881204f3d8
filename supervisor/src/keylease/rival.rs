//! A process that can sign with a node's key though it has no lease of it: it was started by hand, on the node's home or on a copy of it.

use super::socket::{Origin, Signer};
use crate::{
    holders::{FolderUser, listens, program_users, works_in},
    reaper::HOME_ID_VAR,
    sys::process_env,
};
use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// What a node signs with.
#[derive(Clone, Debug)]
pub(super) struct Signing {
    pub(super) home: PathBuf,
    /// The folder of its sign-state, below the home.
    pub(super) data: PathBuf,
    /// The file with its key, below the home.
    pub(super) key: Option<PathBuf>,
    pub(super) binary: PathBuf,
}

/// Processes of the node's program, none of this home's own, that write where a home has its sign-state: in the node's home, or in one with
/// the same key. Who only asks the chain, or looks into a home, writes nothing there; but one that was started on the node's home and
/// serves others is a node, also when it holds none of its files open. Blocking: a look at the program of each process of the
/// machine, and at the open files of those that are left.
pub(super) fn find(node: &Signing, home_id: &str) -> Vec<Signer> {
    let Some(program) = node.binary.file_name() else { return Vec::new() };
    // Of hundreds of validators that are our own, each looks at the environment of each, and at the files of none.
    let is_foreign = |pid| process_env(pid, HOME_ID_VAR).is_none_or(|home| home != home_id);
    let rival = |user: FolderUser| {
        let homes: BTreeSet<&Path> = user.writes.iter().flat_map(|file| homes_of(file, &node.data)).collect();
        let writes_to = homes.into_iter().find(|home| *home == node.home || has_same_key(user.pid, home, node));
        let serves = || (works_in(user.pid, &node.home) && listens(user.pid)).then_some(node.home.as_path());
        let home = writes_to.or_else(serves)?.to_owned();
        // That it was started within somebody's node would say nothing here.
        Some(Signer { pid: user.pid, program: user.program, cwd: Some(home), origin: Origin::NoNode })
    };
    program_users(program, is_foreign).into_iter().filter_map(rival).collect()
}

/// `/x/home/data/state.db/LOG` with `data` is a file of the home `/x/home`.
fn homes_of<'a>(file: &'a Path, data: &Path) -> impl Iterator<Item = &'a Path> {
    let depth = data.components().count();
    let folders = file.ancestors().skip(1).filter(move |folder| depth == 0 || folder.ends_with(data));
    folders.filter_map(move |folder| folder.ancestors().nth(depth)).collect::<Vec<_>>().into_iter()
}

/// As that process sees its folders: it may have a root of its own.
fn has_same_key(pid: u32, home: &Path, node: &Signing) -> bool {
    let Some(key) = &node.key else { return false };
    let seen = Path::new("/proc").join(pid.to_string()).join("root").join(home.strip_prefix("/").unwrap_or(home));
    match (fs::read(seen.join(key)), fs::read(node.home.join(key))) {
        (Ok(theirs), Ok(ours)) => !ours.is_empty() && theirs == ours,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_below_a_data_folder_tells_the_home_and_others_do_not() {
        let check = |file: &str, data: &str, expect: &[&str]| {
            assert_eq!(homes_of(Path::new(file), Path::new(data)).collect::<Vec<_>>(), expect.iter().map(Path::new).collect::<Vec<_>>(), "{file}");
        };
        check("/x/home/data/state.db/LOG", "data", &["/x/home"]);
        check("/x/data/home/data/chain/consensus/00", "data/chain", &["/x/data/home"]);
        check("/x/data/home/data/cs.wal/wal", "data", &["/x/data/home", "/x"]);
        check("/x/home/database/LOG", "data", &[]);
        check("/x/home/data", "data", &[]);
    }
}
