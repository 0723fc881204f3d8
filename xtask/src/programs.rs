//! The workspace's programs, as cargo knows them.

use crate::run;
use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// Packages whose programs are for developers of this repository only.
const INTERNAL: [&str; 3] = ["xtask", "e2e", "dvb-plugin-mock"];

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Program {
    pub(crate) package: String,
    pub(crate) name: String,
}

pub(crate) struct Workspace {
    /// Cargo's output folder.
    pub(crate) target: PathBuf,
    /// What a user runs: daemon, client, plugins and what those bring.
    pub(crate) programs: Vec<Program>,
}

pub(crate) fn workspace(root: &Path) -> Result<Workspace> {
    let output = run::captured(run::cargo(root, &["metadata", "--no-deps", "--format-version", "1"]))?;
    if !output.status.success() {
        bail!("cargo metadata failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    parse(&serde_json::from_slice(&output.stdout).context("cargo metadata answers in JSON")?)
}

fn parse(metadata: &Value) -> Result<Workspace> {
    let text = |value: &Value| value.as_str().map(str::to_owned).context("cargo metadata has names");
    let mut programs = Vec::new();
    for package in metadata["packages"].as_array().context("cargo metadata lists packages")? {
        let name = text(&package["name"])?;
        for target in package["targets"].as_array().into_iter().flatten() {
            let is_bin = target["kind"].as_array().is_some_and(|kinds| kinds.iter().any(|kind| kind == "bin"));
            if is_bin && !INTERNAL.contains(&name.as_str()) {
                programs.push(Program { package: name.clone(), name: text(&target["name"])? });
            }
        }
    }
    programs.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(Workspace { target: text(&metadata["target_directory"])?.into(), programs })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_for_users_are_told_from_our_own() {
        let metadata = serde_json::json!({"target_directory": "/t", "packages": [
            {"name": "xtask", "targets": [{"kind": ["bin"], "name": "xtask"}]},
            {"name": "devnetd", "targets": [{"kind": ["lib"], "name": "devnetd"}, {"kind": ["bin"], "name": "devnetd"}]}]});
        let workspace = parse(&metadata).unwrap();
        assert_eq!(workspace.programs, [Program { package: "devnetd".into(), name: "devnetd".into() }]);
    }
}
