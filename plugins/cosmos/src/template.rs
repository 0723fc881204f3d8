//! What `init` made, kept for the next devnet of the same binary, which then needs no run of it.
//!
//! ```text
//! first devnet:  init ──► work/template/config/* ──► keep/init-….json      (the host keeps it beside what it knows of the binary)
//! later ones:             work/template/config/* ◄── kept/init-….json
//! ```
//! `init` knows nothing but the binary and the chain id, and we set the id ourselves. A template that mentions its id where we do not
//! set it, or whose id has the form from which EVM chains read a number, is kept for that id alone.

use crate::homes::HomesError;
use dvb_plugin_sdk::{sha256_hex, write_staged};
use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

/// In the staging folder, where `init` writes.
pub(crate) const TEMPLATE: &str = "work/template";
/// Keys that `init` drew at random; ours come from the seed.
const DRAWN: [&str; 2] = ["node_key.json", "priv_validator_key.json"];
const LARGEST: u64 = 4 << 20;

/// File name below `config/` to text.
type Files = BTreeMap<String, String>;

/// Lays out what an earlier `init` of this binary made; false when there is nothing that fits, and `init` has to run.
pub(crate) fn unpack(staging: &Path, chain_id: &str) -> Result<bool, HomesError> {
    let kept = staging.join("kept");
    let found = [name_for(chain_id), name_for_all(chain_id)].into_iter().flatten().find_map(|name| fs::read(kept.join(name)).ok());
    let Some(files) = found.and_then(|bytes| serde_json::from_slice::<Files>(&bytes).ok()) else { return Ok(false) };
    for (name, text) in files {
        write_staged(staging, &format!("{TEMPLATE}/config/{name}"), text.as_bytes(), 0o644)?;
    }
    Ok(true)
}

/// Leaves what `init` made for the host to keep. What is large or not text is not kept: then the next devnet runs `init` again.
pub(crate) fn pack(staging: &Path, chain_id: &str) -> Result<(), HomesError> {
    let config = staging.join(TEMPLATE).join("config");
    let Some(mut files) = read(&config).map_err(|error| HomesError::Read { path: config.clone(), reason: error.to_string() })? else {
        return Ok(());
    };
    let own = || name_for(chain_id);
    files.entry("genesis.json".into()).and_modify(forget_its_time);
    let name = if mentions(&files, chain_id) { own() } else { name_for_all(chain_id).or_else(own) };
    if let Some(name) = name {
        let json = serde_json::to_vec(&files).expect("text by text is JSON");
        write_staged(staging, &format!("keep/{name}"), &json, 0o644)?;
    }
    Ok(())
}

/// The time of that `init`; ours is the spec's. So what is kept follows from the binary alone.
fn forget_its_time(genesis: &mut String) {
    if let Ok(mut json) = serde_json::from_str::<serde_json::Value>(genesis)
        && let Some(time) = json.get_mut("genesis_time")
    {
        *time = "0001-01-01T00:00:00Z".into();
        *genesis = json.to_string();
    }
}

fn read(config: &Path) -> io::Result<Option<Files>> {
    let mut files = Files::new();
    for entry in fs::read_dir(config)? {
        let (path, size): (PathBuf, u64) = entry.and_then(|entry| Ok((entry.path(), entry.metadata()?.len())))?;
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if !path.is_file() || DRAWN.contains(&name.as_str()) {
            continue;
        }
        if size > LARGEST {
            return Ok(None);
        }
        match String::from_utf8(fs::read(&path)?) {
            Ok(text) => drop(files.insert(name, text)),
            Err(_) => return Ok(None),
        }
    }
    Ok(Some(files))
}

/// Whether the chain's id stands where we do not set it: more than once in its genesis and its client's settings, or elsewhere.
fn mentions(files: &Files, chain_id: &str) -> bool {
    let ours = |name: &str| usize::from(matches!(name, "genesis.json" | "client.toml"));
    files.iter().any(|(name, text)| text.matches(chain_id).count() > ours(name))
}

fn name_for(chain_id: &str) -> Option<String> {
    (!chain_id.is_empty()).then(|| format!("init-{}.json", &sha256_hex(chain_id.as_bytes())[..16]))
}

/// None for `evmos_9000-1` and its like: the number in it becomes part of the defaults.
fn name_for_all(chain_id: &str) -> Option<String> {
    (!chain_id.is_empty() && !chain_id.contains('_')).then(|| "init.json".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the first devnet, `first`, leaves to the second one, by name of its files.
    fn kept(first: &str, files: &[(&str, &[u8])], second: &str) -> Option<Vec<String>> {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let config = one.path().join(TEMPLATE).join("config");
        fs::create_dir_all(&config).unwrap();
        for (name, bytes) in files {
            fs::write(config.join(name), bytes).unwrap();
        }
        pack(one.path(), first).unwrap();
        if one.path().join("keep").exists() {
            fs::rename(one.path().join("keep"), two.path().join("kept")).unwrap();
        }
        if !unpack(two.path(), second).unwrap() {
            return None;
        }
        let config = two.path().join(TEMPLATE).join("config");
        let mut names: Vec<_> = fs::read_dir(&config).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        for name in &names {
            let before = files.iter().find(|(other, _)| other == name).unwrap().1;
            assert_eq!(fs::read(config.join(name)).unwrap(), before, "{name}");
        }
        Some(names)
    }

    const PLAIN: [(&str, &[u8]); 4] = [
        ("genesis.json", br#"{"chain_id": "one-1", "app_state": {}}"#),
        ("client.toml", b"chain-id = \"one-1\"\n"),
        ("app.toml", b"# defaults\n"),
        ("node_key.json", b"{}"),
    ];

    #[test]
    fn another_devnet_of_the_binary_gets_the_same_files_and_no_key() {
        let want = Some(["app.toml", "client.toml", "genesis.json"].map(str::to_owned).to_vec());
        assert_eq!(kept("one-1", &PLAIN, "two-1"), want);
        assert_eq!(kept("one-1", &PLAIN, "one-1"), want);
    }

    #[test]
    fn a_template_that_depends_on_its_chains_id_is_for_that_id_alone() {
        let mut files = PLAIN;
        files[2].1 = b"evm-chain-of = \"one-1\"\n";
        assert!(kept("one-1", &files, "one-1").is_some() && kept("one-1", &files, "two-1").is_none());
        assert!(kept("one_9000-1", &PLAIN, "one_9000-1").is_some());
        assert!(kept("one_9000-1", &PLAIN, "one_9001-1").is_none() && kept("one-1", &PLAIN, "one_9000-1").is_none());
    }

    #[test]
    fn what_is_no_text_is_not_kept_and_what_is_damaged_is_not_used() {
        let mut files = PLAIN;
        files[2] = ("app.bin", &[0xff, 0xfe]);
        assert_eq!(kept("one-1", &files, "one-1"), None);
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("kept")).unwrap();
        fs::write(dir.path().join("kept/init.json"), "{").unwrap();
        assert!(!unpack(dir.path(), "one-1").unwrap());
    }
}
