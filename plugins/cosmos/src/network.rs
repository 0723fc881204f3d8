//! Named network profiles, `spec.network: NAME`: what a chain wants beyond the defaults of its binary.
//!
//! ```json
//! {"genesis": {"app_state": {"gov": {"params": {"voting_period": "30s"}}}}, "config": {"app.toml": {"pruning": "nothing"}}}
//! ```
//! A file `networks/NAME.json` in the daemon's home, or beside this program. `genesis` is merged into the genesis before the spec's own
//! patch, `config` into every node's files before the spec's own settings. It is read once, when the genesis is made.

use crate::{config, genesis};
use dvb_plugin_sdk::pb;
use serde::Deserialize;
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

const FOLDER: &str = "networks";

#[derive(Debug, thiserror::Error)]
pub enum ProfileError {
    #[error("there is no network profile `{name}`: {}", choices(.known))]
    Unknown { name: String, known: Vec<String> },
    #[error("cannot read the network profile {path}: {source}")]
    Read { path: PathBuf, source: std::io::Error },
    #[error("the network profile {path} {reason}")]
    Invalid { path: PathBuf, reason: String },
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Profile {
    /// JSON merge patch.
    pub genesis: Option<Value>,
    /// File name to settings.
    pub config: BTreeMap<String, Value>,
}

impl Profile {
    /// The settings in the form of `spec.nodes[].config`.
    pub fn settings(&self) -> String {
        serde_json::to_string(&self.config).expect("JSON values with text as keys are JSON")
    }
}

/// Where profiles lie, the first hit counts: the daemon's home, then beside this program.
pub fn folders() -> Vec<PathBuf> {
    let home = std::env::var_os("DVB_HOME").map(PathBuf::from);
    let beside = std::env::current_exe().ok().and_then(|program| Some(program.parent()?.to_owned()));
    home.into_iter().chain(beside).map(|folder| folder.join(FOLDER)).collect()
}

/// The names that a spec may use.
pub fn names(folders: &[PathBuf]) -> Vec<String> {
    let files = folders.iter().filter_map(|folder| std::fs::read_dir(folder).ok()).flatten().flatten();
    let names = files.filter_map(|file| Some(file.file_name().to_str()?.strip_suffix(".json")?.to_owned()));
    names.collect::<BTreeSet<_>>().into_iter().collect()
}

/// The profile of this name; the empty one for no name.
pub fn load(name: &str, folders: &[PathBuf]) -> Result<Profile, ProfileError> {
    if name.is_empty() {
        return Ok(Profile::default());
    }
    let file = format!("{name}.json");
    let is_name = !name.starts_with('.') && name.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c));
    let found = folders.iter().map(|folder| folder.join(&file)).find(|path| is_name && path.is_file());
    let path = found.ok_or_else(|| ProfileError::Unknown { name: name.to_owned(), known: names(folders) })?;
    read(&path)
}

/// What is wrong with `spec.network`.
pub fn violation(name: &str, folders: &[PathBuf]) -> Option<pb::Violation> {
    let error = load(name, folders).err()?;
    let suggestion = "leave it out, or write networks/NAME.json into the daemon's home";
    Some(pb::Violation { field: "spec.network".into(), message: error.to_string(), suggestion: suggestion.into() })
}

fn read(path: &Path) -> Result<Profile, ProfileError> {
    let text = std::fs::read(path).map_err(|source| ProfileError::Read { path: path.to_owned(), source })?;
    let invalid = |reason: String| ProfileError::Invalid { path: path.to_owned(), reason };
    let profile: Profile = serde_json::from_slice(&text).map_err(|e| invalid(format!("is not a profile: {e}")))?;
    if let Some(patch) = &profile.genesis {
        genesis::check_patch(patch).map_err(|e| invalid(e.to_string()))?;
    }
    config::parse_overrides(&profile.settings()).map_err(invalid)?;
    Ok(profile)
}

fn choices(names: &[String]) -> String {
    if names.is_empty() { "there are none".to_owned() } else { format!("there are {}", names.join(", ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (name, content) in files {
            std::fs::write(dir.path().join(name), content).unwrap();
        }
        dir
    }

    #[test]
    fn the_homes_profile_comes_before_the_shipped_one_and_no_name_is_no_profile() {
        let home = folder(&[("quick.json", r#"{"genesis": {"app_state": {}}, "config": {"app.toml": {"pruning": "nothing"}}}"#)]);
        let shipped = folder(&[("quick.json", "{}"), ("slow.json", "{}"), ("notes.txt", "")]);
        let folders = [home.path().to_owned(), shipped.path().to_owned()];
        let quick = load("quick", &folders).unwrap();
        assert_eq!(quick.genesis, Some(serde_json::json!({"app_state": {}})));
        assert_eq!(quick.settings(), r#"{"app.toml":{"pruning":"nothing"}}"#);
        assert_eq!(load("slow", &folders).unwrap(), Profile::default());
        assert_eq!(load("", &folders).unwrap(), Profile::default());
        assert_eq!(names(&folders), ["quick", "slow"]);
        assert_eq!(violation("quick", &folders), None);
    }

    #[test]
    fn a_profile_that_cannot_be_used_is_named_with_its_fault() {
        let dir = folder(&[
            ("broken.json", "{"),
            ("odd.json", r#"{"genesys": {}}"#),
            ("id.json", r#"{"genesis": {"chain_id": "x"}}"#),
            ("file.json", r#"{"config": {"nginx.conf": {}}}"#),
        ]);
        let folders = [dir.path().to_owned()];
        let check = |name: &str, expect: &str| {
            let violation = violation(name, &folders).unwrap();
            assert!(violation.field == "spec.network" && violation.message.contains(expect), "{}", violation.message);
        };
        check("osmosis", "there is no network profile `osmosis`: there are broken, file, id, odd");
        check("../id", "there is no network profile `../id`");
        check("broken", "broken.json is not a profile");
        check("odd", "unknown field `genesys`");
        check("id", "set spec.chainId");
        check("file", "there is no file `nginx.conf`");
    }
}
