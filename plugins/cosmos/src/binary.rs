//! What the binary is: SDK and CometBFT versions, address prefixes. Read from the binary itself, never guessed.
//!
//! ```text
//! Initialize() ──► jobs version, prefixes ──► Chain
//!                        └─ `keys parse` unknown ──► jobs version, prefixes-debug ──► Chain
//! ```
//! The jobs of a round do not depend on each other; a host may run them at once.

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
const ZERO_ADDRESS: &str = "0000000000000000000000000000000000000000";

#[derive(Debug, thiserror::Error)]
pub enum BinaryError {
    #[error("{path} is not a Cosmos SDK chain: `version --long --output json` {found}")]
    NotCosmos { path: String, found: String },
    #[error("{path} is built on Cosmos SDK {found}; this plugin knows {OLDEST} and later")]
    TooOld { path: String, found: String },
    #[error("{path} does not tell its address prefix: neither `keys parse` nor `debug addr` printed one ({found})")]
    NoPrefix { path: String, found: String },
    #[error("what Initialize said of the binary is missing or unreadable: {0}")]
    State(#[from] serde_json::Error),
}

/// What later calls need to know of the chain; travels as the plugin's opaque state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Chain {
    /// As the binary says: `v0.50.11`.
    pub sdk_version: String,
    pub binary_version: String,
    pub comet_version: String,
    pub prefixes: Prefixes,
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
    if results.is_empty() {
        return Ok(Probe::Jobs(vec![version_job(binary, work_dir), prefixes_job(binary, work_dir)]));
    }
    let version = read_version(binary, results)?;
    match read_prefixes(results) {
        Some(prefixes) => Ok(Probe::Known(Chain { prefixes, ..version })),
        None if outcome(results, PREFIXES_FALLBACK_JOB).is_none() => {
            Ok(Probe::Jobs(vec![version_job(binary, work_dir), prefixes_fallback_job(binary, work_dir)]))
        }
        None => Err(BinaryError::NoPrefix { path: binary.into(), found: describe(results, PREFIXES_FALLBACK_JOB) }),
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

fn version_job(binary: &str, work: &str) -> pb::Job {
    probe_job(VERSION_JOB, binary, &["version", "--long", "--output", "json"], work)
}

fn prefixes_job(binary: &str, work: &str) -> pb::Job {
    probe_job(PREFIXES_JOB, binary, &["keys", "parse", ZERO_ADDRESS, "--output", "json"], work)
}

fn prefixes_fallback_job(binary: &str, work: &str) -> pb::Job {
    probe_job(PREFIXES_FALLBACK_JOB, binary, &["debug", "addr", ZERO_ADDRESS], work)
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
    let prefixes = Prefixes::default();
    Ok(Chain { sdk_version, binary_version: text("version"), comet_version: comet_version.unwrap_or_default(), prefixes })
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
        assert_eq!(jobs[1].argv, ["/b", "debug", "addr", ZERO_ADDRESS, "--home", "/w/prefixes-debug"]);
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
