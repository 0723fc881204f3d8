//! Builds a program from a Go module: a module of our own that requires it, with its `replace` lines and its toolchain.
//!
//! `go install package@version` refuses modules with `replace` lines, and chains have them. Ours takes over those lines (but not
//! the relative ones, which mean folders that are not there), so the dependencies are the ones that the module's authors tested.

use super::{
    BinaryError,
    tool::{self, Bench, Step},
};
use crate::model::GoModule;
use serde::Deserialize;
use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

const BUILD_TIMEOUT: Duration = Duration::from_secs(30 * 60);
const STEP_TIMEOUT: Duration = Duration::from_secs(10 * 60);
const INSTALL_GO: &str =
    "install Go 1.21 or newer (https://go.dev/doc/install, or your distribution's package `golang`), and let devnetd's PATH name it";

/// What `go mod download -json` says.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Downloaded {
    version: String,
    go_mod: PathBuf,
}

/// What `go mod edit -json` says of the module's own go.mod.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct GoMod {
    go: Option<String>,
    toolchain: Option<Toolchain>,
    replace: Option<Vec<Replace>>,
    exclude: Option<Vec<Module>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Toolchain {
    name: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Replace {
    old: Module,
    new: Module,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Module {
    path: String,
    version: String,
}

pub(super) fn describe(source: &GoModule) -> String {
    format!("goModule {}@{}", source.module, source.version)
}

/// True for a version that always means the same: `v1.2.3`, not `latest` or a branch.
pub(super) fn is_pinned(version: &str) -> bool {
    let core = version.strip_prefix('v').unwrap_or_default().split(['-', '+']).next().unwrap_or_default();
    core.split('.').count() == 3 && core.split('.').all(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()))
}

pub(super) fn check(source: &GoModule) -> Result<(), BinaryError> {
    let words = [&source.module, &source.version].into_iter().chain(&source.package).chain(&source.go_version).chain(&source.tags);
    for word in words {
        if word.is_empty() || word.starts_with('-') || word.chars().any(|c| c.is_whitespace() || c.is_control() || c == '"') {
            return Err(BinaryError::BadSource(format!("goModule with the unusable word {word:?}")));
        }
    }
    Ok(())
}

/// The program, in the bench's folder, and the module's version as Go names it.
pub(super) async fn build(bench: &Bench, source: &GoModule) -> Result<(PathBuf, String), BinaryError> {
    let path = bench.env.get("PATH").map_or("", String::as_str);
    let go = tool::find("go", path).ok_or_else(|| BinaryError::ToolMissing { tool: "go", purpose: bench.subject.clone(), install: INSTALL_GO })?;
    bench.lines.say(format!("asking for {}@{}", source.module, source.version));
    let fetch = ["mod", "download", "-json", &format!("{}@{}", source.module, source.version)].map(OsString::from).to_vec();
    let fetched = run(bench, &go, "go mod download", fetch, "local", STEP_TIMEOUT).await?;
    let downloaded: Downloaded = read_json(bench, "go mod download", &fetched)?;
    let edit = vec!["mod".into(), "edit".into(), "-json".into(), downloaded.go_mod.into_os_string()];
    let go_mod: GoMod = read_json(bench, "go mod edit", &run(bench, &go, "go mod edit", edit, "local", STEP_TIMEOUT).await?)?;
    let toolchain = toolchain(source, &go_mod);
    let package = package(source);
    write(&bench.cwd.join("go.mod"), &own_go_mod(source, &downloaded.version, &go_mod))?;
    write(&bench.cwd.join("tools.go"), &format!("//go:build tools\n\npackage tools\n\nimport _ \"{package}\"\n"))?;
    bench.lines.say(format!("choosing dependencies with toolchain {toolchain}"));
    run(bench, &go, "go mod tidy", vec!["mod".into(), "tidy".into()], &toolchain, STEP_TIMEOUT).await?;
    let out = bench.cwd.join("out").join(program_name(&package));
    bench.lines.say(format!("compiling {package}; this can take minutes"));
    run(bench, &go, "go build", build_args(source, &package, &out), &toolchain, BUILD_TIMEOUT).await?;
    Ok((out, downloaded.version))
}

async fn run(bench: &Bench, go: &Path, name: &str, args: Vec<OsString>, toolchain: &str, timeout: Duration) -> Result<String, BinaryError> {
    let env = [("GOTOOLCHAIN", toolchain), ("GOWORK", "off"), ("GO111MODULE", "on")];
    bench.run(Step { name, program: go, args, env: &env, timeout }).await
}

fn build_args(source: &GoModule, package: &str, out: &Path) -> Vec<OsString> {
    let mut args: Vec<OsString> = ["build", "-v", "-mod=mod", "-o"].map(OsString::from).to_vec();
    args.push(out.into());
    if !source.tags.is_empty() {
        args.extend(["-tags".into(), source.tags.join(",").into()]);
    }
    if let Some(flags) = &source.ldflags {
        args.extend(["-ldflags".into(), flags.into()]);
    }
    args.push(package.into());
    args
}

/// The main package's whole import path: `cmd/x` and `./cmd/x` are meant within the module.
fn package(source: &GoModule) -> String {
    match source.package.as_deref() {
        None | Some("" | ".") => source.module.clone(),
        Some(package) if package == source.module || package.starts_with(&format!("{}/", source.module)) => package.to_owned(),
        Some(package) => format!("{}/{}", source.module, package.trim_start_matches("./")),
    }
}

/// As `go install` names it: the last element that is not a major version.
fn program_name(package: &str) -> &str {
    let is_major = |part: &str| part.strip_prefix('v').is_some_and(|digits| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()));
    package.rsplit('/').find(|part| !is_major(part)).unwrap_or("program")
}

/// What the source says, else the module's `toolchain` line, else its `go` line. Before Go 1.21 that line was no toolchain's name,
/// and any newer one builds it.
fn toolchain(source: &GoModule, go_mod: &GoMod) -> String {
    if let Some(version) = &source.go_version {
        return if version.starts_with("go") { version.clone() } else { format!("go{version}") };
    }
    if let Some(toolchain) = go_mod.toolchain.as_ref().filter(|toolchain| toolchain.name.starts_with("go")) {
        return toolchain.name.clone();
    }
    let Some(version) = &go_mod.go else { return "local".to_owned() };
    let mut parts = version.split('.');
    match (parts.next(), parts.next().and_then(|minor| minor.parse::<u32>().ok()), parts.next()) {
        (Some("1"), Some(minor), patch) if minor >= 21 => format!("go1.{minor}.{}", patch.unwrap_or("0")),
        // A release candidate, `1.24rc1`, is a whole name.
        (Some("1"), None, None) if version.contains("rc") => format!("go{version}"),
        _ => "local".to_owned(),
    }
}

fn own_go_mod(source: &GoModule, version: &str, theirs: &GoMod) -> String {
    let mut text = "module devnet.builder/build\n".to_owned();
    if let Some(go) = &theirs.go {
        text += &format!("\ngo {go}\n");
    }
    text += &format!("\nrequire {} {version}\n", source.module);
    for replace in theirs.replace.iter().flatten().filter(|replace| !is_folder(&replace.new)) {
        let (old, new) = (&replace.old, &replace.new);
        text += &format!("\nreplace {} => {} {}\n", with_version(old), new.path, new.version);
    }
    for exclude in theirs.exclude.iter().flatten() {
        text += &format!("\nexclude {}\n", with_version(exclude));
    }
    text
}

/// A replacement by a folder has no version; it lies in the authors' tree, not in ours.
fn is_folder(module: &Module) -> bool {
    module.version.is_empty()
}

fn with_version(module: &Module) -> String {
    if module.version.is_empty() { module.path.clone() } else { format!("{} {}", module.path, module.version) }
}

fn read_json<T: for<'de> Deserialize<'de>>(bench: &Bench, step: &str, text: &str) -> Result<T, BinaryError> {
    serde_json::from_str(text).map_err(|error| BinaryError::StepFailed {
        subject: bench.subject.clone(),
        step: step.to_owned(),
        status: format!("its answer cannot be read: {error}"),
        tail: text.chars().take(2000).collect(),
        log: bench.log.clone(),
    })
}

fn write(path: &Path, text: &str) -> Result<(), BinaryError> {
    fs::write(path, text).map_err(BinaryError::io("write", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(package: Option<&str>) -> GoModule {
        GoModule { module: "example.org/chain/v2".into(), version: "v2.1.0".into(), package: package.map(Into::into), ..GoModule::default() }
    }

    #[test]
    fn packages_are_meant_within_their_module() {
        let check = |given: Option<&str>, want: &str, program: &str| {
            let package = package(&source(given));
            assert_eq!((package.as_str(), program_name(&package)), (want, program));
        };
        check(None, "example.org/chain/v2", "chain");
        check(Some("./cmd/chaind"), "example.org/chain/v2/cmd/chaind", "chaind");
        check(Some("cmd/chaind"), "example.org/chain/v2/cmd/chaind", "chaind");
        check(Some("example.org/chain/v2/cmd/chaind"), "example.org/chain/v2/cmd/chaind", "chaind");
    }

    #[test]
    fn the_toolchain_is_the_one_that_the_module_names() {
        let check = |go: Option<&str>, line: Option<&str>, own: Option<&str>, want: &str| {
            let source = GoModule { go_version: own.map(Into::into), ..source(None) };
            let line = line.map(|name| Toolchain { name: name.into() });
            assert_eq!(toolchain(&source, &GoMod { go: go.map(Into::into), toolchain: line, ..GoMod::default() }), want);
        };
        check(Some("1.23.1"), None, None, "go1.23.1");
        check(Some("1.23.1"), Some("go1.23.4"), None, "go1.23.4");
        check(Some("1.23.1"), Some("go1.23.4"), Some("1.22.3"), "go1.22.3");
        check(Some("1.22"), Some("default"), None, "go1.22.0");
        check(Some("1.19"), None, None, "local");
        check(None, None, None, "local");
    }

    #[test]
    fn replacements_are_taken_over_but_for_folders() {
        let theirs = r#"{"Go": "1.23.1", "Replace": [
            {"Old": {"Path": "a.org/x"}, "New": {"Path": "b.org/x", "Version": "v1.0.1"}},
            {"Old": {"Path": "a.org/y", "Version": "v2.0.0"}, "New": {"Path": "../y"}}], "Exclude": [{"Path": "c.org/z", "Version": "v0.1.0"}]}"#;
        let text = own_go_mod(&source(None), "v2.1.0", &serde_json::from_str(theirs).unwrap());
        let lines: Vec<_> = text.lines().filter(|line| !line.is_empty()).collect();
        assert_eq!(
            lines,
            [
                "module devnet.builder/build",
                "go 1.23.1",
                "require example.org/chain/v2 v2.1.0",
                "replace a.org/x => b.org/x v1.0.1",
                "exclude c.org/z v0.1.0"
            ]
        );
    }

    #[test]
    fn only_whole_versions_are_pinned() {
        for pinned in ["v1.2.3", "v0.0.0-20240101000000-abcdefabcdef", "v2.0.0+incompatible"] {
            assert!(is_pinned(pinned), "{pinned}");
        }
        for open in ["latest", "main", "v1", "v1.2", "1.2.3", "v1..3"] {
            assert!(!is_pinned(open), "{open}");
        }
    }
}
