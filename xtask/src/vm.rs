//! `cargo xtask vm`: the programs under a real systemd, in a throw-away VM. What CI's own machine has is seldom a user manager.

use crate::{programs, run};
use anyhow::{Context, Result, bail};
use std::{fs, os::unix::fs::PermissionsExt, path::Path};

/// The programs that the guest needs.
const PROGRAMS: [&str; 3] = ["devnetd", "dvbctl", "dvb-plugin-exec"];
/// In the order in which they run: for whom, and the script.
const SCRIPTS: [(&str, &str); 3] = [("tester", "service.sh"), ("root", "logout.sh"), ("tester", "reboot.sh")];

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only this guest: bookworm (systemd 252), bookworm-backports (254) or trixie (257)
    #[arg(long, value_parser = SUITES)]
    suite: Option<String>,
}

const SUITES: [&str; 3] = ["bookworm", "bookworm-backports", "trixie"];

pub(crate) fn run(root: &Path, args: &Args) -> Result<bool> {
    if let Some(why) = lacking(root) {
        run::say(&format!("SKIP: {why}"));
        return Ok(true);
    }
    let mut build = vec!["build", "--bins"];
    build.extend(PROGRAMS.into_iter().flat_map(|program| ["-p", program]));
    if !run::shown(run::cargo(root, &build))? {
        bail!("the build failed; see above");
    }
    let shared = std::env::temp_dir().join(format!("devnetd-vm-{}", std::process::id()));
    let passed = share(root, &shared).and_then(|()| all(root, &shared, args.suite.as_deref()));
    let _ = fs::remove_dir_all(&shared);
    passed
}

fn all(root: &Path, shared: &Path, only: Option<&str>) -> Result<bool> {
    let suites = SUITES.into_iter().filter(|suite| only.is_none_or(|wanted| wanted == *suite));
    let mut ok = true;
    for suite in suites {
        for (user, script) in SCRIPTS {
            let passed = in_guest(root, shared, suite, user, script)?;
            run::say(&format!("{suite} {script}: {}", if passed { "passed" } else { "failed" }));
            ok &= passed;
        }
    }
    Ok(ok)
}

/// Why no guest can be had here.
fn lacking(root: &Path) -> Option<String> {
    let there = |tool: &str| run::exists(run::program("sh", root, &["-c", &format!("command -v {tool}")]));
    if !run::exists(run::program("sh", root, &["-c", "[ $(id -u) = 0 ]"])) {
        return Some("images of guests are built as root".into());
    }
    let missing: Vec<&str> = ["apt-get", "strip"].into_iter().filter(|tool| !there(tool)).collect();
    (!missing.is_empty()).then(|| format!("no {} here", missing.join(", no ")))
}

/// A folder with programs and scripts that everybody may read. The programs are stripped: the guest reads them through an emulated disk.
fn share(root: &Path, shared: &Path) -> Result<()> {
    let target = programs::workspace(root)?.target;
    let bin = shared.join("bin");
    fs::create_dir_all(&bin).with_context(|| format!("cannot create {}", bin.display()))?;
    for folder in [shared, &bin] {
        fs::set_permissions(folder, fs::Permissions::from_mode(0o755))?;
    }
    for program in PROGRAMS {
        let (from, to) = (target.join("debug").join(program), bin.join(program));
        let args = ["-o".as_ref(), to.as_os_str(), from.as_os_str()].map(|arg| arg.to_string_lossy().into_owned());
        if !run::shown(run::program("strip", root, &args.each_ref().map(String::as_str)))? {
            bail!("{} cannot be stripped", from.display());
        }
        fs::set_permissions(&to, fs::Permissions::from_mode(0o755))?;
    }
    for name in ["lib.sh", "service.sh", "logout.sh", "reboot.sh"] {
        fs::copy(root.join("tests/vm").join(name), shared.join(name)).with_context(|| format!("cannot copy {name}"))?;
    }
    Ok(())
}

fn in_guest(root: &Path, shared: &Path, suite: &str, user: &str, script: &str) -> Result<bool> {
    let shared = shared.to_string_lossy();
    let mut vm = run::program(root.join("tests/vm/run-in-vm.sh"), root, &[&shared, &format!("bash /shared/{script}")]);
    vm.env("VM_SUITE", suite).env("VM_USER", user);
    run::shown(vm)
}
