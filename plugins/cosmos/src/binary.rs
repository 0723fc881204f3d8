//! What the binary is and can do: SDK and CometBFT versions, address prefixes, modules. Read from the binary itself, never guessed.
//!
//! ```text
//! Initialize() ──► jobs version, prefixes, defaults, export-help ──► Chain
//!                        ├─ `keys parse` unknown ──► prefixes-debug in place of prefixes ──► Chain
//!                        └─ an EVM's module ──────► and key ──► Chain, or refused for its type of key
//! ```
//! The jobs of a round do not depend on each other; a host may run them at once. It hands over the outcomes of the last round alone.

use dvb_plugin_sdk::pb;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// The oldest SDK whose genesis and configuration this plugin writes.
pub const OLDEST: Version = Version { major: 0, minor: 47 };
/// The newest one known here; later ones are tried with a word in the log.
pub const NEWEST: Version = Version { major: 0, minor: 53 };

const VERSION_JOB: &str = "version";
const PREFIXES_JOB: &str = "prefixes";
const PREFIXES_FALLBACK_JOB: &str = "prefixes-debug";
const DEFAULTS_JOB: &str = "defaults";
const EXPORT_JOB: &str = "export-help";
const KEY_JOB: &str = "key";
const OUR_KEYS: &str = "/cosmos.crypto.secp256k1.PubKey";
/// Has the form from which EVM chains read a number.
const SOME_CHAIN_ID: &str = "probe_9000-1";
/// Chains with one of these may have keys of their own; whether they do, `keys add` tells.
const EVM_MODULES: [&str; 3] = ["evm", "vm", "feemarket"];
const ZERO_ADDRESS: &str = "0000000000000000000000000000000000000000";

#[derive(Debug, thiserror::Error)]
pub enum BinaryError {
    #[error("{path} is not a Cosmos SDK chain: `version --long --output json` {found}")]
    NotCosmos { path: String, found: String },
    #[error("{path} is built on Cosmos SDK {found}; this plugin knows {OLDEST} and later")]
    TooOld { path: String, found: String },
    #[error("{path} does not tell its address prefix: neither `keys parse` nor `debug addr` printed one ({found})")]
    NoPrefix { path: String, found: String },
    #[error(
        "{path} signs with keys of type {found}; the accounts of this plugin are secp256k1 with the coin type 118, which such a chain does not take"
    )]
    OtherKeys { path: String, found: String },
    #[error("what Initialize said of the binary is missing or unreadable: {0}")]
    State(#[from] serde_json::Error),
}

/// What later calls need to know of the chain; travels as the plugin's opaque state.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Chain {
    /// As the binary says: `v0.50.11`.
    pub sdk_version: String,
    pub binary_version: String,
    pub comet_version: String,
    pub prefixes: Prefixes,
    /// Those that have a part in the default genesis, in order. Empty: not known, as the binary wrote none without more settings.
    #[serde(default)]
    pub modules: Vec<String>,
    /// It has no command `export`.
    #[serde(default)]
    pub lacks_export: bool,
}

/// Bech32 prefixes of accounts, validators and their consensus keys.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Prefixes {
    pub account: String,
    pub validator: String,
    /// Empty where the binary does not tell it.
    #[serde(default)]
    pub consensus: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    pub major: u32,
    pub minor: u32,
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

impl Version {
    /// From `v0.50.11`, `0.53.0-rc.1` and the like.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.trim_start_matches('v').split('.');
        Some(Self { major: parts.next()?.parse().ok()?, minor: parts.next()?.parse().ok()? })
    }
}

impl Chain {
    pub fn from_state(state: &[u8]) -> Result<Self, BinaryError> {
        Ok(serde_json::from_slice(state)?)
    }

    pub fn to_state(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a struct of strings is JSON")
    }

    /// Where the modules are not known, the chain is taken to have it: then it says itself that it has not.
    pub fn has_module(&self, name: &str) -> bool {
        self.modules.is_empty() || self.modules.iter().any(|module| module == name)
    }

    /// Capabilities of this plugin that this binary has not.
    pub fn lacks(&self) -> Vec<String> {
        let lacks = [("gov", !self.has_module("gov")), ("upgrade", !self.has_module("upgrade")), ("export", self.lacks_export)];
        lacks.into_iter().filter(|(_, lacks)| *lacks).map(|(name, _)| name.to_owned()).collect()
    }

    /// Expedited proposals, and proposals that are cancelled: not in 0.47.
    pub fn has_newer_gov(&self) -> bool {
        Version::parse(&self.sdk_version) >= Some(Version { major: 0, minor: 50 })
    }

    /// 0.47 serves REST by dialling gRPC at 127.0.0.1, where a node with its own address does not listen.
    pub fn serves_rest_anywhere(&self) -> bool {
        Version::parse(&self.sdk_version) > Some(Version { major: 0, minor: 47 })
    }
}

/// The jobs to run next, or what their outcomes say.
pub enum Probe {
    Jobs(Vec<pb::Job>),
    Known(Chain),
}

/// Reads the jobs' outcomes as far as there are any.
pub fn probe(binary: &str, work_dir: &str, results: &[pb::JobResult]) -> Result<Probe, BinaryError> {
    let ask = |name: &str, arguments: &[&str]| probe_job(name, binary, arguments, work_dir);
    let first = vec![
        ask(VERSION_JOB, &["version", "--long", "--output", "json"]),
        ask(DEFAULTS_JOB, &["init", "probe", "--chain-id", SOME_CHAIN_ID]),
        ask(EXPORT_JOB, &["export", "--help"]),
    ];
    let by_keys = ask(PREFIXES_JOB, &["keys", "parse", ZERO_ADDRESS, "--output", "json"]);
    if results.is_empty() {
        return Ok(Probe::Jobs([first, vec![by_keys]].concat()));
    }
    let version = read_version(binary, results)?;
    let (prefixes, modules) = (read_prefixes(results), read_modules(&format!("{work_dir}/{DEFAULTS_JOB}")));
    let has_evm = modules.iter().any(|module| EVM_MODULES.contains(&module.as_str()));
    let (wants_key, is_last) = (has_evm && outcome(results, KEY_JOB).is_none(), outcome(results, PREFIXES_FALLBACK_JOB).is_some());
    match prefixes {
        None if is_last => Err(BinaryError::NoPrefix { path: binary.into(), found: describe(results, PREFIXES_FALLBACK_JOB) }),
        Some(prefixes) if !wants_key => {
            refuse_other_keys(binary, results)?;
            Ok(Probe::Known(Chain { prefixes, modules, lacks_export: !has_export(results), ..version }))
        }
        known => {
            let by_debug = ask(PREFIXES_FALLBACK_JOB, &["debug", "addr", ZERO_ADDRESS]);
            let prefixes = if known.is_some() && !is_last { by_keys } else { by_debug };
            let key = ask(KEY_JOB, &["keys", "add", "probe", "--dry-run", "--keyring-backend", "test", "--output", "json"]);
            Ok(Probe::Jobs(first.into_iter().chain([prefixes]).chain(has_evm.then_some(key)).collect()))
        }
    }
}

/// A job of the chain's binary that touches nothing outside `home`. Every exit code counts: the plugin reads it and explains.
pub fn job(name: &str, binary: &str, arguments: &[&str], home: &str) -> pb::Job {
    let argv = std::iter::once(binary).chain(arguments.iter().copied()).chain(["--home", home]).map(str::to_owned).collect();
    // Cosmos binaries write ~/.<app> whatever --home says.
    let env = BTreeMap::from([("HOME".to_owned(), home.to_owned())]);
    pb::Job { name: name.into(), argv, env, cwd: String::new(), timeout_ms: 60_000, ok_codes: (0..=255).collect() }
}

/// How a job ended, in words, with the first telling line that it printed.
pub fn describe(results: &[pb::JobResult], name: &str) -> String {
    let Some(result) = outcome(results, name) else { return "did not run".into() };
    let end = match (result.exit_code, result.signal) {
        (Some(0), _) => "succeeded".to_owned(),
        (Some(code), _) => format!("exited with code {code}"),
        (None, Some(signal)) => format!("died of signal {signal}"),
        (None, None) => "did not end".to_owned(),
    };
    let lines = [&result.stderr_path, &result.stdout_path].map(|path| read(path));
    match lines.iter().flat_map(|text| telling_line(text)).next() {
        Some(line) => format!("{end} and printed: {}", crate::classify::shorten(&line)),
        None => format!("{end} and printed nothing"),
    }
}

/// The outcome of the job of this name.
pub fn outcome<'a>(results: &'a [pb::JobResult], name: &str) -> Option<&'a pb::JobResult> {
    results.iter().rev().find(|r| r.name == name)
}

/// In a home of its own: each command writes default files there.
fn probe_job(name: &str, binary: &str, arguments: &[&str], work: &str) -> pb::Job {
    job(name, binary, arguments, &format!("{work}/{name}"))
}

fn read_version(binary: &str, results: &[pb::JobResult]) -> Result<Chain, BinaryError> {
    let refuse = |found: String| BinaryError::NotCosmos { path: binary.into(), found };
    let result = outcome(results, VERSION_JOB).filter(|r| r.exit_code == Some(0));
    let result = result.ok_or_else(|| refuse(describe(results, VERSION_JOB)))?;
    let version: Value = serde_json::from_str(&read(&result.stdout_path)).map_err(|_| refuse(describe(results, VERSION_JOB)))?;
    let text = |key: &str| version[key].as_str().unwrap_or_default().to_owned();
    let sdk = Some(text("cosmos_sdk_version")).filter(|v| !v.is_empty()).or_else(|| dependency(&version, "github.com/cosmos/cosmos-sdk"));
    let sdk_version = sdk.ok_or_else(|| refuse("names no cosmos_sdk_version".into()))?;
    let parsed = Version::parse(&sdk_version).ok_or_else(|| refuse(format!("names the SDK version `{sdk_version}`")))?;
    if parsed < OLDEST {
        return Err(BinaryError::TooOld { path: binary.into(), found: sdk_version });
    }
    if parsed > NEWEST {
        tracing::warn!(%sdk_version, "newer than any SDK that this plugin was tried with");
    }
    let comet_version = ["github.com/cometbft/cometbft", "github.com/cometbft/cometbft/v2"].iter().find_map(|m| dependency(&version, m));
    Ok(Chain { sdk_version, binary_version: text("version"), comet_version: comet_version.unwrap_or_default(), ..Chain::default() })
}

/// The version of a Go module in `build_deps`: "path@version" or "path@version => path@version", where the right side counts.
fn dependency(version: &Value, module: &str) -> Option<String> {
    let lines = version["build_deps"].as_array()?.iter().filter_map(Value::as_str);
    lines.filter(|line| line.split('@').next() == Some(module)).find_map(|line| Some(line.rsplit_once('@')?.1.to_owned()))
}

fn read_prefixes(results: &[pb::JobResult]) -> Option<Prefixes> {
    let from_keys = outcome(results, PREFIXES_JOB).and_then(|r| {
        let printed: Value = serde_json::from_str(&read(&r.stdout_path)).ok()?;
        // Account, its public key, validator, its public key, consensus, its public key.
        let format = |i: usize| hrp(printed["formats"][i].as_str()?);
        Some(Prefixes { account: format(0)?, validator: format(2)?, consensus: format(4).unwrap_or_default() })
    });
    from_keys.or_else(|| {
        let printed = read(&outcome(results, PREFIXES_FALLBACK_JOB)?.stdout_path);
        let labelled = |label: &str| hrp(printed.lines().find_map(|line| line.strip_prefix(label))?.trim());
        let consensus = labelled("Bech32 Con:").unwrap_or_default();
        Some(Prefixes { account: labelled("Bech32 Acc:")?, validator: labelled("Bech32 Val:")?, consensus })
    })
}

/// By the genesis that `init` left in this home. A chain whose `init` wants more than a name leaves none.
fn read_modules(home: &str) -> Vec<String> {
    let genesis: Option<Value> = serde_json::from_str(&read(&format!("{home}/config/genesis.json"))).ok();
    let state = genesis.as_ref().and_then(|genesis| genesis["app_state"].as_object());
    state.map(|state| state.keys().cloned().collect()).unwrap_or_default()
}

/// A program answers the help of a command that it has not with that of itself.
fn has_export(results: &[pb::JobResult]) -> bool {
    let Some(result) = outcome(results, EXPORT_JOB) else { return true };
    let printed = read(&result.stdout_path) + &read(&result.stderr_path);
    printed.lines().skip_while(|line| line.trim() != "Usage:").nth(1).is_some_and(|usage| usage.split_whitespace().nth(1) == Some("export"))
}

/// Only of chains that were asked for a key.
fn refuse_other_keys(binary: &str, results: &[pb::JobResult]) -> Result<(), BinaryError> {
    let printed = outcome(results, KEY_JOB).map(|result| read(&result.stdout_path) + &read(&result.stderr_path)).unwrap_or_default();
    let is_key = |word: &&str| word.starts_with("/") && word.ends_with(".PubKey");
    match printed.split(['"', '\\', ' ']).find(is_key) {
        Some(found) if found != OUR_KEYS => Err(BinaryError::OtherKeys { path: binary.into(), found: found.trim_start_matches('/').into() }),
        _ => Ok(()),
    }
}

fn hrp(address: &str) -> Option<String> {
    Some(bech32::decode(address).ok()?.0.to_string())
}

/// A missing file reads as nothing: the job then printed nothing.
fn read(path: &str) -> String {
    std::fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
}

fn telling_line(text: &str) -> Option<String> {
    let lines: Vec<_> = text.lines().map(str::trim).filter(|l| !l.is_empty()).collect();
    let error = lines.iter().find(|l| l.starts_with("Error:") || l.contains("failure when running app") || l.starts_with("panic:"));
    error.or(lines.first()).map(|l| crate::classify::plain(l.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    const VERSION: &str =
        r#"{"name":"","version":"1.2","cosmos_sdk_version":"v0.50.11","build_deps":["a/b@v1","github.com/cometbft/cometbft@v0.38.15"]}"#;
    const FORMATS: &str = concat!(
        r#"{"formats":["wasm1qqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqel32wk","wasmpub1qqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqq6n7pmk","#,
        r#""wasmvaloper1qqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqvrykqv"]}"#
    );

    fn ran(dir: &Path, name: &str, code: i32, stdout: &str, stderr: &str) -> pb::JobResult {
        let write = |stream: &str, text: &str| {
            let path = dir.join(format!("{name}.{stream}"));
            std::fs::write(&path, text).unwrap();
            path.to_str().unwrap().to_owned()
        };
        pb::JobResult { name: name.into(), exit_code: Some(code), signal: None, stdout_path: write("out", stdout), stderr_path: write("err", stderr) }
    }

    fn known(probe: Probe) -> Chain {
        match probe {
            Probe::Known(chain) => chain,
            Probe::Jobs(jobs) => panic!("asked for {jobs:?}"),
        }
    }

    #[test]
    fn versions_and_prefixes_come_from_what_the_binary_printed() {
        let dir = tempfile::tempdir().unwrap();
        let results = [ran(dir.path(), "version", 0, VERSION, "WARNING:(ast) sonic only"), ran(dir.path(), "prefixes", 0, FORMATS, "")];
        let chain = known(probe("/b", "/w", &results).unwrap());
        assert_eq!((chain.sdk_version.as_str(), chain.comet_version.as_str(), chain.binary_version.as_str()), ("v0.50.11", "v0.38.15", "1.2"));
        assert_eq!(chain.prefixes, Prefixes { account: "wasm".into(), validator: "wasmvaloper".into(), consensus: String::new() });
        assert_eq!(Chain::from_state(&chain.to_state()).unwrap(), chain);
    }

    #[test]
    fn debug_addr_tells_the_prefix_where_keys_parse_does_not() {
        let dir = tempfile::tempdir().unwrap();
        let mut results = vec![ran(dir.path(), "version", 0, VERSION, ""), ran(dir.path(), "prefixes", 1, "", "Error: unknown command")];
        let Probe::Jobs(jobs) = probe("/b", "/w", &results).unwrap() else { panic!("wants a second round") };
        assert_eq!(jobs.last().unwrap().argv, ["/b", "debug", "addr", ZERO_ADDRESS, "--home", "/w/prefixes-debug"]);
        assert_eq!(jobs[0].name, "version");
        let printed = "Address: [0 0]\nBech32 Acc: wasm1qqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqel32wk\nBech32 Val: wasmvaloper1qqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqvrykqv\n";
        results.push(ran(dir.path(), "prefixes-debug", 0, printed, ""));
        assert_eq!(known(probe("/b", "/w", &results).unwrap()).prefixes.validator, "wasmvaloper");
    }

    #[test]
    fn a_binary_that_is_no_cosmos_chain_is_named_with_what_it_printed() {
        let dir = tempfile::tempdir().unwrap();
        let check = |code, stdout: &str, stderr: &str, expect: &str| {
            let message = probe("/bin/ls", "/w", &[ran(dir.path(), "version", code, stdout, stderr)]).err().unwrap().to_string();
            assert!(message.starts_with("/bin/ls is not a Cosmos SDK chain") && message.ends_with(expect), "{message}");
        };
        check(2, "", "/bin/ls: unrecognized option '--long'\nTry", "exited with code 2 and printed: /bin/ls: unrecognized option '--long'");
        check(0, "hello\n", "", "succeeded and printed: hello");
        check(0, "", "", "succeeded and printed nothing");
        check(0, "{}", "", "names no cosmos_sdk_version");
    }

    /// What a binary with these modules and this help is taken for, when it prints keys as `key`.
    fn asked(modules: &Value, help: &str, key: &str) -> Result<Chain, BinaryError> {
        let dir = tempfile::tempdir().unwrap();
        let work = dir.path().to_str().unwrap();
        std::fs::create_dir_all(dir.path().join("defaults/config")).unwrap();
        std::fs::write(dir.path().join("defaults/config/genesis.json"), serde_json::json!({ "app_state": modules }).to_string()).unwrap();
        let answer = |job: pb::Job| {
            let printed = match job.name.as_str() {
                "version" => VERSION,
                "prefixes" => FORMATS,
                "export-help" => help,
                "key" => key,
                _ => "",
            };
            ran(dir.path(), &job.name, 0, printed, "")
        };
        let mut results = Vec::new();
        for _ in 0..3 {
            match probe("/b", work, &results)? {
                Probe::Known(chain) => return Ok(chain),
                Probe::Jobs(jobs) => results = jobs.into_iter().map(answer).collect(),
            }
        }
        panic!("asks for ever");
    }

    const EXPORTS: &str = "Export state to JSON\n\nUsage:\n  wasmd export [flags]\n\nFlags:\n";

    #[test]
    fn what_a_binary_can_do_is_read_from_its_default_genesis_and_its_help() {
        let lacks = |modules: Value, help: &str| asked(&modules, help, "").unwrap().lacks();
        let all = serde_json::json!({"bank": {}, "gov": {}, "upgrade": {}});
        assert!(lacks(all.clone(), EXPORTS).is_empty());
        assert_eq!(lacks(serde_json::json!({"bank": {}, "upgrade": {}}), EXPORTS), ["gov"]);
        assert_eq!(lacks(serde_json::json!({"bank": {}}), EXPORTS), ["gov", "upgrade"]);
        assert_eq!(lacks(all, "A chain\n\nUsage:\n  chaind [command]\n\nAvailable Commands:\n  start\n"), ["export"]);
        // `init` wrote nothing: the chain will say itself what it has not.
        assert!(lacks(Value::Null, EXPORTS).is_empty());
    }

    #[test]
    fn a_chain_whose_keys_are_of_another_type_is_refused_by_that_type() {
        let evm = serde_json::json!({"evm": {}, "gov": {}, "upgrade": {}});
        let key = |kind: &str| format!(r#"{{"name":"probe","pubkey":"{{\"@type\":\"/{kind}\",\"key\":\"A\"}}","mnemonic":"a b"}}"#);
        let refused = asked(&evm, EXPORTS, &key("ethermint.crypto.v1.ethsecp256k1.PubKey")).unwrap_err().to_string();
        assert!(refused.contains("keys of type ethermint.crypto.v1.ethsecp256k1.PubKey") && refused.contains("coin type 118"), "{refused}");
        assert!(asked(&evm, EXPORTS, &key("cosmos.crypto.secp256k1.PubKey")).is_ok(), "some have an EVM and the usual keys");
    }

    #[test]
    fn an_sdk_that_is_too_old_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let results = [ran(dir.path(), "version", 0, r#"{"cosmos_sdk_version":"v0.45.1"}"#, "")];
        assert!(matches!(probe("/b", "/w", &results), Err(BinaryError::TooOld { .. })));
    }

    #[test]
    fn a_replaced_dependency_counts_by_its_right_side() {
        let version = serde_json::json!({"build_deps": ["github.com/cosmos/cosmos-sdk@v0.50.1 => github.com/fork/cosmos-sdk@v0.50.9-fork"]});
        assert_eq!(dependency(&version, "github.com/cosmos/cosmos-sdk").as_deref(), Some("v0.50.9-fork"));
    }
}
