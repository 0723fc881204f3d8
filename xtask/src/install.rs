//! `cargo xtask install`: programs, completions and units under one prefix.

use crate::{
    programs::{Workspace, workspace},
    run,
};
use anyhow::{Context, Result, bail};
use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// Shell, and where it looks for completions below the prefix.
const COMPLETIONS: [(&str, &str); 3] = [
    ("bash", "share/bash-completion/completions/dvbctl"),
    ("zsh", "share/zsh/site-functions/_dvbctl"),
    ("fish", "share/fish/vendor_completions.d/dvbctl.fish"),
];
const UNITS: &str = "share/systemd/user";
const UNIT_KINDS: [&str; 3] = ["service", "socket", "slice"];

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Where to install
    #[arg(long, default_value = "~/.local")]
    prefix: String,
    /// Install a debug build: for trying the installation itself
    #[arg(long)]
    debug: bool,
}

pub(crate) fn run(root: &Path, args: &Args) -> Result<bool> {
    let prefix = prefix(&args.prefix, std::env::var_os("HOME").map(PathBuf::from), std::env::current_dir()?)?;
    let workspace = workspace(root)?;
    let packages: BTreeSet<&str> = workspace.programs.iter().map(|program| program.package.as_str()).collect();
    let mut build = vec!["build", "--bins"];
    if !args.debug {
        build.push("--release");
    }
    build.extend(packages.into_iter().flat_map(|package| ["-p", package]));
    if !run::shown(run::cargo(root, &build))? {
        bail!("the build failed; see above");
    }
    let built = workspace.target.join(if args.debug { "debug" } else { "release" });
    let bin = prefix.join("bin");
    install_programs(&workspace, &built, &bin)?;
    install_completions(root, &bin, &prefix)?;
    install_units(root, &bin, &prefix)?;
    run::say(&format!("\ninstalled under {}", prefix.display()));
    let on_path = std::env::var_os("PATH").is_some_and(|path| std::env::split_paths(&path).any(|folder| folder == bin));
    if !on_path {
        run::say(&format!("add it to your PATH: export PATH=\"{}:$PATH\"", bin.display()));
    }
    Ok(true)
}

/// Absolute; `~` is the user's home.
fn prefix(text: &str, home: Option<PathBuf>, cwd: PathBuf) -> Result<PathBuf> {
    match text.strip_prefix("~") {
        Some(rest) if rest.is_empty() || rest.starts_with('/') => {
            Ok(home.context("HOME is not set; give --prefix an absolute path")?.join(rest.trim_start_matches('/')))
        }
        _ => Ok(cwd.join(text)),
    }
}

/// Plugins go beside devnetd: there it looks for them.
fn install_programs(workspace: &Workspace, built: &Path, bin: &Path) -> Result<()> {
    for program in &workspace.programs {
        let to = bin.join(&program.name);
        put(&to, &fs::read(built.join(&program.name)).with_context(|| format!("{} was not built", program.name))?, 0o755)?;
    }
    Ok(())
}

fn install_completions(root: &Path, bin: &Path, prefix: &Path) -> Result<()> {
    for (shell, path) in COMPLETIONS {
        let output = run::captured(run::program(bin.join("dvbctl"), root, &["completion", shell]))?;
        if !output.status.success() || output.stdout.is_empty() {
            bail!("dvbctl completion {shell} failed: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        put(&prefix.join(path), &output.stdout, 0o644)?;
    }
    Ok(())
}

fn install_units(root: &Path, bin: &Path, prefix: &Path) -> Result<()> {
    let Ok(units) = fs::read_dir(root.join("units")) else { return Ok(()) };
    for unit in units {
        let path = unit?.path();
        if !path.extension().is_some_and(|kind| UNIT_KINDS.iter().any(|unit| kind == *unit)) {
            continue;
        }
        let (Some(name), Ok(text)) = (path.file_name(), fs::read_to_string(&path)) else { continue };
        put(&prefix.join(UNITS).join(name), text.replace("@BINDIR@", &bin.to_string_lossy()).as_bytes(), 0o644)?;
    }
    Ok(())
}

/// Written beside and renamed: a devnetd that runs keeps the file that it runs from.
fn put(to: &Path, content: &[u8], mode: u32) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let folder = to.parent().context("a file lies in a folder")?;
    let part = folder.join(format!(".{}.part", to.file_name().unwrap_or_default().to_string_lossy()));
    fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    fs::write(&part, content).with_context(|| format!("cannot write {}", part.display()))?;
    fs::set_permissions(&part, fs::Permissions::from_mode(mode)).with_context(|| format!("cannot set the mode of {}", part.display()))?;
    fs::rename(&part, to).with_context(|| format!("cannot write {}", to.display()))?;
    run::say(&to.display().to_string());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_prefix_is_absolute_and_knows_the_home() {
        let check = |text: &str, want: &str| assert_eq!(prefix(text, Some("/home/me".into()), "/cwd".into()).unwrap(), Path::new(want));
        check("~/.local", "/home/me/.local");
        check("~", "/home/me");
        check("/usr/local", "/usr/local");
        check("out", "/cwd/out");
        assert!(prefix("~/x", None, "/cwd".into()).is_err());
    }

    #[test]
    fn units_name_the_installed_programs() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("units")).unwrap();
        fs::write(dir.path().join("units/devnetd.service"), "ExecStart=@BINDIR@/devnetd\n").unwrap();
        fs::write(dir.path().join("units/Cargo.toml"), "").unwrap();
        install_units(dir.path(), Path::new("/p/bin"), &dir.path().join("p")).unwrap();
        let text = fs::read_to_string(dir.path().join("p").join(UNITS).join("devnetd.service")).unwrap();
        assert_eq!(text, "ExecStart=/p/bin/devnetd\n");
        assert!(!dir.path().join("p").join(UNITS).join("Cargo.toml").exists());
    }
}
