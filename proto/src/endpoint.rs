//! Where the client API is served: the one rule that client and daemon must agree on before they can speak.

use std::{
    ffi::{OsStr, OsString},
    fs,
    os::unix::{ffi::OsStrExt, fs::MetadataExt},
    path::{Path, PathBuf},
};

/// The longest path that fits into a socket address (108 bytes with the terminating zero).
const MAX_SOCKET_PATH: usize = 107;

/// Metadata of a call: the canonical home that the client means. A daemon that serves another refuses the call.
pub const HOME_KEY: &str = "dvb-home-bin";

/// The home when nothing else is said: `~/.devnet-builder`.
pub fn default_home(user_home: &Path) -> PathBuf {
    user_home.join(".devnet-builder")
}

/// The user's runtime directory: `variable`, which is XDG_RUNTIME_DIR, or where that names no folder (cron, su, a container, a session
/// that is over) the place where systemd makes it, if it is there and the user's own.
pub fn runtime_dir(variable: Option<OsString>, uid: u32) -> Option<PathBuf> {
    let usual =
        || Some(PathBuf::from(format!("/run/user/{uid}"))).filter(|dir| fs::metadata(dir).is_ok_and(|about| about.is_dir() && about.uid() == uid));
    variable.map(PathBuf::from).filter(|dir| dir.is_dir()).or_else(usual)
}

/// The lock file of a home (canonical). Its lines are of the daemon that serves it, or did: the pid, the socket, the home.
pub fn lock_path(home: &Path) -> PathBuf {
    home.join("devnetd.lock")
}

/// Where the last daemon of `home` (canonical) served, in its own words: for a client that finds nobody at `socket_path`, since its
/// environment may be another than the daemon's was. Nobody need be there.
pub fn told_socket(home: &Path) -> Option<PathBuf> {
    let text = fs::read(lock_path(home)).ok()?;
    let mut lines = text.split(|byte| *byte == b'\n').skip(1).map(|line| Path::new(OsStr::from_bytes(line)));
    let (socket, of) = (lines.next()?, lines.next()?);
    // A home that was moved has the word of a daemon of its old place.
    (socket.is_absolute() && of == home).then(|| socket.to_owned())
}

/// The socket of the daemon that serves `home` (canonical). The default home's lies in the runtime directory where there is one;
/// any other home's lies in the home itself or, where that path is too long, in the runtime directory (else /tmp) under the
/// home's hash.
pub fn socket_path(home: &Path, user_home: &Path, runtime_dir: Option<&Path>) -> PathBuf {
    if home == default_home(user_home)
        && let Some(dir) = runtime_dir
    {
        return dir.join("devnetd.sock");
    }
    let inside = home.join("devnetd.sock");
    if inside.as_os_str().len() <= MAX_SOCKET_PATH {
        return inside;
    }
    runtime_dir.unwrap_or(Path::new("/tmp")).join(format!("devnetd-{}.sock", home_hash(home)))
}

/// 16 hex digits that name a home: in socket paths, cgroups and unit names. FNV-1a, stable over releases.
pub fn home_hash(home: &Path) -> String {
    let hash = home
        .as_os_str()
        .as_encoded_bytes()
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3));
    format!("{hash:016x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_home_uses_the_runtime_directory_and_no_other_does() {
        let user = Path::new("/home/u");
        let run = Some(Path::new("/run/user/1"));
        assert_eq!(socket_path(Path::new("/home/u/.devnet-builder"), user, run), Path::new("/run/user/1/devnetd.sock"));
        assert_eq!(socket_path(Path::new("/home/u/.devnet-builder"), user, None), Path::new("/home/u/.devnet-builder/devnetd.sock"));
        assert_eq!(socket_path(Path::new("/x"), user, run), Path::new("/x/devnetd.sock"));
    }

    #[test]
    fn a_lock_file_without_a_socket_tells_none() {
        let home = std::env::temp_dir().join(format!("dvb-told-{}", std::process::id()));
        fs::create_dir_all(&home).unwrap();
        let check = |text: &str, expect: Option<&str>| {
            fs::write(lock_path(&home), text).unwrap();
            assert_eq!(told_socket(&home).as_deref(), expect.map(Path::new), "{text:?}");
        };
        let of = home.display();
        check(&format!("42\n/run/user/1/devnetd.sock\n{of}\n"), Some("/run/user/1/devnetd.sock"));
        for text in
            ["", "42", "42\n", "42\n/run/user/1/devnetd.sock\n", "42\n/run/user/1/devnetd.sock\n/elsewhere\n", &format!("42\nno/path\n{of}\n")]
        {
            check(text, None);
        }
        fs::remove_dir_all(&home).unwrap();
        assert_eq!(told_socket(&home), None);
    }

    #[test]
    fn the_variable_names_the_runtime_directory_and_nobody_elses_is_taken() {
        assert_eq!(runtime_dir(Some("/tmp".into()), 1), Some("/tmp".into()));
        for nowhere in ["", "/no/such/folder"] {
            assert_eq!(runtime_dir(Some(nowhere.into()), u32::MAX), None);
        }
        assert_eq!(runtime_dir(None, u32::MAX), None);
    }

    #[test]
    fn a_home_too_deep_for_a_socket_gets_a_short_name() {
        let deep = PathBuf::from("/").join("d".repeat(120));
        let path = socket_path(&deep, Path::new("/home/u"), Some(Path::new("/run/user/1")));
        assert!(path.as_os_str().len() <= MAX_SOCKET_PATH && path.starts_with("/run/user/1"), "{path:?}");
    }
}
