//! `cargo xtask vm`: the programs under a real systemd, in a throw-away VM. What CI's own machine has is seldom a user manager.

use crate::{programs, run};
use anyhow::{Context, Result, bail};
use std::{
    collections::BTreeSet,
    fs,
    io::{BufRead, BufReader},
    os::unix::fs::PermissionsExt,
    path::Path,
    process::Stdio,
};

/// The programs that the guest needs.
const PROGRAMS: [&str; 5] = ["devnetd", "dvbctl", "dvb-plugin-exec", "dvb-plugin-commonware", "devchain"];
/// The packages that they come from.
const PACKAGES: [&str; 4] = ["devnetd", "dvbctl", "dvb-plugin-exec", "dvb-plugin-commonware"];
/// In the order in which they run: for whom, the script, and the items of the table that it says it has covered.
const SCRIPTS: [(&str, &str, &[&str]); 5] = [
    (
        "tester",
        "service.sh",
        &["socket", "journal", "limits", "chain-limits", "devnet-limits", "OOM", "freeze", "restart", "reload", "crash", "watchdog", "uninstall"],
    ),
    ("root", "logout.sh", &["logout"]),
    ("root", "doctor.sh", &["doctor"]),
    ("tester", "sleep.sh", &["sleep"]),
    ("tester", "reboot.sh", &["reboot"]),
];

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only this guest: bookworm (systemd 252), bookworm-backports (254) or trixie (257)
    #[arg(long, value_parser = SUITES)]
    suite: Option<String>,
    /// Only this script, as in sleep.sh
    #[arg(long)]
    script: Option<String>,
}

const SUITES: [&str; 3] = ["bookworm", "bookworm-backports", "trixie"];
/// Their systemds.
const VERSIONS: [&str; 3] = ["252", "254", "257"];

pub(crate) fn run(root: &Path, args: &Args) -> Result<bool> {
    if let Some(why) = lacking(root) {
        run::say(&format!("SKIP: {why}"));
        return Ok(true);
    }
    let mut build = vec!["build", "--bins"];
    build.extend(PACKAGES.into_iter().flat_map(|package| ["-p", package]));
    if !run::shown(run::cargo(root, &build))? {
        bail!("the build failed; see above");
    }
    let shared = std::env::temp_dir().join(format!("devnetd-vm-{}", std::process::id()));
    let passed = share(root, &shared).and_then(|()| all(root, &shared, args));
    let _ = fs::remove_dir_all(&shared);
    passed
}

/// Every script in every guest; then a line of the table for each.
fn all(root: &Path, shared: &Path, args: &Args) -> Result<bool> {
    let wanted = |only: &Option<String>, name: &str| only.as_deref().is_none_or(|only| only == name);
    let (mut table, mut ok) = (Vec::new(), true);
    for (suite, version) in SUITES.into_iter().zip(VERSIONS).filter(|(suite, _)| wanted(&args.suite, suite)) {
        let mut line = format!("systemd {version}");
        for (user, script, items) in SCRIPTS.into_iter().filter(|(_, script, _)| wanted(&args.script, script)) {
            let (passed, covered) = in_guest(root, shared, suite, user, script)?;
            run::say(&format!("{suite} {script}: {}", if passed { "passed" } else { "failed" }));
            line.push_str(&cells(items, &covered));
            ok &= passed && items.iter().all(|item| covered.contains(*item));
        }
        table.push(line);
    }
    if table.is_empty() || table.iter().any(|line| !line.contains('|')) {
        bail!("no such script; there are {}", SCRIPTS.map(|(_, script, _)| script).join(", "));
    }
    table.iter().for_each(|line| run::say(line));
    Ok(ok)
}

fn cells(items: &[&str], covered: &BTreeSet<String>) -> String {
    items.iter().map(|item| format!(" | {item} {}", if covered.contains(*item) { "ok" } else { "FAILED" })).collect()
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
    for name in SCRIPTS.map(|(_, script, _)| script).into_iter().chain(["lib.sh"]) {
        fs::copy(root.join("tests/vm").join(name), shared.join(name)).with_context(|| format!("cannot copy {name}"))?;
    }
    Ok(())
}

/// Whether the script passed, and what it says that it has covered. Its words go on to the reader.
fn in_guest(root: &Path, shared: &Path, suite: &str, user: &str, script: &str) -> Result<(bool, BTreeSet<String>)> {
    let shared = shared.to_string_lossy();
    let mut vm = run::program(root.join("tests/vm/run-in-vm.sh"), root, &[&shared, &format!("bash /shared/{script}")]);
    vm.env("VM_SUITE", suite).env("VM_USER", user).stdout(Stdio::piped());
    run::note(&format!("$ {}", run::words(&vm)));
    let mut vm = vm.spawn().context("cannot run run-in-vm.sh")?;
    let mut covered = BTreeSet::new();
    for line in BufReader::new(vm.stdout.take().context("no output of run-in-vm.sh")?).lines() {
        let line = line.context("cannot read what the guest says")?;
        match line.strip_prefix("covered ") {
            Some(item) => drop(covered.insert(item.to_owned())),
            None => run::say(&line),
        }
    }
    Ok((vm.wait().context("cannot wait for run-in-vm.sh")?.success(), covered))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_script_does_not_say_it_covered_has_failed() {
        let covered = BTreeSet::from(["OOM".to_owned()]);
        assert_eq!(cells(&["limits", "OOM"], &covered), " | limits FAILED | OOM ok");
    }

    #[test]
    fn every_item_of_the_table_is_said_by_its_script_and_by_no_other() {
        let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/vm");
        for (_, script, items) in SCRIPTS {
            let text = fs::read_to_string(scripts.join(script)).unwrap();
            let said: BTreeSet<&str> = text.lines().filter_map(|line| line.strip_prefix("covers ")).flat_map(str::split_whitespace).collect();
            assert_eq!(said, items.iter().copied().collect(), "{script}");
        }
    }
}
