//! Flags and environment, resolved once: which home, which socket, and how to print.

use crate::{
    cli::{Format, Global},
    document::Environment,
    error::Error,
};
use dvb_proto::endpoint;
use std::{
    collections::HashMap,
    io::IsTerminal,
    path::{Path, PathBuf},
    time::Duration,
};

/// The longest path that fits into a socket address.
const MAX_SOCKET_PATH: usize = 107;
/// What a verb waits when `--timeout` is not given.
const DEFAULT_WAIT: Duration = Duration::from_secs(300);

#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// Canonical.
    pub(crate) home: PathBuf,
    /// By a flag or DVB_HOME: then it may be misspelt.
    pub(crate) home_is_named: bool,
    pub(crate) socket: PathBuf,
    /// The socket was made from the home, so a daemon of the home that serves elsewhere is as good.
    pub(crate) any_socket: bool,
    /// Empty when only a socket was named: then any home of the daemon's is right.
    pub(crate) expected_home: String,
    pub(crate) runtime_dir: Option<PathBuf>,
    pub(crate) cwd: PathBuf,
    pub(crate) namespace: String,
    pub(crate) all_namespaces: bool,
    pub(crate) format: Format,
    pub(crate) verbose: bool,
    pub(crate) timeout: Option<Duration>,
    pub(crate) stdout: Terminal,
    pub(crate) stderr: Terminal,
    pub(crate) env: Environment,
}

/// What a stream can show.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Terminal {
    pub(crate) is_terminal: bool,
    pub(crate) color: bool,
    pub(crate) width: Option<u16>,
}

impl Settings {
    pub(crate) fn resolve(global: &Global, vars: HashMap<String, String>) -> Result<Self, Error> {
        // In the environment of a node, DVB_ADDRESS is the node's own address.
        let own = vars.get("DVB_ADDRESS").filter(|_| vars.contains_key("DVB_LAUNCH_ID"));
        if let Some(address) = global.address.as_ref().filter(|address| Some(*address) != own) {
            return Err(Error::usage(format!("devnetd does not serve TCP yet, so `{address}` cannot be reached"))
                .with_remedy("leave out --address and DVB_ADDRESS; on another machine: ssh HOST dvbctl ..."));
        }
        let cwd = std::env::current_dir().map_err(|error| Error::file(".", &error))?;
        let user_home = vars.get("HOME").filter(|home| !home.is_empty()).map(PathBuf::from);
        let runtime_dir = endpoint::runtime_dir(vars.get("XDG_RUNTIME_DIR").map(Into::into), nix::unistd::geteuid().as_raw());
        let wanted = match (&global.home, &user_home) {
            (Some(home), _) => cwd.join(home),
            (None, Some(user)) => endpoint::default_home(user),
            (None, None) => return Err(Error::usage("HOME is not set, so there is no default home").with_remedy("dvbctl --home DIR ...")),
        };
        let home = canonical(&wanted);
        let user = canonical(&user_home.clone().unwrap_or_default());
        let socket = match &global.socket {
            Some(socket) => cwd.join(socket),
            None => endpoint::socket_path(&home, &user, runtime_dir.as_deref()),
        };
        if socket.as_os_str().len() > MAX_SOCKET_PATH {
            return Err(Error::usage(format!(
                "the socket path is {} bytes long, more than the {MAX_SOCKET_PATH} that the system takes: {}",
                socket.as_os_str().len(),
                socket.display()
            ))
            .with_remedy("a shorter --socket, or none: then dvbctl finds a short one by itself"));
        }
        let any_home = global.socket.is_some() && global.home.is_none();
        let no_color = global.no_color || vars.get("NO_COLOR").is_some_and(|value| !value.is_empty());
        let dumb = vars.get("TERM").is_some_and(|term| term == "dumb");
        let terminal = |is_terminal: bool, width: Option<u16>| Terminal { is_terminal, color: is_terminal && !no_color && !dumb, width };
        Ok(Self {
            expected_home: if any_home { String::new() } else { home.to_string_lossy().into_owned() },
            home,
            home_is_named: global.home.is_some(),
            socket,
            any_socket: global.socket.is_none(),
            runtime_dir,
            namespace: global.namespace.clone().unwrap_or_else(|| "default".to_owned()),
            all_namespaces: global.all_namespaces,
            format: global.output,
            verbose: global.verbose,
            timeout: global.timeout,
            stdout: terminal(std::io::stdout().is_terminal(), console_width(&std::io::stdout())),
            stderr: terminal(std::io::stderr().is_terminal(), console_width(&std::io::stderr())),
            env: Environment { vars, home: user_home },
            cwd,
        })
    }

    /// How long a verb that waits may take; None is for ever.
    pub(crate) fn wait_limit(&self) -> Option<Duration> {
        match self.timeout {
            Some(Duration::ZERO) => None,
            Some(limit) => Some(limit),
            None => Some(DEFAULT_WAIT),
        }
    }

    pub(crate) fn daemon_log(&self) -> PathBuf {
        self.home.join("logs/devnetd.log")
    }
}

/// The canonical form also of a path whose last parts do not exist yet.
fn canonical(path: &Path) -> PathBuf {
    if let Ok(path) = path.canonicalize() {
        return path;
    }
    match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) => canonical(parent).join(name),
        _ => path.to_owned(),
    }
}

fn console_width(stream: &impl IsTerminal) -> Option<u16> {
    // comfy-table asks the kernel by way of crossterm, for stdout first; only a terminal has a width, and not every one knows it: a
    // width of 0 (script, some CI) means that nothing need be cut.
    stream.is_terminal().then(|| comfy_table::Table::new().width()).flatten().filter(|width| *width > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{cli::Cli, error::Exit};
    use clap::Parser;

    fn resolve(args: &[&str]) -> Result<Settings, Error> {
        let args = ["dvbctl"].iter().chain(args).chain(&["get"]);
        let vars = HashMap::from([("HOME".to_owned(), "/nonexistent/u".to_owned())]);
        Settings::resolve(&Cli::parse_from(args).global, vars)
    }

    #[test]
    fn a_socket_alone_takes_whatever_home_its_daemon_has() {
        let settings = resolve(&["--socket", "/run/x.sock"]).unwrap();
        assert_eq!((settings.expected_home.as_str(), settings.socket.to_str().unwrap()), ("", "/run/x.sock"));
        let settings = resolve(&["--socket", "/run/x.sock", "--home", "/nonexistent/h"]).unwrap();
        assert_eq!(settings.expected_home, "/nonexistent/h");
    }

    #[test]
    fn a_socket_path_too_long_is_refused_with_its_length() {
        let error = resolve(&["--socket", &format!("/{}", "s".repeat(200))]).unwrap_err();
        assert_eq!(error.exit, Exit::Usage);
        assert!(error.fault.message.contains("201 bytes"), "{}", error.fault.message);
    }

    #[test]
    fn a_home_too_deep_for_a_socket_still_has_one() {
        let settings = resolve(&["--home", &format!("/nonexistent/{}", "d".repeat(150))]).unwrap();
        assert!(settings.socket.as_os_str().len() <= MAX_SOCKET_PATH, "{:?}", settings.socket);
    }

    #[test]
    fn tcp_is_refused_honestly() {
        assert_eq!(resolve(&["--address", "host:1"]).unwrap_err().exit, Exit::Usage);
    }

    #[test]
    fn a_service_can_use_dvbctl_although_its_own_address_has_the_same_name() {
        let resolve = |address: &str| {
            let vars = [("HOME", "/nonexistent/u"), ("DVB_ADDRESS", "127.64.0.9"), ("DVB_LAUNCH_ID", "l1")];
            let vars = vars.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
            Settings::resolve(&Cli::parse_from(["dvbctl", "--address", address, "get"]).global, vars)
        };
        assert!(resolve("127.64.0.9").is_ok());
        assert_eq!(resolve("host:1").unwrap_err().exit, Exit::Usage);
    }
}
