//! Where the client API is served: the one rule that client and daemon must agree on before they can speak.

use std::path::{Path, PathBuf};

/// The longest path that fits into a socket address (108 bytes with the terminating zero).
const MAX_SOCKET_PATH: usize = 107;

/// Metadata of a call: the canonical home that the client means. A daemon that serves another refuses the call.
pub const HOME_KEY: &str = "dvb-home-bin";

/// The home when nothing else is said: `~/.devnet-builder`.
pub fn default_home(user_home: &Path) -> PathBuf {
    user_home.join(".devnet-builder")
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
    fn a_home_too_deep_for_a_socket_gets_a_short_name() {
        let deep = PathBuf::from("/").join("d".repeat(120));
        let path = socket_path(&deep, Path::new("/home/u"), Some(Path::new("/run/user/1")));
        assert!(path.as_os_str().len() <= MAX_SOCKET_PATH && path.starts_with("/run/user/1"), "{path:?}");
    }
}
