//! The systemd user units of devnetd, and the user manager that runs them.
//!
//! Daemon and client share it: the client installs and starts the units, the daemon asks for the scope that its nodes live in.

mod manager;
mod wire;

pub use manager::{ManagerError, NewScope, UnitState, UserManager};

use std::path::Path;

pub const SERVICE: &str = "devnetd.service";
pub const SOCKET: &str = "devnetd.socket";
/// All nodes of all homes of a user lie below it.
pub const SLICE: &str = "devnet.slice";

/// Name and text of each unit, for a devnetd that lies in `bin`.
pub fn units(bin: &Path) -> [(&'static str, String); 3] {
    let bin = escape(&bin.to_string_lossy());
    [
        (SERVICE, include_str!("../devnetd.service").replace("@BINDIR@", &bin)),
        (SOCKET, include_str!("../devnetd.socket").to_owned()),
        (SLICE, include_str!("../devnet.slice").to_owned()),
    ]
}

/// The scope of one home: its nodes' cgroups lie in it.
pub fn node_scope(home_hash: &str) -> String {
    format!("devnet-{home_hash}.scope")
}

/// The scope of a daemon that was not started by the user manager.
pub fn daemon_scope(home_hash: &str) -> String {
    format!("devnetd-{home_hash}.scope")
}

/// Has the system manager delegate the controllers that limits need to a user's manager. `set-property` cannot: it takes neither a
/// template nor `Delegate`. The restart ends whatever the user runs; a reboot does as well.
pub fn delegation_remedy(uid: u32) -> String {
    let folder = "/etc/systemd/system/user@.service.d";
    format!(
        "sudo mkdir -p {folder} && printf '[Service]\\nDelegate=cpu memory pids\\n' | sudo tee {folder}/delegate.conf && \
         sudo systemctl daemon-reload && sudo systemctl restart user@{uid}.service"
    )
}

/// Has a user's manager outlive the user's sessions. Only with polkit may users ask for that themselves.
pub fn linger_remedy(user: &str) -> String {
    format!("loginctl enable-linger || sudo loginctl enable-linger {user}")
}

/// A path in a command line of a unit: specifiers, variables, quotes and white space are meant literally.
fn escape(path: &str) -> String {
    let mut escaped = String::new();
    for c in path.chars() {
        match c {
            '%' | '$' => escaped.extend([c, c]),
            '\\' => escaped.push_str("\\\\"),
            ' ' => escaped.push_str("\\x20"),
            '\t' => escaped.push_str("\\x09"),
            '\n' => escaped.push_str("\\x0a"),
            '"' => escaped.push_str("\\x22"),
            '\'' => escaped.push_str("\\x27"),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(bin: &str) -> String {
        units(Path::new(bin))[0].1.clone()
    }

    #[test]
    fn the_service_names_the_installed_program_also_at_an_odd_place() {
        assert!(service("/home/me/.local/bin").contains("\nExecStart=/home/me/.local/bin/devnetd\n"));
        assert!(service("/a b/100%/$x/\"q\"").contains("\nExecStart=/a\\x20b/100%%/$$x/\\x22q\\x22/devnetd\n"));
    }

    #[test]
    fn the_service_is_not_delegated_a_cgroup_for_then_a_restart_of_it_would_fail() {
        let text = service("/bin");
        assert!(!text.lines().any(|line| line.starts_with("Delegate") || line.starts_with("KillMode")), "{text}");
    }
}
