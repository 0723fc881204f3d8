//! Somebody else at work in a validator's home: a node that was started by hand.

use crate::{
    holders::{FolderUser, folder_users},
    model::LaunchId,
    reaper::{HOME_ID_VAR, LAUNCH_ID_VAR},
    sys::process_env,
};
use std::path::Path;

/// A shell, an editor or `tail` in the home is nobody's harm. What may sign is a process that writes where the sign-state lies, or
/// one that runs the node's program on this home. Blocking.
pub(super) fn find(home: &Path, sign_state: Option<&Path>, binary: &Path, home_id: &str, launch: Option<&LaunchId>) -> Vec<FolderUser> {
    let data = sign_state.and_then(Path::parent).unwrap_or(home);
    let writes = |user: &FolderUser| user.writes.iter().any(|file| file.starts_with(data));
    // Our own services may call the node's program as its command line.
    let runs = |user: &FolderUser| {
        user.executable.file_name().is_some_and(|name| binary.file_name() == Some(name))
            && process_env(user.pid, HOME_ID_VAR).is_none_or(|home| home != home_id)
    };
    let own = |user: &FolderUser| launch.is_some_and(|launch| process_env(user.pid, LAUNCH_ID_VAR).as_deref() == Some(launch.as_str()));
    folder_users(home).into_iter().filter(|user| !own(user)).filter(|user| writes(user) || runs(user)).collect()
}
